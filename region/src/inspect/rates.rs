//! Messages a second from kind to kind and from node to node: differences between samples of counters, one a second, five minutes of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use actors::{clock, shell::Registry};
use schema::id::RackId;

use crate::links::Links;

/// How often it is sampled.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
const SAMPLES: usize = 300;

/// Counters by (sender's kind, kind).
type Kinds = BTreeMap<(&'static str, &'static str), u64>;
/// Messages over each rack's link: to it, and from it.
type Racks = BTreeMap<RackId, (u64, u64)>;
type Counts = (Kinds, Racks);

/// The samples.
#[derive(Default)]
pub struct Rates(Mutex<VecDeque<(Instant, Counts)>>);

impl Rates {
    pub(crate) fn sample(&self, registry: &Registry, links: &Links) {
        let counts = (kinds(registry), racks(links));
        let mut samples = self.samples();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((clock::tick(), counts));
    }

    /// Messages a second over about that window, by sender's kind and kind; those that are still are left out.
    #[must_use]
    pub fn flow(&self, registry: &Registry, window: Duration) -> BTreeMap<(&'static str, &'static str), f64> {
        let Some((seconds, (before, _))) = self.base(window) else { return BTreeMap::new() };
        let rate = |(pair, count): (_, u64)| {
            let more = count.saturating_sub(before.get(&pair).copied().unwrap_or(0));
            (more > 0).then_some((pair, more as f64 / seconds))
        };
        kinds(registry).into_iter().filter_map(rate).collect()
    }

    /// Messages a second over about that window, of each rack's link: to the rack, and from it.
    #[must_use]
    pub fn links(&self, links: &Links, window: Duration) -> BTreeMap<RackId, (f64, f64)> {
        let Some((seconds, (_, before))) = self.base(window) else { return BTreeMap::new() };
        let rate = |(rack, (sent, received)): (RackId, (u64, u64))| {
            let (sent_then, received_then) = before.get(&rack).copied().unwrap_or_default();
            let per_s = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            (rack, (per_s(sent, sent_then), per_s(received, received_then)))
        };
        racks(links).into_iter().map(rate).collect()
    }

    /// The counters at the beginning of that window, or at the first sample, and how many seconds ago that was.
    fn base(&self, window: Duration) -> Option<(f64, Counts)> {
        let (now, samples) = (clock::tick(), self.samples());
        let base = samples.iter().rev().find(|(at, _)| now.duration_since(*at) >= window).or_else(|| samples.front());
        base.map(|(at, counts)| (now.duration_since(*at).as_secs_f64().max(0.001), counts.clone()))
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<(Instant, Counts)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn racks(links: &Links) -> Racks {
    let server = links.server.load();
    let traffic = server.as_ref().map(|server| server.traffic()).unwrap_or_default();
    traffic.into_iter().map(|(rack, t)| (rack, (t.sent.load(Relaxed), t.received.load(Relaxed)))).collect()
}

fn kinds(registry: &Registry) -> Kinds {
    let kinds = registry.kinds();
    let of = |kind: &std::sync::Arc<actors::shell::inspect::KindTally>| {
        let name = kind.kind;
        kind.senders().into_iter().map(move |(sender, n)| ((sender, name), n))
    };
    kinds.iter().flat_map(of).collect()
}
