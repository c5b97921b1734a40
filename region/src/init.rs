//! `hostler init`: a new region on disk. Configuration, database, keys, the first administrator, the first enrolment token.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use actors::{
    catalogue::{Catalogue, CatalogueEvent},
    clock,
    core::{Core, Verdict},
    link::{
        ca::{Ca, CaError},
        enrol::Token,
    },
};
use argon2::{Argon2, PasswordHasher};
use schema::{
    catalogue::{ApiKey, CatalogueItem, EnrolmentToken, User},
    id::{Generation, SystemId},
    secret::Secret,
};
use sha2::{Digest, Sha256};

use crate::{
    app::{new_trace, scripts::builtin_items},
    bodies::{Bodies, BodyError},
    config::Config,
    seal::{Seal, SealError},
    store::{Store, StoreError, Write, queries},
};

/// What the operator chose.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file to write.
    pub config: PathBuf,
    pub data_dir: PathBuf,
    /// `sqlite:…` or `postgres://…`; `None`: SQLite in the data directory.
    pub database: Option<Secret<String>>,
    pub api_listen: SocketAddr,
    pub link_listen: SocketAddr,
    pub dns_listen: SocketAddr,
    pub username: String,
    pub email: String,
    /// `None`: one is drawn and shown once.
    pub password: Option<Secret<String>>,
    /// How long the enrolment token may wait to be used.
    pub token_lasts: Duration,
}

/// What is shown once.
#[derive(Debug)]
pub struct Initialised {
    pub config: Config,
    pub username: String,
    pub password: Secret<String>,
    /// `consumer_key:token_key:token_secret`.
    pub api_key: Secret<String>,
    /// The rack enrolment token, with the CA's fingerprint.
    pub token: Secret<String>,
}

/// Why there is no new region. What was made before the fault stays, and a second `init` goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{0} exists already; this region was made before. Start it with `hostler region --config {0}`")]
    Exists(PathBuf),
    #[error("{database} holds a region already; name another database, or start that region")]
    Taken { database: String },
    #[error(
        "could not write {path}: {source}; make the directory writable for this user, or choose another with --data-dir"
    )]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Bodies(#[from] BodyError),
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    #[error("the first catalogue was refused: {why}; {remedy}")]
    Refused { why: String, remedy: String },
}

