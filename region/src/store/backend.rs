//! The two databases behind one connection type: addresses, opening, migrations, transactions. No query lives here.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use diesel::{
    Connection, PgConnection, QueryResult, SqliteConnection,
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
    migration::{Migration, MigrationSource, MigrationVersion},
    r2d2::{ManageConnection, R2D2Connection},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};
use schema::tables::{POSTGRES_MIGRATIONS, SQLITE_MIGRATIONS};

use super::StoreError;

/// A connection to either database. Queries of [`diesel::dsl`] run on it; upserts and batch inserts need `each!`.
#[derive(diesel::MultiConnection)]
pub enum Db {
    /// The embedded default.
    Sqlite(SqliteConnection),
    /// For more than one region.
    Postgres(PgConnection),
}

/// The same expression on whichever connection it is, for what diesel does not offer on both at once.
macro_rules! each {
    ($db:expr, $conn:ident => $body:expr) => {
        match $db {
            $crate::store::Db::Sqlite($conn) => $body,
            $crate::store::Db::Postgres($conn) => $body,
        }
    };
}
pub(super) use each;

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Sqlite(PathBuf),
    /// A libpq address.
    Postgres(String),
}

/// How long SQLite waits for another process's write.
const BUSY: Duration = Duration::from_secs(5);
/// The advisory lock that keeps two regions from migrating at once: "hostler" in ASCII.
const MIGRATION_LOCK: i64 = 0x68_6f73_746c_6572;

impl Address {
    /// Reads the database's address.
    ///
    /// # Errors
    /// [`StoreError::Address`] for another scheme, an empty path, or SQLite in memory (readers would each see their own).
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.into()));
        }
        match url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() && path != ":memory:" => {
                Ok(Self::Sqlite(path.strip_prefix("//").unwrap_or(path).into()))
            }
            _ => Err(StoreError::Address { url: without_password(url) }),
        }
    }

    /// The address as it may be shown: without a password.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => without_password(url),
        }
    }

    /// Opens the connection that writes.
    pub(super) fn writer(&self) -> Result<Db, StoreError> {
        match self {
            Self::Sqlite(path) => {
                make_private(path).map_err(|err| self.unopened(err))?;
                let mut conn = self.sqlite(path)?;
                // A larger cache is slower: nearly each commit walks all of it (a balanced page passes through the highest number
                // there is, and what lies behind the file's end is sought everywhere).
                conn.batch_execute(
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                     PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -8192;",
                )
                .map_err(|err| self.unopened(err))?;
                Ok(Db::Sqlite(conn))
            }
            Self::Postgres(url) => self.postgres(url),
        }
    }

    /// Opens a connection that reads.
    fn reader(&self) -> Result<Db, StoreError> {
        match self {
            Self::Sqlite(path) => {
                let mut conn = self.sqlite(path)?;
                conn.batch_execute("PRAGMA query_only = ON;").map_err(|err| self.unopened(err))?;
                Ok(Db::Sqlite(conn))
            }
            Self::Postgres(url) => {
                let mut db = self.postgres(url)?;
                db.batch_execute("SET default_transaction_read_only = on").map_err(|err| self.unopened(err))?;
                Ok(db)
            }
        }
    }

    fn sqlite(&self, path: &Path) -> Result<SqliteConnection, StoreError> {
        let mut conn = SqliteConnection::establish(&path.display().to_string()).map_err(|err| self.unopened(err))?;
        // First of all, since the next statements may meet another process's lock.
        conn.batch_execute(&format!("PRAGMA busy_timeout = {};", BUSY.as_millis()))
            .map_err(|err| self.unopened(err))?;
        Ok(conn)
    }

    fn postgres(&self, url: &str) -> Result<Db, StoreError> {
        let mut conn = PgConnection::establish(&with_timeouts(url)).map_err(|err| self.unopened(err))?;
        conn.batch_execute("SET synchronous_commit = on; SET application_name = 'hostler'")
            .map_err(|err| self.unopened(err))?;
        // A state of 5 KB takes pglz 230 us and lz4 15 to 50, to the same size. A server built without lz4 keeps its own.
        conn.batch_execute("SET default_toast_compression = 'lz4'").ok();
        Ok(Db::Postgres(conn))
    }

    fn unopened(&self, why: impl std::fmt::Display) -> StoreError {
        let remedy = match self {
            Self::Sqlite(_) => "check that the directory exists, is writable by this user and has room",
            Self::Postgres(_) => {
                "check that the server runs, that role and database exist (createuser, createdb), and pg_hba.conf"
            }
        };
        // libpq's messages end with a line break.
        StoreError::Open { address: self.shown(), why: why.to_string().trim().replace('\n', "; "), remedy }
    }
}

/// Makes the file, readable by its owner alone: password hashes lie in it. SQLite's side files follow it.
///
/// One that is there is not opened: a process that closes any descriptor of a file loses all its locks on it (POSIX, fcntl). SQLite's own would
/// go with them, and another program that then closes the database would take the journal away from under this one.
fn make_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// A PostgreSQL address with bounds for connecting and for a peer that fell silent, where it says nothing of them.
fn with_timeouts(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, value) in [("connect_timeout", "5"), ("tcp_user_timeout", "10000"), ("keepalives_idle", "10")] {
        if !url.contains(name) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={value}"));
        }
    }
    url
}

