//! Message traces: POST `/inspect/v1/traces` keeps an actor's next messages, GET reads them as they come, DELETE ends it. Never through a mailbox.

use std::{convert::Infallible, sync::Arc, time::Duration};

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, Data},
};
use actors::shell::inspect::{Wanted, tap};
use schema::{id::RackId, messages::link::Payload};
use serde_json::{Value, json};
use tracing::info;

use super::{asked, asked::short, listed, looked_inside};
use crate::{
    api::{
        call::{Call, Own, OwnAnswer, gone},
        fault::Fault,
        house::House,
    },
    inspect::{REGION, Refused, Traced, most},
};

/// Without a message, a comment is sent that often.
const STILL_HERE: Duration = Duration::from_secs(15);

/// POST `/inspect/v1/traces` {path, messages, seconds, payload}.
pub(super) async fn begin(Own(call): Own) -> OwnAnswer {
    let caller = looked_inside(&call)?;
    let mut asked = asked(&call, &["path", "messages", "seconds", "payload"]);
    let racks = call.house.app.catalogue_content();
    let bound = "is no actor's path; write NODE/KIND/ID (NODE: region, or the system id of a rack)";
    let at = asked.required("path", bound, |text| {
        let words: Vec<_> = text.split('/').collect();
        let (node, kind, id) = match words[..] {
            [kind, id] => (REGION, kind, id),
            [node, kind, id] => (node, kind, id),
            _ => return None,
        };
        let known = |id: &RackId| racks.racks.contains_key(id);
        let rack = if node == REGION { None } else { Some(node.parse::<RackId>().ok().filter(known)?) };
        (!kind.is_empty() && !id.is_empty()).then(|| (rack, kind.to_owned(), id.to_owned()))
    });
    let count = |number: Option<u64>, most: u32| number.and_then(|n| u32::try_from(n).ok()).unwrap_or(most);
    let messages = count(asked.number("messages", 1, most::TRACED), tap::MESSAGES);
    let seconds = count(asked.number("seconds", 1, most::SECONDS), tap::SECONDS);
    let payload = match asked.choice("payload", &["none", "types", "redacted"]) {
        Some("types") => Payload::Types,
        Some("redacted") => Payload::Redacted,
        _ => Payload::None,
    };
    asked.done()?;
    let Some((rack, kind, id)) = at else { return Err(Fault::Bad("Give a path.".into()).into()) };
    let wanted = Wanted { messages, seconds, payload };
    let begun = call.house.app.trace_messages((rack, &kind, &id), wanted, &caller.username).await;
    let traced = begun.map_err(|refused| fault(refused, rack, &kind, &id))?;
    info!(target: "audit", user = caller.username, trace = traced.id, actor = traced.path(), messages, seconds, ?payload, "traces an actor's messages");
    let place = format!("/inspect/v1/traces/{}", traced.id);
    let mut shown = traced.shown();
    shown["_links"] = json!({ "messages": place });
    let mut answer = HttpResponse::Created();
    answer.insert_header((header::LOCATION, place)).content_type("application/json; charset=utf-8");
    Ok(answer.body(shown.to_string()))
}

fn fault(refused: Refused, rack: Option<RackId>, kind: &str, id: &str) -> Fault {
    let node = rack.map_or_else(|| REGION.to_owned(), |rack| rack.to_string());
    match refused {
        Refused::Asleep => Fault::NotFound(format!(
            "No actor {}/{} is awake on {node}; see /inspect/v1/actors.",
            short(kind),
            short(id)
        )),
        Refused::Taken(known) => {
            let read = known.map_or_else(|| "Wait for its end.".into(), |id| format!("Read /inspect/v1/traces/{id}."));
            Fault::conflict(format!("The messages of {node}/{kind}/{id} are traced already."), read)
        }
        Refused::Full(running) => {
            let why = format!("{} message traces run already, which is the most.", tap::TAPS);
            let remedy = if running.is_empty() {
                format!("Wait at most {} s until one of them ends.", tap::SECONDS)
            } else {
                format!("DELETE one of /inspect/v1/traces/{{{}}}, or wait until it ends.", running.join(","))
            };
            Fault::unavailable(why, remedy)
        }
        Refused::Silent(why) => Fault::unavailable(format!("{why}."), "Look at the rack's link."),
    }
}

