//! A whole rack against a region's end of the link: plan, ticket, bodies, order, reports; and what a cut or a restart costs.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::{
    clock,
    core::TraceId,
    link::{
        Admitted, Doorkeeper, Enrolling, Pending, Refusal,
        ca::Ca,
        enrol::Token,
        server::{Connection, Incoming, LinkServer, ServerConfig},
    },
};
use rack::{
    app::{App, AppError, Running},
    config::{RackConfig, Service},
    enrol,
};
use schema::{
    boot::{BodyRef, Sha256},
    id::{AttemptId, Generation, RackId, ReportSeq},
    messages::{
        link::{BulkHeader, FromRack, Hello, Order, ToRack},
        report::Fact,
    },
    plan::Ticket,
    power::{PowerAccess, PowerAction, PowerType},
};
use tokio::{sync::mpsc, time::timeout};

use crate::state::{ticket, update};

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A region's memory: one rack, one token, the last report.
#[derive(Default)]
struct Keeper {
    pin: Mutex<Option<Sha256>>,
    last: Mutex<u64>,
}

fn rack_id() -> RackId {
    "rack34".parse().unwrap()
}

impl Doorkeeper for Keeper {
    fn admit(&self, fingerprint: Sha256) -> Pending<'_, Result<Admitted, Refusal>> {
        let known = *self.pin.lock().unwrap() == Some(fingerprint);
        let last_report = ReportSeq(*self.last.lock().unwrap());
        Box::pin(async move {
            let admitted = Admitted { rack: rack_id(), last_report };
            if known { Ok(admitted) } else { Err(Refusal::new("not known", "enrol")) }
        })
    }

    fn enrol(&self, rack: Enrolling) -> Pending<'_, Result<RackId, Refusal>> {
        *self.pin.lock().unwrap() = Some(rack.fingerprint);
        Box::pin(async { Ok(rack_id()) })
    }
}

pub(crate) struct Region {
    server: LinkServer,
    connections: mpsc::Receiver<Connection>,
    keeper: Arc<Keeper>,
    bodies: tempfile::TempDir,
}

impl Region {
    pub(crate) fn start() -> Self {
        let keeper = Arc::<Keeper>::default();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ServerConfig::new(listen, "regn77".parse().unwrap());
        let (server, connections) =
            LinkServer::start(config, Ca::create(clock::now()).unwrap(), keeper.clone()).unwrap();
        Self { server, connections, keeper, bodies: tempfile::tempdir().unwrap() }
    }

    /// The next connection, whoever dials.
    pub(crate) async fn next(&mut self) -> Option<Connection> {
        self.connections.recv().await
    }

    pub(crate) async fn connected(&mut self) -> (Connection, Hello) {
        let mut connection = timeout(PATIENCE, self.connections.recv()).await.unwrap().unwrap();
        match timeout(PATIENCE, connection.incoming.recv()).await.unwrap().unwrap() {
            Incoming::Message(_, FromRack::Hello(hello)) => (connection, hello),
            Incoming::Message(_, other) => panic!("{other:?} came before Hello"),
            Incoming::Bulk(_) | Incoming::Closed { .. } => panic!("no Hello"),
        }
    }

    fn body(&self, bytes: &[u8]) -> BodyRef {
        let body = BodyRef { sha256: Sha256::of(bytes), len: bytes.len() as u64 };
        std::fs::write(self.bodies.path().join(body.sha256.to_string()), bytes).unwrap();
        body
    }

    /// Reads until a report holds what is looked for, serving bodies and acknowledging on the way.
    pub(crate) async fn until(&self, rack: &mut Connection, wanted: impl Fn(&Fact) -> bool) -> Vec<Fact> {
        let mut facts = Vec::new();
        let reading = async {
            loop {
                match rack.incoming.recv().await.expect("the rack is connected") {
                    Incoming::Message(_, FromRack::Report(report)) => {
                        let last = *self.keeper.last.lock().unwrap();
                        if report.seq.0 <= last {
                            continue; // A repeat.
                        }
                        *self.keeper.last.lock().unwrap() = report.seq.0;
                        rack.sender.send(&ToRack::Ack { through: report.seq }, TraceId::default()).await.unwrap();
                        let found = wanted(&report.fact);
                        facts.push(report.fact);
                        if found {
                            return;
                        }
                    }
                    Incoming::Message(..) => {}
                    Incoming::Bulk(request) => {
                        let BulkHeader::Fetch { body, .. } = request.header else { panic!("a store") };
                        let path = self.bodies.path().join(body.sha256.to_string());
                        tokio::spawn(async move { request.serve(&path).await.map(drop).ok() });
                    }
                    Incoming::Closed { why } => panic!("closed: {why}"),
                }
            }
        };
        if timeout(PATIENCE, reading).await.is_err() {
            panic!("never came; seen: {facts:?}");
        }
        facts
    }

    /// A ticket whose bodies the region has.
    fn ticket(&self, attempt: u32) -> Ticket {
        let mut ticket = ticket("abc234", attempt);
        let boot = ticket.boot.as_mut().unwrap();
        boot.image.kernel = self.body(b"kernel");
        boot.image.initrd = self.body(&vec![7; 700_000]);
        boot.user_data = self.body(b"#!/bin/sh\n");
        ticket
    }
}

pub(crate) fn config(dir: &Path, region: &Region) -> RackConfig {
    RackConfig {
        state: dir.into(),
        regions: vec![region.server.address().to_string()],
        services: BTreeSet::from([Service::Http, Service::Power]),
        http: "127.0.0.1:0".parse().unwrap(),
        ..RackConfig::default()
    }
}

