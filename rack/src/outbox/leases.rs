//! Leases and heard servers on their way to the region: what is new as it comes, all of it on every new link. Nothing is lost by a full queue:
//! of each address the latest word waits.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actors::{
    clock,
    core::TraceId,
    link::client::{LinkClient, LinkId},
};
use schema::{messages::link::FromRack, plan::Lease, time::Timestamp};
use tokio::sync::{Notify, watch};

use super::Ready;

/// Leases in one message.
const BATCH: usize = 512;

/// The leases of this rack, as the region is to know them. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<Ipv4Addr, Lease>,
    /// Not said yet to the links that are up.
    fresh: BTreeMap<Ipv4Addr, Lease>,
    /// Everything of before is in `running` or was said, once `fresh` is empty.
    through: Option<Timestamp>,
}

impl Leases {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease that was granted, renewed or ended.
    pub fn put(&self, lease: Lease) {
        let mut state = self.state();
        if lease.expires > clock::now() {
            state.running.insert(lease.ip, lease.clone());
        } else {
            state.running.remove(&lease.ip);
        }
        state.fresh.insert(lease.ip, lease);
        self.0.came.notify_one();
    }

    /// Every lease of before `through` was put.
    pub fn through(&self, through: Timestamp) {
        self.state().through = Some(through);
        self.0.came.notify_one();
    }

    /// What is new, and up to when that is all.
    fn take(&self) -> (Vec<Lease>, Option<Timestamp>) {
        let mut state = self.state();
        let fresh = std::mem::take(&mut state.fresh);
        (fresh.into_values().collect(), state.through.take())
    }

    /// All that run.
    fn running(&self) -> Vec<Lease> {
        let mut state = self.state();
        let now = clock::now();
        state.running.retain(|_, lease| lease.expires > now);
        state.running.values().cloned().collect()
    }
}

/// Tells the regions of leases, until the task is ended.
pub async fn send_leases(client: LinkClient, leases: Leases, ready: Ready) {
    let mut links = ready.subscribe();
    let mut told = BTreeMap::new();
    loop {
        tokio::select! {
            changed = links.changed() => if changed.is_err() { return },
            () = leases.0.came.notified() => {}
        }
        let up = links.borrow_and_update().clone();
        // A link that came up anew is told all; what is fresh is among it or has ended.
        let (fresh, through) = leases.take();
        for (link, session) in &up {
            let anew = told.get(link) != Some(session);
            let all = if anew { leases.running() } else { Vec::new() };
            say(&client, *link, all.iter().chain(&fresh), through).await;
        }
        told = up;
    }
}

/// A word that cannot be sent is said anew when the link is up again; what claims to be all is not said after a gap.
async fn say<'a>(
    client: &LinkClient,
    link: LinkId,
    leases: impl Iterator<Item = &'a Lease>,
    through: Option<Timestamp>,
) {
    let leases: Vec<_> = leases.cloned().collect();
    let parts = leases.chunks(BATCH).map(|part| FromRack::Leases(part.to_vec()));
    for message in parts.chain(through.map(|through| FromRack::LeasesThrough { through })) {
        if client.send(link, &message, TraceId::default()).await.is_err() {
            return;
        }
    }
}

/// Tells the regions what is known of something: all of it, when that changed and on every new link.
pub async fn send_known<T: Clone>(
    client: LinkClient,
    mut known: watch::Receiver<Vec<T>>,
    message: fn(Vec<T>) -> FromRack,
    ready: Ready,
) {
    let mut links = ready.subscribe();
    let mut told = BTreeMap::new();
    loop {
        let changed = tokio::select! {
            changed = links.changed() => if changed.is_err() { return } else { false },
            changed = known.changed() => if changed.is_err() { return } else { true },
        };
        let up = links.borrow_and_update().clone();
        let known = known.borrow_and_update().clone();
        for (link, session) in &up {
            if changed || told.get(link) != Some(session) {
                client.send(*link, &message(known.clone()), TraceId::default()).await.ok(); // Down: said anew when it is up.
            }
        }
        told = up;
    }
}
