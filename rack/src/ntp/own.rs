//! Our own SNTP server: sockets, packets in batches, the kernel's time of arrival. What is answered is `answer`'s business.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddrV4,
    os::fd::{AsRawFd, RawFd},
    thread,
};

use actors::clock;
use nix::sys::{
    socket::{self, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt},
    time::TimeSpec,
};
use schema::time::Timestamp;
use tokio::{io::Interest, net::UdpSocket, sync::oneshot};

use super::{
    NtpConfig, Shown, StartError,
    answer::{Answer, answer},
    clock::of_kernel,
    packet::{Clock, LEN, NtpTime},
    wanted,
};
use crate::{
    dhcp::Listen,
    kernel,
    places::{self, LOOK_AGAIN, Opened, Ports},
    plan::PlanHandle,
    rates::Rates,
    service::Thread,
};

/// Packets in one system call.
const BATCH: usize = 32;
/// The longest packet that is read; what is longer is cut, and only the head counts.
const LONGEST: usize = 128;
/// Questions at once that a client may ask: `iburst` sends up to eight, and a room of machines may share an address.
const BURST: u32 = 64;

pub(super) fn start(config: NtpConfig, plan: PlanHandle, shown: Shown) -> Result<Thread, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = oneshot::channel();
    let run = move || {
        let service = Service { config, plan, shown };
        tokio::task::LocalSet::new().block_on(&runtime, service.run(ready, stopped));
    };
    let thread = thread::Builder::new().name("ntp".into()).spawn(run).map_err(StartError::Thread)?;
    let thread = Thread::new(stop, thread);
    let ended = || StartError::Thread(io::Error::other("the NTP thread ended at its start"));
    started.recv().map_err(|_| ended())??;
    Ok(thread)
}

struct Service {
    config: NtpConfig,
    plan: PlanHandle,
    shown: Shown,
}

impl Service {
    async fn run(self, ready: std::sync::mpsc::SyncSender<Result<(), StartError>>, mut stopped: oneshot::Receiver<()>) {
        let mut ports = Ports::telling(self.shown.bound.clone());
        let mut failed = ports.follow(&wanted(&self.config, &self.plan), |place| self.open(place));
        let bad = match (&self.config.listen, failed.pop()) {
            (Listen::At(_), Some((address, source))) => Err(StartError::Bind { address, source }),
            (_, Some(other)) => {
                failed.push(other);
                Ok(())
            }
            (_, None) => Ok(()),
        };
        let fine = bad.is_ok();
        if ready.send(bad).is_err() || !fine {
            return;
        }
        loop {
            for (address, error) in &failed {
                let remedy =
                    "stop what holds the port (`ss -lunp` names it), or set ntp.listen; it is tried again every second";
                self.shown.meter.complain("port", format!("NTP cannot listen on {address}: {error}"), remedy);
            }
            self.judge(!failed.is_empty());
            tokio::select! {
                _ = &mut stopped => break,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            failed = ports.follow(&wanted(&self.config, &self.plan), |place| self.open(place));
        }
    }

    /// Sources are wanted, and nobody keeps the clock by them: it is served, and it is said.
    fn judge(&self, ports_missing: bool) {
        let sources = !self.plan.load().plan.settings.ntp_servers.is_empty();
        let kept = kernel::clock_care().is_ok_and(|care| care.synchronised);
        if sources && !kept {
            let remedy = "install the package chrony on this rack, which then follows ntp_servers; or let the host keep its clock";
            self.shown.meter.complain("source", "nobody keeps this rack's clock; machines get it as it is", remedy);
        }
        self.shown.set_amiss(ports_missing || (sources && !kept));
    }

    fn open(&self, place: SocketAddrV4) -> io::Result<Opened> {
        let socket = places::udp(place)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(place.into());
        let reader = Reader {
            plan: self.plan.clone(),
            shown: self.shown.clone(),
            rates: Rates::new(self.config.rate, BURST),
            clock: (Timestamp(0), of_kernel(None, clock::now())),
        };
        Ok((address, vec![tokio::task::spawn_local(reader.read(UdpSocket::from_std(socket.into())?))]))
    }
}

/// One socket's reader.
struct Reader {
    plan: PlanHandle,
    shown: Shown,
    rates: Rates,
    /// The clock as it was at that time.
    clock: (Timestamp, Clock),
}

impl Reader {
    async fn read(mut self, socket: UdpSocket) {
        let mut batch = Batch::default();
        while socket.readable().await.is_ok() {
            match batch.receive(&socket) {
                Ok(came) => {
                    self.answer(&mut batch);
                    if let Err(error) = batch.send(socket.as_raw_fd()) {
                        let remedy = "look at the rack's interfaces: an address may have gone";
                        self.shown.meter.complain("send_error", format!("NTP answers cannot be sent: {error}"), remedy);
                    }
                    if came == BATCH {
                        tokio::task::yield_now().await;
                    }
                }
                // An ICMP error for an answer of ours, or an interrupted call: the next packet is not concerned.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused) => {
                }
                Err(error) => {
                    let remedy = "nothing: it is opened anew within a second";
                    return self.shown.meter.complain("port", format!("an NTP socket broke: {error}"), remedy);
                }
            }
        }
    }

