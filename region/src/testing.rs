//! A private PostgreSQL server for tests and benches: its own directory, a unix socket, an unprivileged user. Not for production.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

/// A running server. It ends, and its directory goes, when this is dropped or its process dies in any way.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    bin: PathBuf,
    /// Given where this process is root, since PostgreSQL refuses to run as root.
    user: Option<(u32, u32)>,
    settings: Vec<String>,
    guard: Mutex<Option<Child>>,
    databases: AtomicU32,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not {what} a private PostgreSQL server: {why}; install the Debian packages postgresql-15 and util-linux"
)]
pub struct NoPostgres {
    what: &'static str,
    why: String,
}

/// Runs the server as long as standard input is open; then stops it and removes its directory. `$1` is the directory.
const GUARD: &str = r#"dir=$1; shift; "$@" >>"$dir/log" 2>&1 & server=$!
while kill -0 $server 2>/dev/null && read -r line; do
  [ "$line" = stop ] && { kill -INT $server; wait $server; exit 0; }
done
kill -INT $server; wait $server; rm -rf "$dir""#;

impl Postgres {
    /// Makes and starts a server. `durable`: with real syncs, as a bench needs them; a test is quicker without.
    ///
    /// # Errors
    /// [`NoPostgres`] when the programs are missing or do not do their work.
    pub fn start(durable: bool) -> Result<Self, NoPostgres> {
        let failed = |what, why: String| NoPostgres { what, why };
        let bin = programs().ok_or_else(|| failed("find", "no /usr/lib/postgresql/*/bin/initdb".into()))?;
        let dir =
            tempfile::Builder::new().prefix("hostler-pg-").tempdir().map_err(|e| failed("place", e.to_string()))?;
        let dir = dir.keep();
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).map_err(|e| failed("place", e.to_string()))?;
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(|e| failed("place", e.to_string()))?;
        let sync = if durable { "on" } else { "off" };
        let settings = ["listen_addresses=", "max_connections=200", "shared_buffers=128MB", "max_wal_size=4GB"]
            .map(String::from)
            .into_iter()
            .chain([format!("fsync={sync}"), format!("unix_socket_directories={}", dir.display())])
            .collect();
        let this = Self { dir, bin, user, settings, guard: Mutex::new(None), databases: AtomicU32::new(0) };
        let data = this.dir.join("data").display().to_string();
        let init = ["-D", &data, "-U", "hostler", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync"];
        let made = this.command("initdb").args(init).output().map_err(|e| failed("make", e.to_string()))?;
        if !made.status.success() {
            return Err(failed("make", String::from_utf8_lossy(&made.stderr).trim().into()));
        }
        this.resume()?;
        Ok(this)
    }

    /// Starts the server again after [`Postgres::stop`].
    ///
    /// # Errors
    /// When it does not answer within 30 s.
    pub fn resume(&self) -> Result<(), NoPostgres> {
        let server = self.command("postgres");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "postgres-guard"]).arg(&self.dir).arg(server.get_program()).args(server.get_args());
        guard.arg("-D").arg(self.dir.join("data"));
        guard.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        guard.current_dir(&self.dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = guard.spawn().map_err(|e| NoPostgres { what: "start", why: e.to_string() })?;
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        for _ in 0..600 {
            let ready = self.command("pg_isready").args(["-q", "-h"]).arg(&self.dir).status();
            if ready.is_ok_and(|status| status.success()) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        Err(NoPostgres { what: "start", why: log.trim().into() })
    }

    /// Stops the server; its data stay. Connections break.
    pub fn stop(&self) {
        use std::io::Write;
        if let Some(mut guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            if let Some(mut stdin) = guard.stdin.take() {
                stdin.write_all(b"stop\n").ok();
            }
            guard.wait().ok();
        }
    }

    /// Makes an empty database and returns its address.
    ///
    /// # Errors
    /// When the server does not make it.
    pub fn database(&self) -> Result<String, NoPostgres> {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let failed = |why: String| NoPostgres { what: "use", why };
        let made = self.command("createdb").arg("-h").arg(&self.dir).args(["-U", "hostler", &name]).output();
        let made = made.map_err(|e| failed(e.to_string()))?;
        if !made.status.success() {
            return Err(failed(String::from_utf8_lossy(&made.stderr).trim().into()));
        }
        Ok(format!("postgres:///{name}?host={}&user=hostler", self.dir.display()))
    }

    /// A client program of the server's version (`psql`, `pgbench`), set to that database.
    #[must_use]
    pub fn client(&self, program: &str, url: &str) -> Command {
        let mut command = self.command(program);
        let name = url.trim_start_matches("postgres:///").split('?').next().unwrap_or_default();
        command.env("PGHOST", &self.dir).env("PGUSER", "hostler").env("PGDATABASE", name);
        command
    }

    /// The process id of the server, for reading its use of the CPU.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?.lines().next()?.parse().ok()
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match self.user {
            Some((uid, gid)) => {
                let mut command = Command::new("setpriv");
                command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(&self.dir);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(guard.stdin.take());
            guard.wait().ok();
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The directory of the newest server's programs.
fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").is_file())
        .max_by_key(|bin| version(bin))
}

/// For root: the user `postgres`, or else `nobody`.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |file: &str, name: &str| -> Option<u32> {
        let text = fs::read_to_string(file).ok()?;
        text.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').nth(2)?.parse().ok()
    };
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    let postgres = || Some((id("/etc/passwd", "postgres")?, id("/etc/group", "postgres")?));
    root.then(|| postgres().unwrap_or((65_534, 65_534)))
}
