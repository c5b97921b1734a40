//! What looking costs: the commission bench without a watcher and with one, in turn, so that both see the same machine.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Bench, Report, run, table::number};
use crate::yard::Trouble;

/// Percent of the CPU that a watcher may cost.
const AIM: f64 = 2.0;
/// What is compared, with its unit.
const FIGURES: [(&str, &str); 4] = [
    ("region", "CPU ms/machine"),
    ("racks", "CPU ms/machine"),
    ("region and racks", "CPU ms/machine"),
    ("machines/min", ""),
];

/// Rounds of two runs each. `fresh` gives each run a database of its own; `progress` is told a line now and then.
///
/// # Errors
/// As [`run`]; a run in which not every machine becomes Ready is an error too, since its figures say nothing.
pub async fn compare(
    bench: &Bench,
    rounds: u32,
    mut fresh: impl FnMut(&mut Bench) -> Result<(), Trouble>,
    progress: impl Fn(&str),
) -> Result<Value, Trouble> {
    let mut pairs = Vec::new();
    for round in 0..rounds {
        let mut pair = [Value::Null, Value::Null];
        let odd = round % 2 == 1;
        let turn = [odd, !odd];
        // Who begins changes, so that what grows warm or tired serves neither.
        for watch in turn {
            let word = if watch { "with a watcher" } else { "without a watcher" };
            progress(&format!("round {} of {rounds}: {word}", round + 1));
            let mut one = Bench { watch, kills: Vec::new(), ..bench.clone() };
            fresh(&mut one)?;
            let report = run(&one, |_| {}).await?;
            if let Some(short) = report.shortcomings().first() {
                return Err(Trouble(format!("round {}, {word}: {short}", round + 1)));
            }
            let figures = figures(&report);
            progress(&format!("  {figures}"));
            pair[usize::from(watch)] = figures;
        }
        pairs.push(pair);
    }
    Ok(report(bench, &pairs))
}

/// The compared figures of one run, in the order of [`FIGURES`], and what bounds the run.
fn figures(report: &Report) -> Value {
    let j = &report.json;
    let machines = number(&j["machines"]).max(1.0);
    let cpu = |group: &str| number(&j["cpu_seconds"][group]) * 1e3 / machines;
    let (region, racks) = (cpu("region"), cpu("racks"));
    json!({
        "region": region, "racks": racks, "region and racks": region + racks,
        "machines/min": j["machines_per_minute"], "harness_bound": j["harness"]["bound"], "watched": j["watched"],
    })
}

fn report(bench: &Bench, pairs: &[[Value; 2]]) -> Value {
    let mut figures = serde_json::Map::new();
    for (name, _) in FIGURES {
        let side = |side: usize| pairs.iter().map(|pair| number(&pair[side][name])).collect::<Vec<_>>();
        let (without, with) = (side(0), side(1));
        let changes: Vec<_> = without.iter().zip(&with).map(|(a, b)| (b / a - 1.0) * 100.0).collect();
        let shown = json!({ "without": spread(&without), "with": spread(&with), "change_percent": spread(&changes) });
        figures.insert(name.to_owned(), shown);
    }
    let rounds: Vec<_> = pairs.iter().map(|[without, with]| json!({ "without": without, "with": with })).collect();
    json!({
        "machines": bench.layout.machines, "racks": bench.layout.racks, "seed": bench.layout.seed.to_string(),
        "database": if bench.database.is_some() { "postgres" } else { "sqlite" }, "command": bench.command,
        "aim_percent": AIM, "figures": figures, "rounds": rounds,
    })
}

/// Median, least and most.
fn spread(values: &[f64]) -> Value {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (half, rounded) = (sorted.len() / 2, |v: f64| (v * 1e3).round() / 1e3);
    let median = match (sorted.get(half.wrapping_sub(1)), sorted.get(half)) {
        (Some(a), Some(b)) if sorted.len().is_multiple_of(2) => Some((a + b) / 2.0),
        (_, middle) => middle.copied(),
    };
    json!({
        "median": median.map(rounded), "least": sorted.first().copied().map(rounded), "most": sorted.last().copied().map(rounded),
    })
}

