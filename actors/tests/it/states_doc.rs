//! Writes docs/states.md from `step`, and fails when the file in the tree is another. `HOSTLER_WRITE_DOCS=1` rewrites it.

use std::fmt::Write;

use actors::{core::Core, core::Verdict, machine::Machine};
use schema::{
    commissioning::CommissionStep,
    messages::machine::MachineEvent,
    power::{PowerAction, PowerType},
    status::NodeStatus,
};

use crate::story::*;

fn operations() -> Vec<(&'static str, MachineEvent)> {
    let by = || "admin".to_owned();
    let power = |action| MachineEvent::Power { by: by(), action, brief: brief() };
    vec![
        ("commission", commission()),
        ("abort", MachineEvent::Abort { by: by(), comment: String::new() }),
        ("mark_broken", MachineEvent::MarkBroken { by: by(), comment: String::new() }),
        ("mark_fixed", MachineEvent::MarkFixed { by: by(), comment: String::new() }),
        ("power_on", power(PowerAction::On)),
        ("power_off", power(PowerAction::Off)),
        ("query_power_state", power(PowerAction::Query)),
        ("deploy", MachineEvent::Operation { by: by(), operation: "deploy".into() }),
    ]
}

fn in_status(status: NodeStatus) -> Machine {
    if status == NodeStatus::Commissioning {
        return after(4).0;
    }
    Machine { status, ..created(PowerType::Ipmi) }
}

fn document() -> String {
    let mut text = String::from(
        "# States\n\nGenerated from `Machine::step` by `actors/tests/it/states_doc.rs`; do not edit.\n\n## Statuses and what may be asked\n\n\
         A cell names the status after, or `-` for what is refused or has no effect.\n\n| status |",
    );
    let operations = operations();
    for (name, _) in &operations {
        write!(text, " {name} |").unwrap();
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(operations.len()));
    for status in NodeStatus::ALL {
        write!(text, "\n| {} {} |", status.number(), status.label()).unwrap();
        for (_, event) in &operations {
            let step = in_status(*status).step(event, at(100));
            let cell = match (&step.verdict, &step.next) {
                (Verdict::Moved | Verdict::Waiting(_), Some(next)) => next.status.label(),
                _ => "-",
            };
            write!(text, " {cell} |").unwrap();
        }
    }
    text.push_str("\n\n## Legal transitions (MAAS's)\n\n| from | to |\n|---|---|\n");
    for status in NodeStatus::ALL {
        let to: Vec<_> = status.successors().iter().map(|s| s.label()).collect();
        writeln!(text, "| {} | {} |", status.label(), to.join(", ")).unwrap();
    }
    text.push_str("\n## The twelve steps\n\nWhat a commissioning waits for after each fact, who owes it, and when it gives up.\n\n");
    text.push_str("| # | step | limit | waits for | owed by |\n|---|---|---|---|---|\n");
    let mut told = Vec::new();
    for n in 0..=good_facts().len() {
        let (machine, _) = after(n);
        let (Some(attempt), Some(wait)) = (machine.open_attempt(), &machine.wait) else { continue };
        let Some(step) = attempt.current_step() else { continue };
        let row = format!("{} | {} |", wait.what, wait.owed_by);
        if told.last() != Some(&row) {
            let limit = wait.deadline.since(wait.since).as_secs();
            writeln!(text, "| {} | {} | {limit} s | {row}", step.number(), step.label()).unwrap();
            told.push(row);
        }
    }
    text.push_str("\nDefaults of the limits: ");
    let limits: Vec<_> =
        CommissionStep::ALL.iter().map(|s| format!("{} {} s", s.label(), s.deadline().as_secs())).collect();
    writeln!(text, "{}.", limits.join(", ")).unwrap();
    text
}

#[test]
fn docs_states_md_is_what_step_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/states.md");
    let fresh = document();
    if std::env::var_os("HOSTLER_WRITE_DOCS").is_some() {
        std::fs::write(path, &fresh).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == fresh, "docs/states.md is stale: run `HOSTLER_WRITE_DOCS=1 cargo test -p actors states`");
}
