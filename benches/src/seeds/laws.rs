//! What must hold after every event of the deterministic yard. A broken law is noted in words, with its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use actors::{
    errand::Progress,
    leases::Row,
    machine::{Life, Machine},
};
use schema::{
    id::{AttemptId, SubnetId, SystemId},
    messages::{link::Order, machine::MachineEvent},
    net::MacAddr,
    plan::Lease,
    status::{NodeStatus, PowerState},
    time::Timestamp,
};

use super::{faults::Ill, hosted::Pending, world::World};

/// What was found, and what it takes to find it.
#[derive(Default)]
pub(super) struct Laws {
    found: Vec<String>,
    checks: u64,
    /// The last report of a rack that had an effect on a machine.
    effective: BTreeMap<(usize, SystemId), u64>,
    /// Who holds an address, and until when.
    held: BTreeMap<Ipv4Addr, (MacAddr, Timestamp)>,
    /// Whom an address was given last.
    given: BTreeMap<Ipv4Addr, Given>,
}

/// What a client was told.
#[derive(Debug, Clone, Copy)]
struct Given {
    mac: MacAddr,
    at: Timestamp,
    until: Timestamp,
}

/// How long an answer may be under way to its client.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The most that are told: one broken law breaks many.
const MOST: usize = 20;

impl Laws {
    pub(super) fn broken(&mut self, what: String) {
        if self.found.len() < MOST {
            self.found.push(what);
        }
    }

    fn hold(&mut self, law: bool, what: impl FnOnce() -> String) {
        self.checks += 1;
        if !law {
            self.broken(what());
        }
    }

    /// What was found, and how often a law was looked at.
    pub(super) fn found(&self) -> (&[String], u64) {
        (&self.found, self.checks)
    }

    pub(super) fn effects_have_a_cause(&mut self, kind: &str, effects: usize, event: impl FnOnce() -> String) {
        self.hold(effects == 0, || format!("{kind}: effects without a change of state, after {}", event()));
    }

    pub(super) fn all_readable(&mut self, read: usize, stored: usize) {
        self.hold(read == stored, || format!("{} of {stored} stored machines cannot be read", stored - read));
    }

    /// No order is on a rack whose attempt is not on the region's disk.
    pub(super) fn an_order_has_a_cause(
        &mut self,
        store: &BTreeMap<SystemId, String>,
        machine: SystemId,
        attempt: AttemptId,
    ) {
        let stored: Option<Machine> = store.get(&machine).and_then(|text| serde_json::from_str(text).ok());
        let law = stored.is_some_and(|m| m.next_attempt > attempt);
        self.hold(law, || format!("an order of attempt {attempt} of {machine} left before the attempt was durable"));
    }

    pub(super) fn a_ticket_has_a_cause(
        &mut self,
        store: &BTreeMap<SystemId, String>,
        machine: SystemId,
        attempt: AttemptId,
    ) {
        let stored: Option<Machine> = store.get(&machine).and_then(|text| serde_json::from_str(text).ok());
        let law = stored.and_then(|m| m.attempt).is_some_and(|a| a.id >= attempt);
        self.hold(law, || format!("a ticket of attempt {attempt} of {machine} left before the attempt was durable"));
    }

    /// No BMC is touched for an errand that is not on the rack's disk.
    pub(super) fn a_run_has_a_cause(
        &mut self,
        disk: &BTreeMap<SystemId, (Option<Order>, Progress)>,
        machine: SystemId,
        run: u32,
    ) {
        let law = disk.get(&machine).is_some_and(|(order, progress)| order.is_some() && progress.run >= run);
        self.hold(law, || format!("driver run {run} for {machine} began before its errand was durable"));
    }

    /// No DHCPACK whose lease is not on the rack's disk.
    pub(super) fn an_ack_has_a_row(
        &mut self,
        disk: &BTreeMap<(SubnetId, Ipv4Addr), Row>,
        subnet: SubnetId,
        ip: Ipv4Addr,
        mac: MacAddr,
    ) {
        let law = disk.get(&(subnet, ip)).is_some_and(|row| row.lease.mac == mac);
        self.hold(law, || format!("{ip} was acknowledged to {mac} before the lease was durable"));
    }

