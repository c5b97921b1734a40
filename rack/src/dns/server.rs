//! What a query is answered, and by whom: our zones, the cache, or a server upstream.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use actors::{
    clock,
    dns::{
        Found, Query, Style, Transport, find,
        listen::Server,
        wire::{self, REFUSED},
    },
};
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::{
    DnsConfig,
    access::{Admitted, admit},
    cache::{self, Cache},
    forward::{Back, Forwarder, Passenger},
    ring::Ring,
    upstreams,
};
use crate::{plan::PlanHandle, service::Meter};

/// Refusals in a second, of all strangers together. Each is as long as its question; more would make us a tool against others.
const REFUSALS: u64 = 100;

/// Answers queries of both protocols.
pub(super) struct Desk {
    pub(super) plan: PlanHandle,
    pub(super) meter: Meter,
    forwarder: Arc<Forwarder>,
    set: Vec<SocketAddr>,
    known: ArcSwap<Known>,
    ring: Ring,
    draw: AtomicU32,
    refusals: AtomicU64,
}

/// What is looked up from time to time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    /// This host's addresses.
    own: Vec<IpAddr>,
    upstreams: Arc<[SocketAddr]>,
}

/// What comes of a query.
enum Outcome {
    /// The answer is written.
    Now,
    Never,
    /// These servers are to be asked, for a name in lower case; `before`: our own part of the answer is written.
    Later {
        name: Vec<u8>,
        servers: Arc<[SocketAddr]>,
        before: bool,
    },
}

impl Desk {
    pub(super) fn new(plan: PlanHandle, config: &DnsConfig, meter: Meter) -> Self {
        let forwarder = Forwarder::new(meter.clone(), Cache::new(config.cache), config.mixed_case);
        Self {
            plan,
            meter,
            forwarder: Arc::new(forwarder),
            set: config.upstreams.clone(),
            known: ArcSwap::default(),
            ring: Ring::new(rand::random()),
            draw: AtomicU32::new(rand::random()),
            refusals: AtomicU64::new(0),
        }
    }

    /// Takes this host's addresses and those we serve, and finds out whom to ask.
    pub(super) fn know(&self, own: Vec<IpAddr>, served: &[SocketAddr]) {
        let planned = &self.plan.load().plan.settings.upstream_dns;
        let mut upstreams = upstreams::choose(&self.set, planned, Path::new(upstreams::RESOLV_CONF), served);
        self.ring.probe(&upstreams);
        upstreams.retain(|server| !self.ring.holds(server));
        let known = Known { own, upstreams: upstreams.into() };
        let before = self.known.load();
        if before.upstreams != known.upstreams {
            tracing::info!(upstreams = ?known.upstreams, "DNS asks these servers for names outside our zones");
            self.forwarder.cache.clear();
        }
        if **before != known {
            self.known.store(Arc::new(known));
        }
    }

    /// Nobody waits for an answer any more.
    pub(super) fn end(&self) {
        self.forwarder.end();
    }

    /// Whether the last question found no server that answers.
    pub(super) fn upstreams_fail(&self) -> bool {
        self.forwarder.failing.load(Ordering::Relaxed)
    }

    fn decide(&self, packet: &[u8], peer: IpAddr, transport: Transport, out: &mut Vec<u8>) -> Outcome {
        let plan = self.plan.load();
        let known = self.known.load();
        let admitted = admit(&plan.plan.settings, &plan.plan.subnets, &known.own, peer);
        if admitted == Admitted::Nothing && !self.may_refuse() {
            self.meter.count("dropped");
            return Outcome::Never;
        }
        let query = match Query::read(packet) {
            Ok(query) => query,
            Err(unread) => {
                self.meter.count("malformed");
                return if unread.answer(packet, out) { Outcome::Now } else { Outcome::Never };
            }
        };
        let refusal = if admitted == Admitted::Nothing { Some(REFUSED) } else { query.refusal() };
        if let Some(rcode) = refusal {
            self.meter.count("refused");
            wire::refuse(&query, rcode, true, out);
            return Outcome::Now;
        }
        let style = Style { recursive: true, transport, draw: self.draw.fetch_add(1, Ordering::Relaxed) };
        let (name, servers, before) = match find(&query, plan.zones(), &style, out) {
            Found::Alias(name) if admitted == Admitted::All => (name, known.upstreams.clone(), true),
            Found::Answered | Found::Alias(_) => {
                self.meter.count("answered");
                return Outcome::Now;
            }
            Found::Forward(servers) => (query.name().to_vec(), servers, false),
            Found::Elsewhere if self.is_ring(query.name()) => {
                wire::refuse(&query, REFUSED, true, out);
                return Outcome::Now;
            }
            Found::Elsewhere => (query.name().to_vec(), known.upstreams.clone(), false),
        };
        if !before && self.forwarder.cache.give(cache::key(&query, &mut [0; 260]), &query, transport, out) {
            self.meter.count("cached");
            return Outcome::Now;
        }
        // Without RD a client wants what we know and no more (RFC 1035 section 4.1.1).
        if admitted == Admitted::Ours || !before && !query.recursion_desired() {
            self.meter.count("refused");
            wire::refuse(&query, REFUSED, true, out);
            return Outcome::Now;
        }
        Outcome::Later { name, servers, before }
    }

