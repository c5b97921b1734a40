//! What a rack keeps on disk: plan, errands, reports that wait. One embedded file, sealed rows, one writer; leases are the subnets' own.
//!
//! Durable means: the write's future has resolved. A kill at any later moment loses nothing of it.
//! Where too many reports wait, the oldest of the cheapest kind goes first, and is counted ([`OutboxCounts::dropped`]).

pub mod outbox;
pub mod rows;
pub mod seal;
mod writer;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use actors::{core::TraceId, errand::Errand};
use redb::TableDefinition;
use schema::{
    codec::CodecError,
    id::{AttemptId, ReportSeq, SystemId},
    messages::{
        link::{FromRack, PlanUpdate},
        report::{Fact, Report},
    },
    plan::Plan,
    time::Timestamp,
};
use tokio::sync::{oneshot, watch};

pub use self::outbox::OutboxLimits;
use self::{
    rows::{Op, Table},
    seal::{KeyError, Seal, SealError},
    writer::{Job, Work},
};
use crate::disk::{Disk, Stored};

/// The rack's store. Cloned freely.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    db: Arc<Stored>,
    seal: Seal,
    writer: Mutex<Option<(mpsc::Sender<Job>, thread::JoinHandle<()>)>>,
    reported: watch::Receiver<OutboxCounts>,
}

/// The outbox in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// The last report that is durable.
    pub last: ReportSeq,
    /// Reports that wait for the region's acknowledgement.
    pub waiting: usize,
    /// Reports thrown away since the start, since too many waited.
    pub dropped: u64,
}

/// A report before it has its number.
#[derive(Debug, Clone)]
pub struct NewReport {
    pub machine: SystemId,
    pub attempt: AttemptId,
    pub at: Timestamp,
    pub fact: Fact,
    pub trace: TraceId,
}

/// Why the store cannot do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    #[error("the state directory {dir}: {why}; make it writable for this user, on a disk that is not full")]
    Directory { dir: PathBuf, why: String },
    #[error("{file} is in use by another rack process; stop that one, or give this one a --state directory of its own")]
    InUse { file: PathBuf },
    #[error("{file} cannot be opened: {why}; restore it, or move the state directory away and enrol anew")]
    File { file: PathBuf, why: String },
    #[error("{0}")]
    Key(String),
    #[error("a row of table {table}: {why}; move the state directory away: the region sends the plan again")]
    Row { table: &'static str, why: String },
    #[error("the store cannot write: {0}; look at the disk of the state directory")]
    Write(String),
    #[error("the store is closed: the rack is shutting down")]
    Closed,
}

impl From<KeyError> for StateError {
    fn from(error: KeyError) -> Self {
        Self::Key(error.to_string())
    }
}

impl State {
    /// Opens (and makes, mode 0700) the state directory with its key `rack.key` and its store `rack.redb`.
    ///
    /// # Errors
    /// [`StateError`], each with its remedy.
    pub fn open(dir: &Path, limits: OutboxLimits) -> Result<Self, StateError> {
        let failed = |e: io::Error| StateError::Directory { dir: dir.into(), why: e.to_string() };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let seal = Seal::open(&dir.join("rack.key"))?;
        let path = dir.join("rack.redb");
        drop(file(&path).map_err(failed)?);
        let place = path.clone();
        let open = move || {
            let backend = redb::backends::FileBackend::new(file(&place).map_err(redb::Error::Io)?)?;
            Ok(redb::Builder::new().set_cache_size(16 << 20).create_with_backend(backend)?)
        };
        let db = Arc::new(Stored::open(Disk::default(), open).map_err(|e| match e {
            redb::Error::DatabaseAlreadyOpen => StateError::InUse { file: path.clone() },
            e => StateError::File { file: path.clone(), why: e.to_string() },
        })?);
        let (counts, reported) = watch::channel(OutboxCounts::default());
        let start = writer::Writer::open(dir.into(), db.clone(), limits, counts)?;
        let (sender, jobs) = mpsc::channel();
        let thread =
            thread::Builder::new().name("rack-store".into()).spawn(move || start.run(&jobs)).map_err(failed)?;
        let writer = Mutex::new(Some((sender, thread)));
        Ok(Self(Arc::new(Inner { dir: dir.into(), db, seal, writer, reported })))
    }

