//! The racks that are connected: what is to be sent to each, and what of its plan is dirty. Reading from them is `link`'s.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use actors::{core::TraceId, link::server::LinkServer, machine::Machine, session::Receiving};
use arc_swap::ArcSwapOption;
use schema::{
    id::{AttemptId, Generation, RackId, ReportSeq, SubnetId, SystemId},
    messages::link::{ForeignDhcp, Hello, Stray, ToRack},
    plan::Lease,
    power::PowerAction,
    service::ServiceStatus,
    time::Timestamp,
};
use tokio::sync::{Notify, mpsc};
use tracing::warn;

/// Something to be sent, in order.
pub(crate) enum ToDo {
    Say(Box<ToRack>),
    /// An order, whose secrets are unsealed when it is its turn.
    Order {
        state: Arc<Machine>,
        attempt: AttemptId,
        action: PowerAction,
        deadline: Timestamp,
    },
}

/// One rack's connection as the rest of the region uses it.
pub(crate) struct Connected {
    /// Of two connections of a rack the higher is in force.
    pub(crate) number: u64,
    /// What it said of itself; `None` before it did.
    pub(crate) hello: OnceLock<Arc<Hello>>,
    /// What it said last of its services, and when.
    pub(crate) services: Mutex<Option<(Timestamp, Vec<ServiceStatus>)>>,
    pub(crate) queue: mpsc::UnboundedSender<(ToDo, TraceId)>,
    pub(crate) dirty: Dirty,
    pub(crate) copies: Mutex<Copies>,
    pub(crate) names: Mutex<NamesTold>,
}

/// How far a connection is with the names.
#[derive(Default)]
pub(crate) struct NamesTold {
    /// Plans that bring names up to that version, as `dns::Names` counts, and are not in force yet.
    sent: VecDeque<(Generation, u64)>,
    in_force: u64,
}

impl NamesTold {
    /// The plan of that generation brings names up to that version.
    pub(crate) fn sent(&mut self, generation: Generation, version: u64) {
        self.sent.push_back((generation, version));
    }

    /// The rack has it in force.
    pub(crate) fn in_force(&mut self, generation: Generation) {
        while let Some((_, version)) = self.sent.pop_front_if(|(sent, _)| *sent <= generation) {
            self.in_force = version;
        }
    }
}

/// What a connection is told of other racks' leases.
#[derive(Default)]
pub(crate) struct Copies {
    /// What is new of these subnets is told as it comes.
    pub(crate) subnets: HashSet<SubnetId>,
    /// Whether the whole tables of all of them were said.
    pub(crate) complete: bool,
}

impl Connected {
    pub(crate) fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    pub(crate) fn heard(&self, services: Vec<ServiceStatus>, at: Timestamp) {
        *self.services() = Some((at, services));
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, NamesTold> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last_heard(&self) -> Option<Timestamp> {
        self.services().as_ref().map(|(at, _)| *at)
    }

    fn services(&self) -> MutexGuard<'_, Option<(Timestamp, Vec<ServiceStatus>)>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a rack's plan may differ from what it was told.
#[derive(Default)]
pub(crate) struct Dirty {
    marks: Mutex<Marks>,
    pub(crate) woken: Notify,
}

#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) whole: bool,
    pub(crate) sections: bool,
    pub(crate) names: bool,
    pub(crate) machines: HashSet<SystemId>,
}

impl Dirty {
    fn mark(&self, mark: impl FnOnce(&mut Marks)) {
        mark(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner));
        self.woken.notify_one();
    }

