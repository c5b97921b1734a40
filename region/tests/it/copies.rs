//! Leases between two racks of a VLAN, through a region: each end of the real link says and hears what a rack would.

use std::{net::Ipv4Addr, time::Duration};

use actors::{
    catalogue::CatalogueEvent,
    clock,
    core::TraceId,
    link::{
        Timing,
        ca::RackIdentity,
        client::{ClientConfig, Event, LinkClient},
        enrol,
    },
};
use schema::{
    catalogue::CatalogueItem,
    id::{Generation, SubnetId, VlanId},
    messages::link::{ForeignDhcp, FromRack, Hello, PlanUpdate, RackInterface, ToRack},
    plan::{Failover, Lease},
    time::Timestamp,
};
use tokio::{sync::mpsc, time::timeout};

use super::commission::{furnish, new_region};

/// A rack's end of the link that has said its Hello.
struct End {
    client: LinkClient,
    events: mpsc::Receiver<Event>,
}

impl End {
    async fn start(identity: &RackIdentity, region: std::net::SocketAddr, address: &str) -> Self {
        let timing = Timing { back_off: Duration::from_millis(20), ..Timing::default() };
        let config = ClientConfig { timing, ..ClientConfig::new(vec![region.to_string()]) };
        let (client, events) = LinkClient::start(config, identity, || 0.5).unwrap();
        let mut end = Self { client, events };
        end.next(|event| matches!(event, Event::Up { .. }).then_some(())).await;
        let addresses = vec![(address.parse().unwrap(), "10.77.0.0/24".parse().unwrap())];
        let hello = Hello {
            version: "0.1.0".into(),
            hostname: "rack".into(),
            plan: Generation(0),
            interfaces: vec![RackInterface { name: "eth0".into(), mac: None, addresses }],
            listening: Vec::new(),
            orders: Vec::new(),
            now: clock::now(),
        };
        end.say(FromRack::Hello(hello)).await;
        end
    }

    async fn say(&self, message: FromRack) {
        self.client.send(0, &message, TraceId(7)).await.unwrap();
    }

    /// The first thing heard of which `wanted` makes something.
    async fn next<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the link's client ended");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(20), found).await.expect("nothing of the kind came in 20 s")
    }

    async fn plan(&mut self) -> PlanUpdate {
        let plan = |event| match event {
            Event::Message { message: ToRack::Plan(update), .. } if update.subnets.is_some() => Some(*update),
            _ => None,
        };
        self.next(plan).await
    }

    /// The share in a plan that has one. Others may come before it: a rack's health is in plans, too.
    async fn shared(&mut self) -> Failover {
        let shared = |event| match event {
            Event::Message { message: ToRack::Plan(update), .. } => update.subnets?.pop()?.failover,
            _ => None,
        };
        self.next(shared).await
    }

    /// What is said of leases.
    async fn word(&mut self) -> ToRack {
        let word = |event| match event {
            Event::Message { message: message @ (ToRack::Leases(_) | ToRack::LeasesThrough { .. }), .. } => {
                Some(message)
            }
            _ => None,
        };
        self.next(word).await
    }
}

async fn until(done: impl AsyncFn() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.expect("the region did not hear of it in 20 s");
}

