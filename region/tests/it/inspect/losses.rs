//! Restarts and dead letters over HTTP: what happened to whom, how often, and which are asked for.

use actors::{core::TraceId, shell::Arbiter};

use super::{stubborn, until};
use crate::api::Region;

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_room_and_actors_that_did_not_go_on_are_listed() {
    let r = Region::start().await;
    let none = r.get("/inspect/v1/deadletters").await.json(200);
    assert_eq!((none["matched"].as_u64(), none["nodes_without_answer"].as_array().map(Vec::len)), (Some(0), Some(0)));
    let arbiter = Arbiter::start("stubborn").unwrap();
    let (actor, gate) = stubborn(&r.app().registry, &arbiter);
    actor.tell("Block", TraceId(7)).unwrap();
    // An actor that has not begun yet has room for sixteen only, and calls itself gone beyond that.
    until(&r, "/inspect/v1/actors/stubborn/one", |a| a["busy"].is_object()).await;
    while actor.tell("More", TraceId(8)).is_ok() {}
    assert!(actor.tell("More", TraceId(9)).is_err());
    let letters = r.get("/inspect/v1/deadletters?kind=stubborn").await.json(200);
    let letter = &letters["items"][0];
    assert_eq!(
        (letter["actor"].as_str(), letter["node"].as_str(), letter["count"].as_u64(), letter["trace"].as_str()),
        (Some("stubborn/one"), Some("region"), Some(2), Some(&*TraceId(9).to_string())),
        "{letters}"
    );
    assert!(letter["why"].as_str().unwrap().contains("the mailbox is full (256 wait)"), "{letter}");
    assert_eq!(r.get("/inspect/v1/deadletters?kind=machine").await.json(200)["matched"], 0);
    assert_eq!(r.get("/inspect/v1/deadletters?node=region&limit=1&as=ndjson").await.text.lines().count(), 1);
    gate.open();
    // A decision that panics three times: listed as such, and with its quarantine.
    for _ in 0..3 {
        while actor.tell("Panic", TraceId(1)).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let restarts = until(&r, "/inspect/v1/restarts", |s| s["matched"] == 2).await;
    let reasons: Vec<_> = restarts["items"].as_array().unwrap().iter().map(|i| i["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["quarantined", "panicked"], "{restarts}");
    assert_eq!(
        (restarts["items"][1]["count"].as_u64(), restarts["items"][1]["why"].as_str()),
        (Some(3), Some("told to"))
    );
    // An actor that another process overtook, or that is to be loaded anew.
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    r.app().machine(id.parse().unwrap()).await.unwrap().retire();
    let overtaken = until(&r, "/inspect/v1/restarts?kind=machine", |s| s["matched"] == 1).await;
    assert_eq!(overtaken["items"][0]["actor"], format!("machine/{id}"));
    r.stop().await;
}
