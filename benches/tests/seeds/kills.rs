//! `kill -9` of the region, and of a rack, at each of the twelve steps; and the region away for an hour. On the virtual clock.

use std::time::Duration;

use actors::machine::Attempt;
use benches::seeds::{Chaos, Ended, Outcome, Scenario, Way, Yard};
use schema::{commissioning::CommissionStep, status::NodeStatus};

/// The machine that is watched; its rack is the first.
const WATCHED: u32 = 0;
/// How long a killed node stays away.
const AWAY: Duration = Duration::from_secs(3);

/// The step that the machine is at: Request before it has an attempt, Stored to its end.
fn step(yard: &Yard) -> Option<CommissionStep> {
    let machine = yard.machine(WATCHED)?;
    match machine.open_attempt() {
        Some(attempt) => Attempt::current_step(attempt),
        None if machine.status == NodeStatus::New => Some(CommissionStep::Request),
        None => None,
    }
}

/// Kills the node once the machine has been at that step for `after` events, and lets it come back.
fn killed(at: CommissionStep, after: u32, kill: &Chaos, start: &Chaos, seed: u64) -> (Outcome, bool) {
    let mut yard = Yard::new(Scenario::fair(seed, 2));
    let (mut seen, mut done) = (0, false);
    while !done && yard.happen() {
        // A step that is over within one record is hit at the step that follows it.
        let there = step(&yard).is_some_and(|step| step >= at);
        seen += u32::from(there);
        if there && seen > after {
            yard.inject(kill.clone());
            yard.later(AWAY, start.clone());
            done = true;
        }
        if yard.elapsed() > Duration::from_secs(600) {
            break;
        }
    }
    yard.run();
    (yard.end(), done)
}

/// The machine ends Ready, by one boot or by a second one; nothing is lost or done twice in effect, which the laws look at.
fn check(node: &str, at: CommissionStep, after: u32, outcome: &Outcome) {
    let what = format!("{node} killed at step {} ({}), {after} events in", at.number(), at.label());
    assert_eq!(outcome.broken, Vec::<String>::new(), "{what}");
    for Ended { hostname, status, error, boots, is_on, hung, .. } in &outcome.machines {
        assert_eq!(*status, NodeStatus::Ready, "{what}: {hostname}: {error} ({hung:?})");
        // A rack that dies between the BMC's act and its own record cannot know who switched the machine on: a boot that has just begun
        // is begun anew by its resumed order, which is the same in effect. And firmware does not ask again for a file whose server died
        // in the middle of it: it stands still, and is switched on once more.
        let most = if node == "rack" && (3..=9).contains(&at.number()) { 2 } else { 1 };
        assert!((1..=most).contains(boots) && !is_on, "{what}: {hostname} was switched on {boots} times, on: {is_on}");
    }
}

#[test]
fn a_region_killed_at_any_step_loses_nothing_and_does_nothing_twice() {
    for at in CommissionStep::ALL {
        for after in [0, 1, 2, 5, 11, 40] {
            let (outcome, done) = killed(at, after, &Chaos::KillRegion, &Chaos::StartRegion, 40 + u64::from(after));
            assert!(done || after > 0, "step {at:?} was never seen");
            check("region", at, after, &outcome);
        }
    }
}

#[test]
fn a_rack_killed_at_any_step_loses_nothing_and_does_nothing_twice() {
    for at in CommissionStep::ALL {
        for after in [0, 1, 2, 5, 11, 40] {
            let (outcome, done) = killed(at, after, &Chaos::KillRack(0), &Chaos::StartRack(0), 60 + u64::from(after));
            assert!(done || after > 0, "step {at:?} was never seen");
            check("rack", at, after, &outcome);
        }
    }
}

