//! Bad input to every parameter: one clear answer that names field, value, bound and remedy. And who may look at all.

use reqwest::StatusCode;
use serde_json::Value;

use crate::api::Region;

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
    ("summary?kind=machine", "kind", "machine", "none is taken here"),
    ("watch?topics=everything", "topics", "everything", "none of summary, findings, flow"),
    ("watch?every_ms=1", "every_ms", "1", "from 250 to 60000; give one"),
    ("traces/xyz", "trace", "xyz", "32 hexadecimal digits; copy it from"),
    ("actors/catalogue/catalogue/messages?limit=x", "limit", "x", "from 1 to 1000; give one"),
    ("actors/catalogue/catalogue?limit=1", "limit", "1", "none is taken here"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_parameter_is_named_with_value_bound_and_remedy() {
    let r = Region::start().await;
    for (path, field, value, words) in CASES {
        let said = r.get(&format!("/inspect/v1/{path}")).await;
        assert_eq!(
            (said.status, said.kind.as_str()),
            (StatusCode::BAD_REQUEST, "application/problem+json"),
            "{path}: {}",
            said.text
        );
        let problem: Value = serde_json::from_str(&said.text).unwrap();
        let message = problem["fields"][field][0].as_str().unwrap_or_else(|| panic!("{path}: {problem}"));
        assert!(message.contains(&format!("\"{value}")) && message.contains(words), "{path}: {message}");
        assert_eq!(problem["fields"].as_object().unwrap().len(), 1, "{path}: only what is wrong is named");
        assert!(!problem["remedy"].as_str().unwrap().is_empty());
    }
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
        "traces/00000000000000000000000000000001",
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
