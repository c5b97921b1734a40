//! The package proxy of a rack (port 8000): a caching forward proxy for repositories over HTTP. What may be kept and where it may lead is decided in
//! `policy`, `guard`, `request` and `answer`, which open nothing; `store`, `upstream`, `fetch` and `converse` do what was decided.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use crate::{plan::PlanHandle, service::Meter};

mod answer;
mod converse;
mod fetch;
mod flight;
mod guard;
mod index;
mod policy;
mod request;
mod server;
mod store;
mod told;
mod tunnel;
mod upstream;

pub use guard::{Ports, Reach, Tunnels};
pub use server::{ProxyHandles, Running, StartError, start};
pub use told::proxy_url;

/// How to run the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where bodies are kept; `proxy` in the state directory if not set.
    pub dir: Option<PathBuf>,
    /// Bytes of bodies that are kept. MAAS: 40,000 MB.
    pub cache: u64,
    /// Bytes of the largest body that is kept. MAAS: 1,024 MB.
    pub max_object: u64,
    pub reach: Reach,
    /// Where CONNECT may lead; nowhere by default.
    pub connect: Vec<Tunnels>,
    /// Connections at once, of all clients and of one.
    pub connections: usize,
    pub per_client: usize,
    /// Threads; at least 1.
    pub workers: usize,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8_000)),
            dir: None,
            cache: 40_000 << 20,
            max_object: 1_024 << 20,
            reach: Reach::default(),
            connect: Vec::new(),
            connections: 4_096,
            per_client: 256,
            workers: std::thread::available_parallelism().map_or(2, usize::from).min(4),
        }
    }
}

/// Where the proxy listens while it runs, for those who name it to machines. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Whereabouts(Arc<ArcSwapOption<SocketAddr>>);

impl Whereabouts {
    /// The address; `None` while the proxy does not run.
    #[must_use]
    pub fn get(&self) -> Option<SocketAddr> {
        self.0.load().as_deref().copied()
    }

    fn set(&self, address: Option<SocketAddr>) {
        self.0.store(address.map(Arc::new));
    }
}

/// What is counted. `refused_…` by reason; bytes of bodies.
const COUNTERS: &[&str] = &[
    "hit",
    "miss",
    "shared",
    "revalidated",
    "stale",
    "passed",
    "tunnelled",
    "resumed",
    "aborted",
    "upstream_failed",
    "disk_failed",
    "refused_syntax",
    "refused_method",
    "refused_client",
    "refused_address",
    "refused_connect",
    "refused_loop",
    "refused_limit",
    "bytes_from_cache",
    "bytes_from_upstream",
];

/// What all threads share.
struct Shared {
    plan: PlanHandle,
    meter: Meter,
    guard: guard::Guard,
    store: store::Store,
    flights: flight::Flights,
    /// Bytes of the largest body that is kept.
    max_object: u64,
    connect: Vec<Tunnels>,
    /// This proxy's name in Via fields.
    own: String,
    doors: Arc<Doors>,
}

/// What one thread works with.
struct Desk {
    shared: Arc<Shared>,
    upstream: upstream::Upstream,
}

/// Connections at once, counted.
#[derive(Debug)]
struct Doors {
    most: usize,
    per_client: usize,
    open: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

impl Doors {
    /// Lets a client in, until the returned guest goes.
    ///
    /// # Errors
    /// What is too many.
    fn enter(self: &Arc<Self>, client: IpAddr) -> Result<Guest, &'static str> {
        let mut clients = self.clients();
        if self.open.load(Ordering::Relaxed) >= self.most {
            return Err("too many connections (proxy.connections); try again later");
        }
        let of_client = clients.entry(client).or_default();
        if *of_client >= self.per_client {
            return Err("too many connections of one client (proxy.per_client); use those that are open");
        }
        *of_client += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Guest { doors: Arc::clone(self), client })
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection.
struct Guest {
    doors: Arc<Doors>,
    client: IpAddr,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut clients = self.doors.clients();
        self.doors.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(n) = clients.get_mut(&self.client) {
            *n -= 1;
            if *n == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_in_all_and_by_client() {
        let doors = Arc::new(Doors { most: 3, per_client: 2, open: AtomicUsize::new(0), clients: Mutex::default() });
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = doors.enter(a).ok();
        let guests = (doors.enter(a), doors.enter(b));
        assert!(guests.0.is_ok() && guests.1.is_ok());
        assert!(doors.enter(a).is_err() && doors.enter(b).is_err());
        drop(first);
        assert!(doors.enter(a).is_ok(), "who leaves makes room");
        drop(guests);
        assert!(doors.clients().is_empty());
    }
}
