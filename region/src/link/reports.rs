//! One report's way to its machine: read, handed over in order, tried again until its step is durable.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{
    clock,
    core::TraceId,
    session::{Receiving, Taken},
    shell::{ActorRef, AskError},
};
use futures_util::{FutureExt, future::BoxFuture};
use schema::{
    id::{RackId, ReportSeq},
    messages::{link::ToRack, machine::MachineEvent, report::Report},
};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::derive;
use crate::{
    app::{App, Missing},
    links::ToDo,
};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Reports of one rack that may be on their way at once.
const IN_FLIGHT: usize = 256;

/// Where one connection's reports arrive. What is under way goes on when the connection ends: the session outlives it.
pub(super) struct Desk {
    app: App,
    rack: RackId,
    session: Arc<Mutex<Receiving>>,
    room: Arc<Semaphore>,
}

impl Desk {
    /// For a connection that has just begun.
    pub(super) fn new(app: &App, rack: RackId) -> Self {
        let session = app.links.session(rack, ReportSeq(0));
        lock(&session).connected();
        Self { app: app.clone(), rack, session, room: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// Takes a report; waits while too many are under way.
    ///
    /// # Errors
    /// When the rack's side has a fault, so that the connection must begin anew: why.
    pub(super) async fn take(&self, report: Report, trace: TraceId) -> Result<(), String> {
        let came = clock::tick();
        let taken = lock(&self.session).take(report.seq);
        match taken {
            Taken::New => {}
            Taken::UnderWay => return Ok(()),
            Taken::Repeat { through } => {
                self.app.links.queue(self.rack, ToDo::Say(Box::new(ToRack::Ack { through })), trace);
                return Ok(());
            }
            Taken::OutOfOrder { after } => return Err(format!("report {} came after report {after}", report.seq)),
        }
        let Ok(room) = self.room.clone().acquire_owned().await else { return Ok(()) };
        // What waits for its own machine says nothing of the load.
        let alone = self.app.awake_machine(report.machine).is_none_or(|actor| actor.probe().depth() == 0);
        let under_way = hand_over(&self.app, self.rack, report, trace).await;
        let (app, rack, session) = (self.app.clone(), self.rack, self.session.clone());
        self.app.runtime.spawn(async move {
            let seq = under_way.await;
            drop(room);
            if alone {
                app.turns.heard(came.elapsed(), clock::tick());
            }
            // Queued while the session is locked, so that acknowledgements only grow.
            let mut session = lock(&session);
            if let Some(through) = session.durable(seq) {
                app.links.queue(rack, ToDo::Say(Box::new(ToRack::Ack { through })), trace);
            }
        });
        Ok(())
    }
}

fn lock(session: &Mutex<Receiving>) -> MutexGuard<'_, Receiving> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands the report over. When this returns, its event stands in its machine's mailbox (or waits for room there, in order);
/// the future it returns ends when the step is durable, and says which report it was.
async fn hand_over(app: &App, rack: RackId, report: Report, trace: TraceId) -> BoxFuture<'static, ReportSeq> {
    let seq = report.seq;
    let machine = report.machine;
    let derived = derive::derive(app, &report).await;
    let told = report.clone();
    let event = MachineEvent::Reported { rack, report, derived };
    let app = app.clone();
    let actor = match app.machine(machine).await {
        Ok(actor) => Some(actor),
        Err(Missing::NotThere { .. }) => {
            debug!(%rack, %machine, %seq, "a report of a machine that is not here");
            return async move { seq }.boxed();
        }
        Err(error) => {
            warn!(%rack, %machine, %seq, %error, "a report waits");
            None
        }
    };
    app.learn(rack, &told);
    // `ask` takes its place in the mailbox at its first poll, which is now: later reports come after it.
    let mut first = actor.map(|actor: ActorRef<_>| actor.ask(event.clone(), trace).boxed());
    let early = match &mut first {
        Some(asked) => asked.now_or_never(),
        None => None,
    };
    async move {
        let mut answer = match (early, first) {
            (Some(answer), _) => Some(answer),
            (None, Some(asked)) => Some(asked.await),
            (None, None) => None,
        };
        let mut pause = FIRST_RETRY;
        loop {
            match answer {
                Some(Ok(_)) => return seq,
                Some(Err(AskError::Gone { .. })) => {}
                Some(Err(error)) => {
                    warn!(%rack, %machine, %seq, %error, "a report is handed over again");
                    tokio::time::sleep(pause).await;
                    pause = LONGEST_RETRY.min(pause * 2);
                }
                None => tokio::time::sleep(pause).await,
            }
            answer = match app.machine(machine).await {
                Ok(actor) => Some(actor.ask(event.clone(), trace).await),
                Err(Missing::NotThere { .. }) => return seq,
                Err(_) => None,
            };
        }
    }
    .boxed()
}
