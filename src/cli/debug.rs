//! `hostler debug bundle`: what the region knows of itself and its racks, in one file for whoever is to find a fault.

use std::{io::Write, path::PathBuf};

use clap::Subcommand;
use region::inspect::most;
use serde_json::json;

use crate::role::bench::options::writable;

use super::{
    Global,
    client::{Client, Fields},
    failure::Failure,
    input::whole,
    output,
};

/// What helps to find a fault.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a tar with the inspection's view of the whole, the worst actors, configuration, metrics and last log lines; no secrets
    Bundle {
        /// Where to; left out, hostler-debug-….tar here; - is stdout
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// Actors that are shown whole, the worst first; at most 100
        #[arg(long, value_parser = whole::<u32>(0, most::ACTORS, "20"))]
        actors: Option<u32>,
        /// The last log lines of the region, and of each rack; at most 5000
        #[arg(long, value_parser = whole::<u32>(0, most::LINES, "500"))]
        lines: Option<u32>,
    },
}

/// Runs it.
///
/// # Errors
/// As the region says; when the file cannot be written.
pub async fn run(global: &Global, client: &Client, command: Command) -> Result<(), Failure> {
    let Command::Bundle { file, actors, lines } = command;
    let to_file = |file: &&std::path::Path| file.as_os_str() != "-";
    file.as_deref().filter(to_file).map(|file| writable("--file", file)).transpose()?;
    let mut query: Fields<'_> = actors.map(|n| ("actors", n.to_string())).into_iter().collect();
    query.extend(lines.map(|n| ("lines", n.to_string())));
    let mut stream = client.download("/inspect/v1/snapshot", &query).await?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await? {
        bytes.extend_from_slice(&part);
    }
    if file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
        let mut out = std::io::stdout().lock();
        return out.write_all(&bytes).and_then(|()| out.flush()).map_err(|e| Failure::failed(format!("stdout: {e}")));
    }
    let path = file.unwrap_or_else(|| stream.file_name().unwrap_or_else(|| "hostler-debug.tar".into()).into());
    let failed = |e: std::io::Error| Failure::file("write the bundle", &path, &e);
    // A whole file or none, readable by its owner alone.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let mut written = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    written.write_all(&bytes).map_err(failed)?;
    written.persist(&path).map_err(|e| failed(e.error))?;
    let said = json!({ "file": path, "bytes": bytes.len() });
    output::one(global.output, &[("File", "/file"), ("Bytes", "/bytes")], "/file", &said)
}
