//! What the DHCP service exchanges with the region besides facts: the other racks' leases on their way in, other servers and
//! stray clients that it heard on their way out. Queues only; who may have which address is the leases' core's.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use actors::clock;
use schema::{
    id::RackId,
    messages::link::{ForeignDhcp, Stray},
    plan::Lease,
    time::Timestamp,
};
use tokio::sync::{Notify, watch};

use super::shares::Through;

/// The queues. Cloned freely; they outlive a service that is started again.
#[derive(Debug, Clone)]
pub struct Neighbours(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    words: Mutex<VecDeque<Word>>,
    came: Notify,
    foreign: watch::Sender<Vec<ForeignDhcp>>,
    strays: watch::Sender<Vec<Stray>>,
}

/// What the region said of other racks' leases. In order: a `Through` speaks of the leases before it.
#[derive(Debug, Clone)]
pub(super) enum Word {
    Leases(Vec<Lease>),
    Through(Through),
}

impl Default for Neighbours {
    fn default() -> Self {
        let (foreign, strays) = (watch::Sender::default(), watch::Sender::default());
        Self(Arc::new(Inner { words: Mutex::default(), came: Notify::new(), foreign, strays }))
    }
}

impl Neighbours {
    /// Leases of other racks, from the region.
    pub fn leases(&self, leases: Vec<Lease>) {
        self.put(Word::Leases(leases));
    }

    /// All that rack granted before `through` was said.
    pub fn through(&self, rack: RackId, through: Timestamp) {
        self.put(Word::Through(Through { rack, through, at: clock::now() }));
    }

    fn put(&self, word: Word) {
        self.0.words.lock().unwrap_or_else(PoisonError::into_inner).push_back(word);
        self.0.came.notify_one();
    }

    /// The next word, when there is one.
    pub(super) async fn next(&self) -> Word {
        loop {
            let word = self.0.words.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match word {
                Some(word) => return word,
                None => self.0.came.notified().await,
            }
        }
    }

    /// The other servers that are known now.
    pub(super) fn heard(&self, foreign: Vec<ForeignDhcp>) {
        self.0.foreign.send_if_modified(|old| std::mem::replace(old, foreign.clone()) != foreign);
    }

    /// Other DHCP servers on the links, as they come and go.
    #[must_use]
    pub fn foreign(&self) -> watch::Receiver<Vec<ForeignDhcp>> {
        self.0.foreign.subscribe()
    }

    /// Clients that asked to boot and were not expected, all of them.
    pub(super) fn astray(&self, strays: Vec<Stray>) {
        self.0.strays.send_replace(strays);
    }

    /// Clients that ask to boot and are not expected, as they come.
    #[must_use]
    pub fn strays(&self) -> watch::Receiver<Vec<Stray>> {
        self.0.strays.subscribe()
    }
}
