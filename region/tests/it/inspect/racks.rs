//! Rack actors through the region: over the real link, from a rack's end that answers with a registry of its own.

use actors::{
    inspection,
    link::client::{ClientConfig, Event, LinkClient},
    shell::{Arbiter, Registry},
};
use schema::{
    id::Generation,
    messages::link::{FromRack, Hello, ToRack},
};
use serde_json::{Value, json};

use super::{ids, stubborn, until};
use crate::{api::Region, health::identity};

#[tokio::test(flavor = "multi_thread")]
async fn a_racks_actors_are_seen_through_the_region() {
    let r = Region::start().await;
    let link = r.app().link_address().unwrap().to_string();
    let identity = identity(r.app(), &link, "elm").await.unwrap();
    let (client, mut events) = LinkClient::start(ClientConfig::new(vec![link]), &identity, || 0.5).unwrap();
    let arbiter = Arbiter::start("rack").unwrap();
    let registry = Registry::default();
    let (actor, gate) = stubborn(&registry, &arbiter);
    let speaking = client.clone();
    let task = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                Event::Up { .. } => {
                    let hello = Hello {
                        version: "0.1.0".into(),
                        hostname: "elm".into(),
                        plan: Generation(0),
                        interfaces: Vec::new(),
                        listening: Vec::new(),
                        orders: Vec::new(),
                        now: actors::clock::now(),
                    };
                    speaking.send(0, &FromRack::Hello(hello), actors::core::TraceId(7)).await.ok();
                }
                Event::Message { trace, message: ToRack::Inspect { number, ask }, .. } => {
                    let (json, left_off) = inspection::answer(&registry, &ask);
                    speaking.send(0, &FromRack::Inspected { number, json, left_off }, trace).await.ok();
                }
                _ => {}
            }
        }
    });
    let rack = identity.rack;
    let listed = until(&r, "/inspect/v1/actors?kind=stubborn", |a| a["matched"] == 1).await;
    assert_eq!(listed["items"][0]["path"], format!("{rack}/stubborn/one"), "{listed}");
    let one = format!("/inspect/v1/actors/{rack}/stubborn/one");
    assert_eq!(r.get(&one).await.json(200)["state"]["view"], json!({ "held": true }));
    r.get(&format!("/inspect/v1/actors/{rack}/stubborn/two")).await.is(404, "is awake on");
    assert_eq!(r.get(&format!("/inspect/v1/kinds?node={rack}")).await.json(200)["items"][0]["kind"], "stubborn");
    // A blocked actor of a rack is found, and its trace leads there.
    actor.tell("Block", actors::core::TraceId(77)).unwrap();
    let found = until(&r, "/inspect/v1/findings", |f| ids(f).contains(&"actor.blocked")).await;
    assert_eq!(found["items"][0]["subject"], format!("{rack}/stubborn/one"));
    assert_eq!(r.get(&one).await.json(200)["status"], "blocked");
    gate.open();
    until(&r, &format!("{one}/messages"), |m| m["items"].as_array().is_some_and(|i| i.len() == 1)).await;
    let path = r.get(&format!("/inspect/v1/traces/{}", actors::core::TraceId(77))).await.json(200);
    assert_eq!(
        (path["items"][0]["node"].as_str(), path["items"][0]["actor"].as_str()),
        (Some(rack.as_str()), Some("stubborn/one"))
    );
    // A rack whose link is down is shown as stale, and answers nothing.
    client.stop().await;
    task.abort();
    let summary = until(&r, "/inspect/v1/summary", |s| s["nodes"][0]["stale_since"].is_string()).await;
    assert_eq!(
        (summary["nodes"][0]["link"].as_str(), summary["nodes"][0]["actors"].as_u64()),
        (Some("disconnected"), Some(0))
    );
    r.get(&one).await.is(503, "is not connected");
    let found = r.get("/inspect/v1/findings").await.json(200);
    assert!(ids(&found).contains(&"rack.away"), "{found}");
    let none = Value::Array(Vec::new());
    assert_eq!(r.get("/inspect/v1/actors?kind=stubborn").await.json(200)["items"], none);
    r.stop().await;
}
