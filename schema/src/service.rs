//! How a controller's services stand: what each says of itself, in one shape for all of them.

use std::net::SocketAddr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// One service of a rack, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// "dhcp", "tftp", "http", "power", "dns", "ntp", "syslog", "proxy"; "disk" while it refuses writes.
    pub service: String,
    pub health: Health,
    /// Since when its health is so.
    pub since: Timestamp,
    pub addresses: Vec<SocketAddr>,
    /// Since its start, by what happened: "answered", "refused", …
    pub counters: Vec<(String, u64)>,
    pub last_error: Option<ServiceError>,
    /// How often it was started again after it had died.
    pub restarts: u32,
}

impl ServiceStatus {
    /// What a rack calls its disk among its services, while it refuses writes: nothing is durable without it.
    pub const DISK: &'static str = "disk";
}

/// MAAS's words for how a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Running,
    /// It serves, but not all that it should; the last error says what.
    Degraded,
    /// It should serve and does not.
    Dead,
    /// Nobody wants it here.
    Off,
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ServiceError {
    pub at: Timestamp,
    pub why: String,
    pub remedy: String,
}
