//! The syslog sockets: UDP in batches, TCP by connection, each line to its machine and into the queues. Runs on a thread of its own.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use actors::clock;
use schema::{logs::LogLine, time::Timestamp};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::oneshot,
};

use super::{
    StartError, SyslogConfig,
    desk::{Desk, Sender},
    frame::Frames,
    queue::Lines,
};
use crate::{
    dhcp::Listen,
    leases::LeaseTable,
    places::{self, Bound, LOOK_AGAIN, Opened, Ports},
    plan::PlanHandle,
    rates::{Pace, Rates},
    service::{Meter, Thread},
};

/// Lines of a burst, in seconds of the rate.
const BURST_S: u32 = 4;
/// Datagrams read before others get their turn.
const ROUND: usize = 256;
/// After fewer than a round: datagrams gather in the socket's buffer meanwhile, since waking the thread, the taker and the file for each
/// costs more than the line itself.
const GATHER: Duration = Duration::from_millis(2);
/// The longest datagram (UDP's own limit); what is longer than a line is cut later.
const DATAGRAM: usize = 65_535;
/// Bytes read from a connection at once.
const READ: usize = 64 * 1_024;
/// Open connections in all, and of one address.
const CONNECTIONS: usize = 1_024;
const CONNECTIONS_EACH: usize = 8;
/// A connection on which nothing comes for so long is closed: the sender opens another.
const IDLE: Duration = Duration::from_secs(3_600);

/// What the thread works with.
pub(super) struct Service {
    pub(super) config: SyslogConfig,
    pub(super) plan: PlanHandle,
    pub(super) leases: LeaseTable,
    pub(super) meter: Meter,
    pub(super) bound: Bound,
    pub(super) ports_missing: Arc<AtomicBool>,
    pub(super) lines: Lines,
}

impl Service {
    pub(super) fn start(self) -> Result<Thread, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let rates = Rates::new(self.config.rate, self.config.rate.saturating_mul(BURST_S));
            let hands = Hands {
                service: self,
                desk: RefCell::default(),
                rates: RefCell::new(rates),
                connections: RefCell::default(),
                open: Cell::new(0),
            };
            tokio::task::LocalSet::new().block_on(&runtime, run(Rc::new(hands), ready, stopped));
        };
        let thread = thread::Builder::new().name("syslog".into()).spawn(run).map_err(StartError::Thread)?;
        let thread = Thread::new(stop, thread);
        let ended = || StartError::Thread(io::Error::other("the syslog thread ended at its start"));
        started.recv().map_err(|_| ended())??;
        Ok(thread)
    }
}

type Ready = std::sync::mpsc::SyncSender<Result<(), StartError>>;

