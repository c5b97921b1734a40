//! The region's end of the link: accepts racks, judges them, hands over their connections. What they say is the caller's business.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::crypto::rustls::HandshakeData;
use schema::{
    boot::Sha256,
    id::{RackId, SystemId},
    messages::link::{BulkHeader, FromRack, ToRack},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};

use super::{
    Admitted, Close, Doorkeeper, LinkError, Refusal, Timing,
    bulk::{BulkRequest, Open},
    ca::{Ca, RACK_VALIDITY},
    describe,
    drive::{self, Listening},
    enrol::{Desk, is_enrolment},
    silence,
    stream::{self, ReadError, Reader, Sender, read_one, write_one},
    throttle::Throttle,
    tls::{self, Judge},
};
use crate::{clock, core::TraceId};

/// Bulk streams that one rack may have open.
const BULK_STREAMS: u32 = 64;

/// Where to listen, as whom, and the bounds of admission.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// This region's own system id, told to racks.
    pub region: SystemId,
    pub timing: Timing,
    /// Handshakes under way; above half of it, newcomers must first prove their address (QUIC Retry), above it they are refused.
    pub handshakes: usize,
    /// Racks being registered at once; the others wait.
    pub registrations: usize,
    /// How long a rack's certificate lives.
    pub validity: Duration,
}

impl ServerConfig {
    /// With the product's bounds.
    #[must_use]
    pub fn new(listen: SocketAddr, region: SystemId) -> Self {
        let timing = Timing::default();
        Self { listen, region, timing, handshakes: 512, registrations: 16, validity: RACK_VALIDITY }
    }
}

/// What comes from one rack.
pub enum Incoming {
    /// The rack says something.
    Message(TraceId, FromRack),
    /// The rack opened a bulk stream; answer it on a task of its own.
    Bulk(BulkRequest),
    /// The connection has ended; nothing comes after it.
    Closed { why: String },
}

/// One rack's connection, past its Welcome.
pub struct Connection {
    pub rack: RackId,
    /// Counts connections up; of two of the same rack the higher one is in force. The end of an older one means nothing.
    pub number: u64,
    pub fingerprint: Sha256,
    pub peer: SocketAddr,
    pub sender: Sender<ToRack>,
    /// To be read until [`Incoming::Closed`]; while it is full, nothing more is read from the rack. Dropping it ends the connection.
    pub incoming: mpsc::Receiver<Incoming>,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub enrolled: AtomicU64,
    /// Handshakes that failed, packets of others included.
    pub failed_handshakes: AtomicU64,
    /// Connections closed since what came was no frame.
    pub bad_frames: AtomicU64,
}

/// What one rack's link has carried since the start, over all its connections.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Messages to the rack, and from it.
    pub sent: Arc<AtomicU64>,
    pub received: AtomicU64,
    /// Bulk streams that are open.
    bulk: Arc<AtomicUsize>,
}

/// The listening end. Cloned freely.
#[derive(Clone)]
pub struct LinkServer {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: quinn::Endpoint,
    config: ServerConfig,
    judge: Judge,
    desk: Desk,
    keeper: Arc<dyn Doorkeeper>,
    handshakes: Arc<Semaphore>,
    registrations: Semaphore,
    live: Mutex<HashMap<RackId, (u64, quinn::Connection)>>,
    traffic: Mutex<HashMap<RackId, Arc<Traffic>>>,
    numbers: AtomicU64,
    counters: Counters,
    handover: mpsc::Sender<Connection>,
    quiet: Throttle,
    /// Every task holds a receiver, so that the end of all of them can be waited for.
    tasks: watch::Sender<()>,
}

