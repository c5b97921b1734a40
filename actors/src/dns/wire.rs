//! Queries read, answers written: headers, questions, EDNS. Nothing of it knows a zone.

use super::name::NAME_MAX;

/// Bytes of a header.
pub const HEADER: usize = 12;
/// The largest answer over UDP: what passes every path unbroken (DNS flag day 2020), and our EDNS offer.
pub const UDP_MAX: u16 = 1_232;
/// The largest answer over UDP to a client that says nothing (RFC 1035 section 4.2.1).
const UDP_PLAIN: u16 = 512;

pub const NOERROR: u8 = 0;
pub const FORMERR: u8 = 1;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const NOTIMP: u8 = 4;
pub const REFUSED: u8 = 5;
/// Its upper bits stand in the OPT record (RFC 6891 section 6.1.3).
const BADVERS: u8 = 16;

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;
pub const OPT: u16 = 41;
pub const IXFR: u16 = 251;
pub const AXFR: u16 = 252;
pub const ANY: u16 = 255;
/// The one class that is served.
pub const IN: u16 = 1;

/// QR: it is an answer.
pub(super) const ANSWER: u16 = 0x8000;
pub(super) const AUTHORITATIVE: u16 = 0x0400;
pub(super) const TRUNCATED: u16 = 0x0200;
const DESIRED: u16 = 0x0100;
const AVAILABLE: u16 = 0x0080;
pub(super) const AUTHENTIC: u16 = 0x0020;
const UNCHECKED: u16 = 0x0010;
const DNSSEC_OK: u32 = 0x8000;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A query, read. Its name is a plain one: labels alone.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    packet: &'a [u8],
    flags: u16,
    lower: [u8; NAME_MAX],
    name_len: usize,
    pub rtype: u16,
    pub class: u16,
    pub edns: Option<Edns>,
}

/// What a client says by its OPT record (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    pub size: u16,
    pub version: u8,
    pub dnssec_ok: bool,
}

/// Bytes that are no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Not even a header, or itself an answer: to answer could go on for ever.
    #[error("it is no query")]
    Ignored,
    #[error("an operation other than QUERY")]
    Operation,
    #[error("its {0} is malformed")]
    Malformed(&'static str),
}

impl Unread {
    /// Writes what a client is told of it: a bare header. False where nothing is said.
    pub fn answer(self, packet: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let rcode = match self {
            Self::Ignored => return false,
            Self::Operation => NOTIMP,
            Self::Malformed(_) => FORMERR,
        };
        let (Some(id), Some(flags)) = (packet.get(..2), u16_at(packet, 2)) else { return false };
        out.extend_from_slice(id);
        // The operation and RD come back as they were.
        let flags = ANSWER | flags & (0x7800 | DESIRED) | u16::from(rcode);
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        true
    }
}

/// The number at that place.
#[must_use]
pub fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The number at that place.
#[must_use]
pub fn u32_at(packet: &[u8], at: usize) -> Option<u32> {
    packet.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Where the name at that place ends; it may end in a pointer, which is not followed.
#[must_use]
pub fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            len if len < 64 => at += 1 + usize::from(len),
            len if len >= 192 => return Some(at + 2).filter(|end| *end <= packet.len()),
            _ => return None,
        }
    }
}

/// One record's fixed part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) rtype: u16,
    pub(super) class: u16,
    pub(super) ttl_at: usize,
    pub(super) data: usize,
    pub(super) end: usize,
}

/// The record at that place.
pub(super) fn record(packet: &[u8], at: usize) -> Option<Record> {
    let fixed = skip_name(packet, at)?;
    let (rtype, class) = (u16_at(packet, fixed)?, u16_at(packet, fixed + 2)?);
    let data = fixed + 10;
    let end = data + usize::from(u16_at(packet, fixed + 8)?);
    (end <= packet.len()).then_some(Record { rtype, class, ttl_at: fixed + 4, data, end })
}

