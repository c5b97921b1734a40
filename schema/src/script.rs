//! Commissioning scripts and their results, with MAAS's numbers (maas-compatible clients store them).

pub mod header;
pub mod outcome;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{boot::BodyRef, id::ResultId};

/// MAAS's `script_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptType {
    Commissioning,
    Testing,
}

/// One script of one attempt, as a rack delivers it. The names of the numbers are those of `index.json` (version 1.0).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ScriptRef {
    pub name: String,
    pub script_type: ScriptType,
    pub script_result_id: ResultId,
    pub script_version_id: i64,
    /// 0 is none.
    pub timeout_seconds: u32,
    /// 0 one by one, 1 beside instances of itself, 2 beside any.
    pub parallel: u8,
    /// 0 node, 1 CPU, 2 memory, 3 storage, 4 network.
    pub hardware_type: u8,
    pub may_reboot: bool,
    /// The `packages` value of the header as JSON text; `{}` when there is none.
    pub packages: String,
    /// The script's text.
    pub body: BodyRef,
}

/// MAAS's script result status; the number is part of the API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultStatus {
    #[default]
    Pending,
    Running,
    Passed,
    Failed,
    TimedOut,
    Aborted,
    Degraded,
    Installing,
    FailedInstalling,
    Skipped,
    ApplyingNetconf,
    FailedApplyingNetconf,
}

impl ResultStatus {
    /// All, by number.
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::Running,
        Self::Passed,
        Self::Failed,
        Self::TimedOut,
        Self::Aborted,
        Self::Degraded,
        Self::Installing,
        Self::FailedInstalling,
        Self::Skipped,
        Self::ApplyingNetconf,
        Self::FailedApplyingNetconf,
    ];

    /// MAAS's number.
    #[must_use]
    pub fn number(self) -> i64 {
        self as i64
    }

    /// The status of that number.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.number() == number)
    }

    /// MAAS's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Passed => "Passed",
            Self::Failed => "Failed",
            Self::TimedOut => "Timed out",
            Self::Aborted => "Aborted",
            Self::Degraded => "Degraded",
            Self::Installing => "Installing dependencies",
            Self::FailedInstalling => "Failed installing dependencies",
            Self::Skipped => "Skipped",
            Self::ApplyingNetconf => "Applying custom network configuration",
            Self::FailedApplyingNetconf => "Failed to apply custom network configuration",
        }
    }

    /// Whether the script has ended.
    #[must_use]
    pub fn ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Running | Self::Installing | Self::ApplyingNetconf)
    }

    /// Whether it ended badly.
    #[must_use]
    pub fn failed(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::FailedInstalling | Self::FailedApplyingNetconf)
    }
}

/// The `status` field of a node's signal (`op=signal`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SignalStatus {
    Ok,
    Failed,
    Working,
    Commissioning,
    Testing,
    Timedout,
    Installing,
    ApplyingNetconf,
}

impl std::str::FromStr for SignalStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "OK" => Self::Ok,
            "FAILED" => Self::Failed,
            "WORKING" => Self::Working,
            "COMMISSIONING" => Self::Commissioning,
            "TESTING" => Self::Testing,
            "TIMEDOUT" => Self::Timedout,
            "INSTALLING" => Self::Installing,
            "APPLYING_NETCONF" => Self::ApplyingNetconf,
            _ => {
                return Err(format!(
                    "status \"{text}\" is not one of OK, FAILED, WORKING, COMMISSIONING, TESTING, TIMEDOUT, INSTALLING, APPLYING_NETCONF"
                ));
            }
        })
    }
}

/// The four output files of one script run. A file above [`INLINE_LIMIT`] travels on a stream of its own and is named here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ScriptOutput {
    /// Standard output and error as they came.
    pub combined: Option<Content>,
    pub stdout: Option<Content>,
    pub stderr: Option<Content>,
    /// The result YAML (`$RESULT_PATH`).
    pub result: Option<Content>,
}

/// Bodies up to this many bytes travel within their message.
pub const INLINE_LIMIT: usize = 64 * 1024;
/// MAAS keeps at most this many bytes of each output file; what is longer is cut and says so.
pub const OUTPUT_LIMIT: usize = 1024 * 1024;

/// Bytes with their hash. In a journal only the reference stands; the bytes go to the result's own row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Content {
    #[serde(flatten)]
    pub body: BodyRef,
    /// The bytes, when they fit; otherwise they are in the body store under `body`.
    #[serde(skip)]
    pub inline: Option<Vec<u8>>,
}
