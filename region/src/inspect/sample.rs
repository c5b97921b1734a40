//! All actors of the site at one moment, taken once for whoever looks at about that time: their numbers, what deserves a look among them, and
//! their order. Nothing of it is reckoned unless somebody asks.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use actors::{
    clock,
    findings::Finding,
    shell::{Gauge, Probe},
};
use schema::time::Timestamp;

use super::{Node, REGION};
use crate::app::App;

/// How old a sample may be for who asks for the whole now and again. Watchers take one as old as their own interval.
pub const LATELY: Duration = Duration::from_millis(250);

/// One moment.
pub struct Sample {
    /// When the region's own numbers were taken; each node has a time of its own.
    pub at: Timestamp,
    taken: Instant,
    pub nodes: Arc<Vec<Node>>,
    own: Vec<(Arc<Probe>, Gauge)>,
    found: OnceLock<Vec<Finding>>,
    /// Places among [`Sample::all`], by name.
    order: OnceLock<Vec<usize>>,
}

/// One actor of it.
#[derive(Clone, Copy)]
pub struct One<'a> {
    pub node: &'a str,
    pub kind: &'a str,
    pub id: &'a str,
    pub gauge: &'a Gauge,
}

impl Sample {
    /// How old the region's own numbers are.
    #[must_use]
    pub fn age(&self) -> Duration {
        clock::tick().saturating_duration_since(self.taken)
    }

    /// The region's own actors.
    #[must_use]
    pub fn own(&self) -> &[(Arc<Probe>, Gauge)] {
        &self.own
    }

    /// Every actor; in no order.
    pub fn all(&self) -> impl Iterator<Item = One<'_>> {
        let own = self.own.iter().map(|(p, gauge)| One { node: REGION, kind: p.kind(), id: p.id(), gauge });
        let rows = self.nodes.iter().flat_map(|node| node.rows.iter().map(move |row| (node, row)));
        let rows =
            rows.map(|(node, row)| One { node: node.id.as_str(), kind: &row.kind, id: &row.id, gauge: &row.gauge });
        own.chain(rows)
    }

    /// Every actor, by node, kind and id.
    #[must_use]
    pub fn ordered(&self) -> Vec<One<'_>> {
        let all: Vec<_> = self.all().collect();
        let name = |place: &usize| all.get(*place).map(|one| (one.node, one.kind, one.id));
        let order = self.order.get_or_init(|| {
            let mut order: Vec<_> = (0..all.len()).collect();
            order.sort_unstable_by(|a, b| name(a).cmp(&name(b)));
            order
        });
        order.iter().filter_map(|place| all.get(*place).copied()).collect()
    }
}

impl App {
    /// The site as it is: a sample that is younger than `older`, or one that is taken now, once for all who wait for it.
    pub async fn sample(&self, older: Duration) -> Arc<Sample> {
        let asked = clock::tick();
        let mut kept = self.inspector.sample.lock().await;
        if let Some(sample) = kept.as_ref().filter(|sample| sample.taken >= asked || sample.age() < older) {
            return sample.clone();
        }
        let nodes = self.nodes().await;
        let (at, taken) = (clock::now(), clock::tick());
        let numbers = |probe: Arc<Probe>| {
            let gauge = probe.gauge();
            (probe, gauge)
        };
        let own = self.registry.list(None).into_iter().map(numbers).collect();
        let sample = Arc::new(Sample { at, taken, nodes, own, found: OnceLock::new(), order: OnceLock::new() });
        *kept = Some(sample.clone());
        sample
    }

    /// What deserves a look in that sample, the worst first.
    #[must_use]
    pub fn found<'a>(&self, sample: &'a Sample) -> &'a [Finding] {
        sample.found.get_or_init(|| self.look_through(sample))
    }
}
