//! What the benches may be asked for, checked before anything starts: a run of ten minutes must not end in a report that cannot be written.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use benches::{
    bmc::Mix,
    commission::kill::{At, Kill, Victim},
    yard::{Layout, MACHINES_PER_RACK, RACKS},
};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::{
    failure::Failure,
    input::{speed, whole},
};

/// How large a run is, and of what.
#[derive(Debug, Args)]
pub struct Size {
    /// How many machines
    #[arg(long, default_value_t = 200, value_parser = whole::<u64>(1, u64::from(RACKS * MACHINES_PER_RACK), "10000"))]
    pub machines: u64,
    /// How many racks; each serves a network of up to 250 machines
    #[arg(long, default_value_t = 2, value_parser = whole::<u64>(1, u64::from(RACKS), "40"))]
    pub racks: u64,
    /// The same seed draws the same machines
    #[arg(long, default_value_t = 1, value_parser = whole::<u64>(0, u64::MAX, "1"))]
    pub seed: u64,
    /// What the machines' BMCs speak
    #[arg(long, value_enum, default_value_t = Mix::Half)]
    pub bmcs: Mix,
    /// Where the region keeps its state; PostgreSQL is a private server, started for the bench
    #[arg(long, value_enum, default_value_t = Database::Sqlite)]
    pub database: Database,
    /// Divides the machines' own delays; 0: they have none
    #[arg(long, default_value_t = 0.0, value_parser = speed)]
    pub speed: f64,
}

/// `hostler bench commission`.
#[derive(Debug, Args)]
pub struct Commission {
    #[command(flatten)]
    pub size: Size,
    /// kill -9 of the region amid the run, started again at once; AT is a count of Ready machines (1000), a share of them (50%), or a time of
    /// the run (30s). May be given several times
    #[arg(long, value_name = "AT")]
    pub kill_region: Vec<At>,
    /// The same of all racks, which are one process here
    #[arg(long, value_name = "AT")]
    pub kill_racks: Vec<At>,
    /// Somebody watches during the run: the inspection's stream with every topic, and its summary each second
    #[arg(long)]
    pub watch: bool,
    /// Write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Compare with the report of an earlier run
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Draw the run as SVGs into this folder
    #[arg(long, value_name = "DIR")]
    pub plot: Option<PathBuf>,
}

/// `hostler bench inspection`.
#[derive(Debug, Args)]
pub struct Inspection {
    #[command(flatten)]
    pub size: Size,
    /// How many rounds; each is a run without a watcher and one with
    #[arg(long, default_value_t = 5, value_parser = whole::<u64>(1, 100, "5"))]
    pub rounds: u64,
    /// Write the figures as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// `hostler bench plot`.
#[derive(Debug, Args)]
pub struct Plot {
    /// A file that --report has written
    #[arg(value_name = "REPORT")]
    pub from: PathBuf,
    /// The folder for the SVGs
    #[arg(value_name = "DIR")]
    pub into: PathBuf,
}

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Database {
    Sqlite,
    Postgres,
}

impl Size {
    /// As the yard takes it.
    pub fn layout(&self) -> Layout {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let (machines, racks) = (small(self.machines), small(self.racks));
        Layout { machines, racks, seed: self.seed, speed: self.speed, roms: false, bmcs: self.bmcs }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machines, racks, seed, bmcs, database, speed } = self;
        write!(f, "--machines {machines} --racks {racks} --database {} --seed {seed}", word(database))?;
        if *bmcs != Mix::default() {
            write!(f, " --bmcs {}", word(bmcs))?;
        }
        if *speed > 0.0 { write!(f, " --speed {speed}") } else { Ok(()) }
    }
}

fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Commission {
    /// What is to be killed, and when.
    pub fn kills(&self) -> Vec<Kill> {
        let of = |victim, all: &[At]| all.iter().map(|at| Kill { victim, at: *at }).collect::<Vec<_>>();
        [of(Victim::Region, &self.kill_region), of(Victim::Racks, &self.kill_racks)].concat()
    }

    /// The command line that says the same, without the files that it writes.
    pub fn command(&self) -> String {
        let kills = self.kills().into_iter().map(|kill| format!(" {} {}", kill.victim.option(), kill.at));
        let watch = if self.watch { " --watch" } else { "" };
        format!("hostler bench commission {}{}{watch}", self.size, kills.collect::<String>())
    }
}

impl Inspection {
    /// As [`Commission::command`].
    pub fn command(&self) -> String {
        format!("hostler bench inspection {} --rounds {}", self.size, self.rounds)
    }
}

/// Whether a file can be written there; `option` is named when it cannot.
///
/// # Errors
/// Exit code 2.
pub fn writable(option: &str, path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fault = |why: &str| {
        Failure::usage(format!("{option} {}: {why}", path.display()), "give a file in a folder that you may write to")
    };
    if path.is_dir() {
        return Err(fault("it is a folder, and must be a file"));
    }
    let tried = tempfile::NamedTempFile::new_in(folder);
    tried.map(drop).map_err(|e| fault(&format!("nothing can be written to its folder ({})", e.kind())))
}

/// Makes a folder, and sees whether it can be written to.
///
/// # Errors
/// Exit code 2.
pub fn folder(option: &str, path: &Path) -> Result<(), Failure> {
    let made = std::fs::create_dir_all(path).and_then(|()| tempfile::NamedTempFile::new_in(path).map(drop));
    made.map_err(|e| {
        let what = format!(
            "{option} {}: it must be a folder, and nothing can be written there ({})",
            path.display(),
            e.kind()
        );
        Failure::usage(what, "give a folder that you may write to; it is made if it is not there")
    })
}

/// The report of an earlier run; `option` is named when it is none.
///
/// # Errors
/// Exit code 2.
pub fn report(option: &str, path: &Path) -> Result<Value, Failure> {
    let fault = |why: String| {
        let remedy = "give a file that hostler bench commission --report has written";
        Failure::usage(format!("{option} {}: {why}", path.display()), remedy)
    };
    let text = std::fs::read_to_string(path).map_err(|e| fault(format!("it cannot be read ({})", e.kind())))?;
    let report: Value = serde_json::from_str(&text).map_err(|e| fault(format!("it is no report: {e}")))?;
    if report["machines_per_minute"].is_number() {
        Ok(report)
    } else {
        Err(fault("it is no report: it has no machines_per_minute".into()))
    }
}
