//! The errand actors of a rack and their hands: driver runs, records, the facts that go with them. What to do is decided in `actors::errand`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use actors::{
    agent::{Agent, AgentEvent},
    clock,
    core::{Moved, RecordError, TraceId, Verdict},
    errand::{Errand, ErrandEffect, ErrandEvent},
    shell::{self, ActorRef, ArbiterHandle, Busy, LocalBoxFuture, Perform, Registry},
};
use schema::{
    id::{AttemptId, Generation, SystemId},
    messages::link::Order,
    time::Timestamp,
};
use tokio::task::AbortHandle;

use crate::{
    power::Drivers,
    state::{NewReport, State},
};

/// A full mailbox is tried again this often.
const AGAIN: Duration = Duration::from_millis(50);

/// One errand actor per machine whose power this rack was ever given. Cloned freely.
#[derive(Clone)]
pub struct Deputies(Arc<Inner>);

/// See [`Deputies::ears`].
pub struct Ears(Weak<Inner>);

impl Ears {
    /// The machine booted under its ticket, then. Its errand hears of it only while that decides anything.
    pub async fn heard(&self, machine: SystemId, at: Timestamp) {
        let Some(deputies) = self.0.upgrade().map(Deputies) else { return };
        let listens = {
            let errands = deputies.0.errands.lock().unwrap_or_else(PoisonError::into_inner);
            errands.get(&machine).is_some_and(|errand| errand.snapshot().listens())
        };
        if listens {
            deputies.tell(machine, ErrandEvent::Heard { at }, TraceId::default()).await;
        }
    }
}

struct Inner {
    errands: Mutex<HashMap<SystemId, ActorRef<Errand>>>,
    arbiter: ArbiterHandle,
    registry: Registry,
    hands: Hands,
}

impl Deputies {
    /// Wakes every errand that the store kept. `runtime` carries the driver runs.
    #[must_use]
    pub fn start(
        kept: Vec<Errand>,
        arbiter: ArbiterHandle,
        registry: Registry,
        state: State,
        drivers: Drivers,
        agent: ActorRef<Agent>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let hands = Hands(Arc::new(Work { state, drivers, agent, runtime, runs: Mutex::default() }));
        let deputies = Self(Arc::new(Inner { errands: Mutex::default(), arbiter, registry, hands }));
        for errand in kept {
            let mut errands = deputies.0.errands.lock().unwrap_or_else(PoisonError::into_inner);
            errands.insert(errand.machine, deputies.spawn(errand, true));
        }
        deputies
    }

    /// Hands an order to its machine's errand.
    pub async fn order(&self, order: Order, trace: TraceId) {
        let machine = order.machine;
        self.tell(machine, ErrandEvent::Ordered { order: Box::new(order) }, trace).await;
    }

    /// Whether an order for that machine is under way.
    #[must_use]
    pub fn busy(&self, machine: SystemId) -> bool {
        let errands = self.0.errands.lock().unwrap_or_else(PoisonError::into_inner);
        errands.get(&machine).is_some_and(|errand| errand.snapshot().under_way().is_some())
    }

    /// Who tells the errands what was heard of their machines, and keeps none of them alive.
    #[must_use]
    pub fn ears(&self) -> Ears {
        Ears(Arc::downgrade(&self.0))
    }

    /// Takes an attempt's order back.
    pub async fn cancel(&self, machine: SystemId, attempt: AttemptId, trace: TraceId) {
        self.tell(machine, ErrandEvent::Cancelled { attempt }, trace).await;
    }

    /// Ends every driver run. The errands stand in the store and go on at the next start.
    pub fn stop(&self) {
        let mut runs = self.0.hands.0.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.drain().for_each(|(_, run)| run.abort());
    }

    async fn tell(&self, machine: SystemId, event: ErrandEvent, trace: TraceId) {
        loop {
            let errand = {
                let mut errands = self.0.errands.lock().unwrap_or_else(PoisonError::into_inner);
                errands.entry(machine).or_insert_with(|| self.spawn(Errand::idle(machine), false)).clone()
            };
            match errand.tell(event.clone(), trace) {
                Ok(()) => return,
                Err(Busy::Full { .. }) => tokio::time::sleep(AGAIN).await,
                Err(Busy::Gone { .. }) => {
                    self.0.errands.lock().unwrap_or_else(PoisonError::into_inner).remove(&machine);
                }
            }
        }
    }

    fn spawn(&self, errand: Errand, resumed: bool) -> ActorRef<Errand> {
        shell::spawn(&self.0.arbiter, errand, Generation(0), self.0.hands.clone(), &self.0.registry, resumed)
    }
}

/// What errands work with.
#[derive(Clone)]
struct Hands(Arc<Work>);

struct Work {
    state: State,
    drivers: Drivers,
    agent: ActorRef<Agent>,
    runtime: tokio::runtime::Handle,
    /// Driver runs under way or queued, by machine and number.
    runs: Mutex<HashMap<(SystemId, u32), AbortHandle>>,
}

impl Perform<Errand> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    /// The errand and the facts that it reports stand or fall together.
    fn record(&self, moved: Moved<Errand>) -> LocalBoxFuture<'static, Result<(), RecordError>> {
        let work = self.0.clone();
        Box::pin(async move {
            let machine = moved.id;
            let reports = moved.effects.iter().filter_map(|effect| match effect {
                ErrandEffect::Report { attempt, at, fact } => {
                    Some(NewReport { machine, attempt: *attempt, at: *at, fact: fact.clone(), trace: moved.trace })
                }
                _ => None,
            });
            let kept = work.state.keep_errand(&moved.after, reports.collect()).await;
            kept.map_err(|e| RecordError::Unavailable(e.to_string()))
        })
    }

    fn perform(&self, me: &ActorRef<Errand>, effect: ErrandEffect, trace: TraceId) {
        let (work, machine) = (self.0.clone(), *me.id());
        match effect {
            ErrandEffect::RunPower { run, action, access } => {
                let (me, inner) = (me.clone(), work.clone());
                let mut runs = work.runs.lock().unwrap_or_else(PoisonError::into_inner);
                let task = work.runtime.spawn(async move {
                    let result = inner.drivers.run(action, &access).await;
                    inner.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&(machine, run));
                    while let Err(Busy::Full { .. }) = me.tell(ErrandEvent::Ran { run, result: result.clone() }, trace)
                    {
                        tokio::time::sleep(AGAIN).await;
                    }
                });
                runs.insert((machine, run), task.abort_handle());
            }
            ErrandEffect::StopPower { run } => {
                if let Some(task) = work.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&(machine, run)) {
                    task.abort();
                }
            }
            ErrandEffect::Report { .. } => {} // Written with the record.
        }
    }

    fn show(&self, me: &ActorRef<Errand>, _verdict: &Verdict) {
        let errand = me.snapshot();
        let machine = errand.machine;
        let event = match errand.under_way() {
            Some(attempt) => AgentEvent::OrderHeld { machine, attempt },
            None => AgentEvent::OrderOver { machine, attempt: errand.progress.attempt },
        };
        // What the rack says of its orders is only for show; a full mailbox loses nothing that counts.
        self.0.agent.tell(event, TraceId::default()).ok();
    }
}
