//! The errand's laws: one driver run at a time, no wait without an end, repeats and latecomers harmless.

use std::{collections::BTreeMap, time::Duration};

use actors::{
    core::{Core, TimerOp, Verdict},
    errand::{Errand, ErrandEffect, ErrandEvent, ErrandTimer, FaultKind, Phase, PowerFault, Ran},
};
use proptest::prelude::*;
use schema::{
    id::AttemptId,
    messages::{link::Order, report::Fact},
    power::{PowerAccess, PowerAction, PowerType},
    secret::Secret,
    status::PowerState,
    time::Timestamp,
};

const START: Timestamp = Timestamp(1_795_366_923_000_000);

fn order(attempt: u32, action: PowerAction, seconds: u64) -> Box<Order> {
    Box::new(Order {
        machine: "abc234".parse().unwrap(),
        attempt: AttemptId(attempt),
        hostname: "fox".into(),
        action,
        access: PowerAccess {
            power_type: PowerType::Ipmi,
            params: BTreeMap::from([("power_address".into(), "127.77.1.1".into())]),
            secrets: BTreeMap::from([("power_pass".into(), Secret::new("hunter2canary".into()))]),
        },
        deadline: START + Duration::from_secs(seconds),
    })
}

/// The errand with the hands around it: runs under way, timers, facts.
struct Bench {
    errand: Errand,
    now: Timestamp,
    runs: Vec<(u32, PowerAction)>,
    timers: BTreeMap<&'static str, (ErrandTimer, Timestamp)>,
    facts: Vec<Fact>,
}

impl Bench {
    fn new() -> Self {
        let errand = Errand::idle("abc234".parse().unwrap());
        Self { errand, now: START, runs: Vec::new(), timers: BTreeMap::new(), facts: Vec::new() }
    }

    fn tell(&mut self, event: ErrandEvent) -> Verdict {
        let step = self.errand.step(&event, self.now);
        let before = self.errand.view().state;
        if let Some(next) = step.next {
            self.errand = next;
        } else {
            assert!(step.effects.is_empty(), "effects without a change");
        }
        if self.errand.view().state != before {
            self.timers.clear();
        }
        for op in step.timers {
            match op {
                TimerOp::Arm { timer: ErrandTimer::Deadline, at } => {
                    self.timers.insert("deadline", (ErrandTimer::Deadline, at))
                }
                TimerOp::Arm { timer: ErrandTimer::Next, at } => self.timers.insert("next", (ErrandTimer::Next, at)),
                TimerOp::Cancel { .. } => unreachable!(),
            };
        }
        for effect in step.effects {
            match effect {
                ErrandEffect::RunPower { run, action, .. } => self.runs.push((run, action)),
                ErrandEffect::StopPower { run } => self.runs.retain(|(r, _)| *r != run),
                ErrandEffect::Report { fact, .. } => self.facts.push(fact),
            }
        }
        self.check();
        step.verdict
    }

    fn check(&self) {
        assert!(self.runs.len() <= 1, "two driver runs at once: {:?}", self.runs);
        let view = self.errand.view();
        assert_eq!(self.errand.order.is_some(), view.wait.is_some(), "an order waits, and nothing else does");
        if let (Some(order), Some(wait)) = (&self.errand.order, &view.wait) {
            let looks = matches!(self.errand.progress.phase, Phase::Looking { until } if until == wait.deadline);
            assert!(looks || wait.deadline == order.deadline, "{wait:?}");
            assert!(self.timers.contains_key("deadline"), "an order under way without a deadline");
            assert!(!self.runs.is_empty() || self.timers.contains_key("next"), "an order that nothing moves");
        } else {
            assert!(self.runs.is_empty(), "a run without an order");
        }
        assert!(!format!("{view:?}").contains("hunter2canary"), "the view shows a secret");
    }

    /// The one run under way ends so.
    fn ends(&mut self, result: Result<Ran, PowerFault>) -> Verdict {
        let (run, _) = self.runs.pop().expect("a run under way");
        self.tell(ErrandEvent::Ran { run, result })
    }

