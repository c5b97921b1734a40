//! `hostler actor …`: what every actor of the site shows of itself, over the region's inspection.

use std::{io::IsTerminal, time::Duration};

use actors::{core::TraceId, findings::words};
use clap::{Args, Subcommand};
use region::{api::oauth::encoded, inspect::most};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, Fields},
    failure::{Code, Failure},
    input::{named, seconds, whole},
    machine::{array, find, id},
    output::{self, Column, Format},
    trace::{self, Wanted},
    yaml,
};

/// What can be looked at.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List actors of the region and its racks
    List(List),
    /// Nodes, kinds and actors, with many of a kind folded
    Tree {
        /// A node (region, or a rack's id), or NODE/KIND, which is shown unfolded
        root: Option<String>,
        /// 1: nodes, 2: kinds, 3: actors
        #[arg(long, value_parser = whole::<u8>(1, most::DEPTH, "2"))]
        depth: Option<u8>,
    },
    /// One actor: what it is at, its mailbox, state, timers, last messages
    Show {
        /// NODE/KIND/ID, KIND/ID of the region, or a machine's name or id
        #[arg(value_parser = named)]
        actor: String,
    },
    /// The last messages of an actor, oldest first
    Messages {
        /// As for `show`
        #[arg(value_parser = named)]
        actor: String,
        /// Only the last ones; at most 1000
        #[arg(short = 'n', long, value_parser = whole::<u32>(1, most::ITEMS, "20"))]
        limit: Option<u32>,
        /// Only those before the message of that number
        #[arg(long, value_parser = whole::<u64>(1, most::SEQ, "20"))]
        before: Option<u64>,
        /// Only those after the message of that number
        #[arg(long, value_parser = whole::<u64>(0, most::SEQ, "20"))]
        since: Option<u64>,
        /// Only those that changed its state, which are kept longer
        #[arg(long)]
        transitions: bool,
    },
    /// The busiest actors, again and again
    Top(Top),
    /// The path of one piece of work over actors and nodes; or an actor's next messages
    Trace {
        /// A trace id; or a machine, for the trace of its last attempt; or NODE/KIND/ID, for what that actor hears from now on (a machine
        /// with --messages, --seconds or --payload, too)
        #[arg(value_parser = named)]
        trace: String,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// What deserves a look, the worst first
    Findings,
    /// Actors that were loaded anew, panicked or were quarantined, and services that died; the newest first
    Restarts(Lost),
    /// Messages that found their mailbox full; the newest first
    Deadletters(Lost),
    /// End an actor of the region and load it anew from the store (inspect.control)
    Restart {
        /// As for `show`
        #[arg(value_parser = named)]
        actor: String,
    },
    /// Give a rack (rack/ID) no new work (inspect.control)
    Drain {
        /// As for `show`
        #[arg(value_parser = named)]
        actor: String,
    },
    /// Let a quarantined actor decide again, and a drained rack work again (inspect.control)
    Resume {
        /// As for `show`
        #[arg(value_parser = named)]
        actor: String,
    },
}

/// Which actors.
#[derive(Debug, Args)]
pub struct List {
    /// machine, rack, subnet, service, errand, …
    #[arg(long)]
    pub kind: Option<String>,
    /// region, or a rack's id
    #[arg(long)]
    pub node: Option<String>,
    /// Only those below it: NODE/KIND, or an actor's path
    #[arg(long)]
    pub parent: Option<String>,
    /// Only those in that state, as in New
    #[arg(long)]
    pub state: Option<String>,
    /// Only those with so many messages or more
    #[arg(long, value_parser = whole::<u32>(0, most::QUEUE, "10"))]
    pub min_queue: Option<u32>,
    /// Only those whose oldest message has waited for so many milliseconds or longer
    #[arg(long, value_parser = whole::<u32>(0, most::WAIT_MS, "100"))]
    pub min_wait_ms: Option<u32>,
    /// Part of an id or a machine's name
    #[arg(short)]
    pub q: Option<String>,
    /// idle, busy, waiting, slow, blocked, held or quarantined
    #[arg(long)]
    pub status: Option<String>,
    /// Only those with this finding, as in actor.flooded
    #[arg(long)]
    pub finding: Option<String>,
    /// path, queue, wait, busy, handled, rate, handler, panics or last; with a minus the largest first, as in --sort=-queue
    #[arg(long, allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// At most 1000
    #[arg(short = 'n', long, value_parser = whole::<u32>(1, most::ITEMS, "100"))]
    pub limit: Option<u32>,
}

