//! What a question is answered from the zones: records, aliases followed, "no such name", "no such type", delegations.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use schema::net::IpRange;

use super::{
    name, rows,
    wire::{self, A, AAAA, ANY, CNAME, Draft, HEADER, NOERROR, NS, NXDOMAIN, Owner, PTR, Query, SOA, Transport},
    zones::{Apex, Node, Set, Zones},
};

/// Aliases followed in one answer.
const HOPS: usize = 8;
/// RFC 8482 section 4.2: what a query for any type gets.
const HINFO: u16 = 13;
const HINFO_DATA: &[u8] = b"\0\x09\x07RFC8482\0";
const HINFO_TTL: u32 = 3_600;

/// How an answer is to be.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// The server resolves other names as well: it sets RA, and never refers to other servers.
    pub recursive: bool,
    pub transport: Transport,
    /// Any number; where the addresses of a name begin.
    pub draw: u32,
}

/// What the zones say of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The answer is written.
    Answered,
    /// It is in none of our zones, or below a delegation; nothing is written.
    Elsewhere,
    /// These servers are to be asked; nothing is written.
    Forward(Arc<[SocketAddr]>),
    /// An answer is written that ends in an alias of this name, which is in none of our zones.
    Alias(Vec<u8>),
}

/// Where a name stands.
struct Place<'z> {
    apex: &'z Apex,
    node: Option<&'z Node>,
    /// The NS records of a delegation at or above the name, and where it is.
    cut: Option<(&'z Set, usize)>,
}

fn place<'z>(zones: &'z Zones, name: &[u8]) -> Option<Place<'z>> {
    let node = zones.node(name);
    let (mut cut, mut here, mut at) = (None, name, node);
    loop {
        if let Some(apex) = at.and_then(|node| node.apex.as_ref()) {
            return Some(Place { apex, node, cut });
        }
        if let Some(set) = at.and_then(|node| node.set(NS)) {
            cut = Some((set, name.len() - here.len()));
        }
        here = name::parent(here)?;
        at = zones.node(here);
    }
}

/// Answers `query` into `out`, if a zone holds it. The query is of class IN and of no type that is an operation.
pub fn find(query: &Query<'_>, zones: &Zones, style: &Style, out: &mut Vec<u8>) -> Found {
    let Some(first) = place(zones, query.name()) else { return Found::Elsewhere };
    if !first.apex.forward.is_empty() {
        return Found::Forward(first.apex.forward.clone());
    }
    if first.cut.is_some() && style.recursive {
        return Found::Elsewhere;
    }
    let answer = Answer { zones, style, query, draft: Draft::begin(query, out) };
    answer.follow(first)
}

struct Answer<'a, 'q, 'o> {
    zones: &'a Zones,
    style: &'a Style,
    query: &'q Query<'q>,
    draft: Draft<'q, 'o>,
}

impl<'a> Answer<'a, '_, '_> {
    /// From the question's name along its aliases to the end.
    fn follow(mut self, first: Place<'a>) -> Found {
        let (mut place, mut name, mut owner) = (first, self.query.name().to_vec(), HEADER);
        for _ in 0..HOPS {
            if let Some((set, at)) = place.cut {
                return self.refer(set, owner + at);
            }
            let alias =
                place.node.and_then(|node| node.set(CNAME)).filter(|_| ![CNAME, ANY].contains(&self.query.rtype));
            let Some(alias) = alias else { return self.end(&place, &name, owner) };
            let Some(row) = rows::each(&alias.rows).next() else { return self.end(&place, &name, owner) };
            // The alias's data is the next owner, behind type, class, TTL and length.
            let next = self.draft.out.len() + 12;
            self.put(0, owner, &name, CNAME, alias.ttl, row);
            name = row[2..].to_vec();
            owner = next;
            place = match self::place(self.zones, &name) {
                Some(place) if place.apex.forward.is_empty() && !(place.cut.is_some() && self.style.recursive) => place,
                _ => {
                    self.finish(true, NOERROR);
                    return Found::Alias(name);
                }
            };
        }
        self.finish(true, NOERROR);
        Found::Answered
    }

