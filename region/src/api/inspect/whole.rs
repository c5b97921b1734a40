//! The whole at a glance: summary, tree, kinds, flow, findings.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use actors::{findings::Finding, inspection, rack::LinkState, shell::Gauge};
use schema::{id::RackId, messages::link::InspectAsk};
use serde_json::{Value, json};

use super::{
    alone, asked,
    asked::short,
    list::{Candidate, candidates},
    listed, listed_as, looked, millis,
};
use crate::{
    api::{
        call::{Call, Own, OwnAnswer},
        fault::Fault,
        house::House,
    },
    inspect::{LATELY, Node, REGION, Sample, most},
};

/// The window of the rates that a summary shows.
const WINDOW: Duration = Duration::from_secs(10);

/// GET `/inspect/v1/summary`.
pub(super) async fn summary(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let mut asked = asked(&call, &["as"]);
    let lines = asked.lines();
    asked.done()?;
    let sample = call.house.app.sample(LATELY).await;
    Ok(alone(lines, &with_ages(summarised(&call.house, &sample), &sample)))
}

/// A summary with the times of what it is made of. They are another each time, so they are added last.
pub(super) fn with_ages(mut shown: Value, sample: &Sample) -> Value {
    shown["at"] = sample.at.to_string().into();
    shown["age_ms"] = millis(sample.age()).into();
    for (shown, node) in shown["nodes"].as_array_mut().into_iter().flatten().zip(sample.nodes.iter()) {
        age(shown, node);
    }
    shown
}

/// When a rack's rows were asked for, which are kept for a second; null where there are none.
fn age(shown: &mut Value, node: &Node) {
    let age = node.age();
    shown["at"] = json!(age.map(|_| node.at.to_string()));
    shown["age_ms"] = json!(age.map(millis));
}

/// Totals, by kind and by node.
pub(super) fn summarised(house: &House, sample: &Sample) -> Value {
    let mut kinds: BTreeMap<&str, Sum> = BTreeMap::new();
    let mut whole = Sum::default();
    for one in sample.all() {
        kinds.entry(one.kind).or_default().add(one.gauge);
        whole.add(one.gauge);
    }
    let mut rates: BTreeMap<&str, f64> = BTreeMap::new();
    for ((_, kind), rate) in house.app.inspector.rates.flow(house.registry(), WINDOW) {
        *rates.entry(kind).or_default() += rate;
    }
    for row in sample.nodes.iter().flat_map(|n| &n.rows) {
        *rates.entry(&row.kind).or_default() += row.gauge.rate;
    }
    let undelivered: u64 =
        house.registry().kinds().iter().map(|k| k.undelivered.load(std::sync::atomic::Ordering::Relaxed)).sum();
    let kinds: Vec<_> = kinds.iter().map(|(kind, sum)| sum.json(Some(kind), rates.get(kind).copied())).collect();
    let mut shown = whole.json(None, Some(rates.values().sum()));
    shown["node"] = REGION.into();
    shown["kinds"] = Value::Array(kinds);
    shown["nodes"] = sample.nodes.iter().map(node).collect();
    shown["dead_letters"] = undelivered.into();
    shown["watchers"] = house.app.inspector.watchers().into();
    shown["dropped_samples"] = house.app.inspector.missed.load(std::sync::atomic::Ordering::Relaxed).into();
    let found = house.app.found(sample);
    let count = |severity| found.iter().filter(|f| f.severity == severity).count();
    use actors::findings::Severity;
    shown["findings"] = json!({ "critical": count(Severity::Critical), "warning": count(Severity::Warning) });
    shown
}

fn node(node: &Node) -> Value {
    let stale = node.link != LinkState::Connected;
    json!({
        "node": node.id, "hostname": node.hostname, "link": node.link, "stale_since": stale.then(|| node.since.to_string()),
        "actors": node.rows.len(), "left_off": node.left_off, "trouble": node.trouble,
    })
}

/// Numbers of several actors.
#[derive(Default)]
struct Sum {
    actors: usize,
    queued: usize,
    handled: u64,
    refused: u64,
    panics: u64,
    worst: Gauge,
}

impl Sum {
    fn add(&mut self, gauge: &Gauge) {
        self.actors += 1;
        self.queued += gauge.queue;
        self.handled += gauge.handled;
        self.refused += gauge.refused;
        self.panics += gauge.panics;
        let worst = &mut self.worst;
        worst.oldest_wait_us = worst.oldest_wait_us.max(gauge.oldest_wait_us);
        worst.busy_us = worst.busy_us.max(gauge.busy_us);
        worst.handle_us.p99 = worst.handle_us.p99.max(gauge.handle_us.p99);
        worst.handle_us.max = worst.handle_us.max.max(gauge.handle_us.max);
        worst.wait_us.p99 = worst.wait_us.p99.max(gauge.wait_us.p99);
        worst.wait_us.max = worst.wait_us.max.max(gauge.wait_us.max);
    }

