//! A service under supervision: it is never given up, never started twice, and its pauses grow and come back.

use std::time::Duration;

use actors::{
    core::{Core, TimerOp},
    service::{Service, ServiceEffect, ServiceEvent, ServiceFault, ServiceState, ServiceTimer},
};
use proptest::prelude::*;
use schema::{service::Health, time::Timestamp};

fn service() -> Service {
    Service::off("rack34".parse().unwrap(), "tftp", Timestamp(0))
}

fn fault(why: &str) -> ServiceFault {
    ServiceFault { why: why.into(), remedy: "free the port".into() }
}

fn failed() -> ServiceEvent {
    ServiceEvent::Failed { fault: fault("the port is taken") }
}

fn died() -> ServiceEvent {
    ServiceEvent::Died { fault: fault("its thread ended") }
}

fn started() -> ServiceEvent {
    ServiceEvent::Started { addresses: vec!["127.0.0.1:69".parse().unwrap()] }
}

const AGAIN: ServiceEvent = ServiceEvent::Elapsed { timer: ServiceTimer::Again };

#[test]
fn what_does_not_start_is_tried_again_with_growing_pauses_that_a_minute_of_service_forgives() {
    let (mut service, mut now) = (service().step(&ServiceEvent::Start, Timestamp(0)).next.unwrap(), Timestamp(0));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        service = service.step(&failed(), now).next.unwrap();
        assert_eq!(service.health(), Health::Dead);
        let wait = service.wait.clone().unwrap();
        assert!(wait.remedy.contains("free the port") && wait.evidence[0].contains("taken"), "{wait:?}");
        pauses.push(wait.deadline.since(now).as_secs());
        now = wait.deadline;
        let again = service.step(&AGAIN, now);
        assert_eq!(again.effects, [ServiceEffect::Start]);
        service = again.next.unwrap();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    service = service.step(&started(), now).next.unwrap();
    assert_eq!((service.health(), service.restarts), (Health::Running, 8));
    assert!(service.last_error.is_some(), "what went wrong last is still said");
    let soon = service.step(&died(), now + Duration::from_secs(59));
    assert_eq!(soon.next.unwrap().wait.unwrap().deadline.since(now + Duration::from_secs(59)).as_secs(), 60);
    let later = now + Duration::from_secs(60);
    let steady = service.step(&died(), later);
    assert_eq!(steady.effects, [ServiceEffect::Stop]);
    assert_eq!(steady.next.unwrap().wait.unwrap().deadline.since(later).as_secs(), 1);
}

#[test]
fn a_start_that_hangs_is_said_and_still_counts_when_it_ends() {
    let starting = service().step(&ServiceEvent::Start, Timestamp(0)).next.unwrap();
    let deadline = starting.wait.clone().unwrap().deadline;
    let stuck = starting.step(&ServiceEvent::Elapsed { timer: ServiceTimer::Stuck }, deadline).next.unwrap();
    assert!(stuck.last_error.clone().unwrap().why.contains("not come to an end"));
    assert!(stuck.wait.clone().unwrap().deadline > deadline);
    assert_eq!(stuck.step(&started(), deadline).next.unwrap().health(), Health::Running);
    // Taken back while it starts: what then starts is ended.
    let off = starting.step(&ServiceEvent::Stop, Timestamp(5)).next.unwrap();
    assert_eq!(off.step(&started(), Timestamp(6)).effects, [ServiceEffect::Stop]);
}

#[test]
fn degraded_is_said_once_per_reason_and_ends() {
    let mut service = service().step(&ServiceEvent::Start, Timestamp(0)).next.unwrap();
    service = service.step(&started(), Timestamp(1)).next.unwrap();
    let less = ServiceEvent::Degraded { fault: fault("eth1 cannot be served") };
    service = service.step(&less, Timestamp(2)).next.unwrap();
    assert_eq!((service.health(), service.since), (Health::Degraded, Timestamp(2)));
    assert!(service.step(&less, Timestamp(3)).next.is_none());
    let well = ServiceEvent::Well { addresses: service.addresses().to_vec() };
    service = service.step(&well, Timestamp(4)).next.unwrap();
    assert_eq!((service.health(), service.since), (Health::Running, Timestamp(4)));
    assert!(service.step(&well, Timestamp(5)).next.is_none());
}

fn event() -> impl Strategy<Value = ServiceEvent> {
    prop_oneof![
        Just(ServiceEvent::Start),
        Just(ServiceEvent::Stop),
        Just(started()),
        Just(failed()),
        Just(died()),
        Just(ServiceEvent::Degraded { fault: fault("less") }),
        Just(ServiceEvent::Well { addresses: Vec::new() }),
        Just(AGAIN),
        Just(ServiceEvent::Elapsed { timer: ServiceTimer::Stuck }),
    ]
}

proptest! {
    #[test]
    fn wanted_it_serves_or_waits_with_a_timer_and_never_two_run(
        events in prop::collection::vec((event(), 0..90_u64), 0..80)
    ) {
        let (mut service, mut now, mut timer) = (service(), Timestamp(0), None);
        // Starts under way, and what runs.
        let (mut under_way, mut running) = (0_i32, 0_i32);
        for (event, pause) in events {
            // Hands answer each start once, and only what runs dies.
            match event {
                ServiceEvent::Started { .. } if under_way == 0 => continue,
                ServiceEvent::Failed { .. } if under_way == 0 => continue,
                ServiceEvent::Started { .. } => { under_way -= 1; running += 1; }
                ServiceEvent::Failed { .. } => under_way -= 1,
                // The hands wait for a stop before they start again.
                ServiceEvent::Start if under_way > 0 => continue,
                _ => {}
            }
            now = now + Duration::from_secs(pause);
            let (step, before) = (service.step(&event, now), service.view().state);
            if let Some(next) = step.next { service = next }
            if service.view().state != before { timer = None; }
            for op in step.timers {
                timer = match op { TimerOp::Arm { at, .. } => Some(at), TimerOp::Cancel { .. } => None };
            }
            for effect in step.effects {
                match effect {
                    ServiceEffect::Start => under_way += 1,
                    ServiceEffect::Stop => running = 0,
                }
            }
            prop_assert!(running <= 1 && under_way <= 1, "{running} run, {under_way} start");
            let waits = matches!(service.state, ServiceState::Starting | ServiceState::Resting { .. });
            prop_assert_eq!(waits, service.wait.is_some());
            prop_assert!(!waits || timer.is_some(), "nothing ends {}", service.view().state);
            prop_assert_eq!(running == 1, matches!(service.state, ServiceState::Serving { .. }));
        }
    }
}
