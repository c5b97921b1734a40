//! The machine: its state, its effects, and the match that sends every event to the file that decides about it.
//! Absent on purpose: retries at the BMC (the rack's errand), leases (the subnet), credentials (the hands).

mod admission;
mod again;
mod astray;
mod commissioning;
mod ending;
mod links;
mod power;
mod scripts;
mod waits;

use crate::core::{Core, Resume, Step, TimerOp, TraceId, View};
use schema::{
    boot::{BootMethod, Image},
    commissioning::{CommissionStep, StepRecord},
    id::{AttemptId, RackId, ResultId, SubnetId, SystemId},
    messages::{
        link::Stray,
        machine::{Ailment, BriefScript, CommissionOptions, MachineEvent, MachineSpec, MachineTimer},
    },
    net::MacAddr,
    power::PowerAction,
    projection::Projection,
    script::ResultStatus,
    status::{NodeStatus, PowerState},
    time::Timestamp,
    wait::Wait,
};
use serde::{Deserialize, Serialize};

/// A machine as the region decides about it. Its hardware, results and history are projections, not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub life: Life,
    pub spec: MachineSpec,
    pub status: NodeStatus,
    pub previous_status: NodeStatus,
    /// Why it is where it is; empty when all is well.
    pub error: String,
    pub power_state: PowerState,
    pub power_asked: Option<Timestamp>,
    /// The present attempt, or the last one.
    pub attempt: Option<Attempt>,
    /// The number the next attempt gets.
    pub next_attempt: AttemptId,
    /// A power action outside a commissioning.
    pub errand: Option<PowerErrand>,
    pub boot_method: Option<BootMethod>,
    pub wait: Option<Wait>,
}

/// Whether the machine is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// Not created yet.
    Absent,
    Present,
    Deleted,
}

/// One commissioning: where it stands in its twelve steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub id: AttemptId,
    pub by: String,
    pub options: CommissionOptions,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    pub image: Image,
    pub kernel_opts: String,
    pub scripts: Vec<AttemptScript>,
    /// Racks that may reach the BMC, best first; the one in charge is `bmc_racks[bmc_rack]`.
    pub bmc_racks: Vec<RackId>,
    pub bmc_rack: usize,
    /// Racks of the attempt whose link is down.
    #[serde(default)]
    pub away: Vec<RackId>,
    /// Racks of the boot VLAN that say that they lack something.
    #[serde(default)]
    pub ailing: Vec<(RackId, Ailment)>,
    /// Where the machine asked for an address and was not expected.
    #[serde(default)]
    pub astray: Option<(RackId, Stray)>,
    /// Racks of the boot VLAN, which the ticket is for.
    pub boot_racks: Vec<RackId>,
    /// Those of them that hold the ticket.
    pub held_by: Vec<RackId>,
    /// Those of them that have every body the ticket names.
    pub ready_on: Vec<RackId>,
    /// When the order to power on went out; `None` while no rack could boot the machine yet.
    pub ordered: Option<Timestamp>,
    /// When a rack of the boot VLAN lost its link while the machine booted.
    #[serde(default)]
    pub cut: Option<Timestamp>,
    /// The order of the second boot.
    #[serde(default)]
    pub again: Option<AttemptId>,
    /// The order to power off at the end.
    pub off: Option<AttemptId>,
    pub boot_subnets: Vec<SubnetId>,
    /// The twelve, in order.
    pub steps: Vec<StepRecord>,
    /// What was seen, newest last, kept short; shown as evidence.
    pub seen: Vec<String>,
    pub last_signal: Option<Timestamp>,
    /// The address it booted with.
    pub ip: Option<std::net::Ipv4Addr>,
    pub boot_mac: Option<MacAddr>,
    /// Whether the final signal was good; `None` before it.
    pub scripts_ok: Option<bool>,
    /// It waits for its turn: how many were before it when it was asked for.
    #[serde(default)]
    pub place: Option<u32>,
    /// The region was away past a deadline: until then nothing is judged, since what the racks kept meanwhile is still to come.
    #[serde(default)]
    pub held: Option<Timestamp>,
}