pub(crate) async fn enrolled(dir: &Path, region: &Region) -> Running {
    let token = Token::mint(region.server.ca(), [3; 24]);
    let id = enrol::enrol(dir, &region.server.address().to_string(), &token.text()).await.unwrap();
    assert_eq!(id, rack_id());
    App::start(config(dir, region)).await.unwrap()
}

fn by_hand(attempt: u32) -> Order {
    Order {
        machine: "abc234".parse().unwrap(),
        attempt: AttemptId(attempt),
        hostname: "fox".into(),
        action: PowerAction::NetworkBoot,
        access: PowerAccess { power_type: PowerType::Manual, params: [].into(), secrets: [].into() },
        deadline: clock::now() + Duration::from_secs(60),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_held_its_bodies_come_and_an_order_is_done_once() {
    let (mut region, dir) = (Region::start(), tempfile::tempdir().unwrap());
    let running = enrolled(dir.path(), &region).await;
    let (mut rack, hello) = region.connected().await;
    assert_eq!((hello.plan, hello.listening.len()), (Generation(0), 1));
    let mut plan = update(None, 1);
    plan.tickets.put = vec![region.ticket(1)];
    rack.sender.send(&ToRack::Plan(Box::new(plan)), TraceId(5)).await.unwrap();
    let facts = region.until(&mut rack, |f| matches!(f, Fact::ResourcesReady { .. })).await;
    assert!(facts.contains(&Fact::TicketHeld), "{facts:?}");
    let fetched = facts.iter().find_map(|f| match f {
        Fact::ResourcesReady { fetched } => Some(*fetched),
        _ => None,
    });
    assert_eq!(fetched, Some(6 + 700_000 + 10));
    assert_eq!(running.plan.load().plan.generation, Generation(1));
    // The same bodies for the next attempt: nothing comes over the link again.
    let mut plan = update(Some(1), 2);
    plan.tickets.put = vec![region.ticket(2)];
    rack.sender.send(&ToRack::Plan(Box::new(plan)), TraceId(5)).await.unwrap();
    let facts = region.until(&mut rack, |f| matches!(f, Fact::ResourcesReady { .. })).await;
    assert_eq!(facts.last(), Some(&Fact::ResourcesReady { fetched: 0 }));
    // An order twice: done once, answered twice.
    for _ in 0..2 {
        rack.sender.send(&ToRack::Order(by_hand(2)), TraceId(6)).await.unwrap();
        let facts = region.until(&mut rack, |f| matches!(f, Fact::PowerByHand { .. })).await;
        assert!(facts.contains(&Fact::OrderAccepted), "{facts:?}");
    }
    // An update that does not fit: the rack says anew what it holds.
    rack.sender.send(&ToRack::Plan(Box::new(update(Some(9), 10))), TraceId(7)).await.unwrap();
    let again = async {
        loop {
            if let Some(Incoming::Message(_, FromRack::Hello(hello))) = rack.incoming.recv().await {
                return hello.plan;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, again).await.unwrap(), Generation(2));
    running.stop().await;
    // Everything was acknowledged, and the store keeps the plan.
    let state = rack::state::State::open(dir.path(), Default::default()).unwrap();
    assert_eq!(state.outbox().borrow().waiting, 0);
    assert_eq!(state.plan().unwrap().tickets[0].attempt, AttemptId(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_wait_for_the_region_and_are_sent_again_until_acknowledged() {
    let (mut region, dir) = (Region::start(), tempfile::tempdir().unwrap());
    let running = enrolled(dir.path(), &region).await;
    let (mut rack, _) = region.connected().await;
    rack.sender.send(&ToRack::Order(by_hand(1)), TraceId::default()).await.unwrap();
    // The region hears the reports, and dies before it has them on disk: no acknowledgement.
    let heard = async {
        while let Some(incoming) = rack.incoming.recv().await {
            if let Incoming::Message(_, FromRack::Report(report)) = incoming
                && matches!(report.fact, Fact::PowerByHand { .. })
            {
                return report.seq;
            }
        }
        panic!("closed");
    };
    let seq = timeout(PATIENCE, heard).await.unwrap();
    region.server.disconnect(rack_id(), "a cut");
    drop(rack);
    let (mut rack, _) = region.connected().await;
    let facts = region.until(&mut rack, |f| matches!(f, Fact::PowerByHand { .. })).await;
    assert_eq!(facts.first(), Some(&Fact::OrderAccepted), "from the first one on, in order: {facts:?}");
    assert_eq!(*region.keeper.last.lock().unwrap(), seq.0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_that_is_not_enrolled_says_what_to_do() {
    let (region, dir) = (Region::start(), tempfile::tempdir().unwrap());
    let error = App::start(config(dir.path(), &region)).await.err().unwrap();
    assert!(matches!(error, AppError::NotEnrolled(_)));
    assert!(error.to_string().contains("hostler rack enrol"), "{error}");
    let none = RackConfig { regions: Vec::new(), ..config(dir.path(), &region) };
    assert!(matches!(App::start(none).await.err().unwrap(), AppError::NoSource));
    let running = enrolled(dir.path(), &region).await;
    let again = enrol::enrol(dir.path(), "127.0.0.1:1", &Token::mint(region.server.ca(), [3; 24]).text()).await;
    assert!(again.unwrap_err().to_string().contains("already"));
    running.stop().await;
}
