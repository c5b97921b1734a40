//! `hostler bench`: the load benches. What they measure and how is `benches`'; here are their options, their table and their exit code.

use std::path::PathBuf;

use benches::{
    bmc::Mix,
    commission::{self, Bench as Commission, parts::Part},
    yard::{Layout, Trouble},
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::{log, on_one_thread, on_threads};
use crate::cli::{
    Global,
    failure::{Code, Failure},
    output::{self, Format},
};

/// The benches.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Machines from New to Ready through the real region and racks, each part in a process of its own
    Commission(Options),
    /// One process of a bench; it is started by the bench itself
    #[command(hide = true)]
    Part {
        name: Part,
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        spec: String,
    },
}

/// What to measure.
#[derive(Debug, Args)]
pub struct Options {
    /// How many machines
    #[arg(long, default_value_t = 200)]
    pub machines: u32,
    /// How many racks; each serves a network of up to 250 machines
    #[arg(long, default_value_t = 2)]
    pub racks: u32,
    /// The same seed draws the same machines
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What the machines' BMCs speak
    #[arg(long, value_enum, default_value_t = Mix::Half)]
    pub bmcs: Mix,
    /// Where the region keeps its state; PostgreSQL is a private server, started for the bench
    #[arg(long, value_enum, default_value_t = Database::Sqlite)]
    pub database: Database,
    /// Divides the machines' own delays; 0: they have none
    #[arg(long, default_value_t = 0.0)]
    pub speed: f64,
    /// Write the report as JSON to this file
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Compare with the report of an earlier run
    #[arg(long)]
    pub compare: Option<PathBuf>,
}

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// Runs it.
///
/// # Errors
/// Exit code 2 for options that do not fit, 1 when a part fails, 8 when some machines did not become Ready.
pub fn run(global: &Global, bench: Bench) -> Result<(), Failure> {
    match bench {
        Bench::Commission(options) => on_threads(measure(global.output, options)),
        Bench::Part { name, dir, spec } => {
            log();
            let work = async move { commission::parts::run(name, dir, &spec).await.map_err(failed) };
            // The machines share one thread, so that the other core is the product's.
            if name == Part::Fleet { on_one_thread(work) } else { on_threads(work) }
        }
    }
}

fn failed(trouble: Trouble) -> Failure {
    Failure::failed(trouble.to_string())
}

async fn measure(format: Format, options: Options) -> Result<(), Failure> {
    let Options { machines, racks, seed, speed, bmcs, .. } = options;
    let layout = Layout { machines, racks, seed, speed, roms: false, bmcs };
    layout.check().map_err(|e| Failure::usage(e.to_string(), "hostler bench commission --help"))?;
    let base = options.compare.as_ref().map(read).transpose()?;
    let server = match options.database {
        Database::Sqlite => None,
        Database::Postgres => {
            let start = || region::testing::Postgres::start(true);
            let started = tokio::task::spawn_blocking(start).await.map_err(|e| Failure::failed(e.to_string()))?;
            Some(started.map_err(|e| Failure::failed(e.to_string()))?)
        }
    };
    let database = server.as_ref().map(|s| s.database()).transpose().map_err(|e| Failure::failed(e.to_string()))?;
    let program = std::env::current_exe().map_err(|e| Failure::failed(format!("this program is not found: {e}")))?;
    let bench = Commission {
        program,
        layout,
        database: database.map(schema::secret::Secret::new),
        database_process: server.as_ref().and_then(|s| s.pid()),
    };
    let report = commission::run(&bench, |line| eprintln!("{line}")).await.map_err(failed)?;
    if let Some(path) = &options.report {
        let text = format!("{:#}\n", report.json);
        std::fs::write(path, text).map_err(|e| Failure::file("write the report", path, &e))?;
    }
    match format {
        Format::Table => {
            output::print(&report.table())?;
            if let Some(base) = base {
                output::print(&format!("\n{}", commission::compare(&report.json, &base)))?;
            }
        }
        _ => output::one(format, &[], "/machines_per_minute", &report.json)?,
    }
    if report.all_ready() {
        return Ok(());
    }
    let of = |name: &str| report.json[name].to_string();
    let what =
        format!("{} of {machines} machines are Ready; {} failed, {} stuck", of("ready"), of("failed"), of("stuck"));
    Err(Failure::new(Code::Partly, what, "read their explanations above"))
}

fn read(path: &PathBuf) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::file("read the report", path, &e))?;
    serde_json::from_str(&text).map_err(|e| {
        Failure::usage(format!("{} is no report: {e}", path.display()), "give a file that --report has written")
    })
}
