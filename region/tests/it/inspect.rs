//! `/inspect/v1` over real HTTP: what it shows, of whom, to whom; what it refuses; what it never says.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use actors::{
    clock,
    core::{Core, Moved, RecordError, Resume, Step, TraceId, View},
    shell::{ActorRef, Arbiter, LocalBoxFuture, Perform, Registry, spawn},
};
use schema::{id::Generation, time::Timestamp};
use serde_json::{Value, json};

use crate::api::Region;

mod bad_input;
mod canary;
mod control;
mod losses;
mod metrics;
mod racks;
mod snapshot;
mod stalled;
mod tracing;

/// Holds whoever passes, until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Waits until it is open.
    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// Opens its gate in any case: a test that fails must not wait for its own actor.
struct Opener(Gate);

impl Opener {
    fn open(&self) {
        *self.0.0.0.lock().unwrap() = true;
        self.0.0.1.notify_all();
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.open();
    }
}

/// An actor whose decision waits at a gate.
#[derive(Clone)]
pub(crate) struct Stubborn(Gate);

impl Core for Stubborn {
    const KIND: &'static str = "stubborn";
    type Id = &'static str;
    type Event = &'static str;
    type Effect = ();
    type Timer = u8;

    fn id(&self) -> &'static str {
        "one"
    }

    fn step(&self, event: &&'static str, _: Timestamp) -> Step<Self> {
        if *event == "Block" {
            self.0.pass();
        }
        assert!(*event != "Panic", "told to");
        Step::ignored("")
    }

    fn resume(&self, _: Timestamp) -> Resume<Self> {
        Resume::default()
    }

    fn elapsed(_: u8) -> &'static str {
        "Elapsed"
    }

    fn view(&self) -> View {
        View { state: "stubborn".into(), wait: None, detail: json!({ "held": true }) }
    }
}

#[derive(Clone)]
struct Idle;

impl Perform<Stubborn> for Idle {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn record(&self, _: Moved<Stubborn>) -> LocalBoxFuture<'static, Result<(), RecordError>> {
        Box::pin(async { Ok(()) })
    }

    fn perform(&self, _: &ActorRef<Stubborn>, (): (), _: TraceId) {}
}

fn stubborn(registry: &Registry, arbiter: &Arbiter) -> (ActorRef<Stubborn>, Opener) {
    let gate = Gate::default();
    (spawn(&arbiter.handle(), Stubborn(gate.clone()), Generation(0), Idle, registry, false), Opener(gate))
}

