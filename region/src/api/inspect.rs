//! `/inspect/v1/…`: every actor as it shows itself, the region's and the racks', straight from what they publish and never through a mailbox.
//! Reads only, but for message traces, which keep copies of what an actor hears, and for what `inspect.control` lets administrators do. Each look is checked for its caller, its parameters are checked as a whole, and who looked is put down in the log.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    web::{ServiceConfig, delete, get, post},
};
use serde_json::{Value, json};

use super::{
    auth::Caller,
    call::{Call, Own, OwnAnswer, json},
    fault::Fault,
};
use crate::inspect::Node;

mod asked;
mod control;
mod heat;
mod list;
mod losses;
mod messages;
mod one;
mod snapshot;
mod topics;
mod traces;
mod watch;
mod whole;

use asked::Asked;

/// The routes below `/inspect/v1/`.
pub fn routes(config: &mut ServiceConfig) {
    config
        .route("/inspect/v1", get().to(contents))
        .route("/inspect/v1/", get().to(contents))
        .route("/inspect/v1/summary", get().to(whole::summary))
        .route("/inspect/v1/tree", get().to(whole::tree))
        .route("/inspect/v1/kinds", get().to(whole::kinds))
        .route("/inspect/v1/kinds/{kind}", get().to(whole::kind))
        .route("/inspect/v1/flow", get().to(whole::flow))
        .route("/inspect/v1/findings", get().to(whole::findings))
        .route("/inspect/v1/heat", get().to(heat::levels))
        .route("/inspect/v1/heat/index", get().to(heat::index))
        .route("/inspect/v1/restarts", get().to(losses::restarts))
        .route("/inspect/v1/deadletters", get().to(losses::dead_letters))
        .route("/inspect/v1/traces", get().to(messages::list))
        .route("/inspect/v1/traces", post().to(messages::begin))
        .route("/inspect/v1/traces/{trace}", get().to(traces::show))
        .route("/inspect/v1/traces/{trace}", delete().to(messages::end))
        .route("/inspect/v1/snapshot", post().to(snapshot::make))
        .route("/inspect/v1/watch", get().to(watch::stream))
        .route("/inspect/v1/actors", get().to(list::actors))
        .route("/inspect/v1/actors/{path:.*}", get().to(one::actor))
        .route("/inspect/v1/actors/{path:.*}", post().to(control::control))
        .route("/inspect/v1/explain/{system_id}", get().to(super::explain::show));
}

/// What there is to look at.
async fn contents(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let mut asked = asked(&call, &["as"]);
    let lines = asked.lines();
    asked.done()?;
    let contents = json!({
        "summary": "/inspect/v1/summary", "findings": "/inspect/v1/findings", "actors": "/inspect/v1/actors",
        "tree": "/inspect/v1/tree", "kinds": "/inspect/v1/kinds", "flow": "/inspect/v1/flow", "heat": "/inspect/v1/heat",
        "restarts": "/inspect/v1/restarts", "deadletters": "/inspect/v1/deadletters", "messages": "/inspect/v1/traces",
        "snapshot": "/inspect/v1/snapshot",
        "watch": "/inspect/v1/watch", "explain": "/inspect/v1/explain/SYSTEM_ID", "traces": "/inspect/v1/traces/TRACE_ID",
        "actor": "/inspect/v1/actors/NODE/KIND/ID[/state|/mailbox|/messages|/transitions|/timers|/links]",
        "control": "/inspect/v1/actors/NODE/KIND/ID/{restart|drain|resume}",
    });
    Ok(alone(lines, &contents))
}

/// The caller, who is put down. Every user may look; states and traces are for administrators.
fn looked(call: &Call) -> Result<&Caller, Fault> {
    let caller = call.user()?;
    call.house.app.inspector.audit.looked(&caller.username, call.path());
    Ok(caller)
}

/// As [`looked`], for what holds more than numbers and names.
fn looked_inside(call: &Call) -> Result<&Caller, Fault> {
    let caller = call.admin()?;
    call.house.app.inspector.audit.looked(&caller.username, call.path());
    Ok(caller)
}

/// Refuses parameters where none is taken.
pub(super) fn nothing_asked(call: &Call) -> Result<(), Fault> {
    asked(call, &[]).done()
}

/// One object: as it is, or with `as=ndjson` as a line.
fn alone(lines: bool, value: &Value) -> HttpResponse {
    if lines { listed(true, Value::Null, vec![value.clone()]) } else { json(value) }
}

/// A list: whole, or with `as=ndjson` an item a line.
fn listed(lines: bool, head: Value, items: Vec<Value>) -> HttpResponse {
    listed_as("items", lines, head, items)
}

/// As [`listed`], with another name for the items.
fn listed_as(name: &str, lines: bool, mut head: Value, items: Vec<Value>) -> HttpResponse {
    if lines {
        let text: String = items.iter().map(|item| format!("{item}\n")).collect();
        return HttpResponse::Ok().content_type("application/x-ndjson; charset=utf-8").body(text);
    }
    head["at"] = actors::clock::now().to_string().into();
    head[name] = Value::Array(items);
    json(&head)
}

/// How old the oldest rows are that racks gave, in milliseconds; nothing of a rack is as young as can be.
fn oldest(nodes: &[Node]) -> u64 {
    nodes.iter().filter_map(Node::age).max().map_or(0, millis)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn asked<'a>(call: &'a Call, known: &[&str]) -> Asked<'a> {
    Asked::new(&call.params, known)
}
