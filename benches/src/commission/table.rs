//! What a bench found, as a table to read, and the difference to another run.

use std::fmt::Write;

use serde_json::Value;

use super::Report;

const MIB: f64 = 1_048_576.0;

/// A table; writing to a `String` cannot fail.
#[derive(Default)]
struct Table(String);

impl Table {
    fn line(&mut self, line: impl std::fmt::Display) {
        writeln!(self.0, "{line}").ok();
    }
}

impl Report {
    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = Table::default();
        let j = &self.json;
        out.line(format_args!(
            "{} machines, {} racks, {}, seed {}: {} ready, {} failed, {} stuck in {:.1} s: {:.0} machines/min",
            j["machines"],
            j["racks"],
            text(&j["database"]),
            text(&j["seed"]),
            j["ready"],
            j["failed"],
            j["stuck"],
            number(&j["seconds"]),
            number(&j["machines_per_minute"]),
        ));
        out.line(format_args!("{}\n{}", text(&j["command"]), text(&j["host"]["words"])));
        goodput(&mut out, &j["goodput"]);
        kills(&mut out, &j["kills"]);
        for (title, value) in [("calls", &j["calls_per_machine"]), ("bytes", &j["bytes_per_machine"])] {
            out.line(format_args!("{title} per machine: {value}"));
        }
        let (power, calls) = (&j["power"], &j["bmc_calls"]);
        out.line(format_args!(
            "BMCs: {} by IPMI with {} datagrams each, {} by Redfish with {} requests each",
            power["ipmi"], calls["ipmi"], power["redfish"], calls["redfish"]
        ));
        out.line(format_args!("bodies are small: {}", j["bodies_bytes"]));
        cost(&mut out, j);
        steps(&mut out, j);
        explains(&mut out, &j["explain_ms"]);
        watched(&mut out, &j["watched"]);
        harness(&mut out, &j["harness"]);
        for explained in &self.stuck {
            out.line(format_args!("\n{explained}"));
        }
        out.0
    }
}

fn goodput(out: &mut Table, windows: &Value) {
    for w in windows.as_array().into_iter().flatten() {
        let percent = |name: &str| number(&w[name]) * 100.0;
        out.line(format_args!(
            "goodput in windows of {:.0} s, to the last tenth: peak {:.0}/min, worst {:.0}/min ({:.0} %), worst after the peak {:.0} %",
            number(&w["window_s"]),
            number(&w["peak_per_minute"]),
            number(&w["worst_per_minute"]),
            percent("worst_of_peak"),
            percent("worst_after_peak_of_peak"),
        ));
    }
}

fn kills(out: &mut Table, kills: &Value) {
    let seconds = |value: &Value| value.as_f64().map_or_else(|| "-".into(), |s| format!("{s:.2} s"));
    for k in kills["done"].as_array().into_iter().flatten() {
        out.line(format_args!(
            "kill -9 of the {} at {:.1} s ({} Ready, {} under way): API after {}, all racks linked after {}, goodput of {:.0}/min back after {}",
            text(&k["what"]),
            number(&k["at_s"]),
            k["ready"],
            k["under_way"],
            seconds(&k["api_s"]),
            seconds(&k["linked_s"]),
            number(&k["goodput_before_per_minute"]),
            seconds(&k["goodput_back_s"]),
        ));
    }
    for asked in kills["not_done"].as_array().into_iter().flatten() {
        out.line(format_args!("not done: {}", text(asked)));
    }
    let audit = &kills["audit"];
    if !audit.is_null() {
        out.line(format_args!(
            "{} machines looked at after the kills: {} lost, {} done twice; {} were started more than once",
            audit["checked"], audit["lost"], audit["done_twice"], audit["started_again"]
        ));
    }
}

fn cost(out: &mut Table, j: &Value) {
    let machines = number(&j["machines"]).max(1.0);
    out.line(format_args!("\n{:<10} {:>14} {:>14} {:>12}", "group", "CPU s", "CPU ms/machine", "PSS MiB"));
    for (group, cpu) in j["cpu_seconds"].as_object().into_iter().flatten() {
        let (cpu, pss) = (number(cpu), number(&j["pss_peak_bytes"][group]));
        out.line(format_args!("{group:<10} {cpu:>14.1} {:>14.2} {:>12.0}", cpu * 1e3 / machines, pss / MIB));
    }
}

fn steps(out: &mut Table, j: &Value) {
    out.line(format_args!("\n{:<20} {:>8} {:>10} {:>10}", "step", "done", "p50 ms", "p99 ms"));
    for step in 1..=12 {
        let s = &j["steps"][step.to_string()];
        let name = format!("{step:>2} {}", text(&s["name"]));
        out.line(format_args!("{name:<20} {:>8} {:>10} {:>10}", s["done"], s["p50_ms"], s["p99_ms"]));
    }
    let a = &j["attempt"];
    out.line(format_args!("{:<20} {:>8} {:>10} {:>10}", "whole attempt", a["ended"], a["p50_ms"], a["p99_ms"]));
    let killed = j["kills"]["done"].as_array().into_iter().flatten().any(|k| k["what"] == "region");
    if killed {
        out.line("steps are counted in memory: here those of attempts that ended after the last kill of the region");
    }
}

