//! The sweep of a rack: when each BMC it watches is asked for the power state, and what of the answers is worth a report. Asks nobody itself.

use std::{collections::BTreeMap, time::Duration};

use schema::{id::SystemId, messages::report::Fact, power::PowerAction, status::PowerState, time::Timestamp};

use crate::errand::{FaultKind, PowerFault};

/// A machine that is new here is asked within this time, so that a thousand new ones are not asked at once.
const FIRST: Duration = Duration::from_secs(60);
/// A BMC is busy with the sweep for this part of its time at most.
const SHARE: u32 = 20;
/// However slow or silent it is, a BMC is asked this often.
const SELDOM: Duration = Duration::from_secs(1_800);
/// A machine with an errand under way is looked at again after that.
const LATER: Duration = Duration::from_secs(10);
/// What does not change is said again after that: it tells the region that the BMC is still reached.
const SAID_AGAIN: Duration = Duration::from_secs(6 * 3_600);

/// Every machine that this rack watches.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Between two questions to a BMC that answers at once.
    every: Duration,
    rows: BTreeMap<SystemId, Row>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Row {
    next: Timestamp,
    /// Asked now.
    asking: bool,
    /// What was reported last, and when.
    said: Option<(Said, Timestamp)>,
    /// Questions without an answer, since the last answer.
    missed: u32,
}

/// What a report said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    State(PowerState),
    Unreachable,
}