/// Which restarts or dead letters.
#[derive(Debug, Args)]
pub struct Lost {
    /// machine, rack, subnet, service, errand, …
    #[arg(long)]
    pub kind: Option<String>,
    /// region, or a rack's id
    #[arg(long)]
    pub node: Option<String>,
    /// At most 1000
    #[arg(short = 'n', long, value_parser = whole::<u32>(1, most::ITEMS, "100"))]
    pub limit: Option<u32>,
}

/// How to look on.
#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub list: List,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_parser = seconds(0.25, 3_600.0, "1"))]
    pub every: f64,
    /// Looks, then it ends; left out, it goes on
    #[arg(long, value_parser = whole::<u32>(1, u64::from(u32::MAX), "10"))]
    pub count: Option<u32>,
}

const COLUMNS: &[Column] = &[
    ("ACTOR", "/path"),
    ("NAME", "/label"),
    ("STATE", "/state"),
    ("STATUS", "/status"),
    ("QUEUE", "/queue"),
    ("WAIT", "/wait"),
    ("MSG/S", "/per_s"),
    ("HANDLED", "/handled"),
    ("HANDLER P99", "/p99"),
    ("WAITS FOR", "/waiting_for"),
    ("FINDINGS", "/findings"),
];

pub(super) const MESSAGES: &[Column] = &[
    ("NO", "/seq"),
    ("AT", "/at"),
    ("EVENT", "/event"),
    ("FROM", "/sender"),
    ("VERDICT", "/verdict"),
    ("STATE", "/to"),
    ("WAITED", "/waited"),
    ("TOOK", "/took"),
    ("WHY", "/why"),
];

const STEPS: &[Column] = &[
    ("AT", "/at"),
    ("NODE", "/node"),
    ("ACTOR", "/actor"),
    ("EVENT", "/event"),
    ("FROM", "/sender"),
    ("VERDICT", "/verdict"),
    ("STATE", "/to"),
    ("TOOK", "/took"),
    ("WHY", "/why"),
];

const FINDINGS: &[Column] = &[
    ("SEVERITY", "/severity"),
    ("FINDING", "/id"),
    ("SUBJECT", "/subject"),
    ("SINCE", "/since"),
    ("TEXT", "/text"),
    ("REMEDY", "/remedy"),
];

const RESTARTS: &[Column] = &[
    ("AT", "/at"),
    ("NODE", "/node"),
    ("ACTOR", "/actor"),
    ("REASON", "/reason"),
    ("TIMES", "/count"),
    ("WHY", "/why"),
];

const TOUCHED: &[Column] =
    &[("Actor", "/path"), ("Done", "/done"), ("At", "/at"), ("State", "/state"), ("Drained", "/drained")];

const LETTERS: &[Column] = &[
    ("AT", "/at"),
    ("NODE", "/node"),
    ("ACTOR", "/actor"),
    ("EVENT", "/event"),
    ("FROM", "/sender"),
    ("TIMES", "/count"),
    ("WHY", "/why"),
];

