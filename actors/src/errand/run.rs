//! An order from acceptance to its end: tries, waits, questions after the state. The shapes are in the file above.

use std::time::Duration;

use schema::{
    id::AttemptId,
    messages::{link::Order, report::Fact},
    power::PowerAction,
    status::PowerState,
    time::Timestamp,
    wait::{OwedBy, Wait},
};

use super::{Ended, Errand, ErrandEffect, ErrandTimer, FaultKind, Phase, PowerFault, Progress, Ran, waits};
use crate::core::Step;

/// Between two questions after the state; doubled each time up to [`ASK_MOST`].
const ASK_FIRST: Duration = Duration::from_secs(1);
const ASK_MOST: Duration = Duration::from_secs(4);
/// A deadline that is noticed so late passed while this rack was away.
const LATE: Duration = Duration::from_secs(5);
/// How long the look after such a deadline may take: a driver's longest run.
const LOOK: Duration = Duration::from_secs(60);
/// What to do about a BMC that takes orders and a machine that does not follow them.
const STAYS: &str = "look at the machine's BMC log and its power supply: the BMC takes the order, and the machine does not stay as ordered";
/// Sentences kept of an order under way.
const SEEN_LIMIT: usize = 16;

impl Errand {
    pub(super) fn ordered(&self, order: &Order, now: Timestamp) -> Step<Self> {
        let progress = &self.progress;
        if order.machine != self.machine {
            return Step::ignored(format!("the order is for {}, this is {}", order.machine, self.machine));
        }
        if order.attempt < progress.attempt {
            let (came, present) = (order.attempt, progress.attempt);
            return Step::ignored(format!("the order is of attempt {came}, the present one is {present}"));
        }
        if order.attempt == progress.attempt {
            let same = |o: &Order| o.action == order.action;
            if self.order.as_deref().is_some_and(same) {
                return self.repeated(order, Some(&Fact::OrderAccepted), now);
            }
            if let Some(ended) = progress.ended.iter().find(|e| e.action == order.action) {
                // Switching to a state is harmless when it is done again; booting a machine that works is not.
                if order.action == PowerAction::NetworkBoot || order.deadline <= ended.deadline {
                    return self.repeated(order, ended.fact.as_ref(), now);
                }
            }
        }
        self.accepted(order, now)
    }

    /// The order is here already, or over: the region hears again what is known.
    fn repeated(&self, order: &Order, ended: Option<&Fact>, now: Timestamp) -> Step<Self> {
        let mut next = self.clone();
        next.progress.repeats = next.progress.repeats.saturating_add(1);
        let fact = ended.cloned().unwrap_or_else(|| Fact::OrderRefused {
            why: format!("the order to {} of attempt {} was taken back before", order.action.label(), order.attempt),
            remedy: "begin a new attempt".into(),
        });
        let accepted = !matches!(fact, Fact::OrderAccepted | Fact::OrderRefused { .. });
        let before = accepted.then(|| report(order.attempt, now, Fact::OrderAccepted));
        let mut step = Step::moved(next).with(before).with([report(order.attempt, now, fact)]);
        step.verdict =
            crate::core::Verdict::Ignored { why: "the order came before; what is known is reported again".into() };
        step
    }

    fn accepted(&self, order: &Order, now: Timestamp) -> Step<Self> {
        let mut next = self.clone();
        let stop = self.running().map(|run| ErrandEffect::StopPower { run });
        if let Some(old) = next.order.take()
            && old.attempt == order.attempt
        {
            next.end(old.action, old.deadline, None);
        }
        if order.attempt != next.progress.attempt {
            next.progress.ended.clear();
        }
        next.progress = Progress {
            attempt: order.attempt,
            run: next.progress.run,
            ended: next.progress.ended,
            unanswered: true,
            ..Progress::default()
        };
        if order.deadline <= now {
            let fact = Fact::OrderRefused {
                why: format!(
                    "the order's deadline {} had passed when it came, at {now} by this rack's clock",
                    order.deadline
                ),
                remedy: "compare the clocks of region and rack, then try again".into(),
            };
            next.end(order.action, order.deadline, Some(fact.clone()));
            return Step::moved(next).with(stop).with([report(order.attempt, now, fact)]);
        }
        next.order = Some(Box::new(order.clone()));
        next.saw(now, format!("order to {} accepted", order.action.label()));
        next.act(1, now).before(stop.into_iter().chain([report(order.attempt, now, Fact::OrderAccepted)]))
    }

    pub(super) fn cancelled(&self, attempt: AttemptId) -> Step<Self> {
        let Some(order) = self.order.as_ref().filter(|o| o.attempt == attempt) else {
            return Step::ignored(format!("no order of attempt {attempt} is under way"));
        };
        let stop = self.running().map(|run| ErrandEffect::StopPower { run });
        let mut next = self.clone();
        next.end(order.action, order.deadline, None);
        Step::moved(next).with(stop)
    }

