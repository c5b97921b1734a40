//! Leases on their way to the other rack of a network, as `region::link::copies` and `region::links` have it: a subnet's whole table once,
//! after the plan that shares it; then what is new, as it comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use region::plans::{self, Sections};
use schema::{
    id::{RackId, SubnetId},
    messages::link::ToRack,
    plan::{Lease, PlanSubnet},
    time::Timestamp,
};

use crate::seeds::world::World;

/// What one connection is told of leases, and what it told.
#[derive(Default)]
pub(super) struct Copies {
    /// Subnets whose tables were said, with the rack they are shared with.
    told: BTreeMap<SubnetId, RackId>,
    /// What is new of these is told as it comes.
    subnets: BTreeSet<SubnetId>,
    /// Whether the whole tables of all of them were said.
    complete: bool,
    /// Messages of leases that came, and those of them that are durable.
    came: u64,
    kept: u64,
    /// Up to when all is told, after so many messages.
    through: VecDeque<(u64, Timestamp)>,
}

fn shared(subnets: &[PlanSubnet]) -> BTreeMap<SubnetId, RackId> {
    subnets.iter().filter_map(|s| Some((s.id, s.failover.as_ref()?.peer))).collect()
}

impl World {
    /// The addresses of the racks that subnets are shared with, as they said when they were connected last.
    pub(super) fn name_peers(&self, sections: &mut Sections) {
        let known = |peer: &RackId| self.region.racks.get(peer).is_some_and(|hosted| hosted.core.facts.is_some());
        plans::with_peers(sections, |peer| {
            let rack = self.by_rack.get(&peer).filter(|_| known(&peer));
            rack.map(|n| self.racks[*n].address).into_iter().collect()
        });
    }

    fn told_subnets(&self, rack: usize) -> BTreeMap<SubnetId, RackId> {
        let told = self.region.conns.get(&rack).and_then(|conn| conn.told.as_ref());
        told.map(|told| shared(told.subnets())).unwrap_or_default()
    }

    /// Before a plan that shares another subnet goes out: nothing is passed on until its table was said.
    pub(super) fn hold_copies(&mut self, rack: usize) {
        let wanted = self.told_subnets(rack);
        if let Some(conn) = self.region.conns.get_mut(&rack).filter(|conn| conn.copies.told != wanted) {
            conn.copies.complete = false;
        }
    }

    /// After it: the tables of what is newly shared, and up to when they are complete.
    pub(super) fn send_copies(&mut self, rack: usize) {
        let wanted = self.told_subnets(rack);
        let Some(conn) = self.region.conns.get_mut(&rack).filter(|conn| conn.copies.told != wanted) else { return };
        let before = std::mem::replace(&mut conn.copies.told, wanted.clone());
        conn.copies.subnets = wanted.keys().copied().collect();
        conn.copies.complete = !wanted.is_empty();
        let through: BTreeMap<RackId, Timestamp> =
            wanted.values().filter_map(|peer| Some((*peer, *self.region.through.get(peer)?))).collect();
        for (subnet, _) in wanted.iter().filter(|(id, peer)| before.get(id) != Some(peer)) {
            let table = self.region.subnets.get(subnet).map(|hosted| hosted.core.leases.values().cloned().collect());
            if let Some(table) = table.filter(|table: &Vec<Lease>| !table.is_empty()) {
                self.say_to_rack(rack, ToRack::Leases(table));
            }
        }
        for (peer, through) in through {
            self.say_to_rack(rack, ToRack::LeasesThrough { rack: peer, through });
        }
    }

    /// Tells the other racks of leases that one granted. One that is not told whole yet has them in its table.
    pub(super) fn copy_leases(&mut self, subnet: SubnetId, leases: &[Lease], from: Option<RackId>) {
        let racks = plans::serving_racks(self.region.content(), subnet);
        for rack in racks.into_iter().filter(|rack| Some(*rack) != from) {
            let Some(to) = self.by_rack.get(&rack).copied() else { continue };
            if self.region.conns.get(&to).is_some_and(|conn| conn.copies.subnets.contains(&subnet)) {
                self.say_to_rack(to, ToRack::Leases(leases.to_vec()));
            }
        }
    }

    /// A rack says leases. The number of the message on its connection.
    pub(super) fn leases_came(&mut self, rack: usize) -> Option<u64> {
        let copies = &mut self.region.conns.get_mut(&rack)?.copies;
        copies.came += 1;
        Some(copies.came)
    }

    /// They are durable.
    pub(super) fn leases_kept(&mut self, rack: usize, link: u64) {
        if self.links[rack].number == link
            && let Some(conn) = self.region.conns.get_mut(&rack)
        {
            conn.copies.kept += 1;
        }
        self.tell_through(rack);
    }

    /// It has told all its leases up to there; that counts once those are durable.
    pub(super) fn through_came(&mut self, rack: usize, through: Timestamp) {
        if let Some(conn) = self.region.conns.get_mut(&rack) {
            conn.copies.through.push_back((conn.copies.came, through));
        }
        self.tell_through(rack);
    }

    fn tell_through(&mut self, rack: usize) {
        let id = self.racks[rack].id;
        loop {
            let Some(conn) = self.region.conns.get_mut(&rack) else { return };
            let kept = conn.copies.kept;
            let Some((_, through)) = conn.copies.through.pop_front_if(|(after, _)| *after <= kept) else { return };
            self.region.through.insert(id, through);
            let others = self.region.conns.iter().filter(|(n, conn)| **n != rack && conn.copies.complete);
            for other in others.map(|(n, _)| *n).collect::<Vec<_>>() {
                self.say_to_rack(other, ToRack::LeasesThrough { rack: id, through });
            }
        }
    }
}
