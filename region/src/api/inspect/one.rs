//! GET `/inspect/v1/actors/NODE/KIND/ID` and its parts. `KIND/ID` alone is the region's.

use actors::{clock, findings, inspection};
use schema::{id::RackId, messages::link::InspectAsk};
use serde_json::{Value, json};

use super::{alone, asked, asked::short, listed, looked, looked_inside};
use crate::{
    api::{
        call::{Own, OwnAnswer},
        fault::Fault,
    },
    app::App,
    inspect::{REGION, most},
};

const PARTS: [&str; 6] = ["state", "mailbox", "messages", "transitions", "timers", "links"];

/// Which actor, and which part of it.
#[derive(Debug, PartialEq, Eq)]
struct Path<'a> {
    node: &'a str,
    kind: &'a str,
    id: &'a str,
    part: Option<&'a str>,
}

fn path(text: &str) -> Option<Path<'_>> {
    let mut words: Vec<_> = text.trim_end_matches('/').split('/').collect();
    let part = words.last().copied().filter(|last| words.len() > 2 && PARTS.contains(last));
    if part.is_some() {
        words.pop();
    }
    let (node, kind, id) = match words[..] {
        [kind, id] => (REGION, kind, id),
        [node, kind, id] => (node, kind, id),
        _ => return None,
    };
    (![node, kind, id].contains(&"")).then_some(Path { node, kind, id, part })
}

/// One actor, or a part of it.
pub(super) async fn actor(Own(call): Own) -> OwnAnswer {
    let text = call.part("path");
    let wrong = || {
        let names = PARTS.join(", ");
        let why = format!("\"{}\" is no actor's path; write NODE/KIND/ID, and perhaps one of {names}.", short(text));
        Fault::Bad(why)
    };
    let caller = looked(&call)?;
    let at = path(text).ok_or_else(wrong)?;
    if at.part == Some("state") {
        looked_inside(&call)?;
    }
    let limited = matches!(at.part, Some("mailbox" | "messages" | "transitions"));
    let mut asked = asked(&call, if limited { &["limit", "as"] } else { &["as"] });
    let limit = if limited { asked.number("limit", 1, most::ITEMS) } else { None };
    let lines = asked.lines();
    asked.done()?;
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let mut shown = whole(&call.house.app, (at.node, at.kind, at.id)).await?;
    if !caller.is_superuser {
        shown["state"]["view"] = json!({ "$withheld": "states are for administrators" });
    }
    let last = |name: &str| {
        let mut items = shown[name].as_array().cloned().unwrap_or_default();
        items.drain(..items.len().saturating_sub(limit));
        items
    };
    match at.part {
        None => Ok(alone(lines, &shown)),
        Some(part @ ("messages" | "transitions")) => {
            let items = last(part);
            Ok(listed(lines, json!({ "path": shown["path"] }), items))
        }
        Some("mailbox") => {
            let mut mailbox = shown["mailbox"].take();
            let waiting = mailbox["waiting"].as_array().into_iter().flatten().take(limit).cloned().collect();
            mailbox["waiting"] = Value::Null;
            Ok(listed(lines, mailbox, waiting))
        }
        Some(part) => Ok(alone(lines, &json!({ "path": shown["path"], part: shown[part] }))),
    }
}

/// All that an actor shows, its findings and where to look on.
pub(super) async fn whole(app: &App, (node, kind, id): (&str, &str, &str)) -> Result<Value, Fault> {
    let sleeps = || {
        let awake =
            format!("No actor {kind}/{id} is awake on {node}; see /inspect/v1/actors, or read the object itself.");
        Fault::NotFound(awake)
    };
    let path = format!("{node}/{kind}/{id}");
    let (mut shown, found) = if node == REGION {
        let probe = app.registry.get(kind, id).ok_or_else(sleeps)?;
        (inspection::one(&probe), findings::of_actor(&path, &probe.row(), clock::now()))
    } else {
        let rack = node.parse::<RackId>().ok().filter(|id| app.catalogue_content().racks.contains_key(id));
        let none = || {
            Fault::NotFound(format!("There is no node \"{}\"; use region, or the system id of a rack.", short(node)))
        };
        let ask = InspectAsk::Actor { kind: kind.to_owned(), id: id.to_owned() };
        let rack = rack.ok_or_else(none)?;
        let answer = app.ask_rack::<Option<Value>>(rack, ask).await;
        let (shown, _) = answer.map_err(|why| Fault::unavailable(format!("{why}."), "Look at the rack's link."))?;
        let nodes = app.nodes().await;
        let row = nodes.iter().filter(|n| n.id == rack).flat_map(|n| &n.rows).find(|r| r.kind == kind && r.id == id);
        (shown.ok_or_else(sleeps)?, row.map(|row| findings::of_actor(&path, row, clock::now())).unwrap_or_default())
    };
    shown["path"] = path.clone().into();
    shown["node"] = node.into();
    shown["links"]["parent"] = json!(shown["links"]["parent"].as_str().map(|parent| format!("{node}/{parent}")));
    shown["findings"] = json!(found.iter().map(super::whole::finding).collect::<Vec<_>>());
    let part = |part: &str| format!("/inspect/v1/actors/{path}/{part}");
    let mut links: serde_json::Map<_, _> = PARTS.iter().map(|name| ((*name).to_owned(), part(name).into())).collect();
    if matches!(kind, "machine" | "errand") {
        links.insert("explain".into(), format!("/inspect/v1/explain/{id}").into());
        shown["label"] = json!(id.parse().ok().and_then(|id| app.census.hostname(id)));
    }
    shown["_links"] = Value::Object(links);
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_node_kind_id_and_perhaps_a_part() {
        let read = |text| path(text).map(|p| (p.node, p.kind, p.id, p.part));
        assert_eq!(read("machine/aaaaaa"), Some((REGION, "machine", "aaaaaa", None)));
        assert_eq!(read("machine/aaaaaa/timers"), Some((REGION, "machine", "aaaaaa", Some("timers"))));
        assert_eq!(read("bbbbbb/service/dhcp/"), Some(("bbbbbb", "service", "dhcp", None)));
        assert_eq!(read("bbbbbb/service/dhcp/mailbox"), Some(("bbbbbb", "service", "dhcp", Some("mailbox"))));
        assert_eq!(["", "machine", "a//b", "a/b/c/d", "/a/b"].map(|text| read(text).is_none()), [true; 5]);
    }
}
