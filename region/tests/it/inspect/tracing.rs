//! Message traces: an actor's messages are kept for who asks, as they come, with no more of their content than was asked for; and not longer.

use std::time::Duration;

use actors::{core::TraceId, shell::Arbiter};
use futures_util::StreamExt;
use serde_json::Value;

use super::stubborn;
use crate::api::{Region, Said};

async fn begin(r: &Region, form: &[(&str, &str)]) -> Said {
    r.call("POST", "/inspect/v1/traces", form).await
}

/// The place of a trace that begins.
async fn begun(r: &Region, form: &[(&str, &str)]) -> String {
    let said = begin(r, form).await;
    let place = said.headers.get("location").unwrap_or_else(|| panic!("{}", said.text)).to_str().unwrap().to_owned();
    assert_eq!(said.json(201)["_links"]["messages"], *place);
    place
}

/// All lines of a stream, up to its end.
async fn lines(r: &Region, place: &str) -> Vec<Value> {
    let said = tokio::time::timeout(Duration::from_secs(120), r.get(place)).await.expect("the trace does not end");
    assert_eq!((said.status.as_u16(), said.kind.as_str()), (200, "application/x-ndjson; charset=utf-8"));
    said.text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_messages_of_an_actor_come_as_they_are_handled() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    let path = format!("machine/{id}");
    let place = begun(&r, &[("path", &path), ("messages", "2"), ("payload", "redacted")]).await;
    let answer = r.request("GET", &place).header("authorization", r.key.header()).send().await.unwrap();
    let mut stream = answer.bytes_stream();
    r.call("POST", &format!("machines/{id}/?op=mark_broken"), &[("comment", "smoke came out")]).await.json(200);
    let first =
        tokio::time::timeout(Duration::from_secs(60), stream.next()).await.expect("nothing comes").unwrap().unwrap();
    let first: Value = serde_json::from_slice(&first).expect("a message before the next one happens");
    assert_eq!(
        (first["event"].as_str(), first["sender"].as_str(), first["verdict"].as_str(), first["to"].as_str()),
        (Some("MarkBroken"), Some("api"), Some("moved"), Some("Broken")),
        "{first}"
    );
    assert!(first["payload"].as_str().unwrap().contains("smoke came out") && first["payload_whole"] == true, "{first}");
    assert!(first["wait_us"].is_u64() && first["handle_us"].is_u64() && first["trace"].is_string());
    let whole = lines(&r, &place);
    let fixing = format!("machines/{id}/?op=mark_fixed");
    let (whole, said) = tokio::join!(whole, r.call("POST", &fixing, &[]));
    said.json(200);
    assert_eq!(whole.iter().filter_map(|m| m["event"].as_str()).collect::<Vec<_>>(), ["MarkBroken", "MarkFixed"]);
    assert_eq!((whole[0].clone(), whole[2]["messages"].as_u64(), whole.len()), (first, Some(2), 3));
    assert!(whole[2]["end"].as_str().unwrap().contains("as many messages"), "{whole:?}");
    // What came is there for a while, from any message on; what comes now is nobody's business.
    r.call("POST", &format!("machines/{id}/?op=mark_broken"), &[]).await.json(200);
    let held = r.get(&format!("{place}?as=json&after=1")).await.json(200);
    assert_eq!((held["runs"].as_bool(), held["items"].as_array().unwrap().len()), (Some(false), 1), "{held}");
    assert_eq!(held["items"][0]["event"], "MarkFixed");
    let events = r.get(&format!("{place}?as=sse")).await;
    assert_eq!(events.kind, "text/event-stream");
    assert!(
        events.text.starts_with("id: 1\nevent: message\ndata: {") && events.text.contains("\nevent: end\n"),
        "{}",
        events.text
    );
    assert_eq!(r.call("DELETE", &place, &[]).await.status.as_u16(), 204);
    r.get(&place).await.is(404, "There is no message trace");
    r.call("DELETE", &place, &[]).await.is(404, "There is no message trace");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_shows_as_much_of_the_content_as_was_asked_for() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    for (payload, shown) in [("", None), ("none", None), ("types", Some("str")), ("redacted", Some("\"smoke\""))] {
        let path = format!("region/machine/{id}");
        // Left away, it is none.
        let form = [("path", path.as_str()), ("messages", "1"), ("payload", payload)];
        let place = begun(&r, &form[..if payload.is_empty() { 2 } else { 3 }]).await;
        r.call("POST", &format!("machines/{id}/?op=mark_broken"), &[("comment", "smoke")]).await.json(200);
        let message = lines(&r, &place).await.remove(0);
        assert_eq!(message["event"], "MarkBroken", "{message}");
        match shown {
            None => assert!(message.get("payload").is_none(), "{message}"),
            Some(part) => {
                let text = message["payload"].as_str().unwrap();
                assert!(text.contains(part) && (payload == "redacted" || !text.contains("smoke")), "{text}");
            }
        }
        r.call("DELETE", &place, &[]).await;
        r.call("POST", &format!("machines/{id}/?op=mark_fixed"), &[]).await.json(200);
    }
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_actor_can_be_traced_and_its_time_ends_a_trace() {
    let r = Region::start().await;
    let arbiter = Arbiter::start("stubborn").unwrap();
    let (actor, gate) = stubborn(&r.app().registry, &arbiter);
    actor.tell("Block", TraceId(7)).unwrap();
    super::until(&r, "/inspect/v1/actors/stubborn/one", |a| a["busy"].is_object()).await;
    let place = begun(&r, &[("path", "stubborn/one"), ("seconds", "60"), ("messages", "3")]).await;
    let held = r.get(&format!("{place}?as=json")).await.json(200);
    assert_eq!(
        (held["runs"].as_bool(), held["end"].is_null(), held["items"].as_array().unwrap().len()),
        (Some(true), true, 0)
    );
    begin(&r, &[("path", "stubborn/one")]).await.is(409, &format!("Read {place}."));
    actor.tell("More", TraceId(8)).unwrap();
    actor.tell("More", TraceId(9)).unwrap();
    gate.open();
    let whole = lines(&r, &place).await;
    let traces: Vec<_> = whole.iter().filter_map(|m| m["trace"].as_str()).collect();
    assert_eq!(traces, [7, 8, 9].map(|n| TraceId(n).to_string()), "the one in hand, too: {whole:?}");
    // An ended trace does not hinder the next, which ends by its time without a message.
    let place = begun(&r, &[("path", "stubborn/one"), ("seconds", "1")]).await;
    let whole = lines(&r, &place).await;
    assert_eq!((whole.len(), whole[0]["end"].as_str()), (1, Some("its time is over")), "{whole:?}");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_traces_run_at_once_and_administrators_begin_them() {
    let r = Region::start().await;
    let mut places = Vec::new();
    let mut paths = Vec::new();
    for n in 0..5 {
        let made = r.machine(&format!("fox-{n}"), &format!("52:54:00:77:01:{n:02x}")).await;
        paths.push(format!("region/machine/{}", made["system_id"].as_str().unwrap()));
    }
    for path in &paths[..4] {
        places.push(begun(&r, &[("path", path)]).await);
    }
    let full = begin(&r, &[("path", &paths[4])]).await;
    full.is(503, "4 message traces run already");
    full.is(503, places[0].rsplit('/').next().unwrap());
    let listed = r.get("/inspect/v1/traces").await.json(200);
    assert_eq!(
        (listed["items"].as_array().unwrap().len(), listed["items"][0]["by"].as_str()),
        (4, Some("admin")),
        "{listed}"
    );
    assert_eq!(r.call("DELETE", &places[1], &[]).await.status.as_u16(), 204);
    begun(&r, &[("path", &paths[4])]).await;
    let bob = r.user("bob").await;
    for (method, path) in [
        ("POST", "/inspect/v1/traces"),
        ("GET", "/inspect/v1/traces"),
        ("DELETE", places[0].as_str()),
        ("GET", &places[0]),
    ] {
        r.send(r.request(method, path), Some(&bob)).await.is(403, "administrator");
        r.send(r.request(method, path), None).await.is(401, "API key");
    }
    // Where there is room, an actor that sleeps is named.
    assert_eq!(r.call("DELETE", &places[2], &[]).await.status.as_u16(), 204);
    begin(&r, &[("path", "machine/zzzzzz")]).await.is(404, "is awake on region");
    r.stop().await;
}
