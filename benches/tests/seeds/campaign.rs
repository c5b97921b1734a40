//! Seeds with faults: every machine ends Ready or in a failed status whose reason agrees with what was done to it, and no law is broken.

use benches::seeds::{Scenario, run};

#[test]
fn the_first_ten_seeds_of_a_hundred_machines_agree_with_their_oracle() {
    agree(1..11, 100);
}

#[test]
fn ten_more_seeds_of_a_hundred_machines_agree_with_their_oracle() {
    agree(11..21, 100);
}

fn agree(seeds: std::ops::Range<u64>, machines: u32) {
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
