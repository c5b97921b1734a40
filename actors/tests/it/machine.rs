//! The machine's decisions, one behaviour a test.

use std::sync::Arc;

use actors::{
    core::{Core, TimerOp, Verdict},
    machine::{Machine, MachineEffect},
};
use schema::{
    boot::BootMethod,
    commissioning::{CommissionStep, StepState},
    hardware::{HardwareInterface, HardwareReport},
    id::AttemptId,
    messages::{
        machine::{Ailment, Brief, CommissionOptions, Derived, MachineEvent, MachineTimer},
        report::{Fact, FileKind},
    },
    power::{PowerAction, PowerType},
    projection::Projection,
    script::{ResultStatus, SignalStatus},
    status::{NodeStatus, PowerState},
    wait::OwedBy,
};

use crate::story::*;

fn orders(effects: &[MachineEffect]) -> Vec<(u32, PowerAction)> {
    let order = |e: &MachineEffect| match e {
        MachineEffect::SendOrder { attempt, action, .. } => Some((attempt.0, *action)),
        _ => None,
    };
    effects.iter().filter_map(order).collect()
}

fn state_of(machine: &Machine, step: CommissionStep) -> StepState {
    machine.attempt.as_ref().unwrap().steps[step as usize].state
}

#[test]
fn a_good_commissioning_ends_ready_and_off_with_all_twelve_steps_told() {
    let (machine, effects) = after(good_facts().len());
    assert_eq!(orders(&effects), [(1, PowerAction::NetworkBoot), (2, PowerAction::Off)]);
    let (machine, effects) = run(machine, [fact(rack(1), 2, 90, power_done(PowerAction::Off, PowerState::Off))], 100);
    assert_eq!((machine.status, machine.power_state), (NodeStatus::Ready, PowerState::Off));
    assert!(effects.contains(&MachineEffect::WithdrawTicket { attempt: AttemptId(1) }));
    for (step, record) in CommissionStep::ALL.iter().zip(&machine.attempt.as_ref().unwrap().steps) {
        assert_eq!(record.state, StepState::Done, "{step:?}: {record:?}");
        assert!(record.started <= record.ended && record.started.is_some(), "{step:?}: {record:?}");
        assert!(!record.evidence.is_empty() && !record.service.is_empty(), "{step:?}: {record:?}");
    }
    assert_eq!(machine.wait, None);
    assert_eq!(machine.boot_method, Some(BootMethod::UefiAmd64Tftp));
}

#[test]
fn a_machine_that_waits_for_its_turn_has_no_ticket_and_begins_when_it_comes() {
    let asked = MachineEvent::Commission {
        by: "admin".into(),
        options: CommissionOptions::default(),
        brief: Brief { place: Some(7), ..brief() },
    };
    let published = |e: &MachineEffect| matches!(e, MachineEffect::PublishTicket { .. });
    let (machine, effects) = run(created(PowerType::Ipmi), [asked], 10);
    let wait = machine.wait.clone().unwrap();
    assert!(wait.what.contains("its turn (7 were before it)") && wait.owed_by == OwedBy::Region, "{wait:?}");
    assert_eq!(state_of(&machine, CommissionStep::Order), StepState::Running);
    assert!(!effects.iter().any(published) && !machine.resume(at(11)).effects.iter().any(published));
    let (machine, _) = run(machine, [fact(rack(1), 1, 1, Fact::TicketHeld)], 11);
    assert!(machine.wait.as_ref().unwrap().what.contains("its turn"), "nothing of it can be under way");
    let (machine, effects) = run(machine, [MachineEvent::Turn { brief: brief() }], 40);
    assert!(effects.iter().any(published));
    assert_eq!(state_of(&machine, CommissionStep::Order), StepState::Done);
    assert_eq!(machine.wait.as_ref().unwrap().since, at(40), "the steps' deadlines begin with its turn");
    let again = machine.step(&MachineEvent::Turn { brief: brief() }, at(41));
    assert!(matches!(again.verdict, Verdict::Ignored { .. }));
}

#[test]
fn nothing_is_switched_on_before_a_rack_can_boot_it() {
    let (machine, effects) = after(0);
    assert_eq!(orders(&effects), []);
    assert!(machine.wait.as_ref().unwrap().what.contains("hold the ticket"));
    let (machine, effects) = run(machine, [fact(rack(2), 1, 2, Fact::TicketHeld)], 2);
    assert_eq!(orders(&effects), []);
    let (machine, effects) = run(machine, [fact(rack(1), 1, 2, Fact::ResourcesReady { fetched: 9 })], 3);
    assert_eq!(orders(&effects), [], "the rack that has the bodies does not hold the ticket");
    let (_, effects) = run(machine, [fact(rack(2), 1, 3, Fact::ResourcesReady { fetched: 9 })], 4);
    assert_eq!(orders(&effects), [(1, PowerAction::NetworkBoot)]);
}

