//! What the inspector sees of actors that are blocked, flooded, or told by others: real actors on threads of their own.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use actors::{
    clock,
    core::{Core, Moved, RecordError, Resume, Step, TraceId, View},
    findings, inspection,
    shell::{ActorRef, Arbiter, LocalBoxFuture, Perform, Registry, Source, spawn},
};
use schema::{
    id::Generation,
    messages::link::{InspectAsk, Payload},
    time::Timestamp,
};
use serde_json::Value;

/// Holds whoever passes, until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Decides as slowly as its gate lets it.
#[derive(Clone)]
struct Stubborn {
    name: &'static str,
    gate: Gate,
    count: u32,
}

#[derive(Debug, Clone)]
enum Event {
    Block,
    /// Tell the friend.
    Pass,
    Count,
}

impl Core for Stubborn {
    const KIND: &'static str = "stubborn";
    type Id = &'static str;
    type Event = Event;
    type Effect = ();
    type Timer = u8;

    fn id(&self) -> &'static str {
        self.name
    }

    fn step(&self, event: &Event, _: Timestamp) -> Step<Self> {
        match event {
            Event::Block => {
                self.gate.pass();
                Step::ignored("the gate is open")
            }
            Event::Pass => Step::moved(Self { count: self.count + 1, ..self.clone() }).with([()]),
            Event::Count => Step::moved(Self { count: self.count + 1, ..self.clone() }),
        }
    }

    fn resume(&self, _: Timestamp) -> Resume<Self> {
        Resume::default()
    }

    fn elapsed(_: u8) -> Event {
        Event::Count
    }

    fn view(&self) -> View {
        View { state: format!("at {}", self.count), wait: None, detail: Value::Null }
    }

    fn trace(&self) -> TraceId {
        TraceId(0xabc)
    }

    fn detail(&self) -> Value {
        serde_json::json!({ "count": self.count })
    }
}

#[derive(Clone, Default)]
struct Hands {
    friend: Option<ActorRef<Stubborn>>,
    capacity: Option<usize>,
}

impl Perform<Stubborn> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn record(&self, _: Moved<Stubborn>) -> LocalBoxFuture<'static, Result<(), RecordError>> {
        Box::pin(async { Ok(()) })
    }

    fn perform(&self, _: &ActorRef<Stubborn>, (): (), trace: TraceId) {
        if let Some(friend) = &self.friend {
            friend.tell(Event::Count, trace).unwrap();
        }
    }

    fn capacity(&self) -> usize {
        self.capacity.unwrap_or(256)
    }
}

/// Opens its gate in any case: a test that fails must not wait for its own actor.
struct Opener(Gate);

