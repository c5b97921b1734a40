//! The last ends and losses among the actors of a kind: who was stopped or had to be loaded anew, which messages found no room. Rings of a
//! few dozen; a repeat only counts.

use std::{collections::VecDeque, sync::Arc};

use schema::time::Timestamp;

use super::Source;
use crate::core::TraceId;

/// Entries of one kind that are kept.
const KEPT: usize = 64;

/// An actor that did not go on as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// When it happened last.
    pub at: Timestamp,
    pub kind: &'static str,
    pub id: String,
    /// `overtaken` (another process moved it on: loaded anew at its next use), `panicked` (its state is the one before), `quarantined`
    /// (decides no more), or `released`.
    pub reason: &'static str,
    pub why: String,
    /// How often in a row.
    pub count: u64,
}

/// A message that found its mailbox full. Its sender kept it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub first: Timestamp,
    /// When it happened last.
    pub at: Timestamp,
    pub kind: &'static str,
    pub id: String,
    pub event: Arc<str>,
    pub sender: Source,
    pub trace: TraceId,
    pub why: String,
    /// How often in a row.
    pub count: u64,
}

/// Both rings.
#[derive(Debug, Default)]
pub(super) struct Losses {
    restarts: VecDeque<Restart>,
    letters: VecDeque<DeadLetter>,
}

impl Losses {
    pub(super) fn restart(&mut self, new: Restart) {
        let same = |old: &&mut Restart| (&old.id, &old.reason, &old.why) == (&new.id, &new.reason, &new.why);
        match self.restarts.back_mut().filter(same) {
            Some(old) => (old.at, old.count) = (new.at, old.count + 1),
            None => keep(&mut self.restarts, new),
        }
    }

    /// One more message found no room. What a flood repeats costs no more than a count.
    pub(super) fn letter(
        &mut self,
        (kind, id): (&'static str, &str),
        (event, sender, trace): (Arc<str>, Source, TraceId),
        at: Timestamp,
        depth: usize,
    ) {
        let same = |old: &&mut DeadLetter| old.id == id && old.event == event && old.sender == sender;
        match self.letters.back_mut().filter(same) {
            Some(old) => (old.at, old.trace, old.count) = (at, trace, old.count + 1),
            None => {
                let (id, why) = (id.to_owned(), format!("the mailbox is full ({depth} wait)"));
                keep(&mut self.letters, DeadLetter { first: at, at, kind, id, event, sender, trace, why, count: 1 });
            }
        }
    }

    pub(super) fn restarts(&self) -> impl Iterator<Item = &Restart> {
        self.restarts.iter()
    }

    pub(super) fn letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.iter()
    }
}

fn keep<T>(ring: &mut VecDeque<T>, new: T) {
    if ring.len() >= KEPT {
        ring.pop_front();
    }
    ring.push_back(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_counts_and_the_oldest_goes() {
        let mut losses = Losses::default();
        let restart = |id: u64, at| Restart {
            at: Timestamp(at),
            kind: "machine",
            id: id.to_string(),
            reason: "overtaken",
            why: String::new(),
            count: 1,
        };
        losses.restart(restart(1, 1));
        losses.restart(restart(1, 2));
        let kept: Vec<_> = losses.restarts().map(|r| (r.at.0, r.count)).collect();
        assert_eq!(kept, [(2, 2)]);
        (2..=80).for_each(|id| losses.restart(restart(id, 3)));
        assert_eq!((losses.restarts().count(), losses.restarts().next().map(|r| r.id.as_str())), (KEPT, Some("17")));
    }
}
