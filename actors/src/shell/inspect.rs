//! What every actor shows of itself: counters, mailbox, the last steps, quarantine. Read without mailboxes, so that a wedged actor can be
//! looked at. Nothing here holds an event's content.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use schema::{id::Generation, time::Timestamp};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::{
    clock,
    core::{TraceId, View},
};

mod losses;
mod registry;
mod row;
mod source;
mod step;
mod tally;
pub mod tap;

pub(super) use self::registry::Note;
pub use self::{
    losses::{DeadLetter, Restart},
    registry::Registry,
    row::{Gauge, Row},
    source::Source,
    step::{Outcome, StepTrace},
    tally::{BUCKETS, EventTally, Histogram, KindTally, Short, Spread},
    tap::{Tap, TapRefusal, Tapped, Wanted},
};

/// Steps that an actor's ring holds.
pub const RING: usize = 32;
/// Changes of state that are kept beside them: a machine's heartbeats must not push them out.
pub const TRANSITIONS: usize = 32;
/// An actor that is at one event for so long is blocked.
pub(super) const BLOCKED_US: u64 = 1_000_000;
/// A message that waits for so long waits too long.
pub(super) const SLOW_US: u64 = 250_000;
/// Rates are reckoned over so many seconds.
const RATE_S: u64 = 10;

/// Why an actor decides no more.
#[derive(Debug, Clone, Serialize)]
pub struct Quarantine {
    pub at: Timestamp,
    /// The event that did it, in full.
    pub event: String,
    pub why: String,
}

/// The published state as JSON, on demand.
pub(super) struct Detail(pub(super) Box<dyn Fn() -> serde_json::Value + Send + Sync>);

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Detail")
    }
}

/// What one actor shows of itself.
#[derive(Debug)]
pub struct Probe {
    id: String,
    capacity: usize,
    started: Timestamp,
    slots: Arc<Semaphore>,
    refused: AtomicU64,
    panics: AtomicU64,
    generation: AtomicU64,
    high_water: AtomicUsize,
    wait: Histogram,
    handle: Histogram,
    /// What all actors of its kind share.
    tally: Arc<KindTally>,
    view: ArcSwap<View>,
    /// When the view was published.
    view_at: ArcSwap<Instant>,
    /// Makes the view's detail from the published state.
    detail: ArcSwapOption<Detail>,
    desk: Mutex<Desk>,
    timers: Mutex<Vec<(String, Timestamp)>>,
    held: ArcSwapOption<String>,
    quarantine: ArcSwapOption<Quarantine>,
}

/// What changes with each message; held for some nanoseconds at a time, never while an actor decides.
#[derive(Debug, Default)]
struct Desk {
    waiting: VecDeque<Waiting>,
    current: Option<Current>,
    handled: u64,
    steps: VecDeque<StepTrace>,
    transitions: VecDeque<StepTrace>,
    /// Who traces its messages.
    tap: Option<Arc<Tap>>,
}

/// A message in the mailbox, without its content.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub event: Arc<str>,
    pub sender: Source,
    pub trace: TraceId,
    pub since: Instant,
}

/// The message in hand.
#[derive(Debug, Clone)]
pub struct Current {
    pub event: Arc<str>,
    pub sender: Source,
    pub trace: TraceId,
    pub since: Instant,
    /// It is decided, and the record is being written.
    pub recording: bool,
}

/// An actor as pages and the API show it.
#[derive(Debug, Clone, Serialize)]
pub struct ActorView {
    pub kind: &'static str,
    pub id: String,
    pub generation: Generation,
    pub started: Timestamp,
    pub view: View,
    /// How old the view is.
    pub view_age_ms: u64,
    /// Messages in the mailbox, the one in hand included.
    pub depth: usize,
    pub capacity: usize,
    pub handled: u64,
    /// `tell`s that found the mailbox full.
    pub refused: u64,
    pub panics: u64,
    pub timers: Vec<(String, Timestamp)>,
    /// Why the present step is not durable yet.
    pub held: Option<String>,
    pub quarantine: Option<Quarantine>,
    /// Oldest first.
    pub steps: Vec<StepTrace>,
}

