//! The store: what durable means here. A step of an actor, its journal row and its projections are one transaction;
//! a writer gathers the steps of a few milliseconds into one commit. Queries live in [`queries`], decisions nowhere here.

use std::{fmt, sync::Arc, time::Duration};

use actors::{
    clock,
    core::{RecordError, TraceId},
    machine::Machine,
    reach::Reached,
    shell::inspect::Histogram,
};
use diesel::{QueryResult, r2d2::Pool};
use schema::{
    id::{Generation, RackId, ReportSeq, SystemId},
    plan::Lease,
    projection::{EventLine, Projection},
    time::Timestamp,
};

mod backend;
mod projections;
pub mod queries;
mod statement;
mod steps;
mod writer;

pub use backend::{Db, MultiBackend, revert_migrations};

use backend::{Address, Readers};
use writer::{Work, Writer};

/// The region's database. Cloned freely; the last clone that goes ends the writer.
#[derive(Clone)]
pub struct Store {
    address: Arc<Address>,
    readers: Pool<Readers>,
    writer: Writer,
}

/// One step of one actor, as it is made durable.
#[derive(Debug, Clone)]
pub struct Write {
    /// The actor's kind: "machine", "rack", …
    pub kind: &'static str,
    pub id: String,
    /// The generation the row has now; 0 when there is none yet. The write makes it one more.
    pub generation: Generation,
    /// The state after, as JSON. Holds no secret.
    pub state: String,
    /// What happened, as JSON. Holds no secret.
    pub event: String,
    /// The verdict, as JSON.
    pub verdict: String,
    pub trace: TraceId,
    pub at: Timestamp,
    /// When the actor must be woken at the latest, if it waits.
    pub deadline: Option<Timestamp>,
    /// Written in the same transaction, in order.
    pub projections: Vec<Change>,
}

/// A change of the read model or of what belongs to it.
#[derive(Debug, Clone)]
pub enum Change {
    /// The machine's row, from its state. Comes with every step of a machine, and before what refers to it.
    Machine(Box<Machine>),
    /// The machine goes, with its hardware, results and secrets. Its events stay.
    MachineDeleted(SystemId),
    /// An addition to what operators read of that machine.
    Of(SystemId, Projection),
    /// A line of history that belongs to no machine, or to a rack.
    Event(Option<SystemId>, EventLine),
    /// A lease as its rack reported it. An older one than the stored one changes nothing.
    Lease(Lease),
    /// Every report of that rack up to and with `seq` is durable.
    ReportSeen { rack: RackId, seq: ReportSeq },
    /// A value that [`crate::seal::Seal`] sealed; replaces one of that owner and name.
    Secret { owner: String, name: String, sealed: Vec<u8> },
    /// What was learned of the way from a rack to a BMC; replaces what was.
    Reached(Reached),
    /// That has expired. What was learned anew since stays.
    Unreached(Reached),
    /// The owner's secrets whose names start with `prefix` are destroyed.
    SecretsGone { owner: String, prefix: String },
}

/// Why the store could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The address names no database that is known here.
    #[error("the database address \"{url}\" is not known; write sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Address { url: String },
    /// No connection.
    #[error("could not open the database {address}: {why}; {remedy}")]
    Open { address: String, why: String, remedy: &'static str },
    /// The tables could not be brought up to date.
    #[error("could not bring the tables of {address} up to date: {why}; {remedy}")]
    Migrate { address: String, why: String, remedy: &'static str },
    /// Another writer moved this actor on. Load it anew.
    #[error("{kind} {id} is no longer at generation {expected}: another writer changed it; load it anew")]
    Stale { kind: &'static str, id: String, expected: Generation },
    /// The database refuses these values for good.
    #[error("the database refused a write of {what}: {why}; this is a fault of the program, please report it")]
    Refused { what: String, why: String },
    /// The database cannot write now.
    #[error(
        "could not write to {address} for {tried_s} s: {why}; nothing was written, the service goes on when it answers again"
    )]
    Unavailable { address: String, tried_s: u64, why: String },
    /// The database cannot answer now.
    #[error("could not read from {address}: {why}; check that the database runs and has free connections")]
    Unread { address: String, why: String },
    /// The writer has ended: the program is stopping.
    #[error("the store is closed because the region is stopping; ask again when it is up")]
    Closed,
}

/// The database has taken no write for [`Stalled::AFTER`] or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stalled {
    pub since: Timestamp,
    /// What the last try ended with; empty: it has not ended.
    pub why: String,
}

impl Stalled {
    /// A write that takes longer than this deserves a look.
    pub const AFTER: Duration = Duration::from_secs(1);
    /// What to do.
    pub const REMEDY: &str =
        "check that the database runs, that no other program holds a lock on it, and that its disk has room";
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.why.is_empty() { "it does not answer" } else { &self.why };
        write!(f, "the region's database has taken no write since {}: {why}", self.since)
    }
}

