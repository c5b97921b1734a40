//! How many commissionings are under way at once. A whole site that is asked for at once gets its turn bit by bit, so that what is begun
//! also ends: machines under way go on, new ones wait for their turn, in the order they were asked for. Overload never becomes a time-out.
//!
//! Two bounds hold it, and both adapt. *How fast* they begin follows the racks' answers: no more than a few wait at once for a rack that says
//! it has the ticket. That answer passes every queue that a commissioning passes, in the region, on the link and in the rack; when one of them
//! grows, answers come later, and so do turns, at once and in proportion. Nothing needs to be measured first, so there are no waves. *How many*
//! there are follows how long a rack's report takes here from its arrival until its step is durable. While that is short more may be under
//! way, and when it grows fewer (multiplicative both ways, with a quiet zone between).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actors::machine::Machine;
use schema::{commissioning::CommissionStep, id::SystemId};

/// Bounds of the number, and what it begins with.
const LEAST: usize = 32;
const FIRST: usize = 100;
const MOST: usize = 4_000;
/// Reports that take longer mean that too much is under way; where few take as long as that there is room for more.
const SLOW: Duration = Duration::from_millis(800);
const QUICK: Duration = Duration::from_millis(300);
/// So many wait at once for a rack to say that it has their ticket, or a third of what may be under way. At the 30 machines a second that a
/// region begins at its best, racks that answer within a second do not hold it up.
const UNANSWERED: usize = 32;
/// Who waits longer for a rack does not hold up the others: with that rack something is wrong, and most go to another one.
const OVERDUE: Duration = Duration::from_secs(5);
/// Between two looks at the number.
const LOOK: Duration = Duration::from_millis(500);
/// How often somebody must look whose turn it is.
pub const TICK: Duration = Duration::from_millis(100);

/// Whose turn it is.
#[derive(Default)]
pub struct Turns(Mutex<Inner>);

struct Inner {
    limit: usize,
    under_way: HashSet<SystemId>,
    /// Of those, the ones that no rack has answered for, with when they began.
    unanswered: HashMap<SystemId, Instant>,
    waiting: Queue,
    /// Of the reports since the last look: how many, and how many were slow or not quick.
    heard: u32,
    slow: u32,
    unquick: u32,
    looked: Option<Instant>,
}

/// The turns in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnCounts {
    /// As many may be under way.
    pub limit: usize,
    pub under_way: usize,
    pub waiting: usize,
}

impl Default for Inner {
    fn default() -> Self {
        let (under_way, unanswered, waiting) = (HashSet::new(), HashMap::new(), Queue::default());
        Self { limit: FIRST, under_way, unanswered, waiting, heard: 0, slow: 0, unquick: 0, looked: None }
    }
}

impl Turns {
    /// A machine that is to be commissioned: `None` when it may begin, else how many are before it.
    #[must_use]
    pub fn ask(&self, machine: SystemId, tick: Instant) -> Option<u32> {
        let mut inner = self.inner();
        inner.leave(machine);
        if inner.waiting.is_empty() && inner.may_begin(tick) {
            inner.begin(machine, tick);
            return None;
        }
        inner.waiting.push_back(machine);
        Some(u32::try_from(inner.waiting.len() - 1).unwrap_or(u32::MAX))
    }

    /// Takes a machine for what it says of itself: that it waits, is under way, or is neither.
    pub fn note(&self, machine: &Machine) {
        let (id, mut inner) = (machine.spec.system_id, self.inner());
        match machine.open_attempt() {
            Some(attempt) if attempt.place.is_some() => {
                // One that was told while it did not wait yet is told again; twice does no harm.
                if !inner.back_to_waiting(id) {
                    inner.waiting.push_back(id);
                }
            }
            Some(attempt) => {
                inner.under_way.insert(id);
                if !attempt.held_by.is_empty() || attempt.is_done(CommissionStep::RackChosen) {
                    inner.unanswered.remove(&id);
                }
            }
            None => inner.leave(id),
        }
    }

    /// The machines whose turn has come. They are to be told so.
    #[must_use]
    pub fn due(&self, tick: Instant) -> Vec<SystemId> {
        let mut inner = self.inner();
        let mut due = Vec::new();
        while inner.may_begin(tick)
            && let Some(machine) = inner.waiting.pop_front()
        {
            inner.begin(machine, tick);
            due.push(machine);
        }
        due
    }

    /// It could not be told that its turn had come: it is the next again.
    pub fn put_back(&self, machine: SystemId) {
        self.inner().back_to_waiting(machine);
    }

