//! Questions that are not ours: put to the servers upstream once, however many clients ask, and answered to all of them.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actors::dns::{
    Query, Transport,
    reply::Reply,
    wire::{self, NOERROR, NXDOMAIN, SERVFAIL},
};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    cache::{Cache, Key},
    exchange::Question,
};
use crate::service::Meter;

/// How long the first server and each after it may take; below a stub resolver's five seconds in all.
const WAITS: [Duration; 4] = [
    Duration::from_millis(1_000),
    Duration::from_millis(1_200),
    Duration::from_millis(1_200),
    Duration::from_millis(1_200),
];
/// Questions on their way at once: of everybody, of one client, and clients of one question.
const FLIGHTS: usize = 2_048;
const FLIGHTS_OF_ONE: usize = 256;
const PASSENGERS: usize = 256;
/// Seconds that a failure is remembered (RFC 9520 section 3.2: 1 to 300).
const FAILURE: u32 = 2;

/// Where an answer goes.
pub(super) enum Back {
    Udp(Arc<UdpSocket>, SocketAddr),
    Tcp(oneshot::Sender<Vec<u8>>, SocketAddr),
}

impl Back {
    fn peer(&self) -> IpAddr {
        match self {
            Self::Udp(_, peer) | Self::Tcp(_, peer) => peer.ip(),
        }
    }

    fn transport(&self) -> Transport {
        match self {
            Self::Udp(..) => Transport::Udp,
            Self::Tcp(..) => Transport::Tcp,
        }
    }

    pub(super) fn send(self, answer: Vec<u8>) {
        match self {
            Self::Udp(via, peer) => drop(via.send_to(&answer, peer)), // A client that is gone asks no more.
            Self::Tcp(waiting, _) => drop(waiting.send(answer)),
        }
    }
}

/// A client that waits.
pub(super) struct Passenger {
    pub(super) packet: Vec<u8>,
    pub(super) back: Back,
    /// What of the answer our own zones gave: aliases that lead to the question asked upstream.
    pub(super) before: Option<Vec<u8>>,
}

/// Asks upstream.
pub(super) struct Forwarder {
    meter: Meter,
    runtime: Handle,
    pub(super) cache: Cache,
    mixed_case: bool,
    flights: Mutex<Flights>,
    /// The place of the server that answered last.
    good: AtomicUsize,
    /// Whether the last question got no answer from any.
    pub(super) failing: AtomicBool,
}

#[derive(Default)]
struct Flights {
    by_key: HashMap<Key, Flight>,
    by_client: HashMap<IpAddr, usize>,
}

struct Flight {
    first: IpAddr,
    passengers: Vec<Passenger>,
}

impl Forwarder {
    pub(super) fn new(meter: Meter, cache: Cache, mixed_case: bool) -> Self {
        Self {
            meter,
            runtime: Handle::current(),
            cache,
            mixed_case,
            flights: Mutex::default(),
            good: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
        }
    }

    /// Takes a client's question (name in lower case, type, class) along.
    pub(super) fn ask(self: &Arc<Self>, key: Key, question: &[u8], servers: &Arc<[SocketAddr]>, passenger: Passenger) {
        let client = passenger.back.peer().to_canonical();
        if servers.is_empty() {
            self.failing.store(true, Ordering::Relaxed);
            self.meter.complain(
                "failed",
                "no server is known for names outside our zones",
                "set upstream_dns, or a nameserver in the rack's resolv.conf that is not the rack itself",
            );
            return self.fail(passenger, SERVFAIL);
        }
        let (bits, mut asked) = (key.last().copied().unwrap_or(0), question.to_vec());
        if self.mixed_case {
            mix(&mut asked);
        }
        match self.board(&key, client, passenger) {
            Ok(false) => {}
            Ok(true) => {
                self.meter.count("forwarded");
                let question = Question {
                    question: asked,
                    dnssec_ok: bits & 1 != 0,
                    unchecked: bits & 2 != 0,
                    exact: self.mixed_case,
                };
                let (flying, servers) = (self.clone(), servers.clone());
                self.runtime.spawn(async move { flying.fly(key, question, &servers).await });
            }
            Err(passenger) => {
                let why = format!("more questions wait for an answer than are kept (the last was {client}'s)");
                self.meter.complain(
                    "dropped",
                    why,
                    "see whether the upstream servers answer, and which client asks so much",
                );
                self.fail(passenger, SERVFAIL);
            }
        }
    }

    /// True: a new flight has to leave. The passenger comes back where there is no room.
    fn board(&self, key: &Key, client: IpAddr, passenger: Passenger) -> Result<bool, Passenger> {
        let mut flights = self.flights();
        if let Some(flight) = flights.by_key.get_mut(key) {
            if flight.passengers.len() >= PASSENGERS {
                return Err(passenger);
            }
            flight.passengers.push(passenger);
            return Ok(false);
        }
        let of_client = flights.by_client.get(&client).copied().unwrap_or(0);
        if flights.by_key.len() >= FLIGHTS || of_client >= FLIGHTS_OF_ONE {
            return Err(passenger);
        }
        flights.by_client.insert(client, of_client + 1);
        let flight = Flight { first: client, passengers: vec![passenger] };
        flights.by_key.insert(key.clone(), flight);
        Ok(true)
    }