impl From<StoreError> for RecordError {
    fn from(err: StoreError) -> Self {
        match err {
            StoreError::Stale { kind, id, expected } => Self::Stale { kind, id, expected },
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// How the store spends its time.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// How long the writer waits at most for those that wrote last time to come again.
    pub gather: Duration,
    /// Most writes in one commit; 1 commits each by itself.
    pub batch: usize,
    /// How long a write waits for a database that does not answer.
    pub patience: Duration,
    /// Connections that read.
    pub readers: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            gather: Duration::from_millis(2),
            batch: 256,
            patience: Duration::from_secs(20),
            readers: u32::try_from(cores).unwrap_or(2).max(2),
        }
    }
}

impl Store {
    /// Opens the database, makes the tables where they are missing, and starts the writer. Blocks; call it before serving.
    ///
    /// # Errors
    /// [`StoreError::Address`], [`StoreError::Open`] or [`StoreError::Migrate`].
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, Tuning::default())
    }

    /// As [`Store::open`], with other times and sizes.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(url: &str, tuning: Tuning) -> Result<Self, StoreError> {
        let address = Address::parse(url)?;
        let mut db = address.writer()?;
        backend::migrate(&mut db, &address)?;
        let readers = Pool::builder()
            .max_size(tuning.readers)
            .min_idle(Some(1))
            .connection_timeout(Duration::from_secs(10))
            // SQLite's readers hold files open, not sessions of a server.
            .idle_timeout(None)
            .max_lifetime(None)
            .build_unchecked(Readers(address.clone()));
        let writer = Writer::start(db, address.clone(), tuning)?;
        Ok(Self { address: Arc::new(address), readers, writer })
    }

    /// How long its commits took.
    #[must_use]
    pub fn commits(&self) -> &Histogram {
        &self.writer.commits
    }

    /// What the database owes, if it has for long.
    #[must_use]
    pub fn stalled(&self) -> Option<Stalled> {
        self.writer.owed().filter(|owed| clock::now().since(owed.since) >= Stalled::AFTER)
    }

    /// The database's address, without a password.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.shown()
    }

    /// Makes one step durable, together with those of other actors that come at the same time.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when the actor's row has another generation; [`StoreError::Refused`] and
    /// [`StoreError::Unavailable`]. In each case nothing of this step was written.
    pub async fn commit(&self, write: Write) -> Result<(), StoreError> {
        self.writer.ask(Work::Step(Box::new(write))).await.map(drop)
    }

    /// Writes changes that belong to no actor's step, in one transaction. Unlike a step, which its generation protects,
    /// a line of history in it may stand twice after a connection was lost in the middle of its commit.
    ///
    /// # Errors
    /// [`StoreError::Refused`] or [`StoreError::Unavailable`]; then nothing was written.
    pub async fn put(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.writer.ask(Work::Put(changes)).await.map(drop)
    }

    /// Takes `count` integer ids of that name, never given out before, and returns the first. They start at 1.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn allot(&self, name: &'static str, count: u32) -> Result<i64, StoreError> {
        self.writer.ask(Work::Allot { name, count }).await
    }

    /// Drops journal rows older than `before`, some at a time so that steps pass in between. Returns how many went.
    /// The actors' rows are the snapshots that stay.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn prune_journal(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut gone = 0;
        loop {
            match self.writer.ask(Work::Prune { before }).await? {
                0 => return Ok(gone),
                some => gone += u64::try_from(some).unwrap_or(0),
            }
        }
    }

    /// Runs a query on a thread that may block.
    ///
    /// # Errors
    /// [`StoreError::Unread`].
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Db) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.read_here(query)).await.map_err(|err| self.unread(err))?
    }

    /// As [`Store::read`] on this very thread, for those that may block already.
    ///
    /// # Errors
    /// [`StoreError::Unread`].
    pub fn read_here<T>(&self, query: impl FnOnce(&mut Db) -> QueryResult<T>) -> Result<T, StoreError> {
        let mut db = self.readers.get().map_err(|err| self.unread(err))?;
        query(&mut db).map_err(|err| self.unread(err))
    }

    fn unread(&self, why: impl std::fmt::Display) -> StoreError {
        StoreError::Unread { address: self.address(), why: why.to_string().trim().replace('\n', "; ") }
    }
}

/// Names of the integer ids that the store gives out.
pub mod ids {
    /// Script results.
    pub const RESULT: &str = "script_result";
    /// Serials of DNS zones.
    pub const DNS_SERIAL: &str = "dns_serial";
    pub(super) const SCRIPT_SET: &str = "script_set";
    pub(super) const INTERFACE: &str = "interface";
    pub(super) const DISK: &str = "disk";
}
