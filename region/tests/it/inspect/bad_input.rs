//! Bad input to every parameter: one clear answer that names field, value, bound and remedy. And who may look at all.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::Value;

use crate::api::{Region, Said};

/// Path, the field that is at fault, the value, and words of bound and remedy.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("actors?limit=0", "limit", "0", "from 1 to 1000; give one"),
    ("actors?limit=1001", "limit", "1001", "from 1 to 1000; give one"),
    ("actors?limit=many", "limit", "many", "from 1 to 1000; give one"),
    ("actors?limit=-1", "limit", "-1", "from 1 to 1000; give one"),
    ("actors?sort=colour", "sort", "colour", "use one of path, queue, -queue"),
    ("actors?status=dead", "status", "dead", "use one of idle, busy"),
    ("actors?node=nowhere", "node", "nowhere", "use region, or the system id of a rack"),
    ("actors?min_queue=x", "min_queue", "x", "from 0 to 1000000; give one"),
    ("actors?min_wait_ms=1e9", "min_wait_ms", "1e9", "from 0 to 86400000; give one"),
    ("actors?finding=bad.luck", "finding", "bad.luck", "use one of actor.blocked"),
    ("actors?cursor=%25%25", "cursor", "%%", "use the value of"),
    ("actors?cursor=b2Zmc2V0OngK", "cursor", "b2Zmc2V0OngK", "use the value of"),
    ("actors?fields=path,secret", "fields", "secret", "use some of path"),
    ("actors?as=xml", "as", "xml", "use one of json, ndjson"),
    ("actors?colour=red", "colour", "red", "use kind, node"),
    ("actors?kind=%00", "kind", "", "control characters; give a shorter one"),
    ("actors?q=%07", "q", "", "control characters; give a shorter one"),
    ("actors?state=%1b", "state", "", "control characters; give a shorter one"),
    ("actors?kind=machines", "kind", "machines", "use one of agent, catalogue, errand"),
    ("actors?kind=", "kind", "", "is empty; give a value, or leave kind away"),
    ("actors?limit=%20", "limit", "", "is empty; give a value, or leave limit away"),
    ("actors?fields=", "fields", "", "is empty; give a value, or leave fields away"),
    ("actors?limit=1&limit=2", "limit", "1", "give limit once"),
    ("actors?limit=99999999999999999999", "limit", "99999999999999999999", "from 1 to 1000; give one"),
    ("heat?kind=machines", "kind", "machines", "use one of agent, catalogue, errand"),
    ("restarts?kind=machines", "kind", "machines", "use one of agent, catalogue, errand"),
    ("watch?topics=kind:machines", "topics", "kind:machines", "kind:KIND (agent, catalogue"),
    ("watch?topics=", "topics", "", "is empty; give a value, or leave topics away"),
    ("summary?as=", "as", "", "is empty; give a value, or leave as away"),
    ("actors?parent=region", "parent", "region", "use one that \"parent\" of an actor names"),
    ("actors?parent=nowhere/machine", "parent", "nowhere/machine", "use one that \"parent\" of an actor names"),
    ("actors?parent=region/a/b/c", "parent", "region/a/b/c", "use one that \"parent\" of an actor names"),
    ("tree?depth=4", "depth", "4", "from 1 to 3; give one"),
    ("tree?root=nowhere/machine", "root", "nowhere/machine", "use region, or the system id of a rack"),
    ("tree?fold=paper", "fold", "paper", "use one of kind, none"),
    ("kinds?node=nowhere", "node", "nowhere", "use region, or the system id of a rack"),
    ("flow?window=0", "window", "0", "from 1 to 300; give one"),
    ("flow?window=301", "window", "301", "from 1 to 300; give one"),
    ("heat?metric=colour", "metric", "colour", "use one of queue, wait"),
    ("heat/index?metric=queue", "metric", "queue", "use kind, as"),
    ("findings?severity=awful", "severity", "awful", "use one of critical, warning"),
    ("findings?id=x", "id", "x", "use one of actor.blocked"),
    ("summary?kind=machine", "kind", "machine", "use as"),
    ("summary?as=xml", "as", "xml", "use one of json, ndjson"),
    ("?as=xml", "as", "xml", "use one of json, ndjson"),
    ("tree?as=xml", "as", "xml", "use one of json, ndjson"),
    ("kinds?as=xml", "as", "xml", "use one of json, ndjson"),
    ("kinds/catalogue?as=xml", "as", "xml", "use one of json, ndjson"),
    ("kinds/catalogue?node=nowhere", "node", "nowhere", "use region, or the system id of a rack"),
    ("flow?as=xml", "as", "xml", "use one of json, ndjson"),
    ("heat?kind=%00", "kind", "", "control characters; give a shorter one"),
    ("heat/index?kind=%00", "kind", "", "control characters; give a shorter one"),
    ("heat/index?as=xml", "as", "xml", "use one of json, ndjson"),
    ("findings?as=xml", "as", "xml", "use one of json, ndjson"),
    ("restarts?node=nowhere", "node", "nowhere", "use region, or the system id of a rack"),
    ("restarts?kind=%00", "kind", "", "control characters; give a shorter one"),
    ("restarts?limit=0", "limit", "0", "from 1 to 1000; give one"),
    ("restarts?as=xml", "as", "xml", "use one of json, ndjson"),
    ("deadletters?node=nowhere", "node", "nowhere", "use region, or the system id of a rack"),
    ("deadletters?kind=%00", "kind", "", "control characters; give a shorter one"),
    ("deadletters?limit=1001", "limit", "1001", "from 1 to 1000; give one"),
    ("deadletters?as=xml", "as", "xml", "use one of json, ndjson"),
    ("traces?as=xml", "as", "xml", "use one of json, ndjson"),
    ("traces/m0000000000000000?as=xml", "as", "xml", "use one of ndjson, sse, json"),
    ("traces/m0000000000000000?after=101", "after", "101", "from 0 to 100; give one"),
    ("traces/00000000000000000000000000000001?as=xml", "as", "xml", "use one of json, ndjson"),
    ("watch?topics=everything", "topics", "everything", "none of summary, findings, flow"),
    ("watch?every_ms=1", "every_ms", "1", "from 250 to 60000; give one"),
    ("traces/xyz", "trace", "xyz", "32 hexadecimal digits; copy it from"),
    ("explain/aaaaaa?colour=red", "colour", "red", "none is taken here"),
    ("actors/catalogue/catalogue/messages?limit=x", "limit", "x", "from 1 to 1000; give one"),
    ("actors/catalogue/catalogue/messages?before=0", "before", "0", "from 1 to 4294967295; give one"),
    ("actors/catalogue/catalogue/messages?before=last", "before", "last", "from 1 to 4294967295; give one"),
    ("actors/catalogue/catalogue/messages?since=-1", "since", "-1", "from 0 to 4294967295; give one"),
    ("actors/catalogue/catalogue/messages?since=4294967296", "since", "4294967296", "from 0 to 4294967295; give one"),
    ("actors/catalogue/catalogue/messages?before=5&since=4", "since", "4", "leaves nothing before 5; give a smaller"),
    ("actors/catalogue/catalogue/messages?since=", "since", "", "is empty; give a value, or leave since away"),
    ("actors/catalogue/catalogue/transitions?limit=0", "limit", "0", "from 1 to 1000; give one"),
    ("actors/catalogue/catalogue/transitions?before=0", "before", "0", "from 1 to 4294967295; give one"),
    ("actors/catalogue/catalogue/transitions?since=soon", "since", "soon", "from 0 to 4294967295; give one"),
    ("actors/catalogue/catalogue/transitions?as=xml", "as", "xml", "use one of json, ndjson"),
    ("actors/catalogue/catalogue/mailbox?since=1", "since", "1", "use limit, as"),
    ("actors/catalogue/catalogue/mailbox?limit=0", "limit", "0", "from 1 to 1000; give one"),
    ("actors/catalogue/catalogue/mailbox?as=xml", "as", "xml", "use one of json, ndjson"),
    ("actors/catalogue/catalogue/messages?as=xml", "as", "xml", "use one of json, ndjson"),
    ("actors/catalogue/catalogue?limit=1", "limit", "1", "use as"),
    ("actors/catalogue/catalogue?as=xml", "as", "xml", "use one of json, ndjson"),
];

