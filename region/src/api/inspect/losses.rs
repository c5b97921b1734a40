//! GET `/inspect/v1/restarts` and `/deadletters`: what did not go on as it was, and what found no room, on all nodes; the newest first.

use actix_web::HttpResponse;
use actors::{inspection, rack::LinkState};
use schema::{id::RackId, messages::link::InspectAsk};
use serde_json::{Value, json};

use super::{asked, listed, looked};
use crate::{
    api::{
        call::{Call, Own, OwnAnswer},
        fault::Fault,
    },
    app::App,
    inspect::{REGION, most},
};

/// Actors that were loaded anew, panicked, were quarantined or released; services of racks that died and were started again.
pub(super) async fn restarts(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let wanted = Wanted::read(&call).await?;
    Ok(wanted.of(all_restarts(&call.house.app).await))
}

/// Messages that found their mailbox full.
pub(super) async fn dead_letters(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let wanted = Wanted::read(&call).await?;
    Ok(wanted.of(all_dead_letters(&call.house.app).await))
}

/// What was found, the newest first, and the nodes that did not say.
pub(super) type Found = (Vec<Value>, Vec<String>);

pub(super) async fn all_restarts(app: &App) -> Found {
    let (mut found, silent) = gather(app, inspection::restarts(&app.registry), InspectAsk::Restarts).await;
    for rack in app.catalogue_content().racks.keys() {
        for service in app.services(*rack).into_iter().filter(|service| service.restarts > 0) {
            let why = service.last_error.map(|error| error.why);
            found.push(json!({
                "at": service.since.to_string(), "node": rack, "actor": format!("service/{}", service.service), "reason": "died",
                "why": why.unwrap_or_default(), "count": service.restarts,
            }));
        }
    }
    sort(&mut found);
    (found, silent)
}

pub(super) async fn all_dead_letters(app: &App) -> Found {
    let (mut found, silent) = gather(app, inspection::dead_letters(&app.registry), InspectAsk::DeadLetters).await;
    sort(&mut found);
    (found, silent)
}

fn sort(found: &mut [Value]) {
    // RFC 3339 in UTC: the texts' order is that of the times. Of the same millisecond, what was found later is later.
    found.reverse();
    found.sort_by(|a, b| b["at"].as_str().cmp(&a["at"].as_str()));
}

async fn gather(app: &App, own: Vec<Value>, ask: InspectAsk) -> Found {
    let nodes = app.nodes().await;
    let linked = |id: RackId, link: LinkState| (link == LinkState::Connected).then_some(id);
    let asking = nodes.iter().map(|node| {
        let ask = ask.clone();
        async move {
            let said = match linked(node.id, node.link) {
                Some(rack) => app.ask_rack::<Vec<Value>>(rack, ask).await.ok().map(|(found, _)| found),
                None => None,
            };
            (node.id, said)
        }
    });
    let (mut found, mut silent) = (Vec::new(), Vec::new());
    let mut add = |node: &str, said: Vec<Value>| {
        found.extend(said.into_iter().map(|mut one| {
            one["node"] = node.into();
            one
        }));
    };
    add(REGION, own);
    for (rack, said) in futures_util::future::join_all(asking).await {
        match said {
            Some(said) => add(rack.as_str(), said),
            None => silent.push(rack.to_string()),
        }
    }
    (found, silent)
}

/// What is asked for.
struct Wanted {
    node: Option<String>,
    kind: Option<String>,
    limit: usize,
    lines: bool,
}

impl Wanted {
    async fn read(call: &Call) -> Result<Self, Fault> {
        let mut asked = asked(call, &["node", "kind", "limit", "as"]);
        let (racks, nodes) = (call.house.app.catalogue_content(), call.house.app.nodes().await);
        let known = |name: &str| name == REGION || name.parse::<RackId>().is_ok_and(|id| racks.racks.contains_key(&id));
        let bound = "is no node; use region, or the system id of a rack";
        let node = asked.checked("node", bound, |name| known(name).then(|| name.to_owned()));
        let kind = asked.kind(call.house.registry(), &nodes).map(str::to_owned);
        let limit = asked.number("limit", 1, most::ITEMS).unwrap_or(100) as usize;
        let lines = asked.lines();
        asked.done()?;
        Ok(Self { node, kind, limit, lines })
    }

    fn of(&self, (mut found, silent): Found) -> HttpResponse {
        let kind_of = |one: &Value| one["actor"].as_str().and_then(|a| a.split('/').next()).map(str::to_owned);
        found.retain(|one| {
            let there = self.node.as_ref().is_none_or(|node| one["node"] == **node);
            there && (self.kind.is_none() || kind_of(one) == self.kind)
        });
        let head = json!({ "matched": found.len(), "nodes_without_answer": silent });
        found.truncate(self.limit);
        listed(self.lines, head, found)
    }
}
