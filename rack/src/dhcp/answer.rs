//! A decision about a client to the bytes of its answer, and where they go (RFC 2131 sections 4.1 and 4.3). Pure.
//!
//! dhcproto's encoder is not used: it orders options by code, so that 53 is not first and 82 not last, and it does not pad.

use std::net::{IpAddr, Ipv4Addr};

use actors::leases::Outcome;
use schema::{
    net::MacAddr,
    plan::{PlanSettings, PlanSubnet},
};

use super::{
    boot::BootAnswer,
    packet::{MessageType, Request, option},
};

/// Old BOOTP relays and PXE ROMs drop shorter packets.
const SHORTEST_REPLY: usize = 300;
/// IP and UDP headers, counted by option 57.
const HEADERS: usize = 28;
const BROADCAST_FLAG: u16 = 0x8000;

/// What stands around an outcome: from the plan's snapshot.
#[derive(Debug, Clone)]
pub struct Around<'a> {
    pub subnet: &'a PlanSubnet,
    pub settings: &'a PlanSettings,
    /// This rack's address there: server id, next server.
    pub server: Ipv4Addr,
    /// The name the plan gives the client.
    pub hostname: Option<&'a str>,
    /// What it is told to boot; `None`: from its disk.
    pub boot: Option<BootAnswer>,
}

/// An answer, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub kind: MessageType,
    pub bytes: Vec<u8>,
    pub to: Target,
}

/// Where an answer goes (RFC 2131 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The relay agent's server port, or the port it came from (RFC 8357).
    Relay { giaddr: Ipv4Addr, same_port: bool },
    /// A client that has the address already; port 68.
    Client(Ipv4Addr),
    /// A client without an address, by its hardware address; port 68.
    Hardware { mac: MacAddr, ip: Ipv4Addr },
    /// Everybody on the link; port 68.
    Broadcast,
}

/// The answer to `request`; `None` where the outcome has none.
#[must_use]
pub fn reply(request: &Request, outcome: &Outcome, around: &Around<'_>) -> Option<Reply> {
    let (kind, ip, lease_s) = match outcome {
        Outcome::Offer { ip, lease_s } => (MessageType::Offer, *ip, *lease_s),
        Outcome::Ack { ip, lease_s } => (MessageType::Ack, *ip, *lease_s),
        Outcome::Nak { why } => return Some(nak(request, why, around.server)),
        Outcome::Silent { .. } | Outcome::Full { .. } | Outcome::Probe { .. } => return None,
    };
    let mut writer = Writer::new(request, kind, around.server);
    writer.address(16, ip);
    writer.put(option::LEASE_TIME, &lease_s.to_be_bytes());
    writer.put(option::T1, &(lease_s / 2).to_be_bytes());
    writer.put(option::T2, &(u64::from(lease_s) * 7 / 8).to_be_bytes()[4..]);
    if let Some(boot) = &around.boot {
        writer.boot(boot);
    }
    writer.configuration(request, around);
    Some(Reply { kind, bytes: writer.finish(), to: target(request, ip) })
}

/// The answer to a DHCPINFORM: configuration without an address (RFC 2131 section 4.3.5).
#[must_use]
pub fn inform(request: &Request, around: &Around<'_>) -> Reply {
    let mut writer = Writer::new(request, MessageType::Ack, around.server);
    if let Some(boot) = &around.boot {
        writer.boot(boot);
    }
    writer.configuration(request, around);
    Reply { kind: MessageType::Ack, bytes: writer.finish(), to: target(request, request.ciaddr) }
}

fn nak(request: &Request, why: &str, server: Ipv4Addr) -> Reply {
    let mut writer = Writer::new(request, MessageType::Nak, server);
    writer.put(option::MESSAGE, why.as_bytes());
    let to = if request.giaddr.is_unspecified() {
        Target::Broadcast
    } else {
        // The relay must broadcast it: the client's address is the one that is refused (section 4.3.2).
        writer.flags(request.flags | BROADCAST_FLAG);
        target(request, Ipv4Addr::UNSPECIFIED)
    };
    Reply { kind: MessageType::Nak, bytes: writer.finish(), to }
}

fn target(request: &Request, ip: Ipv4Addr) -> Target {
    if !request.giaddr.is_unspecified() {
        let same_port = request.relay.as_ref().is_some_and(|r| r.source_port);
        Target::Relay { giaddr: request.giaddr, same_port }
    } else if !request.ciaddr.is_unspecified() {
        Target::Client(request.ciaddr)
    } else if request.flags & BROADCAST_FLAG != 0 {
        Target::Broadcast
    } else {
        Target::Hardware { mac: request.mac, ip }
    }
}

/// A packet under way: the fixed header, then options as long as there is room.
struct Writer<'a> {
    bytes: Vec<u8>,
    /// Where options must end, so that the end option and option 82 still fit.
    limit: usize,
    relay: &'a [u8],
}

