//! How an attempt ends: the final signal, power off, Ready; or abort, failure, time-out. Every end withdraws the ticket.

use schema::{
    commissioning::{CommissionStep, StepState},
    id::RackId,
    messages::report::{Fact, Report},
    power::{PowerAction, PowerType},
    projection::{Level, Projection},
    script::{ResultStatus, SignalStatus},
    status::{NodeStatus, PowerState},
    time::Timestamp,
};

use super::{Attempt, Machine, MachineEffect, admission::event, power::failed_event};
use crate::core::Step;

impl Machine {
    /// The runner's last word. Results that other racks still hold are waited for in step 12.
    pub(super) fn finished(
        &self,
        rack: RackId,
        status: SignalStatus,
        error: &str,
        at: Timestamp,
        now: Timestamp,
    ) -> Step<Self> {
        if self.open_attempt().is_none_or(|a| a.scripts_ok.is_some()) {
            return Step::ignored("the end was said before");
        }
        let ok = status == SignalStatus::Ok;
        let text = if ok { "the runner says OK".to_owned() } else { format!("the runner says it failed: {error}") };
        let next = self.with_attempt(|a| {
            a.assume(CommissionStep::Metadata, at, "the runner has signalled");
            a.done(CommissionStep::Scripts, at, Some(rack), "machine", text.clone());
            a.last_signal = Some(at);
            a.scripts_ok = Some(ok);
        });
        let level = if ok { Level::Info } else { Level::Error };
        next.settle(now).with([event(at, level, "NODE_COMMISSIONING_FINISHED", text, None)])
    }

    /// All is stored; the machine goes off, unless the operator asked to keep it on.
    pub(super) fn switch_off(self, now: Timestamp) -> Step<Self> {
        let stay_on = self.open_attempt().is_some_and(|a| a.options.enable_ssh);
        if stay_on {
            let power_state = self.power_state;
            return self.complete(now, None, "all results are stored; left on as asked", power_state);
        }
        if self.spec.power.power_type == PowerType::Manual {
            return self.complete(
                now,
                None,
                "all results are stored; the machine switches itself off",
                PowerState::Unknown,
            );
        }
        let off = self.next_attempt;
        let mut next = self.with_attempt(|a| {
            a.off = Some(off);
            (a.bmc_racks, a.bmc_rack) = (a.off_racks(), 0);
        });
        next.next_attempt = off.next();
        let order = next.open_attempt().and_then(|a| a.off_order(now));
        next.expecting(now).with(order)
    }

    /// What the rack says of the order to power off at the end.
    pub(super) fn off_fact(&self, rack: RackId, report: &Report, now: Timestamp) -> Step<Self> {
        let in_charge = self.open_attempt().is_some_and(|a| a.bmc_racks.get(a.bmc_rack) == Some(&rack));
        match &report.fact {
            Fact::PowerDone { state: PowerState::Off, .. } => {
                self.clone().complete(now, Some(rack), "all results are stored; the BMC says off", PowerState::Off)
            }
            Fact::BmcUnreachable { .. } | Fact::OrderRefused { .. } | Fact::PowerFailed { .. } if !in_charge => {
                Step::ignored("the order is in another rack's hands by now")
            }
            Fact::BmcUnreachable { why, remedy, .. } | Fact::OrderRefused { why, remedy } => {
                let elsewhere = self.off_elsewhere(rack, why, now);
                elsewhere.unwrap_or_else(|| self.off_failed(report.at, why, remedy, now))
            }
            Fact::PowerFailed { why, remedy, .. } => self.off_failed(report.at, why, remedy, now),
            _ => Step::ignored("the BMC's word that the machine is off is awaited"),
        }
    }

    fn off_failed(&self, at: Timestamp, why: &str, remedy: &str, now: Timestamp) -> Step<Self> {
        let line = event(at, Level::Error, failed_event(PowerAction::Off), why, None);
        let text =
            format!("The results are stored, but the machine could not be switched off: {why}. Remedy: {remedy}");
        self.fail(text, now).with([line])
    }

    /// The next rack that may reach the BMC gets the order to switch off. `None` without one, or when another has it by now.
    pub(super) fn off_elsewhere(&self, rack: RackId, why: &str, now: Timestamp) -> Option<Step<Self>> {
        let attempt = self.open_attempt()?;
        let (off, in_charge) = (attempt.off?, attempt.bmc_racks.get(attempt.bmc_rack) == Some(&rack));
        if !in_charge || !attempt.another_rack() {
            return None;
        }
        let next = self.with_attempt(|a| {
            a.bmc_rack += 1;
            a.see(now, format!("rack {rack} did not switch it off ({why}); the next rack is tried"));
        });
        let order = next.open_attempt().and_then(|a| a.off_order(now));
        let cancel = MachineEffect::CancelOrder { rack, attempt: off };
        Some(next.expecting(now).with([cancel]).with(order))
    }

