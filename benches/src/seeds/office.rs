//! The region of the deterministic yard: what stands on its disk, what it has in memory, and what happens to it beside its actors.
//! The hands of its actors are in `office/hands.rs`, its side of the link in `office/door.rs` and `office/copies.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use actors::{
    catalogue::{Catalogue, CatalogueEvent},
    core::Core,
    machine::{Life, Machine},
    rack::{Duty, LinkState, Rack, RackEvent, Unfit},
    reach::Reached,
    session::Receiving,
    subnet::Subnet,
};
use region::{
    briefs, plans,
    plans::Told,
    store::Stalled,
    tickets::Tickets,
    turns::{self, Turns},
};
use schema::{
    boot::{BodyRef, Sha256},
    catalogue::{Catalogue as Content, CatalogueItem},
    id::{AttemptId, RackId, ReportSeq, ResultId, SubnetId, SystemId},
    messages::{
        link::{ForeignDhcp, Hello, PlanUpdate, Stray},
        machine::{Ailment, Brief, CommissionOptions, MachineEvent, MachineSpec},
    },
    plan::{Lease, NodeKey},
    script::ResultStatus,
    secret::Secret,
    status::NodeStatus,
    time::Timestamp,
};
use serde::de::DeserializeOwned;

use super::{
    hosted::{Hosted, Tag, Who, resume, tell},
    world::World,
};

mod copies;
mod door;
mod hands;
mod names;
mod ways;

/// How often somebody who was refused asks again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What stands on the region's disk.
#[derive(Default)]
pub(super) struct Store {
    pub(super) machines: BTreeMap<SystemId, String>,
    pub(super) racks: BTreeMap<RackId, String>,
    pub(super) subnets: BTreeMap<SubnetId, String>,
    pub(super) catalogue: Option<String>,
    pub(super) leases: BTreeMap<(SubnetId, Ipv4Addr), Lease>,
    /// Up to where each rack's reports are known to be durable.
    pub(super) seen: BTreeMap<usize, ReportSeq>,
    pub(super) keys: BTreeMap<(SystemId, AttemptId), [String; 3]>,
    pub(super) results: BTreeMap<ResultId, ResultStatus>,
    pub(super) hardware: BTreeSet<SystemId>,
    pub(super) bodies: BTreeMap<Sha256, Vec<u8>>,
    pub(super) last_result: i64,
    /// What was learned of the ways to BMCs.
    reach: BTreeMap<(String, RackId), Reached>,
    /// Between these two it does not answer.
    pub(super) away: (Timestamp, Timestamp),
    /// The runner, which every machine gets as its user-data.
    pub(super) user_data: Option<BodyRef>,
}

impl Store {
    /// As the product's own store says it.
    pub(super) fn stalled(&self, now: Timestamp) -> Option<Stalled> {
        let (since, until) = self.away;
        (since + Stalled::AFTER <= now && now < until).then(|| Stalled { since, why: "no space left on device".into() })
    }
}

/// One connection, as the region keeps it.
pub(super) struct Conn {
    pub(super) hello: Option<Hello>,
    pub(super) told: Option<Told>,
    pub(super) whole: bool,
    pub(super) sections: bool,
    pub(super) marked: BTreeSet<SystemId>,
    /// A look at the marks is due.
    pub(super) gathering: bool,
    pub(super) updates: VecDeque<PlanUpdate>,
    pub(super) asking: bool,
    copies: copies::Copies,
    /// How many changes of names it was told.
    named: usize,
    /// The machines that the rack was told to watch; `None`: nothing yet.
    watched: Option<ways::Watched>,
}

/// The region.
pub(super) struct Region {
    pub(super) life: u32,
    pub(super) up: bool,
    /// When it started.
    pub(super) since: Timestamp,
    pub(super) store: Store,
    pub(super) machines: BTreeMap<SystemId, Hosted<Machine>>,
    pub(super) racks: BTreeMap<RackId, Hosted<Rack>>,
    pub(super) subnets: BTreeMap<SubnetId, Hosted<Subnet>>,
    pub(super) catalogue: Option<Hosted<Catalogue>>,
    pub(super) tickets: Tickets,
    pub(super) turns: Turns,
    /// Somebody is going to look whose turn it is.
    turns_looked_for: bool,
    pub(super) sessions: BTreeMap<usize, Receiving>,
    pub(super) conns: BTreeMap<usize, Conn>,
    /// When reports came whose steps are not durable yet, by rack and number.
    came: BTreeMap<(usize, ReportSeq), Timestamp>,
    names: names::Names,
    ways: ways::Ways,
    /// Up to when each rack has told all its leases, by its own clock.
    through: BTreeMap<RackId, Timestamp>,
    pub(super) foreign: BTreeMap<RackId, Vec<ForeignDhcp>>,
    pub(super) strays: BTreeMap<RackId, Vec<Stray>>,
    /// For spans only; no output depends on it.
    base: Instant,
}

