//! POST `/inspect/v1/snapshot`: the debug bundle, one tar: what the inspection shows of the whole, the worst actors, the configuration without its
//! secrets, metrics, and the last log lines of the region and of each linked rack. What a node does not say is named in its manifest.

use std::{cmp::Reverse, collections::HashMap, io, time::Duration};

use actix_web::{HttpResponse, http::header};
use actors::{clock, findings::Severity, inspection, tail};
use schema::messages::link::InspectAsk;
use serde_json::{Value, json};
use tracing::info;

use super::{
    asked,
    list::{Candidate, candidates},
    looked_inside, losses, one, whole,
};
use crate::{
    api::{
        call::{Own, OwnAnswer},
        fault::Fault,
        house::House,
    },
    inspect::{Node, most},
};

/// The bytes of all actors that are shown whole.
const ACTOR_BYTES: usize = 16 << 20;
/// Bytes of one rack's log at most, and of all racks' logs.
const RACK_LOG: usize = 256 << 10;
const RACK_LOGS: usize = 16 << 20;
const WINDOW: Duration = Duration::from_secs(60);

/// The bundle.
pub(super) async fn make(Own(call): Own) -> OwnAnswer {
    let caller = looked_inside(&call)?;
    let mut asked = asked(&call, &["actors", "lines"]);
    let actors = asked.number("actors", 0, most::ACTORS).unwrap_or(most::ACTORS) as usize;
    let lines = asked.number("lines", 0, most::LINES).unwrap_or(2_000) as usize;
    asked.done()?;
    info!(target: "audit", user = caller.username, actors, lines, "made a debug bundle");
    let house = &call.house;
    let mut bundle = Bundle::new(house.app.config.id.as_str());
    gather(house, &mut bundle, actors, lines).await;
    let (name, bytes) = bundle.done(&caller.username).map_err(|e| {
        Fault::unavailable(format!("The bundle cannot be written: {e}."), "Report it as a defect with the log.")
    })?;
    Ok(HttpResponse::Ok()
        .content_type("application/x-tar")
        .insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.tar\"")))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(bytes))
}

