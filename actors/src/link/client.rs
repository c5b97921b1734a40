//! The rack's end of the link: one connection per region, dialled again for ever. What is said over it is the caller's business.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use schema::{
    boot::BodyRef,
    id::{RackId, ReportSeq, SystemId},
    messages::link::{FromRack, ToRack},
    time::Timestamp,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    Close, LinkError, Refusal, Timing,
    bulk::{Bulk, BulkError},
    ca::RackIdentity,
    describe, drive, silence,
    stream::{self, Reader, SendError, Sender},
    tls,
};
use crate::core::TraceId;

/// Which regions, and how.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// HOST:PORT of every region. The place in the list is the link's number.
    pub regions: Vec<String>,
    pub timing: Timing,
}

impl ClientConfig {
    /// With the product's times.
    #[must_use]
    pub fn new(regions: Vec<String>) -> Self {
        Self { regions, timing: Timing::default() }
    }
}

/// Number of a link: the place of its region in [`ClientConfig::regions`].
pub type LinkId = usize;

/// The region's first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    pub rack: RackId,
    pub region: SystemId,
    /// The last report that is durable in the region.
    pub last_report: ReportSeq,
    /// The region's clock.
    pub now: Timestamp,
}

/// What happens on the links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The region knows this rack; it waits for its Hello.
    Up { link: LinkId, welcome: Welcome },
    /// There is no connection: it ended, or a try failed. Comes once per try.
    Down { link: LinkId, why: String, remedy: String, retry_in: Duration },
    /// The region says something (never `Welcome` or `Refused`).
    Message { link: LinkId, trace: TraceId, message: ToRack },
}

/// The pauses between tries: doubling, drawn between half and whole, so that racks do not come all at once.
#[derive(Debug, Clone)]
pub struct BackOff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl BackOff {
    /// From `first` up to `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// The pause before the next try. `draw` lies in 0..1.
    pub fn pause(&mut self, draw: f64) -> Duration {
        let whole = self.next.min(self.max);
        self.next = (whole * 2).min(self.max);
        whole.mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// After a refusal: a person has to act first.
    pub fn longest(&mut self) {
        self.next = self.max;
    }
}

/// What a live connection offers.
#[derive(Clone)]
struct Live {
    sender: Sender<FromRack>,
    bulk: Bulk,
}

type Slot = Arc<Mutex<Option<Live>>>;
type Draw = Arc<Mutex<dyn FnMut() -> f64 + Send>>;

/// The rack's links. Cloned freely; they end with [`LinkClient::stop`].
#[derive(Clone)]
pub struct LinkClient {
    slots: Arc<[Slot]>,
    stop: watch::Sender<bool>,
    tasks: Arc<tokio::sync::Mutex<JoinSet<()>>>,
}

impl LinkClient {
    /// Starts dialling on the current tokio runtime. `draw` gives numbers in 0..1 (the randomness of the pauses).
    /// Events are to be read: a full queue stops reading from the regions.
    ///
    /// # Errors
    /// When the identity's key or certificates are not usable.
    pub fn start(
        config: ClientConfig,
        identity: &RackIdentity,
        draw: impl FnMut() -> f64 + Send + 'static,
    ) -> Result<(Self, mpsc::Receiver<Event>), LinkError> {
        let tls = tls::client(identity.certificate.clone(), identity.key.clone_key(), &identity.ca)?;
        let quic = transport(tls, &config.timing);
        let (events, receiver) = mpsc::channel(256);
        let draw: Draw = Arc::new(Mutex::new(draw));
        let (stop, stopping) = watch::channel(false);
        let (mut tasks, mut slots) = (JoinSet::new(), Vec::new());
        for (link, address) in config.regions.into_iter().enumerate() {
            let slot = Slot::default();
            slots.push(slot.clone());
            let one =
                One { link, address, slot, quic: quic.clone(), timing: config.timing.clone(), events: events.clone() };
            tasks.spawn(one.run(draw.clone(), stopping.clone()));
        }
        let tasks = Arc::new(tokio::sync::Mutex::new(tasks));
        Ok((Self { slots: slots.into(), stop, tasks }, receiver))
    }

    /// Queues a message as soon as there is room.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, link: LinkId, message: &FromRack, trace: TraceId) -> Result<(), SendError> {
        self.live(link).ok_or(SendError::Down)?.sender.send(message, trace).await
    }