/// What happens to it.
pub(super) enum RegionEv {
    /// The operator asks for that machine's commissioning, until it is under way.
    Commission(SystemId),
    /// A ticket is composed, its key sealed.
    Publish {
        machine: Box<Machine>,
        attempt: AttemptId,
        racks: Vec<RackId>,
        expires: Timestamp,
    },
    Gather {
        rack: usize,
    },
    /// Somebody looks whose turn it is.
    Turns,
    Turn(SystemId),
    /// Which rack watches what may be another.
    Assign,
}

impl Region {
    pub(super) fn new() -> Self {
        Self {
            life: 0,
            up: false,
            since: Timestamp(0),
            store: Store::default(),
            machines: BTreeMap::new(),
            racks: BTreeMap::new(),
            subnets: BTreeMap::new(),
            catalogue: None,
            tickets: Tickets::default(),
            turns: Turns::default(),
            turns_looked_for: false,
            sessions: BTreeMap::new(),
            conns: BTreeMap::new(),
            came: BTreeMap::new(),
            names: names::Names::default(),
            ways: ways::Ways::default(),
            through: BTreeMap::new(),
            foreign: BTreeMap::new(),
            strays: BTreeMap::new(),
            base: actors::clock::tick(),
        }
    }

    /// What the catalogue holds.
    pub(super) fn content(&self) -> &Content {
        static NOTHING: std::sync::LazyLock<Content> = std::sync::LazyLock::new(Content::default);
        self.catalogue.as_ref().map_or(&NOTHING, |catalogue| &catalogue.core.content)
    }

