//! The plan: everything a rack must know to serve alone. The same types on the link, in the rack's store and in a `--plan` file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    boot::{BodyRef, BootFile, Image},
    dns::{RecordSet, Zone},
    id::{AttemptId, Generation, RackId, SubnetId, SystemId, VlanId},
    net::{Cidr, IpRange, MacAddr},
    script::ScriptRef,
    secret::Secret,
    time::Timestamp,
};

/// A rack's whole plan. On the link it travels as [`crate::messages::link::PlanUpdate`]s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// 0: no region gave it (a plan file).
    pub generation: Generation,
    pub settings: PlanSettings,
    pub subnets: Vec<PlanSubnet>,
    pub reservations: Vec<Reservation>,
    pub tickets: Vec<Ticket>,
    /// Boot loaders by the name firmware asks for.
    pub boot_files: Vec<BootFile>,
    /// What the rack answers by itself. Every rack has all of them.
    pub zones: Vec<Zone>,
    pub records: Vec<RecordSet>,
}

/// What holds for the whole rack.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanSettings {
    /// The domain machines are named in.
    pub domain: String,
    /// Lease time of PXE firmware in seconds. MAAS: 30.
    pub pxe_lease_s: u32,
    /// Lease time of everything else in seconds. MAAS: 600.
    pub lease_s: u32,
    /// Limit of TFTP transfers under way.
    pub tftp_transfers: u32,
    // What follows is for services that this version does not have yet: DNS, NTP, syslog.
    /// MAAS's `maas_internal_domain`: where each managed subnet has a name that leads to its racks.
    pub internal_domain: String,
    /// Where names that are none of ours are asked for (MAAS: `upstream_dns`). Empty: the rack's own resolv.conf.
    pub upstream_dns: Vec<IpAddr>,
    /// Who may ask for them besides the subnets with `allow_dns` (MAAS: `dns_trusted_acl`).
    pub dns_trusted: Vec<Cidr>,
    /// Where racks take their time from (MAAS: `ntp_servers`); names or addresses. Empty: the clock of the rack's host.
    pub ntp_servers: Vec<String>,
    /// Machines are told of `ntp_servers` instead of their rack.
    pub ntp_external_only: bool,
    /// Every line of the machines is sent there as well (MAAS: `remote_syslog`).
    pub remote_syslog: Option<SocketAddr>,
    pub proxy: ProxySettings,
}

/// How machines get their packages (MAAS: `enable_http_proxy`, `http_proxy`, `use_peer_proxy`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxySettings {
    pub enabled: bool,
    /// An external proxy's URL. Machines are told of it, or, with `peer`, the rack's own proxy asks it.
    pub url: Option<String>,
    /// The rack's proxy stands between the machines and `url`.
    pub peer: bool,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self {
            domain: "maas".into(),
            pxe_lease_s: 30,
            lease_s: 600,
            tftp_transfers: 1_000,
            internal_domain: "maas-internal".into(),
            upstream_dns: Vec::new(),
            dns_trusted: Vec::new(),
            ntp_servers: Vec::new(),
            ntp_external_only: false,
            remote_syslog: None,
            proxy: ProxySettings { enabled: true, ..ProxySettings::default() },
        }
    }
}

/// What a rack does for a MAC that its plan does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strangers {
    /// No offer at all.
    #[default]
    Ignore,
    /// An address, and a boot from disk.
    Local,
    /// An address, and the enlistment system.
    Enlist,
}

