//! The door: bytes of a DHCPv4 packet to a [`Request`] that holds what we use of it, checked. Decides nothing.
//!
//! dhcproto's borrowed reader walks the packet (header, RFC 3396 concatenation); its typed options are not used,
//! since they lose what matters here (lists in option 93, malformed lengths, the order of option 82).

use std::{net::Ipv4Addr, str::FromStr};

use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use schema::net::{HostName, MacAddr};

use super::boot::Client;

/// Shortest packet that can hold a header, the magic cookie and the end option.
const SHORTEST: usize = 241;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// RFC 2131 section 2: every client takes at least this much.
pub const SMALLEST_MAX: u16 = 576;

/// Option codes by RFC 2132 and the RFCs named.
pub mod option {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const REQUESTED: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const WANTED: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const T1: u8 = 58;
    pub const T2: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const TFTP_NAME: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    /// RFC 3004.
    pub const USER_CLASS: u8 = 77;
    /// RFC 3046.
    pub const RELAY: u8 = 82;
    /// RFC 4578.
    pub const ARCH: u8 = 93;
    /// RFC 4578.
    pub const UUID: u8 = 97;
    /// RFC 3397.
    pub const SEARCH: u8 = 119;
    /// iPXE's own, encapsulated.
    pub const IPXE: u8 = 175;
    /// RFC 5071.
    pub const PATH_PREFIX: u8 = 210;
}

/// DHCP message types (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl MessageType {
    fn of(byte: u8) -> Option<Self> {
        [Self::Discover, Self::Offer, Self::Request, Self::Decline, Self::Ack, Self::Nak, Self::Release, Self::Inform]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The codes of option 55, as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Codes([u64; 4]);

impl Codes {
    /// The set of these codes.
    #[must_use]
    pub fn of(codes: &[u8]) -> Self {
        let mut set = Self::default();
        for code in codes {
            if let Some(word) = set.0.get_mut(usize::from(code >> 6)) {
                *word |= 1 << (code & 63);
            }
        }
        set
    }

    /// Whether it holds that code.
    #[must_use]
    pub fn has(&self, code: u8) -> bool {
        self.0.get(usize::from(code >> 6)).is_some_and(|word| word >> (code & 63) & 1 == 1)
    }
}

/// What a relay agent said (RFC 3046), and the bytes to be given back to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayInfo {
    /// Option 82 as it came; echoed last.
    pub raw: Vec<u8>,
    /// RFC 3527 sub-option 5: the link the client is on.
    pub link: Option<Ipv4Addr>,
    /// RFC 8357 sub-option 19: answer to the port it came from.
    pub source_port: bool,
}

/// A client's packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub kind: MessageType,
    pub xid: u32,
    pub secs: u16,
    pub hops: u8,
    /// The flags word as it came; bit 15 is "broadcast".
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub mac: MacAddr,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Option 12, where it is a host name.
    pub hostname: Option<HostName>,
    /// Option 55; `None` where the client did not say what it wants.
    pub wanted: Option<Codes>,
    /// Option 57, at least 576.
    pub max_size: u16,
    /// What it says of how it boots.
    pub client: Client,
    /// Option 82.
    pub relay: Option<RelayInfo>,
}

/// A server's packet, heard by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub kind: MessageType,
    pub server_id: Option<Ipv4Addr>,
    pub yiaddr: Ipv4Addr,
}

/// A packet by its direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Request(Box<Request>),
    Heard(Heard),
}

/// Why a packet is no DHCPv4 packet for us. Counted; logged once in a while; never more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    #[error("the packet has {0} bytes; a DHCP packet has at least 241 (RFC 2131 section 2)")]
    Short(usize),
    #[error("op is {0}; 1 (request) and 2 (reply) exist")]
    Op(u8),
    #[error("hardware type {htype} with addresses of {hlen} bytes; this server serves Ethernet (type 1, 6 bytes)")]
    Hardware { htype: u8, hlen: u8 },
    #[error("the client's hardware address is zero or a group address")]
    Address,
    #[error("the magic cookie is missing: BOOTP without DHCP is not served")]
    Cookie,
    #[error("option 53 (message type) is missing")]
    NoType,
    #[error("option 53 (message type) is not one of 1 to 8 in one byte")]
    Type,
    #[error("option {code} has {len} bytes; {must} expected")]
    Length { code: u8, len: usize, must: &'static str },
    #[error("a message of a server's type with op 1, or of a client's with op 2")]
    Direction,
}