impl<'a> Writer<'a> {
    fn new(request: &'a Request, kind: MessageType, server: Ipv4Addr) -> Self {
        let relay = request.relay.as_ref().map_or(&[][..], |r| &r.raw);
        let reserved = 1 + if relay.is_empty() { 0 } else { relay.len() + 2 };
        let limit = usize::from(request.max_size) - HEADERS - reserved;
        let mut bytes = Vec::with_capacity(512);
        bytes.resize(240, 0);
        bytes[0] = 2;
        bytes[1] = 1;
        bytes[2] = 6;
        bytes[3] = request.hops;
        bytes[4..8].copy_from_slice(&request.xid.to_be_bytes());
        bytes[10..12].copy_from_slice(&request.flags.to_be_bytes());
        bytes[24..28].copy_from_slice(&request.giaddr.octets());
        bytes[28..34].copy_from_slice(&request.mac.0);
        bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        let mut writer = Self { bytes, limit, relay };
        if kind == MessageType::Ack {
            writer.address(12, request.ciaddr);
        }
        writer.put(option::MESSAGE_TYPE, &[kind as u8]);
        writer.put(option::SERVER_ID, &server.octets());
        writer
    }

    fn address(&mut self, at: usize, ip: Ipv4Addr) {
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&ip.octets());
        }
    }

    fn flags(&mut self, flags: u16) {
        self.bytes[10..12].copy_from_slice(&flags.to_be_bytes());
    }

    /// An option where there is room for it, in parts where it is longer than 255 bytes (RFC 3396). Empty ones are left out.
    fn put(&mut self, code: u8, data: &[u8]) {
        let parts = data.chunks(255);
        if data.is_empty() || self.bytes.len() + data.len() + 2 * parts.len() > self.limit {
            return;
        }
        for part in parts {
            self.bytes.push(code);
            self.bytes.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            self.bytes.extend_from_slice(part);
        }
    }

    fn addresses(&mut self, code: u8, addresses: &[IpAddr]) {
        let v4 = addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(a.octets()) } else { None });
        let data: Vec<u8> = v4.flatten().collect();
        self.put(code, &data);
    }

    /// What the boot loader is: forced, whatever option 55 says, since firmware asks for less than it needs.
    fn boot(&mut self, boot: &BootAnswer) {
        self.address(20, boot.next_server);
        let file = boot.file.as_bytes();
        // 128 bytes with a NUL at the end.
        if let Some(place) = self.bytes.get_mut(108..108 + file.len()).filter(|_| file.len() < 128) {
            place.copy_from_slice(file);
        }
        if let Some(class) = boot.vendor_class {
            self.put(option::VENDOR_CLASS, class.as_bytes());
        }
        self.put(option::TFTP_NAME, boot.next_server.to_string().as_bytes());
        self.put(option::BOOT_FILE, file);
        if let Some(prefix) = &boot.path_prefix {
            self.put(option::PATH_PREFIX, prefix.as_bytes());
        }
    }

    /// The subnet's configuration: what the client asked for, or all where it did not say.
    fn configuration(&mut self, request: &Request, around: &Around<'_>) {
        let wants = |code: u8| request.wanted.is_none_or(|wanted| wanted.has(code));
        let subnet = around.subnet;
        if let Some(mask) = subnet.cidr.netmask() {
            self.put(option::SUBNET_MASK, &mask.octets());
        }
        if let Some(gateway) = subnet.gateway {
            self.put(option::ROUTER, &gateway.octets());
        }
        if let Some(broadcast) = subnet.cidr.broadcast().filter(|_| wants(option::BROADCAST)) {
            self.put(option::BROADCAST, &broadcast.octets());
        }
        if wants(option::DNS) {
            self.addresses(option::DNS, &subnet.dns_servers);
        }
        if let Some(name) = around.hostname.filter(|_| wants(option::HOSTNAME)) {
            self.put(option::HOSTNAME, name.as_bytes());
        }
        if wants(option::DOMAIN) {
            self.put(option::DOMAIN, subnet.domain.as_ref().unwrap_or(&around.settings.domain).as_bytes());
        }
        if subnet.mtu != 1_500 && wants(option::MTU) {
            self.put(option::MTU, &subnet.mtu.to_be_bytes());
        }
        if wants(option::NTP) {
            self.addresses(option::NTP, &ntp_servers(around));
        }
        if wants(option::SEARCH) {
            self.put(option::SEARCH, &search_list(&subnet.search));
        }
    }

    /// Option 82 last (RFC 3046 section 2.2), the end, and the padding.
    fn finish(mut self) -> Vec<u8> {
        if !self.relay.is_empty() {
            self.bytes.push(option::RELAY);
            self.bytes.push(u8::try_from(self.relay.len()).unwrap_or(u8::MAX));
            self.bytes.extend_from_slice(self.relay);
        }
        self.bytes.push(255);
        if self.bytes.len() < SHORTEST_REPLY {
            self.bytes.resize(SHORTEST_REPLY, 0);
        }
        self.bytes
    }
}

/// Option 42: the servers that the plan names for the subnet, else its racks, this one first.
fn ntp_servers(around: &Around<'_>) -> Vec<IpAddr> {
    let Around { subnet, settings, server, .. } = around;
    if !subnet.ntp_servers.is_empty() || settings.ntp_external_only {
        return subnet.ntp_servers.clone();
    }
    let others = subnet.racks.iter().map(|rack| rack.address).filter(|address| address != server);
    std::iter::once(*server).chain(others).map(IpAddr::V4).collect()
}

/// RFC 3397: names in DNS form, uncompressed. A name that is none is left out.
fn search_list(names: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for name in names {
        let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
        if name.len() > 253 || labels.iter().any(|l| l.is_empty() || l.len() > 63) {
            continue;
        }
        for label in labels {
            out.push(u8::try_from(label.len()).unwrap_or(63));
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
    }
    out
}
