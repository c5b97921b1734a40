//! Time for the rack's subnets (NTP, RFC 5905): chrony under supervision where it is installed, a small SNTP server of our own otherwise.

use std::{
    net::{SocketAddr, SocketAddrV4},
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use schema::service::Health;

use crate::{
    dhcp::Listen,
    places::{self, Bound},
    plan::PlanHandle,
    service::{Meter, Serving, Stopping, Thread, alive},
};

pub mod answer;
pub mod chrony;
pub mod clock;
pub mod own;
pub mod packet;
mod supervise;

/// NTP's port.
pub const PORT: u16 = 123;
/// Of the service's [`Meter`].
const COUNTERS: &[&str] = &[
    "answered",
    "kissed",
    "silenced",
    "stranger",
    "malformed",
    "not_a_client",
    "send_error",
    "port",
    "restarts",
    "source",
    "setting",
];

/// Who answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Server {
    /// chrony where it is installed, our own otherwise.
    #[default]
    Auto,
    Chrony,
    Own,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "chrony" => Ok(Self::Chrony),
            "own" => Ok(Self::Own),
            other => Err(format!("\"{other}\" is none of auto, chrony, own")),
        }
    }
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct NtpConfig {
    pub listen: Listen,
    pub server: Server,
    /// Whether chrony may set this host's clock where nobody else does and the rights allow it.
    pub set_clock: bool,
    /// Answers a second for each client, by our own server; 0: no limit.
    pub rate: u32,
    /// The rack's state directory; chrony's files go to `ntp/` below it.
    pub state: PathBuf,
}

impl Default for NtpConfig {
    fn default() -> Self {
        Self {
            listen: Listen::Interfaces,
            server: Server::Auto,
            set_clock: true,
            rate: 8,
            state: "/var/lib/hostler/rack".into(),
        }
    }
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "NTP cannot listen on {address}: {source}; stop what holds the port (`ss -lunp`), or set another ntp.listen"
    )]
    Bind { address: SocketAddrV4, source: std::io::Error },
    #[error("ntp.server is \"chrony\" and chronyd is not installed; install the package chrony, or set it to \"own\"")]
    NoChrony,
    #[error("chrony's files cannot be kept in {dir}: {source}; make the state directory writable for this user")]
    Files { dir: PathBuf, source: std::io::Error },
    #[error("the system gives no thread for NTP: {0}")]
    Thread(std::io::Error),
}

/// What both kinds of server tell of themselves.
#[derive(Debug, Clone)]
struct Shown {
    meter: Meter,
    bound: Bound,
    /// Something is amiss now; the meter's last error says what.
    amiss: Arc<AtomicBool>,
}

impl Shown {
    fn set_amiss(&self, amiss: bool) {
        self.amiss.store(amiss, Ordering::Relaxed);
    }
}

/// The running service. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    shown: Shown,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Own(Thread),
    Chrony(supervise::Task),
}

/// Starts the service on the current tokio runtime, or on a thread of its own.
///
/// # Errors
/// [`StartError`]. An address of an interface that cannot be bound is no error: it is complained of and tried again.
pub fn start(config: NtpConfig, plan: PlanHandle) -> Result<Running, StartError> {
    let shown = Shown { meter: Meter::new("ntp", COUNTERS), bound: Bound::default(), amiss: Arc::default() };
    let chronyd = chrony::installed();
    // chrony cannot say which port the system chose.
    let fixed = !matches!(&config.listen, Listen::At(places) if places.iter().any(|p| p.port() == 0));
    let kind = match (config.server, chronyd) {
        (Server::Chrony, None) => return Err(StartError::NoChrony),
        (Server::Own, _) | (Server::Auto, None) => Kind::Own(own::start(config, plan, shown.clone())?),
        (Server::Auto, Some(_)) if !fixed => Kind::Own(own::start(config, plan, shown.clone())?),
        (_, Some(programs)) => Kind::Chrony(supervise::start(config, plan, programs, shown.clone())?),
    };
    Ok(Running { shown, kind })
}

impl Running {
    /// Whether chrony answers, and not our own server.
    #[must_use]
    pub fn by_chrony(&self) -> bool {
        matches!(self.kind, Kind::Chrony(_))
    }

    /// Answers no more; chrony has ended when this returns.
    pub async fn stop(self) {
        match self.kind {
            Kind::Own(thread) => drop(tokio::task::spawn_blocking(move || drop(thread)).await), // A panic there was printed there.
            Kind::Chrony(task) => task.stop().await,
        }
    }
}

impl Serving for Running {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.shown.bound.get()
    }

    /// Degraded: a port or a source is missing, or chrony is being started again. Dead: whoever sees to that has ended.
    fn health(&self) -> Health {
        let health = match &self.kind {
            Kind::Own(own) => alive(&own.thread),
            Kind::Chrony(task) if task.task.is_finished() => Health::Dead,
            Kind::Chrony(_) => Health::Running,
        };
        match health {
            Health::Running if self.shown.amiss.load(Ordering::Relaxed) => Health::Degraded,
            health => health,
        }
    }

    fn meter(&self) -> &Meter {
        &self.shown.meter
    }

    fn stop(self: Box<Self>) -> Stopping {
        Box::pin(Self::stop(*self))
    }
}

/// Where the plan and the host want it served.
fn wanted(config: &NtpConfig, plan: &PlanHandle) -> Vec<SocketAddrV4> {
    places::wanted(&config.listen, &plan.load(), PORT)
}
