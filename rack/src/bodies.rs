//! The rack's bodies: files named by their SHA-256 under `bodies/` of the state directory. A file that stands there is whole and verified.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use schema::boot::{BodyRef, Sha256};
use tokio::sync::Notify;

/// Bodies up to this many bytes are kept in memory once they were asked for: first loaders, their configs, scripts.
const SMALL: u64 = 256 << 10;
/// Bytes of small bodies in memory at most.
const KEPT: usize = 16 << 20;

/// The directory of verified bodies. Cloned freely.
#[derive(Debug, Clone)]
pub struct Bodies {
    dir: PathBuf,
    /// A body never changes under its name, so what was read once is right for ever.
    small: Arc<Mutex<HashMap<Sha256, Bytes>>>,
    /// One that was thought to be here is not.
    lost: Arc<Notify>,
}

impl Bodies {
    /// Opens (and makes) `STATE/bodies`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state: &Path) -> io::Result<Self> {
        let dir = state.join("bodies");
        fs::create_dir_all(dir.join("partial"))?;
        Ok(Self { dir, small: Arc::default(), lost: Arc::default() })
    }

    /// Where a whole body stands, if it is here.
    #[must_use]
    pub fn path(&self, sha256: Sha256) -> Option<PathBuf> {
        let path = self.dir.join(sha256.to_string());
        path.is_file().then_some(path)
    }

    /// Where the first bytes of a body gather until they are all here.
    #[must_use]
    pub fn partial(&self, sha256: Sha256) -> PathBuf {
        self.dir.join("partial").join(sha256.to_string())
    }

    /// The bytes of a small body (a script, user-data, a loader), verified once more: disks forget. A damaged one is thrown away.
    ///
    /// # Errors
    /// When it is not here, is damaged, or cannot be read: then it is fetched anew.
    pub fn read(&self, body: BodyRef) -> io::Result<Vec<u8>> {
        let path = self.dir.join(body.sha256.to_string());
        let whole = |bytes: Vec<u8>| {
            if Sha256::of(&bytes) == body.sha256 {
                return Ok(bytes);
            }
            fs::remove_file(&path)?;
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its bytes on the rack's disk were damaged; it is fetched anew",
            ))
        };
        fs::read(&path).and_then(whole).inspect_err(|_| self.lost.notify_one())
    }

    /// Until a body that was thought to be here was not.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// The bytes of a small body, without a system call when it was asked for lately. `None`: it is not here, or not small.
    #[must_use]
    pub fn small(&self, body: BodyRef) -> Option<Bytes> {
        if body.len > SMALL {
            return None;
        }
        let kept = || self.small.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = kept().get(&body.sha256) {
            return Some(bytes.clone());
        }
        let bytes = self.read(body).ok().filter(|bytes| bytes.len() as u64 == body.len).map(Bytes::from)?;
        let mut kept = kept();
        if kept.values().map(Bytes::len).sum::<usize>() + bytes.len() > KEPT {
            kept.clear(); // Rare: a rack has few loaders. What is asked for comes back.
        }
        kept.insert(body.sha256, bytes.clone());
        Some(bytes)
    }

    /// Keeps `bytes`, durable and named by their hash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> io::Result<BodyRef> {
        let body = BodyRef { sha256: Sha256::of(bytes), len: bytes.len() as u64 };
        let target = self.dir.join(body.sha256.to_string());
        if !target.is_file() {
            use io::Write;
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(target)?;
        }
        Ok(body)
    }

    /// Takes the whole and verified partial file of that name into the store.
    ///
    /// # Errors
    /// When it is not there, or the disk refuses.
    pub fn adopt(&self, sha256: Sha256) -> io::Result<()> {
        fs::rename(self.partial(sha256), self.dir.join(sha256.to_string()))?;
        fs::File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_damaged_body_is_thrown_away_and_missed() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::open(dir.path()).unwrap();
        let body = bodies.put(b"#!/bin/sh\ntrue\n").unwrap();
        assert_eq!(bodies.read(body).unwrap(), b"#!/bin/sh\ntrue\n");
        fs::write(bodies.path(body.sha256).unwrap(), b"#!/bin/sh\nfals\n").unwrap();
        assert_eq!(bodies.read(body).unwrap_err().kind(), io::ErrorKind::InvalidData);
        bodies.lost().await;
        assert!(bodies.path(body.sha256).is_none());
        assert_eq!(bodies.read(body).unwrap_err().kind(), io::ErrorKind::NotFound);
        bodies.lost().await;
        bodies.put(b"#!/bin/sh\ntrue\n").unwrap();
        assert!(bodies.read(body).is_ok());
    }
}
