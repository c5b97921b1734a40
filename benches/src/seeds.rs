//! The deterministic yard: the real cores of region and racks, the racks' pure answers, the session of reports and the simulated machines,
//! on one virtual clock and a seeded network. No runtime, no socket, no wall clock: the same seed gives the same journal.
//!
//! The hands are mirrored in a small shell (`hosted`): what they promise (no effect before its cause is durable, `resume` after a restart,
//! sequence numbers) is kept, and looked at after every event (`laws`). What is injected is known (`faults`), and so is the oracle.

use std::{collections::BTreeMap, time::Duration};

use region::api::explain;
use schema::{
    boot::{BodyRef, Sha256},
    id::SystemId,
    power::PowerType,
    status::NodeStatus,
    time::Timestamp,
};
use serde_json::Value;

mod cell;
mod controller;
pub mod corpus;
pub mod drawn;
mod faults;
mod furniture;
mod hosted;
mod laws;
mod link;
mod metal;
mod office;
mod queue;
mod weather;
mod world;

use self::{
    cell::Rack,
    laws::Laws,
    link::Link,
    metal::Metal,
    queue::{Journal, Queue},
    world::{BEGIN, Ev, World},
};
pub use self::{
    faults::{Chaos, Ill},
    weather::{Way, Weather},
};
use crate::hardware::{Draw, Hardware};

/// What a yard is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct House {
    /// Addresses of each network.
    pub pool: u8,
    /// Two racks serve each network.
    pub pairs: bool,
    /// Racks answer for names, and lead machines to themselves by the internal one.
    pub names: bool,
    /// No image for the machines' architecture.
    pub no_image: bool,
    /// DHCP is off on the machines' VLANs.
    pub no_dhcp: bool,
    /// The machines' VLANs have no rack.
    pub no_rack: bool,
    /// Boot files that the catalogue does not name.
    pub without: Vec<&'static str>,
    /// Bodies that the region does not have.
    pub lost: Vec<&'static str>,
    /// The operator asks for so many of the machines only.
    pub asked: Option<usize>,
    /// That machine was entered with the first one's power address.
    pub same_power: Option<u32>,
}

impl Default for House {
    fn default() -> Self {
        Self {
            pool: 250,
            pairs: false,
            names: false,
            no_image: false,
            no_dhcp: false,
            no_rack: false,
            without: Vec::new(),
            lost: Vec::new(),
            asked: None,
            same_power: None,
        }
    }
}

/// One simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    pub seed: u64,
    pub machines: u32,
    pub racks: usize,
    pub weather: Weather,
    pub house: House,
    /// By machine.
    pub ills: Vec<(u32, Ill)>,
    /// After the beginning.
    pub chaos: Vec<(Duration, Chaos)>,
    /// Keep the journal's lines.
    pub trace: bool,
    /// It ends then, at the latest.
    pub limit: Duration,
}

impl Scenario {
    /// Racks on each network.
    #[must_use]
    pub fn racks_per_wire(&self) -> usize {
        if self.house.pairs { 2 } else { 1 }
    }

    /// Nothing goes wrong.
    #[must_use]
    pub fn fair(seed: u64, machines: u32) -> Self {
        let racks = usize::try_from(machines.div_ceil(200).max(2)).unwrap_or(2);
        Self {
            seed,
            machines,
            racks,
            weather: Weather::fair(),
            house: House::default(),
            ills: Vec::new(),
            chaos: Vec::new(),
            trace: false,
            limit: Duration::from_secs(4 * 3_600),
        }
    }
}

/// How one machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub hostname: String,
    /// Its network.
    pub wire: usize,
    pub status: NodeStatus,
    pub error: String,
    /// What the operator was refused, where it never began.
    pub refused: Option<String>,
    /// What the machine itself waited for in vain, at its last boot.
    pub hung: Option<String>,
    pub boots: u32,
    /// What its BMC speaks.
    pub power: PowerType,
    pub is_on: bool,
    pub ills: Vec<Ill>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub hash: Sha256,
    pub lines: Vec<String>,
    pub journal: u64,
    pub machines: Vec<Ended>,
    /// Laws that were broken, in words.
    pub broken: Vec<String>,
    pub checks: u64,
    pub events: u64,
    pub steps: u64,
    /// Virtual time.
    pub took: Duration,
    /// The most reports that waited on a rack.
    pub most_waiting: usize,
}

