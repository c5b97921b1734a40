//! Messages a second by kind and by sender: differences between samples of counters, one a second, five minutes of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actors::{clock, shell::Registry};

/// How often it is sampled.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
const SAMPLES: usize = 300;

/// Counters by (sender's kind, kind).
type Counts = BTreeMap<(&'static str, &'static str), u64>;

/// The samples.
#[derive(Default)]
pub struct Rates(Mutex<VecDeque<(Instant, Counts)>>);

impl Rates {
    pub(crate) fn sample(&self, registry: &Registry) {
        let counts = counts(registry);
        let mut samples = self.samples();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((clock::tick(), counts));
    }

    /// Messages a second over about that window, by sender's kind and kind; those that are still are left out.
    #[must_use]
    pub fn flow(&self, registry: &Registry, window: Duration) -> BTreeMap<(&'static str, &'static str), f64> {
        let (now, counts) = (clock::tick(), counts(registry));
        let samples = self.samples();
        let base = samples.iter().rev().find(|(at, _)| now.duration_since(*at) >= window).or_else(|| samples.front());
        let Some((at, before)) = base else { return BTreeMap::new() };
        let seconds = now.duration_since(*at).as_secs_f64().max(0.001);
        let rate = |(pair, count): (_, u64)| {
            let more = count.saturating_sub(before.get(&pair).copied().unwrap_or(0));
            (more > 0).then_some((pair, more as f64 / seconds))
        };
        counts.into_iter().filter_map(rate).collect()
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<(Instant, Counts)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counts(registry: &Registry) -> Counts {
    let kinds = registry.kinds();
    let of = |kind: &std::sync::Arc<actors::shell::inspect::KindTally>| {
        let name = kind.kind;
        kind.senders().into_iter().map(move |(sender, n)| ((sender, name), n))
    };
    kinds.iter().flat_map(of).collect()
}
