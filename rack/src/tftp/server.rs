//! The TFTP server's life: its port, its thread, its counters and its end. Transfers are `desk`'s.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    socket::{setsockopt, sockopt},
};
use schema::service::Health;
use socket2::{Domain, Protocol, Socket, Type};

use super::{BootFiles, desk::Desk};
use crate::service::{Meter, Serving, Stopping, alive};

/// Bytes of the listening socket's receive buffer: a rack's worth of machines asks in the same millisecond.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Where and how to serve.
#[derive(Debug, Clone)]
pub struct TftpConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddrV4,
    /// How long transfers under way may go on after a stop.
    pub grace: Duration,
}

impl Default for TftpConfig {
    fn default() -> Self {
        Self { listen: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 69), grace: Duration::from_secs(5) }
    }
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or needs a privilege.
    #[error(
        "TFTP cannot listen on {listen}: {source}; stop the server that holds the port, or grant CAP_NET_BIND_SERVICE, or set another port"
    )]
    Bind { listen: SocketAddrV4, source: io::Error },
    /// The kernel refused the thread or its runtime.
    #[error("TFTP cannot start its thread: {0}; free some memory or raise the limit of threads")]
    Thread(io::Error),
}

/// What the server has counted since it started.
#[derive(Debug, Default)]
pub struct Counters {
    pub requests: AtomicU64,
    /// Answered "not found".
    pub missing: AtomicU64,
    /// Answered with another ERROR: writes, modes, over the limit, not here yet.
    pub refused: AtomicU64,
    /// Packets that are not TFTP or not requests.
    pub malformed: AtomicU64,
    pub complete: AtomicU64,
    pub aborted: AtomicU64,
    /// Bytes of complete transfers.
    pub bytes: AtomicU64,
    /// Transfers under way.
    pub active: AtomicU64,
}

impl Counters {
    fn named(&self) -> Vec<(String, u64)> {
        let all = [
            ("requests", &self.requests),
            ("missing", &self.missing),
            ("refused", &self.refused),
            ("malformed", &self.malformed),
            ("complete", &self.complete),
            ("aborted", &self.aborted),
            ("bytes", &self.bytes),
            ("active", &self.active),
        ];
        all.map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed))).into()
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A running server; dropping it stops it without grace.
pub struct Running {
    address: SocketAddrV4,
    counters: Arc<Counters>,
    meter: Meter,
    stop: Arc<EventFd>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.into()
    }

    /// Its counters, which outlive it.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Hears no more requests, lets transfers end for the configured grace, and returns when the thread is gone.
    pub async fn stop(mut self) {
        self.tell_to_stop();
        if let Some(thread) = self.thread.take() {
            tokio::task::spawn_blocking(|| thread.join().ok()).await.ok(); // A panic was already logged.
        }
    }

    fn tell_to_stop(&self) {
        self.stop.write(1).ok(); // It fails when it was told 2^64 times.
    }
}

impl Serving for Running {
    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address.into()]
    }

    fn health(&self) -> Health {
        alive(&self.thread)
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let mut counters = self.counters.named();
        counters.append(&mut self.meter.counters());
        counters
    }

    fn stop(self: Box<Self>) -> Stopping {
        Box::pin(Self::stop(*self))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tell_to_stop();
    }
}

/// Binds the port and starts serving `files`.
///
/// # Errors
/// [`StartError`] when the port cannot be had or the thread cannot be made.
pub fn start(config: TftpConfig, files: Arc<dyn BootFiles>) -> Result<Running, StartError> {
    let failed = |source| StartError::Bind { listen: config.listen, source };
    let socket = listen(config.listen).map_err(failed)?;
    let address = match socket.local_addr().map_err(failed)? {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => config.listen,
    };
    let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    let (stop, counters) = (Arc::new(stop.map_err(|e| StartError::Thread(e.into()))?), Arc::new(Counters::default()));
    let meter = Meter::new("tftp", &["receive_failed", "answer_failed"]);
    let desk = Desk::new(socket, Arc::clone(&stop), files, Arc::clone(&counters), meter.clone());
    let desk = desk.map_err(StartError::Thread)?;
    let thread = thread::Builder::new().name("tftp".into()).spawn(move || desk.run(config.grace));
    let thread = thread.map_err(StartError::Thread)?;
    Ok(Running { address, counters, meter, stop, thread: Some(thread) })
}

fn listen(address: SocketAddrV4) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    // Beyond net.core.rmem_max where we may, up to it where we may not.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V4(address).into())?;
    Ok(socket.into())
}
