//! Sealed secrets: BMC passwords and node keys lie encrypted in one table, and open only with the region's key file.
//! Elsewhere stand references (owner and name), never values.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, Key, KeyInit, Payload},
};
use schema::secret::Secret;

use crate::store::{Change, Store, StoreError, queries};

/// Bytes of a key, and of a nonce of XChaCha20.
const KEY: usize = 32;
const NONCE: usize = 24;
/// The value that tells whether a key belongs to this database.
const CHECK: (&str, &str) = ("seal", "check");

/// Seals and opens secrets. Cloned freely.
#[derive(Clone)]
pub struct Seal {
    cipher: Arc<XChaCha20Poly1305>,
    store: Store,
    key_file: Arc<PathBuf>,
}

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is a key already.
    #[error("the key file {0} exists already; keep it: without it the secrets in the database are lost")]
    Exists(PathBuf),
    /// The file cannot be read or written.
    #[error(
        "could not {what} the key file {path}; it is made by `hostler init` and must be readable by this user alone"
    )]
    File { what: &'static str, path: PathBuf, source: io::Error },
    /// Others may read it.
    #[error("the key file {path} has mode {mode:04o}, so others may read it; run: chmod 600 {path}")]
    Open { path: PathBuf, mode: u32 },
    /// Not a key.
    #[error("the key file {0} does not hold 64 hexadecimal digits; restore it from the backup of this region")]
    Malformed(PathBuf),
    /// Another key sealed what is in the database.
    #[error(
        "the key file {key_file} does not open the secret \"{name}\" of {owner} in {database}: another key sealed it; \
         restore the key file that belongs to this database, or enter the secrets anew"
    )]
    WrongKey { key_file: PathBuf, database: String, owner: String, name: String },
    /// The cipher or the random source failed.
    #[error("could not seal a secret: {0}")]
    Cipher(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Seal {
    /// Makes a new key file, readable by its owner alone.
    ///
    /// # Errors
    /// [`SealError::Exists`] when there is one: it is never replaced. [`SealError::File`] when the disk refuses.
    pub fn create_key(path: &Path) -> Result<(), SealError> {
        let key = Key::<XChaCha20Poly1305>::try_generate()
            .map_err(|_| SealError::Cipher("the system gave no random bytes"))?;
        let mut text = String::new();
        for byte in &key {
            write!(text, "{byte:02x}").ok();
        }
        text.push('\n');
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => SealError::Exists(path.into()),
            _ => SealError::File { what: "write", path: path.into(), source },
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// Reads the key and checks that it is this database's. The first key that meets a database becomes its key.
    ///
    /// # Errors
    /// Each of [`SealError`], but [`SealError::Exists`].
    pub async fn open(path: &Path, store: Store) -> Result<Self, SealError> {
        let cipher = Arc::new(XChaCha20Poly1305::new(&read_key(path)?));
        let seal = Self { cipher, store, key_file: Arc::new(path.into()) };
        if seal.get(CHECK.0, CHECK.1).await?.is_none() {
            seal.put(CHECK.0, CHECK.1, &Secret::new("hostler".into())).await?;
        }
        Ok(seal)
    }

    /// The secret as a change, to be written with the step that it belongs to.
    ///
    /// # Errors
    /// [`SealError::Cipher`].
    pub fn seal(&self, owner: &str, name: &str, secret: &Secret<String>) -> Result<Change, SealError> {
        let nonce = XNonce::try_generate().map_err(|_| SealError::Cipher("the system gave no random bytes"))?;
        let payload = Payload { msg: secret.expose().as_bytes(), aad: &place(owner, name) };
        let sealed = self.cipher.encrypt(&nonce, payload).map_err(|_| SealError::Cipher("the secret is too long"))?;
        let sealed = [nonce.as_slice(), &sealed].concat();
        Ok(Change::Secret { owner: owner.into(), name: name.into(), sealed })
    }

    /// Seals a secret and makes it durable; replaces one of that owner and name.
    ///
    /// # Errors
    /// [`SealError::Cipher`] or [`SealError::Store`].
    pub async fn put(&self, owner: &str, name: &str, secret: &Secret<String>) -> Result<(), SealError> {
        Ok(self.store.put(vec![self.seal(owner, name, secret)?]).await?)
    }

    /// One secret; `None` when there is none.
    ///
    /// # Errors
    /// [`SealError::WrongKey`] or [`SealError::Store`].
    pub async fn get(&self, owner: &str, name: &str) -> Result<Option<Secret<String>>, SealError> {
        let name = name.to_owned();
        Ok(self.load(owner, move |n| n == name).await?.pop_first().map(|(_, secret)| secret))
    }

    /// The owner's secrets whose names start with `prefix`, by name.
    ///
    /// # Errors
    /// As [`Seal::get`].
    pub async fn all(&self, owner: &str, prefix: &str) -> Result<BTreeMap<String, Secret<String>>, SealError> {
        let prefix = prefix.to_owned();
        self.load(owner, move |name| name.starts_with(&prefix)).await
    }

    /// Destroys the owner's secrets whose names start with `prefix`.
    ///
    /// # Errors
    /// [`SealError::Store`].
    pub async fn destroy(&self, owner: &str, prefix: &str) -> Result<(), SealError> {
        Ok(self.store.put(vec![Change::SecretsGone { owner: owner.into(), prefix: prefix.into() }]).await?)
    }

    async fn load(
        &self,
        owner: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Secret<String>>, SealError> {
        let whose = owner.to_owned();
        let rows = self.store.read(move |db| queries::sealed(db, &whose)).await?;
        let open = |(name, sealed): (String, Vec<u8>)| {
            let secret = self.unseal(owner, &name, &sealed)?;
            Ok((name, secret))
        };
        rows.into_iter().filter(|(name, _)| wanted(name)).map(open).collect()
    }

    fn unseal(&self, owner: &str, name: &str, sealed: &[u8]) -> Result<Secret<String>, SealError> {
        let wrong = || SealError::WrongKey {
            key_file: self.key_file.as_ref().clone(),
            database: self.store.address(),
            owner: owner.into(),
            name: name.into(),
        };
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or_else(wrong)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| wrong())?;
        let payload = Payload { msg: sealed, aad: &place(owner, name) };
        let plain = self.cipher.decrypt(&nonce, payload).map_err(|_| wrong())?;
        String::from_utf8(plain).map(Secret::new).map_err(|_| wrong())
    }
}

/// Bound to the value, so that a sealed value cannot be moved to another owner or name.
fn place(owner: &str, name: &str) -> Vec<u8> {
    format!("{owner}\0{name}").into_bytes()
}

fn read_key(path: &Path) -> Result<Key<XChaCha20Poly1305>, SealError> {
    let failed = |source| SealError::File { what: "read", path: path.into(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SealError::Open { path: path.into(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let malformed = || SealError::Malformed(path.into());
    // A key has the form of a SHA-256: 64 hexadecimal digits.
    let bytes: schema::boot::Sha256 = text.trim().parse().map_err(|_| malformed())?;
    let bytes: [u8; KEY] = bytes.0;
    Ok(bytes.into())
}
