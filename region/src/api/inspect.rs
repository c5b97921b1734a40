//! `/inspect/v1/…`: every actor as it shows itself, straight from the registry and never through a mailbox.

use serde_json::{Value, json};

use super::{
    call::{Own, OwnAnswer, json},
    fault::Fault,
};

/// Actors in one listing at most.
const MOST: usize = 1_000;

/// GET `/inspect/v1/actors?kind=&state=&q=&sort=-depth&limit=`.
pub async fn actors(Own(call): Own) -> OwnAnswer {
    call.user()?;
    let params = &call.params;
    let limit = params.parsed::<usize>("limit")?.unwrap_or(100).min(MOST);
    let probes = call.house.registry().list(params.filled("kind"));
    let total = probes.len();
    let mut items: Vec<Value> = Vec::new();
    for probe in probes {
        let view = probe.view();
        if params.filled("state").is_some_and(|s| s != view.state)
            || params.filled("q").is_some_and(|q| !probe.id().contains(q))
        {
            continue;
        }
        items.push(json!({
            "kind": probe.kind(), "id": probe.id(), "state": view.state, "depth": probe.depth(),
            "capacity": probe.capacity(), "handled": probe.handled(), "panics": probe.panics(),
            "quarantined": probe.quarantine().is_some(),
            "waiting_for": view.wait.as_ref().map(|w| w.what.clone()),
        }));
    }
    let by_depth = |v: &Value| std::cmp::Reverse(v["depth"].as_u64());
    let by_name = |v: &Value| (v["kind"].to_string(), v["id"].to_string());
    match params.filled("sort") {
        Some("-depth") => items.sort_by_key(by_depth),
        None | Some("id") => items.sort_by_key(by_name),
        Some(other) => {
            return Err(Fault::field("sort", format!("\"{other}\" is not one of id, -depth.")).into());
        }
    }
    let matched = items.len();
    items.truncate(limit);
    Ok(json(&json!({"at": actors::clock::now().to_string(), "total": total, "matched": matched, "items": items})))
}

/// GET `/inspect/v1/actors/<kind>/<id>`: state, mailbox, timers and the last steps of one.
pub async fn actor(Own(call): Own) -> OwnAnswer {
    call.user()?;
    let (kind, id) = (call.part("kind"), call.part("id"));
    let probe = call.house.registry().get(kind, id).ok_or_else(|| {
        Fault::NotFound(format!("No actor {kind}/{id} is awake; see /inspect/v1/actors, or read the object itself."))
    })?;
    let value = serde_json::to_value(probe.show()).map_err(|e| {
        Fault::unavailable(format!("The view cannot be written: {e}."), "Report this with the actor's name.")
    })?;
    Ok(json(&value))
}