impl Opener {
    fn open(&self) {
        self.0.open();
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn start(name: &'static str, hands: Hands, registry: &Registry, arbiter: &Arbiter) -> (ActorRef<Stubborn>, Opener) {
    let gate = Gate::default();
    let core = Stubborn { name, gate: gate.clone(), count: 0 };
    (spawn(&arbiter.handle(), core, Generation(0), hands, registry, false), Opener(gate))
}

/// Waits for what must come, for as long as a loaded machine may take.
fn until(what: &str, mut seen: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if seen() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not come");
}

#[test]
fn a_blocked_actor_is_shown_with_what_it_is_at_and_since_when() {
    let (registry, arbiter) = (Registry::default(), Arbiter::start("blocked").unwrap());
    let (actor, gate) = start("a", Hands::default(), &registry, &arbiter);
    let (behind, _) = start("b", Hands::default(), &registry, &arbiter);
    let before = clock::now();
    actor.tell(Event::Block, TraceId(7)).unwrap();
    // Before that, the other one might still be served.
    until("the block", || actor.probe().current().is_some());
    for _ in 0..3 {
        behind.tell(Event::Count, TraceId::default()).unwrap();
    }
    let probe = registry.get("stubborn", "a").unwrap();
    until("the blocked actor", || probe.status() == "blocked");
    let shown = inspection::one(&probe);
    assert_eq!(
        (shown["busy"]["event"].as_str(), shown["status"].as_str()),
        (Some("Block"), Some("blocked")),
        "{shown}"
    );
    assert_eq!(
        (shown["busy"]["trace"].as_str(), shown["busy"]["sender"].as_str()),
        (Some(&*TraceId(7).to_string()), Some("outside"))
    );
    let since = Timestamp::parse_rfc3339(shown["busy"]["since"].as_str().unwrap()).unwrap();
    assert!(since >= before - Duration::from_secs(1) && since <= clock::now(), "{since}");
    assert_eq!(shown["state"]["view"]["count"], 0, "the state before is there");
    until("findings", || {
        let found =
            |id: &str| findings::of_actor("n/stubborn/x", &registry.get("stubborn", id).unwrap().row(), clock::now());
        let ids = |id: &str| found(id).into_iter().map(|f| f.id).collect::<Vec<_>>();
        ids("a") == ["actor.blocked"] && ids("b") == ["actor.behind"]
    });
    let waiting = inspection::one(&registry.get("stubborn", "b").unwrap());
    assert_eq!(
        (waiting["mailbox"]["len"].as_u64(), waiting["mailbox"]["by_event"]["Count"].as_u64()),
        (Some(3), Some(3))
    );
    gate.open();
    until("the end of the wait", || behind.probe().handled() == 3 && probe.status() == "idle");
    assert_eq!(inspection::one(&probe)["busy"], Value::Null);
}

#[test]
fn a_flooded_mailbox_is_found_at_once_with_who_floods_it() {
    let (registry, arbiter) = (Registry::default(), Arbiter::start("flooded").unwrap());
    let (actor, gate) = start("a", Hands { capacity: Some(40), ..Hands::default() }, &registry, &arbiter);
    actor.tell(Event::Block, TraceId::default()).unwrap();
    until("the block", || actor.probe().current().is_some());
    Source::new("api", "").within(|| while actor.tell(Event::Count, TraceId::default()).is_ok() {});
    let row = actor.probe().row();
    let found = findings::of_actor("n/stubborn/a", &row, clock::now());
    assert_eq!(found.first().map(|f| f.id.as_str()), Some("actor.flooded"), "{found:?}");
    assert_eq!((row.gauge.queue, row.gauge.refused), (40, 1));
    let mailbox = inspection::mailbox(actor.probe(), 5);
    assert_eq!(mailbox["waiting"].as_array().unwrap().len(), 5);
    assert_eq!(mailbox["waiting"][4]["sender"], "api");
    gate.open();
    until("the flood's end", || actor.probe().depth() == 0);
    let kinds = inspection::kinds(&registry);
    assert_eq!(
        (kinds[0]["senders"]["api"].as_u64(), kinds[0]["undelivered"].as_u64()),
        (Some(39), Some(1)),
        "{kinds:?}"
    );
}

#[test]
fn a_message_says_which_actor_sent_it_and_keeps_its_trace() {
    let (registry, arbiter) = (Registry::default(), Arbiter::start("senders").unwrap());
    let (friend, _) = start("friend", Hands::default(), &registry, &arbiter);
    let (actor, _) = start("a", Hands { friend: Some(friend.clone()), ..Hands::default() }, &registry, &arbiter);
    actor.tell(Event::Pass, TraceId(7)).unwrap();
    until("the friend's step", || friend.probe().handled() == 1);
    friend.tell(Event::Count, TraceId::default()).unwrap();
    until("the friend's second step", || friend.probe().handled() == 2);
    let steps = friend.probe().transitions();
    let seen: Vec<_> = steps.iter().map(|s| (s.sender.to_string(), s.trace, &*s.from, &*s.to)).collect();
    assert_eq!(
        seen,
        [("stubborn/a".to_owned(), TraceId(7), "at 0", "at 1"), ("outside".to_owned(), TraceId(0xabc), "at 1", "at 2"),]
    );
    let path = inspection::traced(&registry, TraceId(7));
    let actors: Vec<_> = path.iter().map(|s| (s["actor"].as_str().unwrap(), s["event"].as_str().unwrap())).collect();
    assert_eq!(actors.len(), 2);
    assert!(actors.contains(&("stubborn/a", "Pass")) && actors.contains(&("stubborn/friend", "Count")), "{actors:?}");
}

#[test]
fn rings_and_answers_are_bounded() {
    let (registry, arbiter) = (Registry::default(), Arbiter::start("bounds").unwrap());
    let names: Vec<&'static str> = (0..8_000).map(|n| &*Box::leak(format!("actor-{n:04}").into_boxed_str())).collect();
    let actors: Vec<_> = names.iter().map(|name| start(name, Hands::default(), &registry, &arbiter).0).collect();
    for _ in 0..100 {
        actors[0].tell(Event::Count, TraceId(9)).unwrap();
    }
    until("the steps", || actors[0].probe().handled() == 100);
    let probe = actors[0].probe();
    assert_eq!((probe.steps().len(), probe.transitions().len()), (32, 32));
    assert_eq!(probe.steps().last().map(|s| s.seq), Some(100));
    let (json, left_off) = inspection::answer(&registry, &InspectAsk::Actors);
    let rows: Vec<actors::shell::Row> = serde_json::from_str(&json).unwrap();
    assert!(json.len() <= inspection::LONGEST);
    assert_eq!(rows.len() + left_off as usize, 8_000);
    assert!(left_off > 0, "the bound is what is tested");
    let (one, _) = inspection::answer(&registry, &InspectAsk::Actor { kind: "stubborn".into(), id: "nobody".into() });
    assert_eq!(one, "null");
}

fn answered(registry: &Registry, ask: &InspectAsk) -> Value {
    serde_json::from_str(&inspection::answer(registry, ask).0).unwrap()
}

#[test]
fn a_nodes_message_traces_are_few_and_end_with_their_actor_or_by_a_word() {
    let (registry, arbiter) = (Registry::default(), Arbiter::start("taps").unwrap());
    let names = ["a", "b", "c", "d", "e"];
    let actors = names.map(|name| start(name, Hands::default(), &registry, &arbiter).0);
    let tap = |number: u64, id: &str, messages| {
        let (kind, id, seconds, payload) = ("stubborn".to_owned(), id.to_owned(), 60, Payload::Redacted);
        answered(&registry, &InspectAsk::Tap { number, kind, id, messages, seconds, payload })
    };
    let held = |number, after| answered(&registry, &InspectAsk::Tapped { number, after });
    assert_eq!(tap(9, "nobody", 1)["Err"], "Asleep");
    for (number, name) in (0..).zip(&names[..4]) {
        assert_eq!(tap(number, name, 2), serde_json::json!({ "Ok": null }));
    }
    assert_eq!((tap(9, "a", 1)["Err"].as_str(), tap(9, "e", 1)["Err"].as_str()), (Some("Taken"), Some("Full")));
    for _ in 0..3 {
        actors[0].tell(Event::Count, TraceId(5)).unwrap();
    }
    until("both messages", || held(0, 0)["messages"].as_array().unwrap().len() == 2);
    let second = held(0, 1);
    assert_eq!(
        (second["messages"][0]["seq"].as_u64(), second["messages"][0]["payload"].as_str()),
        (Some(2), Some("Count"))
    );
    assert!(second["end"].as_str().unwrap().contains("as many messages"), "{second}");
    // One that has ended makes room; the actor can be traced again.
    assert_eq!(tap(10, "a", 1), serde_json::json!({ "Ok": null }));
    assert_eq!(held(0, 0), Value::Null, "the place of the one that ended is taken");
    actors[1].retire();
    until("the end with the actor", || {
        held(1, 0)["end"].as_str().is_some_and(|end| end.contains("the actor has ended"))
    });
    assert_eq!(answered(&registry, &InspectAsk::Untap { number: 2 }), true);
    assert_eq!((held(2, 0), answered(&registry, &InspectAsk::Untap { number: 2 })), (Value::Null, false.into()));
    assert_eq!(held(3, 0), serde_json::json!({ "messages": [], "end": null }), "the others go on");
    let restarts = answered(&registry, &InspectAsk::Restarts);
    assert_eq!(
        (restarts[0]["actor"].as_str(), restarts[0]["reason"].as_str()),
        (Some("stubborn/b"), Some("overtaken"))
    );
    assert_eq!(answered(&registry, &InspectAsk::DeadLetters), serde_json::json!([]));
}

#[test]
fn the_newest_log_lines_fit_into_the_bytes_that_were_asked_for() {
    (0..3).for_each(|n| actors::tail::keep(format!("line \"{n}\"\n").as_bytes()));
    let registry = Registry::default();
    let log = |lines, bytes| {
        let (json, left_off) = inspection::answer(&registry, &InspectAsk::Log { lines, bytes });
        assert!(json.len() <= (bytes as usize).max(2), "{json}");
        (serde_json::from_str::<Vec<String>>(&json).unwrap(), left_off)
    };
    let all = ["line \"0\"", "line \"1\"", "line \"2\""].map(str::to_owned);
    assert_eq!(log(3, 1_000), (all.to_vec(), 0));
    // A line takes 13 bytes with its quotes and the comma.
    assert_eq!(log(3, 30), (all[1..].to_vec(), 1));
    assert_eq!(log(3, 14), (Vec::new(), 3));
    assert_eq!(log(1, u32::MAX), (all[2..].to_vec(), 0));
    assert_eq!(log(0, 0), (Vec::new(), 0));
}