#[test]
fn ipxe_in_the_nic_does_without_a_loader() {
    let facts = good_facts().into_iter().filter(|f| !matches!(f, Fact::FileFetched { kind: FileKind::Loader, .. }));
    let facts = facts.map(|f| if matches!(f, Fact::Leased { .. }) { leased(Some(BootMethod::Ipxe)) } else { f });
    let events = std::iter::once(commission()).chain(facts.map(|f| fact(rack(1), 1, 10, f)));
    let (machine, _) = run(created(PowerType::Ipmi), events, 1);
    assert_eq!(state_of(&machine, CommissionStep::NextServer), StepState::NotUsed);
    assert_eq!(state_of(&machine, CommissionStep::Scripts), StepState::Done);
}

#[test]
fn a_power_failure_tries_the_next_rack_and_then_fails_with_the_reason() {
    let (machine, _) = after(3);
    let failed = |r| {
        let action = PowerAction::NetworkBoot;
        fact(rack(r), 1, 20, Fact::BmcUnreachable { action, why: "no answer".into(), remedy: "look at it".into() })
    };
    let (machine, effects) = run(machine, [failed(1)], 20);
    assert_eq!(machine.status, NodeStatus::Commissioning);
    assert!(effects.contains(&MachineEffect::CancelOrder { rack: rack(1), attempt: AttemptId(1) }));
    assert_eq!(orders(&effects), [(1, PowerAction::NetworkBoot)]);
    let (machine, _) = run(machine, [failed(2)], 21);
    assert_eq!(machine.status, NodeStatus::FailedCommissioning);
    assert!(machine.error.contains("no answer") && machine.error.contains("look at it"), "{}", machine.error);
    let seen = machine.attempt.unwrap().seen.join("\n");
    assert!(seen.contains(&format!("rack {} failed (no answer); the next rack is tried", rack(1))), "{seen}");
}

#[test]
fn a_wrong_password_is_tried_at_one_rack_alone() {
    let (machine, _) = after(3);
    let (action, why, remedy) = (PowerAction::NetworkBoot, "wrong password".into(), "set it".into());
    let (machine, _) = run(machine, [fact(rack(1), 1, 20, Fact::PowerFailed { action, why, remedy })], 20);
    assert_eq!(machine.status, NodeStatus::FailedCommissioning);
    let said = format!("Rack {}: wrong password", rack(1));
    assert!(machine.error.contains(&said) && machine.error.contains("set it"), "{}", machine.error);
}

#[test]
fn a_power_action_goes_from_rack_to_rack_and_its_failure_says_what_each_saw() {
    let asked = MachineEvent::Power { by: "admin".into(), action: PowerAction::On, brief: brief() };
    let (machine, effects) = run(created(PowerType::Ipmi), [asked], 1);
    assert_eq!(orders(&effects), [(1, PowerAction::On)]);
    let unreachable = |r| {
        let (action, why, remedy) = (PowerAction::On, format!("no route {r}"), "look".into());
        fact(rack(r), 1, 20, Fact::BmcUnreachable { action, why, remedy })
    };
    let (other, effects) = run(machine.clone(), [unreachable(1)], 20);
    assert!(
        matches!(effects[..], [MachineEffect::CancelOrder { .. }, MachineEffect::SendOrder { rack: r, .. }, ..] if r == rack(2))
    );
    assert!(other.wait.as_ref().unwrap().evidence[0].contains("no route 1"));
    let (ended, _) = run(other, [unreachable(2)], 30);
    assert_eq!((ended.power_state, &ended.errand), (PowerState::Error, &None));
    assert!(ended.error.contains("no route 1") && ended.error.contains("no route 2"), "{}", ended.error);
    // A rack that goes away hands its order on, and hears it again when nobody else can.
    let (other, effects) = run(machine, [MachineEvent::RackLink { rack: rack(1), up: false }], 20);
    assert!(effects.iter().any(|e| matches!(e, MachineEffect::SendOrder { rack: r, .. } if *r == rack(2))));
    let (_, effects) = run(
        other,
        [MachineEvent::RackLink { rack: rack(2), up: false }, MachineEvent::RackLink { rack: rack(2), up: true }],
        25,
    );
    assert_eq!(orders(&effects), [(1, PowerAction::On)]);
}

