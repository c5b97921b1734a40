//! The rack's business with the other rack of its network, as `rack::dhcp::partners` and its hands have it: the other's leases come in, this
//! rack says how far its own are told, and addresses that are not known to be free are asked for on the wire.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use actors::leases::{
    LeaseEvent, Pool, ReplyTo, Rules, SubnetLeases, Want,
    watch::{Turn, Watch},
};
use rack::dhcp::{
    route::Reserved,
    shares::{Shares, Through},
};
use schema::{
    id::{RackId, SubnetId},
    messages::link::FromRack,
    net::MacAddr,
    plan::{Lease, PlanSubnet},
    time::Timestamp,
};

use super::{RackEv, dhcp::Waits};
use crate::seeds::{
    hosted::{Hosted, Tag, Who, tell},
    weather::Way,
    world::World,
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Two ARP probes with their pauses.
const PROBE: Duration = Duration::from_millis(500);
/// After a copy that the disk refused.
const AGAIN: Duration = Duration::from_secs(1);

/// A word of the region on the other rack's leases. In order: a `Through` speaks of the leases before it.
enum Word {
    Leases(Vec<Lease>),
    Through(Through),
}

/// What it has in memory of that.
#[derive(Default)]
pub(super) struct Shared {
    shares: Shares,
    watches: BTreeMap<SubnetId, Watch>,
    /// Steps that were asked for and are not carried out yet: since when.
    flights: BTreeMap<u64, Timestamp>,
    flown: u64,
    words: VecDeque<Word>,
    /// Leases that are on their way to the disk.
    copying: Option<Vec<Lease>>,
    looks: bool,
}

impl World {
    /// Another plan is in force.
    pub(super) fn shares_change(&mut self, rack: usize) {
        let now = self.rack_now(rack);
        let memory = &mut self.racks[rack].memory;
        let shared = &mut memory.shared;
        shared.shares.plan_changed(&memory.plan.plan.subnets, now);
        if shared.shares.any() && !shared.looks {
            shared.looks = true;
            self.for_rack(LOOK, rack, RackEv::Look);
        }
    }

    /// Says up to when every lease was reported: up to the oldest step that is not carried out.
    pub(super) fn look_at_shares(&mut self, rack: usize) {
        let now = self.rack_now(rack);
        let memory = &mut self.racks[rack].memory;
        memory.shared.looks = memory.shared.shares.any();
        if !memory.shared.looks {
            return;
        }
        let through = memory.shared.flights.values().min().copied().unwrap_or(now);
        if memory.listening {
            self.say_to_region(rack, FromRack::LeasesThrough { through });
        }
        self.for_rack(LOOK, rack, RackEv::Look);
    }

    pub(super) fn flight(&mut self, rack: usize) -> u64 {
        let now = self.rack_now(rack);
        let shared = &mut self.racks[rack].memory.shared;
        shared.flown += 1;
        shared.flights.insert(shared.flown, now);
        shared.flown
    }

    pub(super) fn landed(&mut self, rack: usize, flight: u64) {
        self.racks[rack].memory.shared.flights.remove(&flight);
    }

    /// What the rack has seen of that subnet's clients.
    pub(super) fn watch(&mut self, rack: usize, subnet: SubnetId) -> &mut Watch {
        let now = self.rack_now(rack);
        self.racks[rack].memory.shared.watches.entry(subnet).or_insert_with(|| Watch::new(now))
    }

    /// Whether a new client is the other rack's.
    pub(super) fn left_to_another(&mut self, rack: usize, subnet: &PlanSubnet, waits: &Waits) -> bool {
        let now = self.rack_now(rack);
        let (mac, secs) = (waits.request.mac, waits.request.secs);
        if !matches!(waits.want, Want::Offer { .. }) {
            return false;
        }
        let Shared { shares, watches, .. } = &mut self.racks[rack].memory.shared;
        let Some(watch) = watches.get_mut(&subnet.id) else { return false };
        match shares.turn(subnet, watch, mac, secs, now) {
            Turn::Answer => return false,
            Turn::Leave => self.say(&format!("r{rack} dhcp leaves {mac} to the other rack")),
            Turn::Copies => {
                self.say(&format!("r{rack} dhcp waits for the other rack's leases before it answers {mac}"))
            }
        }
        true
    }

    pub(super) fn rules(&mut self, rack: usize, subnet: &PlanSubnet) -> Rules {
        let lost = self.watch(rack, subnet.id).lost();
        let node = &self.racks[rack];
        let plan = node.memory.plan.clone();
        Rules {
            version: node.memory.plan_version,
            pool: Arc::new(Pool::of(subnet, &[node.address])),
            reservations: Arc::new(Reserved { plan, subnet: subnet.id, cidr: subnet.cidr }),
            shared: node.memory.shared.shares.of(subnet, lost),
        }
    }

    pub(super) fn hear_leases(&mut self, rack: usize, leases: Vec<Lease>) {
        self.racks[rack].memory.shared.words.push_back(Word::Leases(leases));
        self.take_words(rack);
    }

    pub(super) fn hear_through(&mut self, rack: usize, of: RackId, through: Timestamp) {
        let word = Through { rack: of, through, at: self.rack_now(rack) };
        self.racks[rack].memory.shared.words.push_back(Word::Through(word));
        self.take_words(rack);
    }

    /// Nothing that comes later counts before what came earlier is durable here.
    fn take_words(&mut self, rack: usize) {
        while self.racks[rack].memory.shared.copying.is_none() {
            match self.racks[rack].memory.shared.words.pop_front() {
                Some(Word::Through(through)) => self.racks[rack].memory.shared.shares.heard(through),
                Some(Word::Leases(leases)) => {
                    self.racks[rack].memory.shared.copying = Some(leases);
                    self.copy_again(rack);
                }
                None => return,
            }
        }
    }

    pub(super) fn copy_again(&mut self, rack: usize) {
        let Some(leases) = self.racks[rack].memory.shared.copying.clone() else { return };
        let Some(subnet) = leases.first().map(|lease| lease.subnet) else {
            return self.copied(rack, true);
        };
        let known = self.racks[rack].memory.leases.entry(subnet);
        known.or_insert_with(|| Hosted::new(SubnetLeases::load(subnet, [])));
        let event = LeaseEvent::Copied(Arc::new(leases));
        tell::<SubnetLeases>(self, Who::Leases(rack, subnet), event, Tag::Copied(rack));
    }

    pub(super) fn copied(&mut self, rack: usize, durable: bool) {
        if !durable {
            return self.for_rack(AGAIN, rack, RackEv::Copies);
        }
        self.racks[rack].memory.shared.copying = None;
        self.take_words(rack);
    }

    /// Asks the wire about an address, then the leases again.
    pub(super) fn probe(&mut self, rack: usize, to: ReplyTo, ip: Ipv4Addr) {
        let user = self.user_of(rack, ip);
        self.for_rack(PROBE, rack, RackEv::Probed { to, ip, user });
    }

    pub(super) fn probed(&mut self, rack: usize, to: &ReplyTo, ip: Ipv4Addr, user: Option<MacAddr>) {
        let user = user.or_else(|| self.user_of(rack, ip));
        let Ok(waits) = to.0.clone().downcast::<Waits>() else { return };
        let plan = self.racks[rack].memory.plan.clone();
        let Some(planned) = plan.plan.subnets.iter().find(|s| s.id == waits.subnet) else { return };
        let event = LeaseEvent::Probed { rules: self.rules(rack, planned), ask: waits.ask(), ip, user };
        let flight = self.flight(rack);
        tell::<SubnetLeases>(self, Who::Leases(rack, waits.subnet), event, Tag::Probed(rack, flight));
    }

    /// Who answers for an address on that rack's wire.
    fn user_of(&self, rack: usize, ip: Ipv4Addr) -> Option<MacAddr> {
        let wire = self.racks[rack].wire;
        let uses =
            |m: &&crate::seeds::metal::Metal| m.wire == wire && m.ip == Some(ip) && m.controller.chassis().is_on();
        let user = self.metals.iter().find(uses).map(|metal| metal.hardware.mac());
        user.filter(|_| !self.cuts.has(Way::Machines(rack)))
    }
}
