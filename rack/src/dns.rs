//! The rack's DNS: answers the plan's zones by itself, with a region or without, and passes every other question to servers upstream.
//!
//! It listens on this rack's own address of every managed subnet, never on the wildcard: a resolver of the host keeps its loopback.
//! What our zones or the cache know is answered on the socket's own thread; what takes time, by a task that sends the answer later.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::dns::listen::{Connections, Listener};
use schema::service::Health;
use tokio::task::JoinHandle;

use crate::{
    agent::interfaces,
    plan::PlanHandle,
    service::{Meter, Serving, Stopping},
};

mod access;
mod addresses;
mod cache;
mod exchange;
mod forward;
mod ring;
mod server;
mod upstreams;

use server::Desk;

/// Where machines ask: DHCP names addresses and no ports.
const PORT: u16 = 53;
/// How often the plan, the interfaces and the host's resolv.conf are compared with what is served.
const LOOK: Duration = Duration::from_secs(2);
/// The counters of `hostler rack services`.
const COUNTERS: &[&str] = &[
    "answered",
    "cached",
    "forwarded",
    "refused",
    "dropped",
    "malformed",
    "failed",
    "timeouts",
    "forged",
    "loops",
    "faults",
];

/// Where to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On this rack's address of every subnet of the plan, as the plan and the interfaces change.
    Subnets { port: u16 },
    /// At these addresses, whatever the plan says. Port 0 takes a free one.
    At(Vec<SocketAddr>),
}

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    pub listen: Listen,
    /// Asked instead of the plan's `upstream_dns` and of the host's resolv.conf.
    pub upstreams: Vec<SocketAddr>,
    /// Bytes of the cache.
    pub cache: u64,
    /// Names are asked for in letters of random case, which a forger would have to guess (draft-vixie-dnsext-dns0x20). Off by default: some
    /// servers do not give the letters back.
    pub mixed_case: bool,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self { listen: Listen::Subnets { port: PORT }, upstreams: Vec::new(), cache: 16 << 20, mixed_case: false }
    }
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
#[error("DNS cannot listen on {listen}: {source}; {remedy}")]
pub struct StartError {
    pub listen: SocketAddr,
    pub source: io::Error,
    pub remedy: &'static str,
}

/// The remedy of a port that cannot be had.
#[must_use]
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "give the rack CAP_NET_BIND_SERVICE, run it as root, or set dns.port",
        io::ErrorKind::AddrInUse => {
            "stop the other DNS server on that address (`ss -lunpt 'sport = 53'` names it), bind it to 127.0.0.1 alone, or set dns.port"
        }
        io::ErrorKind::AddrNotAvailable => "give an address that this host has",
        _ => "see `hostler doctor`",
    }
}

/// A running service; dropping it ends it.
pub struct Running {
    shared: Arc<Shared>,
    follow: JoinHandle<()>,
}

struct Shared {
    listen: Listen,
    desk: Arc<Desk>,
    connections: Connections,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    listeners: BTreeMap<SocketAddr, Listener>,
    /// Addresses that should be served and are not.
    missing: usize,
}

/// Starts to serve on the present tokio runtime.
///
/// # Errors
/// [`StartError`] for an address that was set and cannot be had. One that the plan wants is tried again, and said in the service's status.
pub fn start(config: DnsConfig, plan: PlanHandle) -> Result<Running, StartError> {
    let meter = Meter::new("dns", COUNTERS);
    let desk = Arc::new(Desk::new(plan, &config, meter));
    let shared = Shared { listen: config.listen, desk, connections: Connections::default(), open: Mutex::default() };
    let shared = Arc::new(shared);
    if let Listen::At(addresses) = &shared.listen {
        for address in addresses {
            let listener = Listener::open(*address, &shared.desk, &shared.connections);
            let failed = |source| StartError { listen: *address, remedy: remedy(&source), source };
            let listener = listener.map_err(failed)?;
            shared.open().listeners.insert(listener.address(), listener);
        }
    }
    shared.look();
    let following = shared.clone();
    let follow = tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let looking = following.clone();
            let runtime = tokio::runtime::Handle::current();
            // Interfaces and resolv.conf are read from the kernel and the disk.
            let looked = tokio::task::spawn_blocking(move || {
                let _entered = runtime.enter();
                looking.look();
            });
            looked.await.ok(); // A panic there was logged.
        }
    });
    Ok(Running { shared, follow })
}

impl Shared {
    /// Serves where it should, and knows whom to ask.
    fn look(&self) {
        let own: Vec<IpAddr> = interfaces().iter().flat_map(|i| &i.addresses).map(|(address, _)| *address).collect();
        if let Listen::Subnets { port } = self.listen {
            let wanted = addresses::wanted(&self.desk.plan.load().plan.subnets, &own, port);
            self.serve_at(&wanted);
        }
        let served: Vec<_> = self.open().listeners.keys().copied().collect();
        let asked = served.iter().filter(|address| address.port() == PORT).map(SocketAddr::ip);
        self.desk.plan.dns_serves(asked.collect());
        self.desk.know(own, &served);
    }

    fn serve_at(&self, wanted: &[SocketAddr]) {
        let mut open = self.open();
        open.listeners.retain(|address, _| wanted.contains(address));
        open.missing = 0;
        for address in wanted {
            if open.listeners.contains_key(address) {
                continue;
            }
            match Listener::open(*address, &self.desk, &self.connections) {
                Ok(listener) => {
                    tracing::info!(%address, "DNS serves on {address}");
                    open.listeners.insert(*address, listener);
                }
                Err(error) => {
                    open.missing += 1;
                    self.desk.meter.complain(
                        "faults",
                        format!("DNS cannot listen on {address}: {error}"),
                        remedy(&error),
                    );
                }
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.follow.abort();
        self.shared.open().listeners.clear();
        self.shared.desk.plan.dns_serves(Vec::new());
        self.shared.desk.end();
    }
}

impl Serving for Running {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.open().listeners.keys().copied().collect()
    }

    fn health(&self) -> Health {
        let open = self.shared.open();
        if open.listeners.values().any(|listener| !listener.is_alive()) {
            return Health::Dead;
        }
        // An address that is missing is tried again here; the others go on.
        if open.missing > 0 || self.shared.desk.upstreams_fail() { Health::Degraded } else { Health::Running }
    }

    fn meter(&self) -> &Meter {
        &self.shared.desk.meter
    }

    /// No more queries are read; those that wait for an answer from upstream get none.
    fn stop(self: Box<Self>) -> Stopping {
        Box::pin(async move {
            let threads: Vec<_> = {
                let mut open = self.shared.open();
                std::mem::take(&mut open.listeners).into_values().filter_map(Listener::close).collect()
            };
            self.shared.desk.end();
            let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
            tokio::task::spawn_blocking(join).await.ok(); // A panic was already logged.
        })
    }
}