impl LinkServer {
    /// Listens. What it does is done on the current tokio runtime, and the packets on a thread of their own. Connections are to be taken: a
    /// full queue holds registrations back.
    ///
    /// # Errors
    /// When the address is taken, or certificates cannot be made.
    pub fn start(
        config: ServerConfig,
        ca: Ca,
        keeper: Arc<dyn Doorkeeper>,
    ) -> Result<(Self, mpsc::Receiver<Connection>), LinkError> {
        let identity = ca.region_identity(clock::now())?;
        let judge = Judge::new(ca.certificate())?;
        let quic = quinn::ServerConfig::with_crypto(Arc::new(tls::server(identity.chain, identity.key)?));
        let address = config.listen;
        let listening = Listening { config: transport(quic, &config.timing), secret: ca.secret(b"stateless resets") };
        let endpoint =
            drive::endpoint(address, Some(listening)).map_err(|source| LinkError::Listen { address, source })?;
        let (handover, connections) = mpsc::channel(64);
        let inner = Arc::new(Inner {
            endpoint,
            judge,
            desk: Desk { ca, keeper: keeper.clone(), validity: config.validity },
            keeper,
            handshakes: Arc::new(Semaphore::new(config.handshakes)),
            registrations: Semaphore::new(config.registrations),
            live: Mutex::default(),
            traffic: Mutex::default(),
            numbers: AtomicU64::new(1),
            counters: Counters::default(),
            handover,
            quiet: Throttle::default(),
            tasks: watch::Sender::new(()),
            config,
        });
        inner.spawn(accept(inner.clone()));
        Ok((Self { inner }, connections))
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.endpoint.local_addr().unwrap_or(self.inner.config.listen)
    }

    /// The CA's fingerprint, for tokens.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.inner.desk.ca
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Racks that are connected.
    #[must_use]
    pub fn racks(&self) -> Vec<RackId> {
        self.inner.live().keys().copied().collect()
    }

    /// The round trip of each connected rack's path, as QUIC reckons it.
    #[must_use]
    pub fn round_trips(&self) -> Vec<(RackId, Duration)> {
        self.inner.live().iter().map(|(rack, (_, connection))| (*rack, connection.rtt())).collect()
    }

    /// What each rack's link has carried; racks that were never linked since the start are left out.
    #[must_use]
    pub fn traffic(&self) -> Vec<(RackId, Arc<Traffic>)> {
        let traffic = self.inner.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.iter().map(|(rack, carried)| (*rack, carried.clone())).collect()
    }

    /// Open streams of each connected rack: one for messages, the others with bodies.
    #[must_use]
    pub fn streams(&self) -> Vec<(RackId, usize)> {
        let racks = self.racks();
        racks.into_iter().map(|rack| (rack, 1 + self.inner.traffic_of(rack).bulk.load(Relaxed))).collect()
    }

    /// Ends a rack's connection, with a reason that it is told; for a revoked rack (make the revocation durable first).
    pub fn disconnect(&self, rack: RackId, why: &str) {
        if let Some((_, connection)) = self.inner.live().remove(&rack) {
            Close::Refused.close(&connection, why);
        }
    }

    /// Takes no more racks, tells those that are connected, and waits up to a few seconds until they know.
    pub async fn stop(&self, why: &str) {
        self.inner.endpoint.set_server_config(None);
        for (_, connection) in self.inner.live().values() {
            Close::Stopping.close(connection, why);
        }
        self.inner.endpoint.close((Close::Stopping as u32).into(), why.as_bytes());
        let ends = async {
            self.inner.endpoint.wait_idle().await;
            self.inner.tasks.closed().await;
        };
        timeout(Duration::from_secs(3), ends).await.ok(); // Those that do not answer time out by themselves.
    }
}

fn transport(mut config: quinn::ServerConfig, timing: &Timing) -> quinn::ServerConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(quinn::IdleTimeout::try_from(timing.idle).ok());
    transport.max_concurrent_bidi_streams(BULK_STREAMS.into());
    transport.max_concurrent_uni_streams(0u32.into());
    transport.datagram_receive_buffer_size(None);
    config.transport_config(Arc::new(transport));
    config
}

async fn accept(inner: Arc<Inner>) {
    while let Some(incoming) = inner.endpoint.accept().await {
        let free = inner.handshakes.available_permits();
        if free < inner.config.handshakes / 2 && incoming.may_retry() {
            incoming.retry().ok(); // It may retry: just asked.
            continue;
        }
        let Ok(place) = inner.handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let task = inner.clone();
        let inner = inner.clone();
        task.spawn(async move {
            let peer = incoming.remote_address();
            let shaken = match incoming.accept() {
                Ok(connecting) => timeout(inner.config.timing.answer, connecting).await,
                Err(e) => Ok(Err(e)),
            };
            drop(place);
            match shaken {
                Ok(Ok(connection)) => inner.greet(connection).await,
                Ok(Err(e)) => inner.failed_handshake(peer, &describe(&e)),
                Err(_) => inner.failed_handshake(peer, &describe(&quinn::ConnectionError::TimedOut)),
            }
        });
    }
}

