//! Two racks on each network: halves of its range, leases copied through the region, one takes over where the other is lost.

use std::time::Duration;

use benches::seeds::{Chaos, Outcome, Scenario, Way, run};
use schema::status::NodeStatus;

fn pairs(seed: u64, machines: u32, chaos: impl IntoIterator<Item = (u64, Chaos)>) -> Outcome {
    let mut scenario = Scenario::fair(seed, machines);
    scenario.house.pairs = true;
    scenario.trace = true;
    scenario.chaos = chaos.into_iter().map(|(s, chaos)| (Duration::from_secs(s), chaos)).collect();
    run(scenario)
}

/// No address is given to two, which a law looks at; and every machine is Ready.
fn all_ready(outcome: &Outcome) {
    assert_eq!(outcome.broken, Vec::<String>::new());
    let others: Vec<_> = outcome.machines.iter().filter(|m| m.status != NodeStatus::Ready).collect();
    assert!(others.is_empty(), "{others:#?}");
}

fn said(outcome: &Outcome, text: &str) -> usize {
    outcome.lines.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn of_two_racks_the_first_serves_and_the_second_knows_its_leases() {
    let outcome = pairs(1, 8, []);
    all_ready(&outcome);
    assert!(outcome.machines.iter().all(|m| m.boots == 1));
    assert!(said(&outcome, "r1 dhcp leaves") >= 8, "the second leaves new clients to the first");
    assert!(said(&outcome, "r1 leases 1 Copied") >= 8, "and has copies of its leases");
    assert_eq!(said(&outcome, "r0 dhcp leaves"), 0);
}

/// The first is away for good while machines boot: the second serves those that boot then, and once more those that the loss left standing.
#[test]
fn the_second_rack_takes_over_from_a_first_that_is_killed() {
    let outcome = pairs(2, 12, [(20, Chaos::KillRack(0))]);
    all_ready(&outcome);
    assert!(outcome.machines.iter().any(|m| m.boots == 2), "nobody was booting");
    assert!(outcome.machines.iter().all(|m| m.boots <= 2));
}

#[test]
fn a_second_rack_that_is_killed_is_not_missed() {
    let outcome = pairs(3, 12, [(20, Chaos::KillRack(1)), (50, Chaos::StartRack(1))]);
    all_ready(&outcome);
}

/// Cut off from the region, the first goes on with what it knows; the second has no copies meanwhile and asks the wire before it gives.
#[test]
fn racks_that_lose_the_region_or_their_machines_by_turns_give_no_address_twice() {
    let cuts = [Way::Region(0), Way::Machines(0), Way::Region(1), Way::Machines(1)];
    for (n, way) in (0..).zip(cuts) {
        let outcome = pairs(10 + n, 12, [(16, Chaos::Cut(way)), (61, Chaos::Mend(way))]);
        all_ready(&outcome);
    }
}

/// Names lead to both racks in turn. One that its machines do not reach any more is passed over, address by address.
#[test]
fn a_name_that_leads_to_an_unreachable_rack_as_well_leads_on_to_the_other() {
    let mut scenario = Scenario::fair(20, 12);
    (scenario.house.pairs, scenario.house.names, scenario.trace) = (true, true, true);
    let fair = run(scenario.clone());
    all_ready(&fair);
    assert_eq!(said(&fair, "tries the next address"), 0);
    // Systems run by then, and ask for metadata by name.
    scenario.chaos = vec![(Duration::from_secs(50), Chaos::Cut(Way::Machines(0)))];
    let outcome = run(scenario);
    all_ready(&outcome);
    assert!(said(&outcome, "does not reach 10.77.0.2 and tries the next address") > 0);
}