    /// A sweep's look at the power, which may be just what step 12 waits for.
    pub(super) fn seen_power(&self, rack: RackId, state: PowerState, at: Timestamp, now: Timestamp) -> Step<Self> {
        // What was seen before the machine was to go off, and was on its way for long, is no evidence that it did.
        let since = |a: &Attempt| a.steps.get(CommissionStep::Stored as usize).and_then(|r| r.started);
        let ending = self.open_attempt().is_some_and(|a| a.off.is_some() && since(a).is_none_or(|since| since <= at));
        if ending && state == PowerState::Off {
            return self.clone().complete(at.max(now), Some(rack), "all results are stored; the BMC says off", state);
        }
        let Some(on) = self.open_attempt().and_then(|a| a.steps.get(CommissionStep::PowerOn as usize)?.ended) else {
            return self.power_seen(state, now);
        };
        if at < on {
            return Step::ignored("it was seen before the machine was switched on");
        }
        if state != PowerState::Off {
            return self.power_seen(state, now);
        }
        // It was on, and nobody asked it to go off.
        let text = format!("rack {rack}: the BMC says off: the machine went off by itself after it was switched on");
        Self { power_state: state, power_asked: Some(now), ..self.clone() }.hindered(at, text, now)
    }

    /// Step 12 is done: Ready, or failed where a script failed.
    fn complete(self, now: Timestamp, rack: Option<RackId>, evidence: &str, power_state: PowerState) -> Step<Self> {
        let next = self.with_attempt(|a| {
            a.done(CommissionStep::Stored, now, rack, if rack.is_some() { "power" } else { "region" }, evidence.into());
        });
        let next = Self { power_state, power_asked: Some(now), ..next };
        let failed = next.open_attempt().map(Attempt::failed_scripts).unwrap_or_default();
        let ok = next.open_attempt().and_then(|a| a.scripts_ok).unwrap_or(false);
        let off = event(now, Level::Info, "NODE_POWERED_OFF", "The BMC says off.", None);
        let off = (power_state == PowerState::Off).then_some(off);
        if ok && failed.is_empty() {
            let line = event(now, Level::Info, "READY", "Commissioned; ready for use.", None);
            return next.end_attempt_as_is(NodeStatus::Ready, String::new(), now).with(off).with([line]);
        }
        let what = if failed.is_empty() {
            let said = next.open_attempt().and_then(|a| a.steps.get(CommissionStep::Scripts as usize));
            said.map(|r| r.evidence.clone()).unwrap_or_default()
        } else {
            format!("failed scripts: {failed}")
        };
        let error =
            format!("Commissioning ended, but {what}. Remedy: read `hostler machine results {}`", self.spec.hostname);
        let line = event(now, Level::Error, "FAILED_COMMISSIONING", error.clone(), None);
        next.end_attempt_as_is(NodeStatus::FailedCommissioning, error, now).with(off).with([line])
    }

    pub(super) fn abort(&self, by: &str, comment: &str, now: Timestamp) -> Step<Self> {
        if self.open_attempt().is_none() {
            return Step::refused(
                format!("nothing is under way; the status is \"{}\"", self.status.label()),
                "only a commissioning that runs can be aborted",
            );
        }
        let back = if self.status.may_become(self.previous_status) { self.previous_status } else { NodeStatus::New };
        let text = if comment.is_empty() { format!("Aborted by {by}.") } else { format!("Aborted by {by}: {comment}") };
        self.end_attempt(back, String::new(), now).with([event(
            now,
            Level::Info,
            "ABORTED_COMMISSIONING",
            text,
            Some(by),
        )])
    }

    /// The attempt fails: the machine is switched off and the reason stands in its row.
    pub(super) fn fail(&self, error: String, now: Timestamp) -> Step<Self> {
        let line = event(now, Level::Error, "FAILED_COMMISSIONING", error.clone(), None);
        self.end_attempt(NodeStatus::FailedCommissioning, error, now).with([line])
    }

