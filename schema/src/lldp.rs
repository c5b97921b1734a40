//! LLDP neighbours (IEEE 802.1AB) as `lldpctl -f json` or XML shows them, read into rows.

pub mod parse;

use serde::{Deserialize, Serialize};

pub use self::parse::{LldpError, parse};

/// One neighbour of one interface: the switch and the port at the other end of the cable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LldpNeighbour {
    /// The machine's own interface.
    pub interface: String,
    /// "LLDP", "CDPv2", …
    pub via: String,
    pub chassis_id: String,
    pub chassis_name: String,
    pub chassis_description: String,
    pub management_addresses: Vec<String>,
    pub port_id: String,
    pub port_description: String,
    pub vlan_ids: Vec<u16>,
}