    fn json(&self, kind: Option<&str>, rate: Option<f64>) -> Value {
        let worst = &self.worst;
        let rounded = rate.map(|rate| (rate * 10.0).round() / 10.0);
        let mut shown = json!({
            "actors": self.actors, "queued": self.queued, "handled": self.handled, "msg_per_s": rounded.unwrap_or(0.0),
            "refused": self.refused, "panics": self.panics,
            "worst": {
                "oldest_wait_us": worst.oldest_wait_us, "busy_us": worst.busy_us,
                "handler_p99_us": worst.handle_us.p99, "handler_max_us": worst.handle_us.max,
                "wait_p99_us": worst.wait_us.p99, "wait_max_us": worst.wait_us.max,
            },
        });
        if let Some(kind) = kind {
            shown["kind"] = kind.into();
        }
        shown
    }
}

/// GET `/inspect/v1/tree?root=&depth=&fold=`: nodes, their kinds, their actors.
pub(super) async fn tree(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let mut asked = asked(&call, &["root", "depth", "fold", "as"]);
    let nodes = call.house.app.nodes().await;
    let known = |node: &str| node == REGION || nodes.iter().any(|n| n.id.as_str() == node);
    let root = asked.checked("root", "is no node, nor NODE/KIND; use region, or the system id of a rack", |text| {
        let (node, kind) = text.split_once('/').unwrap_or((text, ""));
        known(node).then(|| (node.to_owned(), kind.to_owned()))
    });
    let depth = asked.number("depth", 1, most::DEPTH).unwrap_or(3);
    let fold = asked.choice("fold", &["kind", "none"]).unwrap_or("kind");
    let lines = asked.lines();
    asked.done()?;
    let (root_node, root_kind) = root.unzip();
    let root_kind = root_kind.filter(|kind| !kind.is_empty());
    Ok(listed_as("nodes", lines, json!({}), branches(&call.house, &nodes, (root_node, root_kind), depth, fold)))
}

/// The nodes, or the one that is the root, with their kinds and actors.
pub(super) fn branches(
    house: &House,
    nodes: &[Node],
    (root_node, root_kind): (Option<String>, Option<String>),
    depth: u64,
    fold: &str,
) -> Vec<Value> {
    let all = candidates(house, nodes, root_node.as_deref(), root_kind.as_deref());
    let mut grouped: BTreeMap<(&str, &str), Vec<&Candidate<'_>>> = BTreeMap::new();
    all.iter().for_each(|one| grouped.entry((one.name().0, one.name().1)).or_default().push(one));
    // A kind with many actors is folded, unless it is what was asked for.
    let unfolded = |count: usize| depth > 2 && (fold == "none" || root_kind.is_some() || count <= 10);
    let names: BTreeSet<&str> = std::iter::once(REGION).chain(nodes.iter().map(|n| n.id.as_str())).collect();
    let mut branches = Vec::new();
    for name in names.into_iter().filter(|name| root_node.as_deref().is_none_or(|root| root == *name)) {
        let kinds = grouped.iter().filter(|((node, _), _)| *node == name);
        let kinds: Vec<_> = kinds.map(|((_, kind), of)| branch(kind, of, unfolded(of.len()))).collect();
        let of = nodes.iter().find(|n| n.id.as_str() == name);
        let mut shown = of.map_or_else(|| json!({ "node": REGION }), node);
        of.into_iter().for_each(|of| age(&mut shown, of));
        shown["actors"] = kinds.iter().filter_map(|k| k["actors"].as_u64()).sum::<u64>().into();
        if depth > 1 {
            shown["kinds"] = Value::Array(kinds);
        }
        branches.push(shown);
    }
    branches
}

/// Leaves that one answer shows at most.
const LEAVES: usize = 1_000;