#[test]
fn a_sweep_sees_what_a_hand_did_and_a_silent_bmc_leaves_the_state_unknown() {
    let on = created(PowerType::Ipmi);
    let (on, _) = run(on, [fact(rack(1), 0, 5, Fact::PowerSeen { state: PowerState::On })], 5);
    assert_eq!(on.power_state, PowerState::On);
    let silent = Fact::BmcUnreachable { action: PowerAction::Query, why: "no answer".into(), remedy: "look".into() };
    let (unknown, _) = run(on, [fact(rack(1), 0, 9, silent.clone())], 9);
    assert_eq!(unknown.power_state, PowerState::Unknown);
    let (machine, _) = after(5);
    let state = machine.power_state;
    let (machine, _) = run(machine, [fact(rack(1), 0, 20, silent)], 20);
    assert_eq!(machine.power_state, state, "an attempt is not disturbed");
}

#[test]
fn a_deadline_fails_the_attempt_with_step_and_remedy_and_switches_off() {
    let (machine, _) = after(5);
    let wait = machine.wait.clone().unwrap();
    assert_eq!((&wait.owed_by, wait.what.contains("52:54:00:77:00:01")), (&OwedBy::Machine, true));
    let early = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, at(20));
    assert!(matches!(early.verdict, Verdict::Ignored { .. }) && !early.timers.is_empty());
    let late = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, wait.deadline);
    let next = late.next.unwrap();
    assert_eq!(next.status, NodeStatus::FailedCommissioning);
    assert!(next.error.contains("Step 5 (DHCP lease)") && next.error.contains("console"), "{}", next.error);
    assert_eq!(orders(&late.effects), [(2, PowerAction::Off)]);
    assert!(next.wait.is_some(), "the power off is awaited");
    let (end, _) = run(next, [fact(rack(1), 2, 400, power_done(PowerAction::Off, PowerState::Off))], 400);
    assert_eq!((end.status, end.wait), (NodeStatus::FailedCommissioning, None));
}

#[test]
fn a_failed_script_ends_in_failed_commissioning_and_names_the_script() {
    let facts = good_facts().into_iter().map(|f| match f {
        Fact::ScriptEnded { result, .. } if result.0 == 12 => script_ended(12, 3),
        other => other,
    });
    let events = std::iter::once(commission()).chain(facts.map(|f| fact(rack(1), 1, 10, f)));
    let (machine, _) = run(created(PowerType::Ipmi), events, 1);
    let (machine, _) = run(machine, [fact(rack(1), 2, 90, power_done(PowerAction::Off, PowerState::Off))], 100);
    assert_eq!(machine.status, NodeStatus::FailedCommissioning);
    assert!(machine.error.contains("50-maas-01-commissioning"), "{}", machine.error);
}

#[test]
fn the_final_signal_waits_for_results_that_another_rack_still_holds() {
    let mut facts = good_facts();
    let last_result = facts.remove(facts.len() - 2);
    let events = std::iter::once(commission()).chain(facts.into_iter().map(|f| fact(rack(1), 1, 10, f)));
    let (machine, effects) = run(created(PowerType::Ipmi), events, 1);
    assert_eq!(orders(&effects), [(1, PowerAction::NetworkBoot)]);
    assert!(machine.wait.as_ref().unwrap().what.contains("50-maas-01-commissioning"));
    let (_, effects) = run(machine, [fact(rack(2), 1, 40, last_result)], 60);
    assert_eq!(orders(&effects), [(2, PowerAction::Off)]);
}

#[test]
fn abort_returns_to_the_status_before_withdraws_the_ticket_and_switches_off() {
    let (machine, _) = after(6);
    let (machine, effects) = run(machine, [MachineEvent::Abort { by: "admin".into(), comment: String::new() }], 30);
    assert_eq!(machine.status, NodeStatus::New);
    assert!(effects.contains(&MachineEffect::WithdrawTicket { attempt: AttemptId(1) }));
    let aborted = |e: &MachineEffect| {
        matches!(e, MachineEffect::Store(Projection::ScriptResult { status: ResultStatus::Aborted, .. }))
    };
    assert_eq!(effects.iter().filter(|e| aborted(e)).count(), 2);
    assert_eq!(orders(&effects), [(2, PowerAction::Off)]);
    let late = machine.step(&fact(rack(1), 1, 31, Fact::UserDataFetched), at(31));
    assert!(matches!(late.verdict, Verdict::Ignored { .. }));
}

