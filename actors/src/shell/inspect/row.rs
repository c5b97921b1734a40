//! One actor as listings, findings and other nodes know it: numbers, and the few words that go with them.

use std::borrow::Cow;

use schema::{time::Timestamp, wait::Wait};
use serde::{Deserialize, Serialize};

use super::{Probe, Short};

/// An actor's numbers at one moment. Cheap: ten thousand of them are a few milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    /// Messages in the mailbox, the one in hand included.
    pub queue: usize,
    pub capacity: usize,
    /// The most that ever waited at once.
    pub high_water: usize,
    /// How long the oldest of them waits, the one in hand left out.
    pub oldest_wait_us: Option<u64>,
    /// How long it has been at the event in hand.
    pub busy_us: Option<u64>,
    /// The event in hand is decided, and its record is being written.
    pub recording: bool,
    pub handled: u64,
    /// `tell`s that found the mailbox full.
    pub refused: u64,
    pub panics: u64,
    /// Messages a second, over those that the ring still holds of the last ten seconds.
    pub rate: f64,
    pub wait_us: Short,
    pub handle_us: Short,
    pub last_at: Option<Timestamp>,
    /// The soonest of its timers.
    pub timer_due: Option<Timestamp>,
}

/// An actor in a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub kind: Cow<'static, str>,
    pub id: String,
    /// What stands above it on its node: KIND/ID, or its kind.
    #[serde(default)]
    pub parent: Cow<'static, str>,
    pub state: String,
    /// What it waits for.
    pub wait: Option<Wait>,
    #[serde(flatten)]
    pub gauge: Gauge,
    /// The event in hand.
    pub current: Option<String>,
    /// Since when it decides no more, and why.
    pub quarantine: Option<(Timestamp, String)>,
    /// Why the step in hand is not durable.
    pub held: Option<String>,
}

impl Row {
    /// One word for how it is.
    #[must_use]
    pub fn status(&self) -> &'static str {
        status(&self.gauge, self.quarantine.is_some(), self.held.is_some())
    }
}

/// How an actor is: `quarantined`, `held`, `blocked`, `slow`, `waiting` (messages wait), `busy` or `idle`.
pub(super) fn status(gauge: &Gauge, quarantined: bool, held: bool) -> &'static str {
    let long = |us: Option<u64>, limit: u64| us.is_some_and(|us| us >= limit);
    match gauge {
        _ if quarantined => "quarantined",
        _ if held => "held",
        g if long(g.busy_us, super::BLOCKED_US) && !g.recording => "blocked",
        g if long(g.busy_us, super::BLOCKED_US) || long(g.oldest_wait_us, super::SLOW_US) => "slow",
        g if g.oldest_wait_us.is_some() => "waiting",
        g if g.busy_us.is_some() => "busy",
        _ => "idle",
    }
}

impl Probe {
    /// Its row.
    #[must_use]
    pub fn row(&self) -> Row {
        let view = self.view();
        let (gauge, current) = self.gauge_and_current();
        Row {
            kind: Cow::Borrowed(self.kind()),
            id: self.id().to_owned(),
            parent: Cow::Borrowed(self.parent()),
            state: view.state.clone(),
            wait: view.wait.clone(),
            gauge,
            current,
            quarantine: self.quarantine().map(|q| (q.at, q.why.clone())),
            held: self.held().map(|why| (*why).clone()),
        }
    }

    /// Its numbers alone.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        self.gauge_and_current().0
    }

    /// One word for how it is, as [`Row::status`].
    #[must_use]
    pub fn status(&self) -> &'static str {
        status(&self.gauge(), self.quarantine().is_some(), self.held().is_some())
    }
}