    /// Queues a message, or says why not; never waits.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn try_send(&self, link: LinkId, message: &FromRack, trace: TraceId) -> Result<(), SendError> {
        self.live(link).ok_or(SendError::Down)?.sender.try_send(message, trace)
    }

    /// Whether the link is up.
    #[must_use]
    pub fn is_up(&self, link: LinkId) -> bool {
        self.live(link).is_some()
    }

    /// Fetches a body into `partial`, going on where that file ends; the bytes that came over the link just now.
    /// When it returns, the file is whole and its SHA-256 is right; moving it to its place is the caller's.
    ///
    /// # Errors
    /// [`BulkError`]. What came stays in `partial` for the next try, but for a body whose hash is wrong.
    pub async fn fetch(&self, link: LinkId, body: BodyRef, partial: &std::path::Path) -> Result<u64, BulkError> {
        self.live(link).ok_or(BulkError::Down)?.bulk.fetch(body, partial).await
    }

    /// Brings a body to the region, going on where an earlier try ended; returns when it is durable and verified there.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn store(&self, link: LinkId, body: BodyRef, path: &std::path::Path) -> Result<(), BulkError> {
        self.live(link).ok_or(BulkError::Down)?.bulk.store(body, path).await
    }

    /// Says Goodbye, lets what is queued go out, and ends. Waits at most a few seconds.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }

    fn live(&self, link: LinkId) -> Option<Live> {
        self.slots.get(link)?.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One link's task.
struct One {
    link: LinkId,
    address: String,
    slot: Slot,
    quic: quinn::ClientConfig,
    timing: Timing,
    events: mpsc::Sender<Event>,
}

/// How a connection, or a try, ended.
enum End {
    /// Not let in: a person has to act.
    Refused(Refusal),
    Lost(Refusal),
    /// It was up, and then lost.
    WasUp(Refusal),
    /// The rack stops.
    Stopped,
}

impl One {
    async fn run(self, draw: Draw, mut stopping: watch::Receiver<bool>) {
        let mut back_off = BackOff::new(self.timing.back_off, self.timing.back_off_max);
        loop {
            let end = self.once(stopping.clone()).await;
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let Refusal { why, remedy } = match end {
                End::Stopped => return,
                End::Lost(r) => r,
                End::Refused(r) => {
                    back_off.longest();
                    r
                }
                End::WasUp(r) => {
                    back_off.reset();
                    r
                }
            };
            let drawn = draw.lock().unwrap_or_else(PoisonError::into_inner)();
            let retry_in = back_off.pause(drawn);
            tracing::warn!(region = %self.address, %why, %remedy, ?retry_in, "no link to the region");
            let down = Event::Down { link: self.link, why, remedy, retry_in };
            tokio::select! {
                sent = self.events.send(down) => if sent.is_err() { return },
                _ = stopping.wait_for(|s| *s) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                _ = stopping.wait_for(|s| *s) => return,
            }
        }
    }

    /// One connection from dialling to its end.
    async fn once(&self, mut stopping: watch::Receiver<bool>) -> End {
        let dialled = tokio::select! {
            dialled = dial(&self.address, self.quic.clone(), &self.timing) => dialled,
            _ = stopping.wait_for(|s| *s) => return End::Stopped,
        };
        let (endpoint, connection) = match dialled {
            Ok(dialled) => dialled,
            Err(refusal) => return End::Lost(refusal),
        };
        let welcome = tokio::select! {
            welcome = timeout(self.timing.answer, self.welcome(&connection)) => welcome,
            _ = stopping.wait_for(|s| *s) => Ok(Err(End::Stopped)),
        };
        let end = match welcome {
            Ok(Ok((welcome, send, reader))) => self.talk(&connection, welcome, send, reader, stopping).await,
            Ok(Err(end)) => end,
            Err(_) => End::Lost(Refusal::new("the region did not say Welcome in time", "see the region's log")),
        };
        match &end {
            End::Stopped => Close::Stopping.close(&connection, "the rack stops"),
            End::Refused(r) => Close::Done.close(&connection, &r.why),
            End::Lost(r) | End::WasUp(r) => Close::Protocol.close(&connection, &r.why),
        }
        timeout(Duration::from_secs(1), endpoint.wait_idle()).await.ok(); // Only to let the close go out.
        end
    }

    async fn welcome(&self, connection: &quinn::Connection) -> Result<(Welcome, quinn::SendStream, Reader), End> {
        let (send, recv) = connection.accept_bi().await.map_err(|e| End::Lost(describe(&e)))?;
        let mut reader = Reader::new(recv);
        match reader.next::<ToRack>().await {
            Ok(Some((_, ToRack::Welcome { rack, region, last_report, now }))) => {
                Ok((Welcome { rack, region, last_report, now }, send, reader))
            }
            Ok(Some((_, ToRack::Refused { why, remedy }))) => Err(End::Refused(Refusal::new(why, remedy))),
            Ok(Some(_)) => {
                Err(End::Lost(Refusal::new("the region did not begin with Welcome", "upgrade the older side")))
            }
            Ok(None) => Err(End::Lost(lost(connection, "the region ended the stream".into()))),
            Err(e) => Err(End::Lost(lost(connection, e.to_string()))),
        }
    }

    async fn talk(
        &self,
        connection: &quinn::Connection,
        welcome: Welcome,
        send: quinn::SendStream,
        mut reader: Reader,
        mut stopping: watch::Receiver<bool>,
    ) -> End {
        let (sender, writer) = stream::channel(self.timing.queue);
        let bulk = Bulk::new(connection.clone(), self.timing.answer);
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Live { sender: sender.clone(), bulk });
        if self.events.send(Event::Up { link: self.link, welcome }).await.is_err() {
            return End::Stopped;
        }
        let read = async {
            loop {
                match reader.next::<ToRack>().await {
                    Ok(Some((envelope, message))) => {
                        let trace = TraceId(envelope.parent.trace);
                        if self.events.send(Event::Message { link: self.link, trace, message }).await.is_err() {
                            return End::Stopped;
                        }
                    }
                    Ok(None) => return End::WasUp(lost(connection, "the region ended the stream".into())),
                    Err(e) => return End::WasUp(lost(connection, e.to_string())),
                }
            }
        };
        let mut write = std::pin::pin!(writer.run(send));
        tokio::select! {
            end = read => return end,
            _ = write.as_mut() => return End::WasUp(lost(connection, "the region reads no more".into())),
            () = silence(connection, self.timing.idle) => return End::WasUp(describe(&quinn::ConnectionError::TimedOut)),
            _ = stopping.wait_for(|s| *s) => {}
        }
        // Orderly: the last word, then all that is queued, then wait until it has arrived.
        sender.try_send(&FromRack::Goodbye, TraceId::default()).ok(); // A full queue: the region sees the close.
        drop(sender);
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // The region ends the connection when it has read all; what it has not read when this side ends it is lost to it.
        let read = async {
            if write.await.is_ok() {
                connection.closed().await;
            }
        };
        timeout(Duration::from_secs(3), read).await.ok(); // A region that does not take it in time learns it by the close.
        End::Stopped
    }
}