    /// The next timer elapses.
    fn elapse(&mut self) -> Verdict {
        let (timer, at) = *self.timers.values().min_by_key(|(_, at)| *at).expect("a timer");
        self.now = self.now.max(at);
        self.timers.retain(|_, (t, _)| *t != timer);
        self.tell(ErrandEvent::Elapsed { timer })
    }
}

fn fault(kind: FaultKind) -> PowerFault {
    PowerFault { kind, why: "seen".into(), remedy: "do".into() }
}

fn accepted() -> Result<Ran, PowerFault> {
    Ok(Ran::Accepted { notes: Vec::new() })
}

fn state(state: PowerState) -> Result<Ran, PowerFault> {
    Ok(Ran::State { state })
}

#[test]
fn an_order_is_done_when_the_bmc_says_so_and_its_secrets_go() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::NetworkBoot, 150) });
    bench.ends(accepted());
    bench.elapse();
    assert_eq!(bench.runs[0].1, PowerAction::Query);
    bench.ends(state(PowerState::Off));
    bench.elapse();
    bench.ends(state(PowerState::On));
    let done = Fact::PowerDone { action: PowerAction::NetworkBoot, state: PowerState::On };
    let tried = Fact::PowerTry { action: PowerAction::NetworkBoot, try_number: 1 };
    assert_eq!(bench.facts, [Fact::OrderAccepted, tried, done.clone()]);
    assert_eq!(bench.errand.order, None);
    // A repeat switches nothing, and the region hears the end again.
    let verdict = bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::NetworkBoot, 900) });
    assert!(matches!(verdict, Verdict::Ignored { .. }));
    assert!(bench.runs.is_empty());
    assert_eq!(bench.facts[3..], [Fact::OrderAccepted, done]);
}

#[test]
fn a_repeat_while_under_way_reports_accepted_again_and_disturbs_nothing() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::On, 150) });
    let runs = bench.runs.clone();
    let verdict = bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::On, 150) });
    assert!(matches!(verdict, Verdict::Ignored { .. }));
    assert_eq!(bench.runs, runs);
    assert_eq!(bench.facts.last(), Some(&Fact::OrderAccepted));
}

#[test]
fn the_waits_of_ipmi_are_4_8_16_32_and_then_it_fails() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::Off, 150) });
    for wait in [4, 8, 16, 32] {
        bench.ends(Err(fault(FaultKind::Unreachable)));
        let before = bench.now;
        assert!(matches!(bench.errand.progress.phase, Phase::Pausing { .. }));
        bench.elapse();
        assert_eq!(bench.now.since(before), Duration::from_secs(wait));
    }
    bench.ends(Err(fault(FaultKind::Unreachable)));
    assert!(matches!(bench.facts.last(), Some(Fact::BmcUnreachable { .. })));
}

#[test]
fn a_wrong_password_is_not_tried_again_and_a_missing_tool_refuses_the_order() {
    for (kind, refused) in [(FaultKind::Auth, false), (FaultKind::Fatal, false), (FaultKind::Unfit, true)] {
        let mut bench = Bench::new();
        bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::On, 150) });
        bench.ends(Err(fault(kind)));
        assert_eq!(bench.errand.order, None);
        assert_eq!(matches!(bench.facts.last(), Some(Fact::OrderRefused { .. })), refused, "{kind:?}");
    }
}

#[test]
fn the_deadline_ends_the_run_and_reports_why() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::On, 150) });
    bench.elapse();
    assert_eq!(bench.now, START + Duration::from_secs(150));
    assert!(matches!(bench.facts.last(), Some(Fact::BmcUnreachable { remedy, .. }) if !remedy.is_empty()));
    // A BMC that has answered is reached, however it goes on.
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::On, 8) });
    bench.ends(Err(fault(FaultKind::Busy)));
    bench.elapse();
    bench.elapse();
    assert!(matches!(bench.facts.last(), Some(Fact::PowerFailed { .. })), "{:?}", bench.facts);
}