async fn run(hands: Rc<Hands>, ready: Ready, mut stopped: oneshot::Receiver<()>) {
    let service = &hands.service;
    let wanted = || places::wanted(&service.config.listen, &service.plan.load(), super::PORT);
    let mut ports = Ports::telling(service.bound.clone());
    let mut failed = ports.follow(&wanted(), |place| open(&hands, place));
    if matches!(service.config.listen, Listen::At(_))
        && let Some((address, source)) = failed.pop()
    {
        ready.send(Err(StartError::Bind { address, source })).ok(); // Who started it may have gone.
        return;
    }
    if ready.send(Ok(())).is_err() {
        return;
    }
    loop {
        for (address, error) in &failed {
            let remedy =
                "stop what holds the port (`ss -lntup` names it), or set syslog.listen; it is tried again every second";
            service.meter.complain("port", format!("syslog cannot listen on {address}: {error}"), remedy);
        }
        service.ports_missing.store(!failed.is_empty(), Ordering::Relaxed);
        tokio::select! {
            _ = &mut stopped => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        failed = ports.follow(&wanted(), |place| open(&hands, place));
    }
}

/// UDP and TCP on the same port.
fn open(hands: &Rc<Hands>, place: SocketAddrV4) -> io::Result<Opened> {
    let udp = places::udp(place)?;
    let address = udp.local_addr()?.as_socket().unwrap_or(place.into());
    let tcp = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    tcp.set_reuse_address(true)?;
    tcp.set_nonblocking(true)?;
    tcp.bind(&address.into())?;
    tcp.listen(128)?;
    let (udp, tcp) = (UdpSocket::from_std(udp.into())?, TcpListener::from_std(tcp.into())?);
    let tasks = vec![
        tokio::task::spawn_local(hands.clone().datagrams(udp)),
        tokio::task::spawn_local(hands.clone().connections(tcp)),
    ];
    Ok((address, tasks))
}

/// The thread's own state.
struct Hands {
    service: Service,
    desk: RefCell<Desk>,
    rates: RefCell<Rates>,
    /// Open connections by address.
    connections: RefCell<std::collections::HashMap<IpAddr, usize>>,
    open: Cell<usize>,
}

impl Hands {
    fn who(&self, from: Ipv4Addr, now: Timestamp) -> Option<Sender> {
        let service = &self.service;
        self.desk.borrow_mut().who(from, || service.plan.load(), &service.leases, now).cloned()
    }

    fn refuse(&self, from: Ipv4Addr) {
        let why = format!("log lines of {from} are refused: no machine of the plan holds that address");
        let remedy = "nothing, if it is a stranger; a subnet whose strangers are let in takes their lines too";
        self.service.meter.complain("refused", why, remedy);
    }

    /// A line as it came, if its sender has not sent too many.
    fn line(&self, bytes: &[u8], from: Ipv4Addr, sender: &Sender, now: Timestamp) -> Option<LogLine> {
        if self.rates.borrow_mut().ask(from, now) != Pace::Fine {
            let why = "the machine sent more lines a second than syslog.rate";
            self.service.lines.region.lost(sender.source, &sender.host, why, now);
            self.service.meter.count("lost");
            return None;
        }
        let kept = bytes.get(..super::frame::LONGEST).unwrap_or(bytes);
        Some(LogLine::heard(kept, sender.source, &sender.host, now))
    }

    fn take(&self, lines: Vec<LogLine>) {
        let (service, count) = (&self.service, lines.len() as u64);
        if service.plan.load().plan.settings.remote_syslog.is_some() {
            service.lines.remote.push(lines.iter().cloned()); // Its own losses are said by its own marks.
        }
        let lost = service.lines.region.push(lines);
        service.meter.add("lines", count - lost);
        if lost > 0 {
            let remedy = "look at the machine that floods, or at the link to the region; raise syslog.mebibytes";
            service.meter.complain("overflow", "log lines were lost: the queue is full", remedy);
            service.meter.add("lost", lost);
        }
    }

    async fn datagrams(self: Rc<Self>, socket: UdpSocket) {
        let mut buffer = vec![0; DATAGRAM];
        while socket.readable().await.is_ok() {
            let (mut lines, now, mut all) = (Vec::new(), clock::now(), false);
            for _ in 0..ROUND {
                match socket.try_recv_from(&mut buffer) {
                    Ok((len, SocketAddr::V4(from))) => match self.who(*from.ip(), now) {
                        Some(sender) => {
                            let bytes = buffer.get(..len).unwrap_or_default();
                            lines.extend(self.line(bytes, *from.ip(), &sender, now));
                        }
                        None => self.refuse(*from.ip()),
                    },
                    Ok((_, SocketAddr::V6(_))) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        all = true;
                        break;
                    }
                    // An interrupted call: the next datagram is not concerned.
                    Err(_) => {}
                }
            }
            if !lines.is_empty() {
                self.take(lines);
            }
            if all {
                tokio::time::sleep(GATHER).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn connections(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, SocketAddr::V4(from))) => {
                    if let Some(held) = self.admit(*from.ip()) {
                        tokio::task::spawn_local(self.clone().connection(stream, *from.ip(), held));
                    }
                }
                Ok((_, SocketAddr::V6(_))) => {}
                Err(error) => {
                    let remedy = "nothing: it goes on";
                    self.service.meter.complain(
                        "port",
                        format!("a syslog connection was not accepted: {error}"),
                        remedy,
                    );
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// A place for a connection from there, if there is one.
    fn admit(self: &Rc<Self>, from: Ipv4Addr) -> Option<Held> {
        if self.who(from, clock::now()).is_none() {
            self.refuse(from);
            return None;
        }
        let mut connections = self.connections.borrow_mut();
        let of_it = connections.entry(from.into()).or_default();
        if *of_it >= CONNECTIONS_EACH || self.open.get() >= CONNECTIONS {
            let why = format!(
                "a syslog connection of {from} is refused: it has {of_it}, and all together {}",
                self.open.get()
            );
            let remedy = "close some: 8 from one address and 1,024 in all are the most";
            self.service.meter.complain("connections", why, remedy);
            return None;
        }
        *of_it += 1;
        self.open.set(self.open.get() + 1);
        Some(Held { hands: self.clone(), from: from.into() })
    }

    async fn connection(self: Rc<Self>, mut stream: TcpStream, from: Ipv4Addr, _held: Held) {
        let (mut frames, mut buffer) = (Frames::default(), vec![0; READ]);
        loop {
            // A connection can wait, where a datagram is lost: its sender keeps the lines meanwhile.
            if let Some(sender) = self.who(from, clock::now()) {
                self.service.lines.region.room(sender.source).await;
            }
            let len = match tokio::time::timeout(IDLE, stream.read(&mut buffer)).await {
                Ok(Ok(len)) if len > 0 => len,
                _ => break,
            };
            let now = clock::now();
            // The lease may have ended, and the address be another's now.
            let Some(sender) = self.who(from, now) else { return self.refuse(from) };
            let (mut lines, mut cut) = (Vec::new(), 0);
            frames.push(buffer.get(..len).unwrap_or_default(), |bytes, is_cut| {
                cut += u64::from(is_cut);
                lines.extend(self.line(bytes, from, &sender, now));
            });
            self.service.meter.add("cut", cut);
            if !lines.is_empty() {
                self.take(lines);
            }
            tokio::task::yield_now().await;
        }
        let now = clock::now();
        if let Some(sender) = self.who(from, now) {
            frames.end(|bytes, _| self.take(self.line(bytes, from, &sender, now).into_iter().collect()));
        }
    }
}

/// One connection in the count of those open.
struct Held {
    hands: Rc<Hands>,
    from: IpAddr,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hands.open.set(self.hands.open.get().saturating_sub(1));
        let mut connections = self.hands.connections.borrow_mut();
        if let Some(of_it) = connections.get_mut(&self.from) {
            *of_it = of_it.saturating_sub(1);
            if *of_it == 0 {
                connections.remove(&self.from);
            }
        }
    }
}