#[test]
fn a_rack_that_is_away_is_not_the_one_that_switches_off() {
    let away = |r| MachineEvent::RackLink { rack: rack(r), up: false };
    let to = |effects: &[MachineEffect]| {
        let last = |e: &MachineEffect| match e {
            MachineEffect::SendOrder { rack, action: PowerAction::Off, .. } => Some(*rack),
            _ => None,
        };
        effects.iter().rev().find_map(last)
    };
    let last = good_facts().len() - 1;
    let (machine, _) = after(last);
    let (machine, _) = run(machine, [away(1)], 70);
    let (ending, effects) = run(machine.clone(), [fact(rack(2), 1, 80, good_facts()[last].clone())], 80);
    assert_eq!(to(&effects), Some(rack(2)), "at the end");
    let (ending, effects) = run(ending, [MachineEvent::RackLink { rack: rack(1), up: true }, away(2)], 81);
    assert_eq!((to(&effects), ending.status), (Some(rack(1)), NodeStatus::Commissioning), "and when that one goes");
    let (_, effects) = run(machine, [MachineEvent::Abort { by: "admin".into(), comment: String::new() }], 80);
    assert_eq!(to(&effects), Some(rack(2)), "when it is aborted");
    // A refusal that is said again is no word of the rack that has the order now.
    let (ending, _) = after(last + 1);
    let refused = || fact(rack(1), 2, 85, Fact::OrderRefused { why: "full".into(), remedy: "wait".into() });
    let (ending, effects) = run(ending, [refused(), refused()], 85);
    assert_eq!((to(&effects), ending.status), (Some(rack(2)), NodeStatus::Commissioning));
}

/// One rack drives the BMC, another serves the boot: the first need not, and must not, try any longer.
#[test]
fn a_machine_that_boots_from_another_rack_is_not_switched_on_again() {
    let cancelled = |from: u8, method| {
        // The order is accepted, and nothing more was heard of the BMC.
        let (machine, _) = after(3);
        let (_, effects) = run(machine, [fact(rack(from), 1, 30, leased(method))], 30);
        effects.contains(&MachineEffect::CancelOrder { rack: rack(1), attempt: AttemptId(1) })
    };
    assert!(cancelled(2, Some(BootMethod::UefiAmd64Tftp)));
    assert!(!cancelled(1, Some(BootMethod::UefiAmd64Tftp)), "that rack's errand hears it by itself");
    assert!(!cancelled(2, None), "a system that runs still renews its lease");
}

/// A sweep's word that was on its way since before the machine was to go off does not make it Ready.
#[test]
fn an_old_look_at_the_power_is_no_evidence_that_the_machine_is_off() {
    let (machine, _) = after(good_facts().len());
    let seen = |when: i64| fact(rack(2), 0, when, Fact::PowerSeen { state: PowerState::Off });
    // Step 12 began at 10 by the racks' clocks.
    let (machine, _) = run(machine, [seen(2)], 60);
    assert_eq!(machine.status, NodeStatus::Commissioning, "it was seen before it was switched on");
    let (machine, _) = run(machine, [seen(61)], 62);
    assert_eq!(machine.status, NodeStatus::Ready);
}

#[test]
fn a_rack_that_died_with_the_order_is_followed_by_the_next() {
    let (machine, _) = after(3);
    let (machine, _) = run(machine, [MachineEvent::RackLink { rack: rack(1), up: false }], 20);
    let deadline = machine.wait.clone().unwrap().deadline;
    let step = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, deadline);
    assert!(
        step.effects.iter().any(|e| matches!(e, MachineEffect::SendOrder { rack: r, .. } if *r == rack(2))),
        "{step:?}"
    );
    assert_eq!(step.next.unwrap().status, NodeStatus::Commissioning);
}

