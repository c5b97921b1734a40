//! `hostler init`: a new region on disk, and what its operator must keep: key, password, enrolment token. Each is shown this once.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use region::init::{InitError, Options};
use schema::secret::Secret;
use serde_json::json;

use super::on_threads;
use crate::cli::{
    Global,
    failure::{Code, Failure},
    output,
};

/// A new region.
#[derive(Debug, Args)]
pub struct Init {
    /// The configuration to write
    #[arg(long, default_value = "/etc/hostler/region.toml")]
    pub config: PathBuf,
    /// Where the region keeps its keys, bodies and, with SQLite, its database
    #[arg(long, default_value = "/var/lib/hostler/region")]
    pub data_dir: PathBuf,
    /// sqlite:PATH or postgres://USER@HOST/DATABASE; left out, SQLite in the data directory
    #[arg(long, env = "HOSTLER_DATABASE_URL", hide_env_values = true)]
    pub database: Option<String>,
    /// Where the API listens
    #[arg(long, default_value = "0.0.0.0:5240")]
    pub api_listen: SocketAddr,
    /// Where racks dial in (UDP)
    #[arg(long, default_value = "0.0.0.0:5250")]
    pub link_listen: SocketAddr,
    /// Where the zones are served (UDP and TCP)
    #[arg(long, default_value = "0.0.0.0:5253")]
    pub dns_listen: SocketAddr,
    /// The address by which racks reach the region, as HOST:PORT; for the printed command
    #[arg(long)]
    pub region_address: Option<String>,
    /// The first administrator
    #[arg(long, default_value = "admin")]
    pub username: String,
    #[arg(long, default_value = "")]
    pub email: String,
    /// File with the administrator's password; else HOSTLER_ADMIN_PASSWORD, else one is made up
    #[arg(long)]
    pub password_file: Option<PathBuf>,
    /// How long the first rack enrolment token may wait to be used
    #[arg(long, default_value_t = 24)]
    pub token_hours: u32,
}

/// Makes it.
///
/// # Errors
/// Exit code 5 when there is a region already, 1 otherwise.
pub fn run(global: &Global, asked: Init) -> Result<(), Failure> {
    let password = match &asked.password_file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|e| Failure::file("read", path, &e))?),
        None => std::env::var("HOSTLER_ADMIN_PASSWORD").ok().filter(|p| !p.is_empty()),
    };
    let address = asked.region_address.clone().unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}:{}", host.trim(), asked.link_listen.port())
    });
    let options = Options {
        config: asked.config,
        data_dir: asked.data_dir,
        database: asked.database.map(Secret::new),
        api_listen: asked.api_listen,
        link_listen: asked.link_listen,
        dns_listen: asked.dns_listen,
        username: asked.username,
        email: asked.email,
        password: password.map(|p| Secret::new(p.trim_end_matches(['\r', '\n']).to_owned())),
        token_lasts: Duration::from_secs(u64::from(asked.token_hours) * 3_600),
    };
    on_threads(async move {
        let path = options.config.clone();
        let made = region::init::init(options).await.map_err(|e| refused(&e))?;
        let token = made.token.expose();
        let told = json!({
            "config": path, "url": format!("http://127.0.0.1:{}/MAAS/", made.config.api_listen.port()),
            "username": made.username, "password": made.password.expose(), "api_key": made.api_key.expose(),
            "enrolment_token": token, "region_address": address,
            "enrol": format!("hostler rack enrol --region {address} --token {token}"),
        });
        eprintln!("A new region. Keep what follows: it is shown this once.");
        let columns = &[
            ("Configuration", "/config"),
            ("Start it", "/start"),
            ("API", "/url"),
            ("Administrator", "/username"),
            ("Password", "/password"),
            ("API key", "/api_key"),
            ("Rack token", "/enrolment_token"),
            ("On each rack", "/enrol"),
        ];
        let mut told = told;
        told["start"] = json!(format!("hostler region --config {}", path.display()));
        output::one(global.output, columns, "/api_key", &told)
    })
}

fn refused(error: &InitError) -> Failure {
    let code =
        if matches!(error, InitError::Exists(_) | InitError::Taken { .. }) { Code::Conflict } else { Code::Failed };
    Failure::new(code, error.to_string(), "")
}