/// Runs one of the commands.
///
/// # Errors
/// As the region says.
pub async fn run(global: &Global, client: &Client, command: Command) -> Result<(), Failure> {
    match command {
        Command::List(asked) => list(global.output, client, &asked).await,
        Command::Tree { root, depth } => tree(global.output, client, root, depth).await,
        Command::Show { actor } => {
            let shown = get(client, &format!("actors/{}", path(client, &actor).await?), &Vec::new()).await?;
            show(global.output, &shown)
        }
        Command::Messages { actor, limit, before, since, transitions } => {
            let part = if transitions { "transitions" } else { "messages" };
            let numbers = [("limit", limit.map(u64::from)), ("before", before), ("since", since)];
            let query: Fields<'_> = numbers.into_iter().filter_map(|(n, v)| Some((n, v?.to_string()))).collect();
            let said = get(client, &format!("actors/{}/{part}", path(client, &actor).await?), &query).await?;
            output::list(global.output, MESSAGES, "/event", &array(&said["items"]).iter().map(step).collect::<Vec<_>>())
        }
        Command::Top(asked) => top(global.output, client, &asked).await,
        Command::Trace { trace, wanted } if trace.contains('/') || wanted.any() => {
            if trace.parse::<TraceId>().is_ok() {
                let remedy = "give an actor's path or a machine, or leave --messages, --seconds and --payload away";
                return Err(Failure::usage(format!("{trace} is a trace id, which has no messages to come"), remedy));
            }
            let actor = if trace.contains('/') { trace } else { path(client, &trace).await? };
            trace::run(global.output, client, &actor, &wanted).await
        }
        Command::Trace { trace, .. } => {
            let said = get(client, &format!("traces/{}", trace_of(client, &trace).await?), &Vec::new()).await?;
            output::list(global.output, STEPS, "/actor", &array(&said["items"]).iter().map(step).collect::<Vec<_>>())
        }
        Command::Findings => {
            let said = get(client, "findings", &Vec::new()).await?;
            output::list(global.output, FINDINGS, "/id", array(&said["items"]))
        }
        Command::Restarts(asked) => {
            let said = get(client, "restarts", &asked.query()).await?;
            output::list(global.output, RESTARTS, "/actor", array(&said["items"]))
        }
        Command::Deadletters(asked) => {
            let said = get(client, "deadletters", &asked.query()).await?;
            output::list(global.output, LETTERS, "/actor", array(&said["items"]))
        }
        Command::Restart { actor } => touch(global.output, client, &actor, "restart").await,
        Command::Drain { actor } => touch(global.output, client, &actor, "drain").await,
        Command::Resume { actor } => touch(global.output, client, &actor, "resume").await,
    }
}

async fn touch(format: Format, client: &Client, actor: &str, verb: &str) -> Result<(), Failure> {
    let path = format!("/inspect/v1/actors/{}/{verb}", path(client, actor).await?);
    let said = client.own(Method::POST, &path, None).await?;
    output::one(format, TOUCHED, "/path", &said)
}

async fn get(client: &Client, path: &str, query: &Fields<'_>) -> Result<Value, Failure> {
    let pairs: Vec<_> = query.iter().map(|(n, v)| format!("{n}={}", encoded(v))).collect();
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    client.own(Method::GET, &format!("/inspect/v1/{path}{query}"), None).await
}

/// The path of an actor that is named by its path, or by its machine.
async fn path(client: &Client, name: &str) -> Result<String, Failure> {
    if name.contains('/') {
        return Ok(name.split('/').map(encoded).collect::<Vec<_>>().join("/"));
    }
    Ok(format!("region/machine/{}", id(&find(client, name).await?)?))
}

async fn trace_of(client: &Client, name: &str) -> Result<String, Failure> {
    if name.parse::<TraceId>().is_ok() {
        return Ok(name.to_owned());
    }
    let machine = id(&find(client, name).await?)?;
    let told = get(client, &format!("explain/{machine}"), &Vec::new()).await?;
    let none = || {
        let remedy = format!("hostler machine commission {name}");
        Failure::new(Code::NotFound, format!("{name} has no attempt that could be traced"), remedy)
    };
    told["attempt"]["trace"].as_str().map(str::to_owned).ok_or_else(none)
}