/// The table of a comparison.
#[must_use]
pub fn table(j: &Value) -> String {
    let rounds = j["rounds"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = format!(
        "{} machines, {} racks, {}, seed {}, {} rounds: median (least to most)\n\n{:<34} {:>26} {:>26} {:>26}\n",
        j["machines"],
        j["racks"],
        j["database"].as_str().unwrap_or_default(),
        j["seed"].as_str().unwrap_or_default(),
        rounds.len(),
        "",
        "without a watcher",
        "with a watcher",
        "change in %"
    );
    for (name, unit) in FIGURES {
        let f = &j["figures"][name];
        let cell = |s: &Value, digits: usize| {
            let of = |name: &str| format!("{:.digits$}", number(&s[name]));
            format!("{} ({} to {})", of("median"), of("least"), of("most"))
        };
        let name = format!("{name} {unit}");
        let (a, b, c) = (cell(&f["without"], 1), cell(&f["with"], 1), cell(&f["change_percent"], 2));
        writeln!(out, "{:<34} {a:>26} {b:>26} {c:>26}", name.trim_end()).ok(); // Writing to a String cannot fail.
    }
    let both = &j["figures"]["region and racks"]["change_percent"];
    let (median, least, most) = (number(&both["median"]), number(&both["least"]), number(&both["most"]));
    let aim = if median < AIM { "held" } else { "MISSED" };
    let noise = if least < 0.0 && most > 0.0 { "; the rounds differ by more than the watcher costs" } else { "" };
    writeln!(out, "\naim: a watcher costs less than {AIM} % of the CPU: {aim} by the median ({median:.2} %){noise}")
        .ok();
    let bound = |pair: &Value| {
        let sides = [&pair["without"], &pair["with"]];
        sides.iter().any(|side| side["harness_bound"].as_array().is_some_and(|why| !why.is_empty()))
    };
    let bound = rounds.iter().filter(|pair| bound(pair)).count();
    if bound > 0 {
        writeln!(out, "HARNESS-BOUND in {bound} rounds: there machines/min is the harness's limit, not the product's")
            .ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bmc::Mix, yard::Layout};

    fn pair(without: f64, with: f64, bound: &[&str]) -> [Value; 2] {
        [without, with].map(|cpu| {
            json!({ "region": cpu, "racks": 1.0, "region and racks": cpu + 1.0, "machines/min": 900.0, "harness_bound": bound })
        })
    }

    fn compared(pairs: &[[Value; 2]]) -> Value {
        let layout = Layout { machines: 10, racks: 1, seed: 1, speed: 0.0, roms: false, bmcs: Mix::Half };
        let bench = Bench {
            program: "x".into(),
            layout,
            database: None,
            database_process: None,
            kills: Vec::new(),
            watch: false,
            command: String::new(),
        };
        report(&bench, pairs)
    }

    #[test]
    fn the_change_is_the_median_of_the_rounds_own_changes() {
        // The machine grows slower from round to round; the watcher costs one percent in each.
        let seen = compared(&[pair(99.0, 100.0, &[]), pair(199.0, 201.0, &[]), pair(399.0, 403.0, &[])]);
        let change = &seen["figures"]["region and racks"]["change_percent"];
        assert_eq!((change["median"].as_f64(), change["least"].as_f64()), (Some(1.0), Some(1.0)), "{seen:#}");
        let said = table(&seen);
        assert!(said.contains("held by the median (1.00 %)") && !said.contains("HARNESS"), "{said}");
        let missed = table(&compared(&[pair(100.0, 110.0, &["busy"])]));
        assert!(missed.contains("MISSED") && missed.contains("HARNESS-BOUND in 1 rounds"), "{missed}");
    }

    #[test]
    fn spreads_of_odd_even_and_none() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), json!({ "median": 2.0, "least": 1.0, "most": 3.0 }));
        assert_eq!(spread(&[4.0, 1.0])["median"], 2.5);
        assert_eq!(spread(&[])["median"], Value::Null);
    }
}