/// Asks until the answer is as wanted.
pub(crate) async fn until(r: &Region, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..300 {
        last = r.get(path).await.json(200);
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{path}: not what was wanted: {last:#}");
}

pub(crate) fn ids(listed: &Value) -> Vec<&str> {
    listed["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn actors_are_listed_filtered_sorted_and_paged() {
    let r = Region::start().await;
    for n in 0..5 {
        r.machine(&format!("fox-{n}"), &format!("52:54:00:77:01:{n:02x}")).await;
    }
    let all = r.get("/inspect/v1/actors").await.json(200);
    assert_eq!(
        (all["total"].as_u64(), all["matched"].as_u64(), all["next"].is_null()),
        (Some(6), Some(6), true),
        "{all}"
    );
    assert_eq!(all["items"][0]["path"], "region/catalogue/catalogue");
    let first = r.get("/inspect/v1/actors?kind=machine&sort=-handled&limit=2&fields=path,label,queue").await.json(200);
    assert_eq!((first["matched"].as_u64(), first["items"].as_array().unwrap().len()), (Some(5), 2));
    assert_eq!(first["items"][0].as_object().unwrap().len(), 3, "{first}");
    let mut seen: Vec<String> = Vec::new();
    let mut next = String::new();
    for page in [2, 2, 1] {
        let said = r.get(&format!("/inspect/v1/actors?kind=machine&limit=2&cursor={next}")).await.json(200);
        assert_eq!(said["items"].as_array().unwrap().len(), page);
        seen.extend(said["items"].as_array().unwrap().iter().map(|i| i["label"].as_str().unwrap().to_owned()));
        next = said["next"].as_str().unwrap_or_default().to_owned();
    }
    seen.sort();
    assert_eq!(seen, ["fox-0", "fox-1", "fox-2", "fox-3", "fox-4"]);
    assert_eq!(r.get("/inspect/v1/actors?q=fox-3").await.json(200)["items"][0]["label"], "fox-3");
    assert_eq!(r.get("/inspect/v1/actors?state=New").await.json(200)["matched"], 5);
    assert_eq!(r.get("/inspect/v1/actors?status=blocked").await.json(200)["matched"], 0);
    let below = r.get("/inspect/v1/actors?parent=region/machine&fields=parent&limit=1").await.json(200);
    assert_eq!((below["matched"].as_u64(), below["items"][0]["parent"].as_str()), (Some(5), Some("region/machine")));
    assert_eq!(r.get("/inspect/v1/actors?parent=region/service/dhcp").await.json(200)["matched"], 0);
    let lines = r.get("/inspect/v1/actors?as=ndjson").await;
    assert_eq!((lines.text.lines().count(), lines.kind.as_str()), (6, "application/x-ndjson; charset=utf-8"));
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_actor_shows_all_its_parts_and_the_whole_is_summed_up() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    r.call("POST", &format!("machines/{id}/?op=mark_broken"), &[("comment", "smoke")]).await.json(200);
    let path = format!("/inspect/v1/actors/region/machine/{id}");
    let shown = r.get(&path).await.json(200);
    assert_eq!((shown["label"].as_str(), shown["state"]["name"].as_str()), (Some("fox"), Some("Broken")), "{shown}");
    assert_eq!(shown["state"]["view"]["spec"]["hostname"], "fox");
    assert_eq!(shown["busy"], Value::Null);
    let events: Vec<_> = shown["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["event"].as_str().unwrap(), m["sender"].as_str().unwrap()))
        .collect();
    assert_eq!(events, [("Created", "api"), ("MarkBroken", "api")]);
    let moves: Vec<_> = shown["transitions"].as_array().unwrap().iter().map(|m| m["to"].as_str().unwrap()).collect();
    assert_eq!(moves, ["New", "Broken"]);
    for part in ["state", "mailbox", "messages", "transitions", "timers", "links"] {
        r.get(&format!("{path}/{part}")).await.json(200);
    }
    assert_eq!(r.get(&format!("{path}/messages?limit=1")).await.json(200)["items"].as_array().unwrap().len(), 1);
    for part in ["messages", "transitions"] {
        let newest = r.get(&format!("{path}/{part}?limit=1")).await.json(200);
        assert_eq!((newest["items"][0]["seq"].as_u64(), newest["earlier"].as_u64()), (Some(2), Some(2)), "{newest}");
        let older = r.get(&format!("{path}/{part}?before=2")).await.json(200);
        assert_eq!((older["items"][0]["seq"].as_u64(), older["earlier"].is_null()), (Some(1), true), "{older}");
        let news = r.get(&format!("{path}/{part}?since=1")).await.json(200);
        assert_eq!((news["items"].as_array().unwrap().len(), news["later"].as_u64()), (1, Some(2)), "{news}");
        assert_eq!(r.get(&format!("{path}/{part}?since=2")).await.json(200)["items"], Value::Array(Vec::new()));
    }
    let summary = r.get("/inspect/v1/summary").await.json(200);
    assert_eq!((summary["actors"].as_u64(), summary["kinds"].as_array().unwrap().len()), (Some(2), 2), "{summary}");
    let tree = r.get("/inspect/v1/tree").await.json(200);
    assert_eq!(tree["nodes"][0]["kinds"][1]["items"][0]["id"], id, "{tree}");
    let folded = r.get("/inspect/v1/tree?depth=2&root=region/machine").await.json(200);
    assert_eq!(folded["nodes"][0]["kinds"][0]["folded"], true, "{folded}");
    let kind = r.get("/inspect/v1/kinds/machine").await.json(200);
    assert_eq!((kind["handled"].as_u64(), kind["senders"]["api"].as_u64()), (Some(2), Some(2)), "{kind}");
    assert_eq!(kind["events"][0]["event"], "Created");
    r.get("/inspect/v1/kinds/nothing").await.is(404, "catalogue, machine");
    let flow = until(&r, "/inspect/v1/flow?window=300", |f| !f["items"].as_array().unwrap().is_empty()).await;
    assert!(flow["items"].as_array().unwrap().iter().any(|f| f["from"] == "api"), "{flow}");
    let heat = r.request("GET", "/inspect/v1/heat?kind=machine&metric=age").header("authorization", r.key.header());
    let heat = heat.send().await.unwrap().bytes().await.unwrap();
    assert_eq!((&heat[..4], heat.len()), ([1, 0, 0, 0].as_slice(), 5));
    let index = r.get("/inspect/v1/heat/index?kind=machine").await;
    assert!(index.headers.contains_key("etag"));
    assert_eq!(index.json(200)["items"][0], format!("region/machine/{id}"));
    assert_eq!(shown["links"]["parent"], "region/machine");
    // What is one thing is one line.
    let parts = ["", "/state", "/timers", "/links", "/mailbox"].map(|part| format!("actors/machine/{id}{part}"));
    let paths = ["", "summary", "tree", "kinds/machine", "restarts", "deadletters", "traces"].map(str::to_owned);
    for path in parts.iter().chain(&paths) {
        let said = r.get(&format!("/inspect/v1/{path}?as=ndjson")).await;
        assert_eq!((said.status.as_u16(), said.kind.as_str()), (200, "application/x-ndjson; charset=utf-8"), "{path}");
        for line in said.text.lines() {
            serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{path}: {e}: {line}"));
        }
    }
    // The page of the fleet leads here.
    let contents = r.get("/inspect/v1/").await.json(200);
    for name in ["summary", "findings", "actors", "tree", "kinds", "flow", "restarts", "deadletters", "messages"] {
        r.get(contents[name].as_str().unwrap()).await.json(200);
    }
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_actor_is_inspectable_and_found_and_a_flooded_one_too() {
    let r = Region::start().await;
    let arbiter = Arbiter::start("stubborn").unwrap();
    let (actor, gate) = stubborn(&r.app().registry, &arbiter);
    actor.tell("Block", TraceId(7)).unwrap();
    let blocked = until(&r, "/inspect/v1/findings?id=actor.blocked", |f| f["count"] == 1).await;
    let finding = &blocked["items"][0];
    assert_eq!(
        (finding["subject"].as_str(), finding["severity"].as_str()),
        (Some("region/stubborn/one"), Some("critical"))
    );
    assert!(finding["since"].is_string() && !finding["remedy"].as_str().unwrap().is_empty());
    let shown = r.get("/inspect/v1/actors/stubborn/one").await.json(200);
    assert_eq!(
        (shown["status"].as_str(), shown["busy"]["trace"].as_str()),
        (Some("blocked"), Some(&*TraceId(7).to_string()))
    );
    assert!(shown["busy"]["since"].is_string(), "{shown}");
    assert_eq!(shown["state"]["view"], json!({ "held": true }), "its state is shown although it is blocked");
    while actor.tell("More", TraceId::default()).is_ok() {}
    let flooded = r.get("/inspect/v1/findings?id=actor.flooded").await.json(200);
    assert_eq!(flooded["items"][0]["subject"], "region/stubborn/one", "found by the first look: {flooded}");
    let listed = r.get("/inspect/v1/actors?min_queue=100&sort=-queue").await.json(200);
    assert_eq!((listed["matched"].as_u64(), listed["items"][0]["queue"].as_u64()), (Some(1), Some(256)));
    assert_eq!(r.get("/inspect/v1/actors?finding=actor.flooded").await.json(200)["matched"], 1);
    assert_eq!(
        r.get("/inspect/v1/actors/stubborn/one/mailbox?limit=3").await.json(200)["items"].as_array().unwrap().len(),
        3
    );
    assert_eq!(r.get("/inspect/v1/summary").await.json(200)["queued"], 256);
    gate.open();
    until(&r, "/inspect/v1/findings", |f| f["count"] == 0).await;
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_what_changes_and_nothing_else() {
    use futures_util::StreamExt;
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    let path = format!("/inspect/v1/watch?topics=actor:machine/{id}&every_ms=250");
    let answer = r.request("GET", &path).header("authorization", r.key.header()).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = answer.bytes_stream();
    let mut heard = String::new();
    let mut broken = false;
    while !heard.contains("\"state\":\"Broken\"") {
        let part = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.expect("the stream is silent");
        heard.push_str(std::str::from_utf8(&part.unwrap().unwrap()).unwrap());
        if !broken {
            assert!(
                heard.starts_with("id: 1\nevent: actor\ndata: {") && heard.contains("\"state\":\"New\""),
                "{heard}"
            );
            broken = true;
            r.call("POST", &format!("machines/{id}/?op=mark_broken"), &[]).await.json(200);
        }
    }
    assert_eq!(r.app().inspector.watchers(), 1);
    drop(stream);
    // The server notices at its next word.
    r.call("POST", &format!("machines/{id}/?op=mark_fixed"), &[]).await.json(200);
    for _ in 0..300 {
        if r.app().inspector.watchers() == 0 {
            return r.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a watcher that left is still counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_a_trace_is_shown() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    let shown = r.get(&format!("/inspect/v1/actors/machine/{id}/messages")).await.json(200);
    let trace = shown["items"][0]["trace"].as_str().unwrap().to_owned();
    let path = r.get(&format!("/inspect/v1/traces/{trace}")).await.json(200);
    assert_eq!((path["trace"].as_str(), path["items"].as_array().unwrap().len()), (Some(&*trace), 1), "{path}");
    assert_eq!(
        (path["items"][0]["actor"].as_str(), path["items"][0]["event"].as_str()),
        (Some(&*format!("machine/{id}")), Some("Created"))
    );
    // What rings forgot stands in the journal: after a restart of the actor, the path is the same.
    r.app().machine(id.parse().unwrap()).await.unwrap().retire();
    until(&r, "/inspect/v1/actors?kind=machine", |a| a["matched"] == 0).await;
    let path = r.get(&format!("/inspect/v1/traces/{trace}")).await.json(200);
    assert_eq!(
        (path["items"][0]["event"].as_str(), path["items"][0]["source"].as_str()),
        (Some("Created"), Some("journal")),
        "{path}"
    );
    r.get("/inspect/v1/traces/00000000000000000000000000000001").await.is(404, "neither in a ring");
    r.stop().await;
}
