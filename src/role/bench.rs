//! `hostler bench`: the load benches. What they measure and how is `benches`'; here are their tables and their exit codes.

use std::path::{Path, PathBuf};

use benches::{
    commission::{self, Bench as Run, inspection, parts::Part, plot},
    dialogue::{self, Which},
    yard::Trouble,
};
use clap::Subcommand;
use region::testing::Postgres;
use schema::secret::Secret;
use serde_json::Value;

use super::{log, on_one_thread, on_threads};
use crate::cli::{
    Global,
    failure::{Code, Failure},
    output::{self, Format},
};

pub mod options;

use options::{Commission, Database, Inspection, Plot, Size};

/// The benches.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Machines from New to Ready through the real region and racks, each part in a process of its own
    Commission(Commission),
    /// What looking costs: the commission bench without a watcher and with one, in turn
    Inspection(Inspection),
    /// Draw a report of the commission bench as SVGs
    Plot(Plot),
    /// One process of a bench; it is started by the bench itself
    #[command(hide = true)]
    Part {
        name: Part,
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        spec: String,
    },
    /// One simulated machine that reads what happens to it as lines of JSON, and writes what it does
    #[command(hide = true)]
    Machine(Which),
}

/// Runs it.
///
/// # Errors
/// Exit code 2 for options that do not fit, 1 when a part fails, 8 when some machines did not become Ready.
pub fn run(global: &Global, bench: Bench) -> Result<(), Failure> {
    match bench {
        Bench::Commission(options) => on_threads(commission(global.output, options)),
        Bench::Inspection(options) => on_threads(inspection(global.output, options)),
        Bench::Plot(Plot { from, into }) => {
            let report = options::report("REPORT", &from)?;
            options::folder("DIR", &into)?;
            draw(&report, &into)
        }
        Bench::Machine(which) => {
            let (events, deeds) = (std::io::stdin().lock(), std::io::stdout().lock());
            dialogue::run(&which, events, deeds).map_err(|e| Failure::failed(e.to_string()))
        }
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

/// A run as it is asked for, without its database.
fn bench(size: &Size, command: String) -> Result<Run, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::failed(format!("this program is not found: {e}")))?;
    let layout = size.layout();
    let (database, database_process, kills, watch) = (None, None, Vec::new(), false);
    Ok(Run { program, layout, database, database_process, kills, watch, command })
}

fn checked(bench: &Run, help: &str) -> Result<(), Failure> {
    bench.check().map_err(|e| Failure::usage(e.to_string(), help))
}

/// A private server, if that is asked for.
async fn server(database: Database) -> Result<Option<Postgres>, Failure> {
    if database == Database::Sqlite {
        return Ok(None);
    }
    let started = tokio::task::spawn_blocking(|| Postgres::start(true)).await;
    let started = started.map_err(|e| Failure::failed(e.to_string()))?;
    started.map(Some).map_err(|e| Failure::failed(e.to_string()))
}

/// Gives a run a new database of that server.
fn place(bench: &mut Run, server: Option<&Postgres>) -> Result<(), Trouble> {
    let Some(server) = server else { return Ok(()) };
    bench.database = Some(Secret::new(server.database().map_err(|e| Trouble(e.to_string()))?));
    bench.database_process = server.pid();
    Ok(())
}

async fn commission(format: Format, options: Commission) -> Result<(), Failure> {
    let mut bench = bench(&options.size, options.command())?;
    (bench.kills, bench.watch) = (options.kills(), options.watch);
    checked(&bench, "hostler bench commission --help")?;
    options.report.as_deref().map(|path| options::writable("--report", path)).transpose()?;
    let base = options.compare.as_deref().map(|path| options::report("--compare", path)).transpose()?;
    // The last one, since it may make the folder.
    options.plot.as_deref().map(|path| options::folder("--plot", path)).transpose()?;
    let server = server(options.size.database).await?;
    place(&mut bench, server.as_ref()).map_err(failed)?;
    let report = commission::run(&bench, |line| eprintln!("{line}")).await.map_err(failed)?;
    write(options.report.as_deref(), &report.json)?;
    match format {
        Format::Table => {
            output::print(&report.table())?;
            if let Some(base) = base {
                output::print(&format!("\n{}", commission::compare(&report.json, &base)))?;
            }
        }
        _ => output::one(format, &[], "/machines_per_minute", &report.json)?,
    }
    if let Some(into) = &options.plot {
        draw(&report.json, into)?;
    }
    match report.shortcomings() {
        short if short.is_empty() => Ok(()),
        short => Err(Failure::new(Code::Partly, short.join("\n"), "read the explanations above")),
    }
}

async fn inspection(format: Format, options: Inspection) -> Result<(), Failure> {
    let bench = bench(&options.size, options.command())?;
    checked(&bench, "hostler bench inspection --help")?;
    options.report.as_deref().map(|path| options::writable("--report", path)).transpose()?;
    let server = server(options.size.database).await?;
    let rounds = u32::try_from(options.rounds).unwrap_or(u32::MAX);
    let fresh = |bench: &mut Run| place(bench, server.as_ref());
    let report = inspection::compare(&bench, rounds, fresh, |line| eprintln!("{line}")).await.map_err(failed)?;
    write(options.report.as_deref(), &report)?;
    match format {
        Format::Table => output::print(&inspection::table(&report)),
        _ => output::one(format, &[], "/figures/region and racks/change_percent/median", &report),
    }
}

fn write(path: Option<&Path>, report: &Value) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, format!("{report:#}\n")).map_err(|e| Failure::file("write the report", path, &e))
}

fn draw(report: &Value, into: &Path) -> Result<(), Failure> {
    for plot in plot::plots(report).map_err(failed)? {
        let path = into.join(&plot.name);
        std::fs::write(&path, plot.svg).map_err(|e| Failure::file("write the plot", &path, &e))?;
        eprintln!("drawn: {}", path.display());
    }
    Ok(())
}