/// The same of what is asked for by POST: path, form, field, value, words.
const POSTS: &[(&str, &str, &str, &str, &str)] = &[
    ("traces", "", "path", "", "write NODE/KIND/ID"),
    ("traces", "path=catalogue", "path", "catalogue", "write NODE/KIND/ID"),
    ("traces", "path=nowhere/machine/aaaaaa", "path", "nowhere/machine/aaaaaa", "write NODE/KIND/ID"),
    ("traces", "path=a/b/c/d", "path", "a/b/c/d", "write NODE/KIND/ID"),
    ("traces", "path=catalogue/catalogue&messages=0", "messages", "0", "from 1 to 100; give one"),
    ("traces", "path=catalogue/catalogue&messages=101", "messages", "101", "from 1 to 100; give one"),
    ("traces", "path=catalogue/catalogue&seconds=61", "seconds", "61", "from 1 to 60; give one"),
    ("traces", "path=catalogue/catalogue&seconds=soon", "seconds", "soon", "from 1 to 60; give one"),
    ("traces", "path=catalogue/catalogue&payload=all", "payload", "all", "use one of none, types, redacted"),
    ("traces", "path=catalogue/catalogue&colour=red", "colour", "red", "use path, messages, seconds, payload"),
    ("snapshot", "actors=101", "actors", "101", "from 0 to 100; give one"),
    ("snapshot", "lines=5001", "lines", "5001", "from 0 to 5000; give one"),
    ("snapshot", "actors=", "actors", "", "is empty; give a value, or leave actors away"),
    ("snapshot", "lines=1&lines=1", "lines", "1", "give lines once"),
    ("traces", "path=catalogue/catalogue&seconds=", "seconds", "", "is empty; give a value, or leave seconds away"),
    ("actors/catalogue/catalogue/restart", "colour=red", "colour", "red", "none is taken here"),
    ("actors/catalogue/catalogue/drain", "colour=red", "colour", "red", "none is taken here"),
    ("actors/catalogue/catalogue/resume", "colour=red", "colour", "red", "none is taken here"),
    ("snapshot", "colour=red", "colour", "red", "use actors, lines"),
];