/// One subnet that the rack serves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PlanSubnet {
    pub id: SubnetId,
    #[serde(default)]
    pub vlan: VlanId,
    pub cidr: Cidr,
    /// This rack's own address there: next-server, the host of every URL. `None`: the interface's address in `cidr`.
    #[serde(default)]
    pub rack_address: Option<Ipv4Addr>,
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    #[serde(default)]
    pub ntp_servers: Vec<IpAddr>,
    #[serde(default)]
    pub domain: Option<String>,
    #[serde(default)]
    pub search: Vec<String>,
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Addresses for leases.
    #[serde(default)]
    pub dynamic: Vec<IpRange>,
    /// Addresses inside the dynamic ranges that must not be leased.
    #[serde(default)]
    pub excluded: Vec<IpRange>,
    #[serde(default)]
    pub dhcp: bool,
    #[serde(default)]
    pub strangers: Strangers,
    /// Serve although another DHCP server was heard on the wire.
    #[serde(default)]
    pub beside_foreign_dhcp: bool,
    /// Whether TFTP may use windows of more than one block (RFC 7440).
    #[serde(default = "yes")]
    pub tftp_window: bool,
    /// Its machines may have any name resolved, not only ours.
    #[serde(default = "yes")]
    pub allow_dns: bool,
    /// Its machines may use the package proxy.
    #[serde(default = "yes")]
    pub allow_proxy: bool,
    /// The racks with an address here that are healthy, this one included. Empty until the region knows their health.
    #[serde(default)]
    pub racks: Vec<SubnetRack>,
    /// The other rack that serves its DHCP; `None`: this one serves it alone.
    #[serde(default)]
    pub failover: Option<Failover>,
}

/// How two racks share a subnet's DHCP.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Failover {
    pub peer: RackId,
    /// Every address the other rack was seen with on the link: it is no foreign server.
    #[serde(default)]
    pub peer_addresses: Vec<Ipv4Addr>,
    /// Whether this rack is the second: it answers new clients when the first does not.
    #[serde(default)]
    pub secondary: bool,
    /// What the other rack gives to new clients. (`dynamic` is this rack's own share.)
    pub others: Vec<IpRange>,
}

/// A rack as its neighbours on a subnet know it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct SubnetRack {
    pub rack: RackId,
    pub address: Ipv4Addr,
}

fn default_mtu() -> u16 {
    1_500
}

fn yes() -> bool {
    true
}

/// One address kept for one MAC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Reservation {
    pub subnet: SubnetId,
    pub mac: MacAddr,
    pub ip: Ipv4Addr,
    #[serde(default)]
    pub hostname: Option<String>,
}

/// What a machine that boots is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootPurpose {
    /// The ephemeral system with its scripts.
    Commissioning,
    /// The machine's own disk.
    Local,
}

/// The permission to boot one machine for one attempt, held by every rack of its boot VLAN and withdrawn when the attempt ends.
/// A machine that the region knows but that is under no orders has a ticket of purpose `Local`, attempt 0.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Deserialize)]
pub struct Ticket {
    pub machine: SystemId,
    pub attempt: AttemptId,
    pub purpose: BootPurpose,
    /// Every MAC the machine may boot with.
    pub macs: Vec<MacAddr>,
    pub hostname: String,
    pub domain: String,
    /// Debian's word for the architecture: `amd64`.
    pub arch: String,
    /// After this time the ticket is void.
    pub expires: Timestamp,
    /// `None` for purpose `Local`.
    #[serde(default)]
    pub boot: Option<TicketBoot>,
}

/// What a machine boots into and what it is handed there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Deserialize)]
pub struct TicketBoot {
    pub image: Image,
    /// The operator's kernel options, appended after the image's own.
    pub kernel_opts: String,
    pub key: NodeKey,
    /// The user-data that cloud-init runs (the runner); placeholders are already filled but for what only a rack knows.
    pub user_data: BodyRef,
    pub scripts: Vec<ScriptRef>,
    /// Public SSH keys, one per line.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Leave the machine on at the end (`enable_ssh`).
    #[serde(default)]
    pub stay_on: bool,
}

/// A node's OAuth 1 PLAINTEXT key, minted per attempt. The consumer secret is empty.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Deserialize)]
pub struct NodeKey {
    pub consumer_key: String,
    pub token_key: String,
    pub token_secret: Secret<String>,
}

/// A lease as the rack keeps it and reports it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Lease {
    pub subnet: SubnetId,
    pub ip: Ipv4Addr,
    pub mac: MacAddr,
    pub hostname: Option<String>,
    pub granted: Timestamp,
    pub expires: Timestamp,
}

impl Lease {
    /// Whether this word on an address is newer than that one: the later grant wins, of one grant the later end.
    #[must_use]
    pub fn supersedes(&self, known: &Self) -> bool {
        (self.granted, self.expires) > (known.granted, known.expires)
    }
}

/// Where one rack serves one thing; what a rack says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Listening {
    /// "dhcp", "tftp", "http", …
    pub service: String,
    pub address: SocketAddr,
}