/// Makes a region. The configuration is written last, so that its presence says that all went well.
///
/// # Errors
/// [`InitError`].
pub async fn init(options: Options) -> Result<Initialised, InitError> {
    if options.config.exists() {
        return Err(InitError::Exists(options.config));
    }
    make_private_dir(&options.data_dir)?;
    let config = config_of(&options);
    let url = config.database.expose().clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&url)).await;
    let store = store.map_err(|e| file(&options.data_dir)(io::Error::other(e)))??;
    if store.read(|db| queries::load_actor(db, Catalogue::KIND, "catalogue")).await?.is_some() {
        return Err(InitError::Taken { database: store.address() });
    }
    match Seal::create_key(&config.key_file()) {
        Ok(()) | Err(SealError::Exists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Seal::open(&config.key_file(), store.clone()).await?;
    let ca = Ca::open_or_create(&config.ca_dir(), clock::now())?;
    let bodies = Bodies::open(&config.data_dir)?;

    let token = Token::mint(&ca, rand::random());
    let password = options.password.clone().unwrap_or_else(|| Secret::new(format!("{:016x}", rand::random::<u64>())));
    let (key, api_key) = new_key(&options.username, "hostler init");
    let first = Catalogue::first();
    let mut items = vec![
        CatalogueItem::User(User {
            username: options.username.clone(),
            email: options.email.clone(),
            is_superuser: true,
            password_hash: hash(&password)?,
            ssh_keys: Vec::new(),
        }),
        CatalogueItem::ApiKey(key),
        CatalogueItem::EnrolmentToken(EnrolmentToken {
            token_sha256: token.hash().to_string(),
            expires: clock::now() + options.token_lasts,
            used_by: None,
        }),
    ];
    items.extend(builtin_items(&first.content, &bodies)?);
    write_first(&store, &first, items).await?;
    write_private(&options.config, &config.to_toml())?;
    Ok(Initialised { config, username: options.username, password, api_key, token: Secret::new(token.text()) })
}

fn config_of(options: &Options) -> Config {
    let default = || Secret::new(format!("sqlite:{}", options.data_dir.join("region.db").display()));
    Config {
        id: SystemId::from_draws(rand::random()),
        data_dir: options.data_dir.clone(),
        database: options.database.clone().unwrap_or_else(default),
        api_listen: options.api_listen,
        link_listen: options.link_listen,
        dns_listen: options.dns_listen,
        dns_transfer: Vec::new(),
        inspect_listen: None,
        inspect_control: false,
        metrics_allow: crate::config::loopback(),
        journal_days: 30,
        logs: actors::logbook::Limits::default(),
    }
}

/// The first step of the catalogue, decided by its own core.
async fn write_first(store: &Store, first: &Catalogue, items: Vec<CatalogueItem>) -> Result<(), InitError> {
    let now = clock::now();
    let event = CatalogueEvent::PutAll { by: "init".into(), items };
    let step = first.step(&event, now);
    let after = match (step.next, step.verdict) {
        (Some(after), _) => after,
        (None, Verdict::Refused { why, remedy }) => return Err(InitError::Refused { why, remedy }),
        (None, _) => first.clone(),
    };
    let json = |value: Result<String, serde_json::Error>| {
        value.map_err(|e| InitError::Refused { why: e.to_string(), remedy: "report it as a defect".into() })
    };
    let write = Write {
        kind: Catalogue::KIND,
        id: first.id().to_owned(),
        generation: Generation(0),
        state: json(serde_json::to_string(&after))?,
        event: json(serde_json::to_string(&event))?,
        verdict: json(serde_json::to_string(&Verdict::Moved))?,
        trace: new_trace(),
        at: now,
        deadline: None,
        projections: Vec::new(),
    };
    Ok(store.commit(write).await?)
}

/// Argon2id with a salt of its own, in PHC string format.
pub(crate) fn hash(password: &Secret<String>) -> Result<String, InitError> {
    let salt: [u8; 16] = rand::random();
    let hashed = Argon2::default().hash_password_with_salt(password.expose().as_bytes(), &salt);
    hashed.map(|h| h.to_string()).map_err(|e| InitError::Hash(e.to_string()))
}

/// A new API key, and the text that is shown once.
fn new_key(username: &str, name: &str) -> (ApiKey, Secret<String>) {
    let draw = || format!("{:032x}", rand::random::<u128>());
    let (consumer_key, token_key, secret) = (draw(), draw(), draw());
    let text = Secret::new(format!("{consumer_key}:{token_key}:{secret}"));
    let secret_sha256 = Sha256::digest(secret.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    (ApiKey { consumer_key, token_key, secret_sha256, username: username.into(), name: name.into() }, text)
}

fn make_private_dir(dir: &Path) -> Result<(), InitError> {
    fs::create_dir_all(dir).map_err(file(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(file(dir))
}

/// The file may hold a database password.
fn write_private(path: &Path, text: &str) -> Result<(), InitError> {
    use io::Write;
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(file(path))?;
    // A temporary file of this crate is made with mode 0600.
    let mut new = tempfile::NamedTempFile::new_in(dir).map_err(file(path))?;
    new.write_all(text.as_bytes()).and_then(|()| new.as_file().sync_all()).map_err(file(path))?;
    new.persist_noclobber(path).map_err(|e| file(path)(e.error))?;
    Ok(())
}

fn file(path: &Path) -> impl Fn(io::Error) -> InitError + '_ {
    move |source| InitError::File { path: path.to_owned(), source }
}
