//! What stands around a message on the wire: RMCP, ASF ping, the IPMI 1.5 and RMCP+ session headers (IPMI 2.0 sections 13.1 to 13.8 and 13.28).

use super::crypto::{BLOCK, Keys};

/// No datagram of this protocol is longer: 255 bytes of payload in 1.5, about 300 in all for the commands used here.
pub const LONGEST: usize = 1_024;

const RMCP: [u8; 3] = [0x06, 0x00, 0xff];
const CLASS_ASF: u8 = 6;
const CLASS_IPMI: u8 = 7;
/// ASF's enterprise number (ASF 2.0 section 3.2.2.3).
const ASF_IANA: [u8; 4] = [0, 0, 0x11, 0xbe];
const ASF_PING: u8 = 0x80;
const ASF_PONG: u8 = 0x40;
const FORMAT_NONE: u8 = 0;
const FORMAT_PLUS: u8 = 6;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;
/// RMCP, format, payload type, session, sequence, length.
const PLUS_HEADER: usize = 16;
/// What follows an integrity pad: its length, and the next header, which is always this (section 13.28.4).
const NEXT_HEADER: u8 = 7;

/// Why bytes are no packet of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}; it must be {bound}")]
pub struct Malformed {
    pub field: &'static str,
    pub found: usize,
    pub bound: &'static str,
}

pub(super) fn malformed(field: &'static str, found: usize, bound: &'static str) -> Malformed {
    Malformed { field, found, bound }
}

/// One datagram, taken apart as far as it goes without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// ASF Presence Ping: is there a BMC?
    Ping { tag: u8 },
    /// ASF Presence Pong. `ipmi`: it speaks IPMI.
    Pong { tag: u8, ipmi: bool },
    /// An IPMI 1.5 header without authentication, as before a session: holds an IPMI message.
    Plain(&'a [u8]),
    /// An RMCP+ packet.
    Plus(Plus<'a>),
}

/// An RMCP+ packet, still sealed if it is of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plus<'a> {
    pub kind: Kind,
    pub encrypted: bool,
    pub authenticated: bool,
    /// The receiver's session id; 0 before there is a session.
    pub session: u32,
    pub sequence: u32,
    /// As it stands on the wire.
    pub payload: &'a [u8],
    /// From the format byte to the end of the datagram: what the integrity check covers, and the check itself.
    pub covered: &'a [u8],
}

/// Payload types (table 13-16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Ipmi = 0x00,
    OpenRequest = 0x10,
    OpenResponse = 0x11,
    Rakp1 = 0x12,
    Rakp2 = 0x13,
    Rakp3 = 0x14,
    Rakp4 = 0x15,
}

impl Kind {
    /// All that are used.
    pub const ALL: [Self; 7] =
        [Self::Ipmi, Self::OpenRequest, Self::OpenResponse, Self::Rakp1, Self::Rakp2, Self::Rakp3, Self::Rakp4];
}

impl<'a> Packet<'a> {
    /// Takes a datagram apart. Bytes after what the lengths say are ignored, as BMCs pad.
    ///
    /// # Errors
    /// [`Malformed`] names the field.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, body) =
            bytes.split_at_checked(4).ok_or(malformed("the datagram's length", bytes.len(), "4 or more"))?;
        if head[..1] != RMCP[..1] {
            return Err(malformed("the RMCP version", head[0].into(), "6"));
        }
        match head[3] & 0x1f {
            CLASS_ASF => asf(body),
            CLASS_IPMI => match body.first() {
                Some(&FORMAT_NONE) => plain(body).map(Packet::Plain),
                Some(&FORMAT_PLUS) => plus(body).map(Packet::Plus),
                Some(other) => Err(malformed("the session's format", (*other).into(), "0 (none) or 6 (RMCP+)")),
                None => Err(malformed("the session header's length", 0, "10 or more")),
            },
            other => Err(malformed("the RMCP class", other.into(), "6 (ASF) or 7 (IPMI)")),
        }
    }
}

fn asf(body: &[u8]) -> Result<Packet<'_>, Malformed> {
    let [i0, i1, i2, i3, kind, tag, _, length, rest @ ..] = body else {
        return Err(malformed("the ASF message's length", body.len(), "8 or more"));
    };
    if [*i0, *i1, *i2, *i3] != ASF_IANA {
        return Err(malformed("the ASF enterprise number", u32::from_be_bytes([*i0, *i1, *i2, *i3]) as usize, "4542"));
    }
    match (*kind, rest.get(..usize::from(*length))) {
        (ASF_PING, Some(_)) => Ok(Packet::Ping { tag: *tag }),
        (ASF_PONG, Some([_, _, _, _, _, _, _, _, entities, ..])) => {
            Ok(Packet::Pong { tag: *tag, ipmi: entities & 0x80 != 0 })
        }
        (ASF_PONG, _) => Err(malformed("the pong's length", rest.len(), "16")),
        (other, _) => Err(malformed("the ASF message type", other.into(), "0x80 (ping) or 0x40 (pong)")),
    }
}

fn plain(body: &[u8]) -> Result<&[u8], Malformed> {
    let (head, rest) =
        body.split_at_checked(10).ok_or(malformed("the session header's length", body.len(), "10 or more"))?;
    rest.get(..usize::from(head[9])).ok_or(malformed("the message's length", head[9].into(), "what the datagram holds"))
}

