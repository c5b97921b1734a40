//! Counters that cost a few nanoseconds: log2 histograms, and what each kind of actor has handled by event and by sender. Shows nothing.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    Source,
    losses::{DeadLetter, Losses, Restart},
};
use crate::{clock, core::TraceId};

/// Buckets of a histogram. The first holds what took less than 4 µs, each other one twice the span of the one before; the last has no end.
pub const BUCKETS: usize = 20;
/// The longest name of an event that is kept.
const LONGEST: usize = 64;

/// Spans of time, counted without a lock.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU32; BUCKETS],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Histogram {
    /// One more span.
    pub fn add(&self, us: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(us)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
        if us > self.max_us.load(Relaxed) {
            self.max_us.fetch_max(us, Relaxed);
        }
    }

    /// Median, 99th percentile and longest.
    #[must_use]
    pub fn short(&self) -> Short {
        let counts = self.buckets.each_ref().map(|b| u64::from(b.load(Relaxed)));
        let max = self.max_us.load(Relaxed);
        Short { p50: quantile(&counts, max, 50), p99: quantile(&counts, max, 99), max }
    }

    /// What it holds now.
    #[must_use]
    pub fn spread(&self) -> Spread {
        Spread {
            buckets: self.buckets.iter().map(|b| b.load(Relaxed).into()).collect(),
            sum_us: self.sum_us.load(Relaxed),
            max_us: self.max_us.load(Relaxed),
        }
    }
}

fn bucket_of(us: u64) -> usize {
    let bits = u64::BITS - (us >> 2).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    pub buckets: Vec<u64>,
    pub sum_us: u64,
    pub max_us: u64,
}

impl Spread {
    /// How many spans it counts.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Microseconds that so many percent of the spans did not exceed: the end of the bucket, or the longest span.
    #[must_use]
    pub fn quantile(&self, percent: u64) -> u64 {
        quantile(&self.buckets, self.max_us, percent)
    }

    /// The end of a bucket in microseconds; `None` for the last one.
    #[must_use]
    pub fn end_of(bucket: usize) -> Option<u64> {
        (bucket + 1 < BUCKETS).then(|| 4 << bucket)
    }

    /// Adds another one's spans.
    pub fn add(&mut self, other: &Self) {
        self.buckets.resize(BUCKETS, 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(a, b)| *a += b);
        self.sum_us += other.sum_us;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Median, 99th percentile and longest, for people.
    #[must_use]
    pub fn short(&self) -> Short {
        Short { p50: self.quantile(50), p99: self.quantile(99), max: self.max_us }
    }
}

fn quantile(buckets: &[u64], max_us: u64, percent: u64) -> u64 {
    let wanted = (buckets.iter().sum::<u64>() * percent).div_ceil(100);
    let mut seen = 0;
    for (at, count) in buckets.iter().enumerate() {
        seen += count;
        if seen >= wanted {
            return Spread::end_of(at).unwrap_or(u64::MAX).min(max_us);
        }
    }
    0
}

/// A histogram in three numbers, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Short {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// One event of one kind of actor.
#[derive(Debug)]
pub struct EventTally {
    pub name: Arc<str>,
    /// Time in the mailbox.
    pub wait: Histogram,
    /// Time from decision to shown, the record included.
    pub handle: Histogram,
    pub refused: AtomicU64,
    pub panics: AtomicU64,
}

/// One kind of actor, over all its actors, those that have ended too.
#[derive(Debug)]
pub struct KindTally {
    pub kind: &'static str,
    /// KIND/ID of the actor above its actors; empty: none but the node.
    pub parent: &'static str,
    events: RwLock<HashMap<Arc<str>, Arc<EventTally>>>,
    /// Messages by the kind of their sender.
    senders: RwLock<HashMap<&'static str, AtomicU64>>,
    /// Actors that ended since another writer moved them on; they are loaded anew.
    pub overtaken: AtomicU64,
    pub quarantined: AtomicU64,
    /// Messages to actors that had ended, or whose mailbox was full.
    pub undelivered: AtomicU64,
    losses: Mutex<Losses>,
}

impl KindTally {
    pub(super) fn new(kind: &'static str, parent: &'static str) -> Self {
        Self {
            kind,
            parent,
            events: RwLock::default(),
            senders: RwLock::default(),
            overtaken: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
            losses: Mutex::default(),
        }
    }

    /// The tally of an event, by the first word of its `Debug`: its variant. Formats no more than that.
    pub(crate) fn event(&self, event: &impl fmt::Debug) -> Arc<EventTally> {
        let word = FirstWord::of(event);
        let known = self.events.read().unwrap_or_else(PoisonError::into_inner).get(word.text()).cloned();
        known.unwrap_or_else(|| self.new_event(word.text()))
    }

