//! The typed wait: the only way to stay in a state that expects something.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{id::RackId, time::Timestamp};

/// Who owes what is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwedBy {
    /// The region itself (a commit, a composition).
    Region,
    /// That rack controller.
    Rack(RackId),
    /// Any rack of the boot VLAN.
    AnyRack,
    /// The machine's BMC.
    Bmc,
    /// The machine: its firmware, kernel or scripts.
    Machine,
    /// A person.
    Operator,
}

impl std::fmt::Display for OwedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Region => f.write_str("the region"),
            Self::Rack(id) => write!(f, "rack {id}"),
            Self::AnyRack => f.write_str("a rack of the boot VLAN"),
            Self::Bmc => f.write_str("the BMC"),
            Self::Machine => f.write_str("the machine"),
            Self::Operator => f.write_str("the operator"),
        }
    }
}

/// Something expected: what, from whom, since when, until when, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Wait {
    /// What is expected, as a noun phrase: "a DHCP request from 52:54:00:77:00:01".
    pub what: String,
    /// Who owes it.
    pub owed_by: OwedBy,
    /// When the waiting began.
    pub since: Timestamp,
    /// When it ends at the latest. Every wait has an end.
    pub deadline: Timestamp,
    /// What has been seen so far, newest last; short sentences with their times in the words where they matter.
    pub evidence: Vec<String>,
    /// What happens at the deadline: "the attempt fails and the machine is powered off".
    pub on_timeout: String,
    /// What a person can do now.
    pub remedy: String,
}
