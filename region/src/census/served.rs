//! How long steps took, by the rack that served them and by their end: what `/metrics` shows. As many rows as racks times steps at most.

use std::{collections::BTreeMap, time::Duration};

use actors::machine::Attempt;
use schema::{
    commissioning::{CommissionStep, StepRecord, StepState},
    id::RackId,
    time::Timestamp,
};

use super::ENDS_S;

/// Counts by the buckets of [`ENDS_S`], and the sum of all in seconds.
pub type Counts = ([u64; ENDS_S.len() + 1], f64);

/// The steps of one rack (`None`: the region) that ended alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    pub step: CommissionStep,
    pub rack: Option<RackId>,
    /// `done` or `failed`.
    pub outcome: &'static str,
    pub counts: Counts,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Steps(BTreeMap<Key, Counts>);

/// Step, rack, outcome.
type Key = (CommissionStep, Option<RackId>, &'static str);

impl Steps {
    /// An attempt has ended: each of its steps that ended counts.
    pub(super) fn add(&mut self, attempt: &Attempt, ended: Timestamp) {
        for (step, record) in CommissionStep::ALL.into_iter().zip(&attempt.steps) {
            let Some((outcome, took)) = outcome(record, ended) else { continue };
            let (counts, sum) = self.0.entry((step, record.rack, outcome)).or_default();
            let at = ENDS_S.iter().position(|end| took <= Duration::from_secs(*end)).unwrap_or(ENDS_S.len());
            counts.iter_mut().skip(at).take(1).for_each(|count| *count += 1);
            *sum += took.as_secs_f64();
        }
    }

    pub(super) fn all(&self) -> Vec<Served> {
        let served = |((step, rack, outcome), counts): (&Key, &Counts)| Served {
            step: *step,
            rack: *rack,
            outcome,
            counts: *counts,
        };
        self.0.iter().map(served).collect()
    }
}

/// How a step ended and how long it took; a failed one ends with its attempt where nothing else ended it.
fn outcome(record: &StepRecord, ended: Timestamp) -> Option<(&'static str, Duration)> {
    let started = record.started?;
    match record.state {
        StepState::Done => Some(("done", record.ended?.since(started))),
        StepState::Failed => Some(("failed", record.ended.unwrap_or(ended).since(started))),
        StepState::Pending | StepState::Running | StepState::NotUsed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_with_its_end_and_one_that_is_not_used_does_not() {
        let at = Timestamp::from_seconds;
        let record = |state, ended| StepRecord { state, started: Some(at(10)), ended, ..StepRecord::default() };
        let said = [
            record(StepState::Done, Some(at(13))),
            record(StepState::Failed, None),
            record(StepState::Failed, Some(at(12))),
            record(StepState::NotUsed, Some(at(12))),
            record(StepState::Running, None),
            StepRecord { state: StepState::Failed, ..StepRecord::default() },
        ]
        .map(|record| outcome(&record, at(40)));
        let (done, failed) = ("done", "failed");
        let s = Duration::from_secs;
        assert_eq!(said, [Some((done, s(3))), Some((failed, s(30))), Some((failed, s(2))), None, None, None]);
    }
}
