//! Step 11: scripts begin and end, each result once, in whatever order the racks' reports arrive.

use std::sync::Arc;

use schema::{
    commissioning::CommissionStep,
    hardware::HardwareReport,
    id::ResultId,
    messages::{
        machine::Derived,
        report::{Fact, Report},
    },
    projection::{Level, Projection},
    script::{ResultStatus, SignalStatus},
    time::Timestamp,
};

use super::{Attempt, Machine, MachineEffect, admission::event};
use crate::core::Step;

impl Machine {
    pub(super) fn script_started(
        &self,
        result: ResultId,
        signal: SignalStatus,
        at: Timestamp,
        now: Timestamp,
    ) -> Step<Self> {
        let status = match signal {
            SignalStatus::Installing => ResultStatus::Installing,
            SignalStatus::ApplyingNetconf => ResultStatus::ApplyingNetconf,
            _ => ResultStatus::Running,
        };
        let Some(known) = self.open_attempt().and_then(|a| a.script(result)) else {
            return Step::ignored(format!("result {result} is no part of this attempt"));
        };
        if known.status.ended() || known.status == status {
            return Step::ignored("said before");
        }
        let next = self.with_attempt(|a| {
            a.last_signal = a.last_signal.max(Some(at));
            a.scripts.iter_mut().filter(|s| s.script.result == result).for_each(|s| {
                s.status = status;
                s.started = s.started.or(Some(at));
            });
        });
        let stored = Projection::ScriptResult { result, status, at, exit_status: None, runtime_ms: None, output: None };
        next.expecting(now).with([MachineEffect::Store(stored)])
    }

    pub(super) fn script_ended(&self, report: &Report, derived: &Derived, now: Timestamp) -> Step<Self> {
        let Fact::ScriptEnded { result, status: signal, exit_status, runtime_ms, output, .. } = &report.fact else {
            return Step::ignored("no result");
        };
        let Some(known) = self.open_attempt().and_then(|a| a.script(*result)) else {
            return Step::ignored(format!("result {result} is no part of this attempt"));
        };
        if known.status.ended() {
            return Step::ignored(format!("the result of {} is stored", known.script.name));
        }
        let name = known.script.name.clone();
        let status = outcome(known.status, *signal, *exit_status, derived);
        let mut next = self.with_attempt(|a| {
            a.last_signal = a.last_signal.max(Some(report.at));
            a.scripts.iter_mut().filter(|s| s.script.result == *result).for_each(|s| s.status = status);
        });
        let mut effects = vec![MachineEffect::Store(Projection::ScriptResult {
            result: *result,
            status,
            at: report.at,
            exit_status: Some(*exit_status),
            runtime_ms: Some(*runtime_ms),
            output: Some(output.clone()),
        })];
        if let Some(hardware) = &derived.hardware {
            next.learn(hardware);
            // The lease is the better witness of the boot interface: the command line's BOOTIF may come later, or not at all.
            let boot_mac = self.open_attempt().and_then(|a| a.boot_mac).or(hardware.boot_mac);
            let hardware = Arc::new(HardwareReport { boot_mac, ..HardwareReport::clone(hardware) });
            effects.push(MachineEffect::Store(Projection::Hardware(hardware)));
        }
        effects.extend(derived.neighbours.clone().map(|n| MachineEffect::Store(Projection::Neighbours(n))));
        if status.failed() {
            let problem = derived.problem.as_ref().map_or_else(String::new, |p| format!(": {p}"));
            let text = format!("{name} ended as \"{}\" (exit status {exit_status}){problem}", status.label());
            effects.push(event(report.at, Level::Error, "SCRIPT_RESULT_CHANGED_STATUS", text, None));
        }
        next.settle(now).with(effects)
    }

    /// Every interface that was found may boot the machine from now on; the architecture is what the kernel says.
    fn learn(&mut self, hardware: &HardwareReport) {
        for interface in &hardware.interfaces {
            if !self.spec.macs.contains(&interface.mac) {
                self.spec.macs.push(interface.mac);
            }
        }
        if !hardware.architecture.is_empty() {
            let subarch = self.spec.architecture.split_once('/').map_or("generic", |(_, s)| s).to_owned();
            self.spec.architecture = format!("{}/{subarch}", hardware.architecture);
        }
    }

    pub(super) fn script_overdue(&self, attempt: &Attempt, now: Timestamp) -> Step<Self> {
        let held = attempt.held.is_some_and(|held| now < held);
        let late = attempt.scripts.iter().find(|s| !held && s.overdue_at().is_some_and(|at| at <= now));
        let Some(late) = late else {
            let mut step = Step::ignored("no script is overdue");
            step.timers.extend(self.script_timer());
            return step;
        };
        let text = format!(
            "The script {} runs longer than its time-out of {} s and five minutes. Remedy: see its output with `hostler machine results {}`, or raise its time-out",
            late.script.name, late.script.timeout_s, self.spec.hostname
        );
        let result = late.script.result;
        let timed_out = self.with_attempt(|a| {
            a.scripts.iter_mut().filter(|s| s.script.result == result).for_each(|s| s.status = ResultStatus::TimedOut);
        });
        let stored = Projection::ScriptResult {
            result,
            status: ResultStatus::TimedOut,
            at: now,
            exit_status: None,
            runtime_ms: None,
            output: None,
        };
        timed_out.fail(text, now).with([MachineEffect::Store(stored)])
    }

    /// After a result came or the end was said: the twelfth step ends once nothing is open.
    pub(super) fn settle(self, now: Timestamp) -> Step<Self> {
        let stored = self.open_attempt().is_some_and(|a| {
            a.current_step() == Some(CommissionStep::Stored)
                && a.off.is_none()
                && a.all_ended()
                && a.scripts_ok.is_some()
        });
        if stored { self.switch_off(now) } else { self.expecting(now) }
    }
}

impl Attempt {
    /// Whether every script has ended.
    pub(super) fn all_ended(&self) -> bool {
        self.scripts.iter().all(|s| s.status.ended())
    }
}

/// The status that a script's end amounts to (maas: exit 0 passes; the result file's status overrides).
fn outcome(before: ResultStatus, signal: SignalStatus, exit_status: i32, derived: &Derived) -> ResultStatus {
    let by_exit = match (signal, exit_status, before) {
        (SignalStatus::Timedout, ..) => ResultStatus::TimedOut,
        (_, 0, _) => ResultStatus::Passed,
        (_, _, ResultStatus::Installing) => ResultStatus::FailedInstalling,
        (_, _, ResultStatus::ApplyingNetconf) => ResultStatus::FailedApplyingNetconf,
        _ => ResultStatus::Failed,
    };
    if derived.problem.is_some() && by_exit == ResultStatus::Passed {
        return ResultStatus::Failed;
    }
    derived.result_status.unwrap_or(by_exit)
}
