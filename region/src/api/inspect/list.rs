//! GET `/inspect/v1/actors`: actors of all nodes, filtered, sorted, a page at a time. Only the page's rows are made.

use std::{cmp::Ordering, collections::HashSet, sync::Arc};

use actors::{
    clock, findings,
    shell::{Gauge, Probe, Row},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

use super::{asked, listed, looked, oldest};
use crate::{
    api::{
        call::{Own, OwnAnswer},
        house::House,
    },
    inspect::{Node, REGION, most},
};

const PARAMETERS: &[&str] = &[
    "kind",
    "node",
    "parent",
    "q",
    "state",
    "status",
    "min_queue",
    "min_wait_ms",
    "finding",
    "sort",
    "limit",
    "cursor",
    "fields",
    "as",
];
const SORTS: &[&str] = &[
    "path", "queue", "-queue", "wait", "-wait", "busy", "-busy", "handled", "-handled", "rate", "-rate", "handler",
    "-handler", "panics", "-panics", "last", "-last",
];
const STATUSES: &[&str] = &["idle", "busy", "waiting", "slow", "blocked", "held", "quarantined"];
const FIELDS: &[&str] = &[
    "path",
    "node",
    "kind",
    "id",
    "parent",
    "label",
    "state",
    "status",
    "queue",
    "queue_cap",
    "oldest_wait_us",
    "busy_us",
    "current",
    "handled",
    "refused",
    "panics",
    "rate",
    "wait_us",
    "handler_us",
    "last",
    "waiting_for",
    "findings",
];

/// What is asked for.
struct Filter<'a> {
    kind: Option<&'a str>,
    node: Option<&'a str>,
    parent: Option<&'a str>,
    q: Option<&'a str>,
    state: Option<&'a str>,
    status: Option<&'static str>,
    min_queue: usize,
    min_wait_us: u64,
    finding: Option<&'static str>,
}

/// One actor that may be shown.
pub(super) enum Candidate<'a> {
    Own(Arc<Probe>, Gauge),
    Of(&'a Node, &'a Row),
}

impl Candidate<'_> {
    pub(super) fn gauge(&self) -> &Gauge {
        match self {
            Self::Own(_, gauge) => gauge,
            Self::Of(_, row) => &row.gauge,
        }
    }

    /// Node, kind, id.
    pub(super) fn name(&self) -> (&str, &str, &str) {
        match self {
            Self::Own(probe, _) => (REGION, probe.kind(), probe.id()),
            Self::Of(node, row) => (node.id.as_str(), &row.kind, &row.id),
        }
    }

    /// What stands above it: another actor, or NODE/KIND.
    pub(super) fn parent(&self) -> String {
        match self {
            Self::Own(probe, _) => format!("{REGION}/{}", probe.parent()),
            Self::Of(node, row) => {
                format!("{}/{}", node.id, if row.parent.is_empty() { &row.kind } else { &row.parent })
            }
        }
    }

    pub(super) fn path(&self) -> String {
        let (node, kind, id) = self.name();
        format!("{node}/{kind}/{id}")
    }

    fn row(&self) -> Row {
        match self {
            Self::Own(probe, _) => probe.row(),
            Self::Of(_, row) => Row::clone(row),
        }
    }
}

/// Every actor of the nodes that are asked for.
pub(super) fn candidates<'a>(
    house: &House,
    nodes: &'a [Node],
    node: Option<&str>,
    kind: Option<&str>,
) -> Vec<Candidate<'a>> {
    let mut all = Vec::new();
    if node.is_none_or(|node| node == REGION) {
        let own = house.registry().list(kind).into_iter();
        all.extend(own.map(|probe| {
            let gauge = probe.gauge();
            Candidate::Own(probe, gauge)
        }));
    }
    for of in nodes.iter().filter(|n| node.is_none_or(|node| node == n.id.as_str())) {
        let rows = of.rows.iter().filter(|row| kind.is_none_or(|kind| row.kind == kind));
        all.extend(rows.map(|row| Candidate::Of(of, row)));
    }
    all
}

