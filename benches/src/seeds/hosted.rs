//! The shell of the deterministic yard: decide, record, perform, show, one event at a time, as `actors::shell` does it, on virtual time.
//!
//! A record has two moments: when the disk has it, and when the actor knows that. A crash between them loses the effects of a step that
//! stands, which is what `resume` is for.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actors::core::{Core, Step, TimerOp, Verdict, View};
use schema::{
    id::{RackId, ReportSeq, SubnetId, SystemId},
    time::Timestamp,
};

use super::world::{Ev, World};

/// Between two tries at a disk that refuses.
const AGAIN: Duration = Duration::from_secs(2);

/// One actor of the yard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Machine(SystemId),
    Rack(RackId),
    Subnet(SubnetId),
    Catalogue,
    Agent(usize),
    Errand(usize, SystemId),
    Leases(usize, SubnetId),
}

/// Whom a step's verdict is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Nobody,
    /// A report's step is durable, or will never be one.
    Report(usize, ReportSeq),
    /// The plan that was wanted may be sent.
    Plan(usize),
    /// All asks of a subnet's batch are answered; the number is its flight's.
    Batch(usize, SubnetId, u64),
    /// The client of a probe is answered.
    Probed(usize, u64),
    /// Another rack's leases are durable on this one.
    Copied(usize),
    /// Leases that a rack said over the link of that number are durable.
    Leases(usize, u64),
}

/// What comes back to an actor later.
#[derive(Debug, Clone, Copy)]
pub(super) enum Later {
    /// The disk has the step.
    Durable,
    /// The actor knows it.
    Known,
    Timer(u64),
}

/// An actor: its core, its mailbox, its timers, and the step that is on its way to the disk.
pub(super) struct Hosted<C: Core> {
    pub(super) core: Arc<C>,
    view: View,
    mailbox: VecDeque<(C::Event, Tag)>,
    pending: Option<Pending<C>>,
    timers: Vec<(C::Timer, u64)>,
    set: u64,
    busy: bool,
}

/// A step between its decision and its record.
pub(super) struct Pending<C: Core> {
    pub(super) before: Arc<C>,
    pub(super) after: Arc<C>,
    pub(super) event: C::Event,
    pub(super) effects: Vec<C::Effect>,
    pub(super) timers: Vec<TimerOp<C::Timer>>,
    pub(super) verdict: Verdict,
    pub(super) view: View,
    tag: Tag,
}

impl<C: Core> Hosted<C> {
    pub(super) fn new(core: C) -> Self {
        let view = core.view();
        let (mailbox, timers) = (VecDeque::new(), Vec::new());
        Self { core: Arc::new(core), view, mailbox, pending: None, timers, set: 0, busy: false }
    }
}

/// Whether a disk takes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Yes,
    /// It is tried again: somebody told the event, and it must not be lost.
    Later,
    /// Whoever asked is told so, and asks again.
    Never,
}

/// A core with hands in the yard.
pub(super) trait Kind: Core {
    /// The actor, if it is awake.
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>>;

    /// How long the disk takes; `None`: nothing of the step is kept.
    fn disk(w: &mut World, who: &Who, step: &Pending<Self>) -> Option<Duration>;

    /// Whether the disk takes it when its time has come.
    fn takes(_w: &mut World, _who: &Who) -> Takes {
        Takes::Yes
    }

    /// Makes it durable.
    fn keep(w: &mut World, who: &Who, step: &Pending<Self>);

    /// Carries an effect out.
    fn perform(w: &mut World, who: &Who, effect: Self::Effect);

    /// After each step.
    fn show(_w: &mut World, _who: &Who, _verdict: &Verdict, _tag: Tag) {}

    /// What a reader sees of an event, and what the hash holds of it.
    fn said(event: &Self::Event) -> (String, String);
}

/// Puts an event into the actor's mailbox. One who is not awake hears nothing.
pub(super) fn tell<C: Kind>(w: &mut World, who: Who, event: C::Event, tag: Tag) {
    if let Some(actor) = C::of(w, &who) {
        actor.mailbox.push_back((event, tag));
        pump::<C>(w, who);
    }
}

/// What may have been lost is asked for again.
pub(super) fn resume<C: Kind>(w: &mut World, who: Who) {
    let now = w.now_at(&who);
    let Some(actor) = C::of(w, &who) else { return };
    let asked = actor.core.resume(now);
    set_timers::<C>(w, who, asked.timers);
    carry_out::<C>(w, who, asked.effects);
}