    pub(crate) fn take(&self) -> Marks {
        mem::take(&mut *self.marks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All of them.
#[derive(Default)]
pub struct Links {
    racks: Mutex<HashMap<RackId, Arc<Connected>>>,
    /// By rack, across its connections: which reports are durable, and which are being worked on.
    sessions: Mutex<HashMap<RackId, Arc<Mutex<Receiving>>>>,
    /// None before the start and after the stop.
    pub(crate) server: ArcSwapOption<LinkServer>,
    /// Up to when each rack has told all its leases, by its own clock.
    told: Mutex<HashMap<RackId, Timestamp>>,
    /// Other DHCP servers that each rack hears.
    foreign: Mutex<HashMap<RackId, Vec<ForeignDhcp>>>,
    /// Clients that asked each rack for an address to boot, and were not expected.
    strays: Mutex<HashMap<RackId, Vec<Stray>>>,
}

impl Links {
    /// Racks that are connected and said what they are.
    #[must_use]
    pub fn hellos(&self) -> Vec<(RackId, Arc<Hello>)> {
        let racks = self.racks();
        racks.iter().filter_map(|(id, c)| c.hello.get().map(|hello| (*id, hello.clone()))).collect()
    }

    /// How many racks are connected.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.racks().len()).unwrap_or(u32::MAX)
    }

    /// Whether that rack is connected and said what it is.
    #[must_use]
    pub fn is_connected(&self, rack: RackId) -> bool {
        self.racks().get(&rack).is_some_and(|c| c.hello.get().is_some())
    }

    /// The highest report such that it and all before it are durable; `None` when none was heard since the start.
    pub(crate) fn seen(&self, rack: RackId) -> Option<ReportSeq> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(&rack)?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(session.last_report()).filter(|seq| seq.0 > 0)
    }

    /// The rack's session of reports; begun with what the store has.
    pub(crate) fn session(&self, rack: RackId, stored: ReportSeq) -> Arc<Mutex<Receiving>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.entry(rack).or_insert_with(|| Arc::new(Mutex::new(Receiving::new(stored)))).clone()
    }

    /// What a connected rack said last of its services.
    pub(crate) fn services(&self, rack: RackId) -> Vec<ServiceStatus> {
        let connected = self.racks().get(&rack).cloned();
        connected.and_then(|c| c.services().as_ref().map(|(_, services)| services.clone())).unwrap_or_default()
    }

    /// Puts a connection in force, unless a newer one of the same rack is: two that come at once may overtake each other.
    pub(crate) fn put(&self, rack: RackId, connected: Arc<Connected>) {
        let mut racks = self.racks();
        if racks.get(&rack).is_none_or(|other| other.number < connected.number) {
            racks.insert(rack, connected);
        }
    }

    /// Takes a connection out, unless a newer one of the same rack is in. True when it was in force.
    pub(crate) fn take(&self, rack: RackId, number: u64) -> bool {
        let mut racks = self.racks();
        let in_force = racks.get(&rack).is_some_and(|c| c.number == number);
        if in_force {
            racks.remove(&rack);
        }
        in_force
    }

    pub(crate) fn queue(&self, rack: RackId, todo: ToDo, trace: TraceId) {
        let sent = self.racks().get(&rack).is_some_and(|c| c.queue.send((todo, trace)).is_ok());
        if !sent {
            warn!(%rack, %trace, "not connected: what it was to be told is said again when it is back");
        }
    }

    /// That machine's ticket changed. `racks`: those that hold it; `None`: all of them.
    pub(crate) fn mark(&self, machine: SystemId, racks: Option<&HashSet<RackId>>) {
        let all = self.racks();
        for (_, connected) in all.iter().filter(|(id, _)| racks.is_none_or(|only| only.contains(id))) {
            connected.dirty.mark(|marks| marks.machines.extend([machine]));
        }
    }

    /// The catalogue changed.
    pub(crate) fn mark_sections(&self) {
        for connected in self.racks().values() {
            connected.dirty.mark(|marks| marks.sections = true);
        }
    }

    /// Names changed.
    pub(crate) fn mark_names(&self) {
        for connected in self.racks().values() {
            connected.dirty.mark(|marks| marks.names = true);
        }
    }

    /// That rack is to get its whole plan.
    pub(crate) fn send_whole(&self, rack: RackId) {
        if let Some(connected) = self.racks().get(&rack) {
            connected.dirty.mark(|marks| marks.whole = true);
        }
    }

    /// Ends a rack's connection.
    pub(crate) fn close(&self, rack: RackId, why: &str) {
        if let Some(server) = self.server.load_full() {
            server.disconnect(rack, why);
        }
    }

