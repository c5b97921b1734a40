//! The DHCP clients of one boot: a machine shows several identities, each with the options that its real counterpart sends, in their
//! order (the lab's captures). Answers are read by dhcproto.

use std::net::Ipv4Addr;

use dhcproto::{
    Decodable, Decoder,
    v4::{DhcpOption, Message, MessageType, OptionCode},
};

use crate::hardware::Hardware;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A BIOS's PXE ROM: known by its UUID.
    BiosPxe,
    /// OVMF's PXE: known by its UUID, asks for broadcast.
    UefiPxe,
    /// OVMF's HTTP boot.
    UefiHttp,
    /// iPXE that UEFI loaded: a client id of 01 and the MAC.
    Ipxe,
    /// iPXE in the card's ROM.
    IpxeRom,
    /// klibc's ipconfig in the initramfs: no client id at all.
    Initramfs,
    /// ISC dhclient of the system: a client id of IAID and DUID.
    System,
}

impl Identity {
    pub(super) fn is_ipxe(self) -> bool {
        matches!(self, Self::Ipxe | Self::IpxeRom)
    }
}

/// How far an exchange is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) identity: Identity,
    pub(super) xid: u32,
    pub(super) offered: Offered,
    /// The address and server of the offer that was taken.
    pub(super) taken: Option<(Ipv4Addr, Ipv4Addr)>,
    pub(super) tries: u32,
}

/// What iPXE was offered so far: the address and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Nothing,
    /// After its first DISCOVER.
    Once((Ipv4Addr, Ipv4Addr)),
    /// It has asked again.
    Again((Ipv4Addr, Ipv4Addr)),
}

/// What an ACK gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub ip: Ipv4Addr,
    /// Option 54.
    pub server: Ipv4Addr,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 67, or the header's `file`.
    pub file: Option<String>,
    /// Option 210.
    pub path_prefix: Option<String>,
}

/// A server's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Offer(Lease),
    Ack(Lease),
    Nak,
}

/// Message types as option 53 numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Discover = 1,
    Request = 3,
    Release = 7,
}

const BROADCAST: u16 = 0x8000;
/// Options that PXE asks for beyond the usual ones (RFC 4578 section 2.4).
const PXE: [u8; 8] = [128, 129, 130, 131, 132, 133, 134, 135];
const UEFI_ASKS: &[u8] =
    &[1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97];
const UEFI_HTTP_ASKS: &[u8] =
    &[1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 235, 67, 97];
const IPXE_ASKS: &[u8] =
    &[1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 128, 129, 130, 131, 132, 133, 134, 135, 175, 203];
/// What iPXE says it can do (option 175): the card, the version, then protocols and image formats.
const IPXE_FEATURES: [u8; 48] = [
    177, 5, 1, 0x1a, 0xf4, 0x10, 0, 235, 3, 1, 0, 0, 23, 1, 1, 34, 1, 1, 19, 1, 1, 17, 1, 1, 39, 1, 1, 25, 1, 1, 41, 1,
    1, 16, 1, 2, 33, 1, 1, 21, 1, 1, 24, 1, 1, 18, 1, 1,
];

/// The same of iPXE that UEFI loaded: it boots EFI's images, and no BIOS's.
const IPXE_EFI_FEATURES: [u8; 36] = [
    177, 5, 1, 0x1a, 0xf4, 0x10, 0, 235, 3, 1, 0, 0, 23, 1, 1, 36, 1, 1, 19, 1, 1, 17, 1, 1, 39, 1, 1, 41, 1, 1, 21, 1,
    1, 18, 1, 1,
];

