//! The rack's side of the link, as `rack::link` and `rack::agent` have it: plans into force, orders to their errands, Hello and clock.

use std::{net::IpAddr, time::Duration};

use actors::{
    agent::{Agent, AgentEvent},
    errand::{Errand, ErrandEvent},
};
use schema::{
    id::{Generation, ReportSeq},
    messages::{
        link::{ClockReport, FromRack, Hello, PlanUpdate, RackInterface, ToRack},
        report::Fact,
    },
    net::Cidr,
    plan::{BootPurpose, Ticket},
    service::{Health, ServiceError, ServiceStatus},
};

use super::RackEv;
use crate::seeds::{
    hosted::{Hosted, Tag, Who, tell},
    world::World,
};

/// The region, as racks are configured with it.
pub(super) const REGION: &str = "region:5250";
const CLOCK: Duration = Duration::from_secs(60);
/// As `rack::state` looks for room.
const ROOM: Duration = Duration::from_secs(5);

impl World {
    pub(in crate::seeds) fn rack_linked(&mut self, rack: usize, last: ReportSeq) {
        let node = &mut self.racks[rack];
        if node.disk.last < last.0 {
            self.laws
                .broken(format!("the region has report {last} of rack {rack}, which wrote {} only", node.disk.last));
        }
        node.disk.forget(last);
        node.memory.acked = last;
        node.memory.welcomed = Some(last);
        let address = REGION.to_owned();
        let region = schema::id::SystemId::from_draws([9; 6]);
        tell::<Agent>(self, Who::Agent(rack), AgentEvent::LinkUp { address, region }, Tag::Nobody);
    }

    pub(in crate::seeds) fn rack_unlinked(&mut self, rack: usize, why: &str) {
        let memory = &mut self.racks[rack].memory;
        memory.listening = false;
        memory.welcomed = None;
        memory.inbox.clear();
        if let Some(sending) = &mut memory.sending {
            sending.down();
        }
        let (address, why, remedy) = (REGION.to_owned(), why.to_owned(), "check the region".to_owned());
        tell::<Agent>(self, Who::Agent(rack), AgentEvent::LinkDown { address, why, remedy }, Tag::Nobody);
    }

    /// The Hello goes out; reports follow it.
    pub(super) fn say_hello(&mut self, rack: usize) {
        let now = self.rack_now(rack);
        let node = &self.racks[rack];
        let Some(agent) = &node.memory.agent else { return };
        let address = IpAddr::V4(node.address);
        let Ok(cidr) = Cidr::new(address, 24) else { return };
        let hello = Hello {
            version: "yard".into(),
            hostname: format!("rack-{rack}"),
            plan: agent.core.plan,
            interfaces: vec![RackInterface { name: "eth0".into(), mac: None, addresses: vec![(address, cidr)] }],
            listening: Vec::new(),
            orders: agent.core.orders.iter().map(|(machine, attempt)| (*machine, *attempt)).collect(),
            now,
        };
        if !self.say_to_region(rack, FromRack::Hello(hello)) {
            return;
        }
        let memory = &mut self.racks[rack].memory;
        if let Some(last) = memory.welcomed.take() {
            memory.listening = true;
            if let Some(sending) = &mut memory.sending {
                sending.up(last);
            }
        }
        let leases = self.racks[rack].memory.leases.values().flat_map(|l| l.core.granted_here(now)).collect::<Vec<_>>();
        if !leases.is_empty() {
            self.say_to_region(rack, FromRack::Leases(leases));
        }
        self.tell_clock(rack);
        self.tell_services(rack);
        let strays = self.racks[rack].memory.strays_said.clone();
        if !strays.is_empty() {
            self.say_to_region(rack, FromRack::Strays(strays));
        }
        self.drain(rack);
        self.fetch(rack);
    }

    /// Whether the disk refuses a write now. The process learns it by this, and says so: its words need no disk.
    pub(super) fn refuses(&mut self, rack: usize) -> bool {
        let (full, refusal, now) = (self.racks[rack].disk.full, self.racks[rack].disk.refusal, self.rack_now(rack));
        let standing = &self.racks[rack].memory.standing;
        let before = standing.trouble().is_some();
        if full {
            standing.refused(refusal, now);
        } else {
            standing.took();
        }
        if before != full {
            self.tell_services(rack);
        }
        if full && !before {
            self.for_rack(ROOM, rack, RackEv::Room);
        }
        full
    }

    pub(super) fn look_for_room(&mut self, rack: usize) {
        if self.racks[rack].memory.standing.trouble().is_some() && self.refuses(rack) {
            self.for_rack(ROOM, rack, RackEv::Room);
        }
    }

