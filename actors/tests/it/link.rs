//! The link over real loopback QUIC: who gets in, what passes, what a cut costs.

mod bulk;
mod certificates;
mod garbage;
mod messages;
mod silence;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use actors::{
    clock,
    link::{
        Admitted, Doorkeeper, Enrolling, Pending, Refusal, Timing,
        ca::{Ca, RackIdentity},
        client::{ClientConfig, Event, LinkClient},
        enrol::{self, Token},
        server::{Connection, Incoming, LinkServer, ServerConfig},
    },
};
use schema::{
    boot::Sha256,
    id::{RackId, ReportSeq},
};
use tokio::{sync::mpsc, time::timeout};

/// A region's memory of its racks; what the store does in the product.
#[derive(Default)]
struct Keeper {
    tokens: Mutex<HashMap<Sha256, bool>>,
    pins: Mutex<HashMap<Sha256, RackId>>,
    refusals: Mutex<Vec<Refusal>>,
    racks: AtomicU8,
}

impl Keeper {
    fn allow(&self, token: &Token) {
        self.tokens.lock().unwrap().insert(token.hash(), false);
    }

    fn pin(&self, fingerprint: Sha256, rack: &str) {
        self.pins.lock().unwrap().insert(fingerprint, rack.parse().unwrap());
    }

    /// The reason that the region gave last, once there is one that holds `text`.
    async fn reason(&self, text: &str) -> Refusal {
        for _ in 0..200 {
            let found = self.refusals.lock().unwrap().iter().rev().find(|r| r.why.contains(text)).cloned();
            if let Some(refusal) = found {
                return refusal;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no refusal with \"{text}\" in {:?}", self.refusals.lock().unwrap());
    }
}

impl Doorkeeper for Keeper {
    fn admit(&self, fingerprint: Sha256) -> Pending<'_, Result<Admitted, Refusal>> {
        let rack = self.pins.lock().unwrap().get(&fingerprint).copied();
        Box::pin(async move {
            let rack = rack.ok_or_else(|| Refusal::new("this rack was revoked", "enrol it again"))?;
            Ok(Admitted { rack, last_report: ReportSeq(7) })
        })
    }

    fn enrol(&self, rack: Enrolling) -> Pending<'_, Result<RackId, Refusal>> {
        let answer = match self.tokens.lock().unwrap().get_mut(&rack.token) {
            None => Err(Refusal::new("the token is not known", "take a new one")),
            Some(used @ false) => {
                *used = true;
                let id = RackId::from_draws([self.racks.fetch_add(1, Ordering::Relaxed); 6]);
                self.pins.lock().unwrap().insert(rack.fingerprint, id);
                Ok(id)
            }
            Some(true) => Err(Refusal::new("the token was used before", "take a new one")),
        };
        Box::pin(async move { answer })
    }

    fn refused(&self, _: SocketAddr, refusal: &Refusal) {
        self.refusals.lock().unwrap().push(refusal.clone());
    }
}

/// Times short enough for tests, long enough for a busy box.
fn timing() -> Timing {
    Timing {
        keep_alive: Duration::from_millis(500),
        idle: Duration::from_secs(4),
        back_off: Duration::from_millis(50),
        back_off_max: Duration::from_millis(400),
        ..Timing::default()
    }
}

struct Region {
    server: LinkServer,
    connections: mpsc::Receiver<Connection>,
    keeper: Arc<Keeper>,
}

impl Region {
    /// On an address that a region held a moment ago.
    async fn again(ca: impl Fn() -> Ca, keeper: Arc<Keeper>, listen: SocketAddr) -> Self {
        for _ in 0..100 {
            if std::net::UdpSocket::bind(listen).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // The kernel's socket goes with quinn's driver task.
        }
        Self::start(ca(), keeper, listen)
    }

    fn start(ca: Ca, keeper: Arc<Keeper>, listen: SocketAddr) -> Self {
        let config = ServerConfig { timing: timing(), ..ServerConfig::new(listen, "regn77".parse().unwrap()) };
        let (server, connections) = LinkServer::start(config, ca, keeper.clone()).unwrap();
        Self { server, connections, keeper }
    }

    fn new() -> Self {
        Self::start(Ca::create(clock::now()).unwrap(), Arc::default(), loopback())
    }

    fn address(&self) -> String {
        self.server.address().to_string()
    }

    fn token(&self, n: u8) -> Token {
        let token = Token::mint(self.server.ca(), [n; 24]);
        self.keeper.allow(&token);
        token
    }

    async fn enrol(&self) -> RackIdentity {
        enrol::enrol(&self.address(), &self.token(1), "rack-1", "0.1.0").await.unwrap()
    }

    async fn next(&mut self) -> Connection {
        timeout(Duration::from_secs(10), self.connections.recv()).await.expect("no rack in time").unwrap()
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

struct Rack {
    client: LinkClient,
    events: mpsc::Receiver<Event>,
}

impl Rack {
    fn start(region: &str, identity: &RackIdentity) -> Self {
        let config = ClientConfig { timing: timing(), ..ClientConfig::new(vec![region.into()]) };
        let (client, events) = LinkClient::start(config, identity, || 0.5).unwrap();
        Self { client, events }
    }

    async fn next(&mut self) -> Event {
        timeout(Duration::from_secs(15), self.events.recv()).await.expect("no event in time").unwrap()
    }

    /// The next reason for being down.
    async fn down(&mut self) -> (String, String) {
        loop {
            if let Event::Down { why, remedy, .. } = self.next().await {
                return (why, remedy);
            }
        }
    }

    async fn up(&mut self) -> actors::link::client::Welcome {
        loop {
            if let Event::Up { welcome, .. } = self.next().await {
                return welcome;
            }
        }
    }
}

async fn incoming(rack: &mut Connection) -> Incoming {
    timeout(Duration::from_secs(10), rack.incoming.recv()).await.expect("nothing in time").unwrap()
}
