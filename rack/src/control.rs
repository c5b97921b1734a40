//! The socket in the state directory through which a running rack is told things by its own host, a line of JSON each way.

use std::{
    io,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use schema::{
    messages::link::PlanUpdate,
    net::{HostName, MacAddr},
    plan::PlanSubnet,
    service::ServiceStatus,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use crate::{plan::PlanHandle, planfile, services::Services, state::State};

/// Bytes of one request at most.
const LONGEST: u64 = 64 * 1024;
/// Bytes of an answer at most: some hundred subnets.
const LONGEST_ANSWER: u64 = 4 << 20;

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Keep that address for that MAC, from the next packet on.
    Reserve { mac: MacAddr, ip: Ipv4Addr, name: Option<HostName> },
    /// How do the services stand?
    Services,
    /// Which subnets does the plan in force have?
    Subnets,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    Refused { why: String },
    Services(Vec<ServiceStatus>),
    Subnets(Vec<PlanSubnet>),
}

/// Why a running rack could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no rack listens at {path}: {source}; start `hostler rack --state {dir}` first, and run this as its user")]
    Unreachable { path: PathBuf, dir: PathBuf, source: io::Error },
    #[error("the rack at {path} broke off: {source}; see its log")]
    Broke { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Refused(String),
}

fn socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// `hostler rack reserve`: tells the rack that runs with this state directory.
///
/// # Errors
/// [`ControlError`].
pub async fn reserve(state: &Path, mac: MacAddr, ip: Ipv4Addr, name: Option<HostName>) -> Result<(), ControlError> {
    let path = socket(state);
    let broke = |source| ControlError::Broke { path: path.clone(), source };
    let stream = UnixStream::connect(&path).await;
    let mut stream =
        stream.map_err(|source| ControlError::Unreachable { path: path.clone(), dir: state.into(), source })?;
    let mut line = serde_json::to_vec(&Ask::Reserve { mac, ip, name }).map_err(|e| broke(e.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broke)?;
    let mut answer = String::new();
    BufReader::new(stream).take(LONGEST).read_line(&mut answer).await.map_err(broke)?;
    match serde_json::from_str(&answer).map_err(|e| broke(e.into()))? {
        Answer::Refused { why } => Err(ControlError::Refused(why)),
        Answer::Done | Answer::Services(_) | Answer::Subnets(_) => Ok(()),
    }
}

/// How the services of the rack that runs with this state directory stand. Blocks for some seconds at most.
///
/// # Errors
/// [`ControlError`].
pub fn services(state: &Path) -> Result<Vec<ServiceStatus>, ControlError> {
    match ask(state, &Ask::Services)? {
        Answer::Services(statuses) => Ok(statuses),
        _ => Ok(Vec::new()),
    }
}

/// The subnets of the plan that is in force there. As [`services`].
///
/// # Errors
/// [`ControlError`].
pub fn subnets(state: &Path) -> Result<Vec<PlanSubnet>, ControlError> {
    match ask(state, &Ask::Subnets)? {
        Answer::Subnets(subnets) => Ok(subnets),
        _ => Ok(Vec::new()),
    }
}

fn ask(state: &Path, ask: &Ask) -> Result<Answer, ControlError> {
    use std::io::{BufRead, Read, Write};
    let path = socket(state);
    let broke = |source| ControlError::Broke { path: path.clone(), source };
    let stream = std::os::unix::net::UnixStream::connect(&path);
    let mut stream =
        stream.map_err(|source| ControlError::Unreachable { path: path.clone(), dir: state.into(), source })?;
    let patience = Some(std::time::Duration::from_secs(2));
    stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)).map_err(broke)?;
    let mut line = serde_json::to_vec(ask).map_err(|e| broke(e.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(broke)?;
    let mut answer = String::new();
    io::BufReader::new(stream).take(LONGEST_ANSWER).read_line(&mut answer).map_err(broke)?;
    match serde_json::from_str(&answer).map_err(|e| broke(e.into()))? {
        Answer::Refused { why } => Err(ControlError::Refused(why)),
        answer => Ok(answer),
    }
}

/// What the socket's answers need.
#[derive(Clone)]
pub struct Control {
    pub state: State,
    pub plan: PlanHandle,
    /// Whether a region owns the plan.
    pub region: bool,
    pub services: Services,
}

impl Control {
    /// Binds the socket (mode 0600). One left by a killed rack is replaced: the store's lock says that none runs.
    ///
    /// # Errors
    /// When the state directory does not take it.
    pub fn bind(state: &Path) -> io::Result<UnixListener> {
        let path = socket(state);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Answers, one request at a time: what is told changes the plan.
    pub async fn run(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let patience = std::time::Duration::from_secs(5);
                    if let Ok(Err(error)) = tokio::time::timeout(patience, self.converse(stream)).await {
                        tracing::debug!(%error, "a control connection broke off");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        BufReader::new(read).take(LONGEST).read_line(&mut line).await?;
        let answer = match serde_json::from_str(&line) {
            Ok(Ask::Reserve { mac, ip, name }) => self.reserve(mac, ip, name).await,
            Ok(Ask::Services) => Answer::Services(self.services.statuses()),
            Ok(Ask::Subnets) => Answer::Subnets(self.plan.load().plan.subnets.to_vec()),
            Err(e) => {
                Answer::Refused { why: format!("the request is not understood: {e}; use `hostler rack reserve`") }
            }
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        write.write_all(&line).await
    }

    async fn reserve(&self, mac: MacAddr, ip: Ipv4Addr, name: Option<HostName>) -> Answer {
        if self.region {
            let why = "the region owns this rack's reservations; make it there (`hostler subnet` or the API)";
            return Answer::Refused { why: why.into() };
        }
        let name = name.map(|n| n.as_str().to_owned());
        let snapshot = self.plan.load();
        let reservation = match planfile::reservation(&snapshot, mac, ip, name) {
            Ok(reservation) => reservation,
            Err(e) => return Answer::Refused { why: e.to_string() },
        };
        let generation = snapshot.plan.generation;
        let mut update = PlanUpdate::empty(Some(generation), generation);
        update.reservations.put.push(reservation);
        if let Err(e) = self.state.apply(&update).await {
            return Answer::Refused { why: e.to_string() };
        }
        self.plan.apply(update);
        tracing::info!(%mac, %ip, "reserved");
        Answer::Done
    }
}