    /// Asks the servers one after the other, and answers everybody.
    async fn fly(self: Arc<Self>, key: Key, question: Question, servers: &[SocketAddr]) {
        let reply = self.resolve(&question, servers).await;
        self.failing.store(reply.is_none(), Ordering::Relaxed);
        let reply = reply.or_else(|| failure(&question.question));
        if let Some(reply) = &reply {
            self.cache.keep(key.clone(), reply);
        }
        let flight = {
            let mut flights = self.flights();
            let flight = flights.by_key.remove(&key);
            if let Some(flight) = &flight
                && let Some(count) = flights.by_client.get_mut(&flight.first)
            {
                *count -= 1;
                if *count == 0 {
                    flights.by_client.remove(&flight.first);
                }
            }
            flight
        };
        for passenger in flight.into_iter().flat_map(|flight| flight.passengers) {
            match &reply {
                Some(reply) => self.land(passenger, reply),
                None => self.fail(passenger, SERVFAIL),
            }
        }
    }

    /// The first good answer; a bad one when no server has better; `None` when none says anything.
    async fn resolve(&self, question: &Question, servers: &[SocketAddr]) -> Option<Reply> {
        let mut bad = None;
        let from = self.good.load(Ordering::Relaxed);
        for (try_number, wait) in WAITS.into_iter().enumerate() {
            let at = (from + try_number) % servers.len();
            let server = *servers.get(at)?;
            match question.ask(server, wait, &self.meter).await {
                Ok(reply) if [NOERROR, NXDOMAIN].contains(&reply.rcode) => {
                    self.good.store(at, Ordering::Relaxed);
                    return Some(reply);
                }
                // All were asked once: their refusal is the answer.
                Ok(reply) if try_number + 1 >= servers.len() => return Some(reply),
                Ok(reply) => bad = Some(reply),
                Err(error) => {
                    let why = format!("the DNS server {server} did not answer: {error}");
                    self.meter.complain(
                        "timeouts",
                        why,
                        "see whether it runs and is reached from the rack (dig @ADDRESS), or set upstream_dns",
                    );
                }
            }
        }
        bad
    }

    fn land(&self, passenger: Passenger, reply: &Reply) {
        let Ok(query) = Query::read(&passenger.packet) else { return };
        if reply.rcode == SERVFAIL {
            self.meter.count("failed");
        }
        let transport = passenger.back.transport();
        let mut out = Vec::new();
        match &passenger.before {
            None => reply.give(&query, 0, transport, &mut out),
            Some(before) => match joined(before, reply, &query, transport) {
                Some(answer) => out = answer,
                None => return self.fail(passenger, SERVFAIL),
            },
        }
        passenger.back.send(out);
    }

    fn fail(&self, passenger: Passenger, rcode: u8) {
        let mut out = Vec::new();
        if let Ok(query) = Query::read(&passenger.packet) {
            self.meter.count("failed");
            wire::refuse(&query, rcode, true, &mut out);
            passenger.back.send(out);
        }
    }

    /// Whoever waits is let go: with them go the sockets that they came by.
    pub(super) fn end(&self) {
        *self.flights() = Flights::default();
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Letters in random case.
fn mix(question: &mut [u8]) {
    let end = question.len().saturating_sub(4);
    let mut bits: u64 = rand::random();
    for byte in question.iter_mut().take(end).filter(|b| b.is_ascii_lowercase()) {
        if bits & 1 != 0 {
            *byte = byte.to_ascii_uppercase();
        }
        bits = bits.rotate_right(1);
    }
}

/// "No server answers", to be remembered for a moment.
fn failure(question: &[u8]) -> Option<Reply> {
    let head = [0, 0, 0x81, 0x80 | SERVFAIL, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut reply = Reply::read(&[&head[..], question].concat(), 0, question, false).ok()?;
    reply.lifetime = FAILURE;
    Some(reply)
}

/// Our aliases and what their end resolved to, as one answer.
fn joined(before: &[u8], reply: &Reply, query: &Query<'_>, transport: Transport) -> Option<Vec<u8>> {
    use hickory_proto::op::Message;
    let (mut whole, end) = (Message::from_vec(before).ok()?, Message::from_vec(reply.packet()).ok()?);
    whole.metadata.response_code = end.metadata.response_code;
    whole.metadata.authoritative = false;
    whole.answers.extend(end.answers);
    whole.authorities = end.authorities;
    let bytes = whole.to_vec().ok()?;
    if bytes.len() <= query.limit(transport) {
        return Some(bytes);
    }
    whole.answers.clear();
    whole.authorities.clear();
    whole.metadata.truncation = true;
    whole.to_vec().ok()
}