    /// Tells racks of leases that another one granted. One that is not told whole yet has them in its table.
    pub(crate) fn copy(&self, racks: &[RackId], leases: &[Lease], trace: TraceId) {
        let Some(subnet) = leases.first().map(|l| l.subnet) else { return };
        let connected = self.racks();
        for to in racks.iter().filter_map(|rack| connected.get(rack)) {
            if to.copies().subnets.contains(&subnet) {
                to.queue.send((ToDo::Say(Box::new(ToRack::Leases(leases.to_vec()))), trace)).ok(); // Its end was noticed elsewhere.
            }
        }
    }

    /// A rack has told all its leases up to there, and they are durable: the others are told so.
    pub(crate) fn told_through(&self, rack: RackId, through: Timestamp, trace: TraceId) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(rack, through);
        for (_, to) in self.racks().iter().filter(|(id, _)| **id != rack) {
            if to.copies().complete {
                to.queue.send((ToDo::Say(Box::new(ToRack::LeasesThrough { rack, through })), trace)).ok(); // As above.
            }
        }
    }

    /// Up to when that rack has told all its leases.
    #[must_use]
    pub fn through(&self, rack: RackId) -> Option<Timestamp> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&rack).copied()
    }

    /// Other DHCP servers that a rack hears, all of them.
    pub(crate) fn heard_foreign(&self, rack: RackId, foreign: Vec<ForeignDhcp>) {
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner).insert(rack, foreign);
    }

    /// Other DHCP servers that racks hear, with the rack that does.
    #[must_use]
    pub fn foreign(&self) -> Vec<(RackId, ForeignDhcp)> {
        let foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        foreign.iter().flat_map(|(rack, all)| all.iter().map(|f| (*rack, f.clone()))).collect()
    }

    /// Clients that asked a rack and were not expected, all of them. Returns those that were not known.
    pub(crate) fn heard_strays(&self, rack: RackId, strays: Vec<Stray>) -> Vec<Stray> {
        let mut all = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.insert(rack, strays.clone()).unwrap_or_default();
        strays.into_iter().filter(|stray| !known.contains(stray)).collect()
    }

    /// Clients that asked racks and were not expected, with the rack that they asked.
    #[must_use]
    pub fn strays(&self) -> Vec<(RackId, Stray)> {
        let strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        strays.iter().flat_map(|(rack, all)| all.iter().map(|s| (*rack, s.clone()))).collect()
    }

    /// Up to which version each connected rack has the names in force.
    pub(crate) fn names_in_force(&self) -> Vec<(RackId, u64)> {
        let mut all: Vec<_> = self.racks().iter().map(|(rack, c)| (*rack, c.names().in_force)).collect();
        all.sort_unstable();
        all
    }

    fn racks(&self) -> MutexGuard<'_, HashMap<RackId, Arc<Connected>>> {
        self.racks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_force_up_to_the_last_plan_that_is() {
        let mut names = NamesTold::default();
        (3..6).for_each(|n| names.sent(Generation(n), n * 10));
        names.in_force(Generation(2));
        assert_eq!(names.in_force, 0, "an older plan says nothing of them");
        names.in_force(Generation(4));
        assert_eq!(names.in_force, 40);
        names.in_force(Generation(9));
        assert_eq!(names.in_force, 50);
    }

    #[test]
    fn of_two_connections_that_overtake_each_other_the_newer_is_in_force() {
        let connected = |number| {
            let (queue, _) = mpsc::unbounded_channel();
            let (hello, services, dirty) = (OnceLock::new(), Mutex::default(), Dirty::default());
            Arc::new(Connected {
                number,
                hello,
                services,
                queue,
                dirty,
                copies: Mutex::default(),
                names: Mutex::default(),
            })
        };
        let (links, rack) = (Links::default(), RackId::from_draws([1; 6]));
        links.put(rack, connected(1));
        links.put(rack, connected(3));
        links.put(rack, connected(2));
        assert!(!links.take(rack, 2) && links.count() == 1);
        assert!(links.take(rack, 3) && links.count() == 0);
    }
}
