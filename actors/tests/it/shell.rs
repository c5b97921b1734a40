//! What the shell guarantees, shown with a counter for a core and hands that can be told to fail.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use actors::{
    clock,
    core::{Core, Moved, RecordError, Resume, Step, TraceId, Verdict, View},
    shell::{ActorRef, Arbiter, AskError, Busy, LocalBoxFuture, Perform, Registry, spawn, spawn_here},
};
use schema::{
    id::Generation,
    time::Timestamp,
    wait::{OwedBy, Wait},
};
use tokio::task::LocalSet;

#[derive(Debug, Clone, PartialEq)]
struct Counter {
    count: u32,
    /// In this state a timer runs.
    armed: bool,
}

#[derive(Debug, Clone)]
enum Event {
    Add(u32),
    Arm,
    Disarm,
    Panic,
    Nothing,
    Rang,
}

impl Core for Counter {
    const KIND: &'static str = "counter";
    type Id = u32;
    type Event = Event;
    type Effect = String;
    type Timer = u8;

    fn id(&self) -> u32 {
        7
    }

    fn step(&self, event: &Event, now: Timestamp) -> Step<Self> {
        match event {
            Event::Add(n) => {
                let next = Self { count: self.count + n, ..self.clone() };
                let effect = format!("counted {}", next.count);
                Step::moved(next).with([effect])
            }
            Event::Arm => {
                let wait = Wait {
                    what: "the bell".into(),
                    owed_by: OwedBy::Region,
                    since: now,
                    deadline: now + Duration::from_secs(60),
                    evidence: Vec::new(),
                    on_timeout: "it rings".into(),
                    remedy: "wait".into(),
                };
                Step::waiting(Self { armed: true, ..self.clone() }, wait).arm(0, now + Duration::from_secs(60))
            }
            Event::Disarm => Step::moved(Self { armed: false, ..self.clone() }),
            Event::Panic => panic!("division by sheep"),
            Event::Nothing => Step::ignored("nothing to do"),
            Event::Rang => Step::moved(Self { count: self.count + 1_000, armed: false }),
        }
    }

    fn resume(&self, now: Timestamp) -> Resume<Self> {
        let step = if self.armed { self.step(&Event::Arm, now) } else { Step::ignored("") };
        Resume { effects: vec![format!("resumed {}", self.count)], timers: step.timers }
    }

    fn elapsed(_: u8) -> Event {
        Event::Rang
    }

    fn view(&self) -> View {
        let state = if self.armed { "armed" } else { "idle" };
        View { state: state.into(), wait: None, detail: serde_json::json!({ "count": self.count }) }
    }
}

/// Hands that write down what they are told, in order, and fail as asked.
#[derive(Clone, Default)]
struct Hands(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    log: Vec<String>,
    /// Answers to the next records, before `Ok`.
    failures: VecDeque<RecordError>,
    /// Each record takes that long.
    slow: Option<Duration>,
    capacity: Option<usize>,
    panic_in_hands: bool,
    clock: Option<tokio::time::Instant>,
}

impl Hands {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap()
    }

    fn log(&self) -> Vec<String> {
        self.told().log.clone()
    }
}

impl Perform<Counter> for Hands {
    fn now(&self) -> Timestamp {
        // Under a paused clock, the runtime's own time.
        match self.told().clock {
            Some(start) => Timestamp::from_seconds(0) + start.elapsed(),
            None => clock::now(),
        }
    }

    fn record(&self, moved: Moved<Counter>) -> LocalBoxFuture<'static, Result<(), RecordError>> {
        let me = self.clone();
        Box::pin(async move {
            let slow = me.told().slow;
            if let Some(slow) = slow {
                tokio::time::sleep(slow).await;
            }
            let failure = me.told().failures.pop_front();
            let result = failure.map_or(Ok(()), Err);
            let word = if result.is_ok() { "recorded" } else { "failed" };
            me.told().log.push(format!("{word} {} at {}", moved.after.count, moved.generation));
            result
        })
    }

    fn perform(&self, me: &ActorRef<Counter>, effect: String, _: TraceId) {
        assert!(!self.told().panic_in_hands, "clumsy");
        self.told().log.push(format!("performed {effect}, snapshot {}", me.snapshot().count));
    }

    fn show(&self, _: &ActorRef<Counter>, verdict: &Verdict) {
        if matches!(verdict, Verdict::Moved) {
            self.told().log.push("shown".into());
        }
    }

    fn stale(&self, _: &ActorRef<Counter>, event: Event, _: TraceId) {
        self.told().log.push(format!("left over {event:?}"));
    }

    fn capacity(&self) -> usize {
        self.told().capacity.unwrap_or(256)
    }
}