    /// No address is held by two.
    fn one_holder(&mut self, lease: &Lease, now: Timestamp) {
        let known = self.held.get(&lease.ip).copied();
        let taken = known.filter(|(mac, until)| *mac != lease.mac && *until > now);
        self.hold(taken.is_none() || lease.expires <= lease.granted, || {
            format!("{} is leased to {} while {:?} holds it", lease.ip, lease.mac, taken)
        });
        if lease.expires > lease.granted {
            self.held.insert(lease.ip, (lease.mac, lease.expires));
        } else if known.is_some_and(|(mac, _)| mac == lease.mac) {
            self.held.remove(&lease.ip);
        }
    }
}

/// What of a machine a report may change once only.
fn effect(m: &Machine) -> impl PartialEq {
    let attempt = m.attempt.as_ref().map(|a| {
        let scripts: Vec<_> = a.scripts.iter().map(|s| s.status).collect();
        (a.id, a.ended, a.ordered, a.off, a.steps.iter().map(|s| s.state).collect::<Vec<_>>(), scripts)
    });
    (m.status, m.error.clone(), attempt)
}

impl World {
    /// A machine's step is about to stand on the disk.
    pub(super) fn machine_moves(&mut self, step: &Pending<Machine>) {
        let (before, after) = (&step.before, &step.after);
        let name = &after.spec.hostname;
        let legal = before.status == after.status || before.status.may_become(after.status);
        self.laws.hold(legal, || format!("{name} went from {:?} to {:?}", before.status, after.status));
        if let MachineEvent::Reported { rack, report, .. } = &step.event
            && let Some(rack) = self.by_rack.get(rack).copied()
            && effect(before) != effect(after)
        {
            let key = (rack, report.machine);
            let last = self.laws.effective.insert(key, report.seq.0).unwrap_or(0);
            self.laws.hold(last < report.seq.0, || {
                format!("{name}: report {} of rack {rack} had an effect after report {last}", report.seq)
            });
        }
        let open = |m: &Machine| m.open_attempt().map(|a| a.id);
        let law = open(before).is_none() || open(after).is_none() || open(before) == open(after);
        self.laws.hold(law, || format!("{name} began another attempt while one was open"));
        if after.status == NodeStatus::Ready && before.status == NodeStatus::Commissioning {
            self.becomes_ready(before, after);
        }
    }

    /// Ready only with stored results, and power off confirmed: by the machine itself, not by what is said of it.
    fn becomes_ready(&mut self, before: &Machine, after: &Machine) {
        let Some(index) = self.by_id.get(&after.spec.system_id).copied() else { return };
        let name = &after.spec.hostname;
        let scripts = after.attempt.iter().flat_map(|a| &a.scripts);
        let store = &self.region.store;
        let lost: Vec<_> = scripts
            .filter(|s| store.results.get(&s.script.result) != Some(&s.status))
            .map(|s| &s.script.name)
            .collect();
        let law = lost.is_empty() && store.hardware.contains(&after.spec.system_id);
        self.laws.hold(law, || format!("{name} became Ready without the stored results of {lost:?}"));
        let metal = &self.metals[index];
        let lies = metal.ills.iter().any(|ill| matches!(ill, Ill::SaysOn));
        let off = after.power_state == PowerState::Off && (lies || !metal.controller.chassis().is_on());
        let ordered = before.open_attempt().is_some_and(|a| a.off.is_some());
        self.laws.hold(off && ordered, || format!("{name} became Ready and is on"));
    }