#[test]
fn a_boot_that_lost_its_rack_is_tried_once_more_and_no_more() {
    let booted = 6; // Up to the lease.
    let (machine, _) = after(booted);
    let late = |machine: &Machine| {
        let deadline = machine.wait.clone().unwrap().deadline;
        let step = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, deadline);
        (step.next.unwrap(), step.effects)
    };
    assert_eq!(late(&machine).0.status, NodeStatus::FailedCommissioning, "no rack was lost");
    // It was away for so short that nobody saw it.
    let (began, _) = run(machine.clone(), [MachineEvent::RackBegan { rack: rack(1) }], 30);
    assert!(began.wait.as_ref().unwrap().on_timeout.contains("once more"));
    assert_eq!(late(&began).0.status, NodeStatus::Commissioning);
    let (cut, _) = run(machine, [MachineEvent::RackLink { rack: rack(1), up: false }], 30);
    assert!(cut.wait.as_ref().unwrap().on_timeout.contains("once more"));
    let (again, effects) = late(&cut);
    assert_eq!((orders(&effects), again.status), (vec![(2, PowerAction::NetworkBoot)], NodeStatus::Commissioning));
    assert!(effects.iter().any(|e| matches!(e, MachineEffect::SendOrder { rack: r, .. } if *r == rack(2))));
    assert_eq!(state_of(&again, CommissionStep::DhcpLease), StepState::Pending);
    let (stale, _) =
        run(again.clone(), [fact(rack(2), 1, 60, power_done(PowerAction::NetworkBoot, PowerState::On))], 60);
    assert_eq!(state_of(&stale, CommissionStep::PowerOn), StepState::Pending, "the first boot's order");
    let (on, _) = run(again.clone(), [fact(rack(2), 2, 60, power_done(PowerAction::NetworkBoot, PowerState::On))], 60);
    assert_eq!(state_of(&on, CommissionStep::PowerOn), StepState::Done);
    let rest = good_facts().into_iter().skip(booted - 1).map(|f| fact(rack(2), 1, 70, f));
    let (done, effects) = run(on.clone(), rest, 70);
    assert_eq!(orders(&effects), [(3, PowerAction::Off)]);
    let (done, _) = run(done, [fact(rack(2), 3, 90, power_done(PowerAction::Off, PowerState::Off))], 90);
    assert_eq!(done.status, NodeStatus::Ready);
    assert_eq!(late(&on).0.status, NodeStatus::FailedCommissioning);
}

#[test]
fn a_machine_whose_racks_cannot_serve_it_owes_them_nothing() {
    let (machine, _) = after(5); // It is on, and no lease was asked for.
    let ails = |m: &Machine, serves| {
        let ailment =
            Ailment { serves, why: "its disk does not serve: No space left".into(), remedy: "make room".into() };
        let boots = m.open_attempt().unwrap().boot_racks.clone();
        run(
            m.clone(),
            boots.into_iter().map(|rack| MachineEvent::RackAils { rack, ailment: Some(ailment.clone()) }),
            40,
        )
        .0
    };
    let told = |m: &Machine| {
        let wait = m.wait.clone().unwrap();
        let seen = wait.evidence.iter().any(|e| e.contains("No space left"));
        (wait.owed_by, wait.remedy.contains("make room"), seen)
    };
    assert_eq!(told(&machine), (OwedBy::Machine, false, false));
    assert_eq!(told(&ails(&machine, true)), (OwedBy::Machine, false, true));
    let lame = ails(&machine, false);
    assert_eq!(told(&lame), (OwedBy::Rack(lame.open_attempt().unwrap().boot_racks[0]), true, true));
    let deadline = lame.wait.clone().unwrap().deadline;
    let late = lame.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, deadline).next.unwrap();
    assert!(late.error.contains("No space left") && late.error.contains("Remedy: make room"), "{}", late.error);
    // One that serves is enough; and what is over is not evidence any more.
    let first = lame.open_attempt().unwrap().boot_racks[0];
    let (well, _) = run(lame, [MachineEvent::RackAils { rack: first, ailment: None }], 50);
    assert_eq!(well.wait.as_ref().unwrap().owed_by, OwedBy::Machine);
    assert_eq!(well.wait.as_ref().unwrap().evidence.iter().filter(|e| e.contains("No space left")).count(), 1);
    let stranger = MachineEvent::RackAils { rack: rack(9), ailment: None };
    assert!(well.step(&stranger, at(51)).next.is_none());
}