/// The rack was away when the time was over: it asks the BMC once, and tells what is so.
#[test]
fn a_rack_that_is_back_after_the_deadline_looks_before_it_speaks_of_failure() {
    for (action, says, done) in [
        (PowerAction::Off, PowerState::Off, true),
        (PowerAction::NetworkBoot, PowerState::On, true),
        (PowerAction::Off, PowerState::On, false),
    ] {
        let mut bench = Bench::new();
        bench.tell(ErrandEvent::Ordered { order: order(1, action, 150) });
        // It is killed over its run, and comes back when the time is over: the run is not begun again.
        bench.now = START + Duration::from_secs(400);
        let resumed = bench.errand.resume(bench.now);
        assert!(resumed.effects.is_empty(), "{:?}", resumed.effects);
        bench.runs.clear();
        bench.tell(ErrandEvent::Elapsed { timer: ErrandTimer::Deadline });
        assert_eq!(bench.runs.iter().map(|(_, action)| *action).collect::<Vec<_>>(), [PowerAction::Query]);
        assert!(bench.facts.iter().all(|f| !matches!(f, Fact::PowerFailed { .. } | Fact::BmcUnreachable { .. })));
        bench.ends(state(says));
        let told = bench.facts.last();
        let truth = Fact::PowerDone { action, state: says };
        assert_eq!(told == Some(&truth), done, "{told:?}");
        assert!(done || matches!(told, Some(Fact::PowerFailed { why, .. }) if why.contains("the BMC says on")));
        assert_eq!(bench.errand.order, None);
    }
}

#[test]
fn a_look_after_the_deadline_has_an_end_too() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::Off, 150) });
    bench.now = START + Duration::from_secs(400);
    bench.tell(ErrandEvent::Elapsed { timer: ErrandTimer::Deadline });
    // A restart over the look asks again, and nothing else.
    let resumed = bench.errand.resume(bench.now);
    assert!(matches!(resumed.effects[..], [ErrandEffect::RunPower { action: PowerAction::Query, .. }]));
    bench.elapse();
    assert_eq!(bench.now, START + Duration::from_secs(460));
    assert!(matches!(bench.facts.last(), Some(Fact::BmcUnreachable { .. })), "{:?}", bench.facts);
    assert_eq!(bench.errand.order, None);
}

/// Another rack serves its boot: this one hears nothing of the machine. After a while without the BMC's word the machine may be booting.
#[test]
fn a_machine_that_may_be_booting_is_not_booted_again() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::NetworkBoot, 150) });
    bench.ends(accepted());
    while bench.runs.iter().all(|(_, action)| *action == PowerAction::Query) {
        match bench.runs.is_empty() {
            true => bench.elapse(),
            false => bench.ends(Err(fault(FaultKind::Unreachable))),
        };
    }
    assert_eq!(bench.runs[0].1, PowerAction::On, "switched on where it is off, and left alone where it boots");
    bench.ends(accepted());
    bench.elapse();
    // It says off: now nothing boots, and the next try is a boot again.
    while bench.runs.first().is_none_or(|(_, action)| *action == PowerAction::Query) {
        match bench.runs.is_empty() {
            true => bench.elapse(),
            false => bench.ends(state(PowerState::Off)),
        };
    }
    assert_eq!(bench.runs[0].1, PowerAction::NetworkBoot);
}

#[test]
fn cancelled_then_off_in_the_same_attempt_is_carried_out() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(3, PowerAction::NetworkBoot, 150) });
    bench.tell(ErrandEvent::Cancelled { attempt: AttemptId(3) });
    assert_eq!(bench.errand.order, None);
    bench.tell(ErrandEvent::Ordered { order: order(3, PowerAction::Off, 150) });
    assert_eq!(bench.runs[0].1, PowerAction::Off);
    bench.tell(ErrandEvent::Ordered { order: order(3, PowerAction::NetworkBoot, 150) });
    assert!(matches!(bench.facts.last(), Some(Fact::OrderRefused { .. })), "a cancelled boot does not come back");
    assert!(matches!(
        bench.tell(ErrandEvent::Ordered { order: order(2, PowerAction::On, 150) }),
        Verdict::Ignored { .. }
    ));
}

