//! Which scripts of an attempt have begun and ended, as this rack heard it. Kept in memory only: after a restart a
//! finished script is offered once more, and the runner knows that it has run it.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use schema::{
    id::{AttemptId, ResultId, SystemId},
    messages::report::Fact,
    time::Timestamp,
};

/// How far a script is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Begun,
    Ended,
}

/// Machines remembered at most; beyond that the table starts anew.
const MACHINES: usize = 50_000;
/// The least time between two reported refusals of one machine.
const REFUSALS_APART: Duration = Duration::from_secs(10);

/// A machine's attempt, its scripts' stages, and when a refusal was last reported.
#[derive(Debug, Default)]
struct Known {
    attempt: AttemptId,
    scripts: HashMap<ResultId, Stage>,
    refused: Option<Timestamp>,
}

/// The scripts' stages by machine and attempt. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<RwLock<HashMap<SystemId, Known>>>);

impl Progress {
    /// How far that script is; `None` when it has not begun.
    #[must_use]
    pub fn stage(&self, machine: SystemId, attempt: AttemptId, result: ResultId) -> Option<Stage> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&machine).filter(|known| known.attempt == attempt)?.scripts.get(&result).copied()
    }

    /// Takes note of a fact, and says whether to report it: a stranger who knocks without end is reported once in ten seconds.
    /// A new attempt forgets the old one.
    pub fn note(&self, machine: SystemId, attempt: AttemptId, fact: &Fact, now: Timestamp) -> bool {
        let refusal =
            matches!(fact, Fact::AuthRefused { .. } | Fact::PreseedRefused { .. } | Fact::SignalRefused { .. });
        let moved = match fact {
            Fact::ScriptStarted { result, .. } => Some((*result, Stage::Begun)),
            Fact::ScriptEnded { result, .. } => Some((*result, Stage::Ended)),
            _ => None,
        };
        if !refusal && moved.is_none() {
            return true;
        }
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= MACHINES && !table.contains_key(&machine) {
            table.clear();
        }
        let known = table.entry(machine).or_default();
        if known.attempt != attempt {
            *known = Known { attempt, ..Known::default() };
        }
        if let Some((result, stage)) = moved {
            // A late "begun" does not undo an end.
            let present = known.scripts.entry(result).or_insert(stage);
            if stage == Stage::Ended {
                *present = stage;
            }
        }
        if refusal {
            if known.refused.is_some_and(|last| now.since(last) < REFUSALS_APART) {
                return false;
            }
            known.refused = Some(now);
        }
        true
    }
}