impl Lost {
    fn query(&self) -> Fields<'_> {
        let mut query: Fields<'_> = self.kind.iter().map(|kind| ("kind", kind.clone())).collect();
        query.extend(self.node.iter().map(|node| ("node", node.clone())));
        query.extend(self.limit.map(|n| ("limit", n.to_string())));
        query
    }
}

impl List {
    fn query(&self, sort: Option<&str>) -> Fields<'_> {
        let texts = [
            ("kind", &self.kind),
            ("node", &self.node),
            ("parent", &self.parent),
            ("state", &self.state),
            ("q", &self.q),
            ("status", &self.status),
            ("finding", &self.finding),
        ];
        let mut query: Fields<'_> = texts.into_iter().filter_map(|(n, v)| v.clone().map(|v| (n, v))).collect();
        query.extend(self.sort.as_deref().or(sort).map(|sort| ("sort", sort.to_owned())));
        query.extend(self.min_queue.map(|n| ("min_queue", n.to_string())));
        query.extend(self.min_wait_ms.map(|n| ("min_wait_ms", n.to_string())));
        query.extend(self.limit.map(|n| ("limit", n.to_string())));
        query
    }
}

async fn list(format: Format, client: &Client, asked: &List) -> Result<(), Failure> {
    let said = get(client, "actors", &asked.query(None)).await?;
    output::list(format, COLUMNS, "/path", &rows(&said))?;
    let (shown, matched) = (array(&said["items"]).len() as u64, said["matched"].as_u64().unwrap_or(0));
    if shown < matched {
        eprintln!("{shown} of {matched} actors; --limit shows up to 1000");
    }
    Ok(())
}

/// Rows with their spans in words.
fn rows(said: &Value) -> Vec<Value> {
    let row = |item: &Value| {
        let mut row = item.clone();
        row["wait"] = span(&item["oldest_wait_us"]);
        row["p99"] = span(&item["handler_us"]["p99"]);
        row["per_s"] = format!("{:.1}", item["rate"].as_f64().unwrap_or(0.0)).into();
        row
    };
    array(&said["items"]).iter().map(row).collect()
}

pub(super) fn step(item: &Value) -> Value {
    let mut step = item.clone();
    step["waited"] = span(&item["wait_us"]);
    step["took"] = span(&item["handle_us"]);
    step
}

fn span(us: &Value) -> Value {
    us.as_u64().map_or(Value::Null, |us| words(us).into())
}

async fn top(format: Format, client: &Client, asked: &Top) -> Result<(), Failure> {
    if asked.count.is_none() && !matches!(format, Format::Table | Format::Ndjson) {
        return Err(Failure::usage(
            "a list that goes on has no end to close it with",
            "use -o ndjson, or give --count",
        ));
    }
    let mut query = asked.list.query(Some("-queue"));
    if asked.list.limit.is_none() {
        query.push(("limit", "20".into()));
    }
    let mut looks = 0;
    loop {
        let said = get(client, "actors", &query).await?;
        if format == Format::Table && std::io::stdout().is_terminal() {
            output::print("\x1b[H\x1b[2J")?;
        }
        output::list(format, COLUMNS, "/path", &rows(&said))?;
        looks += 1;
        if asked.count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs_f64(asked.every)).await;
        if format == Format::Table {
            output::print("\n")?;
        }
    }
}

async fn tree(format: Format, client: &Client, root: Option<String>, depth: Option<u8>) -> Result<(), Failure> {
    let mut query: Fields<'_> = root.map(|root| ("root", root)).into_iter().collect();
    query.extend(depth.map(|depth| ("depth", depth.to_string())));
    let said = get(client, "tree", &query).await?;
    match format {
        Format::Table => output::print(&branches(&said)),
        Format::Json => output::print(&format!("{said:#}\n")),
        Format::Yaml => output::print(&yaml::text(&said)),
        _ => output::list(
            format,
            &[("NODE", "/node"), ("ACTORS", "/actors"), ("LINK", "/link")],
            "/node",
            array(&said["nodes"]),
        ),
    }
}

