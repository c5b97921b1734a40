//! A DHCP message of a PXE client as a relay passes it on: what benches and load generators send.

use std::net::Ipv4Addr;

/// OVMF's options, as captured.
const OVMF: &[u8] = b"\x39\x02\x05\xc0\x37\x1b\x01\x02\x03\x04\x05\x06\x0c\x0d\x0f\x11\x12\x16\x17\x1c\x28\x29\x2a\x2b\x32\x33\x36\x3a\x3b\x3c\x42\x43\x61\x5e\x03\x01\x03\x00\x5d\x02\x00\x07\x3c\x20PXEClient:Arch:00007:UNDI:003000";

/// DISCOVER, and the answer to it (RFC 2132 section 9.6).
pub const DISCOVER: u8 = 1;
/// The answer to a DISCOVER.
pub const OFFER: u8 = 2;
/// REQUEST.
pub const REQUEST: u8 = 3;

/// The MAC of a client by its number.
#[must_use]
pub fn mac(client: u32) -> [u8; 6] {
    let [a, b, c, d] = client.to_be_bytes();
    [2, 12, a, b, c, d]
}

/// A message of that kind through the relay `relay`. `taken`: the address asked for and the server that offered it.
#[must_use]
pub fn message(xid: u32, mac: [u8; 6], kind: u8, relay: Ipv4Addr, taken: Option<(Ipv4Addr, Ipv4Addr)>) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    (bytes[0], bytes[1], bytes[2]) = (1, 1, 6);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[24..28].copy_from_slice(&relay.octets());
    bytes[28..34].copy_from_slice(&mac);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    if let Some((ip, server)) = taken {
        bytes.extend([50, 4]);
        bytes.extend(ip.octets());
        bytes.extend([54, 4]);
        bytes.extend(server.octets());
    }
    bytes.extend_from_slice(OVMF);
    bytes.push(255);
    bytes
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub xid: u32,
    /// Option 53.
    pub kind: u8,
    /// The address offered or leased.
    pub ip: Ipv4Addr,
    /// Option 54.
    pub server: Ipv4Addr,
}

/// Reads an answer; `None` when it is none.
#[must_use]
pub fn answer(bytes: &[u8]) -> Option<Answer> {
    let four = |at: usize| bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
    let mut answer =
        Answer { xid: u32::from_be_bytes(four(4)?), kind: 0, ip: four(16)?.into(), server: Ipv4Addr::UNSPECIFIED };
    let mut options = bytes.get(240..)?;
    while let [code, rest @ ..] = options {
        if *code == 0 {
            options = rest;
            continue;
        }
        let Some((len, rest)) = rest.split_first().filter(|_| *code != 255) else { break };
        let value = rest.get(..usize::from(*len))?;
        match (code, value) {
            (53, [kind]) => answer.kind = *kind,
            (54, [a, b, c, d]) => answer.server = Ipv4Addr::new(*a, *b, *c, *d),
            _ => {}
        }
        options = rest.get(usize::from(*len)..)?;
    }
    (bytes.first() == Some(&2) && answer.kind != 0).then_some(answer)
}
