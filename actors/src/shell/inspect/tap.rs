//! A message trace of one actor: its next messages as they end, with as much of their content as was asked for. Bounded in number, time
//! and bytes. An actor that nobody traces looks at one empty field, under a lock that it holds anyway.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use schema::messages::link::Payload;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Probe, StepTrace};
use crate::clock;

/// Messages that one trace holds at most, and seconds that it runs.
pub const MESSAGES: u32 = 100;
pub const SECONDS: u32 = 60;
/// Traces of one node at once.
pub const TAPS: usize = 4;
/// How long a trace can be read after its end.
pub const KEPT: Duration = Duration::from_secs(300);
/// Bytes of one message's content, and of all that one trace holds. As JSON they are twice as many at most.
pub const CONTENT: usize = 32 * 1024;
const HELD: usize = 4 << 20;

/// What a trace is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub messages: u32,
    pub seconds: u32,
    pub payload: Payload,
}

/// Why a trace does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TapRefusal {
    /// No such actor is awake.
    Asleep,
    /// Its messages are traced already.
    Taken,
    /// [`TAPS`] traces run.
    Full,
}

/// One trace.
#[derive(Debug)]
pub struct Tap {
    messages: usize,
    payload: Payload,
    until: Instant,
    probe: Weak<Probe>,
    kept: Mutex<Kept>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: Vec<Tapped>,
    bytes: usize,
    end: Option<&'static str>,
}

/// One message, as it ended.
#[derive(Debug, Clone)]
pub struct Tapped {
    pub step: StepTrace,
    pub content: Option<Content>,
}

/// What a message carries, as `Debug` says it: a secret is `[secret]` there, by its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub text: String,
    /// Nothing was cut off.
    pub whole: bool,
}

impl Tap {
    pub(super) fn new(wanted: Wanted, probe: &Arc<Probe>) -> Self {
        Self {
            messages: wanted.messages.clamp(1, MESSAGES) as usize,
            payload: wanted.payload,
            until: clock::tick() + Duration::from_secs(wanted.seconds.clamp(1, SECONDS).into()),
            probe: Arc::downgrade(probe),
            kept: Mutex::default(),
            count: watch::Sender::default(),
        }
    }

    /// Another message ended. False: it was the last.
    pub(crate) fn take(&self, step: StepTrace, event: &impl fmt::Debug) -> bool {
        if self.end().is_some() {
            return false;
        }
        let content = match self.payload {
            Payload::None => None,
            Payload::Types => Some(Content::of(event)).map(|c| Content { text: shape(&c.text), ..c }),
            Payload::Redacted => Some(Content::of(event)),
        };
        let mut kept = self.kept();
        kept.bytes += content.as_ref().map_or(0, |c| c.text.len()) + step.outcome.why().len();
        kept.messages.push(Tapped { step, content });
        if kept.messages.len() >= self.messages {
            kept.end = Some("as many messages came as were asked for");
        } else if kept.bytes >= HELD {
            kept.end = Some("it holds as many bytes as it may");
        }
        let (count, ended) = (kept.messages.len(), kept.end.is_some());
        drop(kept);
        self.count.send_replace(count);
        !ended
    }

    /// What it holds, without the first `after` of them.
    #[must_use]
    pub fn messages(&self, after: usize) -> Vec<Tapped> {
        self.kept().messages.iter().skip(after).cloned().collect()
    }

    /// Why it holds no more; `None` while it runs.
    #[must_use]
    pub fn end(&self) -> Option<&'static str> {
        self.kept().end.or_else(|| (clock::tick() >= self.until).then_some("its time is over"))
    }

    /// Resolves when it holds more than `count` messages, or has ended.
    pub async fn more_than(&self, count: usize) {
        let mut held = self.count.subscribe();
        let news = held.wait_for(|held| *held > count || self.end().is_some());
        tokio::time::timeout_at(self.until.into(), news).await.ok(); // Its time is over: that is an end, too.
    }

    /// Whether it can be read no more.
    pub(super) fn is_old(&self) -> bool {
        clock::tick().saturating_duration_since(self.until) >= KEPT
    }

    /// Ends it, and takes it off its actor.
    pub(super) fn close(&self, why: &'static str) {
        self.kept().end.get_or_insert(why);
        if let Some(probe) = self.probe.upgrade() {
            probe.untap(self);
        }
        self.count.send_modify(|_| {});
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn of(event: &impl fmt::Debug) -> Self {
        let mut content = Self { text: String::new(), whole: true };
        write!(content, "{event:?}").ok(); // The error is the end of the room.
        content
    }
}

impl Write for Content {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = CONTENT - self.text.len();
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        self.text.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or_default());
        self.whole = false;
        Err(fmt::Error)
    }
}

/// The types and fields of a `Debug` text: `str` for each text, `_` for each other value.
fn shape(debug: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(debug.len()), debug);
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            out.push_str("str");
            rest = after_text(rest);
        } else if "{}()[], ".contains(first) {
            out.push(first);
            rest = rest.get(1..).unwrap_or_default();
        } else {
            let (word, next) =
                rest.split_at(rest.find(['"', '{', '}', '(', ')', '[', ']', ',', ' ']).unwrap_or(rest.len()));
            let name = word.strip_suffix(':').unwrap_or(word);
            let named = name.len() < word.len() || next.starts_with('(') || next.starts_with(" {") || out.is_empty();
            out.push_str(if is_name(name) && named || name.is_empty() { name } else { "_" });
            out.push_str(word.get(name.len()..).unwrap_or_default());
            rest = next;
        }
    }
    out
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What follows a quoted text.
fn after_text(quoted: &str) -> &str {
    let mut escaped = false;
    for (at, c) in quoted.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return quoted.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use schema::secret::Secret;

    use super::*;

    #[derive(Debug)]
    #[expect(dead_code, reason = "only their Debug is looked at")]
    enum Event {
        Plain,
        Put { host: Option<&'static str>, ip: std::net::Ipv4Addr, pass: Secret<String>, all: Vec<(u8, &'static str)> },
    }

    fn put() -> Event {
        let pass = Secret::new("canary".into());
        Event::Put { host: Some("a \"fox\", {x: 1}"), ip: [10, 0, 0, 1].into(), pass, all: vec![(1, "b"), (2, "c\\")] }
    }

    #[test]
    fn a_shape_has_names_and_no_value() {
        let shaped = |event: &Event| shape(&Content::of(event).text);
        assert_eq!(shaped(&Event::Plain), "Plain");
        assert_eq!(shaped(&put()), "Put { host: Some(str), ip: _, pass: [_], all: [(_, str), (_, str)] }");
        for odd in ["", "\"", "a:", "{\"k\": v}", "\"\\\"", "é(é)"] {
            assert!(shape(odd).len() <= odd.len() + 3, "{odd}");
        }
    }

    #[test]
    fn a_content_hides_secrets_by_their_type_and_is_cut_at_its_bound() {
        let content = Content::of(&put());
        assert!(content.whole && content.text.contains("pass: [secret]") && !content.text.contains("canary"));
        let long = Content::of(&"é".repeat(CONTENT));
        assert!(!long.whole && long.text.len() <= CONTENT && long.text.len() + 4 > CONTENT);
    }
}
