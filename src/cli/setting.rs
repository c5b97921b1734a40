//! `hostler setting …`: the region's settings by MAAS's names.

use clap::Subcommand;

use super::{Global, client::Client, failure::Failure, output};

/// What can be done with settings.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a setting's value as JSON
    Get { name: String },
    /// Set one, as in: setting set kernel_opts "console=ttyS0,115200"
    Set { name: String, value: String },
}

/// Runs one of the commands.
///
/// # Errors
/// As the region says.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match command {
        Command::Get { name } => {
            let value = client.get("maas/", &vec![("op", "get_config".into()), ("name", name)]).await?;
            output::print(&format!("{value}\n"))
        }
        Command::Set { name, value } => {
            client.post("maas/?op=set_config", &vec![("name", name), ("value", value)]).await.map(|_| ())
        }
    }
}