    pub(super) fn ran(&self, run: u32, result: &Result<Ran, PowerFault>, now: Timestamp) -> Step<Self> {
        let (Some(order), Some(running)) = (&self.order, self.running()) else {
            return Step::ignored(format!("driver run {run} is none of an order under way"));
        };
        if run != running {
            return Step::ignored(format!("driver run {run} is over; run {running} is under way"));
        }
        let mut next = self.clone();
        next.progress.remedy = result.as_ref().err().map(|fault| fault.remedy.clone());
        next.progress.unanswered &= matches!(result, Err(fault) if fault.kind == FaultKind::Unreachable);
        match (self.progress.phase, result) {
            (_, Ok(Ran::ByHand)) => next.conclude(Fact::PowerByHand { action: order.action }, now),
            (_, Ok(Ran::State { state })) if agrees(order.action, *state) => {
                next.conclude(Fact::PowerDone { action: order.action, state: *state }, now)
            }
            (Phase::Looking { .. }, Ok(Ran::State { state })) => {
                next.saw(now, format!("the BMC says {}", state.label()));
                next.expire(now)
            }
            (Phase::Looking { .. }, Err(fault)) => {
                next.saw(now, fault.why.clone());
                next.expire(now)
            }
            (_, Err(fault)) if !fault.kind.may_pass() => next.fail(fault, now),
            (Phase::Acting { .. }, Ok(Ran::Accepted { notes })) => {
                notes.iter().for_each(|note| next.saw(now, note.clone()));
                if order.access.power_type.queryable() {
                    next.progress.may_boot |= order.action == PowerAction::NetworkBoot;
                    next.saw(now, format!("the BMC accepted to {}", order.action.label()));
                    next.watch(now)
                } else {
                    next.conclude(Fact::PowerDone { action: order.action, state: PowerState::Unknown }, now)
                }
            }
            (Phase::Asking { .. }, Err(fault)) => {
                next.saw(now, fault.why.clone());
                next.watch(now)
            }
            (Phase::Asking { .. }, Ok(Ran::State { state })) => {
                next.progress.may_boot &= *state != PowerState::Off;
                next.progress.remedy = Some(STAYS.into());
                next.saw(now, format!("the BMC says {}", state.label()));
                next.watch(now)
            }
            (_, Err(fault)) => {
                next.saw(now, fault.why.clone());
                next.pause(fault, now)
            }
            (_, Ok(other)) => {
                let why = format!("the driver answered {other:?} to {}", order.action.label());
                next.pause(&PowerFault { kind: FaultKind::Other, why, remedy: "report this as a defect".into() }, now)
            }
        }
    }

    /// A machine that boots has been switched on, whatever its BMC says by now: one that is off again is not booted twice.
    pub(super) fn heard(&self, at: Timestamp, now: Timestamp) -> Step<Self> {
        let (Phase::Watching { try_number, until, .. } | Phase::Asking { try_number, until, .. }) = self.progress.phase
        else {
            return Step::ignored("no action was accepted whose outcome is awaited");
        };
        if !self.listens() {
            return Step::ignored("the order is none to boot");
        }
        // The try's wait began when the BMC accepted.
        if at + self.wait_after(try_number) < until {
            return Step::ignored("that was before the BMC accepted the order");
        }
        let stop = self.running().map(|run| ErrandEffect::StopPower { run });
        let done = Fact::PowerDone { action: PowerAction::NetworkBoot, state: PowerState::On };
        self.clone().conclude(done, now).before(stop)
    }

    pub(super) fn elapsed_at(&self, timer: ErrandTimer, now: Timestamp) -> Step<Self> {
        let Some(order) = &self.order else { return Step::ignored("no order is under way") };
        if now >= order.deadline {
            return self.out_of_time(order, timer, now);
        }
        match (timer, self.progress.phase) {
            (ErrandTimer::Next, Phase::Watching { try_number, asked, next, until }) if now >= next => {
                let mut after = self.clone();
                after.progress.phase = Phase::Asking { try_number, asked: asked.saturating_add(1), until };
                after.run(PowerAction::Query, now)
            }
            (ErrandTimer::Next, Phase::Pausing { try_number, until }) if now >= until => {
                self.clone().act(try_number.saturating_add(1), now)
            }
            // The clock was set back, or the timer's own is a little fast.
            (ErrandTimer::Next, Phase::Watching { next: at, .. } | Phase::Pausing { until: at, .. }) => {
                Step::ignored("the timer came early").arm(timer, at)
            }
            (ErrandTimer::Deadline, _) => Step::ignored("the deadline's timer came early").arm(timer, order.deadline),
            (ErrandTimer::Next, _) => Step::ignored("the timer is one of an earlier phase"),
        }
    }

