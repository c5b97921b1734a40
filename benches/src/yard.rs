//! A yard put together: a region, racks and a fleet on loopback, with a catalogue that has all a commissioning needs.
//! `dev` runs the parts in one process, the load bench in three.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};

use actors::{catalogue::CatalogueEvent, clock, core::Verdict};
use rack::{
    config::{RackConfig, Service},
    power::PowerSettings,
};
use region::{api::annex::Annexes, app::new_trace, init};
use schema::{catalogue::CatalogueItem, id::RackId, secret::Secret};
use serde::{Deserialize, Serialize};

pub mod cable;
mod furniture;
pub mod operator;
pub mod story;

use furniture::vlan;

use crate::{
    bmc::Mix,
    fleet::{Door, FleetConfig, rack_address},
};

/// How long the parts may take to find each other.
const READY: Duration = Duration::from_secs(60);
/// Machines that one rack's network has addresses for.
pub const MACHINES_PER_RACK: u32 = 250;
/// Racks that there are networks for: 127.77.0.0/24 to 127.77.239.0/24. The rest is the BMCs'.
pub const RACKS: u32 = 240;

/// Why a yard does not come about, or stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

/// Says what was being done.
pub(crate) fn trouble<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Trouble {
    move |error| Trouble(format!("{what}: {error}"))
}

/// How large a yard is, and how its machines are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    pub machines: u32,
    pub racks: u32,
    pub seed: u64,
    /// Divides the machines' own delays; 0: none.
    pub speed: f64,
    /// Some machines need no loader, since their card's ROM is iPXE.
    pub roms: bool,
    /// What the machines' BMCs speak.
    pub bmcs: Mix,
}

impl Layout {
    /// # Errors
    /// One line for each number that does not fit, with its bound and remedy.
    pub fn check(&self) -> Result<(), Trouble> {
        let mut faults = Vec::new();
        if !(1..=RACKS).contains(&self.racks) {
            faults.push(format!("--racks {}: it is 1 to {RACKS}; each has a network of its own", self.racks));
        } else if self.machines > self.racks * MACHINES_PER_RACK {
            let need = self.machines.div_ceil(MACHINES_PER_RACK);
            faults.push(format!(
                "--machines {}: {} racks have addresses for {}; give --racks {need}",
                self.machines,
                self.racks,
                self.racks * MACHINES_PER_RACK
            ));
        }
        if !self.speed.is_finite() || self.speed < 0.0 {
            faults.push(format!("--speed {}: it is 0 (no delays) or a number above, as in 10", self.speed));
        }
        if faults.is_empty() { Ok(()) } else { Err(Trouble(faults.join("\n"))) }
    }

    /// What the fleet is made of, once the racks are there.
    #[must_use]
    pub fn fleet(&self, doors: Vec<Door>) -> FleetConfig {
        let Self { seed, machines, speed, roms, bmcs, .. } = *self;
        FleetConfig { seed, machines, doors, speed, roms, bmcs }
    }
}

/// A region.
pub struct Region {
    pub running: region::app::Running,
    pub made: init::Initialised,
}

/// Where a region keeps its things, and where it listens.
pub struct RegionPlace {
    pub dir: PathBuf,
    /// `None`: SQLite in `dir`.
    pub database: Option<Secret<String>>,
}

impl Region {
    /// Makes and starts a new region.
    ///
    /// # Errors
    /// What did not start.
    pub async fn start(place: RegionPlace) -> Result<Self, Trouble> {
        let config = place.dir.join("region.toml");
        if config.exists() {
            let dir = place.dir.display();
            return Err(Trouble(format!(
                "{dir} holds a yard already; give an empty folder, a yard always begins anew"
            )));
        }
        let options = init::Options {
            config,
            data_dir: place.dir.join("region"),
            database: place.database,
            // The API is started by itself, where the caller wants it.
            api_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            link_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            dns_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            username: "admin".into(),
            email: String::new(),
            password: None,
            token_lasts: Duration::from_secs(600),
        };
        let made = init::init(options).await.map_err(trouble("the region was not made"))?;
        let running = region::app::start(made.config.clone()).await.map_err(trouble("the region did not start"))?;
        Ok(Self { running, made })
    }

    /// Starts the region again that was made in that folder, with its link where its racks know it.
    ///
    /// # Errors
    /// What did not start.
    pub async fn resume(dir: &Path, link: SocketAddr) -> Result<region::app::Running, Trouble> {
        let config = region::config::Config::load(Some(&dir.join("region.toml")), []);
        let config = config.map_err(trouble("the region's configuration"))?;
        let config = region::config::Config { link_listen: link, ..config };
        region::app::start(config).await.map_err(trouble("the region did not start again"))
    }

    /// Starts its API on that port of 127.0.0.1 (0 takes a free one).
    ///
    /// # Errors
    /// When the port is taken.
    pub fn open_api(&self, port: u16, annexes: Annexes) -> Result<region::api::Running, Trouble> {
        open_api(&self.running, port, annexes)
    }

