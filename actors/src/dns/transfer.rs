//! Zone transfer (RFC 5936): a zone as messages, its SOA first and last. Who may have it is the caller's to decide.

use super::{
    name, rows,
    wire::{AUTHORITATIVE, AXFR, Draft, IXFR, NOERROR, NS, Owner, Query, SOA},
    zones::{Node, Zones},
};

/// Bytes of one message, about.
const MESSAGE: usize = 16 * 1024;

/// The zone that the query (of type AXFR or IXFR, over TCP) names, as messages to be sent in order. `None`: there is no such zone.
/// A query for a difference gets the whole zone (RFC 1995 section 4). Names that are made up when they are asked for are not in it.
#[must_use]
pub fn transfer(query: &Query<'_>, zones: &Zones) -> Option<Vec<Vec<u8>>> {
    debug_assert!([AXFR, IXFR].contains(&query.rtype));
    let apex = zones.node(query.name())?.apex.clone().filter(|apex| apex.forward.is_empty())?;
    let mut names: Vec<_> = zones.nodes().filter(|(name, _)| belongs(zones, name, &apex.name)).collect();
    names.sort_unstable_by_key(|(name, _)| (name.len(), *name));
    let mut messages = Vec::new();
    let mut out = Vec::new();
    let mut draft = Draft::begin(query, &mut out);
    draft.put(0, Owner::Name(&apex.name), SOA, apex.ttl, &apex.soa);
    let all = names.iter().flat_map(|(name, node)| records(name, node));
    let last = std::iter::once((apex.name.as_slice(), SOA, apex.ttl, apex.soa.as_slice()));
    for (name, rtype, ttl, row) in all.chain(last) {
        if draft.out.len() > MESSAGE || draft.counts[0] == u16::MAX {
            draft.finish(AUTHORITATIVE, false, NOERROR, usize::MAX);
            messages.push(std::mem::take(&mut out));
            draft = Draft::begin(query, &mut out);
        }
        draft.put(0, Owner::Name(name), rtype, ttl, row);
    }
    draft.finish(AUTHORITATIVE, false, NOERROR, usize::MAX);
    messages.push(out);
    Some(messages)
}

/// Whether the name is of that zone and of none below it. A delegation's own servers belong to both; what is below it, to neither.
fn belongs(zones: &Zones, name: &[u8], zone: &[u8]) -> bool {
    let mut here = Some(name);
    while let Some(above) = here {
        if above == zone {
            return true;
        }
        let node = zones.node(above);
        let begins = node.is_some_and(|n| n.apex.is_some());
        let cut = above != name && node.is_some_and(|n| n.set(NS).is_some());
        if begins || cut && !is_glue(zones, name) {
            return false;
        }
        here = name::parent(above);
    }
    false
}

/// Addresses below a delegation may be those of its servers: they go along.
fn is_glue(zones: &Zones, name: &[u8]) -> bool {
    zones.node(name).is_some_and(|n| n.sets.iter().all(|set| matches!(set.rtype, 1 | 28)))
}

fn records<'z>(name: &'z [u8], node: &'z Node) -> impl Iterator<Item = (&'z [u8], u16, u32, &'z [u8])> {
    node.sets.iter().flat_map(move |set| rows::each(&set.rows).map(move |row| (name, set.rtype, set.ttl, row)))
}