/// GET `/inspect/v1/traces`: those that run or can still be read.
pub(super) async fn list(Own(call): Own) -> OwnAnswer {
    looked_inside(&call)?;
    let mut asked = asked(&call, &["as"]);
    let lines = asked.lines();
    asked.done()?;
    call.house.app.settle_traces().await;
    let items: Vec<_> = call.house.app.message_traces().iter().map(|traced| traced.shown()).collect();
    Ok(listed(lines, json!({ "most": tap::TAPS }), items))
}

fn find(call: &Call) -> Result<Arc<Traced>, Fault> {
    let id = call.part("trace");
    let found = call.house.app.message_traces().into_iter().find(|traced| traced.id == id);
    found.ok_or_else(|| none(id))
}

fn none(id: &str) -> Fault {
    let kept = tap::KEPT.as_secs() / 60;
    Fault::NotFound(format!(
        "There is no message trace \"{}\"; one can be read until {kept} min after its end.",
        short(id)
    ))
}

/// GET `/inspect/v1/traces/ID`: its messages, those that are held at once and the others as they come.
pub(super) async fn read(call: Call) -> OwnAnswer {
    looked_inside(&call)?;
    let mut asked = asked(&call, &["as", "after"]);
    let form = asked.choice("as", &["ndjson", "sse", "json"]).unwrap_or("ndjson");
    let after = asked.number("after", 0, most::TRACED).unwrap_or(0) as usize;
    asked.done()?;
    let traced = find(&call)?;
    let mut reading = Reading { house: call.house.clone(), traced, after, sse: form == "sse", over: false };
    if form == "json" {
        let (items, end) = reading.present().await?;
        let mut shown = reading.traced.shown();
        shown["end"] = end.into();
        return Ok(listed(false, shown, items));
    }
    let events = futures_util::stream::unfold(reading, |mut reading| async {
        let text = reading.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), reading))
    });
    let kind = if form == "sse" { "text/event-stream" } else { "application/x-ndjson; charset=utf-8" };
    Ok(HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(events))
}

/// DELETE `/inspect/v1/traces/ID`: ends it, and forgets its messages.
pub(super) async fn end(Own(call): Own) -> OwnAnswer {
    let caller = looked_inside(&call)?;
    asked(&call, &[]).done()?;
    let id = call.part("trace");
    if !call.house.app.end_trace(id).await {
        return Err(none(id).into());
    }
    info!(target: "audit", user = caller.username, trace = id, "ended a message trace");
    Ok(gone())
}

/// One who reads a trace.
struct Reading {
    house: Data<House>,
    traced: Arc<Traced>,
    after: usize,
    sse: bool,
    over: bool,
}

impl Reading {
    /// All that is held now, and why no more will come.
    async fn present(&mut self) -> Result<(Vec<Value>, Option<String>), Fault> {
        let mut items = Vec::new();
        loop {
            let held = self.house.app.traced_messages(&self.traced, self.after).await;
            let held = held.map_err(|why| Fault::unavailable(format!("{why}."), "Look at the rack's link."))?;
            if held.messages.is_empty() || held.end.is_some() {
                items.extend(held.messages);
                return Ok((items, held.end));
            }
            self.after += held.messages.len();
            items.extend(held.messages);
        }
    }

    /// The next messages, or a comment after a silence; `None` after the end.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        let begun = actors::clock::tick();
        loop {
            let held = self.house.app.traced_messages(&self.traced, self.after).await;
            let (messages, end) = match held {
                Ok(held) => (held.messages, held.end),
                Err(why) => (Vec::new(), Some(why)),
            };
            let mut out = String::new();
            for message in messages {
                self.after += 1;
                self.say("message", &message, &mut out);
            }
            if let Some(end) = end {
                self.over = true;
                self.say("end", &json!({ "end": end, "messages": self.after }), &mut out);
            }
            if !out.is_empty() {
                return Some(out);
            }
            let Some(patience) = STILL_HERE.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else {
                // A line of JSON that says nothing would be one that has to be understood: a blank one need not be.
                return Some(if self.sse { ": still here\n\n".into() } else { "\n".into() });
            };
            self.house.app.more_messages(&self.traced, self.after, patience).await;
        }
    }

    fn say(&self, event: &str, value: &Value, out: &mut String) {
        if self.sse {
            out.push_str(&format!("id: {}\nevent: {event}\ndata: {value}\n\n", self.after));
        } else {
            out.push_str(&format!("{value}\n"));
        }
    }
}
