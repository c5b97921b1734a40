//! Secrets that were planted everywhere a secret may stand are looked for in every output of the inspection, in the metrics and in the logs.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tracing_subscriber::{Layer, filter::LevelFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::api::Region;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        actors::tail::keep(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_and_no_log_line_carries_a_planted_secret() {
    let logs = Kept::default();
    let everything =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(logs.clone()).with_filter(LevelFilter::TRACE);
    tracing_subscriber::registry().with(everything).try_init().expect("this process has another logger");
    let r = Region::start().await;
    let form = [
        ("hostname", "fox"),
        ("architecture", "amd64"),
        ("mac_addresses", "52:54:00:77:00:03"),
        ("power_type", "ipmi"),
        ("power_parameters", r#"{"power_address":"127.0.0.9","power_user":"u","power_pass":"canary-power"}"#),
        ("commission", "false"),
    ];
    let made = r.call("POST", "machines/", &form).await.json(200);
    let id = made["system_id"].as_str().unwrap().to_owned();
    let traced = [traced(&r, &format!("machine/{id}")).await, traced(&r, "catalogue/catalogue").await];
    // Changes with secrets in them, while somebody looks at what the actors hear.
    r.call("PUT", &format!("machines/{id}/"), &[("power_parameters_power_pass", "canary-again")]).await.json(200);
    let form = [("username", "eve"), ("email", "e@example.org"), ("password", "canary-user"), ("is_superuser", "0")];
    r.call("POST", "users/", &form).await.json(200);
    let token = r.call("POST", "/racks/tokens", &[]).await.json(200);
    let token = token["token"].as_str().unwrap_or_else(|| panic!("{token}")).to_owned();
    let login = r.app().sessions.link("admin").expose().clone();
    r.call("POST", &format!("machines/{id}/?op=commission"), &[]).await;
    let (key, password) = (r.key.token_secret.expose().clone(), r.password.clone());
    let secrets = ["canary-power", "canary-again", "canary-user", &token, &login, &key, &password];
    assert!(secrets.iter().all(|secret| secret.len() > 8), "a short word would be found by chance");
    assert_eq!(
        r.get(&format!("machines/{id}/?op=power_parameters")).await.json(200)["power_pass"],
        "canary-again",
        "they are there"
    );

    let mut outputs = Vec::new();
    for (place, events) in traced.iter().zip([&["Updated"][..], &["Put"]]) {
        for form in ["json", "ndjson", "sse"] {
            let path = format!("{place}?as={form}");
            let request = r.request("GET", &path).header("authorization", r.key.header());
            let mut answer = request.send().await.unwrap();
            let text = String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()).into_owned();
            assert!(events.iter().all(|event| text.contains(event)), "{path}: {text}");
            outputs.push((path, text));
        }
        r.call("DELETE", place, &[]).await;
    }
    for (name, text) in super::snapshot::bundle(&r, "").await {
        assert!(!text.is_empty() || name == "flow.json", "{name} is empty");
        outputs.push((format!("the bundle's {name}"), text));
    }
    for path in paths(&r, &id).await {
        let said = r.get(&path).await;
        assert!(said.status.is_success(), "{path}: {}", said.text);
        outputs.push((path, said.text));
    }
    for topic in
        ["summary", "findings", "flow", "kind:machine", &format!("actor:machine/{id}"), "actor:catalogue/catalogue"]
    {
        let path = format!("/inspect/v1/watch?topics={topic}");
        let request = r.request("GET", &path).header("authorization", r.key.header());
        let mut answer = request.send().await.unwrap();
        let first = answer.chunk().await.unwrap().unwrap();
        outputs.push((path, String::from_utf8_lossy(&first).into_owned()));
    }
    r.stop().await;
    let logged = String::from_utf8_lossy(&logs.0.lock().unwrap()).into_owned();
    assert!(
        logged.contains("looked at actors") && logged.contains("MarkBroken") || logged.contains("Created"),
        "the log is whole"
    );
    outputs.push(("the log".into(), logged));
    for (place, text) in &outputs {
        for secret in secrets {
            assert!(!text.contains(secret), "{place} carries {}…", &secret[..6]);
        }
    }
}

/// The place of a message trace with all that may be shown.
async fn traced(r: &Region, path: &str) -> String {
    let form = [("path", path), ("payload", "redacted")];
    let said = r.call("POST", "/inspect/v1/traces", &form).await;
    said.json(201)["_links"]["messages"].as_str().unwrap().to_owned()
}

/// Every path of the inspection, for every actor there is, and whatever else anyone may read about actors.
async fn paths(r: &Region, id: &str) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/inspect/v1/",
        "/inspect/v1/summary",
        "/inspect/v1/actors",
        "/inspect/v1/actors?as=ndjson",
        "/inspect/v1/tree?fold=none",
        "/inspect/v1/kinds",
        "/inspect/v1/kinds?as=ndjson",
        "/inspect/v1/flow",
        "/inspect/v1/findings",
        "/inspect/v1/heat/index",
        "/inspect/v1/restarts",
        "/inspect/v1/deadletters",
        "/inspect/v1/traces",
        "/metrics",
        "/fleet",
        "events/?op=query",
    ]
    .map(str::to_owned)
    .into();
    let listed = r.get("/inspect/v1/actors?limit=1000").await.json(200);
    let mut traces = std::collections::BTreeSet::new();
    for item in listed["items"].as_array().unwrap() {
        let path = format!("/inspect/v1/actors/{}", item["path"].as_str().unwrap());
        let shown: Value = r.get(&path).await.json(200);
        traces.extend(shown["messages"].as_array().unwrap().iter().map(|m| m["trace"].as_str().unwrap().to_owned()));
        paths.extend(
            ["state", "mailbox", "messages", "transitions", "timers", "links"].map(|part| format!("{path}/{part}")),
        );
        paths.push(path);
    }
    paths
        .extend(traces.into_iter().filter(|t| t.bytes().any(|b| b != b'0')).map(|t| format!("/inspect/v1/traces/{t}")));
    paths.push(format!("/inspect/v1/explain/{id}"));
    paths
}