#[test]
fn what_is_missing_is_refused_with_the_command_that_brings_it() {
    let machine = created(PowerType::Ipmi);
    let refused = |change: fn(&mut Brief)| {
        let mut brief = brief();
        change(&mut brief);
        let event = MachineEvent::Commission { by: "admin".into(), options: CommissionOptions::default(), brief };
        match machine.step(&event, at(1)).verdict {
            Verdict::Refused { why, remedy } => format!("{why}; {remedy}"),
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(|b| b.image = None).contains("hostler image build"));
    assert!(refused(|b| b.bmc_racks.clear()).contains("10.78.0.1"));
    assert!(refused(|b| b.boot_racks.clear()).contains("hostler subnet add"));
    fn lame(b: &mut Brief) {
        let dead = |why: &str| Ailment { serves: false, why: why.into(), remedy: "free the port".into() };
        b.lame = vec![(rack(1), dead("its dhcp is dead")), (rack(2), dead("its tftp is dead"))];
    }
    let all = refused(|b| {
        lame(b);
        b.boot_racks.clear();
    });
    assert!(all.contains(&format!("rack {}: its dhcp is dead", rack(1))) && all.ends_with("; free the port"), "{all}");
    // Where another is left, it boots from that one, and what it says why names the others.
    let mut some = brief();
    lame(&mut some);
    some.boot_racks = vec![rack(3)];
    let event = MachineEvent::Commission { by: "admin".into(), options: CommissionOptions::default(), brief: some };
    let begun = machine.step(&event, at(1)).next.unwrap();
    assert_eq!(begun.open_attempt().unwrap().boot_racks, [rack(3)]);
    let evidence = begun.wait.unwrap().evidence.join("\n");
    let not = |n: u8, what: &str| {
        evidence.contains(&format!("rack {} was not chosen to boot it: its {what} is dead; free the port", rack(n)))
    };
    assert!(not(1, "dhcp") && not(2, "tftp"), "{evidence}");
}

#[test]
fn a_machine_without_a_bmc_waits_for_a_hand_and_ends_without_asking_for_power() {
    let facts = good_facts().into_iter().filter(|f| !matches!(f, Fact::PowerTry { .. })).map(|f| match f {
        Fact::PowerDone { action, .. } => Fact::PowerByHand { action },
        other => other,
    });
    let events: Vec<_> = std::iter::once(commission()).chain(facts.map(|f| fact(rack(1), 1, 10, f))).collect();
    let (waiting, _) = run(created(PowerType::Manual), events.iter().take(5).cloned(), 1);
    assert_eq!(waiting.wait.unwrap().owed_by, OwedBy::Operator);
    let (machine, effects) = run(created(PowerType::Manual), events, 1);
    assert_eq!(machine.status, NodeStatus::Ready);
    assert_eq!(orders(&effects), [(1, PowerAction::NetworkBoot)]);
}

#[test]
fn power_is_asked_switched_and_told() {
    let machine = created(PowerType::Ipmi);
    let ask = |action| MachineEvent::Power { by: "admin".into(), action, brief: brief() };
    let (machine, effects) = run(machine, [ask(PowerAction::Query)], 1);
    assert_eq!(orders(&effects), [(1, PowerAction::Query)]);
    let (machine, _) = run(machine, [fact(rack(1), 1, 2, power_done(PowerAction::Query, PowerState::Off))], 2);
    assert_eq!((machine.power_state, machine.errand.is_none()), (PowerState::Off, true));
    let (machine, _) = run(machine, [ask(PowerAction::On)], 3);
    let late = machine.wait.clone().unwrap().deadline;
    let next_rack = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, late);
    assert_eq!(orders(&next_rack.effects), [(2, PowerAction::On)]);
    let machine = next_rack.next.unwrap();
    let late = machine.wait.clone().unwrap().deadline;
    let machine = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, late).next.unwrap();
    assert_eq!((machine.power_state, machine.wait), (PowerState::Error, None));
}

#[test]
fn a_script_that_outlives_its_time_out_fails_the_attempt_by_name() {
    let (machine, _) = after(17);
    let overdue = at(10 + 30 + 300);
    // The runner goes on beating, so only the script's own timer speaks.
    let (machine, _) = run(machine, (1..=3).map(|n| fact(rack(1), 1, 100 * n, Fact::Heartbeat)), 100);
    let step = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Script }, overdue);
    let next = step.next.unwrap();
    assert_eq!(next.status, NodeStatus::FailedCommissioning);
    assert!(next.error.contains("20-maas-01-install-lldpd"), "{}", next.error);
}

#[test]
fn a_lost_link_moves_no_order_before_its_time_is_over_for_it_may_be_carried_out() {
    let (machine, _) = after(2);
    let (machine, effects) = run(machine, [MachineEvent::RackLink { rack: rack(1), up: false }], 20);
    assert_eq!(orders(&effects), []);
    let deadline = machine.wait.as_ref().unwrap().deadline;
    assert!(deadline <= at(50), "{deadline}");
    let late = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, deadline);
    assert_eq!(orders(&late.effects), [(1, PowerAction::NetworkBoot)]);
    let (machine, _) = after(3);
    let (machine, effects) = run(machine, [MachineEvent::RackLink { rack: rack(1), up: false }], 20);
    assert_eq!((orders(&effects), machine.status), (vec![], NodeStatus::Commissioning));
    let (_, effects) = run(machine, [MachineEvent::RackLink { rack: rack(1), up: true }], 21);
    assert_eq!(orders(&effects), [(1, PowerAction::NetworkBoot)], "sent again; the rack knows the attempt");
}

