//! Projections: what a step adds to the read model, written in the transaction of its journal row.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    hardware::HardwareReport,
    id::{AttemptId, ResultId},
    lldp::LldpNeighbour,
    messages::machine::BriefScript,
    script::{ResultStatus, ScriptOutput},
    time::Timestamp,
};

/// One addition to what operators read of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Projection {
    /// A line of the machine's history.
    Event(EventLine),
    /// A new attempt's script set: its scripts, all pending. Replaces none; older sets stay for reading.
    ScriptsChosen { attempt: AttemptId, at: Timestamp, scripts: Vec<BriefScript> },
    /// A script moved or ended.
    ScriptResult {
        result: ResultId,
        status: ResultStatus,
        at: Timestamp,
        exit_status: Option<i32>,
        runtime_ms: Option<u64>,
        output: Option<Box<ScriptOutput>>,
    },
    /// Replaces the machine's CPUs, memory, interfaces, disks and system rows.
    Hardware(Arc<HardwareReport>),
    /// Replaces the machine's LLDP neighbours.
    Neighbours(Arc<Vec<LldpNeighbour>>),
}

/// A line of history, as `events/` and `machine events` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    pub at: Timestamp,
    pub level: Level,
    /// MAAS's event type where it has one: `NODE_POWERED_ON`, `PERFORMING_PXE_BOOT`, `GATHERING_INFO`, `READY`, …
    pub event_type: String,
    pub description: String,
    /// The user; `None` for what no person did.
    pub by: Option<String>,
}

/// MAAS's event levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Audit,
    Debug,
    Info,
    Warning,
    Error,
}