impl Outcome {
    /// Machines in that status.
    #[must_use]
    pub fn count(&self, status: NodeStatus) -> usize {
        self.machines.iter().filter(|m| m.status == status).count()
    }
}

/// A yard that runs.
pub struct Yard(World);

impl Yard {
    /// A yard at its beginning.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        let draw = Draw::of(scenario.seed, 0x7961_7264);
        let per = scenario.racks_per_wire();
        let racks: Vec<Rack> = (0..scenario.racks)
            .map(|n| Rack::new(furniture::rack_id(n), n / per, furniture::rack_address(n, per)))
            .collect();
        let wires = (scenario.racks / per).max(1);
        let metals: Vec<Metal> = (0..scenario.machines)
            .map(|index| {
                let wire = usize::try_from(index).unwrap_or(0) % wires;
                let hardware = Hardware::draw(scenario.seed, index, u32::try_from(wire).unwrap_or(0), true);
                let hostname = format!("yard-{index:04}");
                Metal::new(furniture::machine_id(index), hostname, hardware, wire, scenario.seed)
            })
            .collect();
        let links = racks.iter().map(|_| Link::default()).collect();
        let by_id: BTreeMap<SystemId, usize> = metals.iter().enumerate().map(|(n, m)| (m.id, n)).collect();
        let by_rack = racks.iter().enumerate().map(|(n, r)| (r.id, n)).collect();
        let mut world = World {
            queue: Queue::new(BEGIN),
            draw,
            journal: Journal::new(scenario.trace),
            laws: Laws::default(),
            weather: scenario.weather.clone(),
            cuts: Default::default(),
            region: office::Region::new(),
            racks,
            metals,
            links,
            by_id,
            by_rack,
            scenario,
            steps: 0,
            events: 0,
            still: None,
        };
        world.open();
        Self(world)
    }

    /// Lets one thing happen. `false`: nothing is left, or the time is up.
    pub fn happen(&mut self) -> bool {
        let limit = BEGIN + self.0.scenario.limit;
        self.0.queue.soonest().is_some_and(|at| at <= limit) && self.0.happen()
    }

    /// Lets things happen until every machine has ended and all is told, or the time is up.
    pub fn run(&mut self) {
        let mut look = BEGIN;
        let mut rest = None;
        while self.happen() {
            let now = self.now();
            if now < look {
                continue;
            }
            look = now + Duration::from_secs(10);
            self.0.nothing_is_overdue();
            // What is asked for at the end (power off) has its time too.
            let until = match (self.all_ended(), rest) {
                (false, _) => None,
                (true, None) => {
                    // The last of it is told in peace.
                    self.0.still = Some(now + Duration::from_secs(150));
                    Some(now + Duration::from_secs(240))
                }
                (true, known) => known,
            };
            if rest.is_some_and(|until| until <= now) && until.is_some() {
                break;
            }
            rest = until;
        }
    }

    /// What came of it.
    #[must_use]
    pub fn end(mut self) -> Outcome {
        self.0.all_is_over();
        let world = self.0;
        let machines = world.metals.iter().map(|metal| ended(&world, metal)).collect();
        let (found, checks) = world.laws.found();
        let (broken, took) = (found.to_vec(), world.queue.now.since(BEGIN));
        let most_waiting = world.racks.iter().map(|rack| rack.disk.most).max().unwrap_or(0);
        let (events, steps) = (world.events, world.steps);
        let (hash, journal, lines) = world.journal.close();
        Outcome { hash, lines, journal, machines, broken, checks, events, steps, took, most_waiting }
    }

    /// Now, in virtual time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.queue.now
    }

    /// How long it has run, in virtual time.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now().since(BEGIN)
    }

    /// Whether every machine has ended, and nothing is under way.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        let chaos = self.0.scenario.chaos.iter().map(|(at, _)| *at).max().unwrap_or_default();
        if self.elapsed() <= chaos {
            return false;
        }
        let refused = |id| {
            let index = self.0.by_id.get(id).copied();
            index.is_some_and(|index| self.0.metals[index].refused.is_some())
        };
        self.0.region.store.machines.keys().all(|id| {
            let core = self.0.machine_core(*id);
            core.is_some_and(|m| m.wait.is_none() && (m.status != NodeStatus::New || refused(id)))
        })
    }

    /// The machine as its actor has it.
    #[must_use]
    pub fn machine(&self, index: u32) -> Option<actors::machine::Machine> {
        self.0.machine_core(furniture::machine_id(index))
    }

    /// What the operator was refused last.
    #[must_use]
    pub fn refused(&self, index: u32) -> Option<&str> {
        self.0.metals.get(usize::try_from(index).ok()?)?.refused.as_deref()
    }

    /// How often that machine was switched on.
    #[must_use]
    pub fn boots(&self, index: u32) -> u32 {
        usize::try_from(index).ok().and_then(|index| self.0.metals.get(index)).map_or(0, |metal| metal.boots)
    }

    /// The product's own explanation of that machine, now.
    #[must_use]
    pub fn explain(&self, index: u32) -> Value {
        let Some(machine) = self.machine(index) else { return Value::Null };
        let mut site = explain::SiteAils::new(self.0.region.store.stalled(self.now()));
        for rack in self.0.region.conns.keys().map(|n| self.0.racks[*n].id) {
            if let Some(hosted) = self.0.region.racks.get(&rack) {
                site.note(rack, &hosted.core);
            }
        }
        let heard: Vec<_> =
            self.0.region.foreign.iter().flat_map(|(id, all)| all.iter().map(|f| (*id, f.clone()))).collect();
        let strays = self.0.region.strays.iter().flat_map(|(id, all)| all.iter().map(|s| (*id, s.clone()))).collect();
        let strays = explain::strays::known(strays, |macs| self.0.region.tickets.of_macs(macs));
        let beside = explain::Beside { strays, same_power: self.0.region.tickets.of_power(&machine.spec) };
        explain::with(&machine, &site, &heard, &beside, self.now())
    }

    /// Does something to it now.
    pub fn inject(&mut self, chaos: Chaos) {
        self.0.chaos(chaos);
    }

    /// Does something to it later.
    pub fn later(&mut self, wait: Duration, chaos: Chaos) {
        self.0.queue.after(wait, Ev::Chaos(chaos));
    }

    /// An operator aborts what is under way on that machine.
    pub fn abort(&mut self, index: u32) {
        self.0.abort(usize::try_from(index).unwrap_or(usize::MAX));
    }
}

