//! How many commissionings are under way at once. A whole site that is asked for at once gets its turn bit by bit, so that what is begun
//! also ends: machines under way go on, new ones wait for their turn, in the order they were asked for. Overload never becomes a time-out.
//!
//! The number adapts by itself. It has two measures: how long a rack's report takes here from its arrival until its step is durable, and how
//! long racks take to answer for a ticket or an order. While both are short more may begin, and when one grows fewer do (multiplicative both
//! ways, with a quiet zone between). Turns are given out evenly in time: machines that begin together also end together, and the fleet would
//! come back in waves.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actors::machine::Machine;
use schema::id::SystemId;

/// Bounds of the number, and what it begins with.
const LEAST: usize = 32;
const FIRST: usize = 100;
const MOST: usize = 4_000;
/// Reports that take longer mean that too much is under way; where few take as long as that there is room for more.
const SLOW: Duration = Duration::from_millis(800);
const QUICK: Duration = Duration::from_millis(300);
/// Racks that answer later have a queue.
const LATE: Duration = Duration::from_secs(2);
/// Between two looks at the number.
const LOOK: Duration = Duration::from_millis(500);
/// As many as may be under way begin within this time at the fastest. A boot of real machines takes minutes, so it costs them nothing.
const SPREAD: Duration = Duration::from_secs(4);
/// So many begin at once: a rack's worth of machines need not queue.
const AT_ONCE: f64 = 16.0;
/// How often somebody must look whose turn it is.
pub const TICK: Duration = Duration::from_millis(100);

/// Whose turn it is.
#[derive(Default)]
pub struct Turns(Mutex<Inner>);

struct Inner {
    limit: usize,
    under_way: HashSet<SystemId>,
    waiting: Queue,
    /// Of the reports since the last look: how many, and how many were slow or not quick.
    heard: u32,
    slow: u32,
    unquick: u32,
    /// Of the answers of racks since then: how many, and how many were late.
    answered: u32,
    late: u32,
    looked: Option<Instant>,
    /// Turns that may be given now, fractions included, as of then.
    ripe: f64,
    ripened: Option<Instant>,
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
        let (under_way, waiting) = (HashSet::new(), Queue::default());
        let (looked, ripened) = (None, None);
        let (heard, slow, unquick, answered, late) = (0, 0, 0, 0, 0);
        Self { limit: FIRST, under_way, waiting, heard, slow, unquick, answered, late, looked, ripe: AT_ONCE, ripened }
    }
}

