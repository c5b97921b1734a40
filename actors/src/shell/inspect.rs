//! What every actor shows of itself: counters, the last 64 steps, quarantine. Read without mailboxes, so that a wedged actor can be looked at.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt::{self, Write},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use schema::{id::Generation, time::Timestamp};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::core::{TraceId, Verdict, View};

/// Steps that an actor's ring holds.
pub const RING: usize = 64;

/// One step in an actor's ring.
#[derive(Debug, Clone, Serialize)]
pub struct StepTrace {
    pub at: Timestamp,
    /// The event's name, without its content.
    #[serde(serialize_with = "text")]
    pub event: Arc<str>,
    #[serde(serialize_with = "text")]
    pub from: Arc<str>,
    #[serde(serialize_with = "text")]
    pub to: Arc<str>,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Microseconds in the mailbox.
    pub waited_us: u64,
    /// Microseconds from decision to shown, the record included.
    pub took_us: u64,
    #[serde(serialize_with = "text")]
    pub trace: TraceId,
}

/// A verdict in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub enum Outcome {
    Moved,
    Waiting(Box<str>),
    Ignored(Box<str>),
    Refused(Box<str>),
}

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

impl std::fmt::Debug for Detail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Detail")
    }
}

/// What one actor shows of itself.
#[derive(Debug)]
pub struct Probe {
    kind: &'static str,
    id: String,
    capacity: usize,
    slots: Arc<Semaphore>,
    handled: AtomicU64,
    refused: AtomicU64,
    panics: AtomicU64,
    generation: AtomicU64,
    view: ArcSwap<View>,
    /// Makes the view's detail from the published state.
    detail: ArcSwapOption<Detail>,
    ring: Mutex<VecDeque<StepTrace>>,
    timers: Mutex<Vec<(String, Timestamp)>>,
    held: ArcSwapOption<String>,
    quarantine: ArcSwapOption<Quarantine>,
}

/// An actor as pages and the API show it.
#[derive(Debug, Clone, Serialize)]
pub struct ActorView {
    pub kind: &'static str,
    pub id: String,
    pub generation: Generation,
    pub view: View,
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
    pub(super) fn new(kind: &'static str, id: String, capacity: usize, view: View, generation: Generation) -> Self {
        Self {
            kind,
            id,
            capacity,
            slots: Arc::new(Semaphore::new(capacity)),
            handled: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            generation: AtomicU64::new(generation.0),
            view: ArcSwap::from_pointee(view),
            detail: ArcSwapOption::empty(),
            ring: Mutex::default(),
            timers: Mutex::default(),
            held: ArcSwapOption::empty(),
            quarantine: ArcSwapOption::empty(),
        }
    }

    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
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
        self.handled.load(Relaxed)
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

    /// The last steps, oldest first.
    #[must_use]
    pub fn steps(&self) -> Vec<StepTrace> {
        self.ring().iter().cloned().collect()
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
            kind: self.kind,
            id: self.id.clone(),
            generation: Generation(self.generation.load(Relaxed)),
            view,
            depth: self.depth(),
            capacity: self.capacity,
            handled: self.handled(),
            refused: self.refused.load(Relaxed),
            panics: self.panics(),
            timers: self.timers.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            held: self.held.load_full().map(|why| (*why).clone()),
            quarantine: self.quarantine().map(Arc::unwrap_or_clone),
            steps: self.steps(),
        }
    }

    pub(super) fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }

    pub(super) fn publish(&self, view: Arc<View>, generation: Generation, detail: Detail) {
        self.detail.store(Some(Arc::new(detail)));
        self.generation.store(generation.0, Relaxed);
        self.view.store(view);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    pub(super) fn set_timers(&self, due: Vec<(String, Timestamp)>) {
        *self.timers.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    pub(super) fn set_quarantine(&self, quarantine: Option<Quarantine>) {
        self.quarantine.store(quarantine.map(Arc::new));
    }

    /// Sets why the step in hand is not durable; says whether that is news.
    pub(super) fn hold(&self, why: Option<&str>) -> bool {
        if why.is_none() && self.held.load().is_none() {
            return false;
        }
        self.held.swap(why.map(|w| Arc::new(w.to_owned()))).is_none()
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, VecDeque<StepTrace>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    pub(super) fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Moved => Self::Moved,
            Verdict::Waiting(wait) => Self::Waiting(wait.what.as_str().into()),
            Verdict::Ignored { why } => Self::Ignored(why.as_str().into()),
            Verdict::Refused { why, .. } => Self::Refused(why.as_str().into()),
        }
    }

    /// The verdict's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Waiting(_) => "waiting",
            Self::Ignored(_) => "ignored",
            Self::Refused(_) => "refused",
        }
    }

    /// What is waited for, or the reason; empty for a plain move.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Moved => "",
            Self::Waiting(why) | Self::Ignored(why) | Self::Refused(why) => why,
        }
    }
}