async fn gather(house: &House, bundle: &mut Bundle, actors: usize, lines: usize) {
    let app = &house.app;
    let nodes = app.nodes().await;
    for node in nodes.iter().filter(|node| node.rows.is_empty()) {
        let why = node.trouble.clone().unwrap_or_else(|| "it is not connected, or shows no actor".into());
        bundle.left_out.push(format!("actors of {}: {why}", node.id));
    }
    let sample = app.sample(Duration::ZERO).await;
    let findings = app.found(&sample);
    bundle.json("summary.json", &whole::with_ages(whole::summarised(house, &sample), &sample));
    bundle.json("tree.json", &whole::branches(house, &nodes, (None, None), 3, "kind").into());
    bundle.json("findings.json", &findings.iter().map(whole::finding).collect());
    bundle.json("kinds.json", &inspection::kinds(&app.registry).into());
    let flow = json!({ "window_s": WINDOW.as_secs(), "kinds": whole::flows(house, WINDOW), "nodes": whole::between_nodes(house, WINDOW) });
    bundle.json("flow.json", &flow);
    let (restarts, silent) = losses::all_restarts(app).await;
    bundle
        .left_out
        .extend(silent.iter().map(|rack| format!("restarts and dead letters of {rack}: it does not answer")));
    bundle.json("restarts.json", &restarts.into());
    bundle.json("deadletters.json", &losses::all_dead_letters(app).await.0.into());
    let known = app.catalogue_content();
    let services = known.racks.keys().map(|rack| json!({ "rack": rack, "services": app.services(*rack) }));
    bundle.json("services.json", &services.collect());
    let severities = findings.iter().map(|f| (f.subject.clone(), f.severity)).rev().collect();
    worst(house, &nodes, &severities, actors, bundle).await;
    bundle.text("region.toml", &app.config.to_redacted_toml());
    bundle.text("metrics.txt", &app.metrics().await);
    let log = tail::last(lines);
    if log.is_empty() && lines > 0 {
        bundle.left_out.push("log.txt: this process keeps no log lines".into());
    }
    bundle.text("log.txt", &joined(&log));
    rack_logs(house, &nodes, lines, bundle).await;
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The newest log lines of every rack that is linked, asked for all at once. They come from a process like this one, which keeps secrets out of
/// its log just so.
async fn rack_logs(house: &House, nodes: &[Node], lines: usize, bundle: &mut Bundle) {
    let bytes = (RACK_LOGS / nodes.len().max(1)).min(RACK_LOG);
    let ask = InspectAsk::Log {
        lines: u32::try_from(lines).unwrap_or(u32::MAX),
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
    };
    let asking = nodes.iter().map(|node| house.app.ask_rack::<Vec<String>>(node.id, ask.clone()));
    for (node, answer) in nodes.iter().zip(futures_util::future::join_all(asking).await) {
        match answer {
            Ok((log, left_off)) => {
                if left_off > 0 {
                    bundle
                        .left_out
                        .push(format!("log of {}: {left_off} older lines, which exceed {bytes} bytes", node.id));
                }
                bundle.text(&format!("racks/{}/log.txt", node.id), &joined(&log));
            }
            Err(why) => bundle.left_out.push(format!("log of {}: {why}", node.id)),
        }
    }
}

/// The actors that deserve a look first, each whole.
async fn worst(
    house: &House,
    nodes: &[Node],
    severities: &HashMap<String, Severity>,
    most: usize,
    bundle: &mut Bundle,
) {
    let mut all = candidates(house, nodes, None, None);
    all.sort_by_cached_key(|one| {
        let (gauge, path) = (one.gauge(), one.path());
        let severity = severities.get(&path).copied().map_or(2, |severity| severity as u8);
        let long = gauge.oldest_wait_us.max(gauge.busy_us);
        (severity, Reverse((gauge.queue, long, gauge.panics, gauge.handle_us.p99)), path)
    });
    let paths: Vec<_> = all.iter().take(most).map(Candidate::path).collect();
    drop(all);
    let (mut bytes, mut silent) = (0, Vec::new());
    for (at, path) in paths.iter().enumerate() {
        let mut words = path.splitn(3, '/');
        let (Some(node), Some(kind), Some(id)) = (words.next(), words.next(), words.next()) else { continue };
        if silent.contains(&node) {
            continue;
        }
        match one::whole(&house.app, (node, kind, id)).await {
            Ok(shown) => {
                let text = format!("{shown:#}\n");
                bytes += text.len();
                if bytes > ACTOR_BYTES {
                    bundle
                        .left_out
                        .push(format!("actors after the first {at}: they hold more than {ACTOR_BYTES} bytes"));
                    return;
                }
                bundle.text(&format!("actors/{at:03}-{}.json", file_name(path)), &text);
            }
            Err(Fault::NotFound(_)) => {} // It has ended since it was listed.
            Err(why) => {
                bundle.left_out.push(format!("actors of {node}: {why}"));
                silent.push(node);
            }
        }
    }
}

/// An actor's path as a file's name.
fn file_name(path: &str) -> String {
    path.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).take(80).collect()
}

/// A tar that grows in memory.
struct Bundle {
    name: String,
    tar: tar::Builder<Vec<u8>>,
    parts: Vec<Value>,
    left_out: Vec<String>,
    broken: Option<io::Error>,
}

impl Bundle {
    fn new(region: &str) -> Self {
        let stamp = clock::now().to_string().replace(['-', ':'], "").split('.').next().unwrap_or_default().to_owned();
        let name = format!("hostler-debug-{region}-{stamp}Z");
        Self { name, tar: tar::Builder::new(Vec::new()), parts: Vec::new(), left_out: Vec::new(), broken: None }
    }

    fn json(&mut self, name: &str, value: &Value) {
        self.text(name, &format!("{value:#}\n"));
    }

    fn text(&mut self, name: &str, text: &str) {
        let mut head = tar::Header::new_gnu();
        head.set_size(text.len() as u64);
        head.set_mode(0o600);
        head.set_mtime(u64::try_from(clock::now().seconds()).unwrap_or(0));
        let path = format!("{}/{name}", self.name);
        if let Err(error) = self.tar.append_data(&mut head, path, text.as_bytes()) {
            self.broken.get_or_insert(error);
        }
        self.parts.push(json!({ "name": name, "bytes": text.len() }));
    }

    /// Name and bytes.
    fn done(mut self, by: &str) -> io::Result<(String, Vec<u8>)> {
        let manifest = json!({
            "version": env!("CARGO_PKG_VERSION"), "at": clock::now().to_string(), "by": by, "parts": self.parts, "left_out": self.left_out,
        });
        self.json("manifest.json", &manifest);
        match self.broken {
            Some(error) => Err(error),
            None => self.tar.into_inner().map(|bytes| (self.name, bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_harmless_file_name() {
        assert_eq!(file_name("region/subnet/10.0.0.0/8"), "region-subnet-10.0.0.0-8");
        assert_eq!(file_name("a/../../etc"), "a-..-..-etc");
        assert_eq!(file_name(&"x".repeat(500)).len(), 80);
    }
}