fn plus(body: &[u8]) -> Result<Plus<'_>, Malformed> {
    let [_, kind, s0, s1, s2, s3, q0, q1, q2, q3, l0, l1, rest @ ..] = body else {
        return Err(malformed("the RMCP+ header's length", body.len(), "12 or more"));
    };
    let length = usize::from(u16::from_le_bytes([*l0, *l1]));
    let payload = rest.get(..length).ok_or(malformed("the payload's length", length, "what the datagram holds"))?;
    let number = kind & 0x3f;
    let known = Kind::ALL.into_iter().find(|k| *k as u8 == number);
    Ok(Plus {
        kind: known.ok_or(malformed("the payload type", number.into(), "0x00 or 0x10 to 0x15"))?,
        encrypted: kind & ENCRYPTED != 0,
        authenticated: kind & AUTHENTICATED != 0,
        session: u32::from_le_bytes([*s0, *s1, *s2, *s3]),
        sequence: u32::from_le_bytes([*q0, *q1, *q2, *q3]),
        payload,
        covered: body,
    })
}

/// An ASF Presence Ping. A `tag` of 255 asks for no answer.
#[must_use]
pub fn ping(tag: u8) -> Vec<u8> {
    asf_message(ASF_PING, tag, &[])
}

/// The answer of a BMC that speaks IPMI.
#[must_use]
pub fn pong(tag: u8) -> Vec<u8> {
    let mut body = [0; 16];
    body[..4].copy_from_slice(&ASF_IANA);
    body[8] = 0x81; // IPMI, ASF 1.0.
    asf_message(ASF_PONG, tag, &body)
}

fn asf_message(kind: u8, tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![RMCP[0], RMCP[1], RMCP[2], CLASS_ASF];
    bytes.extend(ASF_IANA);
    bytes.extend([kind, tag, 0, body.len() as u8]);
    bytes.extend(body);
    bytes
}

/// An IPMI message before any session. `message` has at most 255 bytes.
#[must_use]
pub fn write_plain(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![RMCP[0], RMCP[1], RMCP[2], CLASS_IPMI, FORMAT_NONE, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.push(u8::try_from(message.len()).unwrap_or(u8::MAX));
    bytes.extend(message.iter().take(usize::from(u8::MAX)));
    bytes
}

/// A message of session set-up: neither encrypted nor authenticated, session and sequence zero.
#[must_use]
pub fn write_setup(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind as u8, 0, 0, payload.len());
    bytes.extend(payload);
    bytes
}

/// A message of a session: encrypted with `iv`, padded, signed (sections 13.28.4 and 13.29).
#[must_use]
pub fn write_sealed(keys: &Keys, session: u32, sequence: u32, message: &[u8], iv: [u8; BLOCK]) -> Vec<u8> {
    let payload = keys.encrypt(message, iv);
    let mut bytes = header(Kind::Ipmi as u8 | ENCRYPTED | AUTHENTICATED, session, sequence, payload.len());
    bytes.extend(payload);
    // The check covers a multiple of four bytes, from the format byte to the next header.
    let pad = (4 - (bytes.len() - 4 + 2) % 4) % 4;
    bytes.extend(std::iter::repeat_n(0xff, pad));
    bytes.extend([pad as u8, NEXT_HEADER]);
    let tag = keys.tag(&bytes[4..]);
    bytes.extend(tag);
    bytes
}

/// Checks and decrypts a packet of a session.
///
/// # Errors
/// [`Malformed`]; a wrong signature is one, so that a forger learns nothing.
pub fn open_sealed(keys: &Keys, packet: &Plus<'_>) -> Result<Vec<u8>, Malformed> {
    if !packet.authenticated || !packet.encrypted {
        return Err(malformed(
            "the payload type's flags",
            usize::from(packet.authenticated),
            "authenticated and encrypted",
        ));
    }
    // Found from the end, as every console does: BMCs differ in how they pad.
    let signed = packet.covered.len().saturating_sub(keys.tag_len());
    let least = PLUS_HEADER - 4 + packet.payload.len() + 2;
    if signed < least || !keys.verifies(&packet.covered[..signed], &packet.covered[signed..]) {
        return Err(malformed("the signature", packet.covered.len() - signed, "made with the session's key"));
    }
    keys.decrypt(packet.payload)
}

fn header(kind: u8, session: u32, sequence: u32, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend([RMCP[0], RMCP[1], RMCP[2], CLASS_IPMI, FORMAT_PLUS, kind]);
    bytes.extend(session.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend((length as u16).to_le_bytes());
    bytes
}

/// Which sequence numbers of a session were seen: none counts twice (section 6.12.13).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    highest: u32,
    /// Bit n: `highest - n` was seen.
    seen: u32,
}

impl Window {
    /// Takes a number. `false`: it came before, or is too old to tell.
    #[must_use]
    pub fn admit(&mut self, number: u32) -> bool {
        let ahead = number.wrapping_sub(self.highest);
        if number == 0 {
            return false;
        }
        if ahead != 0 && ahead < 1 << 31 {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let bit = 1_u32.checked_shl(self.highest.wrapping_sub(number)).unwrap_or(0);
        let new = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}
