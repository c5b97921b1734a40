//! An actor's own timers by name. When they end and what they mean is the shell's and the core's business.

use std::{collections::HashMap, fmt::Debug, hash::Hash};

use actix::{Actor, AsyncContext, Context, SpawnHandle};
use schema::time::Timestamp;

/// The timers that run.
pub(super) struct Timers<T>(HashMap<T, (Timestamp, SpawnHandle)>);

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Copy + Eq + Hash + Debug> Timers<T> {
    /// Keeps a timer that was just started, instead of the one of that name.
    pub(super) fn arm<A>(&mut self, timer: T, at: Timestamp, handle: SpawnHandle, ctx: &mut Context<A>)
    where
        A: Actor<Context = Context<A>>,
    {
        if let Some((_, old)) = self.0.insert(timer, (at, handle)) {
            ctx.cancel_future(old);
        }
    }

    pub(super) fn cancel<A: Actor<Context = Context<A>>>(&mut self, timer: T, ctx: &mut Context<A>) {
        if let Some((_, handle)) = self.0.remove(&timer) {
            ctx.cancel_future(handle);
        }
    }

    /// Forgets a timer that has elapsed.
    pub(super) fn forget(&mut self, timer: T) {
        self.0.remove(&timer);
    }

    pub(super) fn clear<A: Actor<Context = Context<A>>>(&mut self, ctx: &mut Context<A>) {
        for (_, (_, handle)) in self.0.drain() {
            ctx.cancel_future(handle);
        }
    }

    /// Names and times, soonest first, for the inspector.
    pub(super) fn due(&self) -> Vec<(String, Timestamp)> {
        let mut due: Vec<_> = self.0.iter().map(|(timer, (at, _))| (format!("{timer:?}"), *at)).collect();
        due.sort_by_key(|(_, at)| *at);
        due
    }
}