    /// Ends the attempt in that status and switches the machine off, if anything was switched on.
    pub(super) fn end_attempt(&self, status: NodeStatus, error: String, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return Step::ignored("nothing is under way") };
        let by_hand = self.spec.power.power_type == PowerType::Manual;
        let leave = by_hand || attempt.options.enable_ssh || attempt.ordered.is_none();
        let cancel = attempt.orders_out().map(|(rack, attempt)| MachineEffect::CancelOrder { rack, attempt });
        let cancel: Vec<_> = cancel.collect();
        let (next, closing) = self.closed(attempt, status, error, now);
        let racks = attempt.off_racks();
        let step = if leave { next.resting() } else { next.start_errand(PowerAction::Off, racks, now) };
        Step { effects: cancel.into_iter().chain(closing).chain(step.effects).collect(), ..step }
    }

    /// Ends the attempt in that status; the power stays as it is.
    fn end_attempt_as_is(self, status: NodeStatus, error: String, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return Step::ignored("nothing is under way") };
        let (next, closing) = self.closed(attempt, status, error, now);
        next.resting().with(closing)
    }

    /// The machine with its attempt closed, and what that takes: no ticket any more, no result left open.
    fn closed(
        &self,
        attempt: &Attempt,
        status: NodeStatus,
        error: String,
        now: Timestamp,
    ) -> (Self, Vec<MachineEffect>) {
        let open = attempt.scripts.iter().filter(|s| !s.status.ended());
        let aborted = open.map(|s| {
            MachineEffect::Store(Projection::ScriptResult {
                result: s.script.result,
                status: ResultStatus::Aborted,
                at: now,
                exit_status: None,
                runtime_ms: None,
                output: None,
            })
        });
        let effects = [MachineEffect::WithdrawTicket { attempt: attempt.id }].into_iter().chain(aborted).collect();
        let mut next = self.with_attempt(|a| a.close(now, status, &error));
        next.previous_status = self.status;
        next.status = status;
        next.error = error;
        (next, effects)
    }

    /// What a restart may have lost: the ticket, and the order of the step that runs.
    pub(super) fn lost_effects(&self, attempt: &Attempt) -> impl Iterator<Item = MachineEffect> + use<> {
        let on = attempt.power_on_order().filter(|_| !attempt.is_done(CommissionStep::PowerOn));
        let off = attempt.off_order(attempt.ended.unwrap_or(attempt.started));
        [attempt.ticket(), on, off].into_iter().flatten()
    }
}

impl Attempt {
    /// The ticket for the racks of the boot VLAN; none while it waits for its turn.
    pub(super) fn ticket(&self) -> Option<MachineEffect> {
        let (attempt, racks, expires) = (self.id, self.boot_racks.clone(), self.ticket_expires());
        self.place.is_none().then_some(MachineEffect::PublishTicket { attempt, racks, expires })
    }

    /// The order to power off at the end.
    fn off_order(&self, now: Timestamp) -> Option<MachineEffect> {
        let rack = *self.bmc_racks.get(self.bmc_rack)?;
        let since = self.steps.last().and_then(|r| r.started).unwrap_or(now);
        // What ended while the region was away ended long ago: the rack gets time for the order all the same.
        let deadline = self.deadline(CommissionStep::Stored, since);
        Some(MachineEffect::SendOrder { rack, attempt: self.off?, action: PowerAction::Off, deadline })
    }

    /// The orders that a rack may hold.
    fn orders_out(&self) -> impl Iterator<Item = (RackId, schema::id::AttemptId)> {
        let rack = self.bmc_racks.get(self.bmc_rack).copied().filter(|_| self.ordered.is_some());
        rack.into_iter().flat_map(|r| [Some((r, self.on_number())), self.off.map(|off| (r, off))]).flatten()
    }

    fn failed_scripts(&self) -> String {
        let names: Vec<_> = self.scripts.iter().filter(|s| s.status.failed()).map(|s| s.script.name.as_str()).collect();
        names.join(", ")
    }

    fn close(&mut self, now: Timestamp, status: NodeStatus, error: &str) {
        self.ended = Some(now);
        self.scripts.iter_mut().filter(|s| !s.status.ended()).for_each(|s| s.status = ResultStatus::Aborted);
        let evidence = if status == NodeStatus::FailedCommissioning { error } else { "ended by an operator" };
        for record in self.steps.iter_mut().filter(|r| r.state == StepState::Running) {
            record.state = StepState::Failed;
            record.ended = Some(now);
            record.evidence = evidence.into();
        }
    }
}
