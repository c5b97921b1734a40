//! `hostler rack`: a rack until a signal; its enrolment; reservations for one that runs from a plan file.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use rack::{config::RackConfig, enrol::EnrolError};
use region::api::oauth::encoded;
use reqwest::Method;
use schema::net::{HostName, MacAddr};
use serde_json::{Value, json};

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
    /// Show one rack, by name or id
    Show { rack: String },
    /// How services stand: of one rack, or of all
    Services {
        rack: Option<String>,
        /// Ask the rack that runs on this host with that state directory, without a region
        #[arg(long, conflicts_with = "rack")]
        state: Option<PathBuf>,
    },
    /// Give a rack no new work; it finishes what it has
    Drain(Drain),
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

/// A drain.
#[derive(Debug, Args)]
pub struct Drain {
    /// Its name or id
    pub rack: String,
    /// Give it work again
    #[arg(long)]
    pub undo: bool,
    /// Wait until it has nothing under way
    #[arg(long, conflicts_with = "undo")]
    pub wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 3_600)]
    pub timeout: u64,
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
    /// Its name; left out, this host's. One that the region knows takes that rack's place
    #[arg(long)]
    pub name: Option<HostName>,
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
                ("STATE", "/state"),
                ("ADDRESSES", "/ip_addresses"),
                ("VERSION", "/version"),
                ("WHY", "/why"),
                ("REMEDY", "/remedy"),
            ];
            let racks = Client::new(global)?.get("rackcontrollers/", &Vec::new()).await?;
            output::list(global.output, columns, "/system_id", crate::cli::machine::array(&racks))
        }),
        Some(Action::Show { rack }) => on_threads(async move {
            let path = format!("rackcontrollers/{}/", encoded(&rack));
            let shown = Client::new(global)?.get(&path, &Vec::new()).await;
            output::one(global.output, SHOWN, "/system_id", &shown.map_err(|failure| named(failure, &rack))?)
        }),
        Some(Action::Services { rack, state }) => on_threads(services(global, rack, state)),
        Some(Action::Drain(drain)) => on_threads(drain.run(global)),
        Some(Action::Reserve { state, mac, ip, name }) => on_threads(async move {
            rack::control::reserve(&state, mac, ip, name).await.map_err(|e| Failure::failed(e.to_string()))
        }),
    }
}

/// What `rack show` prints.
const SHOWN: &[output::Column] = &[
    ("Name", "/hostname"),
    ("Id", "/system_id"),
    ("State", "/state"),
    ("Why", "/why"),
    ("Remedy", "/remedy"),
    ("Drained", "/drained"),
    ("Working for", "/machines"),
    ("Addresses", "/ip_addresses"),
    ("Plan", "/plan"),
    ("Version", "/version"),
];

/// What `rack services` prints.
const SERVICES: &[output::Column] = &[
    ("RACK", "/rack"),
    ("SERVICE", "/service"),
    ("STATE", "/state"),
    ("SINCE", "/since"),
    ("ADDRESSES", "/addresses"),
    ("RESTARTS", "/restarts"),
    ("LAST ERROR", "/last_error/why"),
    ("REMEDY", "/last_error/remedy"),
    ("COUNTERS", "/counters"),
];

async fn services(global: &Global, rack: Option<String>, state: Option<PathBuf>) -> Result<(), Failure> {
    let rows = match (rack, state) {
        (_, Some(state)) => {
            let statuses = rack::control::services(&state).map_err(|e| Failure::failed(e.to_string()))?;
            let here = rack::agent::hostname();
            statuses.iter().map(|status| own_status(&here, status)).collect()
        }
        (Some(rack), _) => {
            let path = format!("rackcontrollers/{}/op-services", encoded(&rack));
            let of_one = Client::new(global)?.get(&path, &Vec::new()).await;
            crate::cli::machine::array(&of_one.map_err(|failure| named(failure, &rack))?).to_vec()
        }
        (None, None) => {
            let racks = Client::new(global)?.get("rackcontrollers/", &Vec::new()).await?;
            let all = crate::cli::machine::array(&racks).iter();
            all.flat_map(|rack| crate::cli::machine::array(&rack["services"]).to_vec()).collect()
        }
    };
    output::list(global.output, SERVICES, "/service", &rows)
}

/// A service of the rack on this host, in the shape that the region shows.
fn own_status(rack: &str, status: &schema::service::ServiceStatus) -> Value {
    let counters: serde_json::Map<_, _> = status.counters.iter().map(|(n, c)| (n.clone(), json!(c))).collect();
    let error = status.last_error.as_ref();
    json!({
        "rack": rack, "service": status.service, "state": status.health, "since": status.since.to_string(),
        "addresses": status.addresses, "counters": counters, "restarts": status.restarts,
        "last_error": error.map(|e| json!({"at": e.at.to_string(), "why": e.why, "remedy": e.remedy})),
    })
}

impl Drain {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        let path = format!("rackcontrollers/{}/", encoded(&self.rack));
        let op = if self.undo { "undrain" } else { "drain" };
        let asked = client.post(&path, &vec![("op", op.into())]).await;
        let mut rack = asked.map_err(|failure| named(failure, &self.rack))?;
        let end = actors::clock::tick() + Duration::from_secs(self.timeout);
        while self.wait && !crate::cli::machine::array(&rack["machines"]).is_empty() {
            if actors::clock::tick() > end {
                let left = crate::cli::machine::array(&rack["machines"]).len();
                let why = format!("{} still works for {left} machines", self.rack);
                return Err(Failure::new(Code::TimedOut, why, "wait longer, or abort them"));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            rack = client.get(&path, &Vec::new()).await?;
        }
        output::one(global.output, SHOWN, "/system_id", &rack)
    }
}

/// The region says that a rack is not there in MAAS's words, which do not name it.
fn named(failure: Failure, rack: &str) -> Failure {
    match failure.code {
        Code::NotFound => {
            Failure::new(Code::NotFound, format!("there is no rack \"{rack}\""), "see `hostler rack list`")
        }
        _ => failure,
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
        let name = self.name.map_or_else(rack::agent::hostname, |name| name.to_string());
        let id = rack::enrol::enrol_as(&name, &config.state, &self.region, token.trim()).await;
        let id = id.map_err(|e| refused(&e))?;
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
