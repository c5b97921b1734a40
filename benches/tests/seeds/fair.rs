//! Nothing goes wrong: every machine becomes Ready, and the same seed is the same story.

use benches::seeds::{Scenario, run};
use schema::status::NodeStatus;

#[test]
fn in_fair_weather_every_machine_becomes_ready() {
    let mut scenario = Scenario::fair(1, 8);
    scenario.trace = std::env::var("TRACE").is_ok();
    let outcome = run(scenario);
    for line in &outcome.lines {
        println!("{line}");
    }
    assert_eq!(outcome.broken, Vec::<String>::new());
    let others: Vec<_> = outcome.machines.iter().filter(|m| m.status != NodeStatus::Ready).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert!(outcome.machines.iter().all(|m| m.boots == 1 && !m.is_on), "{:#?}", outcome.machines);
}
