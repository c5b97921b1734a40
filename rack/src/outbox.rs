//! From what the servers saw to the region: into the store at once, over the first link that is up, again until acknowledged.
//!
//! Leases are not kept here: the subnets' store has them ([`leases`]).

mod leases;

use std::{collections::BTreeMap, time::Duration};

use actors::{
    core::TraceId,
    link::{
        bulk::BulkError,
        client::{LinkClient, LinkId},
        stream::SendError,
    },
    session,
};
use schema::{
    id::{AttemptId, ReportSeq, SystemId},
    messages::{
        link::FromRack,
        report::{Fact, Report},
    },
    time::Timestamp,
};
use tokio::sync::{mpsc, watch};

pub use self::leases::{Leases, send_known, send_leases};
use crate::{
    bodies::Bodies,
    deputies::Ears,
    report::Seen,
    state::{NewReport, State},
};

/// Reports in one record.
const BATCH: usize = 512;
/// How long facts gather that nobody waits for.
const LINGER: Duration = Duration::from_millis(50);
/// Bytes read from the store in one go.
const READ: usize = 512 * 1024;
/// Reports sent and not acknowledged.
const WINDOW: usize = 4_096;
/// After a transfer that broke off on a link that is up.
const AGAIN: Duration = Duration::from_secs(1);
/// No acknowledgement for this long, with reports out: they are sent again.
const SILENCE: Duration = Duration::from_secs(60);

/// A connection whose region has heard the rack's Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The last report that the region had when it came up.
    pub last: ReportSeq,
    /// Counts the connections, so that a quick return is not taken for the old one.
    pub number: u64,
}

/// The links that are ready for reports.
pub type Ready = watch::Sender<BTreeMap<LinkId, Session>>;

/// Puts what the servers saw into the store, until the last server is gone. Errands hear of machines that boot.
///
/// One machine's boot shows itself in a dozen facts within a moment: they gather, unless somebody waits until they are durable.
pub async fn gather(mut seen: mpsc::UnboundedReceiver<Seen>, state: State, leases: Leases, ears: Ears) {
    let mut batch = Vec::with_capacity(BATCH);
    while seen.recv_many(&mut batch, BATCH).await > 0 {
        let mut gathered = Gathered::default();
        gathered.take(&mut batch, &leases);
        let linger = tokio::time::sleep(LINGER);
        tokio::pin!(linger);
        while gathered.may_linger() {
            tokio::select! {
                more = seen.recv_many(&mut batch, BATCH) => if more == 0 { break },
                () = &mut linger => break,
            }
            gathered.take(&mut batch, &leases);
        }
        let Gathered { reports, settling, heard } = gathered;
        let mut pause = Duration::from_millis(100);
        while !reports.is_empty()
            && let Err(error) = state.report(reports.clone()).await
        {
            if matches!(error, crate::state::StateError::Closed) {
                tracing::error!(lost = reports.len(), "facts came after the store was closed and are lost");
                return;
            }
            tracing::error!(%error, waiting = reports.len(), "facts wait in memory until the disk takes them");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        settling.iter().for_each(|done| done.send(()).unwrap_or_default()); // Who waited may have gone.
        // After their record, so that the region hears the machine before the errand's end.
        for (machine, at) in heard {
            ears.heard(machine, at).await;
        }
    }
}

/// What becomes durable together.
#[derive(Default)]
struct Gathered {
    reports: Vec<NewReport>,
    settling: Vec<mpsc::UnboundedSender<()>>,
    heard: BTreeMap<SystemId, Timestamp>,
}

impl Gathered {
    /// Leases go on at once: they are durable already.
    fn take(&mut self, batch: &mut Vec<Seen>, leases: &Leases) {
        for one in batch.drain(..) {
            match one {
                Seen::Fact { machine, attempt, at, fact } => {
                    let trace = trace(machine, attempt);
                    tracing::debug!(%machine, %attempt, %trace, "seen of a machine");
                    if is_boot(&fact) {
                        self.heard.insert(machine, at);
                    }
                    self.reports.push(NewReport { machine, attempt, at, fact, trace });
                }
                Seen::Lease(lease) => leases.put(lease),
                Seen::LeasesThrough(through) => leases.through(through),
                Seen::Settle(done) => self.settling.push(done),
            }
        }
    }

    fn may_linger(&self) -> bool {
        self.settling.is_empty() && !self.reports.is_empty() && self.reports.len() < BATCH
    }
}

/// The trace of what is seen of an attempt; none of what belongs to no attempt.
fn trace(machine: SystemId, attempt: AttemptId) -> TraceId {
    if attempt == AttemptId(0) { TraceId::default() } else { TraceId::of_attempt(machine, attempt) }
}

/// What only a machine does that was switched on and boots. What a system says that runs already does not count.
fn is_boot(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Leased { .. }
            | Fact::FileFetched { .. }
            | Fact::PreseedFetched { .. }
            | Fact::UserDataFetched
            | Fact::ScriptsFetched { .. }
    )
}