    /// How a machine stands after an event.
    pub(super) fn machine_stands(&mut self, id: SystemId) {
        let Some(core) = self.region.machines.get(&id).map(|hosted| hosted.core.clone()) else { return };
        let (name, now) = (&core.spec.hostname, self.queue.now);
        if core.life != Life::Present {
            return;
        }
        let open = core.open_attempt();
        let law = core.status.in_progress() == open.is_some();
        self.laws.hold(law, || format!("{name} is {:?} and its attempt is {:?}", core.status, open.map(|a| a.id)));
        let expects = open.is_some() || core.errand.is_some();
        let typed = core.wait.as_ref().is_none_or(|w| {
            w.deadline > w.since && !w.what.is_empty() && !w.remedy.is_empty() && !w.on_timeout.is_empty()
        });
        self.laws.hold(expects == core.wait.is_some() && typed, || {
            format!("{name} is {:?} at {now} and waits for {:?}", core.status, core.wait)
        });
        self.no_ticket_without_an_attempt(id);
    }

    /// A ticket only while its attempt is open.
    pub(super) fn no_ticket_without_an_attempt(&mut self, id: SystemId) {
        let Some(core) = self.region.machines.get(&id).map(|hosted| hosted.core.clone()) else { return };
        let Some(wire) = self.by_id.get(&id).map(|index| self.metals[*index].wire) else { return };
        for rack in self.racks_on(wire).map(|rack| self.racks[rack].id) {
            let served = region::plans::served_vlans(self.region.content(), rack);
            let ticket = self.region.tickets.ticket(id, rack, &served).filter(|ticket| ticket.boot.is_some());
            let law = ticket.as_ref().is_none_or(|t| core.open_attempt().is_some_and(|a| a.id == t.attempt));
            self.laws.hold(law, || format!("{} has a ticket and no attempt", core.spec.hostname));
        }
    }

    /// Where a network has one rack, its book is the truth. Of two racks' books each may be behind: there only clients count.
    pub(super) fn a_lease(&mut self, rack: usize, lease: &Lease) {
        let now = self.rack_now(rack);
        if !self.scenario.house.pairs {
            self.laws.one_holder(lease, now);
        }
    }

    /// A rack says to a client that it has that address: no other client has it.
    pub(super) fn an_address_is_given(&mut self, ip: Ipv4Addr, mac: MacAddr, lease_s: u32) {
        let now = self.queue.now;
        let before =
            self.laws.given.insert(ip, Given { mac, at: now, until: now + Duration::from_secs(lease_s.into()) });
        let other = before.filter(|given| given.mac != mac && given.until > now);
        let uses = |given: &Given| {
            let metal = self.metals.iter().find(|metal| metal.hardware.mac() == given.mac);
            // What was given just now is on its way to its client.
            metal.is_some_and(|m| m.controller.chassis().is_on() && (m.ip == Some(ip) || given.at + ON_ITS_WAY > now))
        };
        let used = other.filter(uses);
        self.laws.hold(used.is_none(), || format!("{ip} was given to {mac} at {now} while {used:?} has it"));
    }

    /// Nothing waits for longer than it said it would. Looked at now and then.
    pub(super) fn nothing_is_overdue(&mut self) {
        let now = self.queue.now;
        let grace = std::time::Duration::from_secs(10);
        // A region that has just come back hears first what the racks kept.
        let back = self.region.since + std::time::Duration::from_secs(60);
        if !self.region.up || self.region.store.away.1 + grace > now || back + grace > now {
            return;
        }
        let late: Vec<String> = self
            .region
            .machines
            .values()
            .filter_map(|m| m.core.wait.as_ref().filter(|w| w.deadline + grace < now).map(|w| (m, w)))
            .map(|(m, w)| {
                format!("{} waits for {} since {} (until {})", m.core.spec.hostname, w.what, w.since, w.deadline)
            })
            .collect();
        let awake: BTreeSet<_> = self.region.machines.keys().collect();
        let asleep = self.region.store.machines.iter().filter(|(id, _)| !awake.contains(id));
        let forgotten = asleep.filter(|(_, text)| text.contains("\"status\":\"Commissioning\"")).count();
        for what in late {
            self.laws.hold(false, || format!("overdue: {what}"));
        }
        self.laws.hold(forgotten == 0, || format!("{forgotten} machines under commissioning have no actor"));
    }

