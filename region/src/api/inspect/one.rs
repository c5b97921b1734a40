//! GET `/inspect/v1/actors/NODE/KIND/ID` and its parts. `KIND/ID` alone is the region's.

use actors::{clock, findings, inspection};
use schema::{id::RackId, messages::link::InspectAsk};
use serde_json::{Value, json};

use super::{
    alone, asked,
    asked::{Asked, short},
    listed, looked, looked_inside,
};
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
pub(super) struct Path<'a> {
    pub(super) node: &'a str,
    pub(super) kind: &'a str,
    pub(super) id: &'a str,
    pub(super) part: Option<&'a str>,
}

pub(super) fn path(text: &str) -> Option<Path<'_>> {
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
    let known: &[&str] = match at.part {
        Some("messages" | "transitions") => &["limit", "before", "since", "as"],
        Some("mailbox") => &["limit", "as"],
        _ => &["as"],
    };
    let mut asked = asked(&call, known);
    let page = Page::read(&mut asked, known);
    let lines = asked.lines();
    asked.done()?;
    let mut shown = whole(&call.house.app, (at.node, at.kind, at.id)).await?;
    if !caller.is_superuser {
        shown["state"]["view"] = json!({ "$withheld": "states are for administrators" });
    }
    match at.part {
        None => Ok(alone(lines, &shown)),
        Some(part @ ("messages" | "transitions")) => {
            let (mut head, items) = page.of(shown[part].as_array().cloned().unwrap_or_default());
            head["path"] = shown["path"].take();
            head["started"] = shown["started"].take();
            Ok(listed(lines, head, items))
        }
        Some("mailbox") => {
            let mut mailbox = shown["mailbox"].take();
            let waiting = mailbox["waiting"].as_array().into_iter().flatten().take(page.limit).cloned().collect();
            mailbox["waiting"] = Value::Null;
            Ok(listed(lines, mailbox, waiting))
        }
        Some(part) => Ok(alone(lines, &json!({ "path": shown["path"], part: shown[part] }))),
    }
}

/// Which of an actor's messages: the last ones, those before one, or those after one; each has a number, counted since the actor woke.
#[derive(Debug)]
struct Page {
    limit: usize,
    before: Option<u64>,
    since: Option<u64>,
}

impl Page {
    fn read(asked: &mut Asked<'_>, known: &[&str]) -> Self {
        let mut number = |name, least, most| known.contains(&name).then(|| asked.number(name, least, most)).flatten();
        let limit = number("limit", 1, most::ITEMS).map_or(usize::MAX, |limit| limit as usize);
        let (before, since) = (number("before", 1, most::SEQ), number("since", 0, most::SEQ));
        if let (Some(before), Some(since)) = (before, since)
            && since + 1 >= before
        {
            let message =
                format!("\"{since}\" leaves nothing before {before}; give a smaller one, or leave before away.");
            asked.wrong("since", message);
        }
        Self { limit, before, since }
    }

    /// Those of `all`, oldest first, and where to go on: `earlier` is the next `before`, null where no older one is kept, and `later` the next
    /// `since`. `forgotten`: how many came after `since` and are kept no more.
    fn of(&self, mut all: Vec<Value>) -> (Value, Vec<Value>) {
        let seq = |item: &Value| item["seq"].as_u64().unwrap_or(0);
        let oldest = all.first().map(seq);
        let forgotten = self.since.zip(oldest).map(|(since, oldest)| oldest.saturating_sub(since + 1));
        all.retain(|one| {
            self.before.is_none_or(|before| seq(one) < before) && self.since.is_none_or(|since| seq(one) > since)
        });
        match self.since {
            Some(_) => all.truncate(self.limit),
            None => drop(all.drain(..all.len().saturating_sub(self.limit))),
        }
        let earlier = all.first().map(seq).filter(|first| oldest.is_some_and(|oldest| oldest < *first));
        let later = all.last().map(seq).or(self.since);
        (json!({ "earlier": earlier, "later": later, "forgotten": forgotten.unwrap_or(0) }), all)
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
    fn pages_go_backwards_and_forwards_and_say_what_is_forgotten() {
        let ring = || (9..=20).map(|seq| json!({ "seq": seq })).collect::<Vec<_>>();
        let page = |limit, before, since| {
            let (head, items) = Page { limit, before, since }.of(ring());
            let seqs: Vec<_> = items.iter().filter_map(|item| item["seq"].as_u64()).collect();
            (seqs, head["earlier"].as_u64(), head["later"].as_u64(), head["forgotten"].as_u64().unwrap())
        };
        assert_eq!(page(2, None, None), (vec![19, 20], Some(19), Some(20), 0));
        assert_eq!(page(2, Some(19), None), (vec![17, 18], Some(17), Some(18), 0));
        assert_eq!(page(9, Some(11), None), (vec![9, 10], None, Some(10), 0), "no older one is kept");
        assert_eq!(page(2, None, Some(12)), (vec![13, 14], Some(13), Some(14), 0));
        assert_eq!(page(2, None, Some(3)), (vec![9, 10], None, Some(10), 5));
        assert_eq!(page(9, Some(16), Some(14)), (vec![15], Some(15), Some(15), 0));
        assert_eq!(page(9, None, Some(20)), (vec![], None, Some(20), 0), "nothing yet: ask again with the same");
    }

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
