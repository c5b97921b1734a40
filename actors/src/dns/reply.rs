//! What another server answered: checked against what it was asked, made ready to be kept and to be given out with its age taken off.

use super::{
    Transport,
    wire::{
        self, AUTHENTIC, CNAME, HEADER, NOERROR, NXDOMAIN, OPT, Query, SOA, TRUNCATED, record, skip_name, u16_at,
        u32_at,
    },
};

/// Seconds that an answer is kept at most.
const TTL_MAX: u32 = 86_400;
/// Seconds that "there is none" is kept at most (RFC 2308 section 5 wants one to three hours).
const NEGATIVE_MAX: u32 = 3_600;

/// A server's answer, without its EDNS record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    packet: Box<[u8]>,
    /// Where its TTLs stand.
    ttls: Box<[u16]>,
    pub rcode: u8,
    /// It was cut: to be asked again over TCP.
    pub truncated: bool,
    /// Seconds that it may be kept; 0: not at all.
    pub lifetime: u32,
}

/// Why a packet is no answer to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    #[error("its number or its question is not the asked one")]
    Other,
    #[error("it is malformed")]
    Malformed,
}

impl Reply {
    /// Reads the answer to the question `asked` (name, type, class, as they were sent) with number `id`. `exact`: the name's letters must
    /// be as they were sent, in case too.
    ///
    /// # Errors
    /// [`NoReply`].
    pub fn read(packet: &[u8], id: u16, asked: &[u8], exact: bool) -> Result<Self, NoReply> {
        let number = |at| u16_at(packet, at).ok_or(NoReply::Other);
        let flags = number(2)?;
        let (name, rest) = asked.split_at_checked(asked.len().saturating_sub(4)).ok_or(NoReply::Other)?;
        let question = packet.get(HEADER..HEADER + asked.len()).ok_or(NoReply::Other)?;
        let same = if exact { question == asked } else { question[..name.len()].eq_ignore_ascii_case(name) };
        let ours = number(0)? == id && flags & wire::ANSWER != 0 && flags & 0x7800 == 0 && number(4)? == 1;
        if !ours || !same || question[name.len()..] != *rest {
            return Err(NoReply::Other);
        }
        let counts = [number(6)?, number(8)?, number(10)?];
        let mut reading =
            Reading { packet, at: HEADER + asked.len(), ttls: Vec::new(), ttl: TTL_MAX, soa: None, opt: None };
        for (section, count) in counts.into_iter().enumerate() {
            reading.section(section, count).ok_or(NoReply::Malformed)?;
        }
        reading.reply(flags, counts, asked)
    }

    /// The answer to another client's query of the same question, `age` seconds later.
    pub fn give(&self, query: &Query<'_>, age: u32, transport: Transport, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.packet);
        let authentic = if query.wants_authentic() { AUTHENTIC } else { 0 };
        let own = u16_at(&self.packet, 2).unwrap_or(0) & authentic;
        let flags = query.flags(own, true, self.rcode);
        let question = query.question();
        if out.len() < HEADER + question.len() {
            return out.clear();
        }
        out[..2].copy_from_slice(&query.id().to_be_bytes());
        out[2..4].copy_from_slice(&flags);
        out[HEADER..HEADER + question.len()].copy_from_slice(question);
        for at in self.ttls.iter().map(|at| usize::from(*at)) {
            if let Some(ttl) = out.get_mut(at..at + 4).and_then(|t| t.first_chunk_mut()) {
                *ttl = u32::from_be_bytes(*ttl).saturating_sub(age).to_be_bytes();
            }
        }
        let more = query.put_opt(self.rcode, out);
        if out.len() > query.limit(transport) {
            wire::refuse(query, self.rcode, true, out);
            out[2] |= u8::try_from(TRUNCATED >> 8).unwrap_or(0);
            out[3] |= u8::try_from(own).unwrap_or(0);
        } else if more > 0 {
            let additional = u16_at(out, 10).unwrap_or(0).saturating_add(more).to_be_bytes();
            out[10..12].copy_from_slice(&additional);
        }
    }