/// The list.
pub(super) async fn actors(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let house = &call.house;
    let nodes = house.app.nodes().await;
    let mut asked = asked(&call, PARAMETERS);
    let known = |name: &str| name == REGION || nodes.iter().any(|n| n.id.as_str() == name);
    let rules: Vec<_> = findings::RULES.iter().map(|(id, _)| *id).collect();
    let filter = Filter {
        kind: asked.kind(house.registry(), &nodes),
        node: asked
            .checked("node", "is no node; use region, or the system id of a rack", |n| known(n).then_some(()))
            .and(call.params.filled("node")),
        parent: asked
            .checked("parent", "is no actor's path, nor NODE/KIND; use one that \"parent\" of an actor names", |text| {
                let (node, above) = text.split_once('/')?;
                (known(node) && !above.is_empty() && above.split('/').count() <= 2).then_some(())
            })
            .and(call.params.filled("parent")),
        q: asked.text("q"),
        state: asked.text("state"),
        status: asked.choice("status", STATUSES),
        min_queue: asked.number("min_queue", 0, most::QUEUE).unwrap_or(0) as usize,
        min_wait_us: asked.number("min_wait_ms", 0, most::WAIT_MS).unwrap_or(0) * 1_000,
        finding: asked.choice("finding", &rules),
    };
    let sort = asked.choice("sort", SORTS).unwrap_or("path");
    let limit = asked.number("limit", 1, most::ITEMS).unwrap_or(100) as usize;
    let bound = "is no cursor; use the value of \"next\" of the page before";
    let offset = asked.checked("cursor", bound, read_cursor).unwrap_or(0);
    let fields = asked.choices("fields", FIELDS);
    let lines = asked.lines();
    asked.done()?;

    let mut all = candidates(house, &nodes, filter.node, filter.kind);
    let total = all.len();
    let hosts = filter.q.map(|q| house.app.census.named_like(q)).unwrap_or_default();
    all.retain(|one| filter.admits(one, &hosts));
    let matched = all.len();
    all.sort_unstable_by(|a, b| order(sort, a, b).then_with(|| a.name().cmp(&b.name())));
    let items = all.iter().skip(offset).take(limit).map(|one| item(house, one, &fields)).collect();
    let next = (offset + limit < matched).then(|| cursor(offset + limit));
    let missing: Vec<_> = nodes.iter().filter(|n| n.rows.is_empty()).map(|n| n.id.to_string()).collect();
    let head = json!({
        "total": total, "matched": matched, "next": next, "nodes_without_rows": missing, "age_ms": oldest(&nodes),
    });
    Ok(listed(lines, head, items))
}

impl Filter<'_> {
    fn admits(&self, one: &Candidate<'_>, hosts: &HashSet<String>) -> bool {
        let (gauge, (_, kind, id)) = (one.gauge(), one.name());
        if gauge.queue < self.min_queue || gauge.oldest_wait_us.unwrap_or(0) < self.min_wait_us {
            return false;
        }
        if self.parent.is_some_and(|parent| one.parent() != parent) {
            return false;
        }
        let named = matches!(kind, "machine" | "errand") && hosts.contains(id);
        if self.q.is_some_and(|q| !named && !id.contains(q)) {
            return false;
        }
        let in_state = |state: &str| match one {
            Candidate::Own(probe, _) => probe.view().state == state,
            Candidate::Of(_, row) => row.state == state,
        };
        if self.state.is_some_and(|state| !in_state(state)) {
            return false;
        }
        let has_status = |status: &str| match one {
            Candidate::Own(probe, _) => probe.status() == status,
            Candidate::Of(_, row) => row.status() == status,
        };
        if self.status.is_some_and(|status| !has_status(status)) {
            return false;
        }
        self.finding.is_none_or(|id| findings_of(one).iter().any(|f| f == id))
    }
}

fn findings_of(one: &Candidate<'_>) -> Vec<String> {
    let now = match one {
        Candidate::Own(..) => clock::now(),
        Candidate::Of(node, _) => node.at,
    };
    findings::of_actor("", &one.row(), now).into_iter().map(|f| f.id).collect()
}

/// The order of two actors; a leading minus turns it round.
fn order(sort: &str, a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    let by = sort.trim_start_matches('-');
    let number = |one: &Candidate<'_>| -> f64 {
        let gauge = one.gauge();
        match by {
            "queue" => gauge.queue as f64,
            "wait" => gauge.oldest_wait_us.unwrap_or(0) as f64,
            "busy" => gauge.busy_us.unwrap_or(0) as f64,
            "handled" => gauge.handled as f64,
            "rate" => gauge.rate,
            "handler" => gauge.handle_us.p99 as f64,
            "panics" => gauge.panics as f64,
            "last" => gauge.last_at.map_or(0.0, |at| at.0 as f64),
            _ => 0.0,
        }
    };
    let order = number(a).total_cmp(&number(b));
    if sort.starts_with('-') { order.reverse() } else { order }
}

fn item(house: &House, one: &Candidate<'_>, fields: &[&str]) -> Value {
    let (row, (node, kind, id)) = (one.row(), one.name());
    let gauge = &row.gauge;
    let label = id.parse().ok().filter(|_| kind != "rack").and_then(|id| house.app.census.hostname(id));
    let mut item = json!({
        "path": one.path(), "node": node, "kind": kind, "id": id, "parent": one.parent(), "label": label, "state": row.state, "status": row.status(),
        "queue": gauge.queue, "queue_cap": gauge.capacity, "oldest_wait_us": gauge.oldest_wait_us, "busy_us": gauge.busy_us,
        "current": row.current, "handled": gauge.handled, "refused": gauge.refused, "panics": gauge.panics, "rate": gauge.rate,
        "wait_us": gauge.wait_us, "handler_us": gauge.handle_us, "last": gauge.last_at.map(|at| at.to_string()),
        "waiting_for": row.wait.as_ref().map(|wait| wait.what.clone()), "findings": findings_of(one),
    });
    if let (false, Some(map)) = (fields.is_empty(), item.as_object_mut()) {
        map.retain(|name, _| fields.contains(&name.as_str()));
    }
    item
}

fn cursor(offset: usize) -> String {
    BASE64.encode(format!("offset:{offset}"))
}

fn read_cursor(text: &str) -> Option<usize> {
    let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    text.strip_prefix("offset:")?.parse().ok().filter(|offset| *offset <= 10_000_000)
}
