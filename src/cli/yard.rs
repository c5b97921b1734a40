//! `hostler yard`: what a hand does in the yard of `hostler dev`.

use clap::Subcommand;
use reqwest::Method;

use super::{
    Global,
    client::Client,
    failure::{Code, Failure},
    input::named,
    machine::find,
    output, seeds,
};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Switch a machine on by hand: it boots from the network, whatever its power type
    Boot {
        /// System id or host name
        #[arg(value_parser = named)]
        machine: String,
    },
    /// Replay a seed: region, racks, network and machines on a virtual clock, with faults that the seed draws
    Seed(seeds::Seed),
    /// Replay several seeds
    Seeds(seeds::Seeds),
}

/// Does it.
///
/// # Errors
/// When there is no such machine, it is on already, or the region is no yard.
pub async fn run(global: &Global, client: &Client, command: Command) -> Result<(), Failure> {
    // Seeds need no region: they are run before one is looked for.
    let Command::Boot { machine } = command else { return Ok(()) };
    let found = find(client, &machine).await?;
    let id = found["system_id"].as_str().unwrap_or(&machine);
    let done = client.own(Method::POST, &format!("/annex/boot/{id}"), Some(&Vec::new())).await;
    let done = done.map_err(|failure| match failure.code {
        Code::NotFound => Failure::new(Code::NotFound, "this region is no yard", "start one with `hostler dev`"),
        _ => failure,
    })?;
    output::one(global.output, &[("Machine", "/hostname"), ("Power", "/power")], "/system_id", &done)
}
