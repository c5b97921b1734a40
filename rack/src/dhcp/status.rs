//! What the DHCP service counts and knows of itself: packets by kind and fate, other servers on the wire, subnets without addresses. Decides nothing but when to log again.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::shell::inspect::{Histogram, Spread};
use schema::{id::SubnetId, messages::link::ForeignDhcp, net::MacAddr, time::Timestamp};
use serde::Serialize;

/// The same complaint is logged at most this often.
const LOG_AGAIN: Duration = Duration::from_secs(60);
/// Two requests for the same other server within this time prove it; a single one may be a broken packet.
const PROOF: Duration = Duration::from_secs(600);
/// A server that answers nobody for so long, though it is asked every minute, is gone.
pub const GONE: Duration = Duration::from_secs(300);

/// A snapshot of the service, for status pages, metrics and `doctor`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DhcpStatus {
    /// Interfaces and addresses that are served.
    pub ports: Vec<String>,
    /// Where those listen.
    pub addresses: Vec<SocketAddr>,
    /// Packets by what became of them: "received", "offer", "ack", "nak", "settled" (answered without a step), …
    pub counts: BTreeMap<String, u64>,
    /// Other DHCP servers heard, by subnet.
    pub foreign: BTreeMap<i64, ForeignServer>,
    /// Subnets that had no address for a client lately.
    pub full: BTreeMap<i64, Shortage>,
    /// What could not be opened, and what to do.
    pub problems: Vec<String>,
}

/// Another DHCP server on a subnet's wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForeignServer {
    pub server: Ipv4Addr,
    /// Its hardware address, where a packet of it was heard.
    pub mac: Option<MacAddr>,
    pub first: Timestamp,
    pub last: Timestamp,
    /// What gave it away.
    pub evidence: String,
    /// Whether it is certain enough to stop offering.
    pub proven: bool,
    pub remedy: String,
}

/// What gave another server away.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    pub server: Ipv4Addr,
    pub mac: Option<MacAddr>,
    pub evidence: &'a str,
    /// Its own word was heard.
    pub certain: bool,
}

impl fmt::Display for ForeignServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = self.mac.map_or_else(|| "hardware address unknown".to_owned(), |mac| mac.to_string());
        write!(f, "another DHCP server, {} ({mac}), answers on this wire", self.server)
    }
}

/// A client that got no address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortage {
    pub mac: MacAddr,
    pub at: Timestamp,
    pub why: String,
    pub remedy: String,
}

/// The live counters. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    inner: Arc<Mutex<Inner>>,
    latency: Arc<Histogram>,
}

#[derive(Debug, Default)]
struct Inner {
    status: DhcpStatus,
    counts: BTreeMap<&'static str, u64>,
    logged: BTreeMap<String, (Timestamp, u64)>,
}

impl Counters {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one.
    pub fn count(&self, what: &'static str) {
        *self.inner().counts.entry(what).or_default() += 1;
    }

    /// Counts one and, once a minute per complaint, logs it with how often it came.
    pub fn complain(&self, what: &'static str, complaint: &str, now: Timestamp, mac: Option<MacAddr>) {
        let mut inner = self.inner();
        *inner.counts.entry(what).or_default() += 1;
        let (last, times) = inner.logged.entry(complaint.to_owned()).or_default();
        *times += 1;
        if last.0 == 0 || now.since(*last) >= LOG_AGAIN {
            let times = std::mem::take(times);
            *last = now;
            let mac = mac.map(|m| m.to_string()).unwrap_or_default();
            tracing::warn!(mac, times, "DHCP: {complaint}");
        }
        // Complaints are texts of ours with few variables; still, nobody outside may fill the memory with them.
        if inner.logged.len() > 1_024 {
            inner.logged.clear();
        }
    }

    /// Notes another server. Returns whether it is proven now for the first time.
    pub fn foreign(&self, subnet: SubnetId, seen: &Sighting<'_>, now: Timestamp) -> bool {
        let mut inner = self.inner();
        let known = inner.status.foreign.get(&subnet.0).filter(|f| f.server == seen.server || f.proven).cloned();
        let repeated = known.as_ref().is_some_and(|f| f.server == seen.server && now.since(f.last) <= PROOF);
        let was = known.as_ref().is_some_and(|f| f.proven);
        let proven = was || seen.certain || repeated;
        let server = seen.server;
        let remedy = format!(
            "turn the DHCP server {server} off (offers begin again {} min after its last word), or set beside_foreign_dhcp on subnet {subnet} if both shall serve",
            GONE.as_secs() / 60
        );
        let first = known.as_ref().map_or(now, |f| f.first);
        let mac = seen.mac.or_else(|| known.filter(|f| f.server == server)?.mac);
        let entry = ForeignServer { server, mac, first, last: now, evidence: seen.evidence.to_owned(), proven, remedy };
        inner.status.foreign.insert(subnet.0, entry);
        proven && !was
    }

    /// Forgets servers that have been silent for long although they were asked; returns the subnets they were on.
    pub fn forget_gone(&self, now: Timestamp) -> Vec<(SubnetId, ForeignServer)> {
        let gone = |f: &mut ForeignServer| now.since(f.last) >= GONE;
        let gone = self.inner().status.foreign.extract_if(.., |_, f| gone(f)).collect::<Vec<_>>();
        gone.into_iter().map(|(subnet, server)| (SubnetId(subnet), server)).collect()
    }

    /// The other servers, as the region is to know them. (To the minute: who goes on being there is no news.)
    #[must_use]
    pub fn foreign_now(&self) -> Vec<ForeignDhcp> {
        let inner = self.inner();
        let said = |(subnet, f): (&i64, &ForeignServer)| ForeignDhcp {
            subnet: SubnetId(*subnet),
            server: f.server,
            mac: f.mac,
            evidence: f.evidence.clone(),
            proven: f.proven,
            first: f.first,
            last: Timestamp::from_seconds(f.last.seconds() / 60 * 60),
        };
        inner.status.foreign.iter().map(said).collect()
    }

    /// The other server of that subnet for whose sake nothing is offered there.
    #[must_use]
    pub fn foreign_of(&self, subnet: SubnetId) -> Option<ForeignServer> {
        self.inner().status.foreign.get(&subnet.0).filter(|f| f.proven).cloned()
    }

    /// Whether another server on that subnet is proven.
    #[must_use]
    pub fn has_foreign(&self, subnet: SubnetId) -> bool {
        self.inner().status.foreign.get(&subnet.0).is_some_and(|f| f.proven)
    }

    /// Notes a client without an address.
    pub fn full(&self, subnet: SubnetId, shortage: Shortage) {
        self.inner().status.full.insert(subnet.0, shortage);
    }

    /// Notes what is served and what could not be.
    pub fn places(&self, ports: Vec<String>, addresses: Vec<SocketAddr>, problems: Vec<String>) {
        let mut inner = self.inner();
        (inner.status.ports, inner.status.addresses, inner.status.problems) = (ports, addresses, problems);
    }

    /// An answer was sent, so long after the packet was read.
    pub fn answered(&self, took: Duration) {
        self.latency.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// How long answers took.
    #[must_use]
    pub fn latency(&self) -> Spread {
        self.latency.spread()
    }

    /// How often each thing happened.
    #[must_use]
    pub fn named(&self) -> Vec<(String, u64)> {
        self.inner().counts.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect()
    }

    /// All of it, now.
    #[must_use]
    pub fn snapshot(&self) -> DhcpStatus {
        let inner = self.inner();
        let counts = inner.counts.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect();
        DhcpStatus { counts, ..inner.status.clone() }
    }
}
