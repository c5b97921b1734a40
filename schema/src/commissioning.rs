//! The twelve steps of a commissioning: names, deadlines, and the record each of them leaves.

use std::time::Duration;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{id::RackId, time::Timestamp};

/// One of the twelve steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommissionStep {
    Request,
    Order,
    RackChosen,
    PowerOn,
    DhcpLease,
    NextServer,
    BootResources,
    BootConfig,
    EphemeralBoot,
    Metadata,
    Scripts,
    Stored,
}

impl CommissionStep {
    /// All twelve, in order.
    pub const ALL: [Self; 12] = [
        Self::Request,
        Self::Order,
        Self::RackChosen,
        Self::PowerOn,
        Self::DhcpLease,
        Self::NextServer,
        Self::BootResources,
        Self::BootConfig,
        Self::EphemeralBoot,
        Self::Metadata,
        Self::Scripts,
        Self::Stored,
    ];

    /// 1 to 12.
    #[must_use]
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// The name on pages and in reports.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Request => "Request",
            Self::Order => "Order",
            Self::RackChosen => "Rack chosen",
            Self::PowerOn => "Power on",
            Self::DhcpLease => "DHCP lease",
            Self::NextServer => "Next server",
            Self::BootResources => "Boot resources",
            Self::BootConfig => "Boot config",
            Self::EphemeralBoot => "Ephemeral boot",
            Self::Metadata => "Metadata",
            Self::Scripts => "Scripts",
            Self::Stored => "Stored",
        }
    }

    /// How long the step may take before the attempt fails, counted from its start.
    /// None is above 5 minutes, but for the scripts' own time-outs, which are added to step 11.
    #[must_use]
    pub fn deadline(self) -> Duration {
        Duration::from_secs(match self {
            Self::Request | Self::Order => 10,
            Self::RackChosen => 30,
            // All of IPMI's waits (4, 8, 16, 32 s) and the tool's own time.
            Self::PowerOn => 150,
            // Large servers test their memory for minutes before they ask.
            Self::DhcpLease => 300,
            Self::NextServer | Self::BootConfig => 90,
            Self::BootResources => 120,
            Self::EphemeralBoot | Self::Metadata => 300,
            // Between two signals of the runner, which beats every 120 s.
            Self::Scripts => 300,
            Self::Stored => 150,
        })
    }
}

/// How a step stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    #[default]
    Pending,
    Running,
    Done,
    /// This firmware path does not use the step; `evidence` says why.
    NotUsed,
    Failed,
}

/// The record of one step of one attempt: a timestamped fact with who served it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct StepRecord {
    pub state: StepState,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// The rack that served it; `None` where the region did.
    pub rack: Option<RackId>,
    /// The service that served it: "region", "power", "dhcp", "tftp", "http", "metadata", "machine".
    pub service: String,
    /// What proved the end, in words.
    pub evidence: String,
}
