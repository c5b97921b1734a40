//! `hostler doctor`: what the roles need of this host, checked a line each. The rack's own checks are the rack's.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Global,
    client::Client,
    failure::{Code, Failure},
    output::{self, Column},
};

/// What to check.
#[derive(Debug, Args)]
pub struct Doctor {
    /// region.toml or rack.toml; may be repeated. Without one, a rack's defaults are checked
    #[arg(long)]
    pub config: Vec<PathBuf>,
}

const COLUMNS: &[Column] = &[("STATE", "/state"), ("CHECK", "/check"), ("SEEN", "/seen"), ("REMEDY", "/remedy")];

/// Runs the checks.
///
/// # Errors
/// Exit code 1 when a check is bad.
pub async fn run(global: &Global, doctor: Doctor) -> Result<(), Failure> {
    let mut found = Vec::new();
    for path in &doctor.config {
        if is_region(path) {
            found.extend(region(path));
        } else {
            found.extend(rack(Some(path))?);
        }
    }
    if doctor.config.is_empty() {
        found.extend(rack(None)?);
    }
    found.push(image_tools());
    if let Ok(client) = Client::new(global) {
        found.push(match client.get("users/", &vec![("op", "whoami".into())]).await {
            Ok(me) => line("region", "good", format!("{} answers {}", client.base(), me["username"]), ""),
            Err(failure) => line("region", "bad", failure.what, &failure.remedy),
        });
    }
    output::list(global.output, COLUMNS, "/check", &found)?;
    match found.iter().filter(|f| f["state"] == "bad").count() {
        0 => Ok(()),
        bad => Err(Failure::new(
            Code::Failed,
            format!("{bad} of {} checks are bad", found.len()),
            "each line names its remedy",
        )),
    }
}

fn line(check: &str, state: &str, seen: impl Into<String>, remedy: &str) -> Value {
    json!({"check": check, "state": state, "seen": seen.into(), "remedy": remedy})
}

/// A region's configuration has a database; a rack's has none.
fn is_region(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.parse::<toml::Table>().is_ok_and(|t| t.contains_key("database") || t.contains_key("api"))
}

fn rack(path: Option<&Path>) -> Result<Vec<Value>, Failure> {
    let config = crate::role::rack::load(path, [])?;
    let show = |f| serde_json::to_value(f).map_err(|e| Failure::failed(e.to_string()));
    rack::doctor::checks(&config).iter().map(show).collect()
}

fn region(path: &Path) -> Vec<Value> {
    let config = match region::config::Config::load(Some(path), std::env::vars()) {
        Ok(config) => config,
        Err(faults) => {
            let remedies = faults.0.iter().map(|f| line("configuration", "bad", f.to_string(), &f.remedy));
            return remedies.collect();
        }
    };
    let tcp = TcpListener::bind(config.api_listen).map(|_| ());
    let udp = UdpSocket::bind(config.link_listen).map(|_| ());
    let dns = UdpSocket::bind(config.dns_listen).and_then(|_| TcpListener::bind(config.dns_listen)).map(|_| ());
    let inspect = config.inspect_listen.map(|at| port("port inspect tcp", at, TcpListener::bind(at).map(|_| ())));
    let folder = std::fs::metadata(&config.data_dir);
    let mut found = vec![
        line("configuration", "good", path.display().to_string(), ""),
        port("port api tcp", config.api_listen, tcp),
        port("port link udp", config.link_listen, udp),
        port("port dns udp and tcp", config.dns_listen, dns),
        match folder {
            Ok(m) if m.is_dir() => line("data directory", "good", config.data_dir.display().to_string(), ""),
            Ok(_) => line("data directory", "bad", "it is a file", "choose another region.data_dir"),
            Err(e) => line(
                "data directory",
                "bad",
                format!("{}: {e}", config.data_dir.display()),
                "run `hostler init`, or mend region.data_dir",
            ),
        },
        database(config.database.expose()),
        line(
            "outlook",
            "good",
            "the region answers racks and operators, and calls nobody on any network of machines",
            "",
        ),
    ];
    found.extend(inspect);
    let of_host = [rack::doctor::time(actors::clock::now()), rack::doctor::disk(&config.data_dir)];
    found.extend(of_host.iter().filter_map(|f| serde_json::to_value(f).ok()));
    found
}

/// Whether there is a database to open. It is not opened: that would bring its tables up to date.
fn database(url: &str) -> Value {
    let Some(file) = url.strip_prefix("sqlite:").map(Path::new) else {
        return line("database", "good", "PostgreSQL; it is tried when the region starts", "");
    };
    match std::fs::metadata(file) {
        Ok(found) => line("database", "good", format!("{} ({} KiB)", file.display(), found.len() >> 10), ""),
        Err(e) => {
            line("database", "bad", format!("{}: {e}", file.display()), "run `hostler init`, or mend database.url")
        }
    }
}

fn port(check: &str, address: SocketAddr, tried: std::io::Result<()>) -> Value {
    match tried {
        Ok(()) => line(check, "good", format!("{address} is free"), ""),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => line(
            check,
            "warning",
            format!("{address} is in use"),
            "right while the region runs; otherwise stop what holds it",
        ),
        Err(e) => line(check, "bad", format!("{address}: {e}"), "choose another address, or run with the right for it"),
    }
}

fn image_tools() -> Value {
    let missing: Vec<_> =
        ["mmdebstrap", "mksquashfs", "zstd"].into_iter().filter(|t| !crate::image::build::on_path(t)).collect();
    if missing.is_empty() {
        return line("image build", "good", "mmdebstrap, mksquashfs and zstd are here", "");
    }
    let remedy = "apt-get install mmdebstrap squashfs-tools zstd (only where images are built)";
    line("image build", "warning", format!("missing: {}", missing.join(", ")), remedy)
}