    /// How the services stand, as `rack::services` says it; here only when it is another.
    pub(in crate::seeds) fn tell_services(&mut self, rack: usize) {
        let serving = |service: &str| ServiceStatus {
            service: service.into(),
            health: Health::Running,
            since: crate::seeds::world::BEGIN,
            addresses: Vec::new(),
            counters: Vec::new(),
            last_error: None,
            restarts: 0,
        };
        let dead = self.racks[rack].dead.clone();
        let stands = |service| match dead.contains(service) {
            false => serving(service),
            true => ServiceStatus {
                health: Health::Dead,
                last_error: Some(ServiceError {
                    at: crate::seeds::world::BEGIN,
                    why: "its port is taken by another program".into(),
                    remedy: format!("stop the other {service} server on the rack"),
                }),
                ..serving(service)
            },
        };
        let names = dead.iter().filter(|service| **service == "dns").copied();
        let services = ["dhcp", "http", "power", "tftp"].into_iter().chain(names).map(stands);
        let services = services.chain(self.racks[rack].memory.standing.trouble()).collect();
        if self.racks[rack].memory.listening {
            self.say_to_region(rack, FromRack::Services(services));
        }
    }

    pub(super) fn tell_clock(&mut self, rack: usize) {
        let report = ClockReport { now: self.rack_now(rack), synchronised: true };
        if self.say_to_region(rack, FromRack::Clock(report)) {
            self.for_rack(CLOCK, rack, RackEv::Clock);
        }
    }

    /// A word of the region; while a plan is on its way to the disk, later words wait.
    pub(in crate::seeds) fn rack_hears(&mut self, rack: usize, message: ToRack) {
        self.racks[rack].memory.inbox.push_back(message);
        self.read_inbox(rack);
    }

    fn read_inbox(&mut self, rack: usize) {
        while !self.racks[rack].memory.applying {
            let Some(message) = self.racks[rack].memory.inbox.pop_front() else { return };
            match message {
                ToRack::Plan(update) => self.take_plan(rack, update),
                ToRack::Order(order) => {
                    self.laws.an_order_has_a_cause(&self.region.store.machines, order.machine, order.attempt);
                    let machine = order.machine;
                    self.stand_aside(rack, machine);
                    self.tell_errand(rack, machine, ErrandEvent::Ordered { order: Box::new(order) });
                }
                ToRack::CancelOrder { machine, attempt } => {
                    self.tell_errand(rack, machine, ErrandEvent::Cancelled { attempt });
                }
                ToRack::Ack { through } => self.acked(rack, through),
                ToRack::Leases(leases) => self.hear_leases(rack, leases),
                ToRack::LeasesThrough { rack: of, through } => self.hear_through(rack, of, through),
                ToRack::Sweep(update) => self.watch_power(rack, *update),
                ToRack::SendHello => {
                    let address = REGION.to_owned();
                    tell::<Agent>(self, Who::Agent(rack), AgentEvent::HelloAsked { address }, Tag::Nobody);
                }
                _ => {}
            }
        }
    }

    fn tell_errand(&mut self, rack: usize, machine: schema::id::SystemId, event: ErrandEvent) {
        let errands = &mut self.racks[rack].memory.errands;
        errands.entry(machine).or_insert_with(|| Hosted::new(Errand::idle(machine)));
        tell::<Errand>(self, Who::Errand(rack, machine), event, Tag::Nobody);
    }

    fn take_plan(&mut self, rack: usize, update: Box<PlanUpdate>) {
        let have = self.racks[rack].memory.plan.plan.generation;
        if update.base.is_some_and(|base| base != have) {
            let address = REGION.to_owned();
            return tell::<Agent>(self, Who::Agent(rack), AgentEvent::PlanGap { address }, Tag::Nobody);
        }
        if self.refuses(rack) {
            return self.say(&format!("r{rack} cannot make plan {} durable", update.generation));
        }
        self.racks[rack].memory.applying = true;
        let wait = self.rack_write(rack);
        self.for_rack(wait, rack, RackEv::PlanDurable(update));
    }

    /// Durable first, then in force, then said.
    pub(super) fn plan_durable(&mut self, rack: usize, update: PlanUpdate) {
        let node = &mut self.racks[rack];
        let (generation, put): (Generation, Vec<Ticket>) = (update.generation, update.tickets.put.clone());
        node.disk.plan = node.disk.plan.after(update);
        node.memory.plan = std::sync::Arc::new(node.disk.plan.clone());
        node.memory.plan_version += 1;
        node.memory.applying = false;
        self.shares_change(rack);
        tell::<Agent>(self, Who::Agent(rack), AgentEvent::PlanInForce { generation }, Tag::Nobody);
        self.hold(rack, put);
        self.read_inbox(rack);
    }

    /// What a rack begins with: the tickets that its plan holds.
    pub(super) fn begin_listening(&mut self, rack: usize) {
        let open: Vec<Ticket> = self.racks[rack].memory.plan.tickets().map(|t| Ticket::clone(t)).collect();
        self.hold(rack, open);
    }

    /// Open tickets that came into force: said once each, and their bodies fetched.
    fn hold(&mut self, rack: usize, tickets: Vec<Ticket>) {
        let now = self.rack_now(rack);
        for ticket in tickets.into_iter().filter(|t| t.purpose == BootPurpose::Commissioning && t.expires > now) {
            self.laws.a_ticket_has_a_cause(&self.region.store.machines, ticket.machine, ticket.attempt);
            self.report(rack, ticket.machine, ticket.attempt, Fact::TicketHeld);
            self.want_bodies(rack, &ticket);
        }
        self.fetch(rack);
    }
}
