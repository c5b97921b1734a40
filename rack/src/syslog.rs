//! The machines' logs (syslog, RFC 5424 and RFC 3164, by UDP and TCP): taken from machines of the plan, sent to the region, and on
//! request to an external server.

use std::{
    net::{SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actors::logbook::Limits;
use schema::service::Health;
use tokio::task::JoinHandle;

use crate::{
    dhcp::Listen,
    leases::LeaseTable,
    places::Bound,
    plan::PlanHandle,
    service::{Meter, Serving, Stopping, Thread, alive},
};

pub mod desk;
pub mod frame;
pub mod queue;
pub mod remote;
pub mod send;
mod server;

use queue::{Lines, Queue};

/// MAAS's port (`maas_syslog_port`).
pub const PORT: u16 = 5_247;
/// Of the service's [`Meter`].
const COUNTERS: &[&str] =
    &["lines", "refused", "lost", "overflow", "cut", "connections", "port", "forwarded", "remote"];

/// So many bytes wait for an external server only when it does not take them.
const MANY: usize = 1 << 20;

/// How to serve.
#[derive(Debug, Clone)]
pub struct SyslogConfig {
    pub listen: Listen,
    /// Lines a second of one machine; 0: no limit.
    pub rate: u32,
    /// Bytes of lines that may wait for the region, and as many for an external server.
    pub room: usize,
    /// What a rack without a region keeps in its state directory.
    pub keep: Limits,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self { listen: Listen::Interfaces, rate: 5_000, room: 16 << 20, keep: Limits::default() }
    }
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "syslog cannot listen on {address}: {source}; stop what holds the port (`ss -lntup`), or set another syslog.listen"
    )]
    Bind { address: SocketAddrV4, source: std::io::Error },
    #[error("the system gives no thread for syslog: {0}")]
    Thread(std::io::Error),
}

/// The running service. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    meter: Meter,
    bound: Bound,
    ports_missing: Arc<AtomicBool>,
    remote: Queue,
    forwarding: JoinHandle<()>,
    thread: Option<Thread>,
}

/// Starts the service on a thread of its own, and forwarding on the current tokio runtime.
///
/// # Errors
/// [`StartError`]. An address of an interface that cannot be bound is no error: it is complained of and tried again.
pub fn start(config: SyslogConfig, plan: PlanHandle, leases: LeaseTable, lines: Lines) -> Result<Running, StartError> {
    let (meter, bound, ports_missing) =
        (Meter::new("syslog", COUNTERS), Bound::default(), Arc::<AtomicBool>::default());
    let remote = lines.remote.clone();
    let service = server::Service {
        config,
        plan: plan.clone(),
        leases,
        meter: meter.clone(),
        bound: bound.clone(),
        ports_missing: ports_missing.clone(),
        lines,
    };
    let thread = Some(service.start()?);
    let forwarding = tokio::spawn(remote::forward(remote.clone(), plan, meter.clone()));
    Ok(Running { meter, bound, ports_missing, remote, forwarding, thread })
}

impl Running {
    /// Takes no more lines. Those that wait stay in their queues.
    pub async fn stop(mut self) {
        let thread = self.thread.take();
        tokio::task::spawn_blocking(move || drop(thread)).await.ok(); // A panic there was printed there.
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

impl Serving for Running {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.bound.get()
    }

    /// Degraded: a port is missing (it is tried again by itself), or lines wait for an external server that does not take them.
    fn health(&self) -> Health {
        let threads = self.thread.iter().flat_map(|thread| &thread.thread);
        match alive(threads) {
            Health::Running if self.ports_missing.load(Ordering::Relaxed) || self.remote.bytes() > MANY => {
                Health::Degraded
            }
            health => health,
        }
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn stop(self: Box<Self>) -> Stopping {
        Box::pin(Self::stop(*self))
    }
}
