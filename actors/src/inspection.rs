//! What the actors of a process show, as JSON for people: rows, one actor whole, kinds, the steps of a trace. Region and racks answer alike.
//! Read from what actors publish, never through a mailbox; no event's content is here, and secrets have no JSON.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Instant};

use schema::{messages::link::InspectAsk, time::Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    agent::Agent,
    catalogue::Catalogue,
    clock,
    core::{Core, TraceId},
    errand::Errand,
    leases::SubnetLeases,
    machine::Machine,
    rack::Rack,
    service::Service,
    shell::{
        Registry, Row, StepTrace,
        inspect::{DeadLetter, KindTally, Probe, RING, Restart, Short, Spread, Tap, Tapped, Wanted},
    },
    subnet::Subnet,
    tail,
};

/// Every kind of actors that the nodes of a site have.
pub const KINDS: [&str; 8] = [
    Agent::KIND,
    Catalogue::KIND,
    Errand::KIND,
    SubnetLeases::KIND,
    Machine::KIND,
    Rack::KIND,
    Service::KIND,
    Subnet::KIND,
];
/// The longest answer of a rack, in bytes.
pub const LONGEST: usize = 512 * 1024;
/// The longest state that is shown of one actor, in bytes.
const LONGEST_STATE: usize = 192 * 1024;
/// Waiting messages that are shown of one actor.
const WAITING: usize = 256;

/// A rack's answer: JSON, and how many rows were left out for its size.
#[must_use]
pub fn answer(registry: &Registry, ask: &InspectAsk) -> (String, u32) {
    match ask {
        InspectAsk::Actors => bounded(rows(registry)),
        InspectAsk::Actor { kind, id } => {
            let shown = registry.get(kind, id).map(|probe| one(&probe));
            (serde_json::to_string(&shown).unwrap_or_default(), 0)
        }
        InspectAsk::Kinds => (Value::Array(kinds(registry)).to_string(), 0),
        InspectAsk::Trace { trace } => bounded(traced(registry, TraceId(*trace))),
        InspectAsk::Restarts => bounded(restarts(registry)),
        InspectAsk::DeadLetters => bounded(dead_letters(registry)),
        InspectAsk::Tap { number, kind, id, messages, seconds, payload } => {
            let wanted = Wanted { messages: *messages, seconds: *seconds, payload: *payload };
            let begun = registry.tap(*number, kind, id, wanted).map(|_| ());
            (serde_json::to_string(&begun).unwrap_or_default(), 0)
        }
        InspectAsk::Tapped { number, after } => {
            let held = registry.tapped(*number).map(|tap| tapped(&tap, *after as usize));
            (serde_json::to_string(&held).unwrap_or_default(), 0)
        }
        InspectAsk::Untap { number } => (registry.untap(*number).to_string(), 0),
        InspectAsk::Log { lines, bytes } => newest(tail::last(*lines as usize), *bytes as usize),
    }
}

/// The last lines that fit, the oldest of them first.
fn newest(mut lines: Vec<String>, bytes: usize) -> (String, u32) {
    let mut left = bytes.min(LONGEST).saturating_sub("[]".len());
    let fits = |line: &&String| {
        let len = serde_json::to_string(line).map_or(usize::MAX, |text| text.len() + ",".len());
        left.checked_sub(len).inspect(|rest| left = *rest).is_some()
    };
    let kept = lines.iter().rev().take_while(fits).count();
    let left_off = lines.len() - kept;
    let json = serde_json::to_string(&lines.split_off(left_off)).unwrap_or_default();
    (json, u32::try_from(left_off).unwrap_or(u32::MAX))
}

/// As many as fit, from the first on.
fn bounded(items: Vec<impl Serialize>) -> (String, u32) {
    let (mut text, mut left_off) = (String::from("["), 0);
    for item in items {
        let item = serde_json::to_string(&item).unwrap_or_default();
        if text.len() + item.len() + 2 > LONGEST {
            left_off += 1;
            continue;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&item);
    }
    text.push(']');
    (text, left_off)
}

/// A row for each actor: those that wait longest and hold most first, so that they stand in a bounded answer.
#[must_use]
pub fn rows(registry: &Registry) -> Vec<Row> {
    let mut rows: Vec<_> = registry.list(None).iter().map(|probe| probe.row()).collect();
    rows.sort_by(|a, b| (b.gauge.queue, &a.kind, &a.id).cmp(&(a.gauge.queue, &b.kind, &b.id)));
    rows
}

