//! Network values: MAC addresses, IPv4 and IPv6 networks, address ranges, host names. Opens nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet address (IEEE 802, EUI-48). Shown in lower case with colons.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct MacAddr(pub [u8; 6]);

/// A text that is not a value of this module, with the field's rule and a remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Not six hexadecimal pairs.
    #[error("\"{0}\" is not a MAC address; write six hexadecimal pairs as in 52:54:00:12:34:56")]
    Mac(String),
    /// Not ADDRESS/PREFIX.
    #[error("\"{0}\" is not a network; write ADDRESS/PREFIX as in 10.77.0.0/24")]
    Cidr(String),
    /// The prefix is longer than the address.
    #[error("prefix /{len} of \"{text}\" exceeds /{max}")]
    Prefix { text: String, len: u8, max: u8 },
    /// Not a host name by RFC 1123 section 2.1.
    #[error(
        "\"{0}\" is not a host name; use letters, digits and hyphens, 1 to 63 characters a label, no hyphen at either end"
    )]
    HostName(String),
    /// Ends before it starts.
    #[error("the range {start} to {end} ends before it starts; swap the two addresses")]
    Range { start: IpAddr, end: IpAddr },
}

impl MacAddr {
    /// The form in PXELINUX file names and `BOOTIF`: `52-54-00-12-34-56`.
    #[must_use]
    pub fn dashed(&self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl FromStr for MacAddr {
    type Err = NetError;

    /// # Errors
    /// [`NetError::Mac`] for anything but `aa:bb:cc:dd:ee:ff`, `aa-bb-cc-dd-ee-ff` or `aabbccddeeff`, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NetError::Mac(text.into());
        let separator = text.chars().find(|c| matches!(c, ':' | '-'));
        let digits: String = text.chars().filter(|c| Some(*c) != separator).collect();
        let well_placed = separator.is_none_or(|s| text.split(s).count() == 6 && text.split(s).all(|p| p.len() == 2));
        if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) || !well_placed {
            return Err(wrong());
        }
        let mut mac = [0; 6];
        for (byte, pair) in mac.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(mac))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network: the first address and the prefix length. Host bits of what is parsed are cleared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The network that holds `address` at `prefix` bits.
    ///
    /// # Errors
    /// [`NetError::Prefix`] when the prefix exceeds 32 (IPv4) or 128 (IPv6).
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NetError> {
        let max = if address.is_ipv4() { 32 } else { 128 };
        if prefix > max {
            return Err(NetError::Prefix { text: format!("{address}/{prefix}"), len: prefix, max });
        }
        Ok(Self { network: mask(address, prefix), prefix })
    }

    /// The first address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Prefix length in bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies inside. Never across families.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && mask(address, self.prefix) == self.network
    }

    /// The IPv4 netmask; `None` for IPv6.
    #[must_use]
    pub fn netmask(&self) -> Option<Ipv4Addr> {
        self.network.is_ipv4().then(|| Ipv4Addr::from(v4_mask(self.prefix)))
    }

    /// The IPv4 directed broadcast address; `None` for IPv6.
    #[must_use]
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.network {
            IpAddr::V4(n) => Some(Ipv4Addr::from(u32::from(n) | !v4_mask(self.prefix))),
            IpAddr::V6(_) => None,
        }
    }
}

fn v4_mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) & v4_mask(prefix)).into(),
        IpAddr::V6(a) => {
            let bits = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            std::net::Ipv6Addr::from(u128::from(a) & bits).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = NetError;

    /// # Errors
    /// [`NetError::Cidr`] for anything but ADDRESS/PREFIX, [`NetError::Prefix`] for a prefix that is too long.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NetError::Cidr(text.into());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        Self::new(address.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.network, self.prefix))
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Host name of one label or more (RFC 1123 section 2.1), lower case, at most 253 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct HostName(String);

impl HostName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = NetError;

    /// # Errors
    /// [`NetError::HostName`] when a label is empty, longer than 63, has other characters, or a hyphen at an end.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(NetError::HostName(text.into()));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(MacAddr, Cidr, HostName);

/// Addresses from `start` to `end`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct IpRange {
    pub start: IpAddr,
    pub end: IpAddr,
}

impl IpRange {
    /// # Errors
    /// [`NetError::Range`] when the end lies before the start or in the other family.
    pub fn new(start: IpAddr, end: IpAddr) -> Result<Self, NetError> {
        if start.is_ipv4() != end.is_ipv4() || end < start {
            return Err(NetError::Range { start, end });
        }
        Ok(Self { start, end })
    }

    /// How many addresses it holds, 1 or more; the largest number when there are more.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(&self) -> u64 {
        let span = match (self.start, self.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => u128::from(u32::from(end).saturating_sub(u32::from(start))),
            (IpAddr::V6(start), IpAddr::V6(end)) => u128::from(end).saturating_sub(u128::from(start)),
            _ => 0,
        };
        u64::try_from(span.saturating_add(1)).unwrap_or(u64::MAX)
    }

    /// Whether `address` lies inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && self.start <= address && address <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_parse_in_three_forms_and_refuse_the_rest() {
        for text in ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01", "525400abcd01"] {
            assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), "52:54:00:ab:cd:01");
        }
        for text in
            ["", "52:54:00:ab:cd", "5:254:00:ab:cd:01", "52:54-00:ab:cd:01", "52:54:00:ab:cd:0g", "ää:54:00:ab:cd"]
        {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_clear_host_bits_and_know_their_edges() {
        let net: Cidr = "10.77.0.9/24".parse().unwrap();
        assert_eq!(net.to_string(), "10.77.0.0/24");
        assert_eq!(net.netmask().unwrap().to_string(), "255.255.255.0");
        assert_eq!(net.broadcast().unwrap().to_string(), "10.77.0.255");
        assert!(net.contains("10.77.0.255".parse().unwrap()));
        assert!(!net.contains("10.77.1.0".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("9.9.9.9".parse().unwrap()));
        assert!("10.77.0.0/33".parse::<Cidr>().is_err());
        assert!("fd00::1/64".parse::<Cidr>().unwrap().contains("fd00::ffff".parse().unwrap()));
    }

    #[test]
    fn host_names_follow_rfc_1123() {
        assert!("fox-12.maas".parse::<HostName>().is_ok());
        for text in ["", "-a", "a-", "a..b", "a_b", &"x".repeat(64)] {
            assert!(text.parse::<HostName>().is_err(), "{text}");
        }
    }
}
