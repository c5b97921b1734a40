//! How to reach an actor: bounded `tell`, edge-only `ask`, and its published state, which is read without its mailbox.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Recipient, prelude::SendError};
use arc_swap::ArcSwap;
use schema::id::Generation;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use super::inspect::{Detail, EventTally, Probe, Source, Waiting};
use crate::{
    clock,
    core::{Core, RecordError, TraceId, Verdict, View},
};

/// Room in the actix mailbox beyond the bounded slots, for `release` and `retire`.
pub(super) const CONTROL_SLOTS: usize = 16;
/// How long `ask` waits for a free slot and a durable verdict.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often an ask looks whether an actor that is about to start has room.
const AGAIN: Duration = Duration::from_millis(5);

pub(super) type Reply = oneshot::Sender<Result<Verdict, AskError>>;

/// What travels through the mailbox.
pub(super) struct Envelope<C: Core> {
    pub(super) message: Message<C>,
    /// The place in the mailbox; free again when the event is handled, or dropped with a dead actor.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    pub(super) at: Instant,
}

pub(super) enum Message<C: Core> {
    Event { event: C::Event, tally: Arc<EventTally>, trace: TraceId, reply: Option<Reply> },
    Control(Control),
}

/// What is said to the shell, not to the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Control {
    Release = 1,
    Retire = 2,
}

impl<C: Core> actix::Message for Envelope<C> {
    type Result = ();
}

/// `tell` could not leave the event; the caller still owes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// As many messages wait as may.
    #[error("the mailbox of {actor} is full ({depth} wait); tell it again later")]
    Full { actor: String, depth: usize },
    /// The actor has ended; its directory loads it anew.
    #[error("{actor} has ended; look it up again")]
    Gone { actor: String },
}

/// `ask` got no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No free slot within the patience; nothing was asked.
    #[error("the mailbox of {actor} stays full ({depth} wait); try again later")]
    Full { actor: String, depth: usize },
    /// The actor ended before it decided; its directory loads it anew.
    #[error("{actor} has ended before it decided; ask again")]
    Gone { actor: String },
    /// The event waits still, and may yet be decided.
    #[error("{actor} gave no verdict within {} s; it may still decide", PATIENCE.as_secs())]
    Late { actor: String },
    /// Decided, but not durable: nothing has changed.
    #[error(transparent)]
    Store(RecordError),
}

/// A handle on one actor. Cloned freely, sent freely.
pub struct ActorRef<C: Core>(Arc<Shared<C>>);

struct Shared<C: Core> {
    id: C::Id,
    probe: Arc<Probe>,
    published: ArcSwap<Published<C>>,
    mailbox: OnceLock<Recipient<Envelope<C>>>,
    /// Words for the shell that found no room in the mailbox, by [`Control`].
    left: AtomicU8,
}

struct Published<C> {
    core: Arc<C>,
    view: Arc<View>,
    generation: Generation,
}

impl<C: Core> Clone for ActorRef<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Core> fmt::Display for ActorRef<C> {
    /// "machine 4xk9qd"
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", C::KIND, self.0.id)
    }
}

impl<C: Core> fmt::Debug for ActorRef<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C: Core> ActorRef<C> {
    /// Which actor it is.
    #[must_use]
    pub fn id(&self) -> &C::Id {
        &self.0.id
    }

