//! Which rack of the deterministic yard watches whose power, and what was learned of the ways to BMCs. The decisions are `region::sweeps`'
//! and `actors::reach`'s own.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use actors::{
    rack::{Duty, Rack},
    reach::{Reach, Reached},
};
use region::{
    plans,
    sweeps::{self, PowerRacks},
};
use schema::{
    catalogue::RackEntry,
    id::{RackId, SystemId, VlanId},
    messages::{
        link::{SweepTarget, ToRack},
        report::Report,
    },
    power::{PowerAccess, PowerConfig},
    secret::Secret,
};

use super::RegionEv;
use crate::seeds::world::World;

/// As in `region::sweeps`.
const GATHER: Duration = Duration::from_secs(2);

/// What a rack was told to watch.
pub(super) type Watched = BTreeMap<SystemId, (PowerConfig, u64)>;

/// What is known of the ways to BMCs.
#[derive(Default)]
pub(super) struct Ways {
    reach: Reach,
    /// A look at who watches what is due.
    gathering: bool,
}

impl Ways {
    pub(super) fn of(kept: impl IntoIterator<Item = Reached>) -> Self {
        Self { reach: Reach::of(kept), gathering: false }
    }
}

/// How a BMC of the yard is spoken to.
pub(super) fn access(power: &PowerConfig) -> PowerAccess {
    PowerAccess {
        power_type: power.power_type,
        params: power.params.clone(),
        secrets: [("power_pass".to_owned(), Secret::new("yard".to_owned()))].into(),
    }
}

impl World {
    /// What a report tells of the way to its machine's BMC is kept.
    pub(super) fn learn(&mut self, rack: usize, report: &Report) {
        if !sweeps::tells(&report.fact) {
            return;
        }
        let Some(machine) = self.region.machines.get(&report.machine).map(|hosted| hosted.core.clone()) else { return };
        let (now, rack) = (self.queue.now, self.racks[rack].id);
        let learned = machine.spec.power.address().and_then(|bmc| Reached::learned(bmc, rack, &report.fact, now));
        let Some(learned) = learned.filter(|learned| self.region.ways.reach.note(learned)) else { return };
        self.region.store.reach.insert((learned.bmc.clone(), learned.rack), learned);
        self.ways_changed();
    }

    /// Changes of what racks watch gather for a while.
    pub(super) fn ways_changed(&mut self) {
        if self.region.up && !std::mem::replace(&mut self.region.ways.gathering, true) {
            self.for_region(GATHER, RegionEv::Assign);
        }
    }

    /// Racks that may drive BMCs, in the order of their ids.
    fn power_racks(&self) -> PowerRacks {
        let hellos = self.region.conns.iter().filter_map(|(n, c)| Some((self.racks[*n].id, c.hello.as_ref()?)));
        let mut fit: Vec<_> = hellos.filter(|(id, _)| self.region.fit(*id, Duty::Power).is_ok()).collect();
        fit.sort_by_key(|(id, _)| *id);
        PowerRacks::of(fit.into_iter().map(|(id, hello)| (id, &hello.interfaces)))
    }

    /// The racks that may be back in a moment, in the order of their ids.
    pub(super) fn awaited_racks(&self) -> Vec<(RackId, &Rack)> {
        let linked = self.connected();
        let awaited = |entry: &RackEntry| {
            let core = &*self.region.racks.get(&entry.id)?.core;
            core.is_awaited(entry, linked.contains(&entry.id)).then_some((entry.id, core))
        };
        self.region.content().racks.values().filter_map(awaited).collect()
    }

    /// Of them, those that may be given that BMC's work.
    pub(super) fn awaited_bmc_racks(&self, address: Option<&str>, vlan: Option<VlanId>) -> Vec<RackId> {
        let awaited = self.awaited_racks();
        let known = awaited.iter().map(|(id, rack)| (*id, rack.facts.iter().flat_map(|f| &f.interfaces)));
        self.in_order(&PowerRacks::of(known), address, vlan)
    }

    /// The racks that may be given that BMC's work, in the order in which they are tried.
    pub(super) fn bmc_racks(&self, address: Option<&str>, vlan: Option<VlanId>) -> Vec<RackId> {
        self.in_order(&self.power_racks(), address, vlan)
    }

    fn in_order(&self, racks: &PowerRacks, address: Option<&str>, vlan: Option<VlanId>) -> Vec<RackId> {
        let boots = plans::dhcp_racks(self.region.content(), vlan);
        self.region.ways.reach.order(address, &racks.candidates(address, &boots), self.queue.now)
    }

    /// Every connected rack hears what of its list is another.
    pub(super) fn assign(&mut self) {
        self.region.ways.gathering = false;
        let racks = self.power_racks();
        let machines = self.region.tickets.powers();
        let (content, reach) = (self.region.content(), &self.region.ways.reach);
        let assigned = sweeps::assigned(content, machines, &HashMap::new(), &racks, reach, self.queue.now);
        let all: Vec<usize> = self.region.conns.keys().copied().collect();
        for rack in all {
            let wanted: Watched = assigned.get(&self.racks[rack].id).cloned().unwrap_or_default();
            let Some(conn) = self.region.conns.get_mut(&rack).filter(|conn| conn.hello.is_some()) else { continue };
            let told = conn.watched.replace(wanted.clone());
            let (replace, told) = (told.is_none(), told.unwrap_or_default());
            let put = wanted.iter().filter(|(machine, how)| told.get(*machine) != Some(*how));
            let targets = put.map(|(machine, (power, _))| SweepTarget { machine: *machine, access: access(power) });
            let targets = targets.collect();
            let gone = told.keys().filter(|machine| !wanted.contains_key(machine)).copied().collect();
            for update in sweeps::updates(replace, targets, gone) {
                self.say_to_rack(rack, ToRack::Sweep(Box::new(update)));
            }
        }
    }
}
