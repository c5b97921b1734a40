//! What a bench found, as the contract's JSON.

use serde_json::{Map, Value, json};

use super::{Bench, harness, host, run::Course, usage::Each};
use crate::yard::furniture_sizes;

/// The findings.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// As `--report` writes it.
    pub json: Value,
    /// Each machine that did not become Ready, explained by the region.
    pub stuck: Vec<String>,
}

/// What a report is made of.
pub(super) struct Found<'a> {
    pub(super) bench: &'a Bench,
    pub(super) course: &'a Course,
    /// What the region says of the fleet, and what the fleet counted.
    pub(super) fleet: Value,
    pub(super) counts: Value,
    /// Datagrams that full buffers dropped, by whose they were.
    pub(super) dropped: Each<u64>,
    pub(super) explain_ms: Value,
    pub(super) watched: Value,
    pub(super) audit: Value,
    pub(super) stuck: Vec<String>,
}

impl Report {
    pub(super) fn compose(found: Found<'_>) -> Self {
        let Found { bench, course, fleet, counts, .. } = &found;
        let machines = u64::from(bench.layout.machines);
        let of = |status: &str| fleet["statuses"][status].as_u64().unwrap_or(0);
        let (ready, failed, seconds) = (of("Ready"), of("Failed commissioning"), course.seconds);
        let usage = &course.usage;
        let mut json = json!({
            "machines": machines, "ready": ready, "failed": failed, "stuck": machines.saturating_sub(ready + failed),
            "seconds": seconds, "machines_per_minute": ready as f64 * 60.0 / seconds.max(0.001),
            "seed": bench.layout.seed.to_string(), "command": bench.command, "host": host::host(),
            "database": if bench.database.is_some() { "postgres" } else { "sqlite" },
            "racks": bench.layout.racks, "steps": steps(fleet), "attempt": fleet["attempts"],
            "pss_peak_bytes": usage.pss_peak(), "cpu_seconds": usage.cpu_seconds(),
            "bodies_bytes": furniture_sizes(), "explain_ms": found.explain_ms, "watched": found.watched,
            "goodput": course.curve.json(machines), "harness": found.harness(), "timeline": timeline(course),
        });
        let kills: Vec<_> = course.killed.iter().map(|killed| killed.json(&course.curve)).collect();
        let spared: Vec<_> = course.spared.iter().map(|k| format!("{} {}", k.victim.option(), k.at)).collect();
        json["kills"] = json!({ "done": kills, "not_done": spared, "audit": found.audit });
        if let (Some(into), Value::Object(calls)) = (json.as_object_mut(), calls(counts, machines)) {
            into.extend(calls);
        }
        Self { json, stuck: found.stuck }
    }

    /// What is not as it should be, each in words; empty when every machine is Ready and nothing was lost or done twice.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<String> {
        let j = &self.json;
        let mut short = Vec::new();
        if j["ready"] != j["machines"] {
            let words = format!(
                "{} of {} machines are Ready; {} failed, {} stuck",
                j["ready"], j["machines"], j["failed"], j["stuck"]
            );
            short.push(words);
        }
        let audit = &j["kills"]["audit"];
        for (name, words) in [("lost", "lost work"), ("done_twice", "were done twice")] {
            if audit[name].as_u64().is_some_and(|n| n > 0) {
                short.push(format!("{} machines {words}: {}", audit[name], audit["some"]));
            }
        }
        let spared = j["kills"]["not_done"].as_array().into_iter().flatten();
        short.extend(spared.map(|k| {
            let asked = k.as_str().unwrap_or_default();
            format!("{asked}: the run ended before its time came; give an earlier one")
        }));
        short
    }
}

impl Found<'_> {
    fn harness(&self) -> Value {
        let (counts, course) = (&self.counts, self.course);
        let count = |name: &str| counts[name].as_u64().unwrap_or(0);
        let fleet: Vec<_> =
            course.looks.iter().filter_map(|look| Some((look.second, *look.cpu.get("fleet")?))).collect();
        let busy = course.usage.cpu_seconds().get("fleet").copied().unwrap_or(0.0) / course.seconds.max(0.001);
        let seen = harness::Seen {
            busy,
            busiest: harness::busiest(&fleet),
            lag_p99_ms: count("lag_p99_ms"),
            dropped: self.dropped.get("fleet").copied().unwrap_or(0),
            sent: count("dhcp") + count("tftp") + count("requests"),
            bench_cpu: course.usage.own_seconds(),
        };
        let mut json = seen.json();
        json["dropped_by"] = json!(self.dropped);
        json["unanswered"] = count("silences").into();
        json["failures"] = count("failures").into();
        json["hanging"] = counts["hanging"].clone();
        json
    }
}

fn steps(fleet: &Value) -> Map<String, Value> {
    let steps = fleet["steps"].as_array().into_iter().flatten();
    let shown = steps.map(|step| {
        let shown = json!({
            "name": step["name"].as_str().unwrap_or_default().to_lowercase(), "done": step["done"],
            "p50_ms": step["p50_ms"], "p99_ms": step["p99_ms"],
        });
        (step["number"].to_string(), shown)
    });
    shown.collect()
}

/// Calls and bytes per machine.
fn calls(counts: &Value, machines: u64) -> Value {
    let count = |name: &str| counts[name].as_u64().unwrap_or(0);
    let per = |n: u64, machines: u64| (n as f64 / machines.max(1) as f64 * 10.0).round() / 10.0;
    let each = |n: u64| per(n, machines);
    let [ipmi, redfish] = ["ipmi", "redfish"].map(|kind| {
        let of = |what: &str| counts[what][kind].as_u64().unwrap_or(0);
        (of("power"), of("bmc"))
    });
    let bmc = ipmi.1 + redfish.1;
    json!({
        "calls_per_machine": each(count("dhcp") + count("tftp") + count("requests") + bmc),
        "calls": { "dhcp": each(count("dhcp")), "tftp": each(count("tftp")), "http": each(count("requests")), "bmc": each(bmc) },
        "bmc_calls": { "ipmi": per(ipmi.1, ipmi.0), "redfish": per(redfish.1, redfish.0) },
        "bytes_per_machine": each(count("sent") + count("received")),
        "power": { "ipmi": ipmi.0, "redfish": redfish.0 },
    })
}

/// Each look: what plots are drawn from.
fn timeline(course: &Course) -> Value {
    let tenths = |s: f64| (s * 10.0).round() / 10.0;
    let looks = course.looks.iter().map(|look| {
        json!({ "s": tenths(look.second), "statuses": look.statuses, "cpu_seconds": look.cpu, "pss_bytes": look.pss })
    });
    looks.collect()
}
