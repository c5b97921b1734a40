//! What is neither machine nor rack: fabrics, VLANs, subnets, ranges, users, keys, scripts, images, settings. Few writes, many readers.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    boot::{BodyRef, BootFile, Image},
    dns::{DnsName, default_ttl},
    id::{FabricId, RackId, RangeId, SubnetId, VlanId},
    net::{Cidr, IpRange, MacAddr},
    plan::Strangers,
    script::ScriptType,
    time::Timestamp,
};

/// A fabric: a set of VLANs among which VIDs are unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fabric {
    pub id: FabricId,
    pub name: String,
}

/// A VLAN of a fabric. A new fabric has one: VID 0, `untagged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    pub id: VlanId,
    pub fabric: FabricId,
    /// 0 to 4094; 0 is untagged.
    pub vid: u16,
    pub name: String,
    pub mtu: u16,
    pub dhcp_on: bool,
    pub primary_rack: Option<RackId>,
    pub secondary_rack: Option<RackId>,
    pub relay_vlan: Option<VlanId>,
}

/// A subnet of a VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub vlan: VlanId,
    pub name: String,
    pub description: String,
    pub cidr: Cidr,
    pub gateway: Option<IpAddr>,
    pub dns_servers: Vec<IpAddr>,
    pub managed: bool,
    pub allow_dns: bool,
    pub allow_proxy: bool,
    pub active_discovery: bool,
    /// MAAS: 0 off, 1 enabled, 2 RFC 2317.
    pub rdns_mode: u8,
    pub strangers: Strangers,
    pub tftp_window: bool,
    /// Serve DHCP although a foreign server was heard.
    pub beside_foreign_dhcp: bool,
}

impl Subnet {
    /// A subnet as MAAS makes one of which nothing but its network is said: managed, with DNS and proxy for its machines.
    #[must_use]
    pub fn new(id: SubnetId, vlan: VlanId, cidr: Cidr) -> Self {
        Self {
            id,
            vlan,
            name: cidr.to_string(),
            description: String::new(),
            cidr,
            gateway: None,
            dns_servers: Vec::new(),
            managed: true,
            allow_dns: true,
            allow_proxy: true,
            active_discovery: false,
            rdns_mode: 2,
            strangers: Strangers::Ignore,
            tftp_window: true,
            beside_foreign_dhcp: false,
        }
    }
}

/// MAAS's IP range types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeType {
    /// Leased by DHCP.
    Dynamic,
    /// Never given out by itself.
    Reserved,
}

/// A range of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub id: RangeId,
    pub subnet: SubnetId,
    pub range_type: RangeType,
    pub range: IpRange,
    pub comment: String,
    pub user: Option<String>,
}

/// An address kept for a MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedIp {
    pub id: i64,
    pub subnet: SubnetId,
    pub mac: MacAddr,
    pub ip: IpAddr,
    pub hostname: Option<String>,
    pub comment: String,
}

/// A DNS domain: where machines are named, or one whose names others keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    pub id: i64,
    pub name: DnsName,
    /// Its zone is ours; otherwise `forward_dns_servers` are asked, or whoever is asked for everything.
    pub authoritative: bool,
    /// Seconds; `None`: the setting `default_dns_ttl`.
    pub ttl: Option<u32>,
    pub forward_dns_servers: Vec<IpAddr>,
}

impl Default for Domain {
    /// MAAS's first domain.
    fn default() -> Self {
        let name = "maas".parse().unwrap_or_default();
        Self { id: 0, name, authoritative: true, ttl: None, forward_dns_servers: Vec::new() }
    }
}

/// A name of a domain with addresses of its own, and what other records hang on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsResource {
    pub id: i64,
    pub domain: i64,
    /// One label or several; `@` is the domain itself.
    pub name: String,
    /// Of the addresses, in seconds.
    pub address_ttl: Option<u32>,
    pub ip_addresses: Vec<IpAddr>,
}

/// A record of a [`DnsResource`] (MAAS: DNS data).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    pub id: i64,
    pub resource: i64,
    pub ttl: Option<u32>,
    /// `CNAME`, `MX`, `NS`, `SRV`, `SSHFP` or `TXT`.
    pub rrtype: String,
    /// As in a zone file: `10 mail.example.com`.
    pub rrdata: String,
}

/// A person or a program with an account. The password's hash and the keys' secrets stand elsewhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub username: String,
    pub email: String,
    pub is_superuser: bool,
    /// Argon2id, PHC string format.
    pub password_hash: String,
    pub ssh_keys: Vec<String>,
}

impl fmt::Debug for User {
    /// Without the hash: a weak password can be found by it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { username, email, is_superuser, password_hash: _, ssh_keys } = self;
        let mut shown = f.debug_struct("User");
        shown.field("username", username).field("email", email).field("is_superuser", is_superuser);
        shown.field("password_hash", &format_args!("[hash]")).field("ssh_keys", ssh_keys).finish()
    }
}

