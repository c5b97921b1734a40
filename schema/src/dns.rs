//! DNS as it is said and stored: names, zones, record sets. How they look in a packet is `actors::dns`'s.

use std::{
    borrow::Borrow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::net::{Cidr, IpRange};

/// Characters of a name at most (RFC 1035 section 3.1: 255 bytes in a packet).
const NAME_MAX: usize = 253;
/// Bytes of a label at most.
const LABEL_MAX: usize = 63;

/// A fully qualified domain name in lower case, without the dot at its end; empty is the root. Wider than a host name: labels may hold
/// any printable ASCII but dots, backslashes, quotes and blanks (`_sip._tcp.maas`).
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct DnsName(String);

/// A text that is no domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a domain name; write labels of 1 to 63 characters with dots between, 253 in all, without blanks"
)]
pub struct DnsNameError(pub String);

impl DnsName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels, the host's first. None for the root.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.').filter(|label| !label.is_empty())
    }

    /// Whether it is `zone` or lies below it.
    #[must_use]
    pub fn within(&self, zone: &Self) -> bool {
        let head = self.0.strip_suffix(zone.as_str());
        head.is_some_and(|head| zone.0.is_empty() || head.is_empty() || head.ends_with('.'))
    }

    /// The name with `label` (one or several, dots between) in front.
    ///
    /// # Errors
    /// [`DnsNameError`] when the whole is no name.
    pub fn below(&self, label: &str) -> Result<Self, DnsNameError> {
        if self.0.is_empty() { label.parse() } else { format!("{label}.{}", self.0).parse() }
    }

    /// The name that an address's PTR record has: `9.0.77.10.in-addr.arpa` (RFC 1035 section 3.5), `…ip6.arpa` (RFC 3596 section 2.5).
    #[must_use]
    pub fn reverse(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => {
                let [a, b, c, d] = a.octets();
                Self(format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
            }
            IpAddr::V6(a) => {
                let nibbles = a.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
                let labels: Vec<_> = nibbles.map(|n| format!("{n:x}")).collect();
                Self(format!("{}.ip6.arpa", labels.join(".")))
            }
        }
    }

    /// The name of a subnet inside the internal domain: its network with `-` for dots and colons and `--` for the slash.
    ///
    /// # Errors
    /// [`DnsNameError`] when the domain is so long that the whole is no name.
    pub fn of_subnet(subnet: Cidr, internal: &Self) -> Result<Self, DnsNameError> {
        internal.below(&subnet.to_string().replace(['.', ':'], "-").replace('/', "--"))
    }
}

/// Equal, ordered and hashed as its text is.
impl Borrow<str> for DnsName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = DnsNameError;

    /// # Errors
    /// [`DnsNameError`] for an empty or too long label, a name that is too long, or characters that would need an escape. One dot at the end is dropped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = if text == "." { "" } else { text.strip_suffix('.').unwrap_or(text) };
        let fine = |c: u8| c.is_ascii_graphic() && !matches!(c, b'.' | b'\\' | b'"');
        let label = |l: &str| (1..=LABEL_MAX).contains(&l.len()) && l.bytes().all(fine);
        if text.is_empty() || plain.len() > NAME_MAX || !(plain.is_empty() || plain.split('.').all(label)) {
            return Err(DnsNameError(text.into()));
        }
        Ok(Self(plain.to_ascii_lowercase()))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0.is_empty() { "." } else { &self.0 })
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DnsName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DnsName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The head of a zone. Its records are those of its name and below, down to the next zone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Zone {
    pub name: DnsName,
    /// RFC 1982; grows with every change of the zone.
    #[serde(default = "first_serial")]
    pub serial: u32,
    /// How long "no such name" may be remembered, in seconds.
    #[serde(default = "default_ttl")]
    pub ttl: u32,
    /// Not empty: we have no records of it, and these servers are asked (MAAS: `forward_dns_servers`).
    #[serde(default)]
    pub forward: Vec<SocketAddr>,
    /// Addresses whose names are made up when they are asked for: `10-77-0-100.maas` and its PTR.
    #[serde(default)]
    pub generated: Vec<Generated>,
}

