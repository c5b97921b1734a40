//! The shell: the only actix actor that carries cores. Decide, record, perform, show, one event at a time. Decides nothing itself.
//!
//! What it guarantees, to every core alike:
//! * No effect leaves before its cause is durable; the mailbox is held while the record is written.
//! * A panic in `step` changes nothing; three in a row quarantine the actor, visibly, with the event that did it.
//! * A `tell` that was taken is not lost while the store is away; an `ask` gets an error instead.
//! * Another writer's change (`RecordError::Stale`) ends this actor; what it had not handled goes to [`Perform::stale`].

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use schema::{id::Generation, time::Timestamp};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, error, info, warn};

use crate::{
    clock,
    core::{Core, Moved, RecordError, Resume, Step, TimerOp, TraceId, Verdict, View},
};

pub mod address;
pub mod inspect;
pub mod nursery;
pub mod timer;

pub use self::{
    address::{ActorRef, AskError, Busy},
    inspect::{ActorView, Gauge, Probe, Quarantine, Registry, Row, Source, StepTrace},
    nursery::{Arbiter, ArbiterHandle, spawn, spawn_here},
};
use self::{
    address::{Control, Envelope, Message, Reply},
    inspect::{Current, EventTally, Outcome},
    timer::Timers,
};

/// A future that need not leave its thread.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Faults in a row after which an actor is quarantined.
pub const FAULTS: u32 = 3;
/// Messages that wait in one mailbox, unless [`Perform::capacity`] says otherwise.
pub const MAILBOX: usize = 256;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// The hands of a core: how its steps become durable and its effects leave.
pub trait Perform<C: Core>: Clone + 'static {
    /// The time that decisions get.
    fn now(&self) -> Timestamp;

    /// Makes a step durable (journal and projections in one transaction). Called before any effect leaves;
    /// called again with the same step when the store was away.
    fn record(&self, moved: Moved<C>) -> LocalBoxFuture<'static, Result<(), RecordError>>;

    /// Carries one effect out. Must not block; answers come back as events through `me`. `me.snapshot()` is the state after.
    fn perform(&self, me: &ActorRef<C>, effect: C::Effect, trace: TraceId);

    /// After each step, with the published view (feeds events and metrics).
    fn show(&self, _me: &ActorRef<C>, _verdict: &Verdict) {}

    /// This actor ends, since another writer moved it on: `event` was taken and not handled. Hand it to the actor loaded anew.
    fn stale(&self, me: &ActorRef<C>, event: C::Event, trace: TraceId) {
        error!(actor.kind = C::KIND, actor.id = %me.id(), event = %me.probe().tally().event(&event).name, %trace, "an event of a stale actor is lost");
    }

    /// How many messages wait in the mailbox before `tell` says busy.
    fn capacity(&self) -> usize {
        MAILBOX
    }
}

/// The one actor. See [`spawn`].
pub struct Shell<C: Core, P: Perform<C>> {
    core: Arc<C>,
    view: Arc<View>,
    generation: Generation,
    perform: P,
    me: ActorRef<C>,
    registry: Registry,
    /// Itself, as those know it whom it tells something.
    source: Source,
    timers: Timers<C::Timer>,
    /// A step is decided and not yet in force.
    recording: bool,
    resumed: bool,
    faults: u32,
    leaving: bool,
}

/// Nothing in it is pinned.
impl<C: Core, P: Perform<C>> Unpin for Shell<C, P> {}

/// One event on its way through the shell.
struct Job<C: Core> {
    event: C::Event,
    tally: Arc<EventTally>,
    sender: Source,
    trace: TraceId,
    reply: Option<Reply>,
    /// Held until the event is handled: the mailbox's depth.
    _slot: Option<OwnedSemaphorePermit>,
    /// The view before.
    from: Arc<View>,
    /// When it is decided.
    now: Timestamp,
    waited: Duration,
    started: Instant,
    span: tracing::Span,
}

impl<C: Core, P: Perform<C>> Actor for Shell<C, P> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.me.probe().capacity() + address::CONTROL_SLOTS);
        if !self.resumed {
            return;
        }
        let now = self.perform.now();
        let core = self.core.clone();
        match catch_unwind(AssertUnwindSafe(|| core.resume(now))) {
            Ok(Resume { effects, timers }) => {
                self.set_timers(timers, now, TraceId::default(), ctx);
                self.carry_out(effects, TraceId::default());
            }
            Err(panic) => self.quarantine("resume".into(), reason(&*panic), now),
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.me.close();
        self.registry.remove(self.me.probe());
    }
}

