//! GET `/inspect/v1/watch?topics=…`: what changes, by server-sent events. Each topic is said whole first, then when it is another.
//!
//! Nothing is queued for a slow reader: it misses samples, which are counted, and its next event is the present state.

use std::{collections::HashMap, convert::Infallible, sync::atomic::Ordering::Relaxed, time::Duration};

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, Data},
};
use actors::{clock, inspection};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{asked, asked::is_kind, heat, looked, whole};
use crate::{
    api::{
        call::{Own, OwnAnswer},
        fault::Fault,
        house::House,
    },
    inspect::{WATCHERS, Watcher},
};

/// Topics of one watcher at most.
const TOPICS: usize = 16;
/// Without a change, a comment is sent that often.
const STILL_HERE: Duration = Duration::from_secs(15);

/// The stream.
pub(super) async fn stream(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let nodes = call.house.app.nodes().await;
    let mut asked = asked(&call, &["topics", "every_ms"]);
    let every = asked.number("every_ms", 250, 60_000).unwrap_or(1_000);
    let bound = format!(
        "has a topic that is none of summary, findings, flow, actor:KIND/ID, kind:KIND ({}), heat:METRIC ({}), or more than {TOPICS} of them; \
         give some, as in topics=summary,findings",
        inspection::KINDS.join(", "),
        heat::METRICS.join(", ")
    );
    let read = |text: &str| topics(text, |kind| is_kind(call.house.registry(), &nodes, kind));
    let topics = asked.checked("topics", &bound, read).unwrap_or_else(|| vec!["summary".into(), "findings".into()]);
    asked.done()?;
    let full = || Fault::unavailable(format!("{WATCHERS} watch already, which is the most."), "Close another watcher.");
    let watcher = call.house.app.watcher().ok_or_else(full)?;
    let watching = Watching {
        house: call.house.clone(),
        topics,
        every: Duration::from_millis(every),
        said: HashMap::new(),
        number: 0,
        first: true,
        _watcher: watcher,
    };
    let events = futures_util::stream::unfold(watching, |mut watching| async {
        let text = watching.next().await;
        Some((Ok::<_, Infallible>(Bytes::from(text)), watching))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(events))
}

fn topics(text: &str, is_kind: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let topics: Vec<_> = text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect();
    let fits = |topic: &String| match topic.split_once(':') {
        None => matches!(topic.as_str(), "summary" | "findings" | "flow"),
        Some(("actor", path)) => path.split('/').count() == 2 && path.len() <= 200,
        Some(("kind", kind)) => is_kind(kind),
        Some(("heat", metric)) => heat::METRICS.contains(&metric),
        Some(_) => false,
    };
    (!topics.is_empty() && topics.len() <= TOPICS && topics.iter().all(fits)).then_some(topics)
}

/// One watcher.
struct Watching {
    house: Data<House>,
    topics: Vec<String>,
    every: Duration,
    /// What was said of each topic last, without its time.
    said: HashMap<String, Value>,
    number: u64,
    first: bool,
    _watcher: Watcher,
}

impl Watching {
    /// The next events, or a comment after a silence.
    async fn next(&mut self) -> String {
        let mut silent = Duration::ZERO;
        loop {
            if !std::mem::take(&mut self.first) {
                let begun = clock::tick();
                tokio::time::sleep(self.every).await;
                let late = begun.elapsed().as_millis() / self.every.as_millis().max(1);
                self.house.app.inspector.missed.fetch_add(u64::try_from(late.saturating_sub(1)).unwrap_or(0), Relaxed);
            }
            let mut out = String::new();
            for topic in self.topics.clone() {
                self.say(&topic, &mut out).await;
            }
            if !out.is_empty() {
                return out;
            }
            silent += self.every;
            if silent >= STILL_HERE {
                return ": still here\n\n".into();
            }
        }
    }

    async fn say(&mut self, topic: &str, out: &mut String) {
        let mut now = self.state(topic).await;
        let at = now.as_object_mut().and_then(|map| map.remove("at"));
        let before = self.said.get(topic);
        if before == Some(&now) {
            return;
        }
        self.number += 1;
        let event = topic.split(':').next().unwrap_or(topic);
        let data = json!({ "topic": topic, "at": at.unwrap_or_else(|| clock::now().to_string().into()), "now": now });
        out.push_str(&format!("id: {}\nevent: {event}\ndata: {data}\n\n", self.number));
        self.said.insert(topic.to_owned(), now);
    }

    /// A topic's present state. What only grows older (spans of what goes on) is left out, so that a still actor says nothing.
    async fn state(&self, topic: &str) -> Value {
        let (house, app) = (&self.house, &self.house.app);
        match topic.split_once(':').unwrap_or((topic, "")) {
            ("summary", _) => whole::summarised(house).await,
            ("findings", _) => {
                let mut found = app.findings().await;
                // Its words grow older; that it is there and since when is what changes.
                found
                    .iter_mut()
                    .for_each(|f| f.since = f.since.map(|at| schema::time::Timestamp::from_seconds(at.seconds())));
                json!({ "items": found.iter().map(whole::finding).collect::<Vec<_>>() })
            }
            ("flow", _) => json!({ "items": whole::flows(house, Duration::from_secs(10)) }),
            ("heat", metric) => json!({ "levels": STANDARD.encode(heat::bytes(house, None, metric).await) }),
            ("kind", kind) => {
                let mut kinds = inspection::kinds(&app.registry);
                kinds.retain(|k| k["kind"] == kind);
                kinds.pop().unwrap_or(Value::Null)
            }
            ("actor", path) => {
                let probe = path.split_once('/').and_then(|(kind, id)| app.registry.get(kind, id));
                probe.map_or(Value::Null, |probe| actor(&probe))
            }
            _ => Value::Null,
        }
    }
}

/// What changes of an actor.
fn actor(probe: &actors::shell::Probe) -> Value {
    let row = probe.row();
    let last = inspection::messages(probe, 1).pop();
    json!({
        "path": format!("{}/{}", row.kind, row.id), "state": row.state, "status": row.status(), "queue": row.gauge.queue,
        "handled": row.gauge.handled, "panics": row.gauge.panics, "current": row.current, "last": last,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn topics_are_few_and_known() {
        let topics = |text: &str| super::topics(text, |kind| kind == "machine");
        assert_eq!(topics("summary, actor:machine/aaaaaa,heat:queue").map(|t| t.len()), Some(3));
        let many = ["flow"; 17].join(",");
        for wrong in ["", ",", "all", "actor:", "actor:machine", "heat:colour", "kind:", many.as_str()] {
            assert!(topics(wrong).is_none(), "{wrong}");
        }
    }
}