fn lease(last: u8) -> Lease {
    let now = clock::now();
    Lease {
        subnet: SubnetId(1),
        ip: Ipv4Addr::new(10, 77, 0, last),
        mac: schema::net::MacAddr([2, 0, 0, 0, 0, last]),
        hostname: None,
        granted: now,
        expires: now + Duration::from_secs(600),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_one_rack_reach_the_other_and_so_does_how_far_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let (running, token, _) = new_region(dir.path()).await;
    let (app, region) = (running.app.clone(), running.link);
    let first = enrol::enrol(&region.to_string(), &token.parse().unwrap(), "one", "0.1.0").await.unwrap();
    let (token, kept) = app.new_enrolment_token(Duration::from_secs(600));
    let put = |item| CatalogueEvent::Put { by: "admin".into(), item };
    app.change_catalogue(put(CatalogueItem::EnrolmentToken(kept)), TraceId(1)).await.unwrap();
    let second = enrol::enrol(&region.to_string(), &token.parse().unwrap(), "two", "0.1.0").await.unwrap();
    furnish(&app, first.rack).await;

    let mut one = End::start(&first, region, "10.77.0.2").await;
    assert_eq!(one.plan().await.subnets.unwrap()[0].failover, None, "alone so far");
    let before = lease(100);
    one.say(FromRack::Leases(vec![before.clone()])).await;
    one.say(FromRack::LeasesThrough { through: Timestamp(7) }).await;
    until(async || app.links.through(first.rack) == Some(Timestamp(7))).await;

    // The second becomes a member of the VLAN while it is connected.
    let mut two = End::start(&second, region, "10.77.0.3").await;
    assert_eq!(two.plan().await.subnets.unwrap()[0].failover, None);
    let mut vlan = app.catalogue_content().vlans[&VlanId(5_001)].clone();
    vlan.secondary_rack = Some(second.rack);
    app.change_catalogue(put(CatalogueItem::Vlan(vlan)), TraceId(2)).await.unwrap();
    let shared = two.shared().await;
    assert_eq!((shared.peer, shared.secondary), (first.rack, true));
    assert_eq!(shared.peer_addresses, [Ipv4Addr::new(10, 77, 0, 2)]);
    assert_eq!(two.word().await, ToRack::Leases(vec![before.clone()]), "the whole table");
    assert_eq!(two.word().await, ToRack::LeasesThrough { rack: first.rack, through: Timestamp(7) }, "then how far");
    let told = one.shared().await;
    assert_eq!((told.peer, told.secondary), (second.rack, false));
    assert_eq!(one.word().await, ToRack::Leases(vec![before.clone()]), "its own too: it may have lost its disk");

    // What is new goes over at once, in order, and not back to whom it came from.
    let (next, own) = (lease(101), lease(150));
    one.say(FromRack::Leases(vec![next.clone()])).await;
    one.say(FromRack::LeasesThrough { through: Timestamp(9) }).await;
    assert_eq!(two.word().await, ToRack::Leases(vec![next.clone()]));
    assert_eq!(two.word().await, ToRack::LeasesThrough { rack: first.rack, through: Timestamp(9) });
    two.say(FromRack::Leases(vec![own.clone()])).await;
    assert_eq!(one.word().await, ToRack::Leases(vec![own.clone()]));
    // A repeat, and an older word, are no news.
    one.say(FromRack::Leases(vec![before, Lease { granted: Timestamp(1), ..own }])).await;
    one.say(FromRack::LeasesThrough { through: Timestamp(11) }).await;
    assert_eq!(two.word().await, ToRack::LeasesThrough { rack: first.rack, through: Timestamp(11) });

    // On a new connection the whole table comes before the word that speaks of it.
    two.client.stop().await;
    let mut two = End::start(&second, region, "10.77.0.3").await;
    let ToRack::Leases(table) = two.word().await else { panic!("the table is first") };
    assert_eq!(table.len(), 3);
    assert_eq!(two.word().await, ToRack::LeasesThrough { rack: first.rack, through: Timestamp(11) });

    let foreign = ForeignDhcp {
        subnet: SubnetId(1),
        server: Ipv4Addr::new(10, 77, 0, 9),
        mac: Some(schema::net::MacAddr([2, 9, 9, 9, 9, 9])),
        evidence: "its answer to a client was heard".into(),
        proven: true,
        first: clock::now(),
        last: clock::now(),
    };
    one.say(FromRack::ForeignDhcp(vec![foreign.clone()])).await;
    until(async || app.links.foreign() == [(first.rack, foreign.clone())]).await;
    one.client.stop().await;
    two.client.stop().await;
    running.stop().await;
}
