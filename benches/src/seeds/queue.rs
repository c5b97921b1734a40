//! Virtual time: what happens when, in one order, and the journal of what was decided. Reads no clock.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Duration,
};

use schema::{boot::Sha256, time::Timestamp};

/// Something that is due.
struct Due<E> {
    at: Timestamp,
    /// Of two at the same time the one that was put in first comes first.
    number: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What is due, soonest first.
pub(super) struct Queue<E> {
    pub(super) now: Timestamp,
    due: BinaryHeap<Reverse<Due<E>>>,
    put: u64,
}

impl<E> Queue<E> {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { now, due: BinaryHeap::new(), put: 0 }
    }

    /// Puts it in; what is due already comes at once.
    pub(super) fn at(&mut self, at: Timestamp, event: E) {
        self.put += 1;
        self.due.push(Reverse(Due { at: at.max(self.now), number: self.put, event }));
    }

    pub(super) fn after(&mut self, wait: Duration, event: E) {
        self.at(self.now + wait, event);
    }

    /// The next one; time goes on to it.
    pub(super) fn next(&mut self) -> Option<E> {
        let Reverse(due) = self.due.pop()?;
        self.now = due.at;
        Some(due.event)
    }

    /// When the next one is due.
    pub(super) fn soonest(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse(due)| due.at)
    }
}

/// All that was decided, as a chain of hashes; as text, too, where somebody reads it.
pub(super) struct Journal {
    hash: Sha256,
    lines: u64,
    text: Option<Vec<String>>,
    chunk: String,
}

/// Bytes that are hashed together.
const CHUNK: usize = 64 << 10;

impl Journal {
    pub(super) fn new(trace: bool) -> Self {
        Self { hash: Sha256([0; 32]), lines: 0, text: trace.then(Vec::new), chunk: String::new() }
    }

    /// `line`: what a reader sees. `more`: what only the hash holds.
    pub(super) fn note(&mut self, at: Timestamp, line: &str, more: &str) {
        self.lines += 1;
        self.chunk.push_str(&at.0.to_string());
        for part in [line, more] {
            self.chunk.push(' ');
            self.chunk.push_str(part);
        }
        self.chunk.push('\n');
        if self.chunk.len() >= CHUNK {
            self.fold();
        }
        if let Some(text) = &mut self.text {
            let seconds = at.0.rem_euclid(86_400_000_000);
            text.push(format!("{:>6}.{:06} {line}", seconds / 1_000_000, seconds % 1_000_000));
        }
    }

    fn fold(&mut self) {
        let whole = [&self.hash.0[..], self.chunk.as_bytes()].concat();
        (self.hash, self.chunk) = (Sha256::of(&whole), String::new());
    }

    /// Hash, number of lines, text.
    pub(super) fn close(mut self) -> (Sha256, u64, Vec<String>) {
        self.fold();
        (self.hash, self.lines, self.text.unwrap_or_default())
    }
}