fn branch(kind: &str, of: &[&Candidate<'_>], unfolded: bool) -> Value {
    let mut sum = Sum::default();
    of.iter().for_each(|one| sum.add(one.gauge()));
    let mut shown = json!({ "kind": kind, "actors": sum.actors, "queued": sum.queued, "handled": sum.handled, "folded": !unfolded });
    if unfolded {
        let leaf = |one: &&Candidate<'_>| json!({ "path": one.path(), "id": one.name().2, "queue": one.gauge().queue });
        let mut leaves: Vec<_> = of.iter().collect();
        leaves.sort_by_key(|one| one.name());
        shown["left_off"] = leaves.len().saturating_sub(LEAVES).into();
        shown["items"] = leaves.into_iter().take(LEAVES).map(leaf).collect();
    }
    shown
}

/// GET `/inspect/v1/kinds?node=`.
pub(super) async fn kinds(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let (items, lines) = of_kinds(&call).await?;
    Ok(listed(lines, json!({}), items))
}

/// GET `/inspect/v1/kinds/KIND?node=`.
pub(super) async fn kind(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let (items, lines) = of_kinds(&call).await?;
    let wanted = call.part("kind");
    let names: Vec<_> = items.iter().filter_map(|k| k["kind"].as_str()).collect();
    let none =
        || Fault::NotFound(format!("There is no kind \"{}\" there; there are {}.", short(wanted), names.join(", ")));
    Ok(alone(lines, items.iter().find(|k| k["kind"] == wanted).ok_or_else(none)?))
}

async fn of_kinds(call: &Call) -> Result<(Vec<Value>, bool), Fault> {
    let app = &call.house.app;
    let mut asked = asked(call, &["node", "as"]);
    let racks = app.catalogue_content();
    let rack = asked.checked("node", "is no node; use region, or the system id of a rack", |text| match text {
        REGION => Some(None),
        id => id.parse::<RackId>().ok().filter(|id| racks.racks.contains_key(id)).map(Some),
    });
    let lines = asked.lines();
    asked.done()?;
    let items = match rack.flatten() {
        None => inspection::kinds(&app.registry),
        Some(rack) => {
            let answer = app.ask_rack::<Vec<Value>>(rack, InspectAsk::Kinds).await;
            answer.map_err(|why| Fault::unavailable(format!("{why}."), "Look at the rack's link."))?.0
        }
    };
    Ok((items, lines))
}

/// GET `/inspect/v1/flow?window=`: messages a second from kind to kind in the region, and from node to node.
pub(super) async fn flow(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let mut asked = asked(&call, &["window", "as"]);
    let window = asked.number("window", 1, 300).unwrap_or(10);
    let lines = asked.lines();
    asked.done()?;
    let window_s = Duration::from_secs(window);
    let (mut kinds, nodes) = (flows(&call.house, window_s), between_nodes(&call.house, window_s));
    if lines {
        // A line must say by itself what it is.
        kinds.iter_mut().for_each(|flow| flow["between"] = "kinds".into());
        let mut nodes = nodes;
        nodes.iter_mut().for_each(|flow| flow["between"] = "nodes".into());
        kinds.append(&mut nodes);
        return Ok(listed(true, Value::Null, kinds));
    }
    Ok(listed(false, json!({ "window_s": window, "nodes": nodes }), kinds))
}

/// How many messages the links carry, each way. Racks do not talk to each other.
pub(super) fn between_nodes(house: &House, window: Duration) -> Vec<Value> {
    let links = house.app.inspector.rates.links(&house.app.links, window);
    let shown =
        |from: &str, to: &str, rate: f64| json!({ "from": from, "to": to, "per_s": (rate * 10.0).round() / 10.0 });
    let both = |(rack, (sent, received)): (RackId, (f64, f64))| {
        [shown(REGION, rack.as_str(), sent), shown(rack.as_str(), REGION, received)]
    };
    links.into_iter().flat_map(both).collect()
}

/// Who tells whom how much.
pub(super) fn flows(house: &House, window: Duration) -> Vec<Value> {
    let flow = house.app.inspector.rates.flow(house.registry(), window);
    let shown = |((from, to), rate): ((&str, &str), f64)| json!({ "from": from, "to": to, "per_s": (rate * 10.0).round() / 10.0 });
    flow.into_iter().map(shown).collect()
}

/// GET `/inspect/v1/findings`.
pub(super) async fn findings(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let mut asked = asked(&call, &["severity", "id", "as"]);
    let severity = asked.choice("severity", &["critical", "warning"]);
    let rules: Vec<_> = actors::findings::RULES.iter().map(|(id, _)| *id).collect();
    let id = asked.choice("id", &rules);
    let lines = asked.lines();
    asked.done()?;
    let found: Vec<_> = call.house.app.findings().await.iter().map(finding).collect();
    let wanted = |f: &Value| severity.is_none_or(|s| f["severity"] == s) && id.is_none_or(|id| f["id"] == id);
    let items: Vec<_> = found.into_iter().filter(wanted).collect();
    Ok(listed(lines, json!({ "count": items.len() }), items))
}

/// A finding, for people.
pub(super) fn finding(finding: &Finding) -> Value {
    json!({
        "id": finding.id, "severity": finding.severity, "subject": finding.subject,
        "since": finding.since.map(|at| at.to_string()), "text": finding.text, "remedy": finding.remedy,
    })
}
