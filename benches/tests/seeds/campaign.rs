//! Seeds with faults: every machine ends Ready or in a failed status whose reason agrees with what was done to it, and no law is broken.

use benches::seeds::{Scenario, run};

fn seeds() -> (std::ops::Range<u64>, u32) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("SEED_FROM").unwrap_or(1);
    (first..number("SEED_TO").unwrap_or(first + 20), u32::try_from(number("SEED_MACHINES").unwrap_or(100)).unwrap())
}

#[test]
fn twenty_seeds_of_a_hundred_machines_agree_with_their_oracle() {
    let (seeds, machines) = seeds();
    let mut wrong = Vec::new();
    for seed in seeds {
        let scenario = Scenario::drawn(seed, machines);
        let outcome = run(scenario.clone());
        let disagrees = scenario.disagrees(&outcome);
        println!(
            "seed {seed}: {} Ready, {} failed, {} events, {} steps, {:?}",
            outcome.count(schema::status::NodeStatus::Ready),
            outcome.count(schema::status::NodeStatus::FailedCommissioning),
            outcome.events,
            outcome.steps,
            outcome.took
        );
        for what in disagrees {
            wrong.push(format!("hostler yard seed {seed} --machines {machines}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
