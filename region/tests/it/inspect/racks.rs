//! Rack actors through the region: over the real link, from a rack's end that answers with a registry of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use actors::{
    inspection,
    link::client::{ClientConfig, Event, LinkClient},
    shell::{Arbiter, Registry},
};
use schema::{
    id::Generation,
    messages::link::{FromRack, Hello, InspectAsk, ToRack},
    service::{Health, ServiceStatus},
};
use serde_json::{Value, json};

use super::{ids, stubborn, until};
use crate::{api::Region, health::identity};

/// Waits until the metrics have that line.
async fn measured(r: &Region, line: &str) {
    until_put(r, line, async || {}).await;
}

/// As [`measured`]; `again` is done before each look.
async fn until_put(r: &Region, line: &str, again: impl AsyncFn()) {
    let mut last = String::new();
    for _ in 0..300 {
        again().await;
        last = r.get("/metrics").await.text;
        if last.contains(line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{line} is not in {last}");
}

/// However many look at once, the rack is asked for its rows once a second at most; and each answer says how old they are.
async fn asked_once_for_all(r: &Region, rows: &AtomicU64) {
    let (before, began) = (rows.load(SeqCst), actors::clock::tick());
    for _ in 0..5 {
        let looks = (0..10).map(|_| r.get("/inspect/v1/summary"));
        for said in futures_util::future::join_all(looks).await {
            let summary = said.json(200);
            let node = &summary["nodes"][0];
            assert!(node["at"].is_string() && node["age_ms"].is_u64(), "{summary}");
            // The link is up, so what is told was asked for within the last second, and the time that this took.
            assert!(node["age_ms"].as_u64() <= Some(1_000 + began.elapsed().as_millis() as u64), "{summary}");
        }
    }
    let (asked, most) = (rows.load(SeqCst) - before, began.elapsed().as_secs() + 1);
    assert!(asked <= most, "asked {asked} times for 50 looks within {most} s");
    assert!(r.get("/inspect/v1/actors?limit=1").await.json(200)["age_ms"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_racks_actors_are_seen_through_the_region() {
    let r = Region::start_with(|config| config.inspect_control = true).await;
    let link = r.app().link_address().unwrap().to_string();
    let identity = identity(r.app(), &link, "elm").await.unwrap();
    let (client, mut events) = LinkClient::start(ClientConfig::new(vec![link]), &identity, || 0.5).unwrap();
    let arbiter = Arbiter::start("rack").unwrap();
    let registry = Registry::default();
    let (actor, gate) = stubborn(&registry, &arbiter);
    let (speaking, plan) = (client.clone(), Arc::<AtomicU64>::default());
    let (heard, rows) = (plan.clone(), Arc::<AtomicU64>::default());
    let asked = rows.clone();
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
                Event::Message { message: ToRack::Plan(update), .. } => heard.store(update.generation.0, SeqCst),
                Event::Message { trace, message: ToRack::Inspect { number, ask }, .. } => {
                    asked.fetch_add(u64::from(ask == InspectAsk::Actors), SeqCst);
                    let (json, left_off) = inspection::answer(&registry, &ask);
                    speaking.send(0, &FromRack::Inspected { number, json, left_off }, trace).await.ok();
                }
                _ => {}
            }
        }
    });
    let rack = identity.rack;
    let listed = until(&r, &format!("/inspect/v1/actors?node={rack}"), |a| a["matched"] == 1).await;
    assert_eq!(r.get("/inspect/v1/actors?kind=stubborn").await.json(200)["matched"], 1, "a kind that only a rack has");
    assert_eq!(listed["items"][0]["path"], format!("{rack}/stubborn/one"), "{listed}");
    asked_once_for_all(&r, &rows).await;
    let one = format!("/inspect/v1/actors/{rack}/stubborn/one");
    assert_eq!(r.get(&one).await.json(200)["state"]["view"], json!({ "held": true }));
    r.get(&format!("/inspect/v1/actors/{rack}/stubborn/two")).await.is(404, "is awake on");
    r.call("POST", &format!("{one}/restart"), &[]).await.is(409, "restart the rack's process");
    r.call("POST", &format!("{one}/drain"), &[]).await.is(409, &format!("drain region/rack/{rack}"));
    r.call("POST", &format!("/inspect/v1/actors/{rack}/stubborn/two/restart"), &[]).await.is(404, "is awake on");
    assert_eq!(r.get(&format!("/inspect/v1/kinds?node={rack}")).await.json(200)["items"][0]["kind"], "stubborn");
    // Its next messages are traced over the link.
    let form = [("path", &*format!("{rack}/stubborn/one")), ("messages", "2"), ("payload", "redacted")];
    let begun = r.call("POST", "/inspect/v1/traces", &form).await.json(201);
    let place = begun["_links"]["messages"].as_str().unwrap().to_owned();
    r.call("POST", "/inspect/v1/traces", &form).await.is(409, "are traced already");
    let (messages, ()) = tokio::join!(r.get(&place), async {
        for event in ["First", "Second", "Third"] {
            actor.tell(event, actors::core::TraceId(5)).unwrap();
        }
    });
    let lines: Vec<Value> = messages.text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(
        lines.iter().map(|line| line["payload"].as_str()).collect::<Vec<_>>(),
        [Some("\"First\""), Some("\"Second\""), None],
        "{}",
        messages.text
    );
    assert!(lines[2]["end"].is_string());
    assert_eq!(r.call("DELETE", &place, &[]).await.status.as_u16(), 204);
    // The path of that work leads there, too.
    let path = r.get(&format!("/inspect/v1/traces/{}", actors::core::TraceId(5))).await.json(200);
    assert_eq!(
        (path["items"][0]["node"].as_str(), path["items"][0]["actor"].as_str()),
        (Some(rack.as_str()), Some("stubborn/one"))
    );
    r.call("POST", "/inspect/v1/traces", &[("path", &*format!("{rack}/stubborn/two"))]).await.is(404, "is awake on");
    // Its log stands in the debug bundle.
    actors::tail::keep(b"a line of the rack\n");
    let parts = super::snapshot::bundle(&r, "").await;
    let log = parts.get(&format!("racks/{rack}/log.txt"));
    assert!(log.is_some_and(|log| log.contains("a line of the rack\n")), "{log:?}");
    // How much the link carries, each way; its streams; and how far the rack is behind with the names.
    let flow = until(&r, "/inspect/v1/flow?window=300", |f| f["nodes"].as_array().is_some_and(|n| n.len() == 2)).await;
    for (from, to) in [("region", rack.as_str()), (rack.as_str(), "region")] {
        let one = flow["nodes"].as_array().unwrap().iter().find(|n| n["from"] == from && n["to"] == to);
        assert!(one.is_some_and(|one| one["per_s"].as_f64().unwrap() > 0.0), "{flow}");
    }
    let lines = r.get("/inspect/v1/flow?window=300&as=ndjson").await.text;
    assert!(lines.contains("\"between\":\"nodes\"") && lines.contains("\"between\":\"kinds\""), "{lines}");
    measured(&r, &format!("hostler_quic_streams{{rack=\"{rack}\"}} 1\n")).await;
    // What it says of its services is measured, and how often one died is listed.
    let status = |service: &str, counters: &[(&str, u64)]| ServiceStatus {
        service: service.into(),
        health: Health::Running,
        since: actors::clock::now(),
        addresses: Vec::new(),
        counters: counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        last_error: None,
        restarts: u32::from(service == "tftp") * 3,
    };
    let services = vec![
        status("dhcp", &[("discover", 3), ("offer", 2)]),
        status("tftp", &[("bytes", 10)]),
        status("http", &[("connections", 1), ("bytes_kernel", 20)]),
    ];
    client.send(0, &FromRack::Services(services), actors::core::TraceId(7)).await.unwrap();
    measured(&r, &format!("hostler_dhcp_requests_total{{rack=\"{rack}\",type=\"discover\"}} 3\n")).await;
    measured(&r, &format!("hostler_tftp_bytes_total{{rack=\"{rack}\"}} 10\n")).await;
    measured(&r, &format!("hostler_http_boot_bytes_total{{rack=\"{rack}\",kind=\"kernel\"}} 20\n")).await;
    assert!(!r.get("/metrics").await.text.contains("type=\"offer\""), "an answer is no request");
    let died = r.get(&format!("/inspect/v1/restarts?node={rack}&kind=service")).await.json(200);
    assert_eq!(
        (died["items"][0]["actor"].as_str(), died["items"][0]["count"].as_u64()),
        (Some("service/tftp"), Some(3))
    );
    let lag = |n: u64| format!("hostler_dns_serial_lag{{rack=\"{rack}\"}} {n}\n");
    let in_force = async || {
        let generation = Generation(plan.load(SeqCst));
        client.send(0, &FromRack::PlanInForce { generation }, actors::core::TraceId(7)).await.unwrap();
    };
    until_put(&r, &lag(0), &in_force).await;
    r.call("POST", "dnsresources/", &[("name", "www"), ("domain", "maas"), ("ip_addresses", "10.77.0.80")])
        .await
        .json(200);
    let behind = async || !r.get("/metrics").await.text.contains(&lag(0));
    for _ in 0..300 {
        if behind().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(behind().await, "a name changed, and the rack has not said that it has it");
    until_put(&r, &lag(0), &in_force).await;
    // A blocked actor of a rack is found.
    actor.tell("Block", actors::core::TraceId(77)).unwrap();
    let found = until(&r, "/inspect/v1/findings?id=actor.blocked", |f| f["count"] == 1).await;
    assert_eq!(found["items"][0]["subject"], format!("{rack}/stubborn/one"));
    assert_eq!(r.get(&one).await.json(200)["status"], "blocked");
    // So is a flooded one, and what found no room there.
    while actor.tell("More", actors::core::TraceId(78)).is_ok() {}
    let flooded = until(&r, "/inspect/v1/findings?id=actor.flooded", |f| f["count"] == 1).await;
    assert_eq!(flooded["items"][0]["subject"], format!("{rack}/stubborn/one"));
    let letters = r.get(&format!("/inspect/v1/deadletters?node={rack}")).await.json(200);
    assert_eq!(
        (letters["matched"].as_u64(), letters["items"][0]["actor"].as_str()),
        (Some(1), Some("stubborn/one")),
        "{letters}"
    );
    gate.open();
    until(&r, &format!("{one}/messages"), |m| m["items"].as_array().is_some_and(|i| !i.is_empty())).await;
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
    assert_eq!(r.get(&format!("/inspect/v1/actors?node={rack}")).await.json(200)["items"], none);
    r.stop().await;
}
