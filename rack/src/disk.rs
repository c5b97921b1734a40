//! The disk of the state directory: whether it takes what is to be durable, and databases that go on once it does again.
//!
//! redb lets nothing through after a write that failed until its file is opened anew. So it is, at once and at every later try.

use std::{
    fmt, fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use schema::{
    service::{Health, ServiceError, ServiceStatus},
    time::Timestamp,
};

/// What must fit on a disk that takes writes again.
const ROOM: usize = 256 << 10;
const REMEDY: &str =
    "make room on the disk of the rack's state directory, or let it be written again; the rack then goes on by itself";

/// What the disk refused, until it takes a write again. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Option<ServiceStatus>>>);

impl Disk {
    /// A write was refused. Of several refusals the first tells why.
    pub fn refused(&self, why: impl fmt::Display, now: Timestamp) {
        let mut trouble = self.lock();
        if trouble.is_some() {
            return;
        }
        let why = format!(
            "it refuses what is to be durable ({why}): the rack leases no address, holds no ticket and reports nothing"
        );
        tracing::error!(remedy = REMEDY, "the disk: {why}");
        let error = ServiceError { at: now, why, remedy: REMEDY.into() };
        *trouble = Some(ServiceStatus {
            service: ServiceStatus::DISK.into(),
            health: Health::Dead,
            since: now,
            addresses: Vec::new(),
            counters: Vec::new(),
            last_error: Some(error),
            restarts: 0,
        });
    }

    /// A write stands.
    pub fn took(&self) {
        if self.lock().take().is_some() {
            tracing::info!("the disk takes writes again");
        }
    }

    /// How it stands while it refuses, as one of the rack's services.
    #[must_use]
    pub fn trouble(&self) -> Option<ServiceStatus> {
        self.lock().clone()
    }

    /// Looks whether a disk that refused has room again.
    pub fn look_again(&self, dir: &Path) {
        if self.trouble().is_some() && room(dir).is_ok() {
            self.took();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ServiceStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn room(dir: &Path) -> io::Result<()> {
    let path = dir.join("room");
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0; ROOM])?;
        file.sync_all()
    });
    written.and(fs::remove_file(&path))
}

/// How its file is opened.
type Open = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

/// A database whose disk may refuse a write.
pub(crate) struct Stored {
    open: Open,
    /// `None`: a write failed, and the file could not be opened anew yet.
    database: Mutex<Option<Database>>,
    disk: Disk,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stored")
    }
}

impl Stored {
    /// Opens it.
    pub(crate) fn open(
        disk: Disk,
        open: impl Fn() -> Result<Database, redb::Error> + Send + Sync + 'static,
    ) -> Result<Self, redb::Error> {
        let database = Mutex::new(Some(open()?));
        Ok(Self { open: Box::new(open), database, disk })
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        self.with(|database| Ok(database.begin_read()?))
    }

    pub(crate) fn begin_write(&self) -> Result<WriteTransaction, redb::Error> {
        self.with(|database| Ok(database.begin_write()?))
    }

    /// How a write ended. After one that failed the file is opened anew.
    pub(crate) fn ended<E: fmt::Display>(&self, written: &Result<(), E>, now: Timestamp) {
        match written {
            Ok(()) => self.disk.took(),
            Err(why) => {
                self.disk.refused(why, now);
                let mut database = self.lock();
                *database = None; // Its lock on the file goes first.
                *database = (self.open)().ok();
            }
        }
    }

    fn with<T>(&self, begin: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let mut database = self.lock();
        let open = match database.take() {
            Some(open) => open,
            None => (self.open)()?,
        };
        begin(database.insert(open))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_tells_why_until_a_write_stands() {
        let (disk, at) = (Disk::default(), Timestamp::from_seconds);
        assert_eq!(disk.trouble(), None);
        disk.refused("No space left on device", at(7));
        disk.refused("an earlier write failed", at(9));
        let trouble = disk.trouble().unwrap();
        assert_eq!((trouble.service.as_str(), trouble.health, trouble.since), ("disk", Health::Dead, at(7)));
        assert!(trouble.last_error.unwrap().why.contains("No space left"));
        let dir = tempfile::tempdir().unwrap();
        disk.look_again(&dir.path().join("gone"));
        assert!(disk.trouble().is_some());
        disk.look_again(dir.path());
        assert_eq!(disk.trouble(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of the look");
    }
}