impl Sweep {
    /// A sweep that asks each BMC that often. 10 s at least.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self { every: every.max(Duration::from_secs(10)), rows: BTreeMap::new() }
    }

    /// Watches that machine; `draw` lies in 0..1. One that is watched already keeps its turn, unless it is `anew`.
    pub fn watch(&mut self, machine: SystemId, anew: bool, now: Timestamp, draw: f64) {
        let next = now + FIRST.min(self.every).mul_f64(draw);
        let row = self.rows.entry(machine).or_insert_with(|| Row { next, ..Row::default() });
        if anew {
            (row.next, row.said, row.missed) = (row.next.min(next), None, 0);
        }
    }

    /// Watches that machine no more.
    pub fn forget(&mut self, machine: SystemId) {
        self.rows.remove(&machine);
    }

    /// The machines that are watched.
    pub fn watched(&self) -> impl Iterator<Item = SystemId> {
        self.rows.keys().copied()
    }

    /// When the next one is due; `None` when none is.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.rows.values().filter(|row| !row.asking).map(|row| row.next).min()
    }

    /// The machines to be asked now, longest overdue first, `most` at once; they count as asked.
    pub fn due(&mut self, most: usize, now: Timestamp) -> Vec<SystemId> {
        let mut due: Vec<_> = self.rows.iter_mut().filter(|(_, row)| !row.asking && row.next <= now).collect();
        due.sort_by_key(|(_, row)| row.next);
        let due = due.into_iter().take(most);
        due.map(|(machine, row)| {
            row.asking = true;
            *machine
        })
        .collect()
    }

    /// That machine has an errand under way: its BMC is left alone for now. What was said of it before counts no more: the errand told the
    /// region another state, and the next look is news whatever it sees.
    pub fn left_alone(&mut self, machine: SystemId, now: Timestamp) {
        if let Some(row) = self.rows.get_mut(&machine) {
            (row.asking, row.next, row.said) = (false, now + LATER, None);
        }
    }

    /// The answer, which took that long: the fact to be reported, if any. Sets the next turn.
    pub fn answered(
        &mut self,
        machine: SystemId,
        answer: &Result<PowerState, PowerFault>,
        took: Duration,
        now: Timestamp,
        draw: f64,
    ) -> Option<Fact> {
        let row = self.rows.get_mut(&machine)?;
        row.asking = false;
        row.missed = if answer.is_ok() { 0 } else { row.missed.saturating_add(1) };
        let slow = self.every.max(took * SHARE);
        let pause = slow.saturating_mul(2_u32.saturating_pow(row.missed.min(8))).min(SELDOM.max(self.every));
        row.next = now + pause.mul_f64(0.9 + 0.2 * draw.clamp(0.0, 1.0));
        let said = match answer {
            Ok(state) => Said::State(*state),
            Err(fault) if fault.kind == FaultKind::Unreachable => Said::Unreachable,
            // A lost packet or a busy BMC is no news; that it refuses us is.
            Err(fault) if fault.kind.may_pass() => return None,
            Err(_) => Said::State(PowerState::Error),
        };
        if row.said.is_some_and(|(before, at)| before == said && now.since(at) < SAID_AGAIN) {
            return None;
        }
        row.said = Some((said, now));
        Some(match (said, answer) {
            (Said::Unreachable, Err(fault)) => {
                let (why, remedy) = (fault.why.clone(), fault.remedy.clone());
                Fact::BmcUnreachable { action: PowerAction::Query, why, remedy }
            }
            (Said::State(state), _) => Fact::PowerSeen { state },
            (Said::Unreachable, Ok(state)) => Fact::PowerSeen { state: *state },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: Duration = Duration::from_secs(300);

    fn machine(n: u8) -> SystemId {
        format!("mach0{n}").parse().unwrap()
    }

    fn at(s: u64) -> Timestamp {
        Timestamp(0) + Duration::from_secs(s)
    }

    fn fault(kind: FaultKind) -> Result<PowerState, PowerFault> {
        Err(PowerFault { kind, why: "no answer".into(), remedy: "look at the cable".into() })
    }

    fn swept(sweep: &mut Sweep, answer: &Result<PowerState, PowerFault>, took: u64, s: u64) -> Option<Fact> {
        assert_eq!(sweep.due(9, at(s)), [machine(1)]);
        sweep.answered(machine(1), answer, Duration::from_secs(took), at(s), 0.5)
    }

    #[test]
    fn changes_are_reported_once_and_what_stands_is_said_again_after_six_hours() {
        let mut sweep = Sweep::new(EVERY);
        sweep.watch(machine(1), false, at(0), 0.5);
        assert_eq!((sweep.next(), sweep.due(9, at(29)).len()), (Some(at(30)), 0));
        let on = Ok(PowerState::On);
        assert_eq!(swept(&mut sweep, &on, 0, 30), Some(Fact::PowerSeen { state: PowerState::On }));
        assert_eq!(sweep.next(), Some(at(330)));
        assert_eq!(swept(&mut sweep, &on, 0, 330), None);
        assert_eq!(swept(&mut sweep, &Ok(PowerState::Off), 0, 630), Some(Fact::PowerSeen { state: PowerState::Off }));
        // The same rows again, as after a new link, change nothing; a new address or password does.
        sweep.watch(machine(1), false, at(700), 0.0);
        assert_eq!(sweep.next(), Some(at(930)));
        sweep.watch(machine(1), true, at(700), 0.0);
        assert!(swept(&mut sweep, &Ok(PowerState::Off), 0, 700).is_some());
        assert!(swept(&mut sweep, &Ok(PowerState::Off), 0, 700 + 6 * 3_600).is_some());
    }

    #[test]
    fn a_slow_bmc_is_asked_less_often_and_one_that_does_not_answer_ever_more_seldom() {
        let mut sweep = Sweep::new(EVERY);
        sweep.watch(machine(1), false, at(0), 0.0);
        swept(&mut sweep, &Ok(PowerState::On), 30, 0);
        assert_eq!(sweep.next(), Some(at(600)), "half a minute of work, ten minutes of rest");
        let silent = fault(FaultKind::Unreachable);
        assert!(matches!(swept(&mut sweep, &silent, 0, 600), Some(Fact::BmcUnreachable { .. })));
        assert_eq!(sweep.next(), Some(at(1_200)));
        assert_eq!(swept(&mut sweep, &silent, 0, 1_200), None);
        assert_eq!(sweep.next(), Some(at(2_400)));
        assert_eq!(swept(&mut sweep, &silent, 0, 2_400), None);
        assert_eq!(sweep.next(), Some(at(4_200)), "half an hour at most");
        assert_eq!(swept(&mut sweep, &fault(FaultKind::Busy), 0, 4_200), None);
        let refused = swept(&mut sweep, &fault(FaultKind::Auth), 0, 6_000);
        assert_eq!(refused, Some(Fact::PowerSeen { state: PowerState::Error }));
    }

    #[test]
    fn what_is_seen_after_an_errand_is_said_though_it_was_said_before_it() {
        let mut sweep = Sweep::new(EVERY);
        sweep.watch(machine(1), false, at(0), 0.0);
        let off = Ok(PowerState::Off);
        assert!(swept(&mut sweep, &off, 0, 0).is_some());
        // Switched on meanwhile, which the errand reports; and gone off again by itself.
        sweep.left_alone(machine(1), at(20));
        assert_eq!(swept(&mut sweep, &off, 0, 30), Some(Fact::PowerSeen { state: PowerState::Off }));
    }

    #[test]
    fn an_errand_has_the_right_of_way() {
        let mut sweep = Sweep::new(EVERY);
        sweep.watch(machine(1), false, at(0), 0.0);
        assert_eq!(sweep.due(9, at(0)), [machine(1)]);
        sweep.left_alone(machine(1), at(0));
        assert_eq!(sweep.next(), Some(at(10)));
        sweep.forget(machine(1));
        assert_eq!(sweep.answered(machine(1), &Ok(PowerState::On), EVERY, at(11), 0.5), None);
    }

    proptest! {
        #[test]
        fn nobody_is_asked_twice_at_once_nor_forgotten(
            steps in prop::collection::vec((0..6_u8, 1..5_u8, any::<bool>(), 0..200_u64), 1..120)
        ) {
            let (mut sweep, mut now, mut asking) = (Sweep::new(EVERY), at(0), Vec::new());
            for (what, n, good, pause) in steps {
                now = now + Duration::from_secs(pause);
                match what {
                    0 => sweep.watch(machine(n), good, now, 0.3),
                    1 => { sweep.forget(machine(n)); asking.retain(|m| *m != machine(n)); }
                    2 if asking.contains(&machine(n)) => {
                        let answer = if good { Ok(PowerState::On) } else { fault(FaultKind::Unreachable) };
                        sweep.answered(machine(n), &answer, Duration::from_secs(1), now, 0.9);
                        asking.retain(|m| *m != machine(n));
                    }
                    _ => {
                        for machine in sweep.due(2, now) {
                            prop_assert!(!asking.contains(&machine));
                            asking.push(machine);
                        }
                    }
                }
                for machine in sweep.watched() {
                    let row = &sweep.rows[&machine];
                    prop_assert_eq!(row.asking, asking.contains(&machine));
                    prop_assert!(row.next <= now + SELDOM.mul_f64(1.1));
                }
            }
        }
    }
}
