//! The machine: its state and its effects. The decisions stand in the files below, one per phase of life.

use schema::{
    boot::{BootMethod, Image},
    commissioning::{CommissionStep, StepRecord},
    id::{AttemptId, RackId, ResultId, SubnetId, SystemId},
    messages::machine::{BriefScript, CommissionOptions, MachineSpec},
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
    /// Racks that hold the ticket.
    pub boot_racks: Vec<RackId>,
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
