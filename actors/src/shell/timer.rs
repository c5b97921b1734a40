//! An actor's own timers by name. When they end and what they mean is the shell's and the core's business.

use std::{collections::HashMap, fmt::Debug, hash::Hash};

use actix::{Actor, AsyncContext, Context, SpawnHandle};
use schema::time::Timestamp;

/// The timers that run.
pub(super) struct Timers<T> {
    running: HashMap<T, Running>,
    /// Numbers given so far.
    given: u64,
}

struct Running {
    number: u64,
    at: Timestamp,
    handle: SpawnHandle,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { running: HashMap::new(), given: 0 }
    }
}

impl<T: Copy + Eq + Hash + Debug> Timers<T> {
    /// The number of a timer that is about to be started; never given twice.
    pub(super) fn number(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    /// Keeps a timer that was just started under that number, instead of the one of that name.
    pub(super) fn arm<A>(&mut self, timer: T, number: u64, at: Timestamp, handle: SpawnHandle, ctx: &mut Context<A>)
    where
        A: Actor<Context = Context<A>>,
    {
        if let Some(old) = self.running.insert(timer, Running { number, at, handle }) {
            ctx.cancel_future(old.handle);
        }
    }

    pub(super) fn cancel<A: Actor<Context = Context<A>>>(&mut self, timer: T, ctx: &mut Context<A>) {
        if let Some(old) = self.running.remove(&timer) {
            ctx.cancel_future(old.handle);
        }
    }

    /// Takes out a timer that has elapsed, with its time; `None`: it was cancelled meanwhile. What is due already when it is cancelled elapses
    /// all the same, since actix clears away at the end of a round.
    pub(super) fn take(&mut self, timer: T, number: u64) -> Option<Timestamp> {
        self.running.get(&timer).filter(|running| running.number == number)?;
        self.running.remove(&timer).map(|running| running.at)
    }

    pub(super) fn clear<A: Actor<Context = Context<A>>>(&mut self, ctx: &mut Context<A>) {
        for (_, old) in self.running.drain() {
            ctx.cancel_future(old.handle);
        }
    }

    /// Names and times, soonest first, for the inspector.
    pub(super) fn due(&self) -> Vec<(String, Timestamp)> {
        let mut due: Vec<_> = self.running.iter().map(|(timer, one)| (format!("{timer:?}"), one.at)).collect();
        due.sort_by_key(|(_, at)| *at);
        due
    }
}
