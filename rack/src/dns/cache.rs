//! Answers of others, kept for as long as they may be, within a bound. "There is none" is kept as well (RFC 2308).

use std::{sync::Arc, time::Instant};

use actors::{
    clock,
    dns::{Query, Transport, reply::Reply},
};
use quick_cache::{Weighter, sync::Cache as Bounded};

/// Bytes that a small answer takes, for the cache's first guess at its number of rows.
const SMALL: u64 = 256;

/// What is asked: the name in lower case, type, and what changes an answer beside them.
pub(super) type Key = Box<[u8]>;

/// The answers by what was asked.
pub(super) struct Cache(Bounded<Key, Arc<Kept>, Size>);

struct Kept {
    reply: Reply,
    at: Instant,
}

#[derive(Clone)]
struct Size;

impl Weighter<Key, Arc<Kept>> for Size {
    fn weight(&self, key: &Key, kept: &Arc<Kept>) -> u64 {
        (key.len() + kept.reply.size()) as u64
    }
}

/// The key of a query of class IN, put together in `room`.
pub(super) fn key<'a>(query: &Query<'_>, room: &'a mut [u8; 260]) -> &'a [u8] {
    let name = query.name();
    let bits = u8::from(query.dnssec_ok()) | u8::from(query.unchecked()) << 1;
    let [high, low] = query.rtype.to_be_bytes();
    let len = name.len();
    room[..len].copy_from_slice(name);
    room[len..len + 3].copy_from_slice(&[high, low, bits]);
    &room[..len + 3]
}

impl Cache {
    pub(super) fn new(bytes: u64) -> Self {
        let rows = usize::try_from(bytes / SMALL).unwrap_or(usize::MAX);
        Self(Bounded::with_weighter(rows, bytes, Size))
    }

    /// Writes the answer, if it is here and not too old.
    pub(super) fn give(&self, key: &[u8], query: &Query<'_>, transport: Transport, out: &mut Vec<u8>) -> bool {
        let Some(kept) = self.0.get(key) else { return false };
        let age = clock::tick().saturating_duration_since(kept.at).as_secs();
        let Some(age) = u32::try_from(age).ok().filter(|age| *age < kept.reply.lifetime) else { return false };
        kept.reply.give(query, age, transport, out);
        true
    }

    /// Keeps an answer that may be kept.
    pub(super) fn keep(&self, key: Key, reply: &Reply) {
        if reply.lifetime > 0 {
            self.0.insert(key, Arc::new(Kept { reply: reply.clone(), at: clock::tick() }));
        }
    }

    /// Another server is asked from now on: what the old one said is forgotten.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}
