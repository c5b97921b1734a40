//! Laws of the machine under any sequence of events: legal statuses, no wait without an end and an owner, nothing stuck,
//! repeats harmless, tickets withdrawn, resume harmless.

use std::net::Ipv4Addr;

use actors::{
    core::{Core, TimerOp, Verdict},
    machine::{Life, Machine, MachineEffect},
};
use proptest::prelude::*;
use schema::{
    boot::BootMethod,
    messages::{
        machine::{Ailment, Brief, CommissionOptions, MachineEvent, MachineTimer},
        report::{Fact, FileKind},
    },
    net::MacAddr,
    power::{PowerAction, PowerType},
    script::SignalStatus,
    status::{NodeStatus, PowerState},
    time::Timestamp,
};

use crate::{astray::astray, story::*};

fn facts() -> impl Strategy<Value = Fact> {
    let failed = |action| Fact::PowerFailed { action, why: "no answer".into(), remedy: "look".into() };
    let mut all = good_facts();
    all.extend([
        Fact::OrderRefused { why: "no ipmitool".into(), remedy: "apt install ipmitool".into() },
        failed(PowerAction::NetworkBoot),
        failed(PowerAction::Off),
        power_done(PowerAction::Off, PowerState::Off),
        power_done(PowerAction::Query, PowerState::On),
        Fact::PowerByHand { action: PowerAction::NetworkBoot },
        Fact::BmcUnreachable { action: PowerAction::NetworkBoot, why: "silent".into(), remedy: "look".into() },
        Fact::BmcUnreachable { action: PowerAction::Query, why: "silent".into(), remedy: "look".into() },
        Fact::PowerSeen { state: PowerState::Off },
        Fact::PowerSeen { state: PowerState::On },
        leased(Some(BootMethod::Ipxe)),
        asked(FileKind::Squashfs, false),
        Fact::FileAborted { file: "k".into(), kind: FileKind::Kernel, service: "tftp".into(), why: "timeout".into() },
        Fact::AuthRefused { why: "wrong key".into(), skew_s: Some(-9_000) },
        Fact::CloudInit {
            name: "init".into(),
            event_type: "finish".into(),
            result: Some("FAIL".into()),
            description: "x".into(),
        },
        Fact::CloudInit { name: "init".into(), event_type: "start".into(), result: None, description: "x".into() },
        Fact::SignalRefused { why: "no status".into() },
        Fact::TwoHosts { mac: MacAddr([2; 6]), uuids: [[1; 16], [2; 16]] },
        Fact::Heartbeat,
        script_ended(11, 1),
        script_ended(99, 0),
        Fact::Finished { status: SignalStatus::Failed, error: "bad".into() },
    ]);
    proptest::sample::select(all)
}

fn events() -> impl Strategy<Value = MachineEvent> {
    let by = || "admin".to_owned();
    let options = |enable_ssh| CommissionOptions { enable_ssh, ..CommissionOptions::default() };
    let operator = proptest::sample::select(vec![
        commission(),
        MachineEvent::Commission { by: by(), options: options(true), brief: brief() },
        MachineEvent::Commission { by: by(), options: options(false), brief: Brief { place: Some(3), ..brief() } },
        MachineEvent::Turn { brief: brief() },
        MachineEvent::Abort { by: by(), comment: String::new() },
        MachineEvent::MarkBroken { by: by(), comment: String::new() },
        MachineEvent::MarkFixed { by: by(), comment: String::new() },
        MachineEvent::Power { by: by(), action: PowerAction::On, brief: brief() },
        MachineEvent::Power { by: by(), action: PowerAction::Query, brief: brief() },
        MachineEvent::Operation { by: by(), operation: "deploy".into() },
        MachineEvent::Deleted { by: by() },
    ]);
    let timers = proptest::sample::select(vec![MachineTimer::Deadline, MachineTimer::Script]);
    prop_oneof![
        12 => (facts(), 1..3_u8, 1..6_u32).prop_map(|(f, r, attempt)| fact(rack(r), attempt, 0, f)),
        2 => operator,
        1 => timers.prop_map(|timer| MachineEvent::Elapsed { timer }),
        1 => (1..3_u8, any::<bool>()).prop_map(|(r, up)| MachineEvent::RackLink { rack: rack(r), up }),
        1 => (1..3_u8).prop_map(|r| MachineEvent::RackBegan { rack: rack(r) }),
        1 => (1..3_u8, proptest::option::of(any::<bool>())).prop_map(|(r, serves)| {
            let ailment = serves.map(|serves| Ailment { serves, why: "full".into(), remedy: "make room".into() });
            MachineEvent::RackAils { rack: rack(r), ailment }
        }),
        1 => (1..3_u8, proptest::option::of(Just(Ipv4Addr::new(10, 9, 9, 1)))).prop_map(|(r, relay)| {
            MachineEvent::Strayed { rack: rack(r), stray: astray(relay) }
        }),
    ]
}

