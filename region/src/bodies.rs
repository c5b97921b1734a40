//! The region's bodies: images, loaders, scripts and large outputs as files named by their SHA-256. A file that stands there is whole.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use schema::boot::{BodyRef, Sha256};
use sha2::Digest;

/// The directory of bodies. Cloned freely. Its functions block on the disk.
#[derive(Debug, Clone)]
pub struct Bodies {
    dir: PathBuf,
}

/// Why a body was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The bytes are not the body's.
    #[error(
        "the body {want} of {want_len} bytes came as {got} of {got_len} bytes and was thrown away; fetch it again, \
         and check the source if that happens twice"
    )]
    Mismatch { want: Sha256, want_len: u64, got: Sha256, got_len: u64 },
    /// The disk refuses.
    #[error("could not keep a body under {dir}: {source}; check that the directory is writable and has room")]
    Disk { dir: PathBuf, source: io::Error },
}

/// A body on its way in: bytes are hashed as they come. Dropped before [`BodyWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct BodyWriter {
    bodies: Bodies,
    file: tempfile::NamedTempFile,
    hash: sha2::Sha256,
    len: u64,
}

impl Bodies {
    /// Opens (and makes) `STATE/bodies`.
    ///
    /// # Errors
    /// [`BodyError::Disk`].
    pub fn open(state: &Path) -> Result<Self, BodyError> {
        let dir = state.join("bodies");
        let this = Self { dir };
        fs::create_dir_all(this.dir.join("partial")).map_err(|source| this.disk(source))?;
        Ok(this)
    }

    /// Where a whole body stands, if it is here.
    #[must_use]
    pub fn path(&self, sha256: Sha256) -> Option<PathBuf> {
        let path = self.place(sha256);
        path.is_file().then_some(path)
    }

    /// The bytes of a small body.
    ///
    /// # Errors
    /// When it is not here or cannot be read.
    pub fn read(&self, sha256: Sha256) -> io::Result<Vec<u8>> {
        fs::read(self.place(sha256))
    }

    /// Keeps `bytes`, durable and named by their hash.
    ///
    /// # Errors
    /// [`BodyError::Disk`].
    pub fn put(&self, bytes: &[u8]) -> Result<BodyRef, BodyError> {
        let body = BodyRef { sha256: Sha256::of(bytes), len: bytes.len() as u64 };
        if self.path(body.sha256).is_some() {
            return Ok(body);
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|source| self.disk(source))?;
        writer.finish(Some(body))
    }

    /// Keeps all that `reader` gives.
    ///
    /// # Errors
    /// [`BodyError::Disk`], also when the reader fails.
    pub fn put_from(&self, reader: &mut impl Read) -> Result<BodyRef, BodyError> {
        let mut writer = self.writer()?;
        io::copy(reader, &mut writer).map_err(|source| self.disk(source))?;
        writer.finish(None)
    }

    /// Begins a body that comes in pieces.
    ///
    /// # Errors
    /// [`BodyError::Disk`].
    pub fn writer(&self) -> Result<BodyWriter, BodyError> {
        let file = tempfile::NamedTempFile::new_in(self.dir.join("partial")).map_err(|source| self.disk(source))?;
        Ok(BodyWriter { bodies: self.clone(), file, hash: sha2::Sha256::new(), len: 0 })
    }

    /// Where the first bytes of a body may gather until they are all here, so that a broken transfer goes on.
    #[must_use]
    pub fn partial(&self, sha256: Sha256) -> PathBuf {
        self.dir.join("partial").join(sha256.to_string())
    }

    /// Takes in the whole body that gathered at [`Bodies::partial`], after verifying it.
    ///
    /// # Errors
    /// [`BodyError::Mismatch`], then the file is gone; [`BodyError::Disk`].
    pub fn adopt_partial(&self, body: BodyRef) -> Result<(), BodyError> {
        let partial = self.partial(body.sha256);
        let adopt = || -> io::Result<BodyRef> {
            let got = hash_file(&partial)?;
            if got == body {
                File::open(&partial)?.sync_all()?;
                fs::rename(&partial, self.place(body.sha256))?;
                self.sync_dir()?;
            } else {
                fs::remove_file(&partial)?;
            }
            Ok(got)
        };
        check(body, adopt().map_err(|source| self.disk(source))?)
    }

    /// Whether the body on the disk still has its hash. Reads all of it.
    ///
    /// # Errors
    /// When it is not here or cannot be read.
    pub fn verify(&self, sha256: Sha256) -> io::Result<bool> {
        Ok(hash_file(&self.place(sha256))?.sha256 == sha256)
    }

