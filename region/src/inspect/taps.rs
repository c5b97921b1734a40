//! Message traces: which run, on which node, for whom. The messages stay with the node of their actor, and are asked for there.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{
    clock,
    inspection::{self, Held},
    shell::inspect::{TapRefusal, Wanted, tap},
};
use arc_swap::ArcSwapOption;
use schema::{
    id::RackId,
    messages::link::{InspectAsk, Payload},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::REGION;
use crate::app::App;

/// How often a rack is asked for more.
const AGAIN: Duration = Duration::from_millis(250);

/// Those that run, and those that can still be read.
#[derive(Default)]
pub(super) struct Taps(Mutex<Vec<Arc<Traced>>>);

/// One message trace.
#[derive(Debug)]
pub struct Traced {
    /// Its name in paths; other than the ids of the traces that work carries, which have 32 digits.
    pub id: String,
    number: u64,
    /// None: the region.
    rack: Option<RackId>,
    kind: String,
    actor: String,
    by: String,
    wanted: Wanted,
    begun: Timestamp,
    pub until: Timestamp,
    end: ArcSwapOption<String>,
}

/// Why a trace does not begin.
#[derive(Debug)]
pub enum Refused {
    /// No such actor is awake.
    Asleep,
    /// Its messages are traced already; as whom, where this region knows it.
    Taken(Option<String>),
    /// As many run as may: these.
    Full(Vec<String>),
    /// The rack does not answer.
    Silent(String),
}

impl Traced {
    /// NODE/KIND/ID.
    #[must_use]
    pub fn path(&self) -> String {
        let node = self.rack.map_or_else(|| REGION.to_owned(), |rack| rack.to_string());
        format!("{node}/{}/{}", self.kind, self.actor)
    }

    /// Whether messages may still come.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.end.load().is_none() && clock::now() < self.until
    }

    /// It, for people.
    #[must_use]
    pub fn shown(&self) -> Value {
        let payload = match self.wanted.payload {
            Payload::None => "none",
            Payload::Types => "types",
            Payload::Redacted => "redacted",
        };
        json!({
            "id": self.id, "path": self.path(), "by": self.by, "messages": self.wanted.messages, "seconds": self.wanted.seconds,
            "payload": payload, "begun": self.begun.to_string(), "until": self.until.to_string(), "runs": self.runs(),
        })
    }

    fn is_old(&self) -> bool {
        clock::now().since(self.until) >= tap::KEPT
    }
}

impl Taps {
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Traced>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more: the oldest that ended goes. Which, so that its node can forget it, too.
    fn reserve(&self, new: &Arc<Traced>) -> Result<Option<Arc<Traced>>, Refused> {
        let mut all = self.all();
        all.retain(|one| !one.is_old());
        let same = |one: &&Arc<Traced>| one.runs() && one.path() == new.path();
        if let Some(running) = all.iter().find(same) {
            return Err(Refused::Taken(Some(running.id.clone())));
        }
        let ended = if all.len() < tap::TAPS {
            None
        } else {
            let Some(ended) = all.iter().position(|one| !one.runs()) else {
                return Err(Refused::Full(all.iter().map(|one| one.id.clone()).collect()));
            };
            Some(all.remove(ended))
        };
        all.push(new.clone());
        Ok(ended)
    }

    fn take(&self, id: &str) -> Option<Arc<Traced>> {
        let mut all = self.all();
        let at = all.iter().position(|one| one.id == id)?;
        Some(all.remove(at))
    }
}

