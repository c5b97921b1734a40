//! One report's way to its machine: read, handed over in order, tried again until its step is durable.

use std::time::Duration;

use actors::{
    core::TraceId,
    shell::{ActorRef, AskError},
};
use futures_util::{FutureExt, future::BoxFuture};
use schema::{
    id::{RackId, ReportSeq},
    messages::{machine::MachineEvent, report::Report},
};
use tracing::{debug, warn};

use super::derive;
use crate::app::{App, Missing};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Hands the report over. When this returns, its event stands in its machine's mailbox (or waits for room there, in order);
/// the future it returns ends when the step is durable, and says which report it was.
pub(super) async fn hand_over(
    app: &App,
    rack: RackId,
    report: Report,
    trace: TraceId,
) -> BoxFuture<'static, ReportSeq> {
    let seq = report.seq;
    let machine = report.machine;
    let derived = derive::derive(app, &report).await;
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
