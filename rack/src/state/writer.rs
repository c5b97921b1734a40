//! The one thread that writes: gathers what is queued into one transaction, so that one flush to the disk serves many.

use std::{
    iter,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use actors::clock;
use redb::ReadableTable;
use schema::{
    codec::{self, TraceParent},
    id::ReportSeq,
    messages::{
        link::FromRack,
        report::{Fact, Report},
    },
};
use tokio::sync::{oneshot, watch};

use super::{
    NewReport, OutboxCounts, OutboxLimits, StateError,
    outbox::Index,
    rows::{Op, Table},
};
use crate::disk::Stored;

/// Jobs in one transaction at most.
const BATCH: usize = 1_024;
/// How often a disk that refused is looked at when nobody writes.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// An acknowledgement goes to the disk with the next write, or after this. One that a kill takes away is heard again when the region is met.
const ACKED_LATEST: Duration = Duration::from_secs(1);
const LAST: &[u8] = b"last";

/// Something to write, and whom to tell.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) done: oneshot::Sender<Result<(), StateError>>,
}

/// What belongs into one transaction.
#[derive(Default)]
pub(super) struct Work {
    pub(super) ops: Vec<Op>,
    pub(super) reports: Vec<NewReport>,
    pub(super) acked: Option<ReportSeq>,
    pub(super) number_above: Option<ReportSeq>,
}

impl Work {
    /// It acknowledges, and nothing else: the disk need not be woken for it.
    fn is_ack(&self) -> bool {
        self.acked.is_some() && self.ops.is_empty() && self.reports.is_empty() && self.number_above.is_none()
    }
}

/// The writer's side of the store.
pub(super) struct Writer {
    dir: PathBuf,
    db: Arc<Stored>,
    limits: OutboxLimits,
    index: Index,
    /// The last number given out.
    last: u64,
    dropped: u64,
    /// Reports up to there are acknowledged, and still on the disk.
    acked: Option<ReportSeq>,
    /// A write failed: what waits, and the last number, are read again first.
    stale: bool,
    counts: watch::Sender<OutboxCounts>,
}

impl Writer {
    /// Reads which reports wait.
    pub(super) fn open(
        dir: PathBuf,
        db: Arc<Stored>,
        limits: OutboxLimits,
        counts: watch::Sender<OutboxCounts>,
    ) -> Result<Self, StateError> {
        let mut writer =
            Self { dir, db, limits, index: Index::new(limits), last: 0, dropped: 0, acked: None, stale: true, counts };
        writer.reload()?;
        writer.publish();
        Ok(writer)
    }

    fn reload(&mut self) -> Result<(), StateError> {
        let failed = |e: &dyn std::fmt::Display| StateError::Row { table: "outbox", why: e.to_string() };
        self.index = Index::new(self.limits);
        self.last = 0;
        let read = self.db.begin_read().map_err(|e| failed(&e))?;
        let (meta, outbox) = (read.open_table(Table::Meta.definition()), read.open_table(Table::Outbox.definition()));
        if let Ok(meta) = meta
            && let Some(last) = meta.get(LAST).map_err(|e| failed(&e))?
        {
            self.last = last.value().try_into().map_or(0, u64::from_be_bytes);
        }
        if let Ok(outbox) = outbox {
            for entry in outbox.iter().map_err(|e| failed(&e))? {
                let (key, frame) = entry.map_err(|e| failed(&e))?;
                let Ok(seq) = key.value().try_into().map(u64::from_be_bytes) else { continue };
                let frame = frame.value();
                let decoded = codec::decode::<FromRack>(frame.get(codec::PREFIX..).unwrap_or_default());
                let fact = match decoded {
                    Ok((_, FromRack::Report(report))) => report.fact,
                    _ => Fact::Heartbeat, // Unreadable: the first to go. Reading it logs why.
                };
                self.index.add(seq, frame.len() as u64, &fact);
            }
        }
        self.last = self.last.max(self.index.last().unwrap_or(0));
        self.stale = false;
        Ok(())
    }