    /// The order's time is over. A rack that was away then asks how the machine stands before it speaks of failure.
    fn out_of_time(&self, order: &Order, timer: ErrandTimer, now: Timestamp) -> Step<Self> {
        let stop = self.running().map(|run| ErrandEffect::StopPower { run });
        let mut next = self.clone();
        match self.progress.phase {
            Phase::Looking { until } if now < until => {
                return Step::ignored("the look after the deadline is under way").arm(timer, until);
            }
            Phase::Looking { .. } => {}
            _ if now.since(order.deadline) >= LATE && order.access.power_type.queryable() => {
                next.progress.phase = Phase::Looking { until: now + LOOK };
                return next.run(PowerAction::Query, now).before(stop);
            }
            _ => {}
        }
        next.expire(now).before(stop)
    }

    /// The order ends without success.
    fn expire(&mut self, now: Timestamp) -> Step<Self> {
        let fault = PowerFault {
            kind: if self.progress.unanswered { FaultKind::Unreachable } else { FaultKind::Other },
            why: format!("no success before the deadline: {}", self.last_seen()),
            remedy: self.progress.remedy.clone().unwrap_or_else(|| {
                "check that the BMC answers from this rack and that the machine can be switched".into()
            }),
        };
        self.fail(&fault, now)
    }

    /// When the phase that stands is over at the latest.
    pub(super) fn over_at(&self, order: &Order) -> Timestamp {
        if let Phase::Looking { until } = self.progress.phase { until } else { order.deadline }
    }

    /// What a try does: a machine that may be booting is switched on where it is off, and not booted again.
    pub(super) fn action_now(&self, action: PowerAction) -> PowerAction {
        if self.progress.may_boot && action == PowerAction::NetworkBoot { PowerAction::On } else { action }
    }

    /// Begins the try of that number.
    fn act(mut self, try_number: u32, now: Timestamp) -> Step<Self> {
        let Some(order) = &self.order else { return Step::moved(self) };
        let (attempt, action) = (order.attempt, self.action_now(order.action));
        self.progress.phase = Phase::Acting { try_number };
        self.run(action, now).before([report(attempt, now, Fact::PowerTry { action, try_number })])
    }

    /// Starts a driver run under a number of its own.
    fn run(mut self, action: PowerAction, now: Timestamp) -> Step<Self> {
        let Some(order) = &self.order else { return Step::moved(self) };
        let access = order.access.clone();
        self.progress.run = self.progress.run.saturating_add(1);
        let run = self.progress.run;
        self.wait_on(now).with([ErrandEffect::RunPower { run, action, access }])
    }

    /// Waits for the state to change, and asks again; when the try's wait is over, tries again.
    fn watch(mut self, now: Timestamp) -> Step<Self> {
        let (try_number, asked, until) = match self.progress.phase {
            Phase::Asking { try_number, asked, until } => (try_number, asked, until),
            Phase::Acting { try_number } => (try_number, 0, now + self.wait_after(try_number)),
            _ => return Step::ignored("nothing is under way that could be watched"),
        };
        let next = now + (ASK_FIRST * 2_u32.saturating_pow(asked.min(8))).min(ASK_MOST);
        if next <= until || asked == 0 {
            self.progress.phase = Phase::Watching { try_number, asked, next, until };
            return self.wait_on(now).arm(ErrandTimer::Next, next);
        }
        if self.tries_left(try_number) {
            return self.act(try_number.saturating_add(1), now);
        }
        let action = self.order.as_ref().map_or("be switched", |o| o.action.label());
        let fault = PowerFault {
            kind: FaultKind::Fatal,
            why: format!(
                "the machine never came to the state asked for ({action}) in {try_number} tries: {}",
                self.last_seen()
            ),
            remedy: STAYS.into(),
        };
        self.fail(&fault, now)
    }

    /// Waits before the next try, or fails when all are used.
    fn pause(mut self, fault: &PowerFault, now: Timestamp) -> Step<Self> {
        let (Phase::Acting { try_number } | Phase::Asking { try_number, .. }) = self.progress.phase else {
            return Step::ignored("nothing is under way that could be tried again");
        };
        if !self.tries_left(try_number) {
            return self.fail(fault, now);
        }
        let until = now + self.wait_after(try_number);
        self.progress.phase = Phase::Pausing { try_number, until };
        let failed = self.order.as_ref().map(|order| {
            let fact = Fact::PowerTryFailed { action: order.action, try_number, why: fault.why.clone() };
            report(order.attempt, now, fact)
        });
        self.wait_on(now).arm(ErrandTimer::Next, until).before(failed)
    }