    fn fit(&self, rack: RackId, duty: Duty) -> Result<(), Unfit> {
        let unknown = || Unfit { why: "it is not enrolled".into(), remedy: "enrol it with a token".into() };
        let known = self.racks.get(&rack).zip(self.content().racks.get(&rack));
        known.ok_or_else(unknown).and_then(|(hosted, entry)| hosted.core.fit(duty, entry))
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

impl World {
    pub(super) fn region_event(&mut self, what: RegionEv) {
        match what {
            RegionEv::Commission(machine) => self.ask_to_commission(machine),
            RegionEv::Publish { machine, attempt, racks, expires } => self.publish(&machine, attempt, racks, expires),
            RegionEv::Assign => self.assign(),
            RegionEv::Gather { rack } => self.gather(rack),
            RegionEv::Turns => {
                self.region.turns_looked_for = false;
                for machine in self.region.turns.due(self.tick()) {
                    self.for_region(Duration::from_micros(500), RegionEv::Turn(machine));
                }
                self.look_for_turns();
            }
            RegionEv::Turn(machine) => {
                if let Some(core) = self.machine_core(machine) {
                    let brief = self.brief(&core, None);
                    self.wake_machine(machine);
                    tell::<Machine>(self, Who::Machine(machine), MachineEvent::Turn { brief }, Tag::Nobody);
                }
            }
        }
    }

    /// As `region::app::start` does ten times a second; here only while machines wait.
    pub(super) fn look_for_turns(&mut self) {
        if !self.region.turns_looked_for && self.region.turns.counts().waiting > 0 {
            self.region.turns_looked_for = true;
            self.for_region(turns::TICK, RegionEv::Turns);
        }
    }

    /// The catalogue is put in, the machines are made, and the region opens its door.
    pub(super) fn found_region(&mut self, items: Vec<CatalogueItem>, specs: Vec<MachineSpec>) {
        let first = Catalogue::first();
        let filled = first.step(&CatalogueEvent::PutAll { by: "yard".into(), items }, self.queue.now);
        if let actors::core::Verdict::Refused { why, remedy } = &filled.verdict {
            self.laws.broken(format!("the yard's own catalogue is refused: {why}; {remedy}"));
        }
        let catalogue = filled.next.unwrap_or(first);
        self.region.store.catalogue = serde_json::to_string(&catalogue).ok();
        for spec in specs {
            let id = spec.system_id;
            let created = Machine::absent(id).step(&MachineEvent::Created { by: "yard".into(), spec }, self.queue.now);
            if let Some(text) = created.next.and_then(|machine| serde_json::to_string(&machine).ok()) {
                self.region.store.machines.insert(id, text);
            }
        }
        self.start_region();
    }

    /// `kill -9`. What stands on the disk stands; the rest is lost.
    pub(super) fn kill_region(&mut self) {
        self.say("region killed");
        let store = std::mem::take(&mut self.region.store);
        let life = self.region.life + 1;
        self.region = Region { store, life, ..Region::new() };
        for rack in 0..self.links.len() {
            self.links[rack].region_up = false;
            self.half_dead(rack);
        }
    }

    /// As `region::app::start` wakes what waits: the catalogue, every ticket, actors with a deadline; racks that were connected are away.
    pub(super) fn start_region(&mut self) {
        if self.region.up {
            return;
        }
        self.say("region starts");
        (self.region.up, self.region.since) = (true, self.queue.now);
        let now = self.queue.now;
        let catalogue = self.region.store.catalogue.as_deref().and_then(read::<Catalogue>);
        self.region.catalogue = Some(Hosted::new(catalogue.unwrap_or_default()));
        self.region.ways = ways::Ways::of(self.region.store.reach.values().cloned());
        let stored: Vec<(SystemId, Machine)> =
            self.region.store.machines.iter().filter_map(|(id, text)| Some((*id, read(text)?))).collect();
        self.laws.all_readable(stored.len(), self.region.store.machines.len());
        for (_, machine) in &stored {
            self.region.tickets.note(machine);
        }
        for (id, machine) in stored {
            if machine.wait.is_some() {
                // As `App::machine` does.
                self.region.turns.note(&machine);
                self.wake_machine(id);
            }
        }
        self.look_for_turns();
        let racks: Vec<_> = self.region.content().racks.keys().copied().collect();
        for id in racks {
            let stored = self.region.store.racks.get(&id).and_then(|text| read(text));
            let rack = stored.unwrap_or_else(|| Rack::enrolled(id, now));
            let connected = rack.link == LinkState::Connected;
            let last_report = rack.last_report;
            self.region.racks.insert(id, Hosted::new(rack));
            resume::<Rack>(self, Who::Rack(id));
            if connected {
                let why = "the region restarted".to_owned();
                tell::<Rack>(self, Who::Rack(id), RackEvent::Disconnected { why, last_report }, Tag::Nobody);
            }
        }
        let subnets: Vec<_> = self.region.content().subnets.keys().copied().collect();
        for id in subnets {
            let rows = &self.region.store.leases;
            let leases: Vec<Lease> =
                rows.iter().filter(|((s, _), l)| *s == id && l.expires > now).map(|(_, lease)| lease.clone()).collect();
            let stored = self.region.store.subnets.get(&id).and_then(|text| read(text));
            let subnet: Subnet = stored.unwrap_or_else(|| Subnet::empty(id));
            self.region.subnets.insert(id, Hosted::new(subnet.with_leases(leases)));
            resume::<Subnet>(self, Who::Subnet(id));
        }
    }

    /// A machine's actor, woken from the store if it sleeps. `false`: there is none.
    pub(super) fn wake_machine(&mut self, id: SystemId) -> bool {
        if self.region.machines.contains_key(&id) {
            return true;
        }
        let Some(machine) = self.region.store.machines.get(&id).and_then(|text| read(text)) else { return false };
        self.region.machines.insert(id, Hosted::new(machine));
        resume::<Machine>(self, Who::Machine(id));
        true
    }

    /// The machine as its actor has it, or as it is stored.
    pub(super) fn machine_core(&self, id: SystemId) -> Option<Machine> {
        match self.region.machines.get(&id) {
            Some(hosted) => Some(Machine::clone(&hosted.core)),
            None => self.region.store.machines.get(&id).and_then(|text| read(text)),
        }
    }

    /// Somebody asks over the API, and again when it is refused or the region is away.
    fn ask_to_commission(&mut self, id: SystemId) {
        let Some(core) = self.machine_core(id) else { return };
        if core.life != Life::Present || core.status != NodeStatus::New || core.attempt.is_some() {
            return;
        }
        self.for_region(ASK_AGAIN, RegionEv::Commission(id));
        let options = CommissionOptions::default();
        let brief = self.brief(&core, Some(&options));
        self.wake_machine(id);
        let event = MachineEvent::Commission { by: "operator".into(), options, brief };
        tell::<Machine>(self, Who::Machine(id), event, Tag::Nobody);
    }

    /// What a decision about that machine needs, as `region::app` looks it up.
    fn brief(&mut self, machine: &Machine, options: Option<&CommissionOptions>) -> Brief {
        let (address, vlan) = (machine.spec.power.address(), machine.spec.vlan);
        let racks = briefs::Racks {
            linked: self.connected(),
            ails: |id| self.region.fit(id, Duty::Boot).err().map(Ailment::from),
            awaited: || self.awaited_racks().into_iter().map(|(id, _)| id).collect(),
            bmc: self.bmc_racks(address, vlan),
            awaited_bmc: || self.awaited_bmc_racks(address, vlan),
        };
        let (brief, scripts) = briefs::compose(self.region.content(), racks, &machine.spec, options);
        let Some(_) = options else { return brief };
        let first = self.region.store.last_result + 1;
        self.region.store.last_result += i64::try_from(scripts.len()).unwrap_or(0);
        let place = self.region.turns.ask(machine.spec.system_id, self.tick());
        self.look_for_turns();
        briefs::with_results(Brief { place, ..brief }, &scripts, first)
    }

    /// Racks that said what they are.
    pub(super) fn connected(&self) -> Vec<RackId> {
        let mut ids: Vec<_> =
            self.region.conns.iter().filter(|(_, c)| c.hello.is_some()).map(|(n, _)| self.racks[*n].id).collect();
        ids.sort();
        ids
    }

    /// As `App::publish`: the key is minted once per attempt and kept, then the ticket goes into the plans.
    fn publish(&mut self, machine: &Machine, attempt: AttemptId, racks: Vec<RackId>, expires: Timestamp) {
        let id = machine.spec.system_id;
        let Some(open) = machine.open_attempt().filter(|a| a.id == attempt) else { return };
        let mut draw = || format!("{:016x}{:016x}", self.draw.bits(), self.draw.bits());
        let fresh = [draw(), draw(), draw()];
        let key = self.region.store.keys.entry((id, attempt)).or_insert(fresh).clone();
        let [consumer_key, token_key, secret] = key;
        let key = NodeKey { consumer_key, token_key, token_secret: Secret::new(secret) };
        let user_data = self.region.store.user_data.unwrap_or(open.image.kernel);
        let boot = plans::ticket_boot(self.region.content(), open, key, user_data);
        if self.region.tickets.publish(id, plans::BootRow { attempt, racks, expires, boot }) {
            self.mark(id);
        }
    }

    /// That machine's ticket changed.
    pub(super) fn mark(&mut self, machine: SystemId) {
        let vlan = self.region.tickets.vlan(machine);
        let racks = vlan.map(|vlan| plans::vlan_racks(self.region.content(), vlan));
        let all: Vec<usize> = self.region.conns.keys().copied().collect();
        for rack in all {
            if racks.as_ref().is_none_or(|only| only.contains(&self.racks[rack].id)) {
                if let Some(conn) = self.region.conns.get_mut(&rack) {
                    conn.marked.insert(machine);
                }
                self.gather_soon(rack);
            }
        }
    }

    /// The sections of every plan may differ.
    pub(super) fn mark_sections(&mut self) {
        self.compose_names();
        let all: Vec<usize> = self.region.conns.keys().copied().collect();
        for rack in all {
            if let Some(conn) = self.region.conns.get_mut(&rack) {
                conn.sections = true;
            }
            self.gather_soon(rack);
        }
    }

    /// How long a write takes, with the store's absence.
    pub(super) fn store_takes(&mut self) -> Duration {
        self.region.store.away.1.since(self.queue.now) + self.weather.disk(&mut self.draw)
    }

    /// A span's point in virtual time.
    pub(super) fn tick(&self) -> Instant {
        self.region.base + self.queue.now.since(super::world::BEGIN)
    }
}
