//! What every service of the rack shares: how it counts, how it complains, and how it stands. What each does is its own file's.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use actors::{clock, shell::inspect::Spread};
use schema::{
    service::{Health, ServiceError},
    time::Timestamp,
};
use tokio::sync::oneshot;

/// The same complaint is logged at most this often.
const LOG_AGAIN: Duration = Duration::from_secs(60);
/// Complaints are texts with few variables; still, nobody outside may fill the memory with them.
const COMPLAINTS: usize = 1_024;

/// A running service, as its supervisor sees it.
pub trait Serving: Send + Sync {
    /// Where it listens; the ports that the system chose, where 0 was asked for.
    fn addresses(&self) -> Vec<SocketAddr>;
    /// Whether it serves all that it should. Asked twice a second: `Dead` gets it started again.
    fn health(&self) -> Health;
    /// Its counters and its last error.
    fn meter(&self) -> &Meter;
    /// How often each thing happened.
    fn counters(&self) -> Vec<(String, u64)> {
        self.meter().counters()
    }
    /// How long its answers took, where it measures that.
    fn latency(&self) -> Option<Spread> {
        None
    }
    /// What went wrong last.
    fn last_error(&self) -> Option<ServiceError> {
        self.meter().last_error()
    }
    /// No new requests; what is under way may end. Its ports are free when this resolves.
    fn stop(self: Box<Self>) -> Stopping;
}

/// The end of a service.
pub type Stopping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The one thread of a service; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Thread {
    stop: Option<oneshot::Sender<()>>,
    pub(crate) thread: Option<thread::JoinHandle<()>>,
}

impl Thread {
    /// One that ends when `stop` is dropped.
    pub(crate) fn new(stop: oneshot::Sender<()>, thread: thread::JoinHandle<()>) -> Self {
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok(); // A panic there was printed there.
        }
    }
}

/// The health of a service that lives on threads of its own: one that has ended is a panic that was printed there.
#[must_use]
pub fn alive<'a, T: 'a>(threads: impl IntoIterator<Item = &'a thread::JoinHandle<T>>) -> Health {
    if threads.into_iter().any(thread::JoinHandle::is_finished) { Health::Dead } else { Health::Running }
}

/// Counters by name, and the last error. Cloned freely; counting takes no lock.
#[derive(Debug, Clone)]
pub struct Meter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: &'static str,
    counters: Vec<(&'static str, AtomicU64)>,
    complaints: Mutex<Complaints>,
}

#[derive(Debug, Default)]
struct Complaints {
    last: Option<ServiceError>,
    logged: BTreeMap<String, (Timestamp, u64)>,
}

impl Meter {
    /// The counters of `service`. A name that is not among them is never counted.
    #[must_use]
    pub fn new(service: &'static str, counters: &[&'static str]) -> Self {
        let counters = counters.iter().map(|name| (*name, AtomicU64::new(0))).collect();
        Self(Arc::new(Inner { service, counters, complaints: Mutex::default() }))
    }

    /// Counts one.
    pub fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts `n`.
    pub fn add(&self, what: &'static str, n: u64) {
        let counter = self.0.counters.iter().find(|(name, _)| *name == what);
        debug_assert!(counter.is_some(), "{} does not count \"{what}\"", self.0.service);
        if let Some((_, counter)) = counter {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Counts one, keeps it as the last error and, once a minute per complaint, logs it with how often it came.
    pub fn complain(&self, what: &'static str, why: impl fmt::Display, remedy: &str) {
        self.count(what);
        let (why, now) = (why.to_string(), clock::now());
        let mut complaints = self.complaints();
        let (last, times) = complaints.logged.entry(why.clone()).or_default();
        *times += 1;
        if last.0 == 0 || now.since(*last) >= LOG_AGAIN {
            tracing::warn!(service = self.0.service, times = *times, remedy, "{why}");
            (*last, *times) = (now, 0);
        }
        if complaints.logged.len() > COMPLAINTS {
            complaints.logged.clear();
        }
        complaints.last = Some(ServiceError { at: now, why, remedy: remedy.to_owned() });
    }

    /// How often each thing happened, in the order of the names given to [`Meter::new`].
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        let read = |(name, n): &(&'static str, AtomicU64)| ((*name).to_owned(), n.load(Ordering::Relaxed));
        self.0.counters.iter().map(read).collect()
    }

    /// What went wrong last.
    #[must_use]
    pub fn last_error(&self) -> Option<ServiceError> {
        self.complaints().last.clone()
    }

    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.0.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted_and_the_last_error_kept() {
        let meter = Meter::new("dns", &["answered", "malformed"]);
        meter.add("answered", 3);
        meter.complain("malformed", "12 bytes are no query", "nothing: it was dropped");
        assert_eq!(meter.counters(), [("answered".to_owned(), 3), ("malformed".to_owned(), 1)]);
        assert_eq!(meter.last_error().unwrap().why, "12 bytes are no query");
    }
}
