//! The errand: the rack's deputy of one machine whose BMC it drives. What a run of a driver does lives in the rack; here it is only decided.
//!
//! One order is one pair of attempt and action. It is accepted once; a repeat is answered with what is known of it.
//! At most one driver run is under way at any time, and a run's answer counts only under its number.

mod run;

use schema::{
    id::{AttemptId, SystemId},
    messages::{link::Order, report::Fact},
    power::{PowerAccess, PowerAction, PowerType},
    status::PowerState,
    time::Timestamp,
    wait::Wait,
};
use serde::{Deserialize, Serialize};

use crate::core::{Core, Resume, Step, TimerOp, TraceId, View};

/// One machine's power errand, present or over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    pub machine: SystemId,
    /// The order under way, with its secrets; `None` as soon as it is over.
    pub order: Option<Box<Order>>,
    pub progress: Progress,
}

/// An errand without its secrets: what is kept after the order is over, so that repeats and latecomers are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The attempt of the last order; what is older is ignored.
    pub attempt: AttemptId,
    pub phase: Phase,
    /// The number of the last driver run; never used twice.
    pub run: u32,
    /// How the attempt's orders ended, by action.
    pub ended: Vec<Ended>,
    /// What has been seen of the order under way, newest last.
    pub seen: Vec<String>,
    pub wait: Option<Wait>,
    /// How often the order came again.
    pub repeats: u32,
    /// The BMC has not answered the order under way.
    #[serde(default)]
    pub unanswered: bool,
    /// What a person can do about what was seen last.
    #[serde(default)]
    pub remedy: Option<String>,
    /// The BMC took the order to boot, and has not said "off" since: the machine may be booting.
    #[serde(default)]
    pub may_boot: bool,
}

/// Where the order under way stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// No order, or all are over.
    #[default]
    Idle,
    /// A driver run carries the action out. `try_number` counts from 1.
    Acting { try_number: u32 },
    /// The action was accepted; the next question after the state comes at `next`, and the last before `until`.
    Watching { try_number: u32, asked: u32, next: Timestamp, until: Timestamp },
    /// A driver run asks for the state.
    Asking { try_number: u32, asked: u32, until: Timestamp },
    /// The try failed in a way that may pass; the next one begins at `until`.
    Pausing { try_number: u32, until: Timestamp },
    /// The order's time ended while this rack was away: the BMC is asked once how the machine stands, until then at most.
    Looking { until: Timestamp },
}

/// How an order of the attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub action: PowerAction,
    /// The order's deadline: a later order for the same action is a new one, unless it could boot a machine twice.
    pub deadline: Timestamp,
    /// What was reported; `None` when it was cancelled or superseded.
    pub fact: Option<Fact>,
}

/// Something that happened to an errand.
#[derive(Debug, Clone)]
pub enum ErrandEvent {
    /// The region orders.
    Ordered { order: Box<Order> },
    /// The region takes the attempt's order back.
    Cancelled { attempt: AttemptId },
    /// The machine booted under its ticket: it took a lease or a file, then.
    Heard { at: Timestamp },
    /// The driver run of that number ended.
    Ran { run: u32, result: Result<Ran, PowerFault> },
    /// A timer elapsed.
    Elapsed { timer: ErrandTimer },
}

/// How a driver run ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ran")]
pub enum Ran {
    /// The BMC accepted the action. `notes` are things that went wrong without stopping it.
    Accepted { notes: Vec<String> },
    /// The BMC was asked and says so.
    State { state: PowerState },
    /// The driver needs a person's hand.
    ByHand,
}

/// Why a driver run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}; {remedy}")]
pub struct PowerFault {
    pub kind: FaultKind,
    /// What was tried and what was seen.
    pub why: String,
    /// What a person can do.
    pub remedy: String,
}

/// The kinds of faults that decisions tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Wrong user, password, key or privilege: another try may lock the account.
    Auth,
    /// This rack cannot at all: a missing tool, an unknown driver, a parameter that is wrong.
    Unfit,
    /// The BMC refuses the action for good.
    Fatal,
    /// No answer.
    Unreachable,
    /// The BMC answers that it cannot now.
    Busy,
    /// Anything else that may pass.
    Other,
}

impl FaultKind {
    /// Whether another try may end better.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unreachable | Self::Busy | Self::Other)
    }
}

/// What an errand asks the rack's hands to do. Reports are written with the errand's own record, in one transaction.
#[derive(Debug, Clone)]
pub enum ErrandEffect {
    /// Run the driver once; [`ErrandEvent::Ran`] comes back with this number.
    RunPower { run: u32, action: PowerAction, access: PowerAccess },
    /// End that run, queued or under way. No answer is owed.
    StopPower { run: u32 },
    /// Report the fact to the region.
    Report { attempt: AttemptId, at: Timestamp, fact: Fact },
}