/// A script of the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptScript {
    pub script: BriefScript,
    pub status: ResultStatus,
    pub started: Option<Timestamp>,
}

/// A power action that an operator asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerErrand {
    pub attempt: AttemptId,
    pub action: PowerAction,
    pub racks: Vec<RackId>,
    pub rack: usize,
    pub started: Timestamp,
    /// What the racks before this one said.
    #[serde(default)]
    pub tried: Vec<String>,
}

/// What a machine's decision asks the hands to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEffect {
    /// To that rack: do this to the BMC, once per attempt. The hands add the credentials.
    SendOrder { rack: RackId, attempt: AttemptId, action: PowerAction, deadline: Timestamp },
    /// To that rack: forget the attempt's order.
    CancelOrder { rack: RackId, attempt: AttemptId },
    /// Mint the attempt's node key if there is none, and put the ticket into the plan of every rack in `racks`.
    PublishTicket { attempt: AttemptId, racks: Vec<RackId>, expires: Timestamp },
    /// Replace the ticket by "boot from your disk" and destroy the node key.
    WithdrawTicket { attempt: AttemptId },
    /// Written with the journal row, in its transaction.
    Store(Projection),
}

impl Attempt {
    /// The first step that is not over.
    #[must_use]
    pub fn current_step(&self) -> Option<CommissionStep> {
        use schema::commissioning::StepState;
        CommissionStep::ALL
            .into_iter()
            .zip(&self.steps)
            .find(|(_, r)| matches!(r.state, StepState::Pending | StepState::Running))
            .map(|(s, _)| s)
    }

    /// The script of that result.
    #[must_use]
    pub fn script(&self, result: ResultId) -> Option<&AttemptScript> {
        self.scripts.iter().find(|s| s.script.result == result)
    }
}

impl Machine {
    /// A machine that is not in the database yet: where `Created` is the first event.
    #[must_use]
    pub fn absent(id: SystemId) -> Self {
        Self {
            life: Life::Absent,
            spec: MachineSpec {
                system_id: id,
                hostname: String::new(),
                domain: String::new(),
                architecture: String::new(),
                macs: Vec::new(),
                power: schema::power::PowerConfig::default(),
                description: String::new(),
                zone: String::new(),
                pool: String::new(),
                vlan: None,
            },
            status: NodeStatus::New,
            previous_status: NodeStatus::New,
            error: String::new(),
            power_state: PowerState::Unknown,
            power_asked: None,
            attempt: None,
            next_attempt: AttemptId(1),
            errand: None,
            boot_method: None,
            wait: None,
        }
    }
}

impl Core for Machine {
    const KIND: &'static str = "machine";
    type Id = SystemId;
    type Event = MachineEvent;
    type Effect = MachineEffect;
    type Timer = MachineTimer;

    fn id(&self) -> SystemId {
        self.spec.system_id
    }

    fn step(&self, event: &MachineEvent, now: Timestamp) -> Step<Self> {
        match (self.life, event) {
            (Life::Absent, MachineEvent::Created { by, spec }) => self.created(by, spec, now),
            (Life::Present, _) => self.step_present(event, now),
            (Life::Absent, _) => Step::refused(
                format!("machine {} does not exist", self.spec.system_id),
                "list the machines with `hostler machine list`",
            ),
            (
                Life::Deleted,
                MachineEvent::Reported { .. }
                | MachineEvent::Elapsed { .. }
                | MachineEvent::RackLink { .. }
                | MachineEvent::RackBegan { .. }
                | MachineEvent::RackAils { .. }
                | MachineEvent::Strayed { .. }
                | MachineEvent::Turn { .. },
            ) => Step::ignored("the machine was deleted"),
            (Life::Deleted, _) => Step::refused(
                format!("machine {} was deleted", self.spec.system_id),
                "add it again with `hostler machine add`",
            ),
        }
    }