#[test]
fn a_machine_that_was_heard_is_not_booted_again_though_its_bmc_says_off() {
    let done = Fact::PowerDone { action: PowerAction::NetworkBoot, state: PowerState::On };
    // Between two questions, and while one is asked.
    for asking in [false, true] {
        let mut bench = Bench::new();
        bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::NetworkBoot, 150) });
        bench.now = START + Duration::from_secs(2);
        let early = bench.tell(ErrandEvent::Heard { at: bench.now });
        assert!(matches!(early, Verdict::Ignored { .. }), "heard before the BMC accepted anything");
        bench.ends(accepted());
        bench.elapse();
        bench.ends(state(PowerState::Off));
        let late = bench.tell(ErrandEvent::Heard { at: START + Duration::from_secs(1) });
        assert!(matches!(late, Verdict::Ignored { .. }), "it was heard before that, and told late");
        if asking {
            bench.elapse();
            assert_eq!(bench.runs[0].1, PowerAction::Query);
        }
        bench.tell(ErrandEvent::Heard { at: bench.now });
        assert_eq!(bench.facts.last(), Some(&done));
        assert_eq!((bench.errand.order.as_ref(), bench.runs.len()), (None, 0), "nothing is left to be run");
        let tries = bench.facts.iter().filter(|f| matches!(f, Fact::PowerTry { .. })).count();
        assert_eq!(tries, 1);
    }
}

#[test]
fn a_machine_that_was_heard_is_switched_off_all_the_same() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::Off, 150) });
    bench.ends(accepted());
    let verdict = bench.tell(ErrandEvent::Heard { at: bench.now });
    assert!(matches!(verdict, Verdict::Ignored { .. }));
    assert!(bench.errand.order.is_some());
}

#[test]
fn a_restart_goes_on_where_it_stood() {
    let mut bench = Bench::new();
    bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::NetworkBoot, 150) });
    let resume = bench.errand.resume(bench.now);
    assert!(matches!(resume.effects[..], [ErrandEffect::RunPower { run: 1, .. }]));
    assert_eq!(resume.timers.len(), 1);
    bench.ends(accepted());
    let resume = bench.errand.resume(bench.now);
    assert!(resume.effects.is_empty());
    assert_eq!(resume.timers.len(), 2);
    let copy = Errand::restored(
        bench.errand.machine,
        bench.errand.order.as_deref().cloned(),
        serde_json::from_str(&serde_json::to_string(&bench.errand.progress).unwrap()).unwrap(),
    );
    assert_eq!(copy, bench.errand);
}

#[derive(Debug, Clone)]
enum Input {
    Order { attempt: u32, action: PowerAction, deadline_s: u64 },
    Cancel { attempt: u32 },
    RunEnds { stale: bool, result: Result<Ran, PowerFault> },
    Timer { stale: Option<ErrandTimer> },
    Heard { ago_s: u64 },
    Restart,
}

fn action() -> impl Strategy<Value = PowerAction> {
    use PowerAction::{NetworkBoot, Off, On, Query};
    prop::sample::select(vec![NetworkBoot, On, Off, Query])
}