/// Sends what waits, until the store's writer is gone. What is sent when, and what may be forgotten, is `actors::session`'s.
pub async fn send(
    client: LinkClient,
    state: State,
    bodies: Bodies,
    ready: Ready,
    mut acked: watch::Receiver<ReportSeq>,
) {
    let mut sending = Sending { client, state, bodies, link: None, session: session::Sending::new(WINDOW) };
    let (mut counts, mut links) = (sending.state.outbox(), ready.subscribe());
    loop {
        counts.mark_unchanged();
        let up = links.borrow_and_update().first_key_value().map(|(link, session)| (*link, *session));
        sending.choose(up);
        let through = *acked.borrow_and_update();
        sending.acked(through).await;
        let stuck = sending.drain().await.is_err() && sending.link.is_some();
        tokio::select! {
            changed = counts.changed() => if changed.is_err() { return },
            changed = links.changed() => if changed.is_err() { return },
            changed = acked.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if stuck => {}
            () = tokio::time::sleep(SILENCE), if sending.session.under_way() > 0 => {
                // The region answers with acknowledgements, or closes the connection; either way it goes on.
                tracing::warn!(out = sending.session.under_way(), after = %through, "no acknowledgement; what is out is sent again");
                sending.session.up(through);
            }
        }
    }
}

struct Sending {
    client: LinkClient,
    state: State,
    bodies: Bodies,
    /// The link that carries the reports.
    link: Option<(LinkId, Session)>,
    session: session::Sending,
}

impl Sending {
    /// The first link that is up carries the reports; a new one begins after what its region has.
    fn choose(&mut self, first: Option<(LinkId, Session)>) {
        if first != self.link {
            self.link = first;
            match first {
                Some((_, session)) => self.session.up(session.last),
                None => self.session.down(),
            }
        }
    }

    async fn acked(&mut self, through: ReportSeq) {
        if let Some(through) = self.session.acked(through)
            && let Err(error) = self.state.acked(through).await
        {
            tracing::debug!(%error, "acknowledged reports stay on disk; the region says again what it has when it is met");
        }
    }

    /// Sends what may be sent; fails when something is left that no event will bring up again.
    async fn drain(&mut self) -> Result<(), ()> {
        let Some((link, _)) = self.link else { return Ok(()) };
        while let Some(want) = self.session.wants() {
            let batch = match self.state.reports_after(want.after, READ) {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(%error, "reports cannot be read; they wait");
                    return Err(());
                }
            };
            if batch.is_empty() {
                return Ok(());
            }
            for (trace, report) in batch.into_iter().take(want.room) {
                let seq = report.seq;
                self.upload(link, &report).await?;
                match self.client.send(link, &FromRack::Report(report), trace).await {
                    Ok(()) => {}
                    Err(SendError::Codec(error)) => {
                        tracing::error!(%seq, %error, "a report cannot be sent and is skipped");
                    }
                    Err(_) => return Err(()),
                }
                self.session.sent(seq);
            }
        }
        Ok(())
    }

    /// Large outputs go before the report that names them.
    async fn upload(&self, link: LinkId, report: &Report) -> Result<(), ()> {
        let Fact::ScriptEnded { output, .. } = &report.fact else { return Ok(()) };
        let parts = [&output.combined, &output.stdout, &output.stderr, &output.result];
        for content in parts.into_iter().flatten().filter(|c| c.inline.is_none() && c.body.len > 0) {
            let Some(path) = self.bodies.path(content.body.sha256) else {
                tracing::error!(body = %content.body.sha256, machine = %report.machine, "an output is not in the body store; its report goes without");
                continue;
            };
            match self.client.store(link, content.body, &path).await {
                Ok(()) => {}
                Err(error @ (BulkError::Down | BulkError::Broke { .. })) => {
                    tracing::warn!(%error, "an upload broke off");
                    return Err(());
                }
                Err(error) => {
                    tracing::error!(%error, machine = %report.machine, "the region does not take an output; its report goes without");
                }
            }
        }
        Ok(())
    }
}