/// The address with its password replaced, wherever libpq admits one.
fn without_password(url: &str) -> String {
    let mut shown = url.to_owned();
    if let Some((start, rest)) = url.split_once("://") {
        let host_at = rest.split(['/', '?']).next().unwrap_or(rest).rfind('@');
        if let Some((user, at)) = host_at.and_then(|at| Some((rest[..at].split_once(':')?.0, at))) {
            shown = format!("{start}://{user}:***{}", &rest[at..]);
        }
    }
    if let Some(at) = shown.find("password=") {
        let value = at + "password=".len();
        let end = shown[value..].find('&').map_or(shown.len(), |n| value + n);
        shown.replace_range(value..end, "***");
    }
    shown
}

/// Brings the tables up to this program's shape.
///
/// # Errors
/// [`StoreError::Migrate`] when a statement fails, or when a newer program made the database.
pub(super) fn migrate(db: &mut Db, address: &Address) -> Result<(), StoreError> {
    let failed = |why: String, remedy| StoreError::Migrate { address: address.shown(), why, remedy };
    let broken = |err: Box<dyn std::error::Error + Send + Sync>| {
        failed(err.to_string(), "nothing was changed by the step that failed; restore a backup or report this")
    };
    let unknown = match db {
        Db::Sqlite(conn) => {
            let unknown = unknown_migrations(conn, SQLITE_MIGRATIONS).map_err(broken)?;
            if unknown.is_empty() {
                conn.run_pending_migrations(SQLITE_MIGRATIONS).map_err(broken)?;
            }
            unknown
        }
        Db::Postgres(conn) => {
            conn.batch_execute(&format!("SELECT pg_advisory_lock({MIGRATION_LOCK})")).map_err(|e| broken(e.into()))?;
            let unknown = unknown_migrations(conn, POSTGRES_MIGRATIONS).map_err(broken)?;
            if unknown.is_empty() {
                conn.run_pending_migrations(POSTGRES_MIGRATIONS).map_err(broken)?;
            }
            conn.batch_execute(&format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})"))
                .map_err(|e| broken(e.into()))?;
            unknown
        }
    };
    if unknown.is_empty() {
        return Ok(());
    }
    Err(failed(
        format!("it has tables of a newer hostler (migration {})", unknown.join(", ")),
        "run that version, or revert with it first",
    ))
}

/// Takes all tables away again, newest migration first. For tests of the way back, and for a person who goes back a version.
///
/// # Errors
/// When a statement fails.
pub fn revert_migrations(db: &mut Db) -> diesel::migration::Result<()> {
    match db {
        Db::Sqlite(conn) => conn.revert_all_migrations(SQLITE_MIGRATIONS).map(drop),
        Db::Postgres(conn) => conn.revert_all_migrations(POSTGRES_MIGRATIONS).map(drop),
    }
}

/// Migrations that were applied but that this program does not know.
fn unknown_migrations<C>(conn: &mut C, known: EmbeddedMigrations) -> diesel::migration::Result<Vec<String>>
where
    C: MigrationHarness<C::Backend> + Connection,
    EmbeddedMigrations: MigrationSource<C::Backend>,
{
    let known = MigrationSource::<C::Backend>::migrations(&known)?;
    let known: Vec<_> = known.iter().map(|m| m.name().version().as_owned()).collect();
    let applied = conn.applied_migrations()?;
    Ok(applied.iter().filter(|v| !known.contains(v)).map(MigrationVersion::to_string).collect())
}

/// Runs `work` in one transaction that holds the write lock from its start.
pub(super) fn atomically<T>(db: &mut Db, work: impl FnOnce(&mut Db) -> QueryResult<T>) -> QueryResult<T> {
    match db {
        // A deferred transaction that turns into a writer fails at once when another process wrote in between.
        Db::Sqlite(conn) => AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")?,
        Db::Postgres(conn) => AnsiTransactionManager::begin_transaction(conn)?,
    }
    let done = work(db);
    if done.is_ok() {
        <Db as Connection>::TransactionManager::commit_transaction(db)?;
    } else {
        // The error of the work is the one to tell.
        <Db as Connection>::TransactionManager::rollback_transaction(db).ok();
    }
    done
}

/// Opens the pool's connections, which only read.
#[derive(Debug)]
pub(super) struct Readers(pub(super) Address);

impl ManageConnection for Readers {
    type Connection = Db;
    type Error = StoreError;

    fn connect(&self) -> Result<Db, StoreError> {
        self.0.reader()
    }

    fn is_valid(&self, db: &mut Db) -> Result<(), StoreError> {
        match db {
            Db::Sqlite(_) => Ok(()),
            Db::Postgres(conn) => conn.ping().map_err(|err| self.0.unopened(err)),
        }
    }

    fn has_broken(&self, db: &mut Db) -> bool {
        each!(db, conn => conn.is_broken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for (url, shown) in [
            ("postgres://u:p@h/db", "postgres://u:***@h/db"),
            ("postgres://u@h/db?x=a:b@c", "postgres://u@h/db?x=a:b@c"),
            ("postgres://u:p@ss@h/db", "postgres://u:***@h/db"),
            ("postgresql:///db?host=/run/pg&password=p&user=u", "postgresql:///db?host=/run/pg&password=***&user=u"),
            ("mysql://u:p@h/db", "mysql://u:***@h/db"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn only_sqlite_and_postgres_are_admitted() {
        for url in ["", "sqlite:", "sqlite::memory:", "mysql://h/db", "/var/lib/hostler/region.db"] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
        assert_eq!(Address::parse("sqlite:/a/b.db").unwrap(), Address::Sqlite("/a/b.db".into()));
        assert_eq!(Address::parse("sqlite:///a/b.db").unwrap(), Address::Sqlite("/a/b.db".into()));
        assert_eq!(Address::parse("sqlite:b.db").unwrap(), Address::Sqlite("b.db".into()));
    }
}