impl Probe {
    pub(super) fn new(
        tally: Arc<KindTally>,
        id: String,
        capacity: usize,
        view: View,
        generation: Generation,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            capacity,
            started: now,
            slots: Arc::new(Semaphore::new(capacity)),
            refused: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            generation: AtomicU64::new(generation.0),
            high_water: AtomicUsize::new(0),
            wait: Histogram::default(),
            handle: Histogram::default(),
            tally,
            view: ArcSwap::from_pointee(view),
            view_at: ArcSwap::from_pointee(clock::tick()),
            detail: ArcSwapOption::empty(),
            desk: Mutex::default(),
            timers: Mutex::default(),
            held: ArcSwapOption::empty(),
            quarantine: ArcSwapOption::empty(),
        }
    }

    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.tally.kind
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What stands above it on its node: an actor, KIND/ID, or the branch of its kind.
    #[must_use]
    pub fn parent(&self) -> &'static str {
        if self.tally.parent.is_empty() { self.tally.kind } else { self.tally.parent }
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Messages in the mailbox, the one in hand included.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.capacity - self.slots.available_permits().min(self.capacity)
    }

    /// Steps that ended.
    #[must_use]
    pub fn handled(&self) -> u64 {
        self.desk().handled
    }

    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Relaxed)
    }

    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    #[must_use]
    pub fn quarantine(&self) -> Option<Arc<Quarantine>> {
        self.quarantine.load_full()
    }

    /// Why the step in hand is not durable.
    #[must_use]
    pub fn held(&self) -> Option<Arc<String>> {
        self.held.load_full()
    }

    /// The last steps, oldest first.
    #[must_use]
    pub fn steps(&self) -> Vec<StepTrace> {
        self.desk().steps.iter().cloned().collect()
    }

    /// The last changes of state, oldest first.
    #[must_use]
    pub fn transitions(&self) -> Vec<StepTrace> {
        self.desk().transitions.iter().cloned().collect()
    }

    /// What waits in the mailbox, oldest first; at most that many.
    #[must_use]
    pub fn waiting(&self, most: usize) -> Vec<Waiting> {
        self.desk().waiting.iter().take(most).cloned().collect()
    }

    /// What waits in the mailbox, by the events' names.
    #[must_use]
    pub fn waiting_by_event(&self) -> Vec<(Arc<str>, usize)> {
        let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
        self.desk().waiting.iter().for_each(|w| *counts.entry(w.event.clone()).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        counts
    }

    /// The message in hand.
    #[must_use]
    pub fn current(&self) -> Option<Current> {
        self.desk().current.clone()
    }

    /// Its timers, soonest first.
    #[must_use]
    pub fn timers(&self) -> Vec<(String, Timestamp)> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Time in the mailbox, and time at work, over all its messages.
    #[must_use]
    pub fn spreads(&self) -> (Spread, Spread) {
        (self.wait.spread(), self.handle.spread())
    }

    /// Everything, for a page.
    #[must_use]
    pub fn show(&self) -> ActorView {
        let mut view = View::clone(&self.view.load());
        if view.detail.is_null()
            && let Some(detail) = self.detail.load_full()
        {
            view.detail = (detail.0)();
        }
        ActorView {
            kind: self.kind(),
            id: self.id.clone(),
            generation: Generation(self.generation.load(Relaxed)),
            started: self.started,
            view,
            view_age_ms: millis(since(**self.view_at.load())),
            depth: self.depth(),
            capacity: self.capacity,
            handled: self.handled(),
            refused: self.refused.load(Relaxed),
            panics: self.panics(),
            timers: self.timers(),
            held: self.held().map(|why| (*why).clone()),
            quarantine: self.quarantine().map(Arc::unwrap_or_clone),
            steps: self.steps(),
        }
    }

    fn gauge_and_current(&self) -> (Gauge, Option<String>) {
        let (timer_due, now) =
            (self.timers.lock().unwrap_or_else(PoisonError::into_inner).first().map(|t| t.1), clock::tick());
        let desk = self.desk();
        let last = desk.steps.back().map(|s| s.at);
        let ago = |at: Instant| micros(now.saturating_duration_since(at));
        let gauge = Gauge {
            queue: self.depth(),
            capacity: self.capacity,
            high_water: self.high_water.load(Relaxed),
            oldest_wait_us: desk.waiting.front().map(|w| ago(w.since)),
            busy_us: desk.current.as_ref().map(|c| ago(c.since)),
            recording: desk.current.as_ref().is_some_and(|c| c.recording),
            handled: desk.handled,
            refused: self.refused.load(Relaxed),
            panics: self.panics(),
            rate: rate(&desk.steps),
            wait_us: self.wait.short(),
            handle_us: self.handle.short(),
            last_at: last,
            timer_due,
        };
        (gauge, desk.current.as_ref().map(|c| c.event.to_string()))
    }

    pub(super) fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }

    pub(super) fn tally(&self) -> &Arc<KindTally> {
        &self.tally
    }

    pub(super) fn publish(&self, view: Arc<View>, generation: Generation, detail: Detail) {
        self.detail.store(Some(Arc::new(detail)));
        self.generation.store(generation.0, Relaxed);
        self.view.store(view);
        self.view_at.store(Arc::new(clock::tick()));
    }

    /// Posts a message while it is put down: so both are in the same order.
    pub(super) fn posting<E>(&self, waiting: Waiting, post: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut desk = self.desk();
        post()?;
        desk.waiting.push_back(waiting);
        self.high_water.fetch_max(desk.waiting.len(), Relaxed);
        Ok(())
    }

    /// The oldest message is taken in hand.
    pub(super) fn taken(&self) -> Source {
        self.desk().waiting.pop_front().map_or_else(Source::present, |w| w.sender)
    }

    pub(super) fn begun(&self, current: Current) {
        self.desk().current = Some(current);
    }

    pub(super) fn recording(&self) {
        if let Some(current) = &mut self.desk().current {
            current.recording = true;
        }
    }

    /// The message in hand was put down without a step.
    pub(super) fn put_down(&self) {
        self.desk().current = None;
    }

    /// A message found the mailbox full.
    pub(super) fn refused(&self, event: Arc<str>, trace: TraceId) {
        self.refused.fetch_add(1, Relaxed);
        self.tally.lost(&self.id, event, trace, self.depth());
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    /// It did not go on as it was.
    pub(super) fn restarted(&self, reason: &'static str, why: &str) {
        let (at, kind, id, why) = (clock::now(), self.kind(), self.id.clone(), why.to_owned());
        self.tally.restarted(Restart { at, kind, id, reason, why, count: 1 });
    }

    /// That trace is over.
    pub(super) fn untap(&self, tap: &Tap) {
        let mut desk = self.desk();
        if desk.tap.as_ref().is_some_and(|own| std::ptr::eq(&**own, tap)) {
            desk.tap = None;
        }
    }

    pub(super) fn set_timers(&self, due: Vec<(String, Timestamp)>) {
        *self.timers.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    pub(super) fn set_quarantine(&self, quarantine: Option<Quarantine>) {
        match &quarantine {
            Some(quarantine) => {
                self.tally.quarantined.fetch_add(1, Relaxed);
                self.restarted("quarantined", &quarantine.why);
            }
            None if self.quarantine.load().is_some() => self.restarted("released", ""),
            None => {}
        }
        self.quarantine.store(quarantine.map(Arc::new));
    }

    /// Sets why the step in hand is not durable; says whether that is news.
    pub(super) fn hold(&self, why: Option<&str>) -> bool {
        if why.is_none() && self.held.load().is_none() {
            return false;
        }
        self.held.swap(why.map(|w| Arc::new(w.to_owned()))).is_none()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn since(at: Instant) -> Duration {
    clock::tick().saturating_duration_since(at)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Messages a second over the last ten seconds before the last one. A ring that is full of younger ones says a shorter span.
fn rate(steps: &VecDeque<StepTrace>) -> f64 {
    let Some(last) = steps.back() else { return 0.0 };
    let span = Duration::from_secs(RATE_S);
    let young = steps.iter().rev().take_while(|s| last.at.since(s.at) <= span);
    let (mut count, mut first) = (0_u32, last.at);
    for step in young {
        (count, first) = (count + 1, step.at);
    }
    let whole = steps.len() < RING || (count as usize) < steps.len();
    let seconds = if whole { span.as_secs_f64() } else { last.at.since(first).as_secs_f64().max(0.001) };
    f64::from(count) / seconds
}

fn text<S: serde::Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
