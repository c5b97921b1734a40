//! The rack's bodies: files named by their SHA-256 under `bodies/` of the state directory. A file that stands there is whole and verified.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use schema::boot::{BodyRef, Sha256};

/// The directory of verified bodies. Cloned freely.
#[derive(Debug, Clone)]
pub struct Bodies {
    dir: PathBuf,
}

impl Bodies {
    /// Opens (and makes) `STATE/bodies`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state: &Path) -> io::Result<Self> {
        let dir = state.join("bodies");
        fs::create_dir_all(dir.join("partial"))?;
        Ok(Self { dir })
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

    /// The bytes of a small body (a script, user-data, a loader).
    ///
    /// # Errors
    /// When it is not here or cannot be read.
    pub fn read(&self, body: BodyRef) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(body.sha256.to_string()))
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