    /// At the end no rack holds a ticket to boot, an order, or a report.
    pub(super) fn all_is_over(&mut self) {
        let now = self.queue.now;
        for rack in 0..self.racks.len() {
            let node = &self.racks[rack];
            if !node.up || node.disk.full || !self.links[rack].rack_up {
                continue;
            }
            let plan = &node.disk.plan;
            let open: Vec<_> =
                plan.tickets().filter(|t| t.boot.is_some() && t.expires > now).map(|t| t.machine).collect();
            let orders = node.disk.errands.values().filter(|(order, _)| order.is_some()).count();
            let (reports, first) = (node.disk.outbox.len(), node.disk.outbox.values().next().map(|r| r.fact.clone()));
            self.laws.hold(open.is_empty(), || format!("rack {rack} still holds tickets to boot {open:?}"));
            self.laws.hold(orders == 0, || format!("rack {rack} still holds {orders} orders"));
            self.laws.hold(reports == 0, || format!("rack {rack} still holds {reports} reports, first {first:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(mac: u8, granted: i64, expires: i64) -> Lease {
        let (ip, mac) = (Ipv4Addr::new(10, 77, 0, 9), MacAddr([2, 0, 0, 0, 0, mac]));
        let (granted, expires) = (Timestamp::from_seconds(granted), Timestamp::from_seconds(expires));
        Lease { subnet: SubnetId(1), ip, mac, hostname: None, granted, expires }
    }

    #[test]
    fn an_address_with_two_holders_is_noticed_and_one_that_was_given_back_is_not() {
        let mut laws = Laws::default();
        let now = Timestamp::from_seconds;
        laws.one_holder(&lease(1, 0, 30), now(0));
        laws.one_holder(&lease(1, 10, 40), now(10));
        laws.one_holder(&lease(2, 40, 70), now(40));
        laws.one_holder(&lease(2, 50, 50), now(50));
        laws.one_holder(&lease(3, 51, 90), now(51));
        assert_eq!(laws.found().0.len(), 0);
        laws.one_holder(&lease(1, 60, 90), now(60));
        assert_eq!(laws.found().0.len(), 1);
    }

    #[test]
    fn an_address_that_is_given_to_two_clients_is_noticed() {
        let mut yard = crate::seeds::Yard::new(crate::seeds::Scenario::fair(3, 2));
        while yard.0.metals[0].ip.is_none() && yard.happen() {}
        let (ip, own, other) = (yard.0.metals[0].ip.unwrap(), yard.0.metals[0].hardware.mac(), MacAddr([2; 6]));
        yard.0.an_address_is_given(ip, own, 30);
        assert_eq!(yard.0.laws.found().0.len(), 0, "{:?}", yard.0.laws.found().0);
        yard.0.an_address_is_given(ip, other, 30);
        assert_eq!(yard.0.laws.found().0.len(), 1);
    }

    #[test]
    fn what_leaves_before_its_cause_is_durable_is_noticed() {
        let mut laws = Laws::default();
        let machine = SystemId::from_draws([1; 6]);
        laws.an_order_has_a_cause(&BTreeMap::new(), machine, AttemptId(1));
        laws.a_ticket_has_a_cause(&BTreeMap::new(), machine, AttemptId(1));
        laws.a_run_has_a_cause(&BTreeMap::new(), machine, 1);
        laws.an_ack_has_a_row(&BTreeMap::new(), SubnetId(1), Ipv4Addr::new(10, 77, 0, 9), MacAddr([2; 6]));
        laws.effects_have_a_cause("machine", 1, String::new);
        assert_eq!((laws.found().0.len(), laws.found().1), (5, 5));
        // Stored, but of an earlier attempt.
        let text = serde_json::to_string(&Machine::absent(machine)).unwrap();
        laws.an_order_has_a_cause(&[(machine, text.clone())].into(), machine, AttemptId(1));
        laws.an_order_has_a_cause(&[(machine, text)].into(), machine, AttemptId(0));
        assert_eq!(laws.found().0.len(), 6);
    }
}