#[test]
fn marking_fixed_needs_passed_scripts() {
    let (machine, _) = after(8);
    let (broken, _) = run(machine, [MachineEvent::MarkBroken { by: "a".into(), comment: "fan".into() }], 30);
    assert_eq!((broken.status, broken.error.as_str()), (NodeStatus::Broken, "fan"));
    let fixed = broken.step(&MachineEvent::MarkFixed { by: "a".into(), comment: String::new() }, at(31));
    assert!(matches!(fixed.verdict, Verdict::Refused { .. }));
    let (broken, _) =
        run(created(PowerType::Ipmi), [MachineEvent::MarkBroken { by: "a".into(), comment: String::new() }], 1);
    let (fixed, _) = run(broken, [MachineEvent::MarkFixed { by: "a".into(), comment: String::new() }], 2);
    assert_eq!(fixed.status, NodeStatus::Ready);
}

#[test]
fn the_runner_that_reports_failure_fails_the_machine() {
    let mut facts = good_facts();
    facts.pop();
    facts.push(Fact::Finished { status: SignalStatus::Failed, error: "no network".into() });
    let events = std::iter::once(commission()).chain(facts.into_iter().map(|f| fact(rack(1), 1, 10, f)));
    let (machine, _) = run(created(PowerType::Ipmi), events, 1);
    let (machine, _) = run(machine, [fact(rack(1), 2, 90, power_done(PowerAction::Off, PowerState::Off))], 100);
    assert_eq!(machine.status, NodeStatus::FailedCommissioning);
}

#[test]
fn hardware_names_the_interface_that_took_the_lease_and_its_macs_may_boot_from_now_on() {
    let (machine, _) = after(19);
    let nic = |mac: &str| HardwareInterface { mac: mac.parse().unwrap(), ..HardwareInterface::default() };
    let interfaces = vec![nic("52:54:00:77:00:02"), nic("52:54:00:77:00:01")];
    let report = HardwareReport { architecture: "amd64".into(), interfaces, ..HardwareReport::default() };
    let MachineEvent::Reported { rack, report: fact, .. } = fact(rack(1), 1, 50, script_ended(12, 0)) else { panic!() };
    let derived = Derived { hardware: Some(Arc::new(report)), ..Derived::default() };
    let step = machine.step(&MachineEvent::Reported { rack, report: fact, derived }, at(50));
    let stored = step.effects.iter().find_map(|e| match e {
        MachineEffect::Store(Projection::Hardware(hardware)) => hardware.boot_mac,
        _ => None,
    });
    assert_eq!(stored, Some("52:54:00:77:00:01".parse().unwrap()));
    assert!(step.next.unwrap().spec.macs.contains(&"52:54:00:77:00:02".parse().unwrap()));
}

#[test]
fn why_a_machine_failed_stays_when_it_cannot_be_switched_off_either() {
    let (machine, _) = after(3);
    let (action, why, remedy) = (PowerAction::NetworkBoot, "wrong password".into(), "set it".into());
    let (failed, _) = run(machine, [fact(rack(1), 1, 20, Fact::PowerFailed { action, why, remedy })], 20);
    let off = failed.errand.as_ref().unwrap().attempt.0;
    let refused = |n: u32| {
        let (action, why, remedy) = (PowerAction::Off, format!("locked {n}"), "unlock it".into());
        fact(rack(1), n, 30, Fact::PowerFailed { action, why, remedy })
    };
    let (machine, _) = run(failed, [refused(off)], 30);
    let said = |m: &Machine, word: &str| m.error.matches(word).count();
    assert_eq!((said(&machine, "wrong password"), said(&machine, "set it"), said(&machine, "locked")), (1, 1, 1));
    // Another try says its own word in place of the one before; one that succeeds leaves the reason alone.
    let asked = MachineEvent::Power { by: "admin".into(), action: PowerAction::Off, brief: brief() };
    let (machine, _) = run(machine, [asked.clone(), refused(off + 1)], 40);
    assert_eq!((said(&machine, "wrong password"), said(&machine, "locked")), (1, 1), "{}", machine.error);
    let done = fact(rack(1), off + 2, 60, power_done(PowerAction::Off, PowerState::Off));
    let (machine, _) = run(machine, [asked, done], 50);
    assert_eq!((said(&machine, "wrong password"), said(&machine, "locked")), (1, 0), "{}", machine.error);
}