    fn answer(&mut self, batch: &mut Batch) {
        let (snapshot, now) = (self.plan.load(), clock::now());
        if now.since(self.clock.0) >= LOOK_AGAIN || now < self.clock.0 {
            self.clock = (now, of_kernel(kernel::clock_care().ok(), now));
        }
        let (mut answered, meter) = (0, &self.shown.meter);
        let Batch { received, buffers, answers, to, .. } = batch;
        for (packet, buffer) in received.iter().zip(buffers.iter()) {
            let Some(from) = packet.from.filter(|from| snapshot.subnet_of(from.ip().into()).is_some()) else {
                meter.count("stranger");
                continue;
            };
            let bytes = buffer.get(..packet.len.min(LONGEST)).unwrap_or_default();
            let arrived = packet.arrived.unwrap_or_else(|| now.into());
            match answer(bytes, from.ip(), &self.clock.1, &mut self.rates, arrived, clock::now()) {
                Answer::Time(bytes) => {
                    answered += 1;
                    answers.push(bytes);
                    to.push(Some(from));
                }
                Answer::Kiss(bytes) => {
                    let why = format!("{} asks for the time too often and was told so", from.ip());
                    meter.complain("kissed", why, "look at its NTP client");
                    answers.push(bytes);
                    to.push(Some(from));
                }
                Answer::Silence => meter.count("silenced"),
                Answer::Ignored(super::packet::Unanswered::Mode(_)) => meter.count("not_a_client"),
                Answer::Ignored(_) => meter.count("malformed"),
            }
        }
        if answered > 0 {
            meter.add("answered", answered);
        }
    }
}

/// Packets on their way through, with the room for them: made once for each socket.
struct Batch {
    incoming: MultiHeaders<SockaddrIn>,
    outgoing: MultiHeaders<SockaddrIn>,
    buffers: Box<[[u8; LONGEST]; BATCH]>,
    received: Vec<Received>,
    to: Vec<Option<SockaddrIn>>,
    answers: Vec<[u8; LEN]>,
}

struct Received {
    from: Option<SockaddrIn>,
    len: usize,
    /// By the kernel's clock (SO_TIMESTAMPNS).
    arrived: Option<NtpTime>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            incoming: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(TimeSpec))),
            outgoing: MultiHeaders::preallocate(BATCH, None),
            buffers: Box::new([[0; LONGEST]; BATCH]),
            received: Vec::with_capacity(BATCH),
            to: Vec::with_capacity(BATCH),
            answers: Vec::with_capacity(BATCH),
        }
    }
}

impl Batch {
    /// What has come, up to [`BATCH`] packets, without waiting; how many.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut came = 0;
        let taken = socket.try_io(Interest::READABLE, || {
            came = self.take(socket.as_raw_fd())?;
            // Fewer than fit: the queue was empty, and what has come since wakes us anew. That saves the call that would say so.
            if came < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match taken {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(came),
        }
    }

    fn take(&mut self, fd: RawFd) -> io::Result<usize> {
        self.received.clear();
        self.to.clear();
        self.answers.clear();
        let mut slices = self.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let came = recvmmsg(fd, &mut self.incoming, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        self.received.extend(came.map(|message| {
            let arrived = message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(at) => {
                    Some(NtpTime::from_unix(at.tv_sec(), u32::try_from(at.tv_nsec()).unwrap_or(0)))
                }
                _ => None,
            });
            Received { from: message.address, len: message.bytes, arrived }
        }));
        Ok(self.received.len())
    }

    /// Sends the answers. One that the kernel does not take is lost, as any packet may be; the others go.
    fn send(&mut self, fd: RawFd) -> io::Result<()> {
        if let ([answer], [Some(to)]) = (self.answers.as_slice(), self.to.as_slice()) {
            socket::sendto(fd, answer, to, MsgFlags::MSG_DONTWAIT)?;
            return Ok(());
        }
        let (mut gone, mut refused) = (0, Ok(()));
        while gone < self.answers.len() {
            let slices: Vec<_> = self.answers.iter().skip(gone).map(|answer| [IoSlice::new(answer)]).collect();
            let to = self.to.get(gone..).unwrap_or_default();
            match sendmmsg(fd, &mut self.outgoing, slices.iter(), to, [], MsgFlags::MSG_DONTWAIT) {
                Ok(sent) => gone += sent.count().max(1),
                Err(error) => {
                    refused = Err(error.into());
                    gone += 1;
                }
            }
        }
        refused
    }
}
