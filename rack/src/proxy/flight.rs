//! One fetch of one object at a time: who comes first fetches, all others read along from the growing file.

use std::{
    collections::HashMap,
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use http_cache_semantics::CachePolicy;
use tokio::sync::{Notify, watch};

use super::{answer::How, index::Entry, request::Refusal};

/// An object that is coming, to be read along.
#[derive(Debug)]
pub(super) struct Growing {
    pub entry: Arc<Entry>,
    pub policy: CachePolicy,
    pub file: Arc<File>,
}

/// How far a fetch is.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    /// The server has not answered yet.
    Asking,
    /// So many bytes of the object are in its file.
    Growing {
        object: Arc<Growing>,
        written: u64,
    },
    /// What is kept will do.
    Kept(Arc<Entry>, How),
    /// The answer is for the first client alone: the others ask themselves.
    Alone,
    Failed(Refusal),
}

/// One fetch, as all who wait for it see it.
#[derive(Debug)]
pub(super) struct Flight {
    progress: watch::Sender<Progress>,
    readers: AtomicUsize,
    /// The last reader has gone.
    left: Notify,
}

/// All fetches under way, by address.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Box<str>, Arc<Flight>>>>);

/// What a client is to do for an object that is not here.
pub(super) enum Turn {
    Fetch(Lead),
    Follow(Reader),
}

impl Flights {
    /// Joins the fetch of that address, or begins it.
    pub(super) fn join(&self, url: &str) -> Turn {
        let mut all = self.all();
        if let Some(flight) = all.get(url) {
            return Turn::Follow(Reader::of(flight));
        }
        let flight = Flight {
            progress: watch::Sender::new(Progress::Asking),
            readers: AtomicUsize::new(0),
            left: Notify::new(),
        };
        let flight = Arc::new(flight);
        all.insert(url.into(), Arc::clone(&flight));
        Turn::Fetch(Lead { flights: self.clone(), url: url.into(), flight })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right and the duty to fetch. Dropped, it ends the fetch: who still waits is told that it failed.
pub(super) struct Lead {
    flights: Flights,
    url: Box<str>,
    flight: Arc<Flight>,
}

impl Lead {
    /// Tells all who wait.
    pub(super) fn tell(&self, progress: Progress) {
        self.flight.progress.send_replace(progress);
    }

    /// More bytes are in the file.
    pub(super) fn grew(&self, to: u64) {
        self.flight.progress.send_modify(|progress| {
            if let Progress::Growing { written, .. } = progress {
                *written = to;
            }
        });
    }

    /// A reader of this fetch.
    pub(super) fn reader(&self) -> Reader {
        Reader::of(&self.flight)
    }

    /// Waits until nobody reads along.
    pub(super) async fn unwanted(&self) {
        while self.flight.readers.load(Ordering::Acquire) > 0 {
            self.flight.left.notified().await;
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.all().remove(&self.url);
        self.flight.progress.send_if_modified(|progress| {
            let open = match progress {
                Progress::Asking => true,
                Progress::Growing { object, written } => *written < object.entry.len,
                _ => false,
            };
            if open {
                *progress = Progress::Failed(Refusal::new(502, "upstream_failed", "the fetch was given up; ask again"));
            }
            open
        });
    }
}

/// One who reads along.
#[derive(Debug)]
pub(super) struct Reader {
    flight: Arc<Flight>,
    progress: watch::Receiver<Progress>,
}

impl Reader {
    fn of(flight: &Arc<Flight>) -> Self {
        flight.readers.fetch_add(1, Ordering::Relaxed);
        Self { flight: Arc::clone(flight), progress: flight.progress.subscribe() }
    }

    /// Waits until the server has answered.
    pub(super) async fn answered(&mut self) -> Progress {
        let answered = self.progress.wait_for(|p| !matches!(p, Progress::Asking)).await;
        answered.map_or(Progress::Alone, |p| p.clone()) // The sender lives as long as we do.
    }

    /// Waits until there is more than `have` bytes. Returns how many there are; `None` when no more will come.
    pub(super) async fn more_than(&mut self, have: u64) -> Option<u64> {
        let more = |p: &Progress| !matches!(p, Progress::Growing { written, .. } if *written <= have);
        match *self.progress.wait_for(more).await.ok()? {
            Progress::Growing { written, .. } => Some(written),
            _ => None,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.flight.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.flight.left.notify_one();
        }
    }
}