fn explains(out: &mut Table, e: &Value) {
    out.line(format_args!("\n{:<28} {:>8} {:>10} {:>10} {:>10}", "explain", "count", "p50 ms", "p99 ms", "max ms"));
    let mut row = |name: &str, q: &Value| {
        let of = |name: &str| q[name].as_f64().map_or_else(|| "-".into(), |ms| format!("{ms:.2}"));
        out.line(format_args!("{name:<28} {:>8} {:>10} {:>10} {:>10}", q["count"], of("p50"), of("p99"), of("max")));
    };
    row("during the run", &e["during"]);
    row("after it, one by one", &e["after"]);
    for (status, quantiles) in e["statuses"].as_object().into_iter().flatten() {
        row(&format!("of machines {status}"), quantiles);
    }
    if number(&e["failed"]) > 0.0 {
        out.line(format_args!("explains without an answer: {}", e["failed"]));
    }
}

fn watched(out: &mut Table, w: &Value) {
    if w.is_null() {
        return;
    }
    let s = &w["summary_ms"];
    out.line(format_args!(
        "\nwatcher: events {}, {:.1} MiB, stream broken {} times; summary each second: {} times, p50 {} ms, p99 {} ms",
        w["events"],
        number(&w["bytes"]) / MIB,
        w["stream_broken"],
        s["count"],
        s["p50"],
        s["p99"]
    ));
}

fn harness(out: &mut Table, h: &Value) {
    out.line(format_args!(
        "\nharness: its thread busy {} % (busiest 10 s: {} %), lag p99 {} ms, datagrams dropped by its full buffers {} (racks {}, region {}), unanswered {}, broken requests {}; the bench itself {:.1} CPU s",
        h["busy_percent"],
        h["busiest_percent"],
        h["lag_p99_ms"],
        h["dropped"],
        h["dropped_by"]["racks"],
        h["dropped_by"]["region"],
        h["unanswered"],
        h["failures"],
        number(&h["bench_cpu_seconds"]),
    ));
    let why: Vec<_> = h["bound"].as_array().into_iter().flatten().map(text).collect();
    if !why.is_empty() {
        out.line(format_args!("HARNESS-BOUND, not the product's limit: {}", why.join("; ")));
    }
}

pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

pub(super) fn text(value: &Value) -> String {
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
        let pss = |j: &Value| number(&j["pss_peak_bytes"][group]) / MIB;
        rows.push((format!("PSS MiB {group}"), pss(now), pss(base)));
    }
    for step in 1..=12 {
        let at = step.to_string();
        let p99 = |j: &Value| number(&j["steps"][&at]["p99_ms"]);
        rows.push((format!("step {step} p99 ms"), p99(now), p99(base)));
    }
    let explained = |j: &Value| number(&j["explain_ms"]["during"]["p99"]);
    rows.push(("explain p99 ms".to_owned(), explained(now), explained(base)));
    let mut out = Table::default();
    out.line(format_args!("{:<24} {:>12} {:>12} {:>8}", "", "now", "base", "ratio"));
    for (name, now, base) in rows {
        let ratio = if base > 0.0 { format!("{:.2}", now / base) } else { "-".into() };
        out.line(format_args!("{name:<24} {now:>12.2} {base:>12.2} {ratio:>8}"));
    }
    out.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(json: Value) -> String {
        Report { json, stuck: Vec::new() }.table()
    }

    #[test]
    fn a_run_that_the_harness_bounds_says_so() {
        let report = |bound: Value| json!({ "harness": { "busy_percent": 91.0, "bound": bound } });
        let said = table(report(json!(["the fleet's one thread was busy 91 % of the time"])));
        assert!(said.contains("HARNESS-BOUND, not the product's limit: the fleet's one thread"), "{said}");
        assert!(!table(report(json!([]))).contains("HARNESS-BOUND"));
    }

    #[test]
    fn a_kill_is_told_with_what_came_back_and_what_did_not() {
        let kill = json!({
            "what": "region", "at_s": 30.0, "ready": 500, "under_way": 200, "api_s": 0.81, "linked_s": 1.52,
            "goodput_before_per_minute": 900.0, "goodput_back_s": null,
        });
        let audit =
            json!({ "checked": 1_000, "lost": 0, "done_twice": 1, "started_again": 1, "some": ["aaaaaa: 2 attempts"] });
        let json = json!({
            "machines": 1_000, "ready": 1_000,
            "kills": { "done": [kill], "not_done": ["--kill-racks 900s"], "audit": audit },
        });
        let report = Report { json, stuck: Vec::new() };
        let said = report.table();
        for part in [
            "API after 0.81 s",
            "linked after 1.52 s",
            "back after -",
            "0 lost, 1 done twice",
            "not done: --kill-racks 900s",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let short = report.shortcomings();
        assert!(short.len() == 2 && short[0].contains("done twice") && short[1].contains("earlier one"), "{short:?}");
    }
}
