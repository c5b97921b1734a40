//! The rack's own core: it counts on a region for a while, then says that it goes on alone.

use std::{collections::BTreeMap, time::Duration};

use actors::{
    agent::{Agent, AgentEffect, AgentEvent, AgentTimer},
    core::{Core, TimerOp},
};
use proptest::prelude::*;
use schema::{
    id::{AttemptId, Generation, SystemId},
    service::{Health, ServiceStatus},
    time::Timestamp,
};

fn id(text: &str) -> SystemId {
    text.parse().unwrap()
}

fn agent() -> Agent {
    let regions = ["a:5250".to_owned(), "b:5250".to_owned()];
    Agent::starting(id("rack34"), regions, Generation(0), BTreeMap::new(), Timestamp(0))
}

fn up(address: &str) -> AgentEvent {
    AgentEvent::LinkUp { address: address.into(), region: id("reg345") }
}

fn down(address: &str) -> AgentEvent {
    AgentEvent::LinkDown { address: address.into(), why: "no answer".into(), remedy: "start it".into() }
}

#[test]
fn it_waits_for_a_region_then_goes_on_alone_and_comes_back() {
    let agent = agent();
    assert_eq!(agent.view().state, "dialling");
    let wait = agent.view().wait.unwrap();
    let later = agent.step(&down("a:5250"), Timestamp(5)).next.unwrap();
    assert_eq!(later.wait.as_ref().unwrap().deadline, wait.deadline, "each failed try does not add patience");
    assert!(later.wait.unwrap().remedy.contains("start it"));
    let alone = agent.step(&AgentEvent::Elapsed { timer: AgentTimer::Alone }, wait.deadline).next.unwrap();
    assert_eq!(alone.view().state, "alone");
    let step = alone.step(&up("b:5250"), Timestamp(1 << 40));
    assert_eq!(step.effects, [AgentEffect::SayHello { address: "b:5250".into() }]);
    let linked = step.next.unwrap();
    assert_eq!(linked.view().state, "linked");
    // One of two: still linked. Both: it waits again, anew.
    let linked = linked.step(&up("a:5250"), Timestamp(1 << 40)).next.unwrap();
    let linked = linked.step(&down("b:5250"), Timestamp(1 << 40)).next.unwrap();
    assert_eq!(linked.view().state, "linked");
    let lost = linked.step(&down("a:5250"), Timestamp(1 << 40));
    assert!(matches!(lost.timers[..], [TimerOp::Arm { timer: AgentTimer::Alone, .. }]));
}

fn event() -> impl Strategy<Value = AgentEvent> {
    let address = prop::sample::select(vec!["a:5250", "b:5250", "other:1"]);
    let machine = prop::sample::select(vec!["abc234", "abc235"]);
    prop_oneof![
        address.clone().prop_map(up),
        address.clone().prop_map(down),
        (0..9_u64).prop_map(|g| AgentEvent::PlanInForce { generation: Generation(g) }),
        address.clone().prop_map(|a| AgentEvent::PlanGap { address: a.into() }),
        address.prop_map(|a| AgentEvent::HelloAsked { address: a.into() }),
        prop::bool::ANY.prop_map(|ok| AgentEvent::Service {
            status: ServiceStatus {
                service: "dhcp".into(),
                health: if ok { Health::Running } else { Health::Dead },
                since: Timestamp(0),
                addresses: Vec::new(),
                counters: Vec::new(),
                last_error: None,
                restarts: 0,
            },
        }),
        (machine.clone(), 1..4_u32).prop_map(|(m, a)| AgentEvent::OrderHeld { machine: id(m), attempt: AttemptId(a) }),
        (machine, 1..4_u32).prop_map(|(m, a)| AgentEvent::OrderOver { machine: id(m), attempt: AttemptId(a) }),
        Just(AgentEvent::Elapsed { timer: AgentTimer::Alone }),
    ]
}

proptest! {
    #[test]
    fn a_wait_has_an_end_and_a_timer_and_nothing_is_said_to_whom_is_not_linked(
        events in prop::collection::vec((event(), 0..40_u64), 0..60)
    ) {
        let (mut agent, mut now) = (agent(), Timestamp(0));
        let mut timer = agent.wait.as_ref().map(|w| w.deadline);
        for (event, pause) in events {
            now = now + Duration::from_secs(pause);
            let (step, state) = (agent.step(&event, now), agent.view().state);
            match step.next {
                Some(next) => agent = next,
                None => prop_assert!(step.effects.is_empty()),
            }
            if agent.view().state != state {
                timer = None;
            }
            for op in step.timers {
                timer = match op { TimerOp::Arm { at, .. } => Some(at), TimerOp::Cancel { .. } => None };
            }
            prop_assert!(agent.wait.is_none() || timer.is_some(), "a wait that nothing ends, in {}", agent.view().state);
            prop_assert!(!agent.linked() || agent.wait.is_none());
            for effect in step.effects {
                if let AgentEffect::SayHello { address } = effect {
                    prop_assert!(agent.regions[&address].up);
                }
            }
        }
    }
}
