//! What may be done to actors, where the configuration admits it; and the inspection's own listener.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use actors::{core::TraceId, shell::Arbiter};
use serde_json::Value;

use super::{Gate, Opener, stubborn, until};
use crate::{api::Region, health::identity};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_to_actors_unless_the_configuration_says_so() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let path = format!("/inspect/v1/actors/machine/{}", fox["system_id"].as_str().unwrap());
    let before = r.get(&path).await.json(200);
    let bob = r.user("bob").await;
    for verb in ["restart", "drain", "resume"] {
        let place = format!("{path}/{verb}");
        let said = r.send(r.request("POST", &place), None).await;
        assert_eq!((said.status.as_u16(), said.kind.as_str()), (401, "application/problem+json"), "{}", said.text);
        r.send(r.request("POST", &place), Some(&bob)).await.is(403, "administrator");
        let said = r.call("POST", &place, &[]).await;
        assert_eq!((said.status.as_u16(), said.kind.as_str()), (403, "application/problem+json"), "{}", said.text);
        let problem: Value = serde_json::from_str(&said.text).unwrap();
        assert_eq!(problem["type"], "urn:hostler:problem:off");
        assert!(problem["remedy"].as_str().unwrap().contains("inspect.control = true"), "{problem}");
        assert!(said.headers.get("retry-after").is_none(), "asking again does not help");
    }
    assert_eq!(r.get(&path).await.json(200)["started"], before["started"], "it goes on as it was");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_is_loaded_anew_with_what_it_was_and_goes_on() {
    let r = Region::start_with(|config| config.inspect_control = true).await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    let call = async |id: &str, op: &str| r.call("POST", &format!("machines/{id}/?op={op}"), &[]).await.json(200);
    call(id, "mark_broken").await;
    let path = format!("/inspect/v1/actors/region/machine/{id}");
    let before = r.get(&path).await.json(200);
    let done = r.call("POST", &format!("{path}/restart"), &[]).await.json(200);
    let told = [&done["path"], &done["done"], &done["state"]].map(|v| v.as_str().unwrap());
    assert_eq!(told, [&format!("region/machine/{id}"), "restart", "Broken"], "{done}");
    assert_eq!(done["generation"], before["state"]["generation"]);
    let after = r.get(&path).await.json(200);
    assert_eq!(after["state"]["view"], before["state"]["view"], "its state is that of the store");
    assert_eq!((after["handled"].as_u64(), before["handled"].as_u64()), (Some(0), Some(2)), "another actor has it");
    let restarts = r.get("/inspect/v1/restarts?kind=machine").await.json(200);
    assert_eq!(restarts["items"][0]["actor"], format!("machine/{id}"), "{restarts}");
    call(id, "mark_fixed").await;
    assert_eq!(r.get(&path).await.json(200)["state"]["name"], "Ready");
    // The catalogue goes on, too.
    r.call("POST", "/inspect/v1/actors/catalogue/catalogue/restart", &[]).await.json(200);
    r.machine("owl", "52:54:00:77:00:02").await;
    let bob = r.user("bob").await;
    r.send(r.request("GET", "/inspect/v1/summary"), Some(&bob)).await.json(200);
    // What makes no sense is refused with what does.
    r.call("POST", &format!("{path}/drain"), &[]).await.is(409, "Drain a rack");
    r.call("POST", &format!("{path}/resume"), &[]).await.is(409, "neither drained nor quarantined");
    r.call("POST", &format!("{path}/dance"), &[]).await.is(404, "one of restart, drain, resume");
    r.call("POST", "/inspect/v1/actors/machine/zzzzzz/restart", &[]).await.is(404, "is awake on region");
    r.call("POST", "/inspect/v1/actors/machine/restart", &[]).await.is(400, "write NODE/KIND/ID");
    let arbiter = Arbiter::start("stubborn").unwrap();
    let (actor, gate) = stubborn(&r.app().registry, &arbiter);
    r.call("POST", "/inspect/v1/actors/stubborn/one/restart", &[]).await.is(409, "come and go");
    actor.tell("Block", TraceId(7)).unwrap();
    until(&r, "/inspect/v1/findings?id=actor.blocked", |f| f["count"] == 1).await;
    r.call("POST", "/inspect/v1/actors/stubborn/one/restart", &[]).await.is(409, "is blocked");
    gate.open();
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_is_drained_and_resumed_as_by_its_own_command() {
    let r = Region::start_with(|config| config.inspect_control = true).await;
    let link = r.app().link_address().unwrap().to_string();
    let rack = identity(r.app(), &link, "elm").await.unwrap().rack;
    r.app().rack(rack).await.unwrap();
    let path = format!("/inspect/v1/actors/region/rack/{rack}");
    let drained = async || r.get(&format!("rackcontrollers/{rack}/")).await.json(200)["drained"].clone();
    assert_eq!(drained().await, Value::Null);
    let done = r.call("POST", &format!("{path}/drain"), &[]).await.json(200);
    assert!(done["drained"].is_string() && done["drained"] == drained().await, "{done}");
    assert_eq!(r.call("POST", &format!("{path}/drain"), &[]).await.json(200)["drained"], done["drained"], "since then");
    // It holds over a restart of the actor.
    r.call("POST", &format!("{path}/restart"), &[]).await.json(200);
    assert_eq!(drained().await, done["drained"]);
    assert_eq!(r.call("POST", &format!("{path}/resume"), &[]).await.json(200)["undrained"], true);
    assert_eq!(drained().await, Value::Null);
    r.call("POST", &format!("{path}/resume"), &[]).await.is(409, "neither drained nor quarantined");
    r.stop().await;
}

/// A request by hand, from a thread of its own: nothing of it needs the runtime that the region is on. The answer's first line and its body.
fn by_hand(to: SocketAddr, path: &str, key: &str) -> (String, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nauthorization: {key}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inspection_answers_on_its_own_port_while_the_regions_threads_are_held() {
    let r = Region::start_with(|config| config.inspect_listen = Some(([127, 0, 0, 1], 0).into())).await;
    let own = r.inspect().unwrap();
    r.get("/inspect/v1/summary").await.json(200);
    let (keys, gate) = ([r.key.header(), r.key.header(), r.key.header()], Opener(Gate::default()));
    // Every thread of the runtime, this one too, waits at a gate that the last answer opens.
    for _ in 0..2 {
        let gate = gate.0.clone();
        tokio::spawn(async move { gate.pass() });
    }
    let looks = std::thread::spawn(move || {
        let paths = ["/inspect/v1/summary", "/inspect/v1/actors", "/MAAS/api/2.0/machines/"];
        let said = paths.iter().zip(&keys).map(|(path, key)| by_hand(own, path, key)).collect::<Vec<_>>();
        let nobody = by_hand(own, "/inspect/v1/summary", "");
        gate.open();
        (said, nobody)
    });
    let (said, nobody) = looks.join().unwrap();
    assert!(said[0].0.contains(" 200 ") && said[0].1.contains("\"age_ms\""), "{said:?}");
    assert!(said[1].0.contains(" 200 ") && said[1].1.contains("region/catalogue/catalogue"), "{said:?}");
    assert!(said[2].0.contains(" 404 "), "only the inspection is there: {said:?}");
    assert!(nobody.0.contains(" 401 "), "{nobody:?}");
    r.stop().await;
}
