//! `hostler region`: the region with its API, until a signal.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{log, misconfigured, on_threads, until_told, write_ready};
use crate::cli::failure::Failure;

/// How to run the region.
#[derive(Debug, Args)]
pub struct Region {
    /// Its configuration, as `hostler init` wrote it; every setting also as HOSTLER_<SECTION>_<KEY>
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Write this file once everything answers
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// Exit code 2 for a wrong configuration, 1 when it does not start.
pub fn run(asked: Region) -> Result<(), Failure> {
    log();
    let config =
        region::config::Config::load(asked.config.as_deref(), std::env::vars()).map_err(|e| misconfigured(&e))?;
    on_threads(async move {
        let listen = config.api_listen;
        let running = region::app::start(config).await.map_err(|e| Failure::failed(e.to_string()))?;
        let api = match region::api::start(running.app.clone(), listen) {
            Ok(api) => api,
            Err(error) => {
                running.stop().await;
                return Err(Failure::failed(error.to_string()));
            }
        };
        if let Some(inspect) = api.inspect {
            tracing::info!(%inspect, "the inspection answers there, too");
        }
        tracing::info!(api = %api.address, link = %running.link, "the region answers");
        if let Some(path) = &asked.ready_file {
            write_ready(path, &ready(&api, running.link))?;
        }
        until_told().await?;
        tracing::info!("the region stops");
        api.stop().await;
        running.stop().await;
        Ok(())
    })
}

/// What the ready file says of a region alone: keys and racks are not its to tell.
fn ready(api: &region::api::Running, link: SocketAddr) -> Value {
    let reached = |address: SocketAddr| {
        let everywhere = address.ip().is_unspecified();
        if everywhere { format!("127.0.0.1:{}", address.port()) } else { address.to_string() }
    };
    let (host, inspect) = (reached(api.address), reached(api.inspect.unwrap_or(api.address)));
    json!({
        "url": format!("http://{host}/MAAS/"), "api_key": null, "admin": null,
        "inspect": format!("http://{inspect}/inspect/v1/"), "link": link.to_string(), "racks": [], "pid": std::process::id(),
    })
}