fn input() -> impl Strategy<Value = Input> {
    use FaultKind::{Auth, Busy, Fatal, Other, Unfit, Unreachable};
    let result = prop_oneof![
        3 => Just(accepted()),
        1 => Just(Ok(Ran::ByHand)),
        3 => prop::sample::select(vec![PowerState::On, PowerState::Off, PowerState::Unknown, PowerState::Error]).prop_map(state),
        3 => prop::sample::select(vec![Auth, Unfit, Fatal, Unreachable, Busy, Other]).prop_map(|kind| Err(fault(kind))),
    ];
    prop_oneof![
        3 => (1..4_u32, action(), 0..400_u64)
            .prop_map(|(attempt, action, deadline_s)| Input::Order { attempt, action, deadline_s }),
        1 => (1..4_u32).prop_map(|attempt| Input::Cancel { attempt }),
        6 => (prop::bool::weighted(0.2), result).prop_map(|(stale, result)| Input::RunEnds { stale, result }),
        4 => prop::option::weighted(0.2, prop::sample::select(vec![ErrandTimer::Deadline, ErrandTimer::Next]))
            .prop_map(|stale| Input::Timer { stale }),
        1 => (0..20_u64).prop_map(|ago_s| Input::Heard { ago_s }),
        1 => Just(Input::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_whatever_comes_in_whatever_order(inputs in prop::collection::vec(input(), 0..60)) {
        let mut bench = Bench::new();
        let (mut attempt, mut run) = (AttemptId(0), 0);
        for input in inputs {
            match input {
                Input::Order { attempt, action, deadline_s } => {
                    let mut order = order(attempt, action, 0);
                    order.deadline = bench.now + Duration::from_secs(deadline_s);
                    bench.tell(ErrandEvent::Ordered { order });
                }
                Input::Cancel { attempt } => {
                    bench.tell(ErrandEvent::Cancelled { attempt: AttemptId(attempt) });
                }
                Input::RunEnds { stale: false, result } if !bench.runs.is_empty() => {
                    bench.ends(result);
                }
                Input::RunEnds { result, .. } => {
                    let before = bench.errand.clone();
                    let old = bench.errand.progress.run.wrapping_sub(1);
                    let verdict = bench.tell(ErrandEvent::Ran { run: old, result });
                    prop_assert!(matches!(verdict, Verdict::Ignored { .. }), "a run of the past counts");
                    prop_assert_eq!(&before, &bench.errand);
                }
                Input::Timer { stale: None } if !bench.timers.is_empty() => {
                    bench.elapse();
                }
                Input::Timer { stale } => {
                    // Too early, or of an earlier phase.
                    let timer = stale.unwrap_or(ErrandTimer::Next);
                    let verdict = bench.tell(ErrandEvent::Elapsed { timer });
                    let early = bench.errand.order.as_ref().is_none_or(|o| bench.now < o.deadline);
                    prop_assert!(!early || !matches!(verdict, Verdict::Refused { .. }), "a timer is no request");
                }
                Input::Heard { ago_s } => {
                    let at = Timestamp(bench.now.0 - ago_s as i64 * 1_000_000);
                    bench.tell(ErrandEvent::Heard { at });
                }
                Input::Restart => {
                    let copy = Errand::restored(
                        bench.errand.machine, bench.errand.order.as_deref().cloned(), bench.errand.progress.clone(),
                    );
                    prop_assert_eq!(&copy, &bench.errand);
                    let resume = copy.resume(bench.now);
                    let again: Vec<_> = resume.effects.iter().filter_map(|e| match e {
                        ErrandEffect::RunPower { run, action, .. } => Some((*run, *action)),
                        _ => None,
                    }).collect();
                    prop_assert_eq!(&again, &bench.runs, "a restart runs what ran, and nothing else");
                }
            }
            prop_assert!(bench.errand.progress.attempt >= attempt, "attempts do not go back");
            prop_assert!(bench.errand.progress.run >= run, "run numbers do not go back");
            (attempt, run) = (bench.errand.progress.attempt, bench.errand.progress.run);
        }
        // Whatever happened: every order ends by its own timers, without help from outside.
        for _ in 0..1_000 {
            if bench.errand.order.is_none() {
                break;
            }
            bench.runs.clear();
            bench.elapse();
        }
        prop_assert!(bench.errand.order.is_none(), "stuck: {:?}", bench.errand.progress.phase);
    }

    #[test]
    fn one_boot_order_boots_at_most_once(repeats in 1..20_usize, cut in 0..20_usize) {
        let mut bench = Bench::new();
        let mut boots = 0;
        for i in 0..repeats {
            bench.tell(ErrandEvent::Ordered { order: order(1, PowerAction::NetworkBoot, 150 + i as u64) });
            if let Some((_, action)) = bench.runs.first().copied() {
                boots += usize::from(action == PowerAction::NetworkBoot && i <= cut);
                let result = if action == PowerAction::Query { state(PowerState::On) } else { accepted() };
                bench.ends(result);
            }
            if bench.timers.contains_key("next") {
                bench.elapse();
            }
        }
        prop_assert!(boots <= 1);
    }
}
