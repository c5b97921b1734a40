//! `hostler rack`: a rack until a signal; its enrolment; reservations for one that runs from a plan file.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use rack::{config::RackConfig, enrol::EnrolError};
use reqwest::Method;
use schema::net::{HostName, MacAddr};

use super::{log, misconfigured, on_threads};
use crate::cli::{
    Global,
    client::Client,
    failure::{Code, Failure},
    output,
};

/// How to run a rack, or what to do with one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Rack {
    #[command(subcommand)]
    pub action: Option<Action>,
    #[command(flatten)]
    pub run: Run,
}

/// How to run it.
#[derive(Debug, Args)]
pub struct Run {
    /// Its configuration; every setting also as HOSTLER_<SECTION>_<KEY>
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Serve from this plan (TOML or JSON), without a region
    #[arg(long)]
    pub plan: Option<PathBuf>,
    /// Only these services, as in dhcp,tftp,http,ntp,syslog
    #[arg(long)]
    pub only: Option<String>,
    /// Where it keeps its state
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Folder of boot files for --plan
    #[arg(long)]
    pub files: Option<PathBuf>,
}

/// What to do with a rack.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Obtain this rack's certificate from its region
    Enrol(Enrol),
    /// Make a new enrolment token (an administrator's command)
    Token {
        /// How long it may wait to be used
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// List racks
    List,
    /// Reserve an address on a rack that runs from a plan file
    Reserve {
        /// The rack's state directory
        #[arg(long)]
        state: PathBuf,
        mac: MacAddr,
        ip: Ipv4Addr,
        name: Option<HostName>,
    },
}

/// An enrolment.
#[derive(Debug, Args)]
pub struct Enrol {
    /// The region's link, as HOST:PORT (5250/udp)
    #[arg(long)]
    pub region: String,
    /// The token; "-" reads it from stdin
    #[arg(long, env = "HOSTLER_ENROLMENT_TOKEN", hide_env_values = true)]
    pub token: String,
    /// The rack's configuration; written when it is not there
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Where the rack keeps its state
    #[arg(long)]
    pub state: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// Exit code 2 for a wrong configuration, 4 for a refused enrolment, 1 when it does not start.
pub fn run(global: &Global, asked: Rack) -> Result<(), Failure> {
    match asked.action {
        None => serve(&asked.run),
        Some(Action::Enrol(enrol)) => on_threads(enrol.run()),
        Some(Action::Token { hours }) => on_threads(async {
            let token = Client::new(global)?
                .own(Method::POST, "/racks/tokens", Some(&vec![("hours", hours.to_string())]))
                .await?;
            output::one(global.output, &[("Token", "/token"), ("Expires", "/expires")], "/token", &token)
        }),
        Some(Action::List) => on_threads(async {
            let columns = &[
                ("NAME", "/hostname"),
                ("ID", "/system_id"),
                ("CONNECTED", "/connected"),
                ("ADDRESSES", "/ip_addresses"),
                ("VERSION", "/version"),
            ];
            let racks = Client::new(global)?.get("rackcontrollers/", &Vec::new()).await?;
            output::list(global.output, columns, "/system_id", crate::cli::machine::array(&racks))
        }),
        Some(Action::Reserve { state, mac, ip, name }) => on_threads(async move {
            rack::control::reserve(&state, mac, ip, name).await.map_err(|e| Failure::failed(e.to_string()))
        }),
    }
}

fn serve(run: &Run) -> Result<(), Failure> {
    log();
    let only = run.only.as_deref().map(Path::new);
    let flags = [
        ("HOSTLER_RACK_PLAN", run.plan.as_deref()),
        ("HOSTLER_RACK_ONLY", only),
        ("HOSTLER_RACK_STATE", run.state.as_deref()),
        ("HOSTLER_RACK_FILES", run.files.as_deref()),
    ];
    let config = load(run.config.as_deref(), flags)?;
    on_threads(async move { rack::app::run(config).await.map_err(|e| Failure::failed(e.to_string())) })
}

/// File, environment, and the command line over both.
pub fn load<const N: usize>(file: Option<&Path>, flags: [(&str, Option<&Path>); N]) -> Result<RackConfig, Failure> {
    let mut all: BTreeMap<String, String> = std::env::vars().collect();
    let given =
        flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_string_lossy().into_owned())));
    all.extend(given);
    RackConfig::load(file, all).map_err(|e| misconfigured(&e))
}

impl Enrol {
    async fn run(self) -> Result<(), Failure> {
        let present = self.config.as_deref().filter(|p| p.exists());
        let config = load(present, [("HOSTLER_RACK_STATE", self.state.as_deref())])?;
        let token = match self.token.as_str() {
            "-" => std::io::read_to_string(std::io::stdin()).map_err(|e| {
                Failure::usage(format!("the token cannot be read from stdin: {e}"), "give it with --token")
            })?,
            text => text.to_owned(),
        };
        let id = rack::enrol::enrol(&config.state, &self.region, token.trim()).await.map_err(|e| refused(&e))?;
        if let (Some(path), None) = (&self.config, present) {
            let text = |s: &str| toml::Value::String(s.to_owned()).to_string();
            let state = text(&config.state.to_string_lossy());
            let new = format!("[rack]\nstate = {state}\n\n[region]\naddresses = [{}]\n", text(&self.region));
            std::fs::write(path, new).map_err(|e| Failure::file("write", path, &e))?;
        }
        eprintln!("Enrolled as rack {id}; its certificate is kept in {}.", config.state.display());
        output::print(&format!("{id}\n"))
    }
}

fn refused(error: &EnrolError) -> Failure {
    let code = match error {
        EnrolError::Token(_) => Code::Usage,
        EnrolError::Already { .. } => Code::Conflict,
        EnrolError::Link(_) => Code::NotAuthorised,
        _ => Code::Failed,
    };
    Failure::new(code, format!("the rack was not enrolled: {error}"), "")
}