/// One actor whole.
#[must_use]
pub fn one(probe: &Probe) -> Value {
    let (shown, row) = (probe.show(), probe.row());
    let (wait, handle) = probe.spreads();
    json!({
        "kind": shown.kind, "id": shown.id, "status": row.status(), "started": shown.started.to_string(),
        "state": {
            "name": shown.view.state, "age_ms": shown.view_age_ms, "generation": shown.generation,
            "wait": shown.view.wait.as_ref().map(wait_json), "view": bounded_state(shown.view.detail),
        },
        "busy": busy(probe), "mailbox": mailbox(probe, WAITING), "messages": messages(probe, RING),
        "transitions": transitions(probe, usize::MAX), "timers": timers(probe), "links": links(probe),
        "rate": row.gauge.rate, "handled": shown.handled,
        "wait": spread(&wait), "handler": spread(&handle),
        "supervision": {
            "panics": shown.panics, "held": shown.held,
            "quarantine": shown.quarantine.map(|q| json!({ "at": q.at.to_string(), "event": q.event, "why": q.why })),
        },
    })
}

fn bounded_state(state: Value) -> Value {
    let len = state.to_string().len();
    if len > LONGEST_STATE { json!({ "$truncated": len }) } else { state }
}

/// What it is at, since when; null when it is idle.
fn busy(probe: &Probe) -> Value {
    let Some(current) = probe.current() else { return Value::Null };
    let us = micros_since(current.since);
    json!({
        "event": &*current.event, "sender": current.sender, "trace": current.trace.to_string(), "recording": current.recording,
        "since": (clock::now() - std::time::Duration::from_micros(us)).to_string(), "for_us": us,
    })
}

/// What waits, oldest first, without its content.
#[must_use]
pub fn mailbox(probe: &Probe, most: usize) -> Value {
    let gauge = probe.gauge();
    let waiting = probe.waiting(most).into_iter().map(|w| {
        json!({ "event": &*w.event, "sender": w.sender, "trace": w.trace.to_string(), "waited_us": micros_since(w.since) })
    });
    let waiting: Vec<Value> = waiting.collect();
    let by_event: Map<_, _> = probe.waiting_by_event().into_iter().map(|(e, n)| (e.to_string(), n.into())).collect();
    json!({
        "len": gauge.queue, "cap": gauge.capacity, "high_water": gauge.high_water, "oldest_wait_us": gauge.oldest_wait_us,
        "refused": gauge.refused, "by_event": by_event, "waiting": waiting,
    })
}

/// The last messages that were handled, oldest first.
#[must_use]
pub fn messages(probe: &Probe, most: usize) -> Vec<Value> {
    let steps = probe.steps();
    steps.iter().skip(steps.len().saturating_sub(most)).map(step).collect()
}

/// The last changes of state, oldest first.
#[must_use]
pub fn transitions(probe: &Probe, most: usize) -> Vec<Value> {
    let steps = probe.transitions();
    steps.iter().skip(steps.len().saturating_sub(most)).map(step).collect()
}

/// Its timers, soonest first.
#[must_use]
pub fn timers(probe: &Probe) -> Vec<Value> {
    let now = clock::now();
    let timer = |(name, at): (String, Timestamp)| json!({ "name": name, "at": at.to_string(), "due_in_ms": (at.0 - now.0) / 1_000 });
    probe.timers().into_iter().map(timer).collect()
}

/// Whom it has to do with: who sent it messages, and who owes it what it waits for.
#[must_use]
pub fn links(probe: &Probe) -> Value {
    let mut senders: BTreeMap<String, u32> = BTreeMap::new();
    probe.steps().iter().for_each(|s| *senders.entry(s.sender.to_string()).or_default() += 1);
    let owed = probe.view().wait.as_ref().map(|wait| json!({ "by": wait.owed_by.to_string(), "what": wait.what }));
    json!({ "parent": probe.parent(), "heard_from": senders, "owed": owed })
}

/// Wait, as JSON for people.
#[must_use]
pub fn wait_json(wait: &schema::wait::Wait) -> Value {
    json!({
        "what": wait.what, "owed_by": wait.owed_by.to_string(), "since": wait.since.to_string(),
        "until": wait.deadline.to_string(), "on_timeout": wait.on_timeout, "remedy": wait.remedy,
    })
}

/// What each kind has handled since the node started.
#[must_use]
pub fn kinds(registry: &Registry) -> Vec<Value> {
    registry.kinds().iter().map(|tally| kind(tally, registry)).collect()
}

/// What one kind has handled; `None`: there is none of that name.
#[must_use]
pub fn one_kind(registry: &Registry, name: &str) -> Option<Value> {
    registry.kinds().iter().find(|tally| tally.kind == name).map(|tally| kind(tally, registry))
}

