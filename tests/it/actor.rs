//! `hostler actor …` against a real region: every verb, every output form, and what is wrong in its use.

use std::process::Stdio;

use crate::cli::House;

/// A region with one machine, logged in to: its URL, the key, the machine's id.
pub(crate) fn fox(h: &mut House) -> (String, String, String) {
    let key = h.init()["api_key"].as_str().unwrap().to_owned();
    let url = h.start();
    assert_eq!(h.run(&["login", "lab", &url, &key]).code, 0);
    let words = ["machine", "add", "fox", "--mac", "52:54:00:77:00:01", "--power-type", "manual", "-o", "json"];
    let id = h.run(&words).json()["system_id"].as_str().unwrap().to_owned();
    (url, key, id)
}

#[test]
fn actors_are_listed_drawn_shown_and_traced() {
    let mut h = House::new();
    let (_, _, id) = fox(&mut h);
    let path = format!("region/machine/{id}");
    for form in ["table", "json", "yaml", "ndjson", "csv", "name"] {
        let done = h.run(&["actor", "list", "--kind", "machine", "-o", form]);
        assert!(done.code == 0 && done.out.contains(&path), "{form}: {}{}", done.out, done.err);
    }
    assert_eq!(h.run(&["actor", "list", "-q", "fox", "--sort=-queue", "-o", "name"]).out, format!("{path}\n"));
    let some = h.run(&["actor", "list", "-n", "1"]);
    assert!(some.err.contains("1 of 2 actors"), "{}", some.err);
    let tree = h.run(&["actor", "tree"]);
    assert!(tree.out.starts_with("region: 2 actors\n") && tree.out.contains("machine ×1"), "{}", tree.out);
    for name in ["fox", &id, &path, &format!("machine/{id}")] {
        assert_eq!(h.run(&["actor", "show", name, "-o", "json"]).json()["path"], path);
    }
    let shown = h.run(&["actor", "show", "fox"]);
    assert!(shown.out.contains("State") && shown.out.contains("New") && shown.out.contains("Created"), "{}", shown.out);
    let messages = h.run(&["actor", "messages", "fox", "-o", "json"]).json();
    assert_eq!((messages[0]["event"].as_str(), messages[0]["sender"].as_str()), (Some("Created"), Some("api")));
    assert!(h.run(&["actor", "messages", "fox", "--transitions"]).out.contains("Created"));
    let top = h.run(&["actor", "top", "--every", "0.25", "--count", "2", "-o", "ndjson"]);
    assert!(top.code == 0 && top.out.lines().count() == 4, "{}{}", top.out, top.err);
    let trace = messages[0]["trace"].as_str().unwrap();
    assert!(h.run(&["actor", "trace", trace]).out.contains(&format!("machine/{id}")));
    assert_eq!(h.run(&["actor", "findings", "-o", "json"]).json(), serde_json::json!([]));

    assert!(h.run(&["actor", "messages", "fox", "--since", "0"]).out.contains("Created"));
    assert!(!h.run(&["actor", "messages", "fox", "--before", "1"]).out.contains("Created"));
    h.run(&["actor", "restart", "fox"]).fails(4, "inspect.control = true");

    h.run(&["actor", "trace", "fox"]).fails(3, "no attempt");
    h.run(&["actor", "trace", &"0".repeat(31)]).fails(3, "no machine");
    h.run(&["actor", "show", "machine/aaaaaa"]).fails(3, "is awake on region");
    h.run(&["actor", "show", "owl"]).fails(3, "no machine \"owl\"");
    h.run(&["actor", "list", "--sort", "colour"]).fails(2, "sort: \"colour\" is none of its values");
    h.run(&["actor", "list", "-n", "5000"]).fails(2, "--limit <LIMIT>': it is a whole number from 1 to 1000");
    h.run(&["actor", "top", "--every", "0"]).fails(2, "0.25 to 3600");
    h.run(&["actor", "top", "-o", "json"]).fails(2, "--count");
    h.run(&["actor", "tree", "nowhere"]).fails(2, "root: \"nowhere\"");
    assert!(h.run(&["--help"]).out.contains("actor"));
}

