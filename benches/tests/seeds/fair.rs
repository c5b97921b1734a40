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

#[test]
fn the_same_seed_is_the_same_journal_and_another_is_another() {
    let hash = |seed| {
        let rough = benches::seeds::Scenario::drawn(seed, 12);
        run(rough).hash
    };
    let first = hash(5);
    assert_eq!(first, hash(5));
    assert_ne!(first, hash(6));
}
