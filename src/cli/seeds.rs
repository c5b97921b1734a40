//! `hostler yard seed` and `seeds`: the yard on a virtual clock, replayed from its seeds. The same seed is the same story, to the hash.

use std::{fmt::Write, ops::Range};

use benches::seeds::{Outcome, Scenario, run};
use clap::Args;
use schema::status::NodeStatus;
use serde_json::{Value, json};

use super::{
    Global,
    failure::{Code, Failure},
    input::whole,
    output::{self, Format},
};

/// One seed.
#[derive(Debug, Args)]
pub struct Seed {
    /// What everything is drawn from: the machines, the weather, the faults
    #[arg(value_parser = whole::<u64>(0, u64::MAX, "7"))]
    pub seed: u64,
    /// How many machines: 1 to 5,000
    #[arg(long, default_value_t = 100, value_parser = whole::<u32>(1, 5_000, "100"))]
    pub machines: u32,
    /// Nothing goes wrong
    #[arg(long)]
    pub fair: bool,
    /// Print every step that was decided
    #[arg(long)]
    pub trace: bool,
}

/// Several seeds.
#[derive(Debug, Args)]
pub struct Seeds {
    /// FROM..TO, without TO
    #[arg(value_parser = range)]
    pub seeds: Range<u64>,
    /// How many machines: 1 to 5,000
    #[arg(long, default_value_t = 100, value_parser = whole::<u32>(1, 5_000, "100"))]
    pub machines: u32,
}

/// Seeds of one call at most: about a day.
const SEEDS: u64 = 100_000;

fn range(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(from, to)| Some((from.trim().parse().ok()?, to.trim().parse().ok()?)));
    let range = ends.map(|(from, to): (u64, u64)| from..to);
    let fits = range.filter(|range| !range.is_empty() && range.end - range.start <= SEEDS);
    fits.ok_or_else(|| {
        format!(
            "it is FROM..TO of two whole numbers from 0 to {}, with TO the greater by {SEEDS} at most; give one, as in 1..21",
            u64::MAX
        )
    })
}

/// Replays one.
///
/// # Errors
/// Exit code 1 when a law is broken, or an end does not agree with what was done.
pub fn one(global: &Global, seed: Seed) -> Result<(), Failure> {
    let scenario =
        if seed.fair { Scenario::fair(seed.seed, seed.machines) } else { Scenario::drawn(seed.seed, seed.machines) };
    let scenario = Scenario { trace: seed.trace, ..scenario };
    let outcome = run(scenario.clone());
    for line in &outcome.lines {
        output::print(&format!("{line}\n"))?;
    }
    let wrong = scenario.disagrees(&outcome);
    match global.output {
        Format::Table => output::print(&summary(&scenario, &outcome))?,
        format => output::one(format, &[], "/hash", &report(&scenario, &outcome, &wrong))?,
    }
    verdict(&scenario, &wrong)
}

/// Replays all of them, and goes on after one that fails.
///
/// # Errors
/// Exit code 1 when any of them fails; each says how to replay it.
pub fn several(global: &Global, seeds: Seeds) -> Result<(), Failure> {
    let mut failed = Vec::new();
    for seed in seeds.seeds.clone() {
        let scenario = Scenario::drawn(seed, seeds.machines);
        let outcome = run(scenario.clone());
        let wrong = scenario.disagrees(&outcome);
        match global.output {
            Format::Table => output::print(&line(&scenario, &outcome))?,
            _ => output::print(&format!("{}\n", report(&scenario, &outcome, &wrong)))?,
        }
        if let Err(failure) = verdict(&scenario, &wrong) {
            eprintln!("{failure}");
            failed.push(seed);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let (count, all) = (failed.len(), seeds.seeds.end - seeds.seeds.start);
    Err(Failure::new(Code::Failed, format!("{count} of {all} seeds failed: {failed:?}"), "replay them as said above"))
}

fn verdict(scenario: &Scenario, wrong: &[String]) -> Result<(), Failure> {
    if wrong.is_empty() {
        return Ok(());
    }
    let again = format!("hostler yard seed {} --machines {} --trace", scenario.seed, scenario.machines);
    Err(Failure::new(Code::Failed, format!("seed {}: {}", scenario.seed, wrong.join("\n")), again))
}

fn line(scenario: &Scenario, outcome: &Outcome) -> String {
    let of = |status| outcome.count(status);
    format!(
        "seed {:>6}  {:>5} Ready {:>4} failed  {:>7} events  {:>6} s of virtual time  {}\n",
        scenario.seed,
        of(NodeStatus::Ready),
        of(NodeStatus::FailedCommissioning),
        outcome.events,
        outcome.took.as_secs(),
        outcome.hash
    )
}

fn summary(scenario: &Scenario, outcome: &Outcome) -> String {
    let mut text = line(scenario, outcome);
    let weather = &scenario.weather;
    writeln!(
        text,
        "weather: packets take up to {} us; of a thousand {} are lost, {} come twice, {} late; {} slow writes",
        weather.delay_us.1, weather.loss, weather.twice, weather.late, weather.slow_disk
    )
    .ok();
    for (at, chaos) in &scenario.chaos {
        writeln!(text, "{:>8.1} s  {chaos:?}", at.as_secs_f64()).ok();
    }
    for m in outcome.machines.iter().filter(|m| m.status != NodeStatus::Ready || !m.ills.is_empty()) {
        let why = m.refused.as_ref().filter(|_| m.status == NodeStatus::New).unwrap_or(&m.error);
        writeln!(text, "{} {:?}: {}. {why}", m.hostname, m.ills, m.status.label()).ok();
    }
    writeln!(text, "{} steps, {} looks at the laws, {} broken", outcome.steps, outcome.checks, outcome.broken.len())
        .ok();
    text
}

fn report(scenario: &Scenario, outcome: &Outcome, wrong: &[String]) -> Value {
    json!({
        "seed": scenario.seed, "machines": scenario.machines, "hash": outcome.hash.to_string(),
        "ready": outcome.count(NodeStatus::Ready), "failed": outcome.count(NodeStatus::FailedCommissioning),
        "events": outcome.events, "steps": outcome.steps, "checks": outcome.checks,
        "virtual_seconds": outcome.took.as_secs(), "wrong": wrong,
    })
}