/// Names made up for a range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Generated {
    pub range: IpRange,
    /// Where the addresses' names stand.
    pub domain: DnsName,
}

fn first_serial() -> u32 {
    1
}

/// MAAS's `default_dns_ttl`, in seconds.
#[must_use]
pub fn default_ttl() -> u32 {
    30
}

/// All records of one name and type.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct RecordSet {
    pub name: DnsName,
    /// Seconds.
    #[serde(default = "default_ttl")]
    pub ttl: u32,
    #[serde(flatten)]
    pub data: RecordData,
}

/// Which set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct RecordKey {
    pub name: DnsName,
    /// The type's number.
    pub rtype: u16,
}

impl RecordSet {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        RecordKey { name: self.name.clone(), rtype: self.data.rtype() }
    }
}

/// The types of records that zones hold (MAAS's), and what such records say.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordData {
    A(Vec<Ipv4Addr>),
    Ns(Vec<DnsName>),
    Cname(DnsName),
    Ptr(Vec<DnsName>),
    Mx(Vec<Mx>),
    /// Each of any length; cut into strings of 255 bytes in packets.
    Txt(Vec<String>),
    Aaaa(Vec<Ipv6Addr>),
    Srv(Vec<Srv>),
    Sshfp(Vec<Sshfp>),
}

/// RFC 1035 section 3.3.9.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct Mx {
    pub preference: u16,
    pub exchange: DnsName,
}

/// RFC 2782.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: DnsName,
}

/// RFC 4255.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct Sshfp {
    pub algorithm: u8,
    pub kind: u8,
    /// Hexadecimal, lower case, an even number of digits.
    pub fingerprint: String,
}

impl RecordData {
    /// The type's number (IANA, "Resource Record (RR) TYPEs").
    #[must_use]
    pub fn rtype(&self) -> u16 {
        match self {
            Self::A(_) => 1,
            Self::Ns(_) => 2,
            Self::Cname(_) => 5,
            Self::Ptr(_) => 12,
            Self::Mx(_) => 15,
            Self::Txt(_) => 16,
            Self::Aaaa(_) => 28,
            Self::Srv(_) => 33,
            Self::Sshfp(_) => 44,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_bounded_and_know_their_zones() {
        let name = |text: &str| text.parse::<DnsName>().unwrap();
        assert_eq!(name("Fox.MAAS.").as_str(), "fox.maas");
        assert_eq!((name(".").to_string(), name(".").labels().count()), (".".to_owned(), 0));
        assert!(name("fox.maas").within(&name("maas")) && name("maas").within(&name("maas")));
        assert!(!name("foxmaas").within(&name("maas")) && name("x").within(&name(".")));
        assert_eq!(name("maas").below("_sip._tcp").unwrap(), name("_sip._tcp.maas"));
        for text in ["", "..", "a..b", ".a", "a b", "a\\b", "ä", &"x".repeat(64), &"a.".repeat(128)] {
            assert!(text.parse::<DnsName>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_and_subnets_have_their_names() {
        let reverse = |text: &str| DnsName::reverse(text.parse().unwrap()).to_string();
        assert_eq!(reverse("10.77.0.9"), "9.0.77.10.in-addr.arpa");
        let v6 = reverse("fd00::12");
        assert!(v6.starts_with("2.1.0.0.") && v6.ends_with(".0.0.d.f.ip6.arpa") && v6.len() == 72, "{v6}");
        let internal = "maas-internal".parse().unwrap();
        let named = |cidr: &str| DnsName::of_subnet(cidr.parse().unwrap(), &internal).unwrap().to_string();
        assert_eq!(named("192.168.1.0/24"), "192-168-1-0--24.maas-internal");
        assert_eq!(named("fd00:1::/64"), "fd00-1----64.maas-internal");
    }

    #[test]
    fn a_record_set_reads_as_a_person_writes_it() {
        let set: RecordSet = serde_json::from_str(r#"{"name": "Fox.maas", "a": ["10.77.0.9"]}"#).unwrap();
        assert_eq!((set.ttl, set.key().rtype), (30, 1));
        let again: RecordSet = serde_json::from_str(&serde_json::to_string(&set).unwrap()).unwrap();
        assert_eq!(again, set);
    }
}
