//! Everything that can happen to a machine, as the region's machine actor hears it. Written to the journal as JSON; holds no secret.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    boot::Image,
    hardware::HardwareReport,
    id::{RackId, ResultId, SubnetId, SystemId, VlanId},
    lldp::LldpNeighbour,
    messages::{link::Stray, report::Report},
    net::MacAddr,
    power::PowerConfig,
    script::{ResultStatus, ScriptType},
};

/// An event of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum MachineEvent {
    /// The API made it.
    Created {
        by: String,
        spec: MachineSpec,
    },
    /// The API changed it.
    Updated {
        by: String,
        changes: MachineChanges,
    },
    /// The API deleted it.
    Deleted {
        by: String,
    },
    /// Commission it. `brief` holds what the region's hands looked up for the decision.
    Commission {
        by: String,
        options: CommissionOptions,
        brief: Brief,
    },
    /// End what is under way.
    Abort {
        by: String,
        comment: String,
    },
    MarkBroken {
        by: String,
        comment: String,
    },
    MarkFixed {
        by: String,
        comment: String,
    },
    /// Switch it, or ask its state, outside a commissioning.
    Power {
        by: String,
        action: crate::power::PowerAction,
        brief: Brief,
    },
    /// An operation whose issue has not come; refused with that reason.
    Operation {
        by: String,
        operation: String,
    },
    /// A rack reports. `derived` is what the region's hands read out of the report's bodies.
    Reported {
        rack: RackId,
        report: Report,
        derived: Derived,
    },
    /// A timer of this machine elapsed.
    Elapsed {
        timer: MachineTimer,
    },
    /// The rack that holds this machine's order lost its link, or has it again.
    RackLink {
        rack: RackId,
        up: bool,
    },
    /// That rack has begun anew before anybody saw that it was gone.
    RackBegan {
        rack: RackId,
    },
    /// What keeps the rack that holds this machine's ticket from booting it; `None`: nothing any more.
    RackAils {
        rack: RackId,
        ailment: Option<Ailment>,
    },
    /// One of its cards has asked that rack for an address to boot, and was not expected there.
    Strayed {
        rack: RackId,
        stray: Stray,
    },
    /// Its turn has come: so much else was under way when it was asked for. `brief` is looked up anew.
    Turn {
        brief: Brief,
    },
}

/// What a rack lacks for booting machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ailment {
    /// Whether it boots machines all the same.
    pub serves: bool,
    pub why: String,
    pub remedy: String,
}

/// Timers of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineTimer {
    /// The deadline of the present wait.
    Deadline,
    /// The time-out of the script that runs (its own, plus five minutes).
    Script,
}

/// A machine as the API creates it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    pub system_id: SystemId,
    pub hostname: String,
    pub domain: String,
    /// `amd64/generic`.
    pub architecture: String,
    /// At least one; the first is the boot interface.
    pub macs: Vec<MacAddr>,
    pub power: PowerConfig,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub zone: String,
    #[serde(default)]
    pub pool: String,
    /// The VLAN that its boot interface is on, where an operator said so: then only that VLAN's racks hold its tickets.
    #[serde(default)]
    pub vlan: Option<VlanId>,
}

/// Fields that an update may change; absent fields stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineChanges {
    pub hostname: Option<String>,
    pub domain: Option<String>,
    pub architecture: Option<String>,
    pub power: Option<PowerConfig>,
    pub description: Option<String>,
    pub zone: Option<String>,
    pub pool: Option<String>,
    pub vlan: Option<VlanId>,
}

/// The options of a commissioning (MAAS's fields).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommissionOptions {
    pub enable_ssh: bool,
    pub skip_bmc_config: bool,
    pub skip_networking: bool,
    pub skip_storage: bool,
    /// Names or tags; empty: all that apply.
    pub commissioning_scripts: Vec<String>,
    pub testing_scripts: Vec<String>,
}

/// Facts that a decision needs and that only hands can look up: racks, images, scripts. A snapshot, so that `step` stays pure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// Racks that may reach the BMC and are connected, best first; where there are none, those that may be back in a moment.
    pub bmc_racks: Vec<RackId>,
    /// Racks that serve DHCP on the boot VLAN, are connected and fit for it; where there are none, those that may be back in a moment.
    pub boot_racks: Vec<RackId>,
    /// Those of both that are not linked just now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<RackId>,
    /// Those that are connected and not fit for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lame: Vec<(RackId, Ailment)>,
    /// Why there are none, and what brings one, where the boot VLAN is known.
    #[serde(default)]
    pub unserved: Option<(String, String)>,
    /// Where the machine is expected to boot, when known.
    pub boot_subnets: Vec<SubnetId>,
    /// The ephemeral image; `None` when there is none for the architecture.
    pub image: Option<Image>,
    pub kernel_opts: String,
    /// The scripts of this attempt, with result ids already allotted.
    pub scripts: Vec<BriefScript>,
    /// It must wait for its turn: how many are before it.
    #[serde(default)]
    pub place: Option<u32>,
}

/// A script as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BriefScript {
    pub result: ResultId,
    pub name: String,
    pub script_type: ScriptType,
    /// 0 is none.
    pub timeout_s: u32,
    pub may_reboot: bool,
}

/// What was read out of a report's bodies. The values go to tables of their own; the journal keeps only the summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    #[serde(skip)]
    pub hardware: Option<Arc<HardwareReport>>,
    #[serde(skip)]
    pub neighbours: Option<Arc<Vec<LldpNeighbour>>>,
    /// The `status` of the script's result YAML, which overrides its exit status.
    #[serde(default)]
    pub result_status: Option<ResultStatus>,
    /// Why a body that should have held facts did not; makes the result a failure.
    pub problem: Option<String>,
}