fn ended(world: &World, metal: &Metal) -> Ended {
    let core = world.machine_core(metal.id);
    Ended {
        hostname: metal.hostname.clone(),
        wire: metal.wire,
        status: core.as_ref().map(|m| m.status).unwrap_or_default(),
        error: core.map(|m| m.error).unwrap_or_default(),
        refused: metal.refused.clone(),
        hung: metal.hung.clone(),
        boots: metal.boots,
        power: metal.controller.power_type(),
        is_on: metal.controller.chassis().is_on(),
        ills: metal.ills.clone(),
    }
}

impl World {
    /// The doors open: region, racks, and the operator's wish.
    fn open(&mut self) {
        let (items, bodies) = furniture::items(self.racks.len(), self.scenario.racks_per_wire(), &self.scenario.house);
        for bytes in bodies {
            self.region.store.bodies.insert(Sha256::of(&bytes), bytes);
        }
        let runner = region::builtin::USER_DATA.as_bytes();
        self.region.store.user_data = Some(BodyRef { sha256: Sha256::of(runner), len: runner.len() as u64 });
        if let Some(wrong) = self.scenario.house.same_power {
            self.metals[wrong as usize].bmc = self.metals[0].bmc.clone();
            self.falls(wrong as usize, Ill::WiredTo(0));
        }
        let specs = self.metals.iter().map(furniture::spec).collect();
        self.found_region(items, specs);
        for (machine, ill) in self.scenario.ills.clone() {
            self.falls(usize::try_from(machine).unwrap_or(usize::MAX), ill);
        }
        for (at, chaos) in self.scenario.chaos.clone() {
            self.queue.after(at, Ev::Chaos(chaos));
        }
        for rack in 0..self.racks.len() {
            self.start_rack(rack);
        }
        let asked = self.scenario.house.asked.unwrap_or(usize::MAX);
        let ids: Vec<_> = self.metals.iter().map(|metal| metal.id).take(asked).collect();
        for (n, id) in (0..).zip(ids) {
            self.for_region(Duration::from_millis(1_500 + 20 * n), office::RegionEv::Commission(id));
        }
    }
}

/// Runs it from its beginning to its end.
#[must_use]
pub fn run(scenario: Scenario) -> Outcome {
    let mut yard = Yard::new(scenario);
    yard.run();
    yard.end()
}