const TRACE: TraceId = TraceId(0xfeed);
const IDLE: Counter = Counter { count: 0, armed: false };

fn start(hands: &Hands) -> (ActorRef<Counter>, Registry) {
    let registry = Registry::default();
    (spawn_here(IDLE, Generation(0), hands.clone(), &registry, false), registry)
}

/// Runs on a plain paused runtime with a `LocalSet` and no actix system, as the deterministic yard does.
fn paused<F: Future<Output = ()>>(test: impl FnOnce(Hands) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let hands = Hands::default();
        hands.told().clock = Some(paused_now());
        test(hands).await;
    });
}

#[expect(clippy::disallowed_methods, reason = "the paused clock of the runtime is the test's own")]
fn paused_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[test]
fn a_step_is_recorded_then_performed_then_shown_then_answered() {
    paused(|hands| async move {
        let (actor, registry) = start(&hands);
        assert_eq!(actor.ask(Event::Add(2), TRACE).await, Ok(Verdict::Moved));
        assert_eq!(hands.log(), ["recorded 2 at 0", "performed counted 2, snapshot 2", "shown"]);
        assert_eq!((actor.snapshot().count, actor.generation()), (2, Generation(1)));
        assert!(matches!(actor.ask(Event::Nothing, TRACE).await, Ok(Verdict::Ignored { .. })));
        assert_eq!(hands.log().len(), 3, "an ignored event leaves no trace in the store");
        let steps = registry.get("counter", "7").unwrap().steps();
        let seen: Vec<_> = steps.iter().map(|s| (&*s.event, s.outcome.name(), s.trace)).collect();
        assert_eq!(seen, [("Add", "moved", TRACE), ("Nothing", "ignored", TRACE)]);
    });
}

#[test]
fn events_are_handled_one_at_a_time_while_a_record_is_slow() {
    paused(|hands| async move {
        hands.told().slow = Some(Duration::from_millis(20));
        let (actor, _) = start(&hands);
        for n in 1..=3 {
            actor.tell(Event::Add(n), TRACE).unwrap();
        }
        actor.ask(Event::Nothing, TRACE).await.unwrap();
        let order: Vec<_> = hands.log().into_iter().filter(|l| !l.starts_with("shown")).collect();
        let want = [
            "recorded 1 at 0",
            "performed counted 1, snapshot 1",
            "recorded 3 at 1",
            "performed counted 3, snapshot 3",
            "recorded 6 at 2",
            "performed counted 6, snapshot 6",
        ];
        assert_eq!(order, want);
    });
}

#[test]
fn a_full_mailbox_says_busy_and_loses_nothing_it_took() {
    paused(|hands| async move {
        hands.told().slow = Some(Duration::from_millis(5));
        hands.told().capacity = Some(4);
        let (actor, _) = start(&hands);
        let twin = actor.clone();
        let taken =
            (0..10).filter(|i| if i % 2 == 0 { &actor } else { &twin }.tell(Event::Add(1), TRACE).is_ok()).count();
        assert_eq!(taken, 4, "a clone has no slot of its own");
        assert!(matches!(actor.tell(Event::Add(1), TRACE), Err(Busy::Full { depth: 4, .. })));
        assert_eq!(actor.probe().depth(), 4);
        // An ask waits for a slot.
        actor.ask(Event::Add(1), TRACE).await.unwrap();
        assert_eq!(actor.snapshot().count, 5);
        tokio::task::yield_now().await;
        assert_eq!(actor.probe().depth(), 0);
    });
}