    /// Enrolment tokens, one for each rack.
    ///
    /// # Errors
    /// When the catalogue refuses them.
    pub async fn tokens(&self, racks: u32) -> Result<Vec<String>, Trouble> {
        let minted: Vec<_> =
            (0..racks).map(|_| self.running.app.new_enrolment_token(Duration::from_secs(600))).collect();
        let items = minted.iter().map(|(_, kept)| CatalogueItem::EnrolmentToken(kept.clone())).collect();
        self.put(items).await?;
        Ok(minted.into_iter().map(|(text, _)| text).collect())
    }

    /// Waits for the racks and gives them networks, an image, loaders and scripts.
    ///
    /// # Errors
    /// When a rack does not connect, or the catalogue refuses.
    pub async fn furnish(&self, racks: &[RackId]) -> Result<(), Trouble> {
        let app = &self.running.app;
        let end = clock::tick() + READY;
        while !racks.iter().all(|rack| app.racks().iter().any(|(known, _)| known == rack)) {
            if clock::tick() > end {
                return Err(Trouble("not all racks connected to the region; see the log above".into()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.put(furniture::items(app, racks)?).await
    }

    async fn put(&self, items: Vec<CatalogueItem>) -> Result<(), Trouble> {
        let event = CatalogueEvent::PutAll { by: "yard".into(), items };
        match self.running.app.change_catalogue(event, new_trace()).await.map_err(trouble("the catalogue"))? {
            Verdict::Refused { why, remedy } => Err(Trouble(format!("the catalogue refused: {why}; {remedy}"))),
            _ => Ok(()),
        }
    }
}

/// Starts the API of a region on that port of 127.0.0.1 (0 takes a free one).
///
/// # Errors
/// When the port is taken.
pub fn open_api(region: &region::app::Running, port: u16, annexes: Annexes) -> Result<region::api::Running, Trouble> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    region::api::start_with(region.app.clone(), address, annexes).map_err(trouble("the API did not start"))
}

/// Sizes of the generated bodies in bytes, by name.
#[must_use]
pub fn furniture_sizes() -> serde_json::Map<String, serde_json::Value> {
    furniture::BODIES.iter().map(|(name, size)| ((*name).to_owned(), (*size).into())).collect()
}

/// Starts a rack again that was enrolled with that state directory.
///
/// # Errors
/// What did not start.
pub async fn resume_rack(config: RackConfig) -> Result<rack::app::Running, Trouble> {
    rack::app::App::start(config).await.map_err(trouble("a rack did not start again"))
}

/// Enrols and starts a rack, named by the last part of its state directory: all racks of a yard stand on one host.
///
/// # Errors
/// What did not start.
pub async fn start_rack(config: RackConfig, token: &str) -> Result<(RackId, rack::app::Running), Trouble> {
    let region = config.regions.first().cloned().unwrap_or_default();
    let name = config.state.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let enrolled = rack::enrol::enrol_as(&name, &config.state, &region, token).await;
    let id = enrolled.map_err(trouble("a rack was not enrolled"))?;
    let running = rack::app::App::start(config).await.map_err(trouble("a rack did not start"))?;
    Ok((id, running))
}

/// Settings of rack `number` with just the services of a commissioning, each on the rack's own loopback address at a free port.
#[must_use]
pub fn rack_config(dir: &Path, number: u32, region: SocketAddr) -> RackConfig {
    let state = dir.join(format!("rack-{number}"));
    let free = SocketAddrV4::new(rack_address(number), 0);
    RackConfig {
        state,
        regions: vec![region.to_string()],
        services: [Service::Dhcp, Service::Tftp, Service::Http, Service::Power].into(),
        dhcp: rack::dhcp::Listen::At(vec![free]),
        tftp: free,
        http: free.into(),
        power: PowerSettings { loopback_only: true, ..PowerSettings::default() },
        ..RackConfig::default()
    }
}

/// Where a rack serves its machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    pub dhcp: SocketAddrV4,
    pub tftp: SocketAddrV4,
    pub http: SocketAddrV4,
}

impl Seat {
    /// Where that rack serves.
    ///
    /// # Errors
    /// When it serves no DHCP, TFTP or HTTP.
    pub fn of(rack: &rack::app::Running) -> Result<Self, Trouble> {
        let at = |service: Service| {
            rack.address(service).ok_or_else(|| Trouble(format!("a rack serves no {}", service.name())))
        };
        Ok(Self { dhcp: at(Service::Dhcp)?, tftp: at(Service::Tftp)?, http: at(Service::Http)? })
    }

    /// What its machines know of it.
    #[must_use]
    pub fn door(&self) -> Door {
        Door { dhcp: self.dhcp, tftp_port: self.tftp.port() }
    }

    /// Has a rack that starts again serve where it did.
    pub fn take(self, config: &mut RackConfig) {
        config.dhcp = rack::dhcp::Listen::At(vec![self.dhcp]);
        (config.tftp, config.http) = (self.tftp, self.http.into());
    }
}

/// Where a rack's machines reach it.
///
/// # Errors
/// As [`Seat::of`].
pub fn door(rack: &rack::app::Running) -> Result<Door, Trouble> {
    Seat::of(rack).map(|seat| seat.door())
}
