//! The command tree: what there is to ask for. Each command's work stands in the file of its noun.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub mod actor;
pub mod client;
pub mod debug;
pub mod doctor;
pub mod event;
pub mod failure;
pub mod image;
pub mod input;
pub mod login;
pub mod logs;
pub mod machine;
pub mod output;
pub mod power_input;
pub mod profile;
pub mod report;
pub mod script;
pub mod seeds;
pub mod setting;
pub mod subnet;
pub mod trace;
pub mod yaml;
pub mod yard;

use client::Client;
use failure::Failure;
use output::Format;

use crate::role::{bench, dev, init, rack, region};

/// Bare metal that commissions itself and can always say why it is waiting.
#[derive(Debug, Parser)]
#[command(name = "hostler", version, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// What was asked for on the command line.
    ///
    /// # Errors
    /// As clap says, which also ends help and version that way.
    pub fn read() -> Result<Self, clap::Error> {
        Self::from_arg_matches(&numbers_below_zero(Self::command()).try_get_matches()?)
    }
}

/// A number below zero is a value, so that its bound is told, and no option that nobody knows.
fn numbers_below_zero(command: clap::Command) -> clap::Command {
    let of_values = |arg: clap::Arg| {
        let values = arg.get_action().takes_values();
        arg.allow_negative_numbers(values)
    };
    command.mut_args(of_values).mut_subcommands(numbers_below_zero)
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, env = "HOSTLER_OUTPUT")]
    pub output: Format,
    /// The profile to use, from `hostler login`
    #[arg(long, global = true, env = "HOSTLER_PROFILE")]
    pub profile: Option<String>,
    /// The region's URL, instead of a profile's
    #[arg(long, global = true, env = "HOSTLER_URL")]
    pub url: Option<String>,
    /// The API key, instead of a profile's; best given as HOSTLER_KEY
    #[arg(long, global = true, env = "HOSTLER_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Show each request on stderr
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new region: configuration, database, first administrator
    Init(init::Init),
    /// Run the region
    Region(region::Region),
    /// Run a rack, or enrol one
    Rack(rack::Rack),
    /// A region, racks and simulated machines on loopback, to look around
    Dev(dev::Dev),
    /// The load benches
    #[command(subcommand)]
    Bench(bench::Bench),
    /// What a hand does in the yard of `hostler dev`; and the yard on a virtual clock
    #[command(subcommand)]
    Yard(yard::Command),
    /// Check what the roles need of this host
    Doctor(doctor::Doctor),
    /// Keep a region's URL and key under a name
    Login(login::Login),
    /// Machines: add, list, show, commission, power, events, results
    #[command(subcommand)]
    Machine(machine::Command),
    /// Why a machine is where it is, and what to do
    Explain {
        /// System id or host name
        machine: String,
    },
    /// Actors of the region and its racks: what each is at, what waits, what deserves a look
    #[command(subcommand)]
    Actor(actor::Command),
    /// What happened to machines, and goes on to happen
    #[command(subcommand)]
    Event(event::Command),
    /// What helps to find a fault
    #[command(subcommand)]
    Debug(debug::Command),
    /// Subnets and their ranges
    #[command(subcommand)]
    Subnet(subnet::Command),
    /// Ephemeral images and boot loaders
    #[command(subcommand)]
    Image(image::Command),
    /// Commissioning and testing scripts of your own
    #[command(subcommand)]
    Script(script::Command),
    /// The region's settings
    #[command(subcommand)]
    Setting(setting::Command),
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] with the exit code and what to print.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    // Fails only when one is installed already.
    rustls::crypto::ring::default_provider().install_default().ok();
    let Arguments { global, command } = arguments;
    match command {
        Command::Init(init) => init::run(&global, init),
        Command::Region(region) => region::run(region),
        Command::Dev(dev) => dev::run(dev),
        Command::Bench(bench) => bench::run(&global, bench),
        Command::Rack(rack) => rack::run(&global, rack),
        Command::Yard(yard::Command::Seed(seed)) => seeds::one(&global, seed),
        Command::Yard(yard::Command::Seeds(seeds)) => seeds::several(&global, seeds),
        other => operate(&global, other),
    }
}

/// An operator's command: one thread is enough for it.
fn operate(global: &Global, command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::failed(format!("the runtime does not start: {e}")))?;
    runtime.block_on(async {
        match command {
            Command::Init(_) | Command::Region(_) | Command::Dev(_) | Command::Bench(_) | Command::Rack(_) => Ok(()),
            Command::Doctor(doctor) => doctor::run(global, doctor).await,
            Command::Login(login) => login::run(global, login).await,
            Command::Machine(command) => machine::run(global, &Client::new(global)?, command).await,
            Command::Explain { machine } => report::explain(global, &Client::new(global)?, &machine).await,
            Command::Actor(command) => actor::run(global, &Client::new(global)?, command).await,
            Command::Event(command) => event::run(global.output, &Client::new(global)?, command).await,
            Command::Debug(command) => debug::run(global, &Client::new(global)?, command).await,
            Command::Subnet(command) => subnet::run(global, &Client::new(global)?, command).await,
            Command::Image(command) => image::run(global, command).await,
            Command::Script(command) => script::run(global, &Client::new(global)?, command).await,
            Command::Setting(command) => setting::run(global, command).await,
            Command::Yard(command) => yard::run(global, &Client::new(global)?, command).await,
        }
    })
}