impl<C: Core, P: Perform<C>> Handler<Envelope<C>> for Shell<C, P> {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<C>, ctx: &mut Self::Context) {
        // Nothing is being recorded here: what found no room in the mailbox goes before what did.
        if let Some(word) = self.me.left() {
            self.obey(word);
        }
        match envelope.message {
            Message::Event { event, tally, trace, reply } => {
                let waited = clock::tick().saturating_duration_since(envelope.at);
                let sender = self.me.probe().taken();
                let job = self.job((event, tally), sender, trace, reply, envelope.slot, waited);
                self.decide(job, ctx);
            }
            Message::Control(word) => self.obey(word),
        }
        self.stop_when_empty(ctx);
    }
}

impl<C: Core, P: Perform<C>> Shell<C, P> {
    fn new(core: C, generation: Generation, perform: P, me: ActorRef<C>, registry: Registry, resumed: bool) -> Self {
        let core = Arc::new(core);
        let (view, source) = (me.view(), Source::new(C::KIND, me.probe().id()));
        Self {
            core,
            view,
            generation,
            perform,
            me,
            registry,
            source,
            timers: Timers::default(),
            recording: false,
            resumed,
            faults: 0,
            leaving: false,
        }
    }

    fn job(
        &self,
        (event, tally): (C::Event, Arc<EventTally>),
        sender: Source,
        trace: TraceId,
        reply: Option<Reply>,
        slot: Option<OwnedSemaphorePermit>,
        waited: Duration,
    ) -> Job<C> {
        let trace = trace.or(|| self.core.trace());
        let started = clock::tick();
        let (name, from) = (tally.name.clone(), sender.clone());
        self.me.probe().begun(Current { event: name, sender: from, trace, since: started, recording: false });
        let span = tracing::info_span!(
            "step",
            actor.kind = C::KIND,
            actor.id = %self.me.id(),
            event = %tally.name,
            from = self.view.state,
            to = tracing::field::Empty,
            verdict = tracing::field::Empty,
            waited_us = micros(waited),
            took_us = tracing::field::Empty,
            trace = %trace,
        );
        let (now, from) = (self.perform.now(), self.view.clone());
        Job { event, tally, sender, trace, reply, _slot: slot, from, now, waited, started, span }
    }

    /// First of four: what the core says. Nothing has changed when this ends.
    fn decide(&mut self, job: Job<C>, ctx: &mut Context<Self>) {
        if self.leaving {
            return self.hand_on(job);
        }
        if let Some(quarantine) = self.me.probe().quarantine() {
            let verdict = Verdict::Refused {
                why: format!("{} {} is quarantined: {}", C::KIND, self.me.id(), quarantine.why),
                remedy: "report the event in its quarantine as a defect, then release the actor".into(),
            };
            return self.end(job, verdict);
        }
        let now = job.now;
        let core = self.core.clone();
        let event = &job.event;
        let decided = job.span.in_scope(|| {
            catch_unwind(AssertUnwindSafe(|| {
                let step = core.step(event, now);
                let view = step.next.as_ref().map(Core::view);
                (step, view)
            }))
        });
        match decided {
            Err(panic) => self.fault(job, &reason(&*panic), now),
            Ok((Step { next: Some(next), effects, timers, verdict }, view)) => {
                self.faults = 0;
                let after = After { core: Arc::new(next), view: view.unwrap_or_default(), timers, verdict };
                self.record(job, after, effects, now, ctx);
            }
            Ok((Step { next: None, effects, timers, verdict }, _)) => {
                self.faults = 0;
                if !effects.is_empty() {
                    error!(actor.kind = C::KIND, actor.id = %self.me.id(), event = %job.tally.name, "effects without a change of state are dropped: nothing would have recorded their cause");
                }
                self.set_timers(timers, now, job.trace, ctx);
                self.end(job, verdict);
            }
        }
    }

    /// Second: durable, with the mailbox held.
    fn record(
        &mut self,
        job: Job<C>,
        after: After<C>,
        effects: Vec<C::Effect>,
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) {
        self.me.probe().recording();
        self.recording = true;
        let effects = Arc::new(effects);
        let moved = Moved {
            id: self.me.id().clone(),
            before: self.core.clone(),
            after: after.core.clone(),
            event: job.event.clone(),
            effects: effects.clone(),
            generation: self.generation,
            trace: job.trace,
            at: now,
        };
        let writing = keep(self.perform.clone(), moved, job.reply.is_none(), self.me.probe().clone());
        ctx.wait(writing.into_actor(self).map(move |written, shell, ctx| {
            shell.recording = false;
            match written {
                Ok(()) => shell.recorded(job, after, effects, now, ctx),
                Err(error @ RecordError::Stale { .. }) => {
                    info!(actor.kind = C::KIND, actor.id = %shell.me.id(), %error, "the actor is dropped, to be loaded anew");
                    shell.leave();
                    shell.hand_on(job);
                }
                Err(error) => shell.answer(job, Err(AskError::Store(error))),
            }
            shell.stop_when_empty(ctx);
        }));
    }