/// Reads a packet.
///
/// # Errors
/// [`Malformed`] for what a server must not guess about. Malformed options that only ask for comfort (12, 55, 57) are passed over.
pub fn parse(bytes: &[u8]) -> Result<Packet, Malformed> {
    if bytes.len() < SHORTEST {
        return Err(Malformed::Short(bytes.len()));
    }
    let (op, htype, hlen) = (bytes[0], bytes[1], bytes[2]);
    if op != 1 && op != 2 {
        return Err(Malformed::Op(op));
    }
    // Also the guard that keeps dhcproto's `chaddr()` from a panic: it trusts hlen.
    if htype != 1 || hlen != 6 {
        return Err(Malformed::Hardware { htype, hlen });
    }
    if bytes[236..240] != MAGIC {
        return Err(Malformed::Cookie);
    }
    let message = Message::new(bytes).map_err(|_| Malformed::Short(bytes.len()))?;
    let options = Options::read(&message, bytes)?;
    let kind = options.kind.ok_or(Malformed::NoType)?;
    let from_server = matches!(kind, MessageType::Offer | MessageType::Ack | MessageType::Nak);
    if from_server != (op == 2) {
        return Err(Malformed::Direction);
    }
    if from_server {
        return Ok(Packet::Heard(Heard { kind, server_id: options.server_id, yiaddr: message.yiaddr() }));
    }
    let mut mac = [0; 6];
    mac.copy_from_slice(&bytes[28..34]);
    if mac == [0; 6] || mac[0] & 1 == 1 {
        return Err(Malformed::Address);
    }
    Ok(Packet::Request(Box::new(Request {
        kind,
        xid: message.xid(),
        secs: message.secs(),
        hops: message.hops(),
        flags: message.flags().into(),
        ciaddr: message.ciaddr(),
        giaddr: message.giaddr(),
        mac: MacAddr(mac),
        requested: options.requested,
        server_id: options.server_id,
        hostname: options.hostname,
        wanted: options.wanted,
        max_size: options.max_size.unwrap_or(SMALLEST_MAX).max(SMALLEST_MAX),
        client: options.client,
        relay: options.relay,
    })))
}

#[derive(Default)]
struct Options {
    kind: Option<MessageType>,
    requested: Option<Ipv4Addr>,
    server_id: Option<Ipv4Addr>,
    hostname: Option<HostName>,
    wanted: Option<Codes>,
    max_size: Option<u16>,
    client: Client,
    relay: Option<RelayInfo>,
    overload: u8,
}

impl Options {
    fn read(message: &Message<'_>, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut options = Self::default();
        for option in message.opts() {
            options.take(option.code().into(), option.data())?;
        }
        // RFC 2131 section 4.1: file, then sname, may hold options too.
        for (bit, range) in [(1, 108..236), (2, 44..108)] {
            if options.overload & bit != 0 {
                for option in DhcpOptionIterator::new(&bytes[range]) {
                    options.take(option.code().into(), option.data())?;
                }
            }
        }
        Ok(options)
    }

    fn take(&mut self, code: u8, data: &[u8]) -> Result<(), Malformed> {
        match code {
            option::MESSAGE_TYPE => {
                let [byte] = *data else { return Err(Malformed::Type) };
                self.kind = Some(MessageType::of(byte).ok_or(Malformed::Type)?);
            }
            option::REQUESTED => self.requested = Some(address(code, data)?),
            option::SERVER_ID => self.server_id = Some(address(code, data)?),
            option::HOSTNAME => self.hostname = host_name(data),
            option::WANTED => self.wanted = Some(Codes::of(data)),
            option::MAX_SIZE => self.max_size = <[u8; 2]>::try_from(data).ok().map(u16::from_be_bytes),
            option::VENDOR_CLASS => self.client.see_vendor_class(data),
            option::USER_CLASS => self.client.see_user_class(data),
            option::ARCH => self.client.see_archs(data),
            option::UUID => self.client.see_uuid(data),
            option::IPXE => self.client.see_ipxe(data),
            option::RELAY => self.relay = Some(relay_info(data)?),
            option::OVERLOAD => self.overload = data.first().copied().unwrap_or(0),
            _ => {}
        }
        Ok(())
    }
}

fn address(code: u8, data: &[u8]) -> Result<Ipv4Addr, Malformed> {
    <[u8; 4]>::try_from(data).map(Ipv4Addr::from).map_err(|_| Malformed::Length {
        code,
        len: data.len(),
        must: "4 bytes (an address)",
    })
}

/// A name with a trailing NUL (some clients send one) or without; `None` for what is no host name.
fn host_name(data: &[u8]) -> Option<HostName> {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let name = HostName::from_str(std::str::from_utf8(data.get(..end)?).ok()?).ok()?;
    // What a system without a name of its own says; it would only mislead.
    (name.as_str() != "localhost").then_some(name)
}

fn relay_info(data: &[u8]) -> Result<RelayInfo, Malformed> {
    let wrong = Malformed::Length { code: option::RELAY, len: data.len(), must: "sub-options of their own lengths" };
    if data.len() > 255 {
        return Err(wrong);
    }
    let mut info = RelayInfo { raw: data.to_vec(), ..RelayInfo::default() };
    let mut rest = data;
    while let [code, len, tail @ ..] = rest {
        let (value, next) = tail.split_at_checked(usize::from(*len)).ok_or(wrong)?;
        match *code {
            5 => info.link = Some(address(option::RELAY, value)?),
            19 => info.source_port = true,
            _ => {}
        }
        rest = next;
    }
    Ok(info)
}