/// Timers of an errand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrandTimer {
    /// The order's deadline.
    Deadline,
    /// The next try, or the next question.
    Next,
}

impl Errand {
    /// An errand that was never ordered anything.
    #[must_use]
    pub fn idle(machine: SystemId) -> Self {
        Self { machine, order: None, progress: Progress::default() }
    }

    /// An errand as the store kept it.
    #[must_use]
    pub fn restored(machine: SystemId, order: Option<Order>, mut progress: Progress) -> Self {
        if order.is_none() {
            progress.phase = Phase::Idle;
            progress.wait = None;
        }
        Self { machine, order: order.map(Box::new), progress }
    }

    /// The attempt whose order is under way.
    #[must_use]
    pub fn under_way(&self) -> Option<AttemptId> {
        self.order.as_ref().map(|order| order.attempt)
    }

    /// Whether the machine's own voice would end the order: its network boot was accepted, and its state is asked after.
    #[must_use]
    pub fn listens(&self) -> bool {
        let booting = self.order.as_ref().is_some_and(|order| order.action == PowerAction::NetworkBoot);
        booting && matches!(self.progress.phase, Phase::Watching { .. } | Phase::Asking { .. })
    }

    /// The driver run that is under way, if any.
    #[must_use]
    pub fn running(&self) -> Option<u32> {
        let runs = matches!(self.progress.phase, Phase::Acting { .. } | Phase::Asking { .. } | Phase::Looking { .. });
        runs.then_some(self.progress.run)
    }
}

/// The seconds to wait after each try: before the next one, or for the state to change.
#[must_use]
pub fn waits(power_type: PowerType) -> &'static [u64] {
    match power_type {
        PowerType::Ipmi => &[4, 8, 16, 32],
        PowerType::Manual | PowerType::Redfish => &[1, 2, 2, 4, 6, 8, 12],
    }
}

impl Core for Errand {
    const KIND: &'static str = "errand";
    type Id = SystemId;
    type Event = ErrandEvent;
    type Effect = ErrandEffect;
    type Timer = ErrandTimer;

    fn id(&self) -> SystemId {
        self.machine
    }

    fn step(&self, event: &ErrandEvent, now: Timestamp) -> Step<Self> {
        match event {
            ErrandEvent::Ordered { order } => self.ordered(order, now),
            ErrandEvent::Cancelled { attempt } => self.cancelled(*attempt),
            ErrandEvent::Heard { at } => self.heard(*at, now),
            ErrandEvent::Ran { run, result } => self.ran(*run, result, now),
            ErrandEvent::Elapsed { timer } => self.elapsed_at(*timer, now),
        }
    }

    fn resume(&self, now: Timestamp) -> Resume<Self> {
        let Some(order) = &self.order else { return Resume::default() };
        let access = order.access.clone();
        let run = self.progress.run;
        let mut timers = vec![TimerOp::Arm { timer: ErrandTimer::Deadline, at: self.over_at(order) }];
        let mut effects = Vec::new();
        match self.progress.phase {
            Phase::Idle => return Resume::default(),
            Phase::Looking { .. } => effects.push(ErrandEffect::RunPower { run, action: PowerAction::Query, access }),
            // What its time is over for is not done any more; it is looked at first.
            _ if order.deadline <= now => {}
            Phase::Acting { .. } => {
                effects.push(ErrandEffect::RunPower { run, action: self.action_now(order.action), access });
            }
            Phase::Asking { .. } => effects.push(ErrandEffect::RunPower { run, action: PowerAction::Query, access }),
            Phase::Watching { next: at, .. } | Phase::Pausing { until: at, .. } => {
                timers.push(TimerOp::Arm { timer: ErrandTimer::Next, at });
            }
        }
        Resume { effects, timers }
    }

    fn elapsed(timer: ErrandTimer) -> ErrandEvent {
        ErrandEvent::Elapsed { timer }
    }

    fn view(&self) -> View {
        let state = match self.progress.phase {
            Phase::Idle => "idle",
            Phase::Acting { .. } => "acting",
            Phase::Watching { .. } => "watching",
            Phase::Asking { .. } => "asking",
            Phase::Pausing { .. } => "pausing",
            Phase::Looking { .. } => "looking",
        };
        View { state: state.into(), wait: self.progress.wait.clone(), detail: serde_json::Value::Null }
    }

    fn trace(&self) -> TraceId {
        self.order.as_ref().map_or_else(TraceId::default, |order| TraceId::of_attempt(self.machine, order.attempt))
    }

    fn detail(&self) -> serde_json::Value {
        let order = self.order.as_ref().map(|order| {
            serde_json::json!({
                "attempt": order.attempt, "hostname": order.hostname, "action": order.action,
                "power_type": order.access.power_type, "address": order.access.params.get("power_address"),
                "deadline": order.deadline,
            })
        });
        serde_json::json!({ "machine": self.machine, "order": order, "progress": self.progress })
    }
}