impl App {
    /// Begins to trace an actor's messages.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn trace_messages(
        &self,
        (rack, kind, actor): (Option<RackId>, &str, &str),
        wanted: Wanted,
        by: &str,
    ) -> Result<Arc<Traced>, Refused> {
        let (number, begun) = (rand::random(), clock::now());
        let traced = Arc::new(Traced {
            id: format!("m{number:016x}"),
            number,
            rack,
            kind: kind.to_owned(),
            actor: actor.to_owned(),
            by: by.to_owned(),
            wanted,
            begun,
            until: begun + Duration::from_secs(wanted.seconds.into()),
            end: ArcSwapOption::empty(),
        });
        self.settle_traces().await;
        if let Some(old) = self.inspector.taps.reserve(&traced)? {
            self.untap(&old).await;
        }
        let begun = self.tap(&traced).await;
        if begun.is_err() {
            self.inspector.taps.take(&traced.id);
        }
        begun.map(|()| traced)
    }

    async fn tap(&self, traced: &Traced) -> Result<(), Refused> {
        let Traced { number, kind, actor, wanted, .. } = traced;
        let begun = match traced.rack {
            None => self.registry.tap(*number, kind, actor, *wanted).map(|_| ()),
            Some(rack) => {
                let Wanted { messages, seconds, payload } = *wanted;
                let (kind, id) = (kind.clone(), actor.clone());
                let ask = InspectAsk::Tap { number: *number, kind, id, messages, seconds, payload };
                self.ask_rack::<Result<(), TapRefusal>>(rack, ask).await.map_err(Refused::Silent)?.0
            }
        };
        begun.map_err(|refusal| match refusal {
            TapRefusal::Asleep => Refused::Asleep,
            TapRefusal::Taken => Refused::Taken(None),
            TapRefusal::Full => Refused::Full(Vec::new()),
        })
    }

    /// Those that ended without a reader are known as such after this.
    pub async fn settle_traces(&self) {
        let all = self.message_traces();
        let asking = all.iter().filter(|one| one.runs()).map(|one| self.traced_messages(one, tap::MESSAGES as usize));
        futures_util::future::join_all(asking).await;
    }

    /// Message traces that run or can still be read.
    #[must_use]
    pub fn message_traces(&self) -> Vec<Arc<Traced>> {
        let mut all = self.inspector.taps.all();
        all.retain(|one| !one.is_old());
        all.clone()
    }

    /// What a trace holds, without its first `after` messages.
    ///
    /// # Errors
    /// Why the rack does not say it.
    pub async fn traced_messages(&self, traced: &Traced, after: usize) -> Result<Held, String> {
        let number = traced.number;
        let held = match traced.rack {
            None => self.registry.tapped(number).map(|tap| inspection::tapped(&tap, after)),
            Some(rack) => {
                let ask = InspectAsk::Tapped { number, after: u32::try_from(after).unwrap_or(u32::MAX) };
                self.ask_rack::<Option<Held>>(rack, ask).await?.0
            }
        };
        let forgotten =
            || Held { messages: Vec::new(), end: Some("it was taken off, or its node started anew".into()) };
        let held = held.unwrap_or_else(forgotten);
        if let Some(end) = &held.end {
            traced.end.store(Some(Arc::new(end.clone())));
        }
        Ok(held)
    }

    /// Resolves when it may be worth asking for more than `after` messages, and after `most` in any case.
    pub async fn more_messages(&self, traced: &Traced, after: usize, most: Duration) {
        match self.registry.tapped(traced.number).filter(|_| traced.rack.is_none()) {
            Some(tap) => {
                tokio::time::timeout(most, tap.more_than(after)).await.ok(); // Then it is not worth it yet.
            }
            None => tokio::time::sleep(AGAIN.min(most)).await,
        }
    }

    /// Ends a trace and forgets it. False: there is none of that id.
    pub async fn end_trace(&self, id: &str) -> bool {
        let Some(traced) = self.inspector.taps.take(id) else { return false };
        traced.end.store(Some(Arc::new("it was taken off".to_owned())));
        self.untap(&traced).await;
        true
    }

    async fn untap(&self, traced: &Traced) {
        match traced.rack {
            None => {
                self.registry.untap(traced.number);
            }
            // A rack that does not hear it ends the trace by its time.
            Some(rack) => drop(self.ask_rack::<bool>(rack, InspectAsk::Untap { number: traced.number }).await),
        }
    }
}