    /// The records of the last name, or that there are none.
    fn end(mut self, place: &Place<'_>, name: &[u8], owner: usize) -> Found {
        let made = if place.node.is_none() { generated(place.apex, name) } else { None };
        let rtype = self.query.rtype;
        match (place.node, &made) {
            (None, None) => self.negative(place.apex, NXDOMAIN),
            (node, made) if rtype == ANY && (made.is_some() || node.is_some_and(Node::says_something)) => {
                self.put(0, owner, name, HINFO, HINFO_TTL, HINFO_DATA);
                self.finish(true, NOERROR);
            }
            (_, Some(made)) if made.rtype == rtype => {
                self.put(0, owner, name, rtype, place.apex.ttl, &made.data);
                self.finish(true, NOERROR);
            }
            (Some(node), _) if rtype == SOA && node.apex.is_some() => {
                self.put(0, owner, name, SOA, place.apex.ttl, &place.apex.soa);
                self.finish(true, NOERROR);
            }
            (Some(node), _) => match node.set(rtype) {
                Some(set) => {
                    self.put_set(owner, name, set);
                    self.finish(true, NOERROR);
                }
                None => self.negative(place.apex, NOERROR),
            },
            (None, Some(_)) => self.negative(place.apex, NOERROR),
        }
        Found::Answered
    }

    /// Addresses turn with every answer, so that the first is another one each time.
    fn put_set(&mut self, owner: usize, name: &[u8], set: &Set) {
        let turn = if matches!(set.rtype, A | AAAA) { self.style.draw as usize % set.count.max(1) } else { 0 };
        let all = rows::each(&set.rows);
        for row in all.clone().skip(turn).chain(all.take(turn)) {
            self.put(0, owner, name, set.rtype, set.ttl, row);
        }
    }

    /// The SOA goes with every "no", so that it may be remembered (RFC 2308 section 3).
    fn negative(mut self, apex: &Apex, rcode: u8) {
        self.authority(&apex.name, SOA, apex.ttl, &apex.soa);
        self.finish(true, rcode);
    }

    /// The servers of a part that was given away, with their addresses where we know them (RFC 1034 section 4.3.2).
    fn refer(mut self, set: &Set, cut: usize) -> Found {
        for row in rows::each(&set.rows) {
            self.put(1, cut, &[], NS, set.ttl, row);
        }
        let zones = self.zones;
        for server in rows::each(&set.rows).map(|row| &row[2..]) {
            let node = zones.node(server);
            for glue in [A, AAAA].iter().filter_map(|rtype| node?.set(*rtype)) {
                for row in rows::each(&glue.rows) {
                    self.draft.put(2, Owner::Name(server), glue.rtype, glue.ttl, row);
                }
            }
        }
        self.finish(false, NOERROR);
        Found::Answered
    }

    /// A record of a name that stands at `owner`, or in full where a pointer does not reach.
    fn put(&mut self, section: usize, owner: usize, name: &[u8], rtype: u16, ttl: u32, row: &[u8]) {
        let owner = match u16::try_from(owner) {
            Ok(at @ ..0x4000) => Owner::At(at),
            _ => Owner::Name(name),
        };
        self.draft.put(section, owner, rtype, ttl, row);
    }

    /// A record of the zone itself; the question often ends in its name.
    fn authority(&mut self, name: &[u8], rtype: u16, ttl: u32, row: &[u8]) {
        let asked = self.query.name();
        let owner = match u16::try_from(HEADER + asked.len() - name.len().min(asked.len())) {
            Ok(at) if is_suffix(asked, name) => Owner::At(at),
            _ => Owner::Name(name),
        };
        self.draft.put(1, owner, rtype, ttl, row);
    }

    fn finish(self, authoritative: bool, rcode: u8) {
        let own = if authoritative { wire::AUTHORITATIVE } else { 0 };
        self.draft.finish(own, self.style.recursive, rcode, self.query.limit(self.style.transport));
    }
}

/// Whether `zone` is one of the names above `name`, or itself: equal bytes at the end are not enough, they may begin inside a label.
fn is_suffix(name: &[u8], zone: &[u8]) -> bool {
    std::iter::successors(Some(name), |n| name::parent(n)).any(|n| n == zone)
}

/// A record that stands nowhere.
struct Made {
    rtype: u16,
    data: Vec<u8>,
}

/// The name of an address in a generated range, or the address of such a name.
fn generated(apex: &Apex, asked: &[u8]) -> Option<Made> {
    let holds = |range: &IpRange, a: Ipv4Addr| range.contains(IpAddr::V4(a));
    if apex.generated.is_empty() {
        return None;
    }
    if let Some(address) = name::reversed(asked) {
        let by = apex.generated.iter().find(|g| holds(&g.range, address))?;
        let target = name::wire(&by.domain.below(&name::dashes(address)).ok()?);
        let len = u16::try_from(target.len()).ok()?.to_be_bytes();
        return Some(Made { rtype: PTR, data: [&len[..], &target].concat() });
    }
    let address = name::dashed(name::labels(asked).next()?)?;
    let direct = name::parent(asked) == Some(&apex.name);
    let by = apex.generated.iter().any(|g| holds(&g.range, address) && name::wire(&g.domain) == apex.name);
    (direct && by).then(|| Made { rtype: A, data: [&[0, 4][..], &address.octets()].concat() })
}
