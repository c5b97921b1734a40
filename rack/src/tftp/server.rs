//! TFTP's sockets: one that hears requests, and one per transfer, bound to the address the request came to. What to send is decided in `transfer`.
//!
//! Everything runs on one thread of its own: transfers are many and light, and a block costs one wake-up and two system calls.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use actors::clock::tick;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use schema::service::Health;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket, sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Ask, BootFiles, Found, Receipt,
    packet::{Code, MAX_REQUEST, Mode, Packet},
    send::Outlet,
    transfer::{End, Event, Then, Transfer},
};
use crate::service::{Meter, Serving, Stopping, alive};

/// Bytes of the listening socket's receive buffer: a rack's worth of machines asks in the same millisecond.
const RECEIVE_BUFFER: usize = 4 << 20;
/// An identical request this soon after the last sign of life repeats the first; later it begins anew.
const REPEAT: Duration = Duration::from_secs(2);

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

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A running server; dropping it stops it without grace.
pub struct Running {
    address: SocketAddrV4,
    counters: Arc<Counters>,
    meter: Meter,
    stop: CancellationToken,
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
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            tokio::task::spawn_blocking(|| thread.join().ok()).await.ok(); // A panic was already logged.
        }
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
        self.stop.cancel();
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let (stop, counters) = (CancellationToken::new(), Arc::new(Counters::default()));
    let meter = Meter::new("tftp", &["receive_failed"]);
    let (stopped, counted, complained) = (stop.clone(), Arc::clone(&counters), meter.clone());
    let thread = thread::Builder::new()
        .name("tftp".into())
        .spawn(move || {
            let (live, idle) = (RefCell::default(), Notify::new());
            let desk = Rc::new(Desk { files, counters: counted, meter: complained, live, idle });
            tokio::task::LocalSet::new().block_on(&runtime, run(socket, desk, stopped, config.grace));
        })
        .map_err(StartError::Thread)?;
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

/// What all transfers share.
struct Desk {
    files: Arc<dyn BootFiles>,
    counters: Arc<Counters>,
    meter: Meter,
    live: RefCell<HashMap<SocketAddrV4, Live>>,
    idle: Notify,
}

/// A transfer under way, as a second request of the same client finds it.
struct Live {
    request: Box<[u8]>,
    heard: Rc<Cell<Instant>>,
    task: JoinHandle<()>,
}

async fn run(socket: std::net::UdpSocket, desk: Rc<Desk>, stop: CancellationToken, grace: Duration) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("TFTP lost its socket: {error}; restart the rack"),
    };
    tokio::select! {
        () = hear(&socket, &desk) => {}
        () = stop.cancelled() => {}
    }
    drop(socket);
    let ended = async {
        while !desk.live.borrow().is_empty() {
            desk.idle.notified().await;
        }
    };
    tokio::time::timeout(grace, ended).await.ok(); // Who is not done by then asks again.
}