fn kind(tally: &KindTally, registry: &Registry) -> Value {
    let probes = registry.list(Some(tally.kind));
    let queued: usize = probes.iter().map(|p| p.depth()).sum();
    let (mut wait, mut handle) = (Spread::default(), Spread::default());
    let mut events = Vec::new();
    for event in tally.events() {
        let (waits, handles) = (event.wait.spread(), event.handle.spread());
        wait.add(&waits);
        handle.add(&handles);
        events.push(json!({
            "event": &*event.name, "count": handles.count(), "refused": event.refused.load(Relaxed),
            "panics": event.panics.load(Relaxed), "wait": spread(&waits), "handler": spread(&handles),
        }));
    }
    let senders: Map<_, _> = tally.senders().into_iter().map(|(kind, n)| (kind.to_owned(), n.into())).collect();
    json!({
        "kind": tally.kind, "actors": probes.len(), "queued": queued, "handled": tally.handled(),
        "wait": spread(&wait), "handler": spread(&handle), "senders": senders, "events": events,
        "overtaken": tally.overtaken.load(Relaxed), "quarantined": tally.quarantined.load(Relaxed),
        "undelivered": tally.undelivered.load(Relaxed),
    })
}

/// The steps of a trace that the rings still hold, oldest first.
#[must_use]
pub fn traced(registry: &Registry, trace: TraceId) -> Vec<Value> {
    let shown = |(kind, id, s): (&'static str, String, StepTrace)| {
        let mut shown = step(&s);
        shown["actor"] = format!("{kind}/{id}").into();
        shown
    };
    registry.traced(trace).into_iter().map(shown).collect()
}

/// Actors that did not go on as they were, oldest first.
#[must_use]
pub fn restarts(registry: &Registry) -> Vec<Value> {
    let mut all: Vec<_> = registry.kinds().iter().flat_map(|kind| kind.restarts()).collect();
    all.sort_by_key(|restart| restart.at);
    let shown = |r: &Restart| {
        json!({
            "at": r.at.to_string(), "actor": format!("{}/{}", r.kind, r.id), "reason": r.reason, "why": r.why, "count": r.count,
        })
    };
    all.iter().map(shown).collect()
}

/// Messages that found no room, oldest first.
#[must_use]
pub fn dead_letters(registry: &Registry) -> Vec<Value> {
    let mut all: Vec<_> = registry.kinds().iter().flat_map(|kind| kind.dead_letters()).collect();
    all.sort_by_key(|letter| letter.at);
    let shown = |l: &DeadLetter| {
        json!({
            "at": l.at.to_string(), "first": l.first.to_string(), "actor": format!("{}/{}", l.kind, l.id), "event": &*l.event,
            "sender": l.sender, "trace": l.trace.to_string(), "why": l.why, "count": l.count,
        })
    };
    all.iter().map(shown).collect()
}

/// What a message trace holds, without the first `after` messages; as much as fits an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    pub messages: Vec<Value>,
    /// Why it holds no more than these; `None`: it goes on, or more is held than fitted.
    pub end: Option<String>,
}

/// What a message trace holds, without the first `after` messages.
#[must_use]
pub fn tapped(tap: &Tap, after: usize) -> Held {
    // The end is read first: what comes between is asked for again.
    let end = tap.end();
    let (mut held, mut len) = (Held { messages: Vec::new(), end: None }, 0);
    for message in tap.messages(after) {
        let shown = message_json(&message);
        len += shown.to_string().len() + 1;
        if len > LONGEST - 1_024 && !held.messages.is_empty() {
            return held;
        }
        held.messages.push(shown);
    }
    held.end = end.map(str::to_owned);
    held
}

fn message_json(message: &Tapped) -> Value {
    let mut shown = step(&message.step);
    if let Some(content) = &message.content {
        shown["payload"] = content.text.clone().into();
        shown["payload_whole"] = content.whole.into();
    }
    shown
}

/// One step.
fn step(step: &StepTrace) -> Value {
    json!({
        "seq": step.seq, "at": step.at.to_string(), "event": &*step.event, "sender": step.sender, "from": &*step.from, "to": &*step.to,
        "verdict": step.outcome.name(), "why": step.outcome.why(), "wait_us": step.waited_us, "handle_us": step.took_us,
        "trace": step.trace.to_string(),
    })
}

fn spread(spread: &Spread) -> Value {
    let Short { p50, p99, max } = spread.short();
    json!({
        "count": spread.count(), "us": { "p50": p50, "p90": spread.quantile(90), "p99": p99, "max": max }, "log2_us": spread.buckets,
    })
}

fn micros_since(at: Instant) -> u64 {
    u64::try_from(clock::tick().saturating_duration_since(at).as_micros()).unwrap_or(u64::MAX)
}