impl<'a> Query<'a> {
    /// Reads a query.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn read(packet: &'a [u8]) -> Result<Self, Unread> {
        let head: &[u8; HEADER] = packet.first_chunk().ok_or(Unread::Ignored)?;
        let flags = u16::from_be_bytes([head[2], head[3]]);
        if flags & ANSWER != 0 {
            return Err(Unread::Ignored);
        }
        if flags & 0x7800 != 0 {
            return Err(Unread::Operation);
        }
        let count = |at: usize| u16_at(packet, at).unwrap_or(0);
        if count(4) != 1 || count(6) != 0 {
            return Err(Unread::Malformed("count of questions"));
        }
        let name = || Unread::Malformed("name");
        let (mut lower, mut at) = ([0; NAME_MAX], HEADER);
        loop {
            let len = usize::from(*packet.get(at).ok_or_else(name)?);
            let end = at + 1 + len;
            if len > 63 || end - HEADER > NAME_MAX {
                return Err(name());
            }
            let label = packet.get(at..end).ok_or_else(name)?;
            lower[at - HEADER..end - HEADER].copy_from_slice(label);
            at = end;
            if len == 0 {
                break;
            }
        }
        let name_len = at - HEADER;
        // A length is below 64, so it is no letter.
        lower[..name_len].make_ascii_lowercase();
        let (Some(rtype), Some(class)) = (u16_at(packet, at), u16_at(packet, at + 2)) else {
            return Err(Unread::Malformed("question"));
        };
        let edns = edns(packet, at + 4, count(8), count(10))?;
        Ok(Self { packet, flags, lower, name_len, rtype, class, edns })
    }

    /// The name's bytes in lower case.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.lower[..self.name_len]
    }

    /// The question's bytes as the client wrote them: name, type, class.
    #[must_use]
    pub fn question(&self) -> &'a [u8] {
        self.packet.get(HEADER..HEADER + self.name_len + 4).unwrap_or_default()
    }

    /// The client's number for it.
    #[must_use]
    pub fn id(&self) -> u16 {
        u16_at(self.packet, 0).unwrap_or(0)
    }

    /// Whether the client wants signatures.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|e| e.dnssec_ok)
    }

    /// RD: it wants other servers to be asked.
    #[must_use]
    pub fn recursion_desired(&self) -> bool {
        self.flags & DESIRED != 0
    }

    /// CD: it will check signatures itself (RFC 4035 section 3.2.2).
    #[must_use]
    pub fn unchecked(&self) -> bool {
        self.flags & UNCHECKED != 0
    }

    /// Whether it understands AD (RFC 6840 section 5.7).
    #[must_use]
    pub fn wants_authentic(&self) -> bool {
        self.flags & AUTHENTIC != 0 || self.dnssec_ok()
    }

    /// The code of what no server here answers: another class than IN, another EDNS version, a type that is none.
    #[must_use]
    pub fn refusal(&self) -> Option<u8> {
        match (self.edns, self.class, self.rtype) {
            (Some(Edns { version: 1.., .. }), ..) => Some(BADVERS),
            (_, IN, OPT) => Some(FORMERR),
            (_, IN, AXFR | IXFR) => Some(REFUSED),
            (_, IN, _) => None,
            _ => Some(REFUSED),
        }
    }

    /// Bytes that an answer may have.
    #[must_use]
    pub fn limit(&self, transport: Transport) -> usize {
        usize::from(match transport {
            Transport::Tcp => u16::MAX,
            Transport::Udp => self.edns.map_or(UDP_PLAIN, |e| e.size.clamp(UDP_PLAIN, UDP_MAX)),
        })
    }

    /// The flags of an answer: the client's RD and CD, and ours.
    pub(super) fn flags(&self, own: u16, recursive: bool, rcode: u8) -> [u8; 2] {
        let available = if recursive { AVAILABLE } else { 0 };
        (ANSWER | self.flags & (DESIRED | UNCHECKED) | own | available | u16::from(rcode & 15)).to_be_bytes()
    }

    /// Our OPT record, if the client has one.
    pub(super) fn put_opt(&self, rcode: u8, out: &mut Vec<u8>) -> u16 {
        let Some(edns) = self.edns else { return 0 };
        let ttl = u32::from(rcode >> 4) << 24 | if edns.dnssec_ok { DNSSEC_OK } else { 0 };
        out.push(0);
        out.extend_from_slice(&OPT.to_be_bytes());
        out.extend_from_slice(&UDP_MAX.to_be_bytes());
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        1
    }
}