fn lost(connection: &quinn::Connection, else_why: String) -> Refusal {
    match connection.close_reason() {
        Some(reason) => describe(&reason),
        None => Refusal::new(else_why, "check that both sides run the same version"),
    }
}

pub(super) fn transport(tls: quinn::crypto::rustls::QuicClientConfig, timing: &Timing) -> quinn::ClientConfig {
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(quinn::IdleTimeout::try_from(timing.idle).ok());
    transport.keep_alive_interval(Some(timing.keep_alive));
    transport.max_concurrent_bidi_streams(4u32.into()); // The region opens the control stream only.
    transport.max_concurrent_uni_streams(0u32.into());
    transport.datagram_receive_buffer_size(None);
    config.transport_config(Arc::new(transport));
    config
}

/// Resolves and dials; every address of the name is tried in turn.
pub(super) async fn dial(
    address: &str,
    config: quinn::ClientConfig,
    timing: &Timing,
) -> Result<(quinn::Endpoint, quinn::Connection), Refusal> {
    let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(address).await {
        Ok(found) => found.collect(),
        Err(e) => {
            return Err(Refusal::new(format!("{address} cannot be resolved: {e}"), "correct the region's HOST:PORT"));
        }
    };
    let mut last = Refusal::new(format!("{address} has no address"), "correct the region's HOST:PORT");
    for to in addresses {
        let from: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let endpoint = drive::endpoint(from, None)
            .map_err(|e| Refusal::new(format!("no UDP socket: {e}"), "raise the limit of open files"))?;
        let connecting = endpoint.connect_with(config.clone(), to, tls::REGION_NAME);
        let connecting = connecting.map_err(|e| Refusal::new(e.to_string(), "correct the region's HOST:PORT"))?;
        last = match timeout(timing.answer, connecting).await {
            Ok(Ok(connection)) => return Ok((endpoint, connection)),
            Ok(Err(e)) => describe(&e),
            Err(_) => describe(&quinn::ConnectionError::TimedOut),
        };
        last.why = format!("{to}: {}", last.why);
    }
    Err(last)
}