#[test]
fn a_mailbox_that_is_full_before_its_actor_has_started_is_full_and_not_gone() {
    paused(|hands| async move {
        let (actor, _) = start(&hands);
        // Nothing has yielded, so it has not started: actix takes a few messages by then, however many slots there are.
        let taken = (0..200).take_while(|_| actor.tell(Event::Add(1), TRACE).is_ok()).count() as u32;
        assert!((1..200).contains(&taken), "{taken}");
        let busy = actor.tell(Event::Add(1), TRACE);
        assert!(matches!(&busy, Err(Busy::Full { depth, .. }) if *depth as u32 == taken), "{busy:?}");
        assert!(!actor.is_gone());
        // An ask waits until it has started.
        actor.ask(Event::Add(1), TRACE).await.unwrap();
        assert_eq!(actor.snapshot().count, taken + 1);
        assert!(actor.tell(Event::Add(1), TRACE).is_ok());
    });
}

#[test]
fn an_ask_survives_its_caller() {
    paused(|hands| async move {
        hands.told().slow = Some(Duration::from_secs(1));
        let (actor, _) = start(&hands);
        actor.tell(Event::Add(1), TRACE).unwrap();
        let asked = tokio::time::timeout(Duration::from_millis(10), actor.ask(Event::Add(10), TRACE)).await;
        assert!(asked.is_err(), "the caller gives up while the event waits in the mailbox");
        actor.ask(Event::Nothing, TRACE).await.unwrap();
        assert_eq!(actor.snapshot().count, 11);
    });
}

#[test]
fn three_panics_in_a_row_quarantine_the_actor_and_a_release_frees_it() {
    paused(|hands| async move {
        let (actor, registry) = start(&hands);
        for _ in 0..2 {
            assert!(matches!(actor.ask(Event::Panic, TRACE).await, Ok(Verdict::Refused { .. })));
        }
        assert_eq!(actor.ask(Event::Add(1), TRACE).await, Ok(Verdict::Moved), "a good step ends the row");
        for _ in 0..3 {
            actor.ask(Event::Panic, TRACE).await.unwrap();
        }
        let Ok(Verdict::Refused { why, remedy }) = actor.ask(Event::Add(1), TRACE).await else { panic!() };
        assert!(why.contains("quarantined") && why.contains("division by sheep"), "{why}");
        assert!(!remedy.is_empty());
        assert_eq!(actor.snapshot().count, 1, "no panic changed the state");
        let shown = registry.get("counter", "7").unwrap().show();
        assert_eq!((shown.quarantine.unwrap().event.as_str(), shown.panics), ("Panic", 5));
        actor.release();
        assert_eq!(actor.ask(Event::Add(1), TRACE).await, Ok(Verdict::Moved));
    });
}

#[test]
fn hands_that_panic_do_not_take_the_actor_with_them() {
    paused(|hands| async move {
        let (actor, _) = start(&hands);
        hands.told().panic_in_hands = true;
        // The lock is poisoned by the panic inside `perform`, as real hands might leave it: clear it as they would.
        let asked = actor.ask(Event::Add(1), TRACE).await;
        hands.0.clear_poison();
        assert!(asked.is_ok());
        assert!(actor.probe().panics() >= 1);
        hands.told().panic_in_hands = false;
        assert_eq!(actor.ask(Event::Add(1), TRACE).await, Ok(Verdict::Moved));
        assert_eq!(actor.snapshot().count, 2);
    });
}

#[test]
fn a_store_that_is_away_holds_a_told_event_and_fails_an_asked_one() {
    paused(|hands| async move {
        let away = || RecordError::Unavailable("disk full".into());
        let (actor, _) = start(&hands);
        hands.told().failures.extend([away(), away(), away()]);
        actor.tell(Event::Add(1), TRACE).unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(actor.snapshot().count, 0);
        assert_eq!(actor.probe().show().held.as_deref(), Some("disk full"));
        actor.ask(Event::Nothing, TRACE).await.unwrap();
        assert_eq!((actor.snapshot().count, actor.probe().show().held), (1, None));
        hands.told().failures.push_back(away());
        let asked = actor.ask(Event::Add(1), TRACE).await;
        assert!(matches!(asked, Err(AskError::Store(RecordError::Unavailable(_)))), "{asked:?}");
        assert_eq!(actor.snapshot().count, 1, "what is not durable has not happened");
        assert_eq!(hands.log().iter().filter(|l| l.starts_with("performed")).count(), 1);
    });
}

