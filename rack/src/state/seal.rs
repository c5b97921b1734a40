//! The rack's own key, and rows sealed with it. What is sealed is the store's business.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::Aead, aead::Payload};
use schema::secret::Secret;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// The first byte of a sealed row: how it is sealed.
const FORM: u8 = 1;

/// Seals and opens rows.
#[derive(Clone)]
pub struct Seal(XChaCha20Poly1305);

/// Why the key is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the rack's key {path}: {source}; make the state directory writable for this user")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the rack's key {path} has {seen} bytes instead of 32; restore it, or remove the state directory and enrol anew"
    )]
    Length { path: PathBuf, seen: usize },
    #[error(
        "the rack's key {path} has mode {mode:o}: others may read it; run `chmod 600 {path}`, and enrol anew if others had access"
    )]
    Open { path: PathBuf, mode: u32 },
}

/// A row that this key does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed row cannot be opened: it is damaged, or sealed with another key")]
pub struct SealError;

impl Seal {
    /// The key in that file; made (mode 0600) when there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: path.into(), source };
        let key = match fs::read(path) {
            Ok(bytes) => {
                let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(KeyError::Open { path: path.into(), mode });
                }
                bytes
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut key = [0_u8; KEY_BYTES];
                rand::fill(&mut key[..]);
                write_private(path, &key).map_err(failed)?;
                key.to_vec()
            }
            Err(e) => return Err(failed(e)),
        };
        let seen = key.len();
        let key =
            Secret::new(<[u8; KEY_BYTES]>::try_from(key).map_err(|_| KeyError::Length { path: path.into(), seen })?);
        Ok(Self(XChaCha20Poly1305::new(key.expose().into())))
    }

    /// `plain` sealed; opens only under the same `place` (table and key of the row).
    ///
    /// # Errors
    /// Never in practice: only above 256 GiB.
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0_u8; NONCE_BYTES];
        rand::fill(&mut nonce[..]);
        let sealed = self.0.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: place }).map_err(|_| SealError)?;
        let mut row = Vec::with_capacity(1 + NONCE_BYTES + sealed.len());
        row.push(FORM);
        row.extend_from_slice(&nonce);
        row.extend_from_slice(&sealed);
        Ok(row)
    }

    /// What [`Seal::seal`] sealed at that place.
    ///
    /// # Errors
    /// [`SealError`] for anything else.
    pub fn unseal(&self, place: &[u8], row: &[u8]) -> Result<Vec<u8>, SealError> {
        let (form, rest) = row.split_first().ok_or(SealError)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError)?;
        if *form != FORM {
            return Err(SealError);
        }
        self.0.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: place }).map_err(|_| SealError)
    }
}

/// Writes a file that only its owner reads, whole or not at all.
///
/// # Errors
/// When the disk refuses.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("new");
    fs::remove_file(&partial).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_open_only_whole_at_their_place_and_with_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::open(&dir.path().join("rack.key")).unwrap();
        let row = seal.seal(b"tickets/abc", b"hunter2").unwrap();
        assert!(!row.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(seal.unseal(b"tickets/abc", &row).unwrap(), b"hunter2");
        assert_eq!(seal.unseal(b"tickets/abd", &row), Err(SealError));
        for end in 0..row.len() {
            assert_eq!(seal.unseal(b"tickets/abc", &row[..end]), Err(SealError));
        }
        let same = Seal::open(&dir.path().join("rack.key")).unwrap();
        assert!(same.unseal(b"tickets/abc", &row).is_ok());
        let other = Seal::open(&dir.path().join("other.key")).unwrap();
        assert_eq!(other.unseal(b"tickets/abc", &row), Err(SealError));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rack.key");
        Seal::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Seal::open(&path), Err(KeyError::Open { .. })));
    }
}