/// Takes every request that waits before any is served, so that none is lost while the first are looked up.
async fn hear(socket: &UdpSocket, desk: &Rc<Desk>) {
    let mut buffer = vec![0; MAX_REQUEST + 64];
    loop {
        match receive(socket, &mut buffer).await {
            Ok((len, peer, local)) => desk.take(buffer.get(..len).unwrap_or_default(), peer, local),
            Err(error) => {
                // Ours to report, never to stop for: the kernel hands out an earlier packet's trouble here.
                let why = format!("TFTP could not receive: {error}");
                desk.meter.complain(
                    "receive_failed",
                    why,
                    "nothing if it was once; else look at the network interface",
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// One datagram: its length, its sender, and the address of ours that it came to.
async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, Ipv4Addr)> {
    let read = || {
        let mut space = nix::cmsg_space!(nix::libc::in_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
        let local = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())),
            _ => None,
        });
        let peer = message.address.map(SocketAddrV4::from);
        match (peer, local) {
            (Some(peer), Some(local)) => Ok((message.bytes, peer, local)),
            _ => Err(io::Error::other("the kernel gave no sender or no destination")),
        }
    };
    socket.async_io(Interest::READABLE, read).await
}

impl Desk {
    fn take(self: &Rc<Self>, bytes: &[u8], peer: SocketAddrV4, local: Ipv4Addr) {
        let request: Box<[u8]> = bytes.into();
        if self.repeats(&request, peer) {
            return;
        }
        let heard = Rc::new(Cell::new(tick()));
        let (desk, bytes, seen) = (Rc::clone(self), request.clone(), Rc::clone(&heard));
        let task = tokio::task::spawn_local(async move {
            let held = Held { desk, peer };
            if let Err(error) = held.desk.answer(&bytes, peer, local, &seen).await {
                tracing::warn!(%peer, "TFTP could not answer {peer}: {error}");
            }
        });
        count(&self.counters.active);
        self.live.borrow_mut().insert(peer, Live { request, heard, task });
    }

    /// Whether this is the request of a transfer under way, sent again. A client that began anew ends its old transfer.
    fn repeats(&self, request: &[u8], peer: SocketAddrV4) -> bool {
        let mut live = self.live.borrow_mut();
        let Some(old) = live.get(&peer) else { return false };
        if *old.request == *request && old.heard.get().elapsed() < REPEAT {
            return true;
        }
        old.task.abort();
        live.remove(&peer);
        self.counters.active.fetch_sub(1, Ordering::Relaxed);
        false
    }

    async fn answer(&self, bytes: &[u8], peer: SocketAddrV4, local: Ipv4Addr, heard: &Cell<Instant>) -> io::Result<()> {
        let (name, options) = match Packet::parse(bytes) {
            Ok(Packet::Read { name, mode: Mode::Octet | Mode::Netascii, options }) => (name, options),
            other => return self.refuse(other, peer, local).await,
        };
        count(&self.counters.requests);
        let limits = self.files.limits(IpAddr::V4(*peer.ip()));
        let outlet = Outlet::open(local, peer)?;
        if self.live.borrow().len() > limits.transfers {
            count(&self.counters.refused);
            let text = format!("{} transfers are under way, which is this rack's limit; ask again", limits.transfers);
            return outlet.error(Code::Other, &text).await;
        }
        let ask = Ask { name, peer: peer.into(), local: local.into() };
        let (bytes, receipt) = match self.files.find(&ask) {
            Found::File { bytes, receipt } => (bytes, receipt),
            Found::Missing => {
                count(&self.counters.missing);
                return outlet.error(Code::NotFound, "not found").await;
            }
            Found::Unready(text) => {
                count(&self.counters.refused);
                return outlet.error(Code::Other, &text).await;
            }
        };
        let block = outlet.largest_block().min(limits.block.unwrap_or(u16::MAX));
        let started = tick();
        let transfer = Transfer::new(bytes.len() as u64, &options, block, limits.window);
        let end = carry(&outlet, transfer, &bytes, heard).await;
        self.settle(end, receipt, bytes.len() as u64, started.elapsed());
        Ok(())
    }

    /// Answers what is not a read request; to an ERROR nothing is answered, lest two servers talk for ever.
    async fn refuse(
        &self,
        packet: Result<Packet<'_>, super::packet::PacketError>,
        peer: SocketAddrV4,
        local: Ipv4Addr,
    ) -> io::Result<()> {
        let (counter, code, text) = match packet {
            Ok(Packet::Error { .. }) => return Ok(()),
            Ok(Packet::Write { .. }) => {
                (&self.counters.refused, Code::AccessViolation, "this server is read-only".into())
            }
            Ok(Packet::Read { .. }) => {
                (&self.counters.refused, Code::IllegalOperation, "mode mail is obsolete; use octet".into())
            }
            Ok(other) => (&self.counters.malformed, Code::IllegalOperation, format!("{other} is no request")),
            Err(error) => (&self.counters.malformed, Code::IllegalOperation, error.to_string()),
        };
        count(counter);
        tracing::debug!(%peer, "TFTP refused {peer}: {text}");
        Outlet::open(local, peer)?.error(code, &text).await
    }

    fn settle(&self, end: io::Result<End>, receipt: Box<dyn Receipt>, len: u64, took: Duration) {
        let why = match end {
            Ok(End::Complete) => {
                count(&self.counters.complete);
                self.counters.bytes.fetch_add(len, Ordering::Relaxed);
                return receipt.fetched(len, took);
            }
            Ok(End::Probe) => return,
            Ok(End::Refused { code, message }) => {
                format!("the machine broke off with ERROR {}: {message}", code.number())
            }
            Ok(End::Silent { acknowledged }) => format!("the machine fell silent after block {acknowledged}"),
            Err(error) => format!("the network refused: {error}"),
        };
        count(&self.counters.aborted);
        receipt.aborted(&why);
    }
}

/// A place in the table of transfers, given back at the end.
struct Held {
    desk: Rc<Desk>,
    peer: SocketAddrV4,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut live = self.desk.live.borrow_mut();
        // A transfer that was replaced finds its successor here and leaves it alone.
        if live.get(&self.peer).is_some_and(|l| tokio::task::try_id() == Some(l.task.id())) {
            live.remove(&self.peer);
            self.desk.counters.active.fetch_sub(1, Ordering::Relaxed);
        }
        if live.is_empty() {
            self.desk.idle.notify_one();
        }
    }
}

/// Carries one transfer to its end.
async fn carry(outlet: &Outlet, mut transfer: Transfer, bytes: &[u8], heard: &Cell<Instant>) -> io::Result<End> {
    let mut outlet = outlet.frames(transfer.block_size(), transfer.window());
    let mut buffer = [0; 1_024];
    let mut deadline = tick();
    let sleep = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(sleep);
    let mut step = transfer.step(Event::Start);
    loop {
        outlet.send(&step.send, &transfer, bytes).await?;
        match step.then {
            Then::Ended(end) => return Ok(end),
            Then::Keep => {}
            // The timer is moved only when it fires too early: a block then costs a clock reading, not a timer's change.
            Then::Wait(patience) => {
                deadline = tick() + patience;
                if sleep.is_elapsed() || tokio::time::Instant::from_std(deadline) < sleep.deadline() {
                    sleep.as_mut().reset(deadline.into());
                }
            }
        }
        let packet = loop {
            tokio::select! {
                biased;
                received = outlet.receive(&mut buffer) => break Some(received?),
                () = &mut sleep => {
                    if tick() >= deadline {
                        break None;
                    }
                    sleep.as_mut().reset(deadline.into());
                }
            }
        };
        step = match packet {
            None => transfer.step(Event::Elapsed),
            Some(len) => match Packet::parse(buffer.get(..len).unwrap_or_default()) {
                Ok(packet) => {
                    heard.set(tick());
                    transfer.step(Event::Packet(packet))
                }
                Err(_) => continue_waiting(),
            },
        };
    }
}

/// Bytes that are no packet change nothing: the client repeats itself, or falls silent.
fn continue_waiting() -> super::transfer::Step {
    super::transfer::Step { send: super::transfer::Send::Nothing, then: Then::Keep }
}