    /// Bytes that it takes in memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.packet.len() + self.ttls.len() * 2
    }

    /// The packet as it is kept: for those who put it together with other records.
    #[must_use]
    pub fn packet(&self) -> &[u8] {
        &self.packet
    }
}

/// The walk through an answer's records.
struct Reading<'a> {
    packet: &'a [u8],
    at: usize,
    ttls: Vec<u16>,
    /// The smallest TTL of the answers.
    ttl: u32,
    /// How long a SOA lets "there is none" be kept.
    soa: Option<u32>,
    /// Where the EDNS record begins and ends, and the upper bits of the code in it.
    opt: Option<(usize, usize, u8)>,
}

impl Reading<'_> {
    fn section(&mut self, section: usize, count: u16) -> Option<()> {
        for _ in 0..count {
            let record = record(self.packet, self.at)?;
            let ttl = u32_at(self.packet, record.ttl_at)?;
            // RFC 2181 section 8: a TTL with the top bit is none.
            let ttl = if ttl > u32::MAX / 2 { 0 } else { ttl };
            if record.rtype == OPT {
                self.opt = Some((self.at, record.end, self.packet.get(record.ttl_at).copied()?));
            } else {
                self.ttls.push(u16::try_from(record.ttl_at).ok()?);
                if section == 0 {
                    self.ttl = self.ttl.min(ttl);
                }
                if section == 1 && record.rtype == SOA {
                    let numbers = skip_name(self.packet, skip_name(self.packet, record.data)?)?;
                    let minimum = u32_at(self.packet, numbers + 16).filter(|_| numbers + 20 == record.end)?;
                    self.soa = Some(ttl.min(minimum));
                }
            }
            self.at = record.end;
        }
        Some(())
    }

    fn reply(self, flags: u16, counts: [u16; 3], asked: &[u8]) -> Result<Reply, NoReply> {
        let mut packet = self.packet.get(..self.at).ok_or(NoReply::Malformed)?.to_vec();
        let mut additional = counts[2];
        let mut rcode = u8::try_from(flags & 15).unwrap_or(0);
        if let Some((begin, end, upper)) = self.opt {
            // Such a code is about EDNS between us and that server; nobody else is to hear it.
            if upper != 0 {
                rcode = wire::SERVFAIL;
            }
            // Cut out where it is the last; otherwise the whole section goes, since pointers may reach over it.
            if end == self.at {
                packet.truncate(begin);
                additional -= 1;
            } else {
                packet.truncate(self.start_of(2, counts, asked).ok_or(NoReply::Malformed)?);
                additional = 0;
            }
        }
        packet[10..12].copy_from_slice(&additional.to_be_bytes());
        let ttls = self.ttls.iter().filter(|at| usize::from(**at) + 4 <= packet.len()).copied().collect();
        let lifetime = match (rcode, self.soa, counts[0]) {
            (NOERROR | NXDOMAIN, Some(soa), _) if rcode == NXDOMAIN || !self.has_asked(counts[0], asked) => {
                soa.min(self.ttl).min(NEGATIVE_MAX)
            }
            // RFC 2308 section 5: without a SOA a "no" is not kept.
            (NOERROR, _, 1..) if self.has_asked(counts[0], asked) => self.ttl,
            _ => 0,
        };
        let truncated = flags & TRUNCATED != 0;
        Ok(Reply { packet: packet.into(), ttls, rcode, truncated, lifetime: if truncated { 0 } else { lifetime } })
    }

    /// Whether a record of the asked type is among the answers: not only aliases that lead nowhere.
    fn has_asked(&self, answers: u16, asked: &[u8]) -> bool {
        let wanted = u16_at(asked, asked.len().saturating_sub(4)).unwrap_or(0);
        let mut at = HEADER + asked.len();
        (0..answers).any(|_| {
            let Some(record) = record(self.packet, at) else { return false };
            at = record.end;
            record.rtype == wanted || wanted == wire::ANY && record.rtype != CNAME
        })
    }

    fn start_of(&self, section: usize, counts: [u16; 3], asked: &[u8]) -> Option<usize> {
        let before: u32 = counts.iter().take(section).map(|c| u32::from(*c)).sum();
        (0..before).try_fold(HEADER + asked.len(), |at, _| record(self.packet, at).map(|r| r.end))
    }
}