    /// All whole bodies, in the order of their hashes.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<BodyRef>> {
        let mut bodies = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // What has another name is not ours.
            if let Some(sha256) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                bodies.push(BodyRef { sha256, len: entry.metadata()?.len() });
            }
        }
        bodies.sort_by_key(|body| body.sha256);
        Ok(bodies)
    }

    /// Whole bodies that nothing in `live` names: what may be removed.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn garbage(&self, live: &HashSet<Sha256>) -> io::Result<Vec<BodyRef>> {
        Ok(self.list()?.into_iter().filter(|body| !live.contains(&body.sha256)).collect())
    }

    /// Removes a body; one that is not here is no error.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, sha256: Sha256) -> io::Result<()> {
        match fs::remove_file(self.place(sha256)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    fn place(&self, sha256: Sha256) -> PathBuf {
        self.dir.join(sha256.to_string())
    }

    /// Makes a new name durable.
    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn disk(&self, source: io::Error) -> BodyError {
        BodyError::Disk { dir: self.dir.clone(), source }
    }
}

impl BodyWriter {
    /// Makes the body durable. With `expected`, only if it is that one.
    ///
    /// # Errors
    /// [`BodyError::Mismatch`] or [`BodyError::Disk`]; then nothing is left.
    pub fn finish(self, expected: Option<BodyRef>) -> Result<BodyRef, BodyError> {
        let body = BodyRef { sha256: Sha256(self.hash.finalize().into()), len: self.len };
        if let Some(expected) = expected {
            check(expected, body)?;
        }
        let keep = || -> io::Result<()> {
            self.file.as_file().sync_all()?;
            self.file.persist(self.bodies.place(body.sha256))?;
            self.bodies.sync_dir()
        };
        keep().map_err(|source| self.bodies.disk(source))?;
        Ok(body)
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn hash_file(path: &Path) -> io::Result<BodyRef> {
    let mut file = File::open(path)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut len = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(BodyRef { sha256: Sha256(hash.finalize().into()), len }),
            n => {
                hash.update(&buffer[..n]);
                len += n as u64;
            }
        }
    }
}

fn check(want: BodyRef, got: BodyRef) -> Result<(), BodyError> {
    if want == got {
        return Ok(());
    }
    Err(BodyError::Mismatch { want: want.sha256, want_len: want.len, got: got.sha256, got_len: got.len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies() -> (tempfile::TempDir, Bodies) {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::open(dir.path()).unwrap();
        (dir, bodies)
    }

    #[test]
    fn a_body_is_named_by_its_hash_and_kept_once() {
        let (_dir, bodies) = bodies();
        let body = bodies.put(b"kernel").unwrap();
        assert_eq!(bodies.put_from(&mut &b"kernel"[..]).unwrap(), body);
        assert_eq!(bodies.list().unwrap(), [body]);
        assert_eq!(bodies.read(body.sha256).unwrap(), b"kernel");
        assert!(bodies.verify(body.sha256).unwrap());
        fs::write(bodies.path(body.sha256).unwrap(), b"kernal").unwrap();
        assert!(!bodies.verify(body.sha256).unwrap());
    }

    #[test]
    fn bytes_of_another_body_are_thrown_away() {
        let (_dir, bodies) = bodies();
        let want = BodyRef { sha256: Sha256::of(b"kernel"), len: 6 };
        let mut writer = bodies.writer().unwrap();
        writer.write_all(b"kernal").unwrap();
        assert!(matches!(writer.finish(Some(want)), Err(BodyError::Mismatch { .. })));
        fs::write(bodies.partial(want.sha256), b"kernal").unwrap();
        assert!(matches!(bodies.adopt_partial(want), Err(BodyError::Mismatch { .. })));
        assert!(!bodies.partial(want.sha256).exists());
        fs::write(bodies.partial(want.sha256), b"kernel").unwrap();
        bodies.adopt_partial(want).unwrap();
        assert_eq!(bodies.list().unwrap(), [want]);
        assert_eq!(fs::read_dir(bodies.dir.join("partial")).unwrap().count(), 0);
    }

    #[test]
    fn garbage_is_what_nothing_names() {
        let (_dir, bodies) = bodies();
        let (old, new) = (bodies.put(b"old").unwrap(), bodies.put(b"new").unwrap());
        assert_eq!(bodies.garbage(&HashSet::from([new.sha256])).unwrap(), [old]);
        bodies.remove(old.sha256).unwrap();
        bodies.remove(old.sha256).unwrap();
        assert_eq!(bodies.list().unwrap(), [new]);
    }
}
