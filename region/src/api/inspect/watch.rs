//! GET `/inspect/v1/watch?topics=…`: what changes, by server-sent events. Each topic is said whole first, then when it is another.
//!
//! Nothing is queued for a slow reader: it misses samples, which are counted, and its next event is the present state. What several watch is
//! made once for all of them.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, Data},
};
use actors::{clock, inspection};

use super::{asked, asked::is_kind, heat, looked, topics};
use crate::{
    api::{
        call::{Own, OwnAnswer},
        fault::Fault,
        house::House,
    },
    inspect::{WATCHERS, Watcher, shared::Topic},
};

/// Topics of one watcher at most.
const TOPICS: usize = 16;
/// Without a change, a comment is sent that often.
const STILL_HERE: Duration = Duration::from_secs(15);
/// What is told of a topic is no older, however seldom a watcher looks.
const OLDEST: Duration = Duration::from_secs(1);

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
    let read = |text: &str| named(text, |kind| is_kind(call.house.registry(), &nodes, kind));
    let topics = asked.checked("topics", &bound, read).unwrap_or_else(|| vec!["summary".into(), "findings".into()]);
    asked.done()?;
    let full = || Fault::unavailable(format!("{WATCHERS} watch already, which is the most."), "Close another watcher.");
    let watcher = call.house.app.watcher().ok_or_else(full)?;
    let watching = Watching {
        house: call.house.clone(),
        topics: topics.iter().map(|topic| (call.house.app.inspector.topics.watch(topic), 0)).collect(),
        every: Duration::from_millis(every),
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

fn named(text: &str, is_kind: impl Fn(&str) -> bool) -> Option<Vec<String>> {
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
    /// With the version that was said last; at first none was.
    topics: Vec<(Arc<Topic>, u64)>,
    every: Duration,
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
            for (topic, told) in &mut self.topics {
                let older = self.every.min(OLDEST);
                let said = topic.state(older, || topics::state(&self.house, topic.name(), older)).await;
                if std::mem::replace(told, said.version) != said.version {
                    self.number += 1;
                    let event = topic.name().split(':').next().unwrap_or_default();
                    out.push_str(&format!("id: {}\nevent: {event}\ndata: {}\n\n", self.number, said.data));
                }
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
}

#[cfg(test)]
mod tests {
    #[test]
    fn topics_are_few_and_known() {
        let topics = |text: &str| super::named(text, |kind| kind == "machine");
        assert_eq!(topics("summary, actor:machine/aaaaaa,heat:queue").map(|t| t.len()), Some(3));
        let many = ["flow"; 17].join(",");
        for wrong in ["", ",", "all", "actor:", "actor:machine", "heat:colour", "kind:", many.as_str()] {
            assert!(topics(wrong).is_none(), "{wrong}");
        }
    }
}