fn branches(said: &Value) -> String {
    let word = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let mut out = String::new();
    for node in array(&said["nodes"]) {
        let link = word(node, "link");
        let link = if link.is_empty() || link == "connected" { String::new() } else { format!(", link {link}") };
        let name = word(node, "hostname");
        let name = if name.is_empty() { name } else { format!(" {name}") };
        out.push_str(&format!("{}{name}: {} actors{link}\n", word(node, "node"), node["actors"]));
        for kind in array(&node["kinds"]) {
            let queued = kind["queued"].as_u64().unwrap_or(0);
            let queued = if queued > 0 { format!(", {queued} messages wait") } else { String::new() };
            out.push_str(&format!("  {} ×{}{queued}\n", word(kind, "kind"), kind["actors"]));
            for leaf in array(&kind["items"]) {
                out.push_str(&format!("    {}\n", word(leaf, "id")));
            }
        }
    }
    out
}

const PAGE: &[Column] = &[
    ("Actor", "/path"),
    ("Name", "/label"),
    ("Status", "/status"),
    ("State", "/state/name"),
    ("At", "/at_work"),
    ("Waits for", "/state/wait/what"),
    ("Owed by", "/state/wait/owed_by"),
    ("Until", "/state/wait/until"),
    ("Mailbox", "/in_mailbox"),
    ("Handled", "/handled"),
    ("Handler", "/handling"),
    ("Started", "/started"),
    ("Quarantined", "/supervision/quarantine/why"),
    ("Held", "/supervision/held"),
];

fn show(format: Format, shown: &Value) -> Result<(), Failure> {
    let mut page = shown.clone();
    if format != Format::Table {
        return output::one(format, PAGE, "/path", shown);
    }
    if let (Some(event), Some(us)) = (shown["busy"]["event"].as_str(), shown["busy"]["for_us"].as_u64()) {
        let since = shown["busy"]["since"].as_str().unwrap_or_default();
        page["at_work"] = format!("{event} for {}, since {since}", words(us)).into();
    }
    let us = &shown["handler"]["us"];
    let [p50, p99, max] = ["p50", "p99", "max"].map(|name| words(us[name].as_u64().unwrap_or(0)));
    page["handling"] = format!("median {p50}, 99 of 100 within {p99}, longest {max}").into();
    let mailbox = &shown["mailbox"];
    page["in_mailbox"] =
        format!("{} of {}, most ever {}", mailbox["len"], mailbox["cap"], mailbox["high_water"]).into();
    output::one(format, PAGE, "/path", &page)?;
    part("Findings", FINDINGS, array(&shown["findings"]))?;
    part("Timers", &[("NAME", "/name"), ("AT", "/at")], array(&shown["timers"]))?;
    let waiting = array(&mailbox["waiting"])
        .iter()
        .map(|w| json!({ "event": w["event"], "sender": w["sender"], "waited": span(&w["waited_us"]) }));
    part("Waiting", &[("EVENT", "/event"), ("FROM", "/sender"), ("WAITED", "/waited")], &waiting.collect::<Vec<_>>())?;
    part("Last messages", MESSAGES, &array(&shown["messages"]).iter().map(step).collect::<Vec<_>>())
}

fn part(title: &str, columns: &[Column], items: &[Value]) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    output::print(&format!("\n{title}\n"))?;
    output::list(Format::Table, columns, "/name", items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_drawn_with_what_is_folded_and_what_waits() {
        let said = json!({ "nodes": [
            { "node": "region", "actors": 3, "kinds": [
                { "kind": "catalogue", "actors": 1, "queued": 0, "items": [{ "id": "catalogue" }] },
                { "kind": "machine", "actors": 2, "queued": 7, "folded": true },
            ] },
            { "node": "aaaaaa", "hostname": "elm", "link": "lost", "actors": 0, "kinds": [] },
        ] });
        let drawn = "region: 3 actors\n  catalogue ×1\n    catalogue\n  machine ×2, 7 messages wait\naaaaaa elm: 0 actors, link lost\n";
        assert_eq!(branches(&said), drawn);
    }
}