    fn resume(&self, now: Timestamp) -> Resume<Self> {
        let mut resume = Resume::default();
        // No deadline ends anything before the racks had time to tell what they kept.
        let not_before = now + waits::BACK;
        if let Some(attempt) = self.open_attempt() {
            resume.effects.extend(self.lost_effects(attempt));
        }
        if let Some(errand) = &self.errand {
            resume.effects.extend(errand.order());
        }
        resume.timers.extend(
            self.wait
                .as_ref()
                .map(|w| (MachineTimer::Deadline, w.deadline))
                .into_iter()
                .chain(self.script_due())
                .map(|(timer, at)| TimerOp::Arm { timer, at: at.max(not_before) }),
        );
        resume
    }

    fn elapsed(timer: MachineTimer) -> MachineEvent {
        MachineEvent::Elapsed { timer }
    }

    fn view(&self) -> View {
        let state = match (self.life, self.open_attempt().and_then(Attempt::current_step), &self.errand) {
            (Life::Absent, ..) => "Absent".into(),
            (Life::Deleted, ..) => "Deleted".into(),
            (Life::Present, Some(step), _) => format!("{}: {}", self.status.label(), step.label()),
            (Life::Present, None, Some(errand)) => format!("{}: {}", self.status.label(), errand.action.label()),
            (Life::Present, None, None) => self.status.label().into(),
        };
        View { state, wait: self.wait.clone(), detail: serde_json::Value::Null }
    }

    /// Its attempt's, or that of the power action it is at.
    fn trace(&self) -> TraceId {
        let attempt = self.open_attempt().map(|a| a.id).or(self.errand.as_ref().map(|e| e.attempt));
        attempt.map_or_else(TraceId::default, |attempt| TraceId::of_attempt(self.spec.system_id, attempt))
    }

    fn detail(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Machine {
    fn step_present(&self, event: &MachineEvent, now: Timestamp) -> Step<Self> {
        match event {
            MachineEvent::Created { .. } => Step::refused(
                format!("machine {} exists already", self.spec.system_id),
                "update it, or delete it first",
            ),
            MachineEvent::Updated { by, changes } => self.updated(by, changes, now),
            MachineEvent::Deleted { by } => self.deleted(by),
            MachineEvent::Commission { by, options, brief } => self.commission(by, options, brief, now),
            MachineEvent::Abort { by, comment } => self.abort(by, comment, now),
            MachineEvent::MarkBroken { by, comment } => self.mark_broken(by, comment, now),
            MachineEvent::MarkFixed { by, comment } => self.mark_fixed(by, comment, now),
            MachineEvent::Power { by, action, brief } => self.ask_power(by, *action, brief, now),
            MachineEvent::Operation { operation, .. } => Step::refused(
                format!("\"{operation}\" is not built yet: this version commissions machines and switches their power"),
                "use commission, abort, mark_broken, mark_fixed, power_on, power_off or query_power_state",
            ),
            MachineEvent::Reported { rack, report, derived } => self.reported(*rack, report, derived, now),
            MachineEvent::Elapsed { timer } => self.timer_elapsed(*timer, now),
            MachineEvent::RackLink { rack, up } => self.rack_link(*rack, *up, now),
            MachineEvent::RackBegan { rack } => self.rack_began(*rack, now),
            MachineEvent::RackAils { rack, ailment } => self.rack_ails(*rack, ailment.as_ref(), now),
            MachineEvent::Strayed { rack, stray } => self.strayed(*rack, stray, now),
            MachineEvent::Turn { brief } => self.turn(brief, now),
        }
    }

    /// The attempt, while it is under way.
    #[must_use]
    pub fn open_attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|a| a.ended.is_none())
    }
}