    /// Leaves an event in the mailbox. Never blocks.
    ///
    /// # Errors
    /// [`Busy::Full`] when the mailbox is full, [`Busy::Gone`] when the actor has ended.
    pub fn tell(&self, event: C::Event, trace: TraceId) -> Result<(), Busy> {
        let slot = match self.slots().clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(TryAcquireError::NoPermits) => return Err(self.full(&event, trace)),
            Err(TryAcquireError::Closed) => return Err(Busy::Gone { actor: self.to_string() }),
        };
        match self.post_event(event, trace, None, slot) {
            Ok(()) => Ok(()),
            Err(Unposted::Full(Some((event, slot)))) => {
                drop(slot); // It does not wait there.
                Err(self.full(&event, trace))
            }
            Err(Unposted::Full(None) | Unposted::Gone) => Err(Busy::Gone { actor: self.to_string() }),
        }
    }

    /// What found no room; the inspector counts it.
    fn full(&self, event: &C::Event, trace: TraceId) -> Busy {
        let probe = &self.0.probe;
        probe.refused(probe.tally().event(event).name.clone(), trace);
        Busy::Full { actor: self.to_string(), depth: probe.depth() }
    }

    /// Asks for a verdict, which comes once the step is durable. For the API's edge only: actors tell each other.
    /// Dropping the future does not take the event back.
    ///
    /// # Errors
    /// [`AskError`]: no slot, no actor, no verdict in 30 s, or no store.
    pub fn ask(
        &self,
        event: C::Event,
        trace: TraceId,
    ) -> impl Future<Output = Result<Verdict, AskError>> + Send + use<C> {
        let me = self.clone();
        async move {
            let full = || AskError::Full { actor: me.to_string(), depth: me.0.probe.depth() };
            let gone = || AskError::Gone { actor: me.to_string() };
            let left = tokio::time::timeout(PATIENCE, me.leave(event, trace));
            let verdict = left.await.map_err(|_| full())?.ok_or_else(gone)?;
            match tokio::time::timeout(PATIENCE, verdict).await {
                Ok(verdict) => verdict.unwrap_or_else(|_| Err(gone())),
                Err(_) => Err(AskError::Late { actor: me.to_string() }),
            }
        }
    }

    /// Leaves an event once there is room: where its verdict will come. `None`: the actor has ended.
    async fn leave(&self, event: C::Event, trace: TraceId) -> Option<oneshot::Receiver<Result<Verdict, AskError>>> {
        let mut event = event;
        let mut slot = self.slots().clone().acquire_owned().await.ok()?;
        loop {
            let (reply, verdict) = oneshot::channel();
            match self.post_event(event, trace, Some(reply), slot) {
                Ok(()) => return Some(verdict),
                Err(Unposted::Full(None) | Unposted::Gone) => return None,
                Err(Unposted::Full(Some((back, place)))) => {
                    (event, slot) = (back, place?);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// The published state: after the last durable step.
    #[must_use]
    pub fn snapshot(&self) -> Arc<C> {
        self.0.published.load().core.clone()
    }

    /// The published view.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.0.published.load().view.clone()
    }

    /// The generation of the published state.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.0.published.load().generation
    }

    /// Its counters, ring and quarantine.
    #[must_use]
    pub fn probe(&self) -> &Arc<Probe> {
        &self.0.probe
    }

    /// Whether it has ended or is about to; look it up again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.slots().is_closed()
    }

    /// Lets a quarantined actor decide again.
    pub fn release(&self) {
        self.control(Control::Release);
    }

    /// Ends the actor: what waits in its mailbox goes to [`super::Perform::stale`].
    pub fn retire(&self) {
        self.control(Control::Retire);
    }

    /// A dead actor needs neither. Until one has started, its mailbox takes fewer messages than it will: then the word is left beside it.
    fn control(&self, word: Control) {
        let refused = || matches!(self.post(Message::Control(word), None), Err(Unposted::Full(None)));
        if refused() {
            self.0.left.fetch_or(word as u8, Ordering::AcqRel);
            refused(); // The mailbox may have been emptied meanwhile; if it is full still, its next message finds the word.
        }
    }

    /// What was left beside the mailbox.
    pub(super) fn left(&self) -> Option<Control> {
        if self.0.left.load(Ordering::Acquire) == 0 {
            return None;
        }
        // Who is to end need not be released before.
        let left = self.0.left.swap(0, Ordering::AcqRel);
        Some(if left & Control::Retire as u8 != 0 { Control::Retire } else { Control::Release })
    }

    pub(super) fn new(core: &C, generation: Generation, view: View, probe: Arc<Probe>) -> Self {
        let (id, core, view) = (core.id(), Arc::new(core.clone()), Arc::new(view));
        probe.publish(view.clone(), generation, detail(&core));
        let published = Published { core, view, generation };
        let published = ArcSwap::from_pointee(published);
        Self(Arc::new(Shared { id, probe, published, mailbox: OnceLock::new(), left: AtomicU8::new(0) }))
    }

    /// Both the caller and the actor's thread do this, whichever comes first.
    pub(super) fn attach(&self, mailbox: Recipient<Envelope<C>>) {
        self.0.mailbox.get_or_init(|| mailbox);
    }

    pub(super) fn publish(&self, core: Arc<C>, view: Arc<View>, generation: Generation) {
        self.0.probe.publish(view.clone(), generation, detail(&core));
        self.0.published.store(Arc::new(Published { core, view, generation }));
    }

    pub(super) fn close(&self) {
        self.slots().close();
    }

    fn slots(&self) -> &Arc<Semaphore> {
        self.0.probe.slots()
    }

    /// Posts an event, and puts down for the inspector that it waits.
    fn post_event(
        &self,
        event: C::Event,
        trace: TraceId,
        reply: Option<Reply>,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), Unposted<C>> {
        let probe = &self.0.probe;
        let tally = probe.tally().event(&event);
        let waiting = Waiting { event: tally.name.clone(), sender: Source::present(), trace, since: clock::tick() };
        probe.posting(waiting, || self.post(Message::Event { event, tally, trace, reply }, Some(slot)))
    }

    /// The one sender of the mailbox: a clone of an actix address has a slot more than it says, so none is made.
    fn post(&self, message: Message<C>, slot: Option<OwnedSemaphorePermit>) -> Result<(), Unposted<C>> {
        let mailbox = self.0.mailbox.get().ok_or(Unposted::Gone)?;
        mailbox.try_send(Envelope { message, slot, at: clock::tick() }).map_err(|error| match error {
            SendError::Full(Envelope { message: Message::Event { event, .. }, slot, .. }) => {
                Unposted::Full(Some((event, slot)))
            }
            SendError::Full(_) => Unposted::Full(None),
            SendError::Closed(_) => Unposted::Gone,
        })
    }
}

/// What the mailbox did not take.
enum Unposted<C: Core> {
    /// There is a slot and no room yet: until the actor has started, actix takes fewer messages than the slots are. An event and its slot come back.
    Full(Option<(C::Event, Option<OwnedSemaphorePermit>)>),
    Gone,
}

fn detail<C: Core>(core: &Arc<C>) -> Detail {
    let core = core.clone();
    Detail(Box::new(move || core.detail()))
}
