//! All transfers on one thread: what arrived is decided by `transfer` and sent at once. A block of a lock step costs two system calls,
//! the wait is shared by all that is ready: so one thread feeds a rack's worth of machines.
//!
//! Readiness is by level: what is not read now is told again, so no socket is read until it is dry.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actors::clock::tick;
use bytes::Bytes;
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::EventFd,
        socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg},
    },
};

use super::{
    Ask, BootFiles, Found, Receipt,
    packet::{Code, MAX_REQUEST, Mode, Packet, PacketError},
    send::Outlet,
    server::{Counters, count},
    transfer::{End, Event, Step, Then, Transfer},
};
use crate::service::Meter;

/// An identical request this soon after the last sign of life repeats the first; later it begins anew.
const REPEAT: Duration = Duration::from_secs(2);
/// How long a client has to answer for the first time before its place may be given to another.
const ANSWER: Duration = Duration::from_millis(200);
/// Requests that wait to be looked up at most; the kernel's buffer holds about as many.
const WAITING: usize = 4_096;
/// Requests looked up before the transfers under way have their turn again.
const TURN: usize = 32;
/// Tokens of the two descriptors that are no transfer.
const REQUESTS: u64 = 0;
const STOP: u64 = 1;

/// The transfers, and what they share.
pub(super) struct Desk {
    files: Arc<dyn BootFiles>,
    counters: Arc<Counters>,
    meter: Meter,
    epoll: Epoll,
    /// Where requests arrive; gone once the server stops.
    requests: Option<UdpSocket>,
    /// Kept open, since closing it would take its event away.
    _stop: Arc<EventFd>,
    waiting: VecDeque<Request>,
    live: HashMap<u64, Live>,
    /// The transfer of each client, by its address and port.
    peers: HashMap<SocketAddrV4, u64>,
    /// Transfers whose client has said nothing since its request, the oldest first (and some that ended or moved on since).
    unheard: VecDeque<u64>,
    /// When to look at which transfer. An alarm is moved only when it comes too early, so that a block costs none.
    alarms: BinaryHeap<Reverse<(Instant, u64)>>,
    next: u64,
    /// When the loop last woke up.
    now: Instant,
    buffer: Vec<u8>,
    space: Vec<u8>,
}

/// A datagram on the port of requests.
struct Request {
    bytes: Box<[u8]>,
    peer: SocketAddrV4,
    /// The address of ours that it came to.
    local: Ipv4Addr,
}

/// A transfer under way.
struct Live {
    outlet: Outlet,
    transfer: Transfer,
    file: Bytes,
    receipt: Box<dyn Receipt>,
    request: Request,
    begun: Instant,
    /// The last packet of the client.
    heard: Instant,
    /// Until when the client may be silent.
    deadline: Instant,
    /// The alarm that counts for this transfer.
    alarm: Instant,
    /// Waits for room in the socket's queue.
    blocked: bool,
}