#[test]
fn a_stale_actor_ends_and_hands_on_what_it_had_not_handled() {
    paused(|hands| async move {
        let (actor, registry) = start(&hands);
        let stale = RecordError::Stale { kind: "counter", id: "7".into(), expected: Generation(0) };
        hands.told().slow = Some(Duration::from_millis(1));
        hands.told().failures.push_back(stale);
        actor.tell(Event::Add(1), TRACE).unwrap();
        actor.tell(Event::Add(2), TRACE).unwrap();
        let asked = actor.ask(Event::Add(3), TRACE).await;
        assert!(matches!(asked, Err(AskError::Gone { .. })));
        assert!(actor.is_gone());
        assert!(matches!(actor.tell(Event::Nothing, TRACE), Err(Busy::Gone { .. })));
        assert!(registry.get("counter", "7").is_none());
        assert_eq!(hands.log(), ["failed 1 at 0", "left over Add(1)", "left over Add(2)"]);
    });
}

/// Until it has started its mailbox is small: the word to end must not be lost there, whatever waits before it.
#[test]
fn an_actor_that_has_not_started_and_is_full_ends_when_it_is_told_to() {
    paused(|hands| async move {
        let (actor, registry) = start(&hands);
        let mut told = 0;
        while actor.tell(Event::Add(1), TRACE).is_ok() {
            told += 1;
        }
        assert!(told > 0 && !actor.is_gone());
        actor.retire();
        while registry.get("counter", "7").is_some() || hands.log().len() < told {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(actor.is_gone() && hands.log().iter().all(|line| line.starts_with("left over")), "{:?}", hands.log());
    });
}

#[test]
fn a_states_timer_rings_as_an_event_and_dies_with_its_state() {
    paused(|hands| async move {
        let (actor, _) = start(&hands);
        actor.ask(Event::Arm, TRACE).await.unwrap();
        assert_eq!(actor.probe().show().timers.len(), 1);
        actor.ask(Event::Disarm, TRACE).await.unwrap();
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(actor.snapshot().count, 0, "the timer died with its state");
        actor.ask(Event::Arm, TRACE).await.unwrap();
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(actor.snapshot().count, 0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(actor.snapshot().count, 1_000);
        assert!(actor.probe().show().timers.is_empty());
    });
}

/// In the round in which an actor takes a message, its timers are looked at too: one that is due just then must not decide on the old state.
#[test]
fn a_timer_that_is_due_when_a_step_begins_to_be_recorded_rings_after_it() {
    for (event, after) in [(Event::Add(1), 1_001), (Event::Disarm, 0)] {
        paused(|hands| async move {
            let (actor, _) = start(&hands);
            actor.ask(Event::Arm, TRACE).await.unwrap();
            hands.told().slow = Some(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(60)).await;
            actor.tell(event, TRACE).unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(actor.snapshot().count, after, "{:?}", hands.log());
            assert!(!actor.snapshot().armed);
        });
    }
}

#[test]
fn a_resumed_actor_sends_its_effects_again_and_runs_its_timers() {
    paused(|hands| async move {
        let registry = Registry::default();
        let armed = Counter { count: 4, armed: true };
        let actor = spawn_here(armed, Generation(9), hands.clone(), &registry, true);
        tokio::time::sleep(Duration::from_secs(61)).await;
        let log = hands.log();
        assert_eq!(log[0], "performed resumed 4, snapshot 4");
        assert_eq!(log[1], "recorded 1004 at 9");
        assert_eq!(actor.generation(), Generation(10));
    });
}

#[test]
fn actors_on_an_arbiter_are_asked_from_other_threads() {
    let arbiter = Arbiter::start("actors").unwrap();
    let hands = Hands::default();
    let registry = Registry::default();
    let actor = spawn(&arbiter.handle(), IDLE, Generation(0), hands.clone(), &registry, false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let askers: Vec<_> = (0..8)
            .map(|_| {
                let actor = actor.clone();
                tokio::spawn(async move {
                    for _ in 0..50 {
                        actor.ask(Event::Add(1), TRACE).await.unwrap();
                    }
                })
            })
            .collect();
        for asker in askers {
            asker.await.unwrap();
        }
    });
    assert_eq!((actor.snapshot().count, actor.generation()), (400, Generation(400)));
    actor.retire();
    runtime.block_on(async {
        while registry.get("counter", "7").is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}
