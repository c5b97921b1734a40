//! The roles: region and rack, from their configuration until a signal ends them.

use std::{future::Future, path::Path};

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::failure::{Code, Failure};

pub mod bench;
pub mod dev;
pub mod init;
pub mod rack;
pub mod region;

/// To the line's begin, and empties it (ECMA-48, EL).
pub const CLEAR: &str = "\r\x1b[2K";

/// Logs go to stderr; `HOSTLER_LOG` filters them (`info`, `debug`, `region=debug,info`).
pub fn log() {
    log_from("info", false);
}

/// As [`log`], with a filter of the caller's where `HOSTLER_LOG` has none. `terminal`: one line is written anew there, and each record takes
/// that line's place.
pub fn log_from(filter: &str, terminal: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOSTLER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(filter));
    // Colours would let a packet's text steer a terminal.
    // The last lines are kept for debug bundles.
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(move || {
        let mut stderr = std::io::stderr();
        if terminal {
            std::io::Write::write_all(&mut stderr, CLEAR.as_bytes()).ok(); // A log that is lost is no reason to stop.
        }
        actors::tail::Kept(stderr)
    });
    subscriber.try_init().ok(); // Fails only when a logger is installed already.
}

/// Runs a role on a runtime of several threads.
///
/// # Errors
/// The role's own, or that the runtime does not start.
pub fn on_threads<F: Future<Output = Result<(), Failure>>>(role: F) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Failure::failed(format!("the runtime does not start: {e}")))?.block_on(role)
}

/// Runs a role on a runtime of one thread.
///
/// # Errors
/// As [`on_threads`].
pub fn on_one_thread<F: Future<Output = Result<(), Failure>>>(role: F) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::failed(format!("the runtime does not start: {e}")))?.block_on(role)
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When signals cannot be heard.
pub async fn until_told() -> Result<(), Failure> {
    let hear = |kind| signal(kind).map_err(|e| Failure::failed(format!("signals cannot be heard: {e}")));
    let (mut term, mut int) = (hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Writes the ready file in one move.
///
/// # Errors
/// When it cannot be written.
pub fn write_ready(path: &Path, value: &Value) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::file("write the ready file", path, &e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    std::io::Write::write_all(&mut file, format!("{value}\n").as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error)).map(|_| ())
}

/// A configuration that is wrong: each fault in a line of its own, exit code 2.
pub fn misconfigured(faults: &impl std::fmt::Display) -> Failure {
    Failure::new(Code::Usage, format!("the configuration is wrong:\n{faults}"), "")
}
