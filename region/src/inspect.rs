//! The region's eye on all actors: its own from the registry, a rack's by a question over the link. Decides nothing and changes nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use actors::{clock, rack::LinkState, shell::Row};
use schema::{
    id::RackId,
    messages::link::{InspectAsk, ToRack},
    time::Timestamp,
};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::{
    app::{App, new_trace},
    links::ToDo,
};

mod audit;
mod findings;
mod rates;
mod sample;
pub mod shared;
mod taps;

pub use self::{
    audit::Audit,
    rates::Rates,
    sample::{LATELY, One, Sample},
    taps::{Refused, Traced},
};

/// How often messages are counted.
pub(crate) const SAMPLE: Duration = rates::EVERY;
/// The region's name among the nodes; racks have their system ids.
pub const REGION: &str = "region";
/// How long rows of racks are good for.
const FRESH: Duration = Duration::from_secs(1);
/// How long a rack may take for its rows, and for one question.
const ROWS: Duration = Duration::from_millis(750);
const ANSWER: Duration = Duration::from_secs(2);
/// Watchers at once.
pub const WATCHERS: usize = 100;

/// The most that a look may ask for; the commands refuse more by themselves.
pub mod most {
    use actors::{shell::inspect::tap, tail};

    /// Items of one answer.
    pub const ITEMS: u64 = 1_000;
    /// The number of a message.
    pub const SEQ: u64 = u32::MAX as u64;
    /// Messages in a mailbox, to be listed only from there on; and milliseconds that the oldest of them waited.
    pub const QUEUE: u64 = 1_000_000;
    pub const WAIT_MS: u64 = 86_400_000;
    /// Levels of the tree: nodes, kinds, actors.
    pub const DEPTH: u64 = 3;
    /// Messages of a trace, and seconds that it runs.
    pub const TRACED: u64 = tap::MESSAGES as u64;
    pub const SECONDS: u64 = tap::SECONDS as u64;
    /// Actors that a bundle shows whole, and log lines in it.
    pub const ACTORS: u64 = 100;
    pub const LINES: u64 = tail::LINES as u64;
}

/// What looking needs to remember.
#[derive(Default)]
pub struct Inspector {
    asked: Mutex<HashMap<u64, oneshot::Sender<(String, u32)>>>,
    next: AtomicU64,
    nodes: tokio::sync::Mutex<Option<(Instant, Arc<Vec<Node>>)>>,
    sample: tokio::sync::Mutex<Option<Arc<Sample>>>,
    pub topics: shared::Topics,
    watchers: AtomicUsize,
    /// Samples that watchers missed since they read too slowly.
    pub missed: AtomicU64,
    pub rates: Rates,
    pub audit: Audit,
    taps: taps::Taps,
}

/// A rack with the rows of its actors.
pub struct Node {
    pub id: RackId,
    pub hostname: String,
    pub link: LinkState,
    /// Since when its link is so.
    pub since: Timestamp,
    /// When the rows were asked for: they are no older.
    pub at: Timestamp,
    taken: Instant,
    pub rows: Vec<Row>,
    pub left_off: u32,
    /// Why there are no rows, of a rack that is linked.
    pub trouble: Option<String>,
}

impl Node {
    /// How old its rows are at most; `None`: it has none.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let told = self.link == LinkState::Connected && self.trouble.is_none();
        told.then(|| clock::tick().saturating_duration_since(self.taken))
    }
}

/// One who watches; counted as long as this lives.
pub struct Watcher(App);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.inspector.watchers.fetch_sub(1, Relaxed);
    }
}

impl Inspector {
    /// A rack answered.
    pub(crate) fn answered(&self, number: u64, json: String, left_off: u32) {
        if let Some(waits) = self.asked().remove(&number) {
            waits.send((json, left_off)).ok(); // It may have just given up.
        }
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.watchers.load(Relaxed)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<(String, u32)>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// A place among the watchers; `None` when all are taken.
    #[must_use]
    pub fn watcher(&self) -> Option<Watcher> {
        let free = |n: usize| (n < WATCHERS).then_some(n + 1);
        self.inspector.watchers.fetch_update(Relaxed, Relaxed, free).ok().map(|_| Watcher(self.clone()))
    }

    /// Asks a rack what its actors show.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn ask_rack<T: DeserializeOwned>(&self, rack: RackId, ask: InspectAsk) -> Result<(T, u32), String> {
        let patience = if ask == InspectAsk::Actors { ROWS } else { ANSWER };
        let (sender, answer) = oneshot::channel();
        let number = self.inspector.next.fetch_add(1, Relaxed);
        self.inspector.asked().insert(number, sender);
        let said = if self.links.is_connected(rack) {
            self.links.queue(rack, ToDo::Say(Box::new(ToRack::Inspect { number, ask })), new_trace());
            tokio::time::timeout(patience, answer).await.ok().and_then(Result::ok)
        } else {
            self.inspector.asked().remove(&number);
            return Err(format!("rack {rack} is not connected"));
        };
        self.inspector.asked().remove(&number);
        let (json, left_off) =
            said.ok_or_else(|| format!("rack {rack} did not answer within {} ms", patience.as_millis()))?;
        let value =
            serde_json::from_str(&json).map_err(|e| format!("the answer of rack {rack} cannot be read: {e}"))?;
        Ok((value, left_off))
    }

    /// Every enrolled rack with its actors' rows, which are a second old at most.
    pub async fn nodes(&self) -> Arc<Vec<Node>> {
        let mut kept = self.inspector.nodes.lock().await;
        if let Some((at, nodes)) = kept.as_ref()
            && at.elapsed() < FRESH
        {
            return nodes.clone();
        }
        let racks: Vec<_> = self.catalogue_content().racks.values().map(|r| (r.id, r.hostname.clone())).collect();
        let asking = racks.into_iter().map(|(id, hostname)| self.node(id, hostname));
        let nodes = Arc::new(futures_util::future::join_all(asking).await);
        *kept = Some((clock::tick(), nodes.clone()));
        nodes
    }

    async fn node(&self, id: RackId, hostname: String) -> Node {
        let (link, since) =
            self.rack_state(id).map_or((LinkState::Enrolled, Timestamp::default()), |rack| (rack.link, rack.since));
        let (at, taken) = (clock::now(), clock::tick());
        let mut node = Node { id, hostname, link, since, at, taken, rows: Vec::new(), left_off: 0, trouble: None };
        if link == LinkState::Connected {
            match self.ask_rack(id, InspectAsk::Actors).await {
                Ok((rows, left_off)) => (node.rows, node.left_off) = (rows, left_off),
                Err(why) => node.trouble = Some(why),
            }
        }
        node
    }
}
