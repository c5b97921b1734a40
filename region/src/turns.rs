//! How many commissionings are under way at once. A whole site that is asked for at once gets its turn bit by bit, so that what is begun
//! also ends: machines under way go on, new ones wait for their turn, in the order they were asked for. Overload never becomes a time-out.
//!
//! The number adapts by itself. Its measure is how old a rack's report is when its step is decided: while that is small more may
//! begin, and when it grows fewer do (additive increase, multiplicative decrease).

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actors::machine::Machine;
use schema::{id::SystemId, time::Timestamp};

/// Bounds of the number, and what it begins with.
const LEAST: usize = 32;
const FIRST: usize = 200;
const MOST: usize = 4_000;
/// Older reports than this mean that too much is under way; younger ones than that leave room for more.
const OLD: Duration = Duration::from_secs(2);
const YOUNG: Duration = Duration::from_millis(500);
/// Between two looks at the number.
const PACE: Duration = Duration::from_secs(1);

/// Whose turn it is.
#[derive(Default)]
pub struct Turns(Mutex<Inner>);

struct Inner {
    limit: usize,
    under_way: HashSet<SystemId>,
    waiting: VecDeque<SystemId>,
    /// Of the reports since the last look: how many, and how many were old or not young.
    heard: u32,
    old: u32,
    aged: u32,
    looked: Option<Instant>,
}

impl Default for Inner {
    fn default() -> Self {
        let (under_way, waiting) = (HashSet::new(), VecDeque::new());
        Self { limit: FIRST, under_way, waiting, heard: 0, old: 0, aged: 0, looked: None }
    }
}

impl Turns {
    /// A machine that is to be commissioned: `None` when it may begin, else how many are before it.
    #[must_use]
    pub fn ask(&self, machine: SystemId) -> Option<u32> {
        let mut inner = self.inner();
        inner.leave(machine);
        if inner.waiting.is_empty() && inner.under_way.len() < inner.limit {
            inner.under_way.insert(machine);
            return None;
        }
        inner.waiting.push_back(machine);
        Some(u32::try_from(inner.waiting.len() - 1).unwrap_or(u32::MAX))
    }

    /// Takes a machine for what it says of itself: that it waits, is under way, or is neither. Who is to be told that it is his turn.
    #[must_use]
    pub fn note(&self, machine: &Machine) -> Vec<SystemId> {
        let (id, mut inner) = (machine.spec.system_id, self.inner());
        match machine.open_attempt() {
            Some(attempt) if attempt.place.is_some() => {
                if !inner.under_way.contains(&id) && !inner.waiting.contains(&id) {
                    inner.waiting.push_back(id);
                }
            }
            Some(_) => drop(inner.under_way.insert(id)),
            None => inner.leave(id),
        }
        inner.next()
    }

    /// A report came that was made at `made`.
    pub fn heard(&self, made: Timestamp, now: Timestamp, tick: Instant) {
        let (age, mut inner) = (now.since(made), self.inner());
        inner.heard += 1;
        inner.old += u32::from(age > OLD);
        inner.aged += u32::from(age > YOUNG);
        inner.look(tick);
    }

    /// How many are before that machine, and how many may be under way at once; `None`: it does not wait.
    #[must_use]
    pub fn place(&self, machine: SystemId) -> Option<(usize, usize)> {
        let inner = self.inner();
        Some((inner.waiting.iter().position(|id| *id == machine)?, inner.limit))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn leave(&mut self, machine: SystemId) {
        if !self.under_way.remove(&machine)
            && let Some(at) = self.waiting.iter().position(|id| *id == machine)
        {
            self.waiting.remove(at);
        }
    }

    fn next(&mut self) -> Vec<SystemId> {
        let mut told = Vec::new();
        while self.under_way.len() < self.limit
            && let Some(machine) = self.waiting.pop_front()
        {
            self.under_way.insert(machine);
            told.push(machine);
        }
        told
    }

    fn look(&mut self, tick: Instant) {
        let since = *self.looked.get_or_insert(tick);
        if tick.saturating_duration_since(since) < PACE {
            return;
        }
        // More than a tenth old: too much. Hardly any that is not young, and somebody waits: more.
        if self.old * 10 > self.heard {
            self.limit = (self.limit * 4 / 5).max(LEAST);
        } else if self.aged * 10 <= self.heard && !self.waiting.is_empty() {
            self.limit = (self.limit + self.limit / 10 + 1).min(MOST);
        }
        (self.heard, self.old, self.aged, self.looked) = (0, 0, 0, Some(tick));
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
        let turns = Turns::default();
        let asked: Vec<_> = (0..FIRST + 3).map(|n| turns.ask(id(n))).collect();
        assert!(asked[..FIRST].iter().all(Option::is_none));
        assert_eq!(asked[FIRST..], [Some(0), Some(1), Some(2)]);
        assert_eq!(turns.place(id(FIRST + 2)), Some((2, FIRST)));
        // One gives up waiting, one under way ends.
        assert!(turns.note(&idle(FIRST + 1)).is_empty());
        assert_eq!(turns.note(&idle(7)), [id(FIRST)]);
        assert_eq!(turns.place(id(FIRST + 2)), Some((0, FIRST)));
    }

    #[test]
    fn the_number_grows_while_reports_are_young_and_somebody_waits_and_shrinks_when_they_age() {
        let turns = Turns::default();
        let (start, at) = (actors::clock::tick(), Timestamp::from_seconds);
        let mut tick = start;
        let mut second = |age: u64, turns: &Turns| {
            for _ in 0..20 {
                tick += Duration::from_millis(60);
                turns.heard(at(1_000), at(1_000) + Duration::from_millis(age), tick);
            }
            turns.inner().limit
        };
        assert_eq!(second(10, &turns), FIRST, "nobody waits");
        assert!((0..FIRST + 500).filter_map(|n| turns.ask(id(n))).count() >= 500);
        assert!(second(10, &turns) > FIRST);
        let high = second(10, &turns);
        assert_eq!(second(900, &turns), high, "between young and old it stays");
        assert_eq!((0..60).map(|_| second(5_000, &turns)).last(), Some(LEAST));
    }
}