    fn new_event(&self, name: &str) -> Arc<EventTally> {
        let name: Arc<str> = name.into();
        let new = || {
            Arc::new(EventTally {
                name: name.clone(),
                wait: Histogram::default(),
                handle: Histogram::default(),
                refused: AtomicU64::new(0),
                panics: AtomicU64::new(0),
            })
        };
        let mut events = self.events.write().unwrap_or_else(PoisonError::into_inner);
        events.entry(name.clone()).or_insert_with(new).clone()
    }

    /// Every event that was seen, by name.
    #[must_use]
    pub fn events(&self) -> Vec<Arc<EventTally>> {
        let mut events: Vec<_> = self.events.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        events.sort_by(|a, b| a.name.cmp(&b.name));
        events
    }

    pub(super) fn came_from(&self, kind: &'static str) {
        if let Some(count) = self.senders.read().unwrap_or_else(PoisonError::into_inner).get(kind) {
            count.fetch_add(1, Relaxed);
            return;
        }
        let mut senders = self.senders.write().unwrap_or_else(PoisonError::into_inner);
        senders.entry(kind).or_default().fetch_add(1, Relaxed);
    }

    /// Messages by the kind of their sender.
    #[must_use]
    pub fn senders(&self) -> Vec<(&'static str, u64)> {
        let senders = self.senders.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts: Vec<_> = senders.iter().map(|(kind, count)| (*kind, count.load(Relaxed))).collect();
        counts.sort_unstable();
        counts
    }

    pub(super) fn restarted(&self, restart: Restart) {
        self.losses().restart(restart);
    }

    /// A message to that actor found no room.
    pub(super) fn lost(&self, id: &str, event: Arc<str>, trace: TraceId, depth: usize) {
        self.undelivered.fetch_add(1, Relaxed);
        let (sender, now) = (Source::present(), clock::now());
        self.losses().letter((self.kind, id), (event, sender, trace), now, depth);
    }

    /// The last actors that did not go on as they were, oldest first.
    #[must_use]
    pub fn restarts(&self) -> Vec<Restart> {
        self.losses().restarts().cloned().collect()
    }

    /// The last messages that found no room, oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.losses().letters().cloned().collect()
    }

    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that were handled.
    #[must_use]
    pub fn handled(&self) -> u64 {
        let senders = self.senders.read().unwrap_or_else(PoisonError::into_inner);
        senders.values().map(|count| count.load(Relaxed)).sum()
    }
}

/// The first word of what is written into it, and an error as soon as that word has ended.
struct FirstWord {
    bytes: [u8; LONGEST],
    len: usize,
}

impl FirstWord {
    fn of(event: &impl fmt::Debug) -> Self {
        let mut word = Self { bytes: [0; LONGEST], len: 0 };
        write!(word, "{event:?}").ok(); // The error is the end of the word.
        word
    }

    fn text(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl Write for FirstWord {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let in_word = byte.is_ascii_alphanumeric() || byte == b'_';
            match self.bytes.get_mut(self.len).filter(|_| in_word) {
                Some(place) => *place = byte,
                None => return Err(fmt::Error),
            }
            self.len += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_fall_into_buckets_that_double() {
        let histogram = Histogram::default();
        for us in [0, 3, 4, 7, 8, 1_000, u64::MAX >> 1] {
            histogram.add(us);
        }
        let spread = histogram.spread();
        assert_eq!(
            (&spread.buckets[..3], spread.buckets[8], spread.buckets[BUCKETS - 1]),
            ([2, 2, 1].as_slice(), 1, 1)
        );
        assert_eq!((spread.count(), spread.quantile(50), spread.quantile(100)), (7, 8, u64::MAX >> 1));
        assert_eq!((Spread::end_of(0), Spread::end_of(1), Spread::end_of(BUCKETS - 1)), (Some(4), Some(8), None));
        let mut sum = Spread::default();
        sum.add(&spread);
        assert_eq!(sum, spread);
        assert_eq!(Spread::default().quantile(99), 0);
    }

    #[test]
    fn an_event_is_known_by_the_name_of_its_variant_alone() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "only their Debug is looked at")]
        enum Event {
            Plain,
            Tuple(u8),
            Fields { secret: &'static str },
        }
        let tally = KindTally::new("test", "");
        let names =
            [Event::Plain, Event::Tuple(1), Event::Fields { secret: "canary" }].map(|e| tally.event(&e).name.clone());
        assert_eq!(names.each_ref().map(|n| &**n), ["Plain", "Tuple", "Fields"]);
        assert!(Arc::ptr_eq(&tally.event(&Event::Tuple(1)), &tally.event(&Event::Tuple(2))));
        assert_eq!(tally.events().len(), 3);
    }
}