/// An API key: MAAS's `consumer_key:token_key:token_secret`. Only a hash of the secret is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub consumer_key: String,
    pub token_key: String,
    /// SHA-256 of the token secret, hexadecimal. (The secret has 128 bits or more, so a fast hash is enough.)
    pub secret_sha256: String,
    pub username: String,
    pub name: String,
}

/// A script that the region can choose for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    pub id: i64,
    /// The content's version.
    pub version: i64,
    pub name: String,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub script_type: ScriptType,
    pub hardware_type: u8,
    pub parallel: u8,
    pub timeout_s: u32,
    pub packages: String,
    pub may_reboot: bool,
    /// Ships with Hostler.
    pub default: bool,
    pub body: BodyRef,
}

/// An ephemeral image of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueImage {
    pub id: i64,
    pub image: Image,
    /// Chosen for machines of its architecture when nothing else is said.
    pub default: bool,
}

/// A rack that was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackEntry {
    pub id: RackId,
    pub hostname: String,
    /// SHA-256 of its certificate (DER), hexadecimal; only this one is admitted.
    pub certificate_sha256: String,
    pub revoked: bool,
    /// Since when it gets no new work; it finishes what it has.
    #[serde(default)]
    pub drained: Option<Timestamp>,
}

/// A single-use enrolment token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentToken {
    /// SHA-256 of the token, hexadecimal.
    pub token_sha256: String,
    pub expires: Timestamp,
    pub used_by: Option<RackId>,
}

/// The catalogue's content, as one value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Catalogue {
    pub fabrics: BTreeMap<FabricId, Fabric>,
    pub vlans: BTreeMap<VlanId, Vlan>,
    pub subnets: BTreeMap<SubnetId, Subnet>,
    pub ranges: BTreeMap<RangeId, Range>,
    pub reserved_ips: BTreeMap<i64, ReservedIp>,
    pub users: BTreeMap<String, User>,
    /// By token key.
    pub api_keys: BTreeMap<String, ApiKey>,
    pub scripts: BTreeMap<i64, Script>,
    pub images: BTreeMap<i64, CatalogueImage>,
    /// By file name.
    pub boot_files: BTreeMap<String, BootFile>,
    pub racks: BTreeMap<RackId, RackEntry>,
    /// By the token's hash.
    pub enrolment_tokens: BTreeMap<String, EnrolmentToken>,
    pub domains: BTreeMap<i64, Domain>,
    /// The domain of machines that name none.
    pub default_domain: i64,
    pub dns_resources: BTreeMap<i64, DnsResource>,
    pub dns_records: BTreeMap<i64, DnsRecord>,
    /// MAAS's `maas/?op=get_config` names, values as JSON text.
    pub settings: BTreeMap<String, String>,
    /// The next integer id to give out, by table name.
    pub next_ids: BTreeMap<String, i64>,
}

impl Catalogue {
    /// The domain of machines that name none.
    #[must_use]
    pub fn main_domain(&self) -> Domain {
        self.domains.get(&self.default_domain).cloned().unwrap_or_default()
    }

    /// The seconds that names of a domain live, unless they say otherwise.
    #[must_use]
    pub fn ttl(&self, domain: &Domain) -> u32 {
        let set = || self.settings.get("default_dns_ttl").and_then(|text| text.parse().ok());
        domain.ttl.or_else(set).unwrap_or_else(default_ttl)
    }

    /// Where Hostler names its subnets (MAAS: `maas_internal_domain`).
    #[must_use]
    pub fn internal_domain(&self) -> DnsName {
        let set = self.settings.get("maas_internal_domain").and_then(|text| serde_json::from_str(text).ok());
        set.unwrap_or_else(|| "maas-internal".parse().unwrap_or_default())
    }

    /// A resource's full name; `None` when its domain is gone or the whole is no name.
    #[must_use]
    pub fn fqdn(&self, resource: &DnsResource) -> Option<DnsName> {
        let domain = &self.domains.get(&resource.domain)?.name;
        if resource.name == "@" { Some(domain.clone()) } else { domain.below(&resource.name).ok() }
    }
}

/// A change of the catalogue. `Put` adds or replaces whole; ids in it are allotted before (see the actor's `next_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogueItem {
    Fabric(Fabric),
    Vlan(Vlan),
    Subnet(Subnet),
    Range(Range),
    ReservedIp(ReservedIp),
    User(User),
    ApiKey(ApiKey),
    Script(Script),
    Image(CatalogueImage),
    BootFile(BootFile),
    Rack(RackEntry),
    EnrolmentToken(EnrolmentToken),
    Setting { name: String, value: String },
    Domain(Domain),
    DefaultDomain(i64),
    DnsResource(DnsResource),
    DnsRecord(DnsRecord),
}

/// What to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogueKey {
    Fabric(FabricId),
    Vlan(VlanId),
    Subnet(SubnetId),
    Range(RangeId),
    ReservedIp(i64),
    User(String),
    ApiKey(String),
    Script(i64),
    Image(i64),
    BootFile(String),
    Rack(RackId),
    EnrolmentToken(String),
    Setting(String),
    Domain(i64),
    DnsResource(i64),
    DnsRecord(i64),
}
