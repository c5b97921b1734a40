//! What each topic of the stream says: a state, and what of it must differ to be told.

use std::time::Duration;

use actors::{inspection, shell::Probe};
use base64::{Engine, engine::general_purpose::STANDARD};
use schema::time::Timestamp;
use serde_json::{Value, json};

use super::{heat, whole};
use crate::{api::house::House, inspect::shared::Fresh};

/// The window of `flow`.
const WINDOW: Duration = Duration::from_secs(10);

/// A topic's present state, from numbers that are younger than `older`.
pub(super) async fn state(house: &House, topic: &str, older: Duration) -> Fresh {
    let app = &house.app;
    match topic.split_once(':').unwrap_or((topic, "")) {
        ("summary", _) => {
            let sample = app.sample(older).await;
            let summary = whole::summarised(house, &sample);
            let key = summary.to_string();
            Fresh { data: data(topic, sample.at, &whole::with_ages(summary, &sample)), key }
        }
        ("findings", _) => {
            let sample = app.sample(older).await;
            let mut found = app.found(&sample).to_vec();
            // Its words grow older; that it is there and since when is what changes.
            found.iter_mut().for_each(|f| f.since = f.since.map(|at| Timestamp::from_seconds(at.seconds())));
            said(topic, sample.at, &json!({ "items": found.iter().map(whole::finding).collect::<Vec<_>>() }))
        }
        ("heat", metric) => {
            let sample = app.sample(older).await;
            said(topic, sample.at, &json!({ "levels": STANDARD.encode(heat::bytes(&sample, None, metric)) }))
        }
        (name, of) => said(topic, actors::clock::now(), &own(house, name, of)),
    }
}

/// What only the region knows, as it is now. What only grows older (spans of what goes on) is left out, so that a still actor says nothing.
fn own(house: &House, name: &str, of: &str) -> Value {
    let registry = house.registry();
    match name {
        "flow" => json!({ "items": whole::flows(house, WINDOW) }),
        "kind" => inspection::one_kind(registry, of).unwrap_or_default(),
        "actor" => {
            let probe = of.split_once('/').and_then(|(kind, id)| registry.get(kind, id));
            probe.map_or(Value::Null, |probe| actor(&probe))
        }
        _ => Value::Null,
    }
}

fn said(topic: &str, at: Timestamp, now: &Value) -> Fresh {
    Fresh { data: data(topic, at, now), key: now.to_string() }
}

fn data(topic: &str, at: Timestamp, now: &Value) -> String {
    json!({ "topic": topic, "at": at.to_string(), "now": now }).to_string()
}

/// What changes of an actor.
fn actor(probe: &Probe) -> Value {
    let row = probe.row();
    let last = inspection::messages(probe, 1).pop();
    json!({
        "path": format!("{}/{}", row.kind, row.id), "state": row.state, "status": row.status(), "queue": row.gauge.queue,
        "handled": row.gauge.handled, "panics": row.gauge.panics, "current": row.current, "last": last,
    })
}
