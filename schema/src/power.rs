//! Power: drivers, their parameters, actions. What a driver does lives in the rack.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// How a machine is switched. Names are MAAS's `power_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerType {
    /// A person presses the button.
    Manual,
    /// IPMI 2.0 (RMCP+) over LAN.
    Ipmi,
}

impl PowerType {
    /// All types that this version drives.
    pub const ALL: [Self; 2] = [Self::Manual, Self::Ipmi];

    /// MAAS's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Ipmi => "ipmi",
        }
    }

    /// Whether the driver can ask for the state.
    #[must_use]
    pub fn queryable(self) -> bool {
        self != Self::Manual
    }

    /// The parameters it takes. A field that is `secret` is sealed and never shown.
    #[must_use]
    pub fn fields(self) -> &'static [PowerField] {
        match self {
            Self::Manual => &[],
            Self::Ipmi => &IPMI_FIELDS,
        }
    }
}

impl std::str::FromStr for PowerType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|t| t.name() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|t| t.name()).collect();
            format!("power type \"{text}\" is not known here; use one of {}", known.join(", "))
        })
    }
}

/// One parameter of a power driver, as MAAS names it.
#[derive(Debug, Clone, Copy)]
pub struct PowerField {
    pub name: &'static str,
    pub label: &'static str,
    pub required: bool,
    pub secret: bool,
    /// Admitted values; empty when any text is.
    pub choices: &'static [&'static str],
    pub default: &'static str,
}

const IPMI_FIELDS: [PowerField; 6] = [
    PowerField {
        name: "power_address",
        label: "BMC address",
        required: true,
        secret: false,
        choices: &[],
        default: "",
    },
    PowerField { name: "power_user", label: "User name", required: false, secret: false, choices: &[], default: "" },
    PowerField { name: "power_pass", label: "Password", required: false, secret: true, choices: &[], default: "" },
    PowerField {
        name: "cipher_suite_id",
        label: "Cipher suite (empty: 3, 17, 8 in turn)",
        required: false,
        secret: false,
        choices: &["", "3", "8", "12", "17"],
        default: "",
    },
    PowerField {
        name: "privilege_level",
        label: "Privilege level",
        required: false,
        secret: false,
        choices: &["USER", "OPERATOR", "ADMIN"],
        default: "OPERATOR",
    },
    PowerField {
        name: "k_g",
        label: "BMC key (hexadecimal)",
        required: false,
        secret: true,
        choices: &[],
        default: "",
    },
];

/// What the region knows of a machine's power: the plain parameters, and whether secrets are sealed for it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PowerConfig {
    pub power_type: PowerType,
    /// Plain parameters by field name.
    pub params: BTreeMap<String, String>,
    /// Names of the fields whose values stand in the region's sealed table, under this machine's id.
    pub secret_fields: Vec<String>,
}

impl Default for PowerConfig {
    fn default() -> Self {
        Self { power_type: PowerType::Manual, params: BTreeMap::new(), secret_fields: Vec::new() }
    }
}

impl PowerConfig {
    /// The BMC's address or name; `None` for drivers without one.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.params.get("power_address").map(String::as_str).filter(|a| !a.is_empty())
    }
}

/// Everything a rack needs to drive one BMC. Travels only to the one rack that is to use it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PowerAccess {
    pub power_type: PowerType,
    pub params: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, Secret<String>>,
}

/// What is asked of a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Boot from the network once, then on, or a power cycle where it is on.
    NetworkBoot,
    /// On as it is set up to boot.
    On,
    Off,
    Query,
}

impl PowerAction {
    /// A verb phrase for sentences.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NetworkBoot => "power on for network boot",
            Self::On => "power on",
            Self::Off => "power off",
            Self::Query => "power query",
        }
    }
}
