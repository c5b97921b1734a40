//! One actor as listings, findings and other nodes know it: numbers, and the few words that go with them.
//! Between nodes a row is short JSON: what is nothing is left out, since most actors are still most of the time.

use std::borrow::Cow;

use schema::{time::Timestamp, wait::Wait};
use serde::{Deserialize, Serialize};

use super::{Probe, Short};

/// An actor's numbers at one moment. Cheap: ten thousand of them are a few milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Gauge {
    /// Messages in the mailbox, the one in hand included.
    #[serde(skip_serializing_if = "nothing")]
    pub queue: usize,
    #[serde(skip_serializing_if = "nothing")]
    pub capacity: usize,
    /// The most that ever waited at once.
    #[serde(skip_serializing_if = "nothing")]
    pub high_water: usize,
    /// How long the oldest of them waits, the one in hand left out.
    #[serde(skip_serializing_if = "nothing")]
    pub oldest_wait_us: Option<u64>,
    /// How long it has been at the event in hand.
    #[serde(skip_serializing_if = "nothing")]
    pub busy_us: Option<u64>,
    /// The event in hand is decided, and its record is being written.
    #[serde(skip_serializing_if = "nothing")]
    pub recording: bool,
    #[serde(skip_serializing_if = "nothing")]
    pub handled: u64,
    /// `tell`s that found the mailbox full.
    #[serde(skip_serializing_if = "nothing")]
    pub refused: u64,
    #[serde(skip_serializing_if = "nothing")]
    pub panics: u64,
    /// Messages a second, over those that the ring still holds of the last ten seconds.
    #[serde(skip_serializing_if = "nothing")]
    pub rate: f64,
    #[serde(skip_serializing_if = "nothing")]
    pub wait_us: Short,
    #[serde(skip_serializing_if = "nothing")]
    pub handle_us: Short,
    #[serde(skip_serializing_if = "nothing")]
    pub last_at: Option<Timestamp>,
    /// The soonest of its timers.
    #[serde(skip_serializing_if = "nothing")]
    pub timer_due: Option<Timestamp>,
}

/// An actor in a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat")]
pub struct Row {
    pub kind: Cow<'static, str>,
    pub id: String,
    /// What stands above it on its node: KIND/ID, or its kind.
    pub parent: Cow<'static, str>,
    pub state: String,
    /// What it waits for.
    #[serde(skip_serializing_if = "nothing")]
    pub wait: Option<Wait>,
    #[serde(flatten)]
    pub gauge: Gauge,
    /// The event in hand.
    #[serde(skip_serializing_if = "nothing")]
    pub current: Option<String>,
    /// Since when it decides no more, and why.
    #[serde(skip_serializing_if = "nothing")]
    pub quarantine: Option<(Timestamp, String)>,
    /// Why the step in hand is not durable.
    #[serde(skip_serializing_if = "nothing")]
    pub held: Option<String>,
}

fn nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A row as it is read: serde reads a struct of its own fields at once, and one that is flattened into another by a detour.
#[derive(Deserialize)]
struct Flat {
    kind: String,
    id: String,
    #[serde(default)]
    parent: String,
    state: String,
    wait: Option<Wait>,
    #[serde(default)]
    queue: usize,
    #[serde(default)]
    capacity: usize,
    #[serde(default)]
    high_water: usize,
    oldest_wait_us: Option<u64>,
    busy_us: Option<u64>,
    #[serde(default)]
    recording: bool,
    #[serde(default)]
    handled: u64,
    #[serde(default)]
    refused: u64,
    #[serde(default)]
    panics: u64,
    #[serde(default)]
    rate: f64,
    #[serde(default)]
    wait_us: Short,
    #[serde(default)]
    handle_us: Short,
    last_at: Option<Timestamp>,
    timer_due: Option<Timestamp>,
    current: Option<String>,
    quarantine: Option<(Timestamp, String)>,
    held: Option<String>,
}

impl From<Flat> for Row {
    fn from(flat: Flat) -> Self {
        let Flat { kind, id, parent, state, wait, current, quarantine, held, .. } = flat;
        let Flat { queue, capacity, high_water, oldest_wait_us, busy_us, recording, handled, .. } = flat;
        let Flat { refused, panics, rate, wait_us, handle_us, last_at, timer_due, .. } = flat;
        let gauge = Gauge {
            queue,
            capacity,
            high_water,
            oldest_wait_us,
            busy_us,
            recording,
            handled,
            refused,
            panics,
            rate,
            wait_us,
            handle_us,
            last_at,
            timer_due,
        };
        Self { kind: kind.into(), id, parent: parent.into(), state, wait, gauge, current, quarantine, held }
    }
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

#[cfg(test)]
mod tests {
    use schema::wait::OwedBy;

    use super::*;

    fn still() -> Row {
        Row {
            kind: "errand".into(),
            id: "aaaaaa".into(),
            parent: "errand".into(),
            state: "Idle".into(),
            wait: None,
            gauge: Gauge { capacity: 256, ..Gauge::default() },
            current: None,
            quarantine: None,
            held: None,
        }
    }

    #[test]
    fn a_row_comes_back_as_it_was_and_what_is_nothing_is_not_sent() {
        let at = Timestamp::from_seconds(1_000);
        let spans = |n| Short { p50: n, p99: n + 1, max: n + 2 };
        let wait = Wait {
            what: "w".into(),
            owed_by: OwedBy::Machine,
            since: at,
            deadline: at,
            evidence: vec!["e".into()],
            on_timeout: "t".into(),
            remedy: "r".into(),
        };
        let busy = Row {
            wait: Some(wait),
            gauge: Gauge {
                queue: 1,
                capacity: 2,
                high_water: 3,
                oldest_wait_us: Some(0),
                busy_us: Some(5),
                recording: true,
                handled: 6,
                refused: 7,
                panics: 8,
                rate: 9.5,
                wait_us: spans(10),
                handle_us: spans(20),
                last_at: Some(at),
                timer_due: Some(at),
            },
            current: Some("Tick".into()),
            quarantine: Some((at, "why".into())),
            held: Some("held".into()),
            ..still()
        };
        for row in [still(), busy] {
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row, "{text}");
        }
        let text = serde_json::to_string(&still()).unwrap();
        assert_eq!(text, r#"{"kind":"errand","id":"aaaaaa","parent":"errand","state":"Idle","capacity":256}"#);
    }
}
