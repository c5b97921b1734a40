//! The debug bundle: a tar that holds what it says, of the size that was asked for, for administrators.

use std::{collections::BTreeMap, io::Read};

use actors::{core::TraceId, shell::Arbiter};
use serde_json::Value;

use super::{stubborn, until};
use crate::api::Region;

/// The parts of a bundle by name, without the folder that all of them stand in.
pub(super) async fn bundle(r: &Region, query: &str) -> BTreeMap<String, String> {
    let path = format!("/inspect/v1/snapshot{query}");
    let answer = r.request("POST", &path).header("authorization", r.key.header()).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
        (200, "application/x-tar")
    );
    let name = answer.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(name.starts_with("attachment; filename=\"hostler-debug-") && name.ends_with("Z.tar\""), "{name}");
    let bytes = answer.bytes().await.unwrap();
    let mut parts = BTreeMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        assert_eq!(entry.header().mode().unwrap(), 0o600, "{path}");
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        parts.insert(path.split_once('/').expect("a folder").1.to_owned(), text);
    }
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_the_whole_and_the_worst_actors_first() {
    let r = Region::start().await;
    for n in 0..3 {
        r.machine(&format!("fox-{n}"), &format!("52:54:00:77:01:{n:02x}")).await;
    }
    let arbiter = Arbiter::start("stubborn").unwrap();
    let (actor, gate) = stubborn(&r.app().registry, &arbiter);
    actor.tell("Block", TraceId(7)).unwrap();
    until(&r, "/inspect/v1/findings?id=actor.blocked", |f| f["count"] == 1).await;
    let parts = bundle(&r, "").await;
    for name in ["summary", "tree", "findings", "kinds", "flow", "restarts", "deadletters", "services", "manifest"]
        .map(|n| format!("{n}.json"))
    {
        serde_json::from_str::<Value>(parts.get(&name).unwrap_or_else(|| panic!("{name} is missing"))).unwrap();
    }
    let actors: Vec<_> = parts.keys().filter(|name| name.starts_with("actors/")).collect();
    assert_eq!((actors.len(), actors[0].as_str()), (5, "actors/000-region-stubborn-one.json"), "{actors:?}");
    let worst: Value = serde_json::from_str(&parts[actors[0]]).unwrap();
    assert_eq!((worst["status"].as_str(), worst["busy"]["since"].is_string()), (Some("blocked"), true), "{worst}");
    assert!(
        parts["region.toml"].contains("url = \"sqlite:[secret]\"")
            && parts["metrics.txt"].contains("hostler_build_info")
    );
    let manifest: Value = serde_json::from_str(&parts["manifest.json"]).unwrap();
    let named: Vec<_> =
        manifest["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert!(
        parts.keys().filter(|name| *name != "manifest.json").all(|name| named.contains(&name.as_str())),
        "{manifest}"
    );
    assert_eq!(manifest["by"], "admin");
    let small = bundle(&r, "?actors=1&lines=0").await;
    assert_eq!((small.keys().filter(|name| name.starts_with("actors/")).count(), small["log.txt"].as_str()), (1, ""));
    gate.open();
    let bob = r.user("bob").await;
    r.send(r.request("POST", "/inspect/v1/snapshot"), Some(&bob)).await.is(403, "administrator");
    r.send(r.request("POST", "/inspect/v1/snapshot"), None).await.is(401, "API key");
    r.stop().await;
}