impl Turns {
    /// A machine that is to be commissioned: `None` when it may begin, else how many are before it.
    #[must_use]
    pub fn ask(&self, machine: SystemId, tick: Instant) -> Option<u32> {
        let mut inner = self.inner();
        inner.leave(machine);
        inner.ripen(tick);
        if inner.waiting.is_empty() && inner.may_begin() {
            inner.begin(machine);
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
                if inner.under_way.remove(&id) {
                    inner.waiting.push_front(id);
                } else {
                    inner.waiting.push_back(id);
                }
            }
            Some(_) => drop(inner.under_way.insert(id)),
            None => inner.leave(id),
        }
    }

    /// The machines whose turn has come. They are to be told so.
    #[must_use]
    pub fn due(&self, tick: Instant) -> Vec<SystemId> {
        let mut inner = self.inner();
        inner.ripen(tick);
        let mut due = Vec::new();
        while inner.may_begin()
            && let Some(machine) = inner.waiting.pop_front()
        {
            inner.begin(machine);
            due.push(machine);
        }
        due
    }

    /// It could not be told that its turn had come: it is the next again.
    pub fn put_back(&self, machine: SystemId) {
        let mut inner = self.inner();
        if inner.under_way.remove(&machine) {
            inner.waiting.push_front(machine);
        }
    }

    /// A report's step became durable that long after the report had come.
    pub fn heard(&self, took: Duration, tick: Instant) {
        let mut inner = self.inner();
        inner.heard += 1;
        inner.slow += u32::from(took > SLOW);
        inner.unquick += u32::from(took > QUICK);
        inner.look(tick);
    }

    /// A rack answered for a ticket or an order that long after it was given.
    pub fn answered(&self, took: Duration, tick: Instant) {
        let mut inner = self.inner();
        inner.answered += 1;
        inner.late += u32::from(took > LATE);
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
        if !self.under_way.remove(&machine) {
            self.waiting.remove(machine);
        }
    }

    fn may_begin(&self) -> bool {
        self.under_way.len() < self.limit && self.ripe >= 1.0
    }

    fn begin(&mut self, machine: SystemId) {
        self.ripe -= 1.0;
        self.under_way.insert(machine);
    }

    fn ripen(&mut self, tick: Instant) {
        let since = self.ripened.replace(tick).map_or(Duration::ZERO, |then| tick.saturating_duration_since(then));
        let grown = self.limit as f64 * since.as_secs_f64() / SPREAD.as_secs_f64();
        self.ripe = (self.ripe + grown).min(AT_ONCE);
    }

    fn look(&mut self, tick: Instant) {
        let since = *self.looked.get_or_insert(tick);
        if tick.saturating_duration_since(since) < LOOK {
            return;
        }
        // More than a tenth slow or late: too much. Hardly any that is not quick, and somebody waits: more. In small steps, for what begins
        // now is felt only when it boots.
        if self.slow * 10 > self.heard || self.late * 10 > self.answered {
            self.limit = (self.limit * 19 / 20).max(LEAST);
        } else if self.unquick * 10 <= self.heard && !self.waiting.is_empty() {
            self.limit = (self.limit + self.limit / 40 + 1).min(MOST);
        }
        (self.heard, self.slow, self.unquick, self.looked) = (0, 0, 0, Some(tick));
        (self.answered, self.late) = (0, 0);
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
    use super::*;

    fn id(n: usize) -> SystemId {
        let symbol = |n: usize| u8::try_from(n % 20).unwrap();
        SystemId::from_draws([1, 1, 1, symbol(n / 400), symbol(n / 20), symbol(n)])
    }

    fn idle(n: usize) -> Machine {
        Machine::absent(id(n))
    }

    #[test]
    fn so_many_begin_and_the_others_follow_in_their_order() {
        let (turns, start) = (Turns::default(), actors::clock::tick());
        let asked: Vec<_> = (0..FIRST + 3).map(|n| turns.ask(id(n), start)).collect();
        assert!(asked[..16].iter().all(Option::is_none));
        assert_eq!(asked[16..19], [Some(0), Some(1), Some(2)]);
        // A rack's worth at once, then evenly: all that may be under way are so within four seconds.
        let at = |ms| start + Duration::from_millis(ms);
        let due: Vec<_> = (1..=40).map(|n| turns.due(at(100 * n)).len()).collect();
        assert!(due.iter().all(|n| (2..=3).contains(n) || *n == 0), "{due:?}");
        assert_eq!(turns.counts(), TurnCounts { limit: FIRST, under_way: FIRST, waiting: 3 });
        assert_eq!(turns.place(id(FIRST + 2)), Some((2, FIRST)));
        // One gives up waiting, one under way ends.
        turns.note(&idle(FIRST + 1));
        assert!(turns.due(at(9_000)).is_empty());
        turns.note(&idle(7));
        assert_eq!(turns.due(at(9_000)), [id(FIRST)]);
        assert_eq!(turns.place(id(FIRST + 2)), Some((0, FIRST)));
        turns.put_back(id(FIRST));
        assert_eq!((turns.place(id(FIRST)), turns.due(at(9_000))), (Some((0, FIRST)), vec![id(FIRST)]));
    }

    #[test]
    fn the_number_grows_while_reports_are_quick_and_somebody_waits_and_shrinks_when_they_are_slow() {
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
        assert!(second(10, &turns) > FIRST);
        let high = second(10, &turns);
        assert_eq!(second(500, &turns), high, "between quick and slow it stays");
        assert_eq!((0..120).map(|_| second(5_000, &turns)).last(), Some(LEAST));
    }

    #[test]
    fn racks_that_answer_late_are_not_given_more_however_quick_the_region_is() {
        let (turns, start) = (Turns::default(), actors::clock::tick());
        assert!((0..FIRST + 500).filter_map(|n| turns.ask(id(n), start)).count() >= 500);
        let mut tick = start;
        let mut six_seconds = |racks_take: Duration| {
            for _ in 0..100 {
                tick += Duration::from_millis(60);
                turns.answered(racks_take, tick);
                turns.heard(QUICK / 10, tick);
            }
            turns.counts().limit
        };
        let grown = six_seconds(LATE / 10);
        assert!(grown > FIRST);
        let shrunk = six_seconds(LATE * 2);
        assert!(shrunk < grown, "{shrunk} of {grown}");
        assert!(six_seconds(LATE / 10) > shrunk, "the queue is gone");
    }
}
