//! Servers that ask each other in a ring: each upstream is sent a name that nobody else knows. One whose question for it comes back to us
//! leads back to us, over however many others, and is not asked any more until it does not.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actors::{clock, dns::name};
use schema::dns::DnsName;

/// How often the servers are probed.
const AGAIN: Duration = Duration::from_secs(30);
/// A server whose probes do not come back any more is asked again after that long.
const FORGIVEN: Duration = Duration::from_secs(75);
/// Reserved for such things (RFC 6761 section 6.2): nobody has a name there.
const DOMAIN: &str = "hostler-ring.test";
/// DNS type TXT.
const TXT: u16 = 16;

/// The servers' marks.
pub(super) struct Ring {
    /// What makes our probes ours.
    secret: u64,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    /// By the name's bytes that it was sent.
    probed: BTreeMap<Vec<u8>, SocketAddr>,
    last: Option<Instant>,
    rings: BTreeMap<SocketAddr, Instant>,
}

impl Ring {
    pub(super) fn new(secret: u64) -> Self {
        Self { secret, marks: Mutex::default() }
    }

    /// Sends each server its name, when they have changed or it is time again. Nobody waits for an answer.
    pub(super) fn probe(&self, servers: &[SocketAddr]) {
        let probes: BTreeMap<_, _> =
            servers.iter().enumerate().filter_map(|(n, s)| Some((self.name(n)?, *s))).collect();
        {
            let mut marks = self.marks();
            if marks.probed == probes && marks.last.is_some_and(|last| last.elapsed() < AGAIN) {
                return;
            }
            marks.last = Some(clock::tick());
            marks.probed.clone_from(&probes);
            marks.rings.retain(|server, at| servers.contains(server) && at.elapsed() < FORGIVEN);
        }
        for (name, server) in probes {
            // One that cannot be reached is no ring.
            let any: SocketAddr =
                if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
            let head = [self.secret.to_be_bytes()[0], 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            let query = [&head[..], &name, &TXT.to_be_bytes(), &[0, 1]].concat();
            UdpSocket::bind(any).and_then(|socket| socket.send_to(&query, server)).ok();
        }
    }

    /// The server that a question for that name comes from, if it is one of our probes. It is marked.
    pub(super) fn caught(&self, name: &[u8]) -> Option<SocketAddr> {
        let mut marks = self.marks();
        let server = *marks.probed.get(name)?;
        marks.rings.insert(server, clock::tick());
        Some(server)
    }

    /// Whether that server leads back to us.
    pub(super) fn holds(&self, server: &SocketAddr) -> bool {
        self.marks().rings.contains_key(server)
    }

    fn name(&self, number: usize) -> Option<Vec<u8>> {
        let name: Result<DnsName, _> = format!("{:016x}-{number}.{DOMAIN}", self.secret).parse();
        Some(name::wire(&name.ok()?))
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_marked_by_its_own_probe_alone() {
        let (ring, other) = (Ring::new(7), Ring::new(8));
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let servers = [a.local_addr().unwrap(), b.local_addr().unwrap()];
        ring.probe(&servers);
        b.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut packet = [0; 512];
        let len = b.recv(&mut packet).unwrap();
        let query = actors::dns::Query::read(&packet[..len]).unwrap();
        assert_eq!(other.caught(query.name()), None, "another rack's probe is none of ours");
        assert_eq!(ring.caught(query.name()), Some(servers[1]));
        assert_eq!((ring.holds(&servers[0]), ring.holds(&servers[1])), (false, true));
        ring.probe(&servers[..1]);
        assert!(!ring.holds(&servers[1]), "one that is not asked any more is forgotten");
    }
}