    fn forward(&self, packet: &[u8], name: Vec<u8>, servers: &Arc<[SocketAddr]>, before: Option<Vec<u8>>, back: Back) {
        let Ok(query) = Query::read(packet) else { return };
        let bits = u8::from(query.dnssec_ok()) | u8::from(query.unchecked()) << 1;
        let question = [&name[..], &query.rtype.to_be_bytes(), &query.class.to_be_bytes()].concat();
        let key = [&name[..], &query.rtype.to_be_bytes(), &[bits]].concat().into();
        let passenger = Passenger { packet: packet.to_vec(), back, before };
        self.forwarder.ask(key, &question, servers, passenger);
    }

    /// Whether the question is our own probe that came back. The server that it was sent to is not asked any more.
    fn is_ring(&self, name: &[u8]) -> bool {
        let Some(server) = self.ring.caught(name) else { return false };
        let why = format!("the DNS server {server} asks this rack what this rack asks it: they stand in a ring");
        let remedy = "take this rack out of that server's forwarders, or that server out of upstream_dns; it is asked again when that is done";
        self.meter.complain("loops", why, remedy);
        let known = self.known.load();
        let upstreams: Vec<_> = known.upstreams.iter().filter(|other| **other != server).copied().collect();
        self.known.store(Arc::new(Known { own: known.own.clone(), upstreams: upstreams.into() }));
        true
    }

    /// One more refusal in this second.
    fn may_refuse(&self) -> bool {
        let second = u64::try_from(clock::now().seconds()).unwrap_or(0);
        let count = |seen: u64| {
            if seen >> 16 == second { seen + u64::from(seen & 0xffff < REFUSALS) } else { second << 16 | 1 }
        };
        let before = self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| Some(count(seen)));
        before.is_ok_and(|seen| seen >> 16 != second || seen & 0xffff < REFUSALS)
    }
}

impl Server for Desk {
    fn datagram(&self, packet: &[u8], peer: SocketAddr, via: &Arc<UdpSocket>, out: &mut Vec<u8>) -> bool {
        match self.decide(packet, peer.ip(), Transport::Udp, out) {
            Outcome::Now => true,
            Outcome::Never => false,
            Outcome::Later { name, servers, before } => {
                let before = before.then(|| std::mem::take(out));
                self.forward(packet, name, &servers, before, Back::Udp(via.clone(), peer));
                false
            }
        }
    }

    async fn message(&self, message: &[u8], peer: SocketAddr) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        match self.decide(message, peer.ip(), Transport::Tcp, &mut out) {
            Outcome::Now => vec![out],
            Outcome::Never => Vec::new(),
            Outcome::Later { name, servers, before } => {
                let (done, answer) = oneshot::channel();
                let before = before.then_some(out);
                self.forward(message, name, &servers, before, Back::Tcp(done, peer));
                answer.await.into_iter().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "fox.maas A", with EDNS.
    const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x03fox\x04maas\0\0\x01\0\x01\0\0\x29\x10\0\0\0\0\0\0\0";

    #[tokio::test]
    async fn strangers_get_no_more_than_they_send_and_not_often() {
        let plan = r#"{"subnets": [{"id": 1, "cidr": "10.77.0.0/24"}], "zones": [{"name": "maas"}], "records": [{"name": "fox.maas", "a": ["10.77.0.5"]}]}"#;
        let meter = Meter::new("dns", crate::dns::COUNTERS);
        let desk =
            Desk::new(PlanHandle::new(serde_json::from_str(plan).unwrap()), &DnsConfig::default(), meter.clone());
        let mut out = Vec::new();
        let mut ask = |peer: &str, packet: &[u8]| {
            let outcome = desk.decide(packet, peer.parse().unwrap(), Transport::Udp, &mut out);
            (matches!(outcome, Outcome::Now), out.len(), out.get(3).map_or(0, |flags| flags & 15))
        };
        let (answered, len, rcode) = ask("10.77.0.9", QUERY);
        assert!(answered && len > QUERY.len() && rcode == 0);
        let mut refused = 0;
        for _ in 0..1_000 {
            let (answered, len, rcode) = ask("192.0.2.1", QUERY);
            assert!(!answered || len <= QUERY.len() && rcode == REFUSED);
            refused += u64::from(answered);
            let (answered, len, _) = ask("192.0.2.1", &QUERY[..20]);
            assert!(!answered || len <= 12);
        }
        // A slow machine may see several seconds go by; each has its hundred.
        assert!(refused >= 1 && counted(&meter, "dropped") > 500, "{refused}");
        assert!(ask("10.77.0.9", QUERY).0, "whoever may ask is answered all the same");
    }

    fn counted(meter: &Meter, what: &str) -> u64 {
        meter.counters().into_iter().find(|(name, _)| name == what).unwrap().1
    }
}
