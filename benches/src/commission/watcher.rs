//! One who watches: the inspection's stream with every topic, and its summary each second, as an open dashboard asks for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::clock;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::explains::quantiles;
use crate::api::Api;

/// Every topic; an actor is added.
const TOPICS: &str = "summary,findings,flow,kind:machine,kind:rack,kind:subnet,kind:catalogue,\
    heat:queue,heat:wait,heat:handler,heat:rate,heat:age";
const EACH: Duration = Duration::from_secs(1);
/// Before a stream that broke is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// What it saw.
#[derive(Debug, Default, Clone)]
struct Seen {
    events: BTreeMap<String, u64>,
    bytes: u64,
    /// Times that the stream ended.
    broken: u64,
    summary_ms: Vec<f64>,
    failed: u64,
    /// The beginning of a line that is not yet whole.
    part: Vec<u8>,
}

/// The watcher; it ends when this is dropped.
pub(super) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

impl Watcher {
    /// Begins to watch; `machine` is the actor that it looks at closely.
    pub(super) fn attach(api: &Api, machine: &str) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let stream = format!("/inspect/v1/watch?topics={TOPICS},actor:machine/{machine}");
        let listening = tokio::spawn({
            let (api, seen) = (api.clone(), seen.clone());
            async move {
                loop {
                    api.listen(&stream, |piece| lock(&seen).take(piece)).await.ok(); // Either way it ended.
                    lock(&seen).broken += 1;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        });
        let polling = tokio::spawn({
            let (api, seen) = (api.clone(), seen.clone());
            async move {
                loop {
                    tokio::time::sleep(EACH).await;
                    let began = clock::tick();
                    let answer = api.get("/inspect/v1/summary").await;
                    let ms = began.elapsed().as_secs_f64() * 1e3;
                    let mut seen = lock(&seen);
                    match answer {
                        Ok(_) => seen.summary_ms.push(ms),
                        Err(_) => seen.failed += 1,
                    }
                }
            }
        });
        Self { seen, tasks: [listening, polling] }
    }

    /// What it saw.
    pub(super) fn json(&self) -> Value {
        let seen = lock(&self.seen);
        json!({
            "events": seen.events, "bytes": seen.bytes, "stream_broken": seen.broken,
            "summary_ms": quantiles(&seen.summary_ms), "summaries_failed": seen.failed,
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Counts the events of a piece by their names; a line may be in two pieces.
    fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.part.extend_from_slice(piece);
        while let Some(end) = self.part.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.part.drain(..=end).collect();
            if let Some(name) = line.strip_prefix(b"event: ") {
                let name = String::from_utf8_lossy(name).trim().to_owned();
                *self.events.entry(name).or_default() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_name_however_they_are_cut() {
        let text = b"id: 1\nevent: summary\ndata: {}\n\nid: 2\nevent: heat\ndata: {}\n\n: still here\n\nevent: heat\ndata: {}\n\n";
        for cut in 1..text.len() {
            let mut seen = Seen::default();
            text.chunks(cut).for_each(|piece| seen.take(piece));
            assert_eq!(seen.events, BTreeMap::from([("summary".to_owned(), 1), ("heat".to_owned(), 2)]), "{cut}");
            assert_eq!(seen.bytes, text.len() as u64);
        }
    }
}