#[test]
fn an_actors_messages_are_traced_as_they_come_and_a_bundle_is_written() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut h = House::new();
    let (url, key, id) = fox(&mut h);
    let path = format!("region/machine/{id}");
    // In the form that prints as it goes, and in one that prints at the end; by path and by the machine's name.
    for (name, form, payload) in [(path.as_str(), "ndjson", "redacted"), ("fox", "json", "types")] {
        let words = ["actor", "trace", name, "--messages", "1", "--payload", payload, "-o", form];
        let tracing = h.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the trace runs", || !traces(&url, &key).is_empty());
        ask(&url, &key, "PUT", &format!("MAAS/api/2.0/machines/{id}/"), "description=a+den");
        let done = tracing.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success() && err.contains("as many messages came"), "{out}{err}");
        assert!(out.contains("\"event\":\"Updated\"") || out.contains("\"event\": \"Updated\""), "{out}");
        assert!(out.contains("description: ") && out.contains("a den") == (payload == "redacted"), "{out}");
        assert!(traces(&url, &key).is_empty(), "it is taken off when it was read");
    }
    h.run(&["actor", "trace", "machine/zzzzzz"]).fails(3, "is awake on region");
    h.run(&["actor", "trace", &path, "--messages", "101"])
        .fails(2, "'101' for '--messages <MESSAGES>': it is a whole number from 1 to 100");
    h.run(&["actor", "trace", &path, "--payload", "all"]).fails(2, "possible values: none, types, redacted");
    h.run(&["actor", "trace", &"0".repeat(32), "--messages", "1"]).fails(2, "is a trace id");
    assert_eq!(
        h.run(&["actor", "list", "--parent", "region/machine", "--state", "New", "-o", "name"]).out,
        format!("{path}\n")
    );
    h.run(&["actor", "list", "--min-queue", "9999999"]).fails(2, "--min-queue");
    assert_eq!(h.run(&["actor", "restarts", "-o", "json"]).json(), serde_json::json!([]));
    assert_eq!(h.run(&["actor", "deadletters", "--kind", "machine", "-o", "json"]).json(), serde_json::json!([]));
    h.run(&["actor", "restarts", "--node", "nowhere"]).fails(2, "node: \"nowhere\"");

    let file = h.path("bundle.tar");
    let said = h.run(&["debug", "bundle", "--file", file.to_str().unwrap(), "-o", "json"]).json();
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(said["bytes"].as_u64(), Some(bytes.len() as u64));
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("/manifest.json") && text.contains("the region answers"), "the region's own log is in it");
    let secret = key.rsplit(':').next().unwrap();
    assert!(!text.contains(secret), "no key is in it");
    let done = h.command(&["debug", "bundle", "--actors", "0"]).current_dir(h.path("")).output().unwrap();
    let name = String::from_utf8_lossy(&done.stdout).split_whitespace().nth(1).unwrap().to_owned();
    assert!(name.starts_with("hostler-debug-") && h.path(&name).is_file(), "{name}");
    h.run(&["debug", "bundle", "--lines", "5001"]).fails(2, "--lines");
    h.run(&["debug", "bundle", "--file", "/no/such/folder/x.tar"]).fails(2, "--file /no/such/folder/x.tar");
}

/// The message traces that the region has.
fn traces(url: &str, key: &str) -> Vec<serde_json::Value> {
    ask(url, key, "GET", "inspect/v1/traces", "")["items"].as_array().unwrap().clone()
}

/// A signed request.
fn ask(url: &str, key: &str, method: &str, path: &str, form: &'static str) -> serde_json::Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key: region::api::oauth::Key = key.parse().unwrap();
    let url = format!("{}/{path}", url.trim_end_matches('/').trim_end_matches("/MAAS"));
    runtime.block_on(async {
        let asked = reqwest::Client::new().request(method.parse().unwrap(), url).header("authorization", key.header());
        let asked = asked.header("content-type", "application/x-www-form-urlencoded").body(form);
        let said = asked.send().await.unwrap().error_for_status().unwrap();
        said.json().await.unwrap()
    })
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{what}: not within a minute");
}
