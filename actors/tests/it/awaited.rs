//! A machine that is asked for while its racks are away for a moment.

use actors::{
    core::{Core, Verdict},
    machine::MachineEffect,
};
use schema::{
    messages::{
        machine::{Ailment, Brief, CommissionOptions, MachineEvent},
        report::Fact,
    },
    power::PowerType,
    wait::OwedBy,
};

use crate::story::*;

fn is_ordered(effects: &[MachineEffect]) -> bool {
    effects.iter().any(|effect| matches!(effect, MachineEffect::SendOrder { .. }))
}

#[test]
fn a_machine_whose_racks_are_away_for_a_moment_waits_for_them_and_goes_on() {
    let away = Brief { away: vec![rack(1), rack(2)], ..brief() };
    let asked = MachineEvent::Commission { by: "admin".into(), options: CommissionOptions::default(), brief: away };
    let (machine, effects) = run(created(PowerType::Ipmi), [asked], 10);
    assert!(!is_ordered(&effects));
    let wait = machine.wait.clone().unwrap();
    assert!(wait.what.contains("hold the ticket") && wait.owed_by == OwedBy::AnyRack, "{wait:?}");
    assert!(wait.evidence.iter().any(|line| line.contains("not linked just now")), "{wait:?}");
    let (machine, _) = run(machine, [MachineEvent::RackLink { rack: rack(1), up: true }], 20);
    let held = [Fact::TicketHeld, Fact::ResourcesReady { fetched: 9 }].map(|f| fact(rack(1), 1, 21, f));
    let (machine, effects) = run(machine, held, 21);
    assert!(is_ordered(&effects), "{machine:?}");
}

#[test]
fn a_machine_whose_turn_comes_when_no_rack_is_left_says_so() {
    let asked = MachineEvent::Commission {
        by: "admin".into(),
        options: CommissionOptions::default(),
        brief: Brief { place: Some(7), ..brief() },
    };
    let (machine, _) = run(created(PowerType::Ipmi), [asked], 10);
    assert!(!machine.counts_on(rack(1)), "it hears nothing of racks while it waits for its turn");
    let lost = Some(("its VLAN is served by rack r1, which is lost".to_owned(), "start it".to_owned()));
    let alone = Brief { boot_racks: Vec::new(), unserved: lost, ..brief() };
    let (machine, _) = run(machine, [MachineEvent::Turn { brief: alone }], 40);
    assert!(machine.counts_on(rack(1)));
    let evidence = machine.wait.clone().unwrap().evidence;
    assert!(evidence.iter().any(|line| line.contains("which is lost; start it")), "{evidence:?}");
}

#[test]
fn who_is_refused_for_racks_that_do_not_serve_is_told_what_they_lack() {
    let ailment = || Ailment { serves: false, why: "its disk is full".into(), remedy: "make room on it".into() };
    let lame = Brief { boot_racks: Vec::new(), lame: vec![(rack(1), ailment()), (rack(2), ailment())], ..brief() };
    let unswitched = Brief { bmc_racks: Vec::new(), ..lame.clone() };
    for (brief, lacks) in [(lame, "no rack can boot it"), (unswitched, "that reaches the BMC 10.78.0.1 can switch it")]
    {
        let asked = MachineEvent::Commission { by: "admin".into(), options: CommissionOptions::default(), brief };
        let Verdict::Refused { why, remedy } = created(PowerType::Ipmi).step(&asked, at(10)).verdict else { panic!() };
        assert!(why.contains(lacks) && why.contains("its disk is full"), "{why}");
        assert_eq!(remedy, "make room on it");
    }
}
