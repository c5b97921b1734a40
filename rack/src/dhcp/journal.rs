//! Leases on disk: rows in redb, written by one thread that gathers what came meanwhile into one commit. Which rows, the leases' core decides.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use actors::{clock, leases::Row};
use redb::{Database, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use crate::disk::{Disk, Stored};

/// One row per address of a subnet, as JSON: (subnet, address) to [`Row`].
const LEASES: TableDefinition<'_, (i64, u32), &[u8]> = TableDefinition::new("leases");
/// redb's own cache; the table is read once at start.
const CACHE_BYTES: usize = 4 << 20;

/// Why leases could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the leases' file {}: {why}; free the file or the disk, or move it away to start without leases", path.display())]
    Open { path: PathBuf, why: String },
    #[error("cannot read the leases: {0}")]
    Read(String),
    #[error("cannot write leases: {0}; clients get no address until the disk can be written")]
    Write(String),
    #[error("the leases' journal has ended")]
    Ended,
}

/// Where leases outlive the process. `commit` returns when its rows are on the disk, all of them or none.
pub trait LeaseStore: Send + 'static {
    /// All rows, in any order.
    ///
    /// # Errors
    /// When they cannot be read.
    fn load(&self) -> Result<Vec<Row>, StoreError>;

    /// Makes the rows durable; a later row of an address replaces an earlier one.
    ///
    /// # Errors
    /// When the disk refuses; nothing of the batch is kept then.
    fn commit(&mut self, rows: &[Row]) -> Result<(), StoreError>;
}

/// Leases in a redb file of their own.
#[derive(Debug)]
pub struct RedbStore(Stored);

impl RedbStore {
    /// Opens (or makes) `STATE/leases.redb`. `disk` hears what is refused.
    ///
    /// # Errors
    /// When the file cannot be opened, is no redb file, or another process has it.
    pub fn open(state: &Path, disk: Disk) -> Result<Self, StoreError> {
        let path = state.join("leases.redb");
        let failed = |why: String| StoreError::Open { path: path.clone(), why };
        std::fs::create_dir_all(state).map_err(|e| failed(e.to_string()))?;
        let file = path.clone();
        let open = move || Ok(Database::builder().set_cache_size(CACHE_BYTES).create(&file)?);
        let store = Self(Stored::open(disk, open).map_err(|e| failed(e.to_string()))?);
        store.make_table().map_err(|e| failed(e.to_string()))?;
        Ok(store)
    }

    fn make_table(&self) -> Result<(), redb::Error> {
        let write = self.0.begin_write()?;
        write.open_table(LEASES)?;
        write.commit()?;
        Ok(())
    }

    fn rows(&self) -> Result<Vec<Row>, redb::Error> {
        let read = self.0.begin_read()?;
        let table = read.open_table(LEASES)?;
        let mut rows = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            match serde_json::from_slice(value.value()) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    tracing::warn!(key = ?key.value(), %error, "a lease on disk cannot be read and is passed over")
                }
            }
        }
        Ok(rows)
    }

    fn write(&mut self, rows: &[Row]) -> Result<(), redb::Error> {
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(LEASES)?;
            for row in rows {
                let value = serde_json::to_vec(row).map_err(|e| redb::Error::Io(io::Error::other(e)))?;
                table.insert((row.lease.subnet.0, u32::from(row.lease.ip)), value.as_slice())?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

impl LeaseStore for RedbStore {
    fn load(&self) -> Result<Vec<Row>, StoreError> {
        self.rows().map_err(|e| StoreError::Read(e.to_string()))
    }

    fn commit(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let written = self.write(rows);
        self.0.ended(&written, clock::now());
        written.map_err(|e| StoreError::Write(e.to_string()))
    }
}

/// The queue to the one thread that writes. Cloned freely.
#[derive(Debug, Clone)]
pub struct Journal(mpsc::Sender<Commit>);

#[derive(Debug)]
struct Commit {
    rows: Vec<Row>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Journal {
    /// Starts the thread. It ends, and closes the store, when the last journal handle is gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(mut store: impl LeaseStore) -> io::Result<(Self, thread::JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel::<Commit>();
        let thread = thread::Builder::new().name("leases".into()).spawn(move || {
            while let Ok(first) = receiver.recv() {
                // What other subnets sent while the disk was busy goes into the same commit.
                let mut commits = vec![first];
                commits.extend(receiver.try_iter());
                let rows: Vec<Row> = commits.iter_mut().flat_map(|c| std::mem::take(&mut c.rows)).collect();
                let written = store.commit(&rows).map_err(|e| e.to_string());
                for commit in commits {
                    commit.done.send(written.clone()).ok(); // Who asked may have gone; the rows stand.
                }
            }
        })?;
        Ok((Self(sender), thread))
    }

    /// Resolves when the rows are on the disk.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refused, [`StoreError::Ended`] when the thread is gone.
    pub async fn keep(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let (done, written) = oneshot::channel();
        self.0.send(Commit { rows, done }).map_err(|_| StoreError::Ended)?;
        written.await.map_err(|_| StoreError::Ended)?.map_err(StoreError::Write)
    }
}