/// Checks one problem.
fn is_named(said: &Said, asked: &str, field: &str, value: &str, words: &str) {
    let kind = (said.status, said.kind.as_str());
    assert_eq!(kind, (StatusCode::BAD_REQUEST, "application/problem+json"), "{asked}: {}", said.text);
    let problem: Value = serde_json::from_str(&said.text).unwrap();
    let message = problem["fields"][field][0].as_str().unwrap_or_else(|| panic!("{asked}: {problem}"));
    // Of control characters, nothing is repeated.
    let repeated = if value.is_empty() { "\"".to_owned() } else { format!("\"{value}\"") };
    assert!(message.contains(&repeated) && message.contains(words), "{asked}: {message}");
    assert_eq!(problem["fields"].as_object().unwrap().len(), 1, "{asked}: only what is wrong is named");
    assert_eq!(problem["fields"][field].as_array().unwrap().len(), 1, "{asked}: and once");
    assert!(!problem["remedy"].as_str().unwrap().is_empty());
}

/// The parameters that a path says it takes, when it is given one that it does not.
async fn taken(r: &Region, method: &str, path: &str) -> Vec<String> {
    let said = r.call(method, &format!("/inspect/v1/{path}?colour=red"), &[]).await.json(400);
    let message = said["fields"]["colour"][0].as_str().unwrap_or_else(|| panic!("{path}: {said}"));
    let names = message.rsplit("; ").next().unwrap().trim_start_matches("use ").trim_end_matches('.');
    names.split(", ").filter(|name| *name != "none is taken here").map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_that_is_taken_has_its_wrong_value_here() {
    let r = Region::start().await;
    let path = |asked: &str| asked.split('?').next().unwrap().to_owned();
    let tried = |one: &str, name: &str| CASES.iter().any(|(case, field, ..)| path(case) == one && *field == name);
    let asked: BTreeSet<_> = CASES.iter().map(|(case, ..)| path(case)).filter(|p| p != "traces/xyz").collect();
    for one in &asked {
        for name in taken(&r, "GET", one).await {
            assert!(tried(one, &name), "{one}: nothing is tried with {name}");
        }
    }
    for one in ["traces", "snapshot"] {
        for name in taken(&r, "POST", one).await {
            assert!(POSTS.iter().any(|(path, _, field, ..)| *path == one && *field == name), "{one}: {name}");
        }
    }
    // What the table of contents leads to stands here, too.
    let contents = r.get("/inspect/v1/").await.json(200);
    for place in contents.as_object().unwrap().values().filter_map(Value::as_str) {
        let place = place.trim_start_matches("/inspect/v1/").split(char::is_uppercase).next().unwrap();
        let known = place == "snapshot" || asked.iter().any(|one| one.starts_with(place));
        assert!(known, "{place}: nothing is tried there");
    }
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_parameter_is_named_with_value_bound_and_remedy() {
    let r = Region::start().await;
    for (path, field, value, words) in CASES {
        let said = r.get(&format!("/inspect/v1/{path}")).await;
        is_named(&said, path, field, value, words);
    }
    for (path, form, field, value, words) in POSTS {
        let form: Vec<_> = form.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let said = r.call("POST", &format!("/inspect/v1/{path}"), &form).await;
        is_named(&said, path, field, value, words);
    }
    assert_eq!(r.get("/inspect/v1/traces").await.json(200)["items"], Value::Array(Vec::new()), "none of them began");
    // Three mistakes are three messages.
    let said = r.get("/inspect/v1/actors?limit=x&sort=y&as=z").await.json(400);
    assert_eq!(said["fields"].as_object().unwrap().len(), 3);
    let long = "x".repeat(4_000);
    let said = r.get(&format!("/inspect/v1/actors?q={long}")).await;
    assert!(said.status == StatusCode::BAD_REQUEST && said.text.len() < 1_000, "a long value is not repeated whole");
    r.get("/inspect/v1/actors/machine").await.is(400, "write NODE/KIND/ID");
    r.get("/inspect/v1/actors/machine/aaaaaa").await.is(404, "is awake on region");
    r.get("/inspect/v1/actors/aaaaaa/machine/aaaaaa").await.is(404, "There is no node");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looks_without_a_key_and_states_are_for_administrators() {
    let r = Region::start().await;
    let paths = [
        "",
        "summary",
        "actors",
        "actors/catalogue/catalogue",
        "tree",
        "kinds",
        "kinds/machine",
        "flow",
        "findings",
        "heat",
        "heat/index",
        "watch",
        "traces",
        "traces/00000000000000000000000000000001",
        "traces/m0000000000000001",
        "restarts",
        "deadletters",
        "explain/aaaaaa",
    ];
    for path in paths {
        let said = r.send(r.request("GET", &format!("/inspect/v1/{path}")), None).await;
        assert_eq!((said.status.as_u16(), said.kind.as_str()), (401, "application/problem+json"), "{path}");
    }
    let bob = r.user("bob").await;
    let get = |path: &'static str| {
        let (r, request, bob) = (&r, r.request("GET", path), &bob);
        async move { r.send(request, Some(bob)).await }
    };
    get("/inspect/v1/summary").await.json(200);
    let shown = get("/inspect/v1/actors/catalogue/catalogue").await.json(200);
    assert!(shown["state"]["view"]["$withheld"].is_string(), "{shown}");
    get("/inspect/v1/actors/catalogue/catalogue/state").await.is(403, "administrator");
    get("/inspect/v1/traces/00000000000000000000000000000001").await.is(403, "administrator");
    // Nothing here changes anything.
    for method in ["POST", "PUT", "DELETE"] {
        let said = r.call(method, "/inspect/v1/actors/catalogue/catalogue", &[]).await;
        assert!(matches!(said.status.as_u16(), 404 | 405), "{method}: {}", said.status);
    }
    r.stop().await;
}