/// A message of that client. `host_name`: the system's own; `taken`: address and server, in everything after DISCOVER.
#[must_use]
pub fn message(
    hardware: &Hardware,
    host_name: &str,
    identity: Identity,
    kind: Kind,
    xid: u32,
    taken: Option<(Ipv4Addr, Ipv4Addr)>,
) -> Vec<u8> {
    let mut packet = Packet::new(hardware, identity, kind, xid, taken);
    packet.put(53, &[kind as u8]);
    let mac = hardware.mac().0;
    let own_id = [&[1][..], &mac].concat();
    match identity {
        Identity::UefiPxe | Identity::UefiHttp | Identity::BiosPxe => {
            packet.taken(taken, true);
            packet.put(57, &if taken.is_some() && identity == Identity::UefiPxe { [255, 0] } else { [5, 192] });
            let asks = if identity == Identity::UefiHttp { UEFI_HTTP_ASKS } else { UEFI_ASKS };
            let pxe: &[u8] = if identity == Identity::UefiHttp { &[] } else { &PXE };
            packet.put(55, &[asks, pxe].concat());
            packet.put(97, &hardware.uuid_option());
            packet.put(94, if identity == Identity::BiosPxe { &[1, 2, 1] } else { &[1, 3, 0] });
            let (arch, class): (u8, &[u8]) = match identity {
                Identity::BiosPxe => (0, b"PXEClient:Arch:00000:UNDI:002001"),
                Identity::UefiHttp => (16, b"HTTPClient:Arch:00016:UNDI:003000"),
                _ => (7, b"PXEClient:Arch:00007:UNDI:003000"),
            };
            packet.put(93, &[0, arch]);
            packet.put(60, class);
        }
        Identity::Ipxe | Identity::IpxeRom => {
            let rom = identity == Identity::IpxeRom;
            packet.put(57, &[5, 192]);
            packet.put(93, if rom { &[0, 0] } else { &[0, 7] });
            packet.put(94, if rom { &[1, 2, 1] } else { &[1, 3, 10] });
            packet.put(60, if rom { b"PXEClient:Arch:00000:UNDI:002001" } else { b"PXEClient:Arch:00007:UNDI:003010" });
            packet.put(77, b"iPXE");
            packet.put(55, IPXE_ASKS);
            packet.put(175, if rom { &IPXE_FEATURES } else { &IPXE_EFI_FEATURES });
            packet.put(61, &own_id);
            packet.put(97, &hardware.uuid_option());
            packet.taken(taken, true);
        }
        Identity::Initramfs => {
            packet.taken(taken, true);
            packet.put(55, &[1, 3, 6, 12, 15, 17, 26, 28, 40, 119, 121]);
            packet.put(60, b"Linux ipconfig");
        }
        Identity::System => {
            packet.taken(taken, kind != Kind::Release);
            packet.put(12, host_name.as_bytes());
            if kind != Kind::Release {
                packet.put(55, &[1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42]);
            }
            // IAID (the MAC's end), then DUID-LLT: type 1, Ethernet, a time, the MAC.
            let duid = [&[255][..], &mac[2..], &[0, 1, 0, 1, 0x32, 0x95, 0x60, 0x60], &mac].concat();
            packet.put(61, &duid);
        }
    }
    packet.finish()
}

struct Packet(Vec<u8>);

impl Packet {
    fn new(hardware: &Hardware, identity: Identity, kind: Kind, xid: u32, taken: Option<(Ipv4Addr, Ipv4Addr)>) -> Self {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&xid.to_be_bytes());
        let broadcast = matches!(identity, Identity::UefiPxe | Identity::UefiHttp | Identity::Initramfs);
        bytes[10..12].copy_from_slice(&(if broadcast { BROADCAST } else { 0 }).to_be_bytes());
        if let (Kind::Release, Some((ip, _))) = (kind, taken) {
            bytes[12..16].copy_from_slice(&ip.octets());
        }
        bytes[28..34].copy_from_slice(&hardware.mac().0);
        bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        Self(bytes)
    }

    /// Server, and the address asked for (a RELEASE names it in the header).
    fn taken(&mut self, taken: Option<(Ipv4Addr, Ipv4Addr)>, address: bool) {
        if let Some((ip, server)) = taken {
            self.put(54, &server.octets());
            if address {
                self.put(50, &ip.octets());
            }
        }
    }

    fn put(&mut self, code: u8, data: &[u8]) {
        self.0.push(code);
        self.0.push(u8::try_from(data.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(data);
    }

    /// BOOTP's least length is 300 bytes.
    fn finish(mut self) -> Vec<u8> {
        self.0.push(255);
        let len = self.0.len().max(300);
        self.0.resize(len, 0);
        self.0
    }
}

/// Reads a server's answer to the exchange `xid` of that machine; `None`: not for it, or nothing that it can use.
pub(super) fn hear(hardware: &Hardware, xid: u32, bytes: &[u8]) -> Option<Heard> {
    let message = Message::decode(&mut Decoder::new(bytes)).ok()?;
    if message.xid() != xid || message.chaddr() != hardware.mac().0 {
        return None;
    }
    let options = message.opts();
    let text = |code| match options.get(code)? {
        DhcpOption::BootfileName(bytes) => Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()),
        DhcpOption::Unknown(other) => Some(String::from_utf8_lossy(other.data()).trim_end_matches('\0').to_owned()),
        _ => None,
    };
    let server = match options.get(OptionCode::ServerIdentifier)? {
        DhcpOption::ServerIdentifier(ip) => *ip,
        _ => return None,
    };
    let dns = match options.get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => servers.clone(),
        _ => Vec::new(),
    };
    let header = message.fname().map(|f| String::from_utf8_lossy(f).trim_end_matches('\0').to_owned());
    let lease = Lease {
        ip: message.yiaddr(),
        server,
        dns,
        file: text(OptionCode::BootfileName).or(header.filter(|f| !f.is_empty())),
        path_prefix: text(OptionCode::Unknown(210)),
    };
    match options.msg_type()? {
        MessageType::Offer => Some(Heard::Offer(lease)),
        MessageType::Ack => Some(Heard::Ack(lease)),
        MessageType::Nak => Some(Heard::Nak),
        _ => None,
    }
}
