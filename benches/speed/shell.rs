//! Nanoseconds of one message through the shell, with what the inspector keeps of it: without and with somebody who watches all actors, and
//! with one actor's messages traced. Prints two tables.
//!
//! Hypothesis: what is kept costs some hundred nanoseconds a message, and a watcher of ten thousand actors less than 2 % of the throughput,
//! since it reads what is published and takes no actor's time.
//! A trace costs only the messages that it takes, at most a hundred: their event is copied, and with a payload said in words.
//! Run: `cargo bench -p benches --bench shell [-- SECONDS_PER_RUN]`. Runs without and with take turns, so that both see the same machine.
#![allow(clippy::unwrap_used, reason = "a bench that cannot measure says so by panicking")]

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use actors::{
    clock,
    core::{Core, Moved, RecordError, Resume, Step, TraceId, View},
    inspection,
    shell::{
        ActorRef, Arbiter, LocalBoxFuture, Perform, Registry, Row,
        inspect::{Wanted, tap},
        spawn,
    },
};
use schema::{id::Generation, messages::link::Payload, time::Timestamp};

const ACTORS: u32 = 10_000;
/// Messages that are under way at once; a mailbox holds 256.
const BATCH: usize = 20_000;
/// How often a watcher looks, and how many turns each side gets.
const LOOK: Duration = Duration::from_millis(250);
const TURNS: usize = 5;

/// Counts, or does nothing.
#[derive(Clone)]
struct Counter {
    id: u32,
    count: u64,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing,
    Count,
}

impl Core for Counter {
    const KIND: &'static str = "counter";
    type Id = u32;
    type Event = Event;
    type Effect = ();
    type Timer = u8;

    fn id(&self) -> u32 {
        self.id
    }

    fn step(&self, event: &Event, _: Timestamp) -> Step<Self> {
        match event {
            Event::Nothing => Step::ignored(""),
            Event::Count => Step::moved(Self { count: self.count + 1, ..*self }),
        }
    }

    fn resume(&self, _: Timestamp) -> Resume<Self> {
        Resume::default()
    }

    fn elapsed(_: u8) -> Event {
        Event::Nothing
    }

    fn view(&self) -> View {
        View { state: "counting".into(), wait: None, detail: serde_json::Value::Null }
    }
}

/// Hands whose records cost nothing: what is left is the shell.
#[derive(Clone)]
struct Hands;

impl Perform<Counter> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn record(&self, _: Moved<Counter>) -> LocalBoxFuture<'static, Result<(), RecordError>> {
        Box::pin(async { Ok(()) })
    }

    fn perform(&self, _: &ActorRef<Counter>, (): (), _: TraceId) {}
}

fn main() {
    let seconds: f64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1.0);
    let span = Duration::from_secs_f64(seconds);
    let (arbiter, registry) = (Arbiter::start("actors").unwrap(), Registry::default());
    let core = |id| Counter { id, count: 0 };
    let actors: Vec<_> =
        (0..ACTORS).map(|id| spawn(&arbiter.handle(), core(id), Generation(0), Hands, &registry, false)).collect();
    println!(
        "{:<44} {:>12} {:>12} {:>9} {:>9}",
        "ns a message, 10,000 actors, one thread", "no watcher", "a watcher", "ratio", "spread"
    );
    for (name, event) in [("ignored", Event::Nothing), ("moved (recorded by hands that do nothing)", Event::Count)] {
        let (mut alone, mut watched) = (Vec::new(), Vec::new());
        run(&actors, event, span / 4);
        for _ in 0..TURNS {
            alone.push(run(&actors, event, span));
            watched.push(with_watcher(&registry, || run(&actors, event, span)));
        }
        let ((a, low, high), (b, ..)) = (middle(&mut alone), middle(&mut watched));
        println!("{name:<44} {a:>12.0} {b:>12.0} {:>8.1}% {:>8.1}%", (b / a - 1.0) * 100.0, (high - low) / a * 100.0);
    }
    traces(&registry, &actors, span);
    looks(&registry);
}