/// Something came back.
pub(super) fn later<C: Kind>(w: &mut World, who: Who, what: Later) {
    match what {
        Later::Durable => match C::takes(w, &who) {
            Takes::Later => w.come_back(AGAIN, who, Later::Durable),
            Takes::Never => {
                let Some(step) = C::of(w, &who).and_then(|actor| actor.pending.take()) else { return };
                let why = "the disk refuses".to_owned();
                C::show(w, &who, &Verdict::Ignored { why }, step.tag);
                pump::<C>(w, who);
            }
            Takes::Yes => {
                let Some(step) = C::of(w, &who).and_then(|actor| actor.pending.take()) else { return };
                C::keep(w, &who, &step);
                if let Some(actor) = C::of(w, &who) {
                    actor.pending = Some(step);
                }
                let known = w.weather.knows(&mut w.draw);
                w.come_back(known, who, Later::Known);
            }
        },
        Later::Known => {
            let Some(step) = C::of(w, &who).and_then(|actor| actor.pending.take()) else { return };
            recorded::<C>(w, who, step);
            pump::<C>(w, who);
        }
        Later::Timer(number) => {
            let Some(actor) = C::of(w, &who) else { return };
            let Some(at) = actor.timers.iter().position(|(_, set)| *set == number) else { return };
            let (timer, _) = actor.timers.remove(at);
            tell::<C>(w, who, C::elapsed(timer), Tag::Nobody);
        }
    }
}

/// Handles what waits, until a step is on its way to the disk.
fn pump<C: Kind>(w: &mut World, who: Who) {
    loop {
        let now = w.now_at(&who);
        let Some(actor) = C::of(w, &who).filter(|actor| actor.pending.is_none() && !actor.busy) else { return };
        let Some((event, tag)) = actor.mailbox.pop_front() else { return };
        let before = actor.core.clone();
        let Step { next, effects, timers, verdict } = before.step(&event, now);
        let Some(next) = next else {
            w.laws.effects_have_a_cause(C::KIND, effects.len(), || C::said(&event).0);
            note::<C>(w, who, &event, &verdict, None);
            set_timers::<C>(w, who, timers);
            C::show(w, &who, &verdict, tag);
            continue;
        };
        let (after, view) = (Arc::new(next), View::default());
        let mut step = Pending { before, after, event, effects, timers, verdict, view, tag };
        step.view = step.after.view();
        match C::disk(w, &who, &step) {
            Some(wait) => {
                if let Some(actor) = C::of(w, &who) {
                    actor.pending = Some(step);
                }
                w.come_back(wait, who, Later::Durable);
                return;
            }
            None => recorded::<C>(w, who, step),
        }
    }
}

/// Published, carried out, shown.
fn recorded<C: Kind>(w: &mut World, who: Who, step: Pending<C>) {
    note::<C>(w, who, &step.event, &step.verdict, Some(&step));
    let Some(actor) = C::of(w, &who) else { return };
    if actor.view.state != step.view.state {
        actor.timers.clear();
    }
    (actor.core, actor.view) = (step.after, step.view);
    set_timers::<C>(w, who, step.timers);
    carry_out::<C>(w, who, step.effects);
    C::show(w, &who, &step.verdict, step.tag);
}

fn carry_out<C: Kind>(w: &mut World, who: Who, effects: Vec<C::Effect>) {
    if let Some(actor) = C::of(w, &who) {
        actor.busy = true;
    }
    for effect in effects {
        C::perform(w, &who, effect);
    }
    if let Some(actor) = C::of(w, &who) {
        actor.busy = false;
    }
}

fn set_timers<C: Kind>(w: &mut World, who: Who, ops: Vec<TimerOp<C::Timer>>) {
    let mut due: Vec<(Timestamp, u64)> = Vec::new();
    let Some(actor) = C::of(w, &who) else { return };
    for op in ops {
        let (TimerOp::Arm { timer, .. } | TimerOp::Cancel { timer }) = op;
        actor.timers.retain(|(set, _)| *set != timer);
        if let TimerOp::Arm { timer, at } = op {
            actor.set += 1;
            actor.timers.push((timer, actor.set));
            due.push((at, actor.set));
        }
    }
    let now = w.now_at(&who);
    for (at, number) in due {
        w.come_back(at.since(now), who, Later::Timer(number));
    }
}

/// A line of the journal.
fn note<C: Kind>(w: &mut World, who: Who, event: &C::Event, verdict: &Verdict, step: Option<&Pending<C>>) {
    let (said, more) = C::said(event);
    let outcome = match (verdict, step) {
        (Verdict::Ignored { why }, _) => format!("ignored: {why}"),
        (Verdict::Refused { why, remedy }, _) => format!("refused: {why}; {remedy}"),
        (_, Some(step)) => match &step.view.wait {
            Some(wait) => format!("-> {} (waits for {}, owed by {})", step.view.state, wait.what, wait.owed_by),
            None => format!("-> {}", step.view.state),
        },
        (_, None) => String::new(),
    };
    let line = format!("{} {said} {outcome}", w.name(&who));
    let now = w.queue.now;
    w.journal.note(now, &line, &more);
    w.steps += 1;
}

impl World {
    /// Something comes back to an actor, unless its node dies before.
    pub(super) fn come_back(&mut self, wait: Duration, who: Who, later: Later) {
        let life = self.life_of(&who);
        self.queue.after(wait, Ev::Actor { who, life, later });
    }
}