#[test]
fn the_region_may_be_away_for_an_hour_and_what_is_under_orders_goes_on() {
    let machines = 20;
    let mut scenario = Scenario::fair(77, machines);
    // Gone once all are ordered on and hardly any has begun; nobody boots later than that.
    scenario.chaos =
        vec![(Duration::from_secs(6), Chaos::KillRegion), (Duration::from_secs(3_606), Chaos::StartRegion)];
    let mut yard = Yard::new(scenario);
    while yard.elapsed() < Duration::from_secs(3_600) && yard.happen() {}
    let outcome_before = yard.elapsed();
    yard.run();
    let outcome = yard.end();
    assert!(outcome_before >= Duration::from_secs(3_590), "nothing happened meanwhile");
    assert_eq!(outcome.broken, Vec::<String>::new());
    let ready = outcome.count(NodeStatus::Ready);
    let others: Vec<_> = outcome.machines.iter().filter(|m| m.status != NodeStatus::Ready).collect();
    let lines = outcome
        .lines
        .iter()
        .filter(|l| l.contains("machine m0 ") || l.contains("chaos"))
        .map(|l| l.chars().take(260).collect::<String>());
    println!("{}", lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(ready, machines as usize, "{others:#?}");
    assert!(outcome.machines.iter().all(|m| m.boots == 1), "{:#?}", outcome.machines);
    // Their reports waited on the racks' disks, within the bound.
    assert!((200..200_000).contains(&outcome.most_waiting), "{}", outcome.most_waiting);
}

#[test]
fn a_link_that_flaps_for_a_while_costs_nothing() {
    let mut scenario = Scenario::fair(78, 10);
    for n in 0..20 {
        let at = Duration::from_secs(2 + 6 * n);
        scenario.chaos.push((at, Chaos::Cut(Way::Region(0))));
        scenario.chaos.push((at + Duration::from_secs(if n % 3 == 0 { 10 } else { 3 }), Chaos::Mend(Way::Region(0))));
    }
    let outcome = benches::seeds::run(scenario);
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert_eq!(outcome.count(NodeStatus::Ready), 10, "{:#?}", outcome.machines);
}

/// The rack dies with the order to switch off in its hands, and comes back when its time is over, as does the region: the rack asks the BMC
/// before it speaks of failure.
#[test]
fn a_rack_that_is_back_after_its_orders_deadline_tells_how_the_machine_stands() {
    let mut looked = 0;
    for after in (0..60_u32).step_by(3) {
        let mut scenario = Scenario::fair(90 + u64::from(after), 2);
        scenario.trace = true;
        let (mut yard, mut seen) = (Yard::new(scenario), 0);
        while seen <= after && yard.happen() {
            seen += u32::from(step(&yard) == Some(CommissionStep::Stored));
            if seen > 0 && step(&yard).is_none() {
                break;
            }
        }
        yard.inject(Chaos::KillRack(0));
        yard.inject(Chaos::KillRegion);
        yard.later(Duration::from_secs(400), Chaos::StartRack(0));
        yard.later(Duration::from_secs(402), Chaos::StartRegion);
        yard.run();
        let outcome = yard.end();
        assert_eq!(outcome.broken, Vec::<String>::new(), "{after} events in");
        let others: Vec<_> = outcome.machines.iter().filter(|m| m.status != NodeStatus::Ready).collect();
        assert!(others.is_empty(), "{after} events in: {others:#?}");
        looked += outcome.lines.iter().filter(|line| line.contains("errand m0") && line.contains("-> looking")).count();
    }
    assert!(looked > 0, "no order was ever under way when the rack died");
}

/// One rack drives the BMC, another serves the boot. The first loses the way to the BMC when the machine goes on, and finds it again while
/// the machine boots, of which it hears nothing.
#[test]
fn a_machine_that_boots_from_another_rack_than_the_one_that_drives_its_bmc_is_booted_once() {
    for (seed, away) in [(1, 11), (2, 12), (3, 13), (4, 14), (5, 16), (6, 20)] {
        let mut scenario = Scenario::fair(seed, 1);
        scenario.house.pairs = true;
        // The first rack serves DHCP, and does not reach BMCs.
        scenario.chaos = vec![(Duration::from_millis(100), Chaos::Cut(Way::Bmcs(0)))];
        let mut yard = Yard::new(scenario);
        while yard.boots(0) == 0 && yard.happen() {}
        yard.later(Duration::from_millis(300), Chaos::Cut(Way::Bmcs(1)));
        yard.later(Duration::from_secs(away), Chaos::Mend(Way::Bmcs(1)));
        yard.run();
        let outcome = yard.end();
        assert_eq!(outcome.broken, Vec::<String>::new());
        let machine = &outcome.machines[0];
        assert_eq!((machine.status, machine.boots), (NodeStatus::Ready, 1), "away for {away} s: {machine:#?}");
    }
}