    /// Third and fourth: published, carried out, shown.
    fn recorded(
        &mut self,
        job: Job<C>,
        after: After<C>,
        effects: Arc<Vec<C::Effect>>,
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) {
        if after.view.state != self.view.state {
            self.timers.clear(ctx);
        }
        self.core = after.core;
        self.generation = self.generation.next();
        self.view = Arc::new(after.view);
        self.me.publish(self.core.clone(), self.view.clone(), self.generation);
        self.set_timers(after.timers, now, job.trace, ctx);
        let span = job.span.clone();
        span.in_scope(|| self.carry_out(Arc::unwrap_or_clone(effects), job.trace));
        self.end(job, after.verdict);
    }

    fn carry_out(&self, effects: Vec<C::Effect>, trace: TraceId) {
        for effect in effects {
            let perform = || self.source.within(|| self.perform.perform(&self.me, effect.clone(), trace));
            let told = catch_unwind(AssertUnwindSafe(perform));
            if let Err(panic) = told {
                self.me.probe().panicked();
                error!(actor.kind = C::KIND, actor.id = %self.me.id(), ?effect, why = reason(&*panic), "an effect's hands panicked; the effect is lost until the actor resumes");
            }
        }
    }

    fn set_timers(&mut self, ops: Vec<TimerOp<C::Timer>>, now: Timestamp, trace: TraceId, ctx: &mut Context<Self>) {
        for op in ops {
            match op {
                TimerOp::Cancel { timer } => self.timers.cancel(timer, ctx),
                TimerOp::Arm { timer, at } => {
                    self.arm(timer, at, at.since(now), trace, ctx);
                }
            }
        }
        self.me.probe().set_timers(self.timers.due());
    }

    fn arm(&mut self, timer: C::Timer, at: Timestamp, rest: Duration, trace: TraceId, ctx: &mut Context<Self>) {
        let number = self.timers.number();
        let handle = ctx.run_later(rest, move |shell, ctx| shell.elapsed(timer, number, trace, ctx));
        self.timers.arm(timer, number, at, handle, ctx);
    }

    fn elapsed(&mut self, timer: C::Timer, number: u64, trace: TraceId, ctx: &mut Context<Self>) {
        let Some(at) = self.timers.take(timer, number) else { return };
        if self.recording {
            // What actix is told to wait for holds up timers from the next round on; in this one a message has just been decided.
            // The timer belongs to the state before it, and rings after it if that state still stands.
            return self.arm(timer, at, Duration::ZERO, trace, ctx);
        }
        self.me.probe().set_timers(self.timers.due());
        let event = C::elapsed(timer);
        let tally = self.me.probe().tally().event(&event);
        let job = self.job((event, tally), Source::timer(), trace, None, None, Duration::ZERO);
        self.decide(job, ctx);
        self.stop_when_empty(ctx);
    }

    /// The way out of every event: span, ring, watchers, answer.
    fn end(&mut self, job: Job<C>, verdict: Verdict) {
        let show = || self.source.within(|| self.perform.show(&self.me, &verdict));
        let shown = catch_unwind(AssertUnwindSafe(show));
        self.note(&job, &verdict);
        if shown.is_err() {
            self.me.probe().panicked();
        }
        self.answer(job, Ok(verdict));
    }

    fn note(&self, job: &Job<C>, verdict: &Verdict) {
        let took = clock::tick().saturating_duration_since(job.started);
        let outcome = Outcome::of(verdict);
        job.span.record("to", self.view.state.as_str());
        job.span.record("verdict", outcome.name());
        job.span.record("took_us", micros(took));
        job.span.in_scope(|| debug!(why = outcome.why(), "step"));
        let wanted = self.registry.note(
            self.me.probe(),
            inspect::Note {
                at: job.now,
                event: &job.tally,
                sender: job.sender.clone(),
                from: &job.from.state,
                to: &self.view.state,
                outcome,
                waited: job.waited,
                took,
                trace: job.trace,
            },
        );
        if let Some((tap, step)) = wanted
            && !tap.take(step, &job.event)
        {
            self.me.probe().untap(&tap);
        }
    }

