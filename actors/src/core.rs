//! The contract of a core: `step(&self, &event, now) -> Step`, and of the hands that carry its effects out. Nothing here runs anything.
//!
//! The shell's order is fixed: decide, record, perform, show. No effect leaves before its cause is durable.

use std::{fmt, hash::Hash, str::FromStr, sync::Arc};

use schema::{
    id::{AttemptId, Generation, SystemId},
    time::Timestamp,
    wait::Wait,
};
use serde::Serialize;
use sha2::Digest;

/// A value that decides. It reads no clock, no socket, no table and no die.
pub trait Core: Clone + Send + Sync + 'static {
    /// The actor's kind in the journal, the inspector and the logs: "machine", "rack", "subnet", …
    const KIND: &'static str;
    /// KIND/ID of the actor above it on its node, which it ends with; empty where there is none.
    const PARENT: &'static str = "";
    type Id: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static;
    type Event: Clone + fmt::Debug + Send + Sync + 'static;
    type Effect: Clone + fmt::Debug + Send + Sync + 'static;
    type Timer: Copy + Eq + Hash + fmt::Debug + Send + 'static;

    /// Which one it is.
    fn id(&self) -> Self::Id;

    /// The decision.
    fn step(&self, event: &Self::Event, now: Timestamp) -> Step<Self>;

    /// After a restart: the effects that may have been lost and the timers that must run again. Changes nothing.
    fn resume(&self, now: Timestamp) -> Resume<Self>;

    /// The event that an elapsed timer comes back as.
    fn elapsed(timer: Self::Timer) -> Self::Event;

    /// What it shows of itself. Holds no secret.
    fn view(&self) -> View;

    /// The trace of what it is at, for events that bring none: timers after a restart, reports of a rack that knows of none.
    fn trace(&self) -> TraceId {
        TraceId::default()
    }

    /// The state as JSON, for whoever looks into the actor. Made only then: ten thousand states as JSON trees would be most of a
    /// region's memory. A view that brings a detail of its own is shown with that.
    fn detail(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// A decision: the state after, what to do, and why.
#[derive(Debug, Clone)]
pub struct Step<C: Core> {
    /// The state after; `None` when nothing changed.
    pub next: Option<C>,
    /// Carried out in order, after the record is durable. Empty when nothing changed.
    pub effects: Vec<C::Effect>,
    pub timers: Vec<TimerOp<C::Timer>>,
    pub verdict: Verdict,
}

/// What [`Core::resume`] asks for.
#[derive(Debug, Clone)]
pub struct Resume<C: Core> {
    pub effects: Vec<C::Effect>,
    pub timers: Vec<TimerOp<C::Timer>>,
}

impl<C: Core> Default for Resume<C> {
    fn default() -> Self {
        Self { effects: Vec::new(), timers: Vec::new() }
    }
}

/// A change of an actor's timers. All timers end when [`View::state`] changes; those of the same step are set after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerOp<T> {
    /// Sets the timer, or moves it.
    Arm {
        timer: T,
        at: Timestamp,
    },
    Cancel {
        timer: T,
    },
}

/// Why a step ended as it did. Every step has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The state changed and expects nothing.
    Moved,
    /// The state changed, or stays, and expects something.
    Waiting(Wait),
    /// Nothing to do, and that is right: a repeat, a latecomer, another attempt's.
    Ignored { why: String },
    /// Asked for what cannot be done now.
    Refused { why: String, remedy: String },
}

impl<C: Core> Step<C> {
    /// The state becomes `next`.
    pub fn moved(next: C) -> Self {
        Self { next: Some(next), effects: Vec::new(), timers: Vec::new(), verdict: Verdict::Moved }
    }

    /// The state becomes `next` and expects something.
    pub fn waiting(next: C, wait: Wait) -> Self {
        Self { next: Some(next), effects: Vec::new(), timers: Vec::new(), verdict: Verdict::Waiting(wait) }
    }

    /// Nothing changes, for that reason.
    pub fn ignored(why: impl Into<String>) -> Self {
        Self { next: None, effects: Vec::new(), timers: Vec::new(), verdict: Verdict::Ignored { why: why.into() } }
    }

    /// Refused, for that reason and with that way out.
    pub fn refused(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        let verdict = Verdict::Refused { why: why.into(), remedy: remedy.into() };
        Self { next: None, effects: Vec::new(), timers: Vec::new(), verdict }
    }

    /// With these effects after those it has.
    #[must_use]
    pub fn with(mut self, effects: impl IntoIterator<Item = C::Effect>) -> Self {
        self.effects.extend(effects);
        self
    }

    /// With that timer set.
    #[must_use]
    pub fn arm(mut self, timer: C::Timer, at: Timestamp) -> Self {
        self.timers.push(TimerOp::Arm { timer, at });
        self
    }
}

/// What an actor shows of itself, published after every step and read without its mailbox.
#[derive(Debug, Clone, Default, Serialize)]
pub struct View {
    /// The state's name; when it changes, the state's timers end.
    pub state: String,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// The state as JSON, secrets left out by type; null until it is shown where the core makes it on demand.
    pub detail: serde_json::Value,
}

/// A W3C trace id (16 bytes); 0 is none. One runs from an API call to Ready, across the link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl TraceId {
    /// The trace of one attempt at one machine. Reckoned from their names, so that region and racks know it alike, after restarts
    /// too, and nobody has to be told.
    #[must_use]
    pub fn of_attempt(machine: SystemId, attempt: AttemptId) -> Self {
        let name = format!("hostler attempt {machine} {attempt}");
        let digest: [u8; 32] = sha2::Sha256::digest(name.as_bytes()).into();
        let (head, _) = digest.split_at(16);
        Self(head.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }

    /// This trace, or `other` where it is none.
    #[must_use]
    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::default() { other() } else { self }
    }
}

impl FromStr for TraceId {
    type Err = String;

    /// 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| "a trace id has 32 hexadecimal digits".into())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A step that moved, as the hands make it durable.
#[derive(Debug, Clone)]
pub struct Moved<C: Core> {
    pub id: C::Id,
    pub before: Arc<C>,
    pub after: Arc<C>,
    pub event: C::Event,
    pub effects: Arc<Vec<C::Effect>>,
    /// The generation the row has before this step; the write fails when the stored one differs.
    pub generation: Generation,
    pub trace: TraceId,
    pub at: Timestamp,
}

/// Why a step could not be made durable. The shell then keeps the old state, performs nothing, and says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another writer moved this actor on; the shell drops the actor, so that the next use loads it anew.
    #[error("{kind} {id} was changed by another region (generation {expected} expected)")]
    Stale { kind: &'static str, id: String, expected: Generation },
    /// The store cannot write now.
    #[error("the store cannot write: {0}")]
    Unavailable(String),
}
