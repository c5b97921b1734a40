//! `hostler dev`: a region and one rack on loopback in one process, to look around. No root, no configuration, SQLite,
//! nothing outside its data directory. Real machines cannot be reached from here; the simulated fleet comes with its own issue.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use rack::config::{RackConfig, Service};
use region::init;
use schema::id::RackId;
use serde_json::{Value, json};

use super::{log, on_threads, until_told, write_ready};
use crate::cli::failure::Failure;

/// The rack's own address; its subnet is 127.77.0.0/24.
const RACK: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 2);
/// How long the pieces may take to answer.
const READY: Duration = Duration::from_secs(20);

/// How to start it.
#[derive(Debug, Args)]
pub struct Dev {
    /// The API's port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 5240)]
    pub port: u16,
    /// Where everything is kept; left out, a temporary folder that goes at the end
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Write this file once everything answers
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

/// Runs it until a signal.
///
/// # Errors
/// When something does not start.
pub fn run(asked: Dev) -> Result<(), Failure> {
    log();
    let temporary = match &asked.data_dir {
        Some(_) => None,
        None => Some(
            tempfile::tempdir().map_err(|e| Failure::failed(format!("no temporary folder: {e}; give --data-dir")))?,
        ),
    };
    let dir = asked.data_dir.clone().or_else(|| temporary.as_ref().map(|t| t.path().to_owned())).unwrap_or_default();
    let done = on_threads(serve(asked, dir));
    drop(temporary);
    done
}

async fn serve(asked: Dev, dir: PathBuf) -> Result<(), Failure> {
    let made = new_region(&dir, asked.port).await?;
    let mut config = made.config.clone();
    config.api_listen.set_port(asked.port);
    let region = region::app::start(config).await.map_err(|e| Failure::failed(e.to_string()))?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, asked.port));
    let api = region::api::start(region.app.clone(), listen).map_err(|e| Failure::failed(e.to_string()))?;
    let state = dir.join("rack");
    let id = rack::enrol::enrol(&state, &region.link.to_string(), made.token.expose())
        .await
        .map_err(|e| Failure::failed(format!("the rack was not enrolled: {e}")))?;
    let rack =
        rack::app::App::start(rack_config(state, region.link)).await.map_err(|e| Failure::failed(e.to_string()))?;
    connected(&region, id).await?;
    let ready = ready(api.address, &made, id, &rack);
    if let Some(path) = &asked.ready_file {
        write_ready(path, &ready)?;
    }
    greet(&ready, &dir);
    until_told().await?;
    rack.stop().await;
    api.stop().await;
    region.stop().await;
    Ok(())
}

async fn new_region(dir: &Path, port: u16) -> Result<init::Initialised, Failure> {
    let data_dir = dir.join("region");
    let config = dir.join("region.toml");
    if config.exists() {
        return Err(Failure::usage(
            format!("{} holds a yard already", dir.display()),
            "give an empty --data-dir; `dev` always begins anew",
        ));
    }
    let options = init::Options {
        config,
        data_dir,
        database: None,
        api_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        link_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        username: "admin".into(),
        email: String::new(),
        password: None,
        token_lasts: Duration::from_secs(600),
    };
    init::init(options).await.map_err(|e| Failure::failed(e.to_string()))
}

/// The rack's settings: every service on its loopback address, at a free port.
fn rack_config(state: PathBuf, region: SocketAddr) -> RackConfig {
    let free = SocketAddrV4::new(RACK, 0);
    RackConfig {
        state,
        regions: vec![region.to_string()],
        dhcp: rack::dhcp::Listen::At(vec![free]),
        tftp: free,
        http: free.into(),
        proxy: rack::proxy::ProxyConfig { listen: free.into(), ..rack::proxy::ProxyConfig::default() },
        ..RackConfig::default()
    }
}

async fn connected(region: &region::app::Running, id: RackId) -> Result<(), Failure> {
    let end = actors::clock::tick() + READY;
    while !region.app.racks().iter().any(|(rack, _)| *rack == id) {
        if actors::clock::tick() > end {
            return Err(Failure::failed("the rack did not connect to its region; see the log above"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The ready file's object (contracts, section 1). A service that does not exist yet is null.
fn ready(api: SocketAddr, made: &init::Initialised, id: RackId, rack: &rack::app::Running) -> Value {
    let at = |service| rack.address(service).map(|a| a.to_string());
    json!({
        "url": format!("http://{api}/MAAS/"),
        "api_key": made.api_key.expose(),
        "admin": { "username": made.username, "password": made.password.expose() },
        "inspect": format!("http://{api}/inspect/v1/"),
        "racks": [{
            "id": id,
            "http": at(Service::Http).map(|a| format!("http://{a}")),
            "dhcp": at(Service::Dhcp),
            "tftp": at(Service::Tftp),
            "proxy": at(Service::Proxy),
            "dns": null, "ntp": null, "syslog": null,
        }],
        "pid": std::process::id(),
    })
}

fn greet(ready: &Value, dir: &Path) {
    let text = |path: &str| ready.pointer(path).and_then(Value::as_str).unwrap_or("-").to_owned();
    eprintln!(
        "\nA region and a rack are alive; data in {}. Ctrl-C ends them.\n\n  API    {}\n  rack   {} at {}\n\nTry, in another shell:\n\n  \
         export HOSTLER_URL={} HOSTLER_KEY={}\n  hostler subnet add 127.77.0.0/24 --dynamic 127.77.0.50-127.77.0.199\n  \
         hostler machine add fox --mac 52:54:00:12:34:56\n  hostler machine list\n  hostler explain fox\n",
        dir.display(),
        text("/url"),
        text("/racks/0/id"),
        text("/racks/0/http"),
        text("/url"),
        text("/api_key"),
    );
}