    /// The step of a report that waited for no other one of its machine became durable that long after the report had come.
    pub fn heard(&self, took: Duration, tick: Instant) {
        let mut inner = self.inner();
        inner.heard += 1;
        inner.slow += u32::from(took > SLOW);
        inner.unquick += u32::from(took > QUICK);
        inner.look(tick);
    }

    /// How many are before that machine, and how many may be under way at once; `None`: it does not wait.
    #[must_use]
    pub fn place(&self, machine: SystemId) -> Option<(usize, usize)> {
        let inner = self.inner();
        Some((inner.waiting.before(machine)?, inner.limit))
    }

    /// How many there are.
    #[must_use]
    pub fn counts(&self) -> TurnCounts {
        let inner = self.inner();
        TurnCounts { limit: inner.limit, under_way: inner.under_way.len(), waiting: inner.waiting.len() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn leave(&mut self, machine: SystemId) {
        self.unanswered.remove(&machine);
        if !self.under_way.remove(&machine) {
            self.waiting.remove(machine);
        }
    }

    /// One that is under way is the first of those that wait; false: it is not under way.
    fn back_to_waiting(&mut self, machine: SystemId) -> bool {
        self.unanswered.remove(&machine);
        let was = self.under_way.remove(&machine);
        if was {
            self.waiting.push_front(machine);
        }
        was
    }

    fn may_begin(&mut self, tick: Instant) -> bool {
        let room = UNANSWERED.min(self.limit / 3);
        if self.unanswered.len() >= room {
            self.unanswered.retain(|_, began| tick.saturating_duration_since(*began) < OVERDUE);
        }
        self.unanswered.len() < room && self.under_way.len() < self.limit
    }

    fn begin(&mut self, machine: SystemId, tick: Instant) {
        self.under_way.insert(machine);
        self.unanswered.insert(machine, tick);
    }

    fn look(&mut self, tick: Instant) {
        let since = *self.looked.get_or_insert(tick);
        if tick.saturating_duration_since(since) < LOOK {
            return;
        }
        // More than a tenth slow: too much. Hardly any that is not quick, and it is this bound that holds somebody up: more. In small steps,
        // for what begins now is felt only when it boots.
        let holds_up = !self.waiting.is_empty() && self.under_way.len() * 10 >= self.limit * 9;
        if self.slow * 10 > self.heard {
            self.limit = (self.limit * 19 / 20).max(LEAST);
        } else if self.unquick * 10 <= self.heard && holds_up {
            self.limit = (self.limit + self.limit / 40 + 1).min(MOST);
        }
        (self.heard, self.slow, self.unquick, self.looked) = (0, 0, 0, Some(tick));
    }
}

/// Machines in their order. Each is found without looking at the others: all that a machine does is told here, and whole sites wait.
#[derive(Default)]
struct Queue {
    order: BTreeMap<i64, SystemId>,
    places: HashMap<SystemId, i64>,
}

impl Queue {
    /// It is the last now, unless it waits already.
    fn push_back(&mut self, machine: SystemId) {
        let last = self.order.last_key_value().map_or(0, |(place, _)| place + 1);
        if !self.places.contains_key(&machine) {
            self.put(machine, last);
        }
    }

    /// It is the first now.
    fn push_front(&mut self, machine: SystemId) {
        self.remove(machine);
        let first = self.order.first_key_value().map_or(0, |(place, _)| place - 1);
        self.put(machine, first);
    }

    fn put(&mut self, machine: SystemId, place: i64) {
        self.order.insert(place, machine);
        self.places.insert(machine, place);
    }

    fn pop_front(&mut self) -> Option<SystemId> {
        let (_, machine) = self.order.pop_first()?;
        self.places.remove(&machine);
        Some(machine)
    }

    fn remove(&mut self, machine: SystemId) {
        if let Some(place) = self.places.remove(&machine) {
            self.order.remove(&place);
        }
    }

    /// How many are before it; `None`: it does not wait.
    fn before(&self, machine: SystemId) -> Option<usize> {
        self.places.get(&machine).map(|place| self.order.range(..place).count())
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use actors::core::Core;
    use schema::{
        boot::{BodyRef, Image, Sha256},
        messages::machine::{Brief, CommissionOptions, MachineEvent, MachineSpec},
        net::MacAddr,
        time::Timestamp,
    };

    use super::*;

    fn id(n: usize) -> SystemId {
        let symbol = |n: usize| u8::try_from(n % 20).unwrap();
        SystemId::from_draws([1, 1, 1, symbol(n / 400), symbol(n / 20), symbol(n)])
    }

    fn idle(n: usize) -> Machine {
        Machine::absent(id(n))
    }

    /// A machine under way: a rack holds its ticket, or none does yet.
    fn begun(n: usize, answered: bool) -> Machine {
        let step = |machine: Machine, event| {
            let step = machine.step(&event, Timestamp::from_seconds(0));
            step.next.unwrap_or_else(|| panic!("{:?}", step.verdict))
        };
        let (by, body) = ("admin".to_owned(), BodyRef { sha256: Sha256([0; 32]), len: 1 });
        let image = Image {
            name: "debian/bookworm/amd64/generic".into(),
            arch: "amd64".into(),
            kernel: body,
            initrd: body,
            squashfs: None,
            kernel_params: String::new(),
        };
        let (racks, absent) = (vec![id(n)], idle(n));
        let spec =
            MachineSpec { macs: vec![MacAddr([2; 6])], architecture: "amd64/generic".into(), ..absent.spec.clone() };
        let created = step(absent, MachineEvent::Created { by: by.clone(), spec });
        let brief =
            Brief { boot_racks: racks.clone(), bmc_racks: racks.clone(), image: Some(image), ..Brief::default() };
        let options = CommissionOptions::default();
        let mut machine = step(created, MachineEvent::Commission { by, options, brief });
        if answered {
            machine.attempt.as_mut().unwrap().held_by = racks;
        }
        machine
    }

    #[test]
    fn a_few_begin_at_once_and_the_others_follow_as_racks_answer() {
        let (turns, start) = (Turns::default(), actors::clock::tick());
        let asked: Vec<_> = (0..FIRST + 3).map(|n| turns.ask(id(n), start)).collect();
        assert!(asked[..UNANSWERED].iter().all(Option::is_none));
        assert_eq!(asked[UNANSWERED..UNANSWERED + 3], [Some(0), Some(1), Some(2)]);
        // Two have answers, so two more begin; that a machine moved without an answer changes nothing.
        for n in 0..4 {
            turns.note(&begun(n, n < 2));
        }
        assert_eq!(turns.due(start), [id(UNANSWERED), id(UNANSWERED + 1)]);
        assert!(turns.due(start + OVERDUE / 2).is_empty());
        // The others' racks are overdue: they hold up nobody any more.
        let due = turns.due(start + OVERDUE);
        assert_eq!((due.len(), due[0]), (UNANSWERED, id(UNANSWERED + 2)));
    }

    #[test]
    fn so_many_are_under_way_and_the_others_wait_in_their_order() {
        let (turns, start) = (Turns::default(), actors::clock::tick());
        for n in 0..FIRST + 3 {
            assert_eq!(turns.ask(id(n), start).is_none(), n < UNANSWERED);
        }
        for n in 0..FIRST {
            turns.note(&begun(n, true));
            let next = turns.due(start);
            assert!(next.len() <= 1, "{next:?}");
        }
        assert_eq!(turns.counts(), TurnCounts { limit: FIRST, under_way: FIRST, waiting: 3 });
        assert_eq!(turns.place(id(FIRST + 2)), Some((2, FIRST)));
        // One gives up waiting, one under way ends.
        turns.note(&idle(FIRST + 1));
        assert!(turns.due(start).is_empty());
        turns.note(&idle(7));
        assert_eq!(turns.due(start), [id(FIRST)]);
        assert_eq!(turns.place(id(FIRST + 2)), Some((0, FIRST)));
        turns.put_back(id(FIRST));
        assert_eq!((turns.place(id(FIRST)), turns.due(start)), (Some((0, FIRST)), vec![id(FIRST)]));
    }

    #[test]
    fn the_number_grows_while_it_holds_somebody_up_and_reports_are_quick_and_shrinks_when_they_are_slow() {
        let turns = Turns::default();
        let start = actors::clock::tick();
        let mut tick = start;
        let mut second = |took: u64, turns: &Turns| {
            for _ in 0..20 {
                tick += Duration::from_millis(60);
                turns.heard(Duration::from_millis(took), tick);
            }
            turns.counts().limit
        };
        assert_eq!(second(10, &turns), FIRST, "nobody waits");
        assert!((0..FIRST + 500).filter_map(|n| turns.ask(id(n), start)).count() >= 500);
        assert_eq!(second(10, &turns), FIRST, "it is racks that are waited for");
        for n in 0..FIRST {
            turns.note(&begun(n, true));
            drop(turns.due(start));
        }
        assert!(second(10, &turns) > FIRST);
        let high = second(500, &turns);
        assert_eq!(second(500, &turns), high, "between quick and slow it stays");
        assert_eq!((0..120).map(|_| second(5_000, &turns)).last(), Some(LEAST));
    }
}
