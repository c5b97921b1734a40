//! Power: drivers, their parameters, actions. What a driver does lives in the rack.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{net::HostName, secret::Secret};

/// How a machine is switched. Names are MAAS's `power_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerType {
    /// A person presses the button.
    Manual,
    /// IPMI 2.0 (RMCP+) over LAN.
    Ipmi,
    /// Redfish (DMTF DSP0266) over HTTPS.
    Redfish,
}

impl PowerType {
    /// All types that this version drives.
    pub const ALL: [Self; 3] = [Self::Manual, Self::Ipmi, Self::Redfish];

    /// MAAS's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Ipmi => "ipmi",
            Self::Redfish => "redfish",
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
            Self::Redfish => &REDFISH_FIELDS,
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

impl PowerField {
    /// A field of any text, not required, not secret.
    const fn text(name: &'static str, label: &'static str) -> Self {
        Self { name, label, required: false, secret: false, choices: &[], default: "" }
    }

    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

const BOOT_TYPE: PowerField = PowerField {
    choices: &["auto", "legacy", "efi"],
    default: "auto",
    ..PowerField::text("power_boot_type", "Firmware of the one-time network boot (auto: as it is)")
};

const IPMI_FIELDS: [PowerField; 9] = [
    PowerField {
        choices: &["LAN_2_0", "LAN"],
        default: "LAN_2_0",
        ..PowerField::text("power_driver", "IPMI version (LAN: 1.5, nothing is encrypted)")
    },
    BOOT_TYPE,
    PowerField::text("power_address", "BMC address").required(),
    PowerField::text("power_user", "User name"),
    PowerField::text("power_pass", "Password").secret(),
    PowerField {
        choices: &["", "3", "8", "12", "17"],
        ..PowerField::text("cipher_suite_id", "Cipher suite (empty: 17, 3, others in turn)")
    },
    PowerField {
        choices: &["USER", "OPERATOR", "ADMIN"],
        default: "OPERATOR",
        ..PowerField::text("privilege_level", "Privilege level")
    },
    PowerField::text("k_g", "BMC key (hexadecimal)").secret(),
    PowerField::text("workaround_flags", "Workarounds (names of FreeIPMI's, separated by commas)"),
];

const REDFISH_FIELDS: [PowerField; 5] = [
    BOOT_TYPE,
    PowerField::text("power_address", "BMC address or URL").required(),
    PowerField::text("power_user", "User name").required(),
    PowerField::text("power_pass", "Password").required().secret(),
    PowerField::text("node_id", "System id (empty: the only one)"),
];

/// The IP address in a BMC's address: plain, with a port, or in a URL. `None` for names.
#[must_use]
pub fn bmc_ip(address: &str) -> Option<IpAddr> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    plain.parse().ok().or_else(|| host.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

/// HOST, HOST:PORT, an IPv6 address, or [IPv6]:PORT. A name cannot begin with a hyphen: it would be an option.
#[must_use]
pub fn split_address(text: &str) -> Option<(String, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text.into(), None));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some((socket.ip().to_string(), Some(socket.port())));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let host: HostName = host.parse().ok()?;
    Some((host.as_str().into(), port))
}

/// The URL of the Redfish service at that address, which is one itself, or a host that is asked over HTTPS.
#[must_use]
pub fn redfish_url(address: &str) -> String {
    if address.contains("://") {
        address.to_owned()
    } else if address.parse::<Ipv6Addr>().is_ok() {
        format!("https://[{address}]")
    } else {
        format!("https://{address}")
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ip_of_a_bmc_is_found_in_every_form() {
        for text in ["10.0.0.7", "10.0.0.7:6230", "https://10.0.0.7", "http://10.0.0.7:8000/redfish/v1"] {
            assert_eq!(bmc_ip(text), Some([10, 0, 0, 7].into()), "{text}");
        }
        for text in ["fd00::7", "[fd00::7]:623", "https://[fd00::7]/"] {
            assert_eq!(bmc_ip(text), "fd00::7".parse().ok(), "{text}");
        }
        for text in ["", "bmc-1", "bmc-1.maas:623", "https://bmc-1"] {
            assert_eq!(bmc_ip(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_parse() {
        assert_eq!(split_address("10.0.0.1"), Some(("10.0.0.1".into(), None)));
        assert_eq!(split_address("10.0.0.1:6230"), Some(("10.0.0.1".into(), Some(6230))));
        assert_eq!(split_address("fd00::1"), Some(("fd00::1".into(), None)));
        assert_eq!(split_address("[fd00::1]:623"), Some(("fd00::1".into(), Some(623))));
        assert_eq!(split_address("bmc-1.maas:623"), Some(("bmc-1.maas".into(), Some(623))));
        for wrong in ["", "-oProxy", "a b", "host:port", "host:70000"] {
            assert_eq!(split_address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_redfish_service_is_asked_over_https_unless_its_url_says_otherwise() {
        assert_eq!(redfish_url("10.0.0.1:8443"), "https://10.0.0.1:8443");
        assert_eq!(redfish_url("fd00::1"), "https://[fd00::1]");
        assert_eq!(redfish_url("http://bmc-1:8000"), "http://bmc-1:8000");
    }
}