/// The event with its report stamped with the current time, and most reports moved to the present attempt.
fn at_time(event: MachineEvent, machine: &Machine, now: Timestamp) -> MachineEvent {
    match event {
        MachineEvent::Reported { rack, mut report, derived } => {
            report.at = now;
            if report.attempt.0 > 2 {
                let off = machine.attempt.as_ref().and_then(|a| a.off).or(machine.errand.as_ref().map(|e| e.attempt));
                let open = machine.open_attempt().map(|a| a.id);
                report.attempt = if report.attempt.0 == 5 { off.or(open) } else { open }.unwrap_or(report.attempt);
            }
            MachineEvent::Reported { rack, report, derived }
        }
        other => other,
    }
}

fn check_state(machine: &Machine) {
    if machine.life != Life::Present {
        return;
    }
    let expects = machine.status == NodeStatus::Commissioning || machine.errand.is_some();
    assert_eq!(machine.status == NodeStatus::Commissioning, machine.open_attempt().is_some());
    assert_eq!(machine.wait.is_some(), expects, "{machine:#?}");
    if let Some(wait) = &machine.wait {
        assert!(wait.deadline > wait.since, "{wait:?}");
        assert!(!wait.what.is_empty() && !wait.remedy.is_empty() && !wait.on_timeout.is_empty(), "{wait:?}");
    }
}

fn check_step(before: &Machine, event: &MachineEvent, now: Timestamp) -> Machine {
    let step = before.step(event, now);
    let Some(next) = step.next else {
        assert!(step.effects.is_empty(), "effects without a change: {event:?}");
        assert!(matches!(step.verdict, Verdict::Ignored { .. } | Verdict::Refused { .. }));
        return before.clone();
    };
    check_state(&next);
    assert!(
        before.status == next.status || before.status.may_become(next.status),
        "{:?} -> {:?}",
        before.status,
        next.status
    );
    if before.open_attempt().is_some() && next.open_attempt().is_none() {
        let id = before.open_attempt().unwrap().id;
        assert!(
            step.effects.contains(&MachineEffect::WithdrawTicket { attempt: id }),
            "the ticket outlives attempt {id}"
        );
    }
    if let Some(wait) = &next.wait {
        let armed = TimerOp::Arm { timer: MachineTimer::Deadline, at: wait.deadline };
        let same = before.wait.as_ref().is_some_and(|w| w.deadline == wait.deadline)
            && before.view().state == next.view().state;
        assert!(same || step.timers.contains(&armed), "a wait without its timer after {event:?}: {wait:?}");
    }
    // A repeat of a report changes neither status nor steps, and orders nothing.
    if matches!(event, MachineEvent::Reported { .. }) {
        let again = next.step(event, now);
        let orders = again
            .effects
            .iter()
            .any(|e| matches!(e, MachineEffect::SendOrder { .. } | MachineEffect::PublishTicket { .. }));
        assert!(!orders, "repeated {event:?} orders again");
        let after = again.next.unwrap_or_else(|| next.clone());
        assert_eq!(after.status, next.status);
        let steps = |m: &Machine| m.attempt.as_ref().map(|a| a.steps.clone());
        assert_eq!(steps(&after), steps(&next), "repeated {event:?}");
    }
    next
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_laws_and_nothing_is_stuck(
        manual in any::<bool>(),
        history in proptest::collection::vec((events(), 0..90_i64), 1..60),
    ) {
        let mut machine = created(if manual { PowerType::Manual } else { PowerType::Ipmi });
        let mut now = at(1);
        for (event, pause) in history {
            now = now + std::time::Duration::from_secs(pause.unsigned_abs());
            let event = at_time(event, &machine, now);
            machine = check_step(&machine, &event, now);
            let resumed = machine.resume(now);
            prop_assert_eq!(resumed.timers.is_empty(), machine.wait.is_none());
        }
        // Left alone, every machine comes to rest by its deadlines.
        for _ in 0..20 {
            let Some(wait) = machine.wait.clone() else { break };
            now = now.max(wait.deadline);
            machine = check_step(&machine, &MachineEvent::Elapsed { timer: MachineTimer::Deadline }, now);
        }
        prop_assert!(machine.wait.is_none(), "stuck: {:#?}", machine);
        prop_assert!(!machine.status.in_progress());
    }
}