/// A step, before its words are shared.
pub(super) struct Note<'a> {
    pub(super) at: Timestamp,
    pub(super) event: String,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) outcome: Outcome,
    pub(super) waited: Duration,
    pub(super) took: Duration,
    pub(super) trace: TraceId,
}

/// All actors of a process. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By kind and id.
    probes: RwLock<HashMap<&'static str, HashMap<String, Arc<Probe>>>>,
    /// Names of events and states, once each however many rings hold them.
    words: Mutex<HashSet<Arc<str>>>,
}

impl Registry {
    /// The actor of that kind and id.
    #[must_use]
    pub fn get(&self, kind: &str, id: &str) -> Option<Arc<Probe>> {
        let probes = self.0.probes.read().unwrap_or_else(PoisonError::into_inner);
        probes.get(kind)?.get(id).cloned()
    }

    /// Every actor, or those of one kind; in no order.
    #[must_use]
    pub fn list(&self, kind: Option<&str>) -> Vec<Arc<Probe>> {
        let probes = self.0.probes.read().unwrap_or_else(PoisonError::into_inner);
        let chosen = probes.iter().filter(|(k, _)| kind.is_none_or(|kind| kind == **k));
        chosen.flat_map(|(_, probes)| probes.values().cloned()).collect()
    }

    pub(super) fn add(&self, probe: Arc<Probe>) {
        let mut probes = self.0.probes.write().unwrap_or_else(PoisonError::into_inner);
        probes.entry(probe.kind).or_default().insert(probe.id.clone(), probe);
    }

    /// Removes that very probe; the one of an actor loaded since then stays.
    pub(super) fn remove(&self, probe: &Arc<Probe>) {
        let mut probes = self.0.probes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(probes) = probes.get_mut(probe.kind)
            && probes.get(&probe.id).is_some_and(|p| Arc::ptr_eq(p, probe))
        {
            probes.remove(&probe.id);
        }
    }

    pub(super) fn note(&self, probe: &Probe, note: Note<'_>) {
        let (event, from, to) = (self.word(&note.event), self.word(note.from), self.word(note.to));
        probe.handled.fetch_add(1, Relaxed);
        let mut ring = probe.ring();
        if ring.len() == RING {
            ring.pop_front();
        }
        let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        ring.push_back(StepTrace {
            at: note.at,
            event,
            from,
            to,
            outcome: note.outcome,
            waited_us: us(note.waited),
            took_us: us(note.took),
            trace: note.trace,
        });
    }

    fn word(&self, word: &str) -> Arc<str> {
        let mut words = self.0.words.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = words.get(word) {
            return known.clone();
        }
        let new: Arc<str> = word.into();
        words.insert(new.clone());
        new
    }
}

/// The first word of an event's `Debug`: its variant. Formats no more than that.
pub(super) fn label(event: &impl fmt::Debug) -> String {
    struct FirstWord(String);
    impl Write for FirstWord {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let word = text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            self.0.push_str(word);
            if word.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut first = FirstWord(String::new());
    write!(first, "{event:?}").ok(); // The error is the end of the word.
    first.0
}

fn text<S: serde::Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
