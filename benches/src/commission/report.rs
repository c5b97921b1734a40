//! What a bench found: the contract's JSON, a table to read, and the difference to another run.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::{Bench, Usage};
use crate::yard::furniture_sizes;

/// The findings.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// As `--report` writes it.
    pub json: Value,
    /// Each machine that did not become Ready, explained by the region.
    pub stuck: Vec<String>,
}

impl Report {
    pub(super) fn compose(
        bench: &Bench,
        seconds: f64,
        fleet: &Value,
        counts: &Value,
        usage: &Usage,
        stuck: Vec<String>,
    ) -> Self {
        let machines = u64::from(bench.layout.machines);
        let of = |status: &str| fleet["statuses"][status].as_u64().unwrap_or(0);
        let (ready, failed) = (of("Ready"), of("Failed commissioning"));
        let count = |name: &str| counts[name].as_u64().unwrap_or(0);
        let per = |n: u64, machines: u64| (n as f64 / machines.max(1) as f64 * 10.0).round() / 10.0;
        let each = |n: u64| per(n, machines);
        let [ipmi, redfish] = ["ipmi", "redfish"].map(|kind| {
            let of = |what: &str| counts[what][kind].as_u64().unwrap_or(0);
            (of("power"), of("bmc"))
        });
        let bmc = ipmi.1 + redfish.1;
        let steps: Map<_, _> = fleet["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|step| {
                let shown = json!({
                    "name": step["name"].as_str().unwrap_or_default().to_lowercase(), "done": step["done"],
                    "p50_ms": step["p50_ms"], "p99_ms": step["p99_ms"],
                });
                (step["number"].to_string(), shown)
            })
            .collect();
        let json = json!({
            "machines": machines, "ready": ready, "failed": failed, "stuck": machines - ready - failed,
            "seconds": seconds, "machines_per_minute": ready as f64 * 60.0 / seconds.max(0.001),
            "seed": bench.layout.seed.to_string(),
            "database": if bench.database.is_some() { "postgres" } else { "sqlite" },
            "racks": bench.layout.racks, "steps": steps, "attempt": fleet["attempts"],
            "calls_per_machine": each(count("dhcp") + count("tftp") + count("requests") + bmc),
            "calls": { "dhcp": each(count("dhcp")), "tftp": each(count("tftp")), "http": each(count("requests")), "bmc": each(bmc) },
            "bmc_calls": { "ipmi": per(ipmi.1, ipmi.0), "redfish": per(redfish.1, redfish.0) },
            "bytes_per_machine": each(count("sent") + count("received")),
            "pss_peak_bytes": usage.pss_peak(), "cpu_seconds": usage.cpu_seconds(),
            "power": { "ipmi": ipmi.0, "redfish": redfish.0 },
            "bodies_bytes": furniture_sizes(),
            "harness": { "lag_p99_ms": counts["lag_p99_ms"], "dropped": count("silences"), "failures": count("failures"), "hanging": counts["hanging"] },
        });
        Self { json, stuck }
    }

    /// Whether every machine became Ready.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.json["ready"] == self.json["machines"]
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let j = &self.json;
        let machines = j["machines"].as_f64().unwrap_or(1.0).max(1.0);
        let mut out = format!(
            "{} machines, {} racks, {}, seed {}: {} ready, {} failed, {} stuck in {:.1} s: {:.0} machines/min\n",
            j["machines"],
            j["racks"],
            text(&j["database"]),
            text(&j["seed"]),
            j["ready"],
            j["failed"],
            j["stuck"],
            number(&j["seconds"]),
            number(&j["machines_per_minute"]),
        );
        for (title, value) in [("calls", &j["calls_per_machine"]), ("bytes", &j["bytes_per_machine"])] {
            writeln!(out, "{title} per machine: {value}").ok(); // Writing to a String cannot fail.
        }
        let (power, calls) = (&j["power"], &j["bmc_calls"]);
        writeln!(
            out,
            "BMCs: {} by IPMI with {} datagrams each, {} by Redfish with {} requests each",
            power["ipmi"], calls["ipmi"], power["redfish"], calls["redfish"]
        )
        .ok();
        writeln!(out, "bodies are small: {}", j["bodies_bytes"]).ok();
        writeln!(out, "\n{:<10} {:>14} {:>14} {:>12}", "group", "CPU s", "CPU ms/machine", "PSS MiB").ok();
        for (group, cpu) in j["cpu_seconds"].as_object().into_iter().flatten() {
            let (cpu, pss) = (number(cpu), number(&j["pss_peak_bytes"][group]));
            writeln!(out, "{group:<10} {cpu:>14.1} {:>14.2} {:>12.0}", cpu * 1e3 / machines, pss / 1_048_576.0).ok();
        }
        writeln!(out, "\n{:<20} {:>8} {:>10} {:>10}", "step", "done", "p50 ms", "p99 ms").ok();
        for step in 1..=12 {
            let s = &j["steps"][step.to_string()];
            let name = format!("{step:>2} {}", text(&s["name"]));
            writeln!(out, "{name:<20} {:>8} {:>10} {:>10}", s["done"], s["p50_ms"], s["p99_ms"]).ok();
        }
        let a = &j["attempt"];
        writeln!(out, "{:<20} {:>8} {:>10} {:>10}", "whole attempt", a["ended"], a["p50_ms"], a["p99_ms"]).ok();
        let h = &j["harness"];
        writeln!(
            out,
            "\nharness: lag p99 {} ms, unanswered {}, broken requests {}",
            h["lag_p99_ms"], h["dropped"], h["failures"]
        )
        .ok();
        for explained in &self.stuck {
            writeln!(out, "\n{explained}").ok();
        }
        out
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The figures of two runs side by side, with their ratio.
#[must_use]
pub fn compare(now: &Value, base: &Value) -> String {
    let per_machine = |j: &Value, group: &str| number(&j["cpu_seconds"][group]) * 1e3 / number(&j["machines"]).max(1.0);
    let mut rows =
        vec![("machines/min".to_owned(), number(&now["machines_per_minute"]), number(&base["machines_per_minute"]))];
    for group in ["region", "racks", "fleet"] {
        rows.push((format!("CPU ms/machine {group}"), per_machine(now, group), per_machine(base, group)));
        let pss = |j: &Value| number(&j["pss_peak_bytes"][group]) / 1_048_576.0;
        rows.push((format!("PSS MiB {group}"), pss(now), pss(base)));
    }
    for step in 1..=12 {
        let at = step.to_string();
        let p99 = |j: &Value| number(&j["steps"][&at]["p99_ms"]);
        rows.push((format!("step {step} p99 ms"), p99(now), p99(base)));
    }
    let mut out = format!("{:<24} {:>12} {:>12} {:>8}\n", "", "now", "base", "ratio");
    for (name, now, base) in rows {
        let ratio = if base > 0.0 { format!("{:.2}", now / base) } else { "-".into() };
        writeln!(out, "{name:<24} {now:>12.2} {base:>12.2} {ratio:>8}").ok(); // Writing to a String cannot fail.
    }
    out
}