impl Inner {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.tasks.subscribe();
        tokio::spawn(async move {
            task.await;
            drop(running);
        });
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<RackId, (u64, quinn::Connection)>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traffic_of(&self, rack: RackId) -> Arc<Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).entry(rack).or_default().clone()
    }

    fn failed_handshake(&self, peer: SocketAddr, refusal: &Refusal) {
        self.counters.failed_handshakes.fetch_add(1, Relaxed);
        self.keeper.refused(peer, refusal);
        self.say(peer, refusal, "a handshake failed");
    }

    fn refused(&self, peer: SocketAddr, refusal: &Refusal) {
        self.counters.refused.fetch_add(1, Relaxed);
        self.keeper.refused(peer, refusal);
        self.say(peer, refusal, "a rack was refused");
    }

    fn say(&self, peer: SocketAddr, refusal: &Refusal, what: &str) {
        if let Some(silent) = self.quiet.pass(clock::tick()) {
            tracing::warn!(%peer, why = %refusal.why, remedy = %refusal.remedy, silent, "{what}");
        }
    }

    async fn greet(self: Arc<Self>, connection: quinn::Connection) {
        let peer = connection.remote_address();
        let data = connection.handshake_data().and_then(|d| d.downcast::<HandshakeData>().ok());
        if is_enrolment(data.and_then(|d| d.protocol).as_deref()) {
            match timeout(self.config.timing.answer, self.desk.serve(&connection)).await {
                Ok(Ok(())) => _ = self.counters.enrolled.fetch_add(1, Relaxed),
                Ok(Err(refusal)) => self.refused(peer, &refusal),
                Err(_) => self.refused(peer, &Refusal::new("an enrolment did not end in time", "try again")),
            }
            Close::Done.close(&connection, "enrolment is over");
            return;
        }
        // The one place where racks queue: a restarted region sees them all at once.
        let Ok(_place) = self.registrations.acquire().await else { return };
        let register = timeout(self.config.timing.answer, self.clone().register(&connection));
        let refusal = match register.await {
            Ok(Ok(())) => return,
            Ok(Err(refusal)) => refusal,
            Err(_) => Refusal::new("the registration did not end in time", "see the region's log"),
        };
        self.refused(peer, &refusal);
        timeout(self.config.timing.answer, refuse(&connection, &refusal)).await.ok(); // It is closed in any case.
        Close::Refused.close(&connection, &refusal.why);
    }

    /// Judge, admit, welcome, hand over.
    async fn register(self: Arc<Self>, connection: &quinn::Connection) -> Result<(), Refusal> {
        let fingerprint = self.judge.judge(connection, clock::now())?;
        let Admitted { rack, last_report } = self.keeper.admit(fingerprint).await?;
        let (send, recv) = connection.open_bi().await.map_err(|e| describe(&e))?;
        let (sender, writer) = stream::channel(self.config.timing.queue);
        let welcome = ToRack::Welcome { rack, region: self.config.region, last_report, now: clock::now() };
        let gone = |_| Refusal::new("the rack was gone before its Welcome", "nothing; it dials again");
        sender.try_send(&welcome, TraceId::default()).map_err(gone)?;
        let (forward, incoming) = mpsc::channel(256);
        let (number, older) = self.enter(rack, connection.clone());
        if let Some(older) = older {
            Close::Replaced.close(&older, "this rack has connected anew");
        }
        self.counters.accepted.fetch_add(1, Relaxed);
        let peer = connection.remote_address();
        tracing::info!(%rack, %peer, number, "a rack is connected");
        let handed = Connection { rack, number, fingerprint, peer, sender: sender.clone(), incoming };
        let serving = self.clone().serve(connection.clone(), rack, number, (send, recv), (sender, writer), forward);
        self.spawn(serving);
        self.handover.send(handed).await.map_err(|_| Refusal::new("the region stops", "nothing; the rack dials again"))
    }

    /// The number of a rack's newest connection, and the connection whose place it takes.
    fn enter(&self, rack: RackId, connection: quinn::Connection) -> (u64, Option<quinn::Connection>) {
        let mut live = self.live();
        let number = self.numbers.fetch_add(1, Relaxed);
        (number, live.insert(rack, (number, connection)).map(|(_, older)| older))
    }

    /// Unless a newer connection has taken its place.
    fn forget(&self, rack: RackId, number: u64) {
        let mut live = self.live();
        if live.get(&rack).is_some_and(|(n, _)| *n == number) {
            live.remove(&rack);
        }
    }

    /// Reads, writes and takes bulk streams until one of them ends.
    async fn serve(
        self: Arc<Self>,
        connection: quinn::Connection,
        rack: RackId,
        number: u64,
        (send, recv): (quinn::SendStream, quinn::RecvStream),
        (_sender, writer): (Sender<ToRack>, stream::Writer),
        forward: mpsc::Sender<Incoming>,
    ) {
        let traffic = self.traffic_of(rack);
        let writer = writer.counted(traffic.sent.clone());
        // The sender is kept until here, so that only the caller's receiver decides how long the connection lives.
        let (code, why) = tokio::select! {
            end = self.read(&connection, Reader::new(recv), &forward, &traffic) => end,
            _ = writer.run(send) => (Close::Protocol, ended(&connection, "the rack reads no more")),
            () = forward.closed() => let_go(),
            () = silence(&connection, self.config.timing.idle) => (Close::Stopping, describe(&quinn::ConnectionError::TimedOut)),
            () = self.bulk(&connection, &forward, &traffic) => (Close::Stopping, ended(&connection, "the connection ended")),
        };
        code.close(&connection, &why.why);
        self.forget(rack, number);
        tracing::info!(%rack, number, why = %why.why, "a rack's connection ended");
        forward.send(Incoming::Closed { why: why.why }).await.ok(); // Nobody listens any more.
    }

    async fn read(
        &self,
        connection: &quinn::Connection,
        mut reader: Reader,
        forward: &mpsc::Sender<Incoming>,
        traffic: &Traffic,
    ) -> (Close, Refusal) {
        loop {
            match reader.next::<FromRack>().await {
                Ok(Some((envelope, message))) => {
                    traffic.received.fetch_add(1, Relaxed);
                    let message = Incoming::Message(TraceId(envelope.parent.trace), message);
                    if forward.send(message).await.is_err() {
                        return let_go();
                    }
                }
                Ok(None) => return (Close::Stopping, ended(connection, "the rack ended the stream")),
                Err(ReadError::Codec(e)) => {
                    self.counters.bad_frames.fetch_add(1, Relaxed);
                    let bad = Refusal::new(e.to_string(), "run the same version on both sides");
                    self.keeper.refused(connection.remote_address(), &bad);
                    self.say(connection.remote_address(), &bad, "a frame was not understood");
                    return (Close::Protocol, bad);
                }
                Err(e) => return (Close::Stopping, ended(connection, &e.to_string())),
            }
        }
    }

    /// Takes bulk streams; each header is read on a task of its own, so that a silent stream holds up no other.
    async fn bulk(&self, connection: &quinn::Connection, forward: &mpsc::Sender<Incoming>, traffic: &Traffic) {
        let answer = self.config.timing.answer;
        while let Ok((send, mut recv)) = connection.accept_bi().await {
            let (forward, open) = (forward.clone(), Open::among(&traffic.bulk));
            tokio::spawn(async move {
                match timeout(answer, read_one::<BulkHeader>(&mut recv)).await {
                    Ok(Ok((_, header))) => {
                        forward
                            .send(Incoming::Bulk(BulkRequest { header, send, recv, answer, _open: open }))
                            .await
                            .ok(); // It ended.
                    }
                    Ok(Err(e)) => tracing::debug!(error = %e, "a bulk stream without a header"),
                    Err(_) => tracing::debug!("a bulk stream whose header did not come"),
                }
            });
        }
    }
}

/// Says why over the control stream, and waits until the rack has read it and closed.
async fn refuse(connection: &quinn::Connection, refusal: &Refusal) -> Result<(), ReadError> {
    let broke = |e: quinn::ConnectionError| ReadError::Stream(e.to_string());
    let (mut send, _recv) = connection.open_bi().await.map_err(broke)?;
    let Refusal { why, remedy } = refusal.clone();
    write_one(&mut send, &ToRack::Refused { why, remedy }).await?;
    send.finish().ok(); // The rack closes when it has read it.
    connection.closed().await;
    Ok(())
}

fn let_go() -> (Close, Refusal) {
    (Close::Stopping, Refusal::new("the region let the connection go", "nothing; the rack dials again"))
}

fn ended(connection: &quinn::Connection, else_why: &str) -> Refusal {
    connection.close_reason().map_or_else(|| Refusal::new(else_why, "see the rack's log"), |reason| describe(&reason))
}
