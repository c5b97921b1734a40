//! The deterministic yard as one value: nodes, network, virtual time; and the loop that lets things happen. What each does is next door.

use std::{collections::BTreeMap, time::Duration};

use actors::{
    agent::Agent, catalogue::Catalogue, errand::Errand, leases::SubnetLeases, machine::Machine, rack, subnet::Subnet,
};
use schema::{
    id::{RackId, SystemId},
    messages::link::{FromRack, ToRack},
    time::Timestamp,
};

use super::{
    Scenario,
    cell::{Rack, RackEv},
    controller::{Asked, Caller},
    faults::Chaos,
    hosted::{self, Later, Who},
    laws::Laws,
    link::Link,
    metal::{Metal, MetalEv},
    office::{Region, RegionEv},
    queue::{Journal, Queue},
    weather::{Cuts, Weather},
};
use crate::hardware::Draw;

/// When every simulation begins.
pub(super) const BEGIN: Timestamp = Timestamp(1_790_000_000_000_000);

/// Something that is due.
pub(super) enum Ev {
    Actor {
        who: Who,
        life: u32,
        later: Later,
    },
    Region {
        life: u32,
        what: RegionEv,
    },
    Rack {
        rack: usize,
        life: u32,
        what: RackEv,
    },
    Metal {
        index: usize,
        what: MetalEv,
    },
    /// Something reaches a machine's BMC.
    Bmc {
        index: usize,
        from: Caller,
        what: Asked,
    },
    /// The rack tries to connect.
    Dial {
        rack: usize,
        life: u32,
    },
    /// The link of that number has been silent for too long.
    Idle {
        rack: usize,
        number: u64,
        cut: u64,
    },
    ToRack {
        rack: usize,
        number: u64,
        message: Box<ToRack>,
    },
    FromRack {
        rack: usize,
        number: u64,
        message: Box<FromRack>,
    },
    Welcome {
        rack: usize,
        number: u64,
    },
    Chaos(Chaos),
}

/// All of it.
pub(super) struct World {
    pub(super) queue: Queue<Ev>,
    pub(super) draw: Draw,
    pub(super) journal: Journal,
    pub(super) laws: Laws,
    pub(super) weather: Weather,
    pub(super) cuts: Cuts,
    pub(super) region: Region,
    pub(super) racks: Vec<Rack>,
    pub(super) metals: Vec<Metal>,
    pub(super) links: Vec<Link>,
    pub(super) by_id: BTreeMap<SystemId, usize>,
    pub(super) by_rack: BTreeMap<RackId, usize>,
    pub(super) scenario: Scenario,
    pub(super) steps: u64,
    pub(super) events: u64,
    /// No sweep asks after that.
    pub(super) still: Option<Timestamp>,
}

impl World {
    /// Lets one thing happen. `false`: nothing is left.
    pub(super) fn happen(&mut self) -> bool {
        let Some(event) = self.queue.next() else { return false };
        self.events += 1;
        match event {
            Ev::Actor { who, life, later } => {
                if life == self.life_of(&who) {
                    self.actor(who, later);
                }
            }
            Ev::Region { life, what } => {
                if self.region.up && life == self.region.life {
                    self.region_event(what);
                }
            }
            Ev::Rack { rack, life, what } => {
                if self.racks[rack].up && life == self.racks[rack].life {
                    self.rack_event(rack, what);
                }
            }
            Ev::Metal { index, what } => self.metal_event(index, what),
            Ev::Bmc { index, from, what } => self.bmc_hears(index, from, what),
            Ev::Dial { rack, life } => self.dial(rack, life),
            Ev::Idle { rack, number, cut } => self.idle(rack, number, cut),
            Ev::Welcome { rack, number } => self.welcome(rack, number),
            Ev::ToRack { rack, number, message } => self.reached_rack(rack, number, *message),
            Ev::FromRack { rack, number, message } => self.reached_region(rack, number, *message),
            Ev::Chaos(chaos) => self.chaos(chaos),
        }
        true
    }

    fn actor(&mut self, who: Who, later: Later) {
        match who {
            Who::Machine(_) => hosted::later::<Machine>(self, who, later),
            Who::Rack(_) => hosted::later::<rack::Rack>(self, who, later),
            Who::Subnet(_) => hosted::later::<Subnet>(self, who, later),
            Who::Catalogue => hosted::later::<Catalogue>(self, who, later),
            Who::Agent(_) => hosted::later::<Agent>(self, who, later),
            Who::Errand(..) => hosted::later::<Errand>(self, who, later),
            Who::Leases(..) => hosted::later::<SubnetLeases>(self, who, later),
        }
    }

    /// Counts the lives of an actor's node: what was meant for an earlier one is lost.
    pub(super) fn life_of(&self, who: &Who) -> u32 {
        match who {
            Who::Machine(_) | Who::Rack(_) | Who::Subnet(_) | Who::Catalogue => self.region.life,
            Who::Agent(rack) | Who::Errand(rack, _) | Who::Leases(rack, _) => self.racks[*rack].life,
        }
    }

    /// The time by the clock of an actor's node.
    pub(super) fn now_at(&self, who: &Who) -> Timestamp {
        match who {
            Who::Machine(_) | Who::Rack(_) | Who::Subnet(_) | Who::Catalogue => self.queue.now,
            Who::Agent(rack) | Who::Errand(rack, _) | Who::Leases(rack, _) => self.rack_now(*rack),
        }
    }

    /// The time by that rack's clock.
    pub(super) fn rack_now(&self, rack: usize) -> Timestamp {
        Timestamp(self.queue.now.0 + self.racks[rack].skew_us)
    }

    pub(super) fn name(&self, who: &Who) -> String {
        let machine = |id: &SystemId| self.by_id.get(id).map_or_else(|| id.to_string(), |n| format!("m{n}"));
        let rack = |id: &RackId| self.by_rack.get(id).map_or_else(|| id.to_string(), |n| format!("r{n}"));
        match who {
            Who::Machine(id) => format!("machine {}", machine(id)),
            Who::Rack(id) => format!("rack {}", rack(id)),
            Who::Subnet(id) => format!("subnet {id}"),
            Who::Catalogue => "catalogue".into(),
            Who::Agent(n) => format!("r{n} agent"),
            Who::Errand(n, id) => format!("r{n} errand {}", machine(id)),
            Who::Leases(n, id) => format!("r{n} leases {id}"),
        }
    }

    /// A line of what happened beside the actors.
    pub(super) fn say(&mut self, line: &str) {
        let now = self.queue.now;
        self.journal.note(now, line, "");
    }

    pub(super) fn for_region(&mut self, wait: Duration, what: RegionEv) {
        let life = self.region.life;
        self.queue.after(wait, Ev::Region { life, what });
    }

    pub(super) fn for_rack(&mut self, wait: Duration, rack: usize, what: RackEv) {
        let life = self.racks[rack].life;
        self.queue.after(wait, Ev::Rack { rack, life, what });
    }
}