/// What one look at all costs: the numbers alone, whole rows, and the rows as JSON between nodes.
fn looks(registry: &Registry) {
    let ms = |call: &mut dyn FnMut()| mean(call) / 1e6;
    let numbers = || registry.list(None).iter().map(|probe| probe.gauge()).collect::<Vec<_>>();
    println!("one look at the numbers of all 10,000: {:.2} ms", ms(&mut || drop(black_box(numbers()))));
    println!("one look at all 10,000 rows: {:.2} ms", ms(&mut || drop(black_box(inspection::rows(registry)))));
    let rows: Vec<_> = inspection::rows(registry).into_iter().take(1_000).collect();
    let text = serde_json::to_string(&rows).unwrap();
    let said = ms(&mut || drop(black_box(serde_json::to_string(&rows))));
    let heard = ms(&mut || drop(black_box(serde_json::from_str::<Vec<Row>>(&text))));
    println!("1,000 rows as JSON of {} bytes: {said:.2} ms to say, {heard:.2} ms to read", text.len());
}

/// What a trace costs each message that it takes, by how much of it is kept.
fn traces(registry: &Registry, actors: &[ActorRef<Counter>], span: Duration) {
    let actor = &actors[0];
    println!(
        "\n{:<44} {:>12} {:>12} {:>12} {:>12} {:>9}",
        "ns a message, 100 at once to one actor", "no trace", "names", "types", "redacted", "spread"
    );
    let kinds = [None, Some(Payload::None), Some(Payload::Types), Some(Payload::Redacted)];
    for (name, event) in [("ignored", Event::Nothing), ("moved (recorded by hands that do nothing)", Event::Count)] {
        let mut times = kinds.map(|_| Vec::new());
        hundreds(registry, actor, event, None, span / 4);
        for _ in 0..TURNS {
            for (kind, times) in kinds.iter().zip(&mut times) {
                times.push(hundreds(registry, actor, event, *kind, span / 2));
            }
        }
        let middles = times.map(|mut times| middle(&mut times));
        let (none, low, high) = middles[0];
        let all: String = middles.iter().map(|(time, ..)| format!(" {time:>12.0}")).collect();
        println!("{name:<44}{all} {:>8.1}%", (high - low) / none * 100.0);
    }
}

/// Nanoseconds a message, of as many as a trace takes; its begin and its end are not counted.
fn hundreds(
    registry: &Registry,
    actor: &ActorRef<Counter>,
    event: Event,
    payload: Option<Payload>,
    span: Duration,
) -> f64 {
    let (start, mut time, mut sent) = (clock::tick(), Duration::ZERO, 0_u32);
    while start.elapsed() < span {
        if let Some(payload) = payload {
            let wanted = Wanted { messages: tap::MESSAGES, seconds: tap::SECONDS, payload };
            registry.untap(1);
            registry.tap(1, "counter", &actor.id().to_string(), wanted).unwrap();
        }
        let begun = clock::tick();
        for n in 1..=tap::MESSAGES {
            actor.tell(event, TraceId(n.into())).unwrap();
        }
        while actor.probe().depth() > 0 {
            std::hint::spin_loop();
        }
        time += begun.elapsed();
        sent += tap::MESSAGES;
    }
    registry.untap(1);
    time.as_nanos() as f64 / f64::from(sent)
}

/// The median, the least and the most.
fn middle(times: &mut [f64]) -> (f64, f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0], times[times.len() - 1])
}

/// Nanoseconds of a call, over twenty.
fn mean(call: &mut dyn FnMut()) -> f64 {
    let start = clock::tick();
    for _ in 0..20 {
        call();
    }
    start.elapsed().as_nanos() as f64 / 20.0
}

/// Nanoseconds a message, from the sender's first tell to the last one's end.
fn run(actors: &[ActorRef<Counter>], event: Event, span: Duration) -> f64 {
    let (start, mut sent) = (clock::tick(), 0_u64);
    while start.elapsed() < span {
        for (n, actor) in actors.iter().cycle().take(BATCH).enumerate() {
            actor.tell(event, TraceId(n as u128 + 1)).unwrap();
        }
        sent += BATCH as u64;
        while actors.iter().any(|actor| actor.probe().depth() > 0) {
            thread::sleep(Duration::from_micros(100)); // Against a batch of some ten milliseconds.
        }
    }
    start.elapsed().as_nanos() as f64 / sent as f64
}

/// Somebody looks at everything, four times a second.
fn with_watcher(registry: &Registry, work: impl FnOnce() -> f64) -> f64 {
    let over = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (over, registry) = (over.clone(), registry.clone());
        thread::spawn(move || {
            while !over.load(Relaxed) {
                black_box(inspection::rows(&registry));
                black_box(inspection::kinds(&registry));
                thread::sleep(LOOK);
            }
        })
    };
    let time = work();
    over.store(true, Relaxed);
    watcher.join().unwrap();
    time
}
