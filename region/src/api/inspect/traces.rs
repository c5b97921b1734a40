//! GET `/inspect/v1/traces/TRACE_ID`: a message trace, by its id; or the path of one piece of work over actors and nodes, from their rings and the journal.

use std::collections::{BTreeMap, BTreeSet};

use actors::{core::TraceId, inspection, rack::LinkState};
use schema::messages::link::InspectAsk;
use serde_json::{Value, json};

use super::{asked, asked::short, listed, looked_inside, messages};
use crate::{
    api::{
        call::{Own, OwnAnswer},
        fault::Fault,
    },
    inspect::REGION,
};

/// Steps of one trace that are read from the journal at most.
const MOST: i64 = 1_000;

/// The steps of a trace, oldest first.
pub(super) async fn show(Own(call): Own) -> OwnAnswer {
    looked_inside(&call)?;
    let text = call.part("trace");
    if text.strip_prefix('m').is_some_and(|digits| digits.len() == 16) {
        return messages::read(call).await;
    }
    let mut asked = asked(&call, &["as"]);
    let lines = asked.lines();
    asked.done()?;
    let wrong = |why: String| {
        Fault::field(
            "trace",
            format!(
                "\"{}\": {why}; copy it from a log line or a step, or that of a message trace from its POST.",
                short(text)
            ),
        )
    };
    let trace: TraceId = text.parse().map_err(wrong)?;
    let app = &call.house.app;
    let mut steps = Steps::default();
    steps.add(REGION, inspection::traced(&app.registry, trace));
    let mut silent = Vec::new();
    for node in app.nodes().await.iter() {
        if node.link != LinkState::Connected {
            silent.push(node.id.to_string());
            continue;
        }
        match app.ask_rack::<Vec<Value>>(node.id, InspectAsk::Trace { trace: trace.0 }).await {
            Ok((found, _)) => steps.add(node.id.as_str(), found),
            Err(_) => silent.push(node.id.to_string()),
        }
    }
    steps.journal(call.house.traced(trace, MOST).await?);
    let items: Vec<_> = steps.0.into_values().collect();
    if items.is_empty() {
        let why = format!(
            "No step of trace {trace} is kept: neither in a ring (the last 32 steps of each actor) nor in the journal."
        );
        return Err(Fault::NotFound(why).into());
    }
    let nodes: BTreeSet<_> = items.iter().filter_map(|i| i["node"].as_str().map(str::to_owned)).collect();
    let actors: BTreeSet<_> = items.iter().filter_map(|i| i["actor"].as_str().map(str::to_owned)).collect();
    let head = json!({ "trace": trace.to_string(), "nodes": nodes, "actors": actors, "nodes_without_answer": silent });
    Ok(listed(lines, head, items))
}

/// Steps in the order of their times; one that both a ring and the journal have is one.
#[derive(Default)]
struct Steps(BTreeMap<(String, String, String), Value>);

impl Steps {
    fn add(&mut self, node: &str, found: Vec<Value>) {
        for mut step in found {
            step["node"] = node.into();
            let word = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
            let key = (word("at"), format!("{node}/{}", word("actor")), step["seq"].to_string());
            self.0.insert(key, step);
        }
    }

    /// The journal says what rings have forgotten: it begins where the first ring does.
    fn journal(&mut self, rows: Vec<Value>) {
        let firsts: BTreeMap<String, String> = self.0.values().rev().fold(BTreeMap::new(), |mut firsts, step| {
            if step["node"] == REGION {
                let word = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
                firsts.insert(word("actor"), word("at"));
            }
            firsts
        });
        let forgotten = rows.into_iter().filter(|row| {
            let first = row["actor"].as_str().and_then(|actor| firsts.get(actor));
            first.is_none_or(|first| row["at"].as_str().unwrap_or_default() < first.as_str())
        });
        self.add(REGION, forgotten.collect());
    }
}
