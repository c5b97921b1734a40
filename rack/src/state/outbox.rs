//! Which reports wait, and which go first when there are too many. Their bytes are in the store's tables.

use std::collections::{BTreeMap, BTreeSet};

use schema::messages::report::Fact;

/// Bounds of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Reports that may wait. 1 or more.
    pub reports: usize,
    /// Their bytes together.
    pub bytes: u64,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { reports: 200_000, bytes: 256 << 20 }
    }
}

/// How dear a report is. At the bound the oldest of the cheapest class goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Says only that something lives: heartbeats, cloud-init's progress.
    Chatter,
    /// Seen again at the next try: offers, files asked for, tries.
    Passing,
    /// Moves a machine, or is a result.
    Evidence,
}

fn class(fact: &Fact) -> Class {
    match fact {
        Fact::Heartbeat | Fact::CloudInit { .. } => Class::Chatter,
        Fact::PowerTry { .. }
        | Fact::PowerTryFailed { .. }
        | Fact::PowerSeen { .. }
        | Fact::Offered { .. }
        | Fact::NoAddress { .. }
        | Fact::FileAsked { .. }
        | Fact::FileAborted { .. }
        | Fact::MetadataFetched { .. }
        | Fact::PreseedRefused { .. }
        | Fact::SignalRefused { .. }
        | Fact::TwoHosts { .. }
        | Fact::AuthRefused { .. } => Class::Passing,
        _ => Class::Evidence,
    }
}

/// The reports that wait, by number. The simulation keeps its outbox by it, too.
#[derive(Debug)]
pub struct Index {
    limits: OutboxLimits,
    held: BTreeMap<u64, (u64, Class)>,
    by_class: [BTreeSet<u64>; 3],
    bytes: u64,
}

impl Index {
    /// None waits yet.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Self {
        Self { limits, held: BTreeMap::new(), by_class: Default::default(), bytes: 0 }
    }

    /// One more waits.
    pub fn add(&mut self, seq: u64, bytes: u64, fact: &Fact) {
        let class = class(fact);
        self.held.insert(seq, (bytes, class));
        self.set(class).insert(seq);
        self.bytes += bytes;
    }

    /// Takes out every number up to and with `through`.
    pub fn acked(&mut self, through: u64) -> Vec<u64> {
        let gone: Vec<_> = self.held.range(..=through).map(|(seq, _)| *seq).collect();
        gone.iter().for_each(|seq| self.remove(*seq));
        gone
    }

    /// Takes out what must go to come within the bounds again.
    pub fn overflow(&mut self) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.held.len() > self.limits.reports.max(1) || self.bytes > self.limits.bytes {
            if self.held.len() <= 1 {
                break; // The newest stays, however large.
            }
            let Some(seq) = self.by_class.iter().find_map(|set| set.first().copied()) else { break };
            self.remove(seq);
            gone.push(seq);
        }
        gone
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.held.keys().next_back().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn remove(&mut self, seq: u64) {
        if let Some((bytes, class)) = self.held.remove(&seq) {
            self.set(class).remove(&seq);
            self.bytes -= bytes;
        }
    }

    fn set(&mut self, class: Class) -> &mut BTreeSet<u64> {
        let [chatter, passing, evidence] = &mut self.by_class;
        match class {
            Class::Chatter => chatter,
            Class::Passing => passing,
            Class::Evidence => evidence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chatter_goes_first_then_what_passes_then_the_oldest() {
        let mut index = Index::new(OutboxLimits { reports: 3, bytes: 1_000 });
        index.add(1, 10, &Fact::OrderAccepted);
        index.add(2, 10, &Fact::Heartbeat);
        index.add(3, 10, &Fact::MetadataFetched { item: "x".into() });
        assert!(index.overflow().is_empty());
        index.add(4, 10, &Fact::TicketHeld);
        assert_eq!(index.overflow(), [2]);
        index.add(5, 10, &Fact::TicketHeld);
        assert_eq!(index.overflow(), [3]);
        index.add(6, 990, &Fact::UserDataFetched);
        assert_eq!(index.overflow(), [1, 4]);
        assert_eq!(index.acked(5), [5]);
        assert_eq!((index.last(), index.len()), (Some(6), 1));
        index.add(7, 5_000, &Fact::UserDataFetched);
        assert_eq!(index.overflow(), [6], "one too large report alone stays");
    }
}
