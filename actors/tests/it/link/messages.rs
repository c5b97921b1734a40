//! Messages both ways, reconnects, the order of ends.

use std::sync::Arc;

use actors::{
    clock,
    core::TraceId,
    link::{ca::Ca, server::Incoming},
};
use schema::{
    id::{AttemptId, Generation, ReportSeq},
    messages::{
        link::{FromRack, ToRack},
        report::{Fact, Report},
    },
    time::Timestamp,
};

use super::{Keeper, Rack, Region, incoming, loopback};
use actors::link::client::Event;

fn report(seq: u64) -> FromRack {
    FromRack::Report(Report {
        seq: ReportSeq(seq),
        at: Timestamp(1),
        machine: "4y3h7n".parse().unwrap(),
        attempt: AttemptId(1),
        fact: Fact::Heartbeat,
    })
}

#[tokio::test]
async fn a_rack_enrols_connects_and_talks_both_ways() {
    let mut region = Region::new();
    let identity = region.enrol().await;
    let mut rack = Rack::start(&region.address(), &identity);
    let welcome = rack.up().await;
    assert_eq!((welcome.rack, welcome.region.as_str(), welcome.last_report), (identity.rack, "regn77", ReportSeq(7)));
    let mut seen = region.next().await;
    assert_eq!((seen.rack, seen.fingerprint), (identity.rack, identity.fingerprint()));
    for seq in 1..=500 {
        rack.client.send(0, &report(seq), TraceId(u128::from(seq))).await.unwrap();
    }
    for seq in 1..=500 {
        let Incoming::Message(trace, message) = incoming(&mut seen).await else { panic!() };
        assert_eq!((trace, message), (TraceId(u128::from(seq)), report(seq)));
    }
    let ack = ToRack::Ack { through: ReportSeq(500) };
    seen.sender.send(&ack, TraceId(9)).await.unwrap();
    assert_eq!(rack.next().await, Event::Message { link: 0, trace: TraceId(9), message: ack });

    rack.client.stop().await;
    let Incoming::Message(_, FromRack::Goodbye) = incoming(&mut seen).await else { panic!("no Goodbye") };
    let Incoming::Closed { why } = incoming(&mut seen).await else { panic!("more after the Goodbye") };
    assert!(why.contains("the rack stops") || why.contains("ended the stream"), "{why}");
    assert!(rack.client.send(0, &report(1), TraceId(0)).await.is_err());
}

#[tokio::test]
async fn a_restarted_region_has_its_racks_back() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = Arc::<Keeper>::default();
    let ca = || Ca::open_or_create(dir.path(), clock::now()).unwrap();
    let mut region = Region::start(ca(), keeper.clone(), loopback());
    let identity = region.enrol().await;
    let address = region.server.address();
    let mut rack = Rack::start(&address.to_string(), &identity);
    rack.up().await;
    let first = region.next().await;
    region.server.stop("the region restarts").await;
    let (why, _) = rack.down().await;
    assert!(why.contains("the region restarts"), "{why}");
    drop((first, region));

    let mut region = Region::again(ca, keeper, address).await;
    rack.up().await;
    let mut seen = region.next().await;
    rack.client.send(0, &FromRack::PlanInForce { generation: Generation(3) }, TraceId(1)).await.unwrap();
    assert!(matches!(incoming(&mut seen).await, Incoming::Message(_, FromRack::PlanInForce { .. })));
}

#[tokio::test]
async fn a_second_connection_of_a_rack_takes_the_place_of_the_first() {
    let mut region = Region::new();
    let identity = region.enrol().await;
    let mut one = Rack::start(&region.address(), &identity);
    one.up().await;
    let mut first = region.next().await;
    let mut two = Rack::start(&region.address(), &identity);
    two.up().await;
    let second = region.next().await;
    assert!(second.number > first.number);
    let Incoming::Closed { why } = incoming(&mut first).await else { panic!() };
    assert!(!why.is_empty());
    let (why, _) = one.down().await;
    assert!(why.contains("connected anew"), "{why}");
    one.client.stop().await;
}