/// The OPT record among what follows the question. Other records there (TSIG) are passed over.
fn edns(packet: &[u8], mut at: usize, authority: u16, additional: u16) -> Result<Option<Edns>, Unread> {
    let mut found = None;
    for number in 0..u32::from(authority) + u32::from(additional) {
        let record = record(packet, at).ok_or(Unread::Malformed("additional record"))?;
        if record.rtype == OPT && number >= u32::from(authority) {
            // RFC 6891 section 6.1.1: one at most, and its name is the root.
            if found.is_some() || packet.get(at) != Some(&0) {
                return Err(Unread::Malformed("OPT record"));
            }
            let ttl = u32_at(packet, record.ttl_at).unwrap_or(0);
            let [_, version, ..] = ttl.to_be_bytes();
            found = Some(Edns { size: record.class, version, dnssec_ok: ttl & DNSSEC_OK != 0 });
        }
        at = record.end;
    }
    if at == packet.len() { Ok(found) } else { Err(Unread::Malformed("end")) }
}

/// Writes an answer without records: a refusal, a failure.
pub fn refuse(query: &Query<'_>, rcode: u8, recursive: bool, out: &mut Vec<u8>) {
    Draft::begin(query, out).finish(0, recursive, rcode, usize::MAX);
}

/// An answer that is being written.
pub(super) struct Draft<'q, 'o> {
    query: &'q Query<'q>,
    pub(super) out: &'o mut Vec<u8>,
    /// Answers, authority, additional.
    pub(super) counts: [u16; 3],
}

impl<'q, 'o> Draft<'q, 'o> {
    pub(super) fn begin(query: &'q Query<'q>, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(&query.id().to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(query.question());
        Self { query, out, counts: [0; 3] }
    }

    /// One record; `section` 0 to 2. `data` holds its length and then its bytes.
    pub(super) fn put(&mut self, section: usize, owner: Owner<'_>, rtype: u16, ttl: u32, data: &[u8]) {
        match owner {
            Owner::At(place) => self.out.extend_from_slice(&(0xc000 | place).to_be_bytes()),
            Owner::Name(name) => self.out.extend_from_slice(name),
        }
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(data);
        if let Some(count) = self.counts.get_mut(section) {
            *count = count.saturating_add(1);
        }
    }

    /// Header, OPT, and the cut of what is too long (RFC 2181 section 9).
    pub(super) fn finish(mut self, own: u16, recursive: bool, rcode: u8, limit: usize) {
        let mut opt = self.query.put_opt(rcode, self.out);
        let mut own = own;
        if self.out.len() > limit {
            self.out.truncate(HEADER + self.query.question().len());
            opt = self.query.put_opt(rcode, self.out);
            self.counts = [0; 3];
            own |= TRUNCATED;
        }
        let flags = self.query.flags(own, recursive, rcode);
        let [answers, authority, additional] = self.counts;
        let counts = [answers, authority, additional + opt].map(u16::to_be_bytes);
        if let Some(head) = self.out.first_chunk_mut::<HEADER>() {
            head[2..4].copy_from_slice(&flags);
            head[6..12].copy_from_slice(counts.as_flattened());
        }
    }
}

/// The name of a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner<'a> {
    /// One that stands at that place of the packet already.
    At(u16),
    Name(&'a [u8]),
}