    fn answer(&self, job: Job<C>, answer: Result<Verdict, AskError>) {
        if answer.is_err() {
            self.me.probe().put_down();
        }
        match job.reply {
            // The caller may have gone away; the step stands.
            Some(reply) => drop(reply.send(answer)),
            None => {
                if let Err(error) = answer {
                    warn!(actor.kind = C::KIND, actor.id = %self.me.id(), event = %job.tally.name, %error, "a told event was not handled");
                }
            }
        }
    }

    fn fault(&mut self, job: Job<C>, why: &str, now: Timestamp) {
        self.faults += 1;
        self.me.probe().panicked();
        job.tally.panics.fetch_add(1, Relaxed);
        self.me.probe().restarted("panicked", why);
        error!(actor.kind = C::KIND, actor.id = %self.me.id(), event = %job.tally.name, faults = self.faults, why, "the decision panicked; the state is unchanged");
        if self.faults >= FAULTS {
            self.quarantine(format!("{:?}", job.event), why.to_owned(), now);
        }
        let verdict = Verdict::Refused {
            why: format!("the decision on {} panicked: {why}; the state is unchanged", job.tally.name),
            remedy: "report it as a defect with the event and the state that the inspector shows".into(),
        };
        self.end(job, verdict);
    }

    fn quarantine(&mut self, event: String, why: String, at: Timestamp) {
        error!(actor.kind = C::KIND, actor.id = %self.me.id(), event, why, "the actor is quarantined");
        self.me.probe().set_quarantine(Some(Quarantine { at, event, why }));
    }

    fn obey(&mut self, word: Control) {
        match word {
            Control::Release => self.release(),
            Control::Retire => self.leave(),
        }
    }

    fn release(&mut self) {
        self.faults = 0;
        self.me.probe().set_quarantine(None);
        info!(actor.kind = C::KIND, actor.id = %self.me.id(), "released from quarantine");
    }

    /// No new messages; those that wait are handed on, then the actor ends.
    fn leave(&mut self) {
        if !self.leaving {
            self.me.probe().tally().overtaken.fetch_add(1, Relaxed);
            self.me.probe().restarted("overtaken", "it was loaded anew at its next use");
        }
        self.leaving = true;
        self.me.close();
        self.registry.remove(self.me.probe());
    }

    fn hand_on(&self, job: Job<C>) {
        self.me.probe().put_down();
        if let Some(reply) = job.reply {
            drop(reply.send(Err(AskError::Gone { actor: self.me.to_string() })));
        } else {
            self.source.within(|| self.perform.stale(&self.me, job.event, job.trace));
        }
    }

    fn stop_when_empty(&self, ctx: &mut Context<Self>) {
        if self.leaving && self.me.probe().depth() == 0 {
            ctx.stop();
        }
    }
}

/// What a step leads to, between the decision and its record.
struct After<C: Core> {
    core: Arc<C>,
    view: View,
    timers: Vec<TimerOp<C::Timer>>,
    verdict: Verdict,
}

/// Writes the step. A `patient` one (told, not asked) is tried again until the store is back.
async fn keep<C: Core, P: Perform<C>>(
    perform: P,
    moved: Moved<C>,
    patient: bool,
    probe: Arc<Probe>,
) -> Result<(), RecordError> {
    let mut pause = FIRST_RETRY;
    loop {
        match guarded(|| perform.record(moved.clone())).await {
            Err(RecordError::Unavailable(why)) if patient => {
                if probe.hold(Some(&why)) {
                    warn!(actor.kind = C::KIND, actor.id = %moved.id, why, "the step is held until the store is back");
                }
                tokio::time::sleep(pause).await;
                pause = LONGEST_RETRY.min(pause * 2);
            }
            written => {
                probe.hold(None);
                return written;
            }
        }
    }
}

/// A record whose hands panic counts as a store that is away: whether it wrote shows at the next try, by the generation.
async fn guarded(record: impl FnOnce() -> LocalBoxFuture<'static, Result<(), RecordError>>) -> Result<(), RecordError> {
    let panicked = |panic: Box<dyn Any + Send>| RecordError::Unavailable(format!("panic: {}", reason(&*panic)));
    let mut writing = catch_unwind(AssertUnwindSafe(record)).map_err(panicked)?;
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| writing.as_mut().poll(cx))) {
        Ok(polled) => polled,
        Err(panic) => std::task::Poll::Ready(Err(panicked(panic))),
    })
    .await
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