    /// Whether its disk takes what is written. Others that write there say so, too.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        self.0.db.disk()
    }

    /// The state directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The plan as it was last made durable.
    ///
    /// # Errors
    /// When a row is damaged.
    pub fn plan(&self) -> Result<Plan, StateError> {
        rows::plan(self)
    }

    /// Makes an update durable, in one transaction. That it fits the plan that stands is the caller's to check.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it then stands.
    pub async fn apply(&self, update: &PlanUpdate) -> Result<(), StateError> {
        let ops = rows::of_update(self, update)?;
        self.write(Work { ops, ..Work::default() }).await
    }

    /// Every errand that was ever kept.
    ///
    /// # Errors
    /// When a row is damaged.
    pub fn errands(&self) -> Result<Vec<Errand>, StateError> {
        rows::errands(self)
    }

    /// Makes a step of an errand durable, together with the facts that it reports.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it then stands.
    pub async fn keep_errand(&self, errand: &Errand, reports: Vec<NewReport>) -> Result<(), StateError> {
        let ops = vec![rows::of_errand(self, errand)?];
        self.write(Work { ops, reports, ..Work::default() }).await
    }

    /// Puts reports into the outbox. They have their numbers and are durable when this resolves.
    ///
    /// # Errors
    /// When they cannot be written.
    pub async fn report(&self, reports: Vec<NewReport>) -> Result<(), StateError> {
        self.write(Work { reports, ..Work::default() }).await
    }

    /// Reports that wait, from the one after `after`, until about `bytes` are gathered; at least one if there is one.
    ///
    /// # Errors
    /// When the disk refuses. A damaged report is skipped and logged.
    pub fn reports_after(&self, after: ReportSeq, bytes: usize) -> Result<Vec<(TraceId, Report)>, StateError> {
        let mut found = Vec::new();
        let mut size = 0;
        let from = after.0.saturating_add(1).to_be_bytes();
        self.scan(Table::Outbox, Some(&from), |_, frame| {
            match schema::codec::decode::<FromRack>(frame.get(schema::codec::PREFIX..).unwrap_or_default()) {
                Ok((envelope, FromRack::Report(report))) => found.push((TraceId(envelope.parent.trace), report)),
                Ok(_) => tracing::error!("a row of the outbox is no report; it is skipped"),
                Err(error) => tracing::error!(%error, "a report of the outbox cannot be read; it is skipped"),
            }
            size += frame.len();
            Ok(size < bytes)
        })?;
        Ok(found)
    }

    /// The region has every report up to and with `through`. They leave the disk with the next write, or within a second.
    ///
    /// # Errors
    /// When the store is closed.
    pub async fn acked(&self, through: ReportSeq) -> Result<(), StateError> {
        self.write(Work { acked: Some(through), ..Work::default() }).await
    }

    /// The region knows reports of this rack up to `last`: what waits with lower numbers than a new state directory gave out is numbered anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn number_above(&self, last: ReportSeq) -> Result<(), StateError> {
        self.write(Work { number_above: Some(last), ..Work::default() }).await
    }

    /// The outbox in numbers, changing as reports become durable.
    #[must_use]
    pub fn outbox(&self) -> watch::Receiver<OutboxCounts> {
        self.0.reported.clone()
    }

    /// Writes what is queued and closes the file. Later writes fail with [`StateError::Closed`].
    pub async fn close(&self) {
        let taken = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = taken {
            drop(sender);
            tokio::task::spawn_blocking(move || thread.join().ok()).await.ok(); // Its panic was logged.
        }
    }

    async fn write(&self, work: Work) -> Result<(), StateError> {
        let (done, written) = oneshot::channel();
        {
            let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let (sender, _) = writer.as_ref().ok_or(StateError::Closed)?;
            sender.send(Job { work, done }).map_err(|_| StateError::Closed)?;
        }
        written.await.map_err(|_| StateError::Closed)?
    }

    /// Calls `each` with every row of a table from that key on, until it says stop.
    fn scan(
        &self,
        table: Table,
        from: Option<&[u8]>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, StateError>,
    ) -> Result<(), StateError> {
        let row = |e: &dyn std::fmt::Display| StateError::Row { table: table.name(), why: e.to_string() };
        let read = self.0.db.begin_read().map_err(|e| row(&e))?;
        let open = match read.open_table(table.definition()) {
            Ok(open) => open,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(e) => return Err(row(&e)),
        };
        for entry in open.range::<&[u8]>(from.unwrap_or_default()..).map_err(|e| row(&e))? {
            let (key, value) = entry.map_err(|e| row(&e))?;
            if !each(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }

    fn put(&self, table: Table, key: &[u8], plain: &[u8]) -> Result<Op, StateError> {
        let value = self.0.seal.seal(&place(table, key), plain).map_err(|e| sealed(table, e))?;
        Ok(Op::Put { table, key: key.into(), value })
    }

    fn unseal(&self, table: Table, key: &[u8], row: &[u8]) -> Result<Vec<u8>, StateError> {
        self.0.seal.unseal(&place(table, key), row).map_err(|e| sealed(table, e))
    }
}

fn file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn place(table: Table, key: &[u8]) -> Vec<u8> {
    [table.name().as_bytes(), b"/", key].concat()
}

fn sealed(table: Table, error: SealError) -> StateError {
    StateError::Row { table: table.name(), why: error.to_string() }
}

fn unreadable(table: Table, error: &CodecError) -> StateError {
    StateError::Row { table: table.name(), why: error.to_string() }
}

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