    fn tries_left(&self, try_number: u32) -> bool {
        // A try after each of the waits: the longest stands before the last one.
        self.order.as_ref().is_some_and(|o| (try_number as usize) <= waits(o.access.power_type).len())
    }

    fn wait_after(&self, try_number: u32) -> Duration {
        let waits = self.order.as_ref().map_or(&[][..], |o| waits(o.access.power_type));
        let index = (try_number.saturating_sub(1) as usize).min(waits.len().saturating_sub(1));
        Duration::from_secs(waits.get(index).copied().unwrap_or(4))
    }

    fn fail(&mut self, fault: &PowerFault, now: Timestamp) -> Step<Self> {
        let action = self.order.as_ref().map_or(PowerAction::Query, |o| o.action);
        let (why, remedy) = (fault.why.clone(), fault.remedy.clone());
        let fact = match fault.kind {
            FaultKind::Unfit => Fact::OrderRefused { why, remedy },
            FaultKind::Unreachable => Fact::BmcUnreachable { action, why, remedy },
            _ => Fact::PowerFailed { action, why, remedy },
        };
        self.conclude(fact, now)
    }

    /// The order is over: it is reported, and its secrets go.
    fn conclude(&mut self, fact: Fact, now: Timestamp) -> Step<Self> {
        let Some(order) = self.order.clone() else { return Step::ignored("no order is under way") };
        self.end(order.action, order.deadline, Some(fact.clone()));
        Step::moved(self.clone()).with([report(order.attempt, now, fact)])
    }

    fn end(&mut self, action: PowerAction, deadline: Timestamp, fact: Option<Fact>) {
        self.order = None;
        self.progress.phase = Phase::Idle;
        self.progress.wait = None;
        self.progress.ended.retain(|e| e.action != action);
        self.progress.ended.push(Ended { action, deadline, fact });
    }

    fn saw(&mut self, now: Timestamp, what: String) {
        if self.progress.seen.len() >= SEEN_LIMIT {
            self.progress.seen.remove(0);
        }
        self.progress.seen.push(format!("{now} {what}"));
    }

    fn last_seen(&self) -> String {
        self.progress.seen.last().map_or_else(|| "nothing was seen".into(), |seen| format!("last seen {seen}"))
    }

    /// The step into the phase that stands, with its wait and the order's deadline.
    fn wait_on(mut self, now: Timestamp) -> Step<Self> {
        let Some(order) = &self.order else { return Step::moved(self) };
        let address = order.access.params.get("power_address").map_or("", String::as_str);
        let action = order.action.label();
        let what = match self.progress.phase {
            Phase::Idle => return Step::moved(self),
            Phase::Acting { try_number } => format!("the answer of BMC {address} to {action}, try {try_number}"),
            Phase::Asking { .. } => format!("the power state from BMC {address} after {action}"),
            Phase::Looking { .. } => {
                format!("the power state from BMC {address}: the time to {action} ended meanwhile")
            }
            Phase::Watching { next, .. } => format!("the power state to settle after {action}; asked again at {next}"),
            Phase::Pausing { try_number, until } => {
                format!("try {} to {action} at {until}", try_number.saturating_add(1))
            }
        };
        let wait = Wait {
            what,
            owed_by: OwedBy::Bmc,
            since: now,
            deadline: self.over_at(order),
            evidence: self.progress.seen.clone(),
            on_timeout: "the rack gives up and reports the failure to the region".into(),
            remedy: format!("check the BMC at {address}: network, user, password; or switch the machine by hand"),
        };
        let deadline = wait.deadline;
        self.progress.wait = Some(wait.clone());
        Step::waiting(self, wait).arm(ErrandTimer::Deadline, deadline)
    }
}

/// Whether that state is what the action was to reach.
fn agrees(action: PowerAction, state: PowerState) -> bool {
    match action {
        PowerAction::NetworkBoot | PowerAction::On => state == PowerState::On,
        PowerAction::Off => state == PowerState::Off,
        PowerAction::Query => state != PowerState::Error,
    }
}

fn report(attempt: AttemptId, at: Timestamp, fact: Fact) -> ErrandEffect {
    ErrandEffect::Report { attempt, at, fact }
}

/// Effects that go before those a step has.
trait Before {
    fn before(self, effects: impl IntoIterator<Item = ErrandEffect>) -> Self;
}

impl Before for Step<Errand> {
    fn before(mut self, effects: impl IntoIterator<Item = ErrandEffect>) -> Self {
        let mut all: Vec<_> = effects.into_iter().collect();
        all.append(&mut self.effects);
        self.effects = all;
        self
    }
}