#[test]
fn a_link_that_flaps_does_not_hide_what_else_was_seen() {
    // A machine that boots no more: it is not booted again.
    let (machine, _) = after(15);
    let refused = fact(rack(1), 1, 20, Fact::AuthRefused { why: "expired".into(), skew_s: Some(-9_000) });
    let flaps = (0..20).map(|n| MachineEvent::RackLink { rack: rack(1), up: n % 2 == 1 });
    let (machine, _) = run(machine, std::iter::once(refused).chain(flaps), 20);
    let late = machine.wait.as_ref().unwrap().deadline;
    let next = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, late).next.unwrap();
    assert!(next.error.contains("9000 s behind"), "{}", next.error);
}

#[test]
fn after_the_region_was_away_nothing_is_judged_before_the_racks_told_what_they_kept() {
    let (machine, _) = after(5);
    let hour = 3_600;
    let resumed = machine.resume(at(hour));
    let due = resumed.timers.iter().map(|op| match op {
        TimerOp::Arm { at, .. } => *at,
        TimerOp::Cancel { .. } => panic!("a timer is cancelled"),
    });
    assert!(due.into_iter().all(|due| due >= at(hour + 30)));
    // What happened an hour ago comes now, one by one; the deadlines of those steps are long past.
    let told: Vec<_> = good_facts().into_iter().skip(5).take(12).map(|f| fact(rack(1), 1, 40, f)).collect();
    let (machine, _) = run(machine, told, hour + 10);
    let wait = machine.wait.clone().unwrap();
    assert!(wait.deadline >= at(hour + 60), "{wait:?}");
    for timer in [MachineTimer::Deadline, MachineTimer::Script] {
        let step = machine.step(&MachineEvent::Elapsed { timer }, at(hour + 50));
        assert!(step.next.is_none(), "{timer:?}: {:?}", step.verdict);
    }
    // The order to switch off has its time, too.
    let ended =
        [script_ended(11, 0), script_ended(12, 0), Fact::Finished { status: SignalStatus::Ok, error: String::new() }];
    let (_, effects) = run(machine.clone(), ended.map(|f| fact(rack(1), 1, 90, f)), hour + 30);
    let deadlines = effects.iter().filter_map(|e| match e {
        MachineEffect::SendOrder { deadline, .. } => Some(*deadline),
        _ => None,
    });
    assert!(deadlines.collect::<Vec<_>>().iter().all(|until| *until >= at(hour + 60)), "{effects:?}");
    // They had their time, and no more of it.
    let late = machine.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, wait.deadline);
    assert_eq!(late.next.unwrap().status, NodeStatus::FailedCommissioning);
}

#[test]
fn a_loader_that_is_not_here_is_named_with_what_brings_it() {
    let (machine, _) = after(6);
    let missing =
        Fact::FileAsked { file: "bootx64.efi".into(), kind: FileKind::Loader, service: "tftp".into(), found: false };
    let (machine, _) = run(machine, [fact(rack(1), 1, 20, missing)], 20);
    let wait = machine.wait.unwrap();
    assert!(
        wait.evidence.iter().any(|e| e.contains("bootx64.efi was asked for") && e.contains("hostler image loaders")),
        "{wait:?}"
    );
}

#[test]
fn a_rack_that_is_back_has_time_to_tell_what_it_kept_once_in_a_step() {
    let (machine, _) = after(15);
    let deadline = machine.wait.as_ref().unwrap().deadline;
    let second = |n: u64| deadline - std::time::Duration::from_secs(n);
    let link = |m: &Machine, up, now| m.step(&MachineEvent::RackLink { rack: rack(1), up }, now).next.unwrap();
    let back = link(&link(&machine, false, second(80)), true, second(2));
    let held = back.wait.as_ref().unwrap().deadline;
    assert_eq!(held, second(2) + std::time::Duration::from_secs(60));
    // A link that flaps does not put it off again.
    let flapped = link(
        &link(&back, false, held - std::time::Duration::from_secs(9)),
        true,
        held - std::time::Duration::from_secs(1),
    );
    assert_eq!(flapped.wait.as_ref().unwrap().deadline, held);
    let late = flapped.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, held).next.unwrap();
    assert_eq!(late.status, NodeStatus::FailedCommissioning);
}