impl Desk {
    /// A desk that hears requests on `requests` and ends some time after `stop` is written to.
    pub(super) fn new(
        requests: UdpSocket,
        stop: Arc<EventFd>,
        files: Arc<dyn BootFiles>,
        counters: Arc<Counters>,
        meter: Meter,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&requests, EpollEvent::new(EpollFlags::EPOLLIN, REQUESTS))?;
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, STOP))?;
        Ok(Self {
            files,
            counters,
            meter,
            epoll,
            requests: Some(requests),
            _stop: stop,
            waiting: VecDeque::new(),
            live: HashMap::new(),
            peers: HashMap::new(),
            unheard: VecDeque::new(),
            alarms: BinaryHeap::new(),
            next: STOP + 1,
            now: tick(),
            buffer: vec![0; MAX_REQUEST + 64],
            space: Vec::with_capacity(65_536),
        })
    }

    /// Serves until stopped; transfers under way then have `grace` to end. Who is not done by then asks again.
    pub(super) fn run(mut self, grace: Duration) {
        let mut events = [EpollEvent::empty(); 256];
        let mut end = None;
        while end.is_none_or(|end| self.now < end && !self.live.is_empty()) {
            let ready = match self.epoll.wait(&mut events, self.patience(end)) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => return tracing::error!("TFTP lost its sockets: {error}; restart the rack"),
            };
            self.now = tick();
            for event in events.iter().take(ready) {
                match event.data() {
                    REQUESTS => self.gather(),
                    STOP => {
                        end = Some(self.now + grace);
                        self.requests = None; // Closed: the kernel answers for us from here on.
                        self.waiting.clear();
                    }
                    id => self.wake(id, event.events()),
                }
            }
            for _ in 0..TURN {
                let Some(request) = self.waiting.pop_front() else { break };
                self.take(request);
            }
            self.elapse();
            self.counters.active.store(self.live.len() as u64, Ordering::Relaxed);
        }
    }

    /// Until the first alarm, and not at all while requests wait.
    fn patience(&self, end: Option<Instant>) -> EpollTimeout {
        if !self.waiting.is_empty() {
            return EpollTimeout::ZERO;
        }
        let alarm = self.alarms.peek().map(|Reverse((at, _))| *at);
        let Some(first) = alarm.into_iter().chain(end).min() else { return EpollTimeout::NONE };
        // Rounded up: an alarm that is woken up for too early would be waited for in steps of nothing.
        let wait = first.saturating_duration_since(self.now) + Duration::from_millis(1);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    /// Takes every request that is here before any is served, so that none is lost while the first are looked up.
    fn gather(&mut self) {
        let Some(socket) = &self.requests else { return };
        while self.waiting.len() < WAITING {
            match receive(socket, &mut self.buffer) {
                Ok(request) => self.waiting.push_back(request),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Ours to report, never to stop for: the kernel hands out an earlier packet's trouble here.
                    let why = format!("TFTP could not receive: {error}");
                    self.meter.complain(
                        "receive_failed",
                        why,
                        "nothing if it was once; else look at the network interface",
                    );
                    return;
                }
            }
        }
    }

    fn take(&mut self, request: Request) {
        if self.repeats(&request) {
            return;
        }
        let peer = request.peer;
        if let Err(error) = self.answer(request) {
            let why = format!("TFTP could not answer: {error}");
            self.meter.complain(
                "answer_failed",
                why,
                "look at the route to the clients and at the limit of open files",
            );
            tracing::debug!(%peer, "TFTP could not answer {peer}: {error}");
        }
    }

    /// Whether this client's request is under way already: it repeated itself before it heard us. A client that began anew ends its old
    /// transfer; one that sends something else does not.
    fn repeats(&mut self, request: &Request) -> bool {
        if !matches!(Packet::parse(&request.bytes), Ok(Packet::Read { .. })) {
            return false;
        }
        let Some(id) = self.peers.get(&request.peer).copied() else { return false };
        let Some(old) = self.live.get(&id) else { return false };
        if old.request.bytes == request.bytes && self.now.saturating_duration_since(old.heard) < REPEAT {
            return true;
        }
        self.remove(id);
        false
    }

    fn answer(&mut self, request: Request) -> io::Result<()> {
        let Request { bytes, peer, local } = &request;
        let (name, options) = match Packet::parse(bytes) {
            Ok(Packet::Read { name, mode: Mode::Octet | Mode::Netascii, options }) => (name, options),
            other => return self.refuse(&other, *peer, *local),
        };
        count(&self.counters.requests);
        let limits = self.files.limits(IpAddr::V4(*peer.ip()));
        let mut outlet = Outlet::open(*local, *peer)?;
        if self.live.len() >= limits.transfers && !self.make_way() {
            count(&self.counters.refused);
            let text = format!("{} transfers are under way, which is this rack's limit; ask again", limits.transfers);
            return outlet.error(Code::Other, &text);
        }
        let ask = Ask { name, peer: (*peer).into(), local: (*local).into() };
        let (file, receipt) = match self.files.find(&ask) {
            Found::File { bytes, receipt } => (bytes, receipt),
            Found::Missing => {
                count(&self.counters.missing);
                return outlet.error(Code::NotFound, "not found");
            }
            Found::Unready(text) => {
                count(&self.counters.refused);
                return outlet.error(Code::Other, &text);
            }
        };
        let block = outlet.largest_block().min(limits.block.unwrap_or(u16::MAX));
        let transfer = Transfer::new(file.len() as u64, &options, block, limits.window);
        outlet.shape(transfer.block_size(), transfer.window());
        let id = self.next;
        self.next += 1;
        self.epoll.add(&outlet, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
        self.peers.insert(*peer, id);
        let (now, blocked) = (self.now, false);
        let live = Live {
            outlet,
            transfer,
            file,
            receipt,
            request,
            begun: now,
            heard: now,
            deadline: now,
            alarm: now,
            blocked,
        };
        self.live.insert(id, live);
        self.unheard.push_back(id);
        self.follow(id, |live| Some(live.transfer.step(Event::Start)));
        Ok(())
    }

    /// Ends the oldest transfer whose client never answered, so that requests under false names do not hold the places of machines.
    /// `false`: there is none that had its time.
    fn make_way(&mut self) -> bool {
        while let Some(id) = self.unheard.front().copied() {
            match self.live.get(&id) {
                Some(live) if live.heard == live.begun && self.now < live.begun + ANSWER => return false,
                Some(live) if live.heard == live.begun => {
                    self.unheard.pop_front();
                    self.end(id, Ok(End::Silent { acknowledged: 0 }));
                    return true;
                }
                _ => self.unheard.pop_front(),
            };
        }
        false
    }

    /// Answers what is not a read request; to an ERROR nothing is answered, lest two servers talk for ever.
    fn refuse(&self, packet: &Result<Packet<'_>, PacketError>, peer: SocketAddrV4, local: Ipv4Addr) -> io::Result<()> {
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
        Outlet::open(local, peer)?.error(code, &text)
    }

    /// Something happened to a transfer's socket.
    fn wake(&mut self, id: u64, flags: EpollFlags) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if flags.contains(EpollFlags::EPOLLOUT) {
            let resumed = live.outlet.resume(&live.transfer, &live.file, &mut self.space);
            return self.settle_send(id, resumed, None);
        }
        let heard = match live.outlet.receive(&mut self.buffer) {
            Ok(Some(len)) => self.buffer.get(..len).and_then(|bytes| Packet::parse(bytes).ok()),
            Ok(None) => return,
            Err(error) => return self.end(id, Err(error)),
        };
        // Bytes that are no packet change nothing: the client repeats itself, or falls silent.
        let Some(packet) = heard else { return };
        live.heard = self.now;
        let step = live.transfer.step(Event::Packet(packet));
        self.follow(id, |_| Some(step));
    }

    /// Does what a step says.
    fn follow(&mut self, id: u64, step: impl FnOnce(&mut Live) -> Option<Step>) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let Some(Step { send, then }) = step(live) else { return };
        let sent = live.outlet.send(&send, &live.transfer, &live.file, &mut self.space);
        if let Then::Wait(patience) = then {
            live.deadline = self.now + patience;
            if live.alarm <= self.now || live.deadline < live.alarm {
                live.alarm = live.deadline;
                self.alarms.push(Reverse((live.alarm, id)));
            }
        }
        self.settle_send(id, sent, if let Then::Ended(end) = then { Some(end) } else { None });
    }

    /// After a send: the end, or whether to wait for room in the queue.
    fn settle_send(&mut self, id: u64, sent: io::Result<()>, end: Option<End>) {
        match (sent, end) {
            (Err(error), _) => return self.end(id, Err(error)),
            (Ok(()), Some(end)) => return self.end(id, Ok(end)),
            (Ok(()), None) => {}
        }
        let Some(live) = self.live.get_mut(&id) else { return };
        if live.blocked != live.outlet.is_full() {
            live.blocked = !live.blocked;
            let flags = if live.blocked { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            if let Err(error) = self.epoll.modify(&live.outlet, &mut EpollEvent::new(flags, id)) {
                self.end(id, Err(error.into()));
            }
        }
    }

    /// Looks at the transfers whose alarm went off.
    fn elapse(&mut self) {
        while let Some(Reverse((at, id))) = self.alarms.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
            self.alarms.pop();
            let Some(live) = self.live.get_mut(&id).filter(|live| live.alarm == at) else { continue };
            if live.deadline <= self.now {
                let step = live.transfer.step(Event::Elapsed);
                self.follow(id, |_| Some(step));
            } else {
                live.alarm = live.deadline;
                self.alarms.push(Reverse((live.alarm, id)));
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Live> {
        let live = self.live.remove(&id)?;
        self.peers.remove(&live.request.peer);
        while self.unheard.front().is_some_and(|first| !self.live.contains_key(first)) {
            self.unheard.pop_front();
        }
        Some(live) // Its socket closes with it, and leaves the epoll by that.
    }

    fn end(&mut self, id: u64, end: io::Result<End>) {
        let Some(live) = self.remove(id) else { return };
        let len = live.file.len() as u64;
        let why = match end {
            Ok(End::Complete) => {
                count(&self.counters.complete);
                self.counters.bytes.fetch_add(len, Ordering::Relaxed);
                return live.receipt.fetched(len, self.now.saturating_duration_since(live.begun));
            }
            Ok(end) => match end.why(live.transfer.block()) {
                Some(why) => why,
                None => return,
            },
            Err(error) => format!("the network refused: {error}"),
        };
        count(&self.counters.aborted);
        live.receipt.aborted(&why);
    }
}

/// One datagram with the address of ours that it came to.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Request> {
    let mut space = nix::cmsg_space!(nix::libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let local = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())),
        _ => None,
    });
    let (peer, len) = (message.address.map(SocketAddrV4::from), message.bytes);
    match (peer, local) {
        (Some(peer), Some(local)) => Ok(Request { bytes: buffer.get(..len).unwrap_or_default().into(), peer, local }),
        _ => Err(io::Error::other("the kernel gave no sender or no destination")),
    }
}