    /// Until every sender is gone.
    pub(super) fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Some(batch) = self.next(jobs) {
            let (work, dones): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.work, job.done)).unzip();
            self.acked = self.acked.max(work.iter().filter_map(|work| work.acked).max());
            let written = if work.iter().all(Work::is_ack) { Ok(()) } else { self.write(&work) };
            for done in dones {
                done.send(written.clone()).ok(); // The asker may have gone; the write stands.
            }
        }
    }

    /// What is queued; `None` when every sender is gone. Acknowledgements that waited long enough are written meanwhile.
    fn next(&mut self, jobs: &mpsc::Receiver<Job>) -> Option<Vec<Job>> {
        loop {
            let patience = if self.acked.is_some() { ACKED_LATEST } else { LOOK_AGAIN };
            match jobs.recv_timeout(patience) {
                Ok(first) => return Some(iter::once(first).chain(jobs.try_iter().take(BATCH)).collect()),
                Err(mpsc::RecvTimeoutError::Timeout) if self.acked.is_some() => drop(self.write(&[])),
                Err(mpsc::RecvTimeoutError::Timeout) => self.db.disk().look_again(&self.dir),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn write(&mut self, work: &[Work]) -> Result<(), StateError> {
        let written = self.commit(work);
        self.db.ended(&written, clock::now());
        if let Err(error) = &written {
            tracing::error!(%error, "nothing of a batch was written");
            self.stale = true;
            if let Err(error) = self.reload() {
                tracing::error!(%error, "the outbox cannot be read back yet");
            }
        }
        self.publish();
        written
    }

    fn publish(&self) {
        if self.stale {
            return; // What is known was not written.
        }
        let counts = OutboxCounts { last: ReportSeq(self.last), waiting: self.index.len(), dropped: self.dropped };
        self.counts.send_if_modified(|old| std::mem::replace(old, counts) != counts);
    }

    fn commit(&mut self, batch: &[Work]) -> Result<(), StateError> {
        let failed = |e: &dyn std::fmt::Display| StateError::Write(e.to_string());
        if self.stale {
            self.reload()?;
        }
        let write = self.db.begin_write().map_err(|e| failed(&e))?;
        if let Some(through) = self.acked.take() {
            remove(&write, &self.index.acked(through.0))?;
        }
        for work in batch {
            for op in &work.ops {
                apply(&write, op)?;
            }
            if let Some(last) = work.number_above {
                self.number_above(&write, last.0)?;
            }
            if !work.reports.is_empty() {
                self.add(&write, &work.reports)?;
            }
        }
        write.commit().map_err(|e| failed(&e))
    }

    fn add(&mut self, write: &redb::WriteTransaction, reports: &[NewReport]) -> Result<(), StateError> {
        for new in reports {
            let seq = ReportSeq(self.last + 1);
            let report = Report { seq, at: new.at, machine: new.machine, attempt: new.attempt, fact: new.fact.clone() };
            let parent = TraceParent { trace: new.trace.0, span: 0 };
            let frame = match codec::encode(&FromRack::Report(report), parent, seq.0) {
                Ok(frame) => frame,
                Err(error) => {
                    self.dropped += 1;
                    tracing::error!(machine = %new.machine, %error, "a report cannot be sent and is lost");
                    continue;
                }
            };
            self.index.add(seq.0, frame.len() as u64, &new.fact);
            self.last = seq.0;
            apply(write, &Op::Put { table: Table::Outbox, key: seq.0.to_be_bytes().into(), value: frame })?;
        }
        self.keep_last(write)?;
        let gone = self.index.overflow();
        if !gone.is_empty() {
            self.dropped += gone.len() as u64;
            tracing::warn!(
                now = gone.len(),
                ever = self.dropped,
                "the outbox is full; the cheapest reports were dropped"
            );
        }
        remove(write, &gone)
    }

    /// A region that knows more reports than were ever numbered here has met an earlier state directory of this rack:
    /// what waits gets numbers above those, or the region would take it for repeats.
    fn number_above(&mut self, write: &redb::WriteTransaction, known: u64) -> Result<(), StateError> {
        if known <= self.last {
            return Ok(());
        }
        let failed = |e: &dyn std::fmt::Display| StateError::Write(e.to_string());
        let mut waiting = Vec::new();
        {
            let outbox = write.open_table(Table::Outbox.definition()).map_err(|e| failed(&e))?;
            for entry in outbox.iter().map_err(|e| failed(&e))? {
                let (_, frame) = entry.map_err(|e| failed(&e))?;
                let frame = frame.value().get(codec::PREFIX..).unwrap_or_default();
                if let Ok((envelope, FromRack::Report(Report { at, machine, attempt, fact, .. }))) =
                    codec::decode(frame)
                {
                    let trace = actors::core::TraceId(envelope.parent.trace);
                    waiting.push(NewReport { machine, attempt, at, fact, trace });
                }
            }
        }
        tracing::warn!(
            known,
            numbered = self.last,
            waiting = waiting.len(),
            "the region knows later reports of this rack; numbering goes on above"
        );
        let gone = self.index.acked(u64::MAX);
        remove(write, &gone)?;
        self.last = known;
        self.add(write, &waiting)
    }

    fn keep_last(&self, write: &redb::WriteTransaction) -> Result<(), StateError> {
        apply(write, &Op::Put { table: Table::Meta, key: LAST.into(), value: self.last.to_be_bytes().into() })
    }
}

fn remove(write: &redb::WriteTransaction, seqs: &[u64]) -> Result<(), StateError> {
    seqs.iter().try_for_each(|seq| apply(write, &Op::Remove { table: Table::Outbox, key: seq.to_be_bytes().into() }))
}

fn apply(write: &redb::WriteTransaction, op: &Op) -> Result<(), StateError> {
    let failed = |e: &dyn std::fmt::Display| StateError::Write(e.to_string());
    let (Op::Put { table, .. } | Op::Remove { table, .. } | Op::RemovePrefix { table, .. }) = op;
    let mut open = write.open_table(table.definition()).map_err(|e| failed(&e))?;
    match op {
        Op::Put { key, value, .. } => {
            open.insert(key.as_slice(), value.as_slice()).map_err(|e| failed(&e))?;
        }
        Op::Remove { key, .. } => {
            open.remove(key.as_slice()).map_err(|e| failed(&e))?;
        }
        Op::RemovePrefix { prefix, .. } => {
            // No key is that much longer than its prefix.
            let end = [prefix.as_slice(), &[0xff; 64]].concat();
            open.retain_in::<&[u8], _>(prefix.as_slice()..=end.as_slice(), |_, _| false).map_err(|e| failed(&e))?;
        }
    }
    Ok(())
}
