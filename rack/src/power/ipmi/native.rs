//! The native way: a connected socket and a session per BMC, kept for a while after use. What to say is `rmcp`'s decision.
//!
//! A socket each, not one for all: the kernel sorts the answers, an ICMP "port unreachable" reaches the run that it concerns,
//! and a session's socket is opened once in its life.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{
    clock,
    errand::{FaultKind, PowerFault, Ran},
};
use schema::{power::PowerAction, time::Timestamp};
use tokio::net::UdpSocket;

use super::{
    session::{Session, Then},
    target::Target,
};
use crate::power::{
    fault,
    rmcp::{
        Completion, Event, Login, PORT,
        console::{Awaited, Failure},
        packet::LONGEST,
        setup::Status,
    },
    unreachable,
};
use crate::service::Meter;

/// A session without work is kept so long. BMCs end theirs after 60 s, and have few.
pub(super) const IDLE: Duration = Duration::from_secs(20);
const SWEEP: Duration = Duration::from_secs(5);
/// Sessions kept at once; one more is closed after use.
const KEPT: usize = 1_024;

/// How a run failed.
pub(super) enum Trouble {
    /// The BMC speaks IPMI 1.5 only.
    OneAndHalf(PowerFault),
    /// It knows neither suite 3 nor 17.
    Suites(PowerFault),
    Fault(PowerFault),
}

/// Sessions with BMCs.
#[derive(Debug)]
pub(super) struct Native {
    timeout: Duration,
    meter: Meter,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By address, with the time of its last use.
    sessions: HashMap<SocketAddr, (Talk, Timestamp)>,
    swept: bool,
}

impl Native {
    /// No run takes longer than `timeout`.
    pub(super) fn new(timeout: Duration, meter: Meter) -> Self {
        Self { timeout, meter, kept: Arc::default() }
    }

    pub(super) async fn run(&self, action: PowerAction, target: &Target<'_>) -> Result<Ran, Trouble> {
        let host = &target.host;
        match tokio::time::timeout(self.timeout, self.act(action, target)).await {
            Ok(ended) => ended.map_err(|failure| trouble(host, failure)),
            Err(_) => Err(Trouble::Fault(late(host, self.timeout))),
        }
    }

    async fn act(&self, action: PowerAction, target: &Target<'_>) -> Result<Ran, Stop> {
        let bmc = resolve(target).await?;
        let mut talk = match self.take(bmc, target) {
            Some(talk) => talk,
            None => Talk::begin(bmc, Arc::new(target.login()), self.meter.clone()).await.map_err(Stop::Local)?,
        };
        let ran = talk.carry_out(action, target.efi).await;
        if talk.session.is_open() {
            self.keep(bmc, talk);
        }
        ran
    }

    /// The kept session with that BMC, if it is of the same login.
    fn take(&self, bmc: SocketAddr, target: &Target<'_>) -> Option<Talk> {
        let (talk, _) = lock(&self.kept).sessions.remove(&bmc)?;
        (*talk.session.login() == target.login()).then_some(talk)
    }

    fn keep(&self, bmc: SocketAddr, talk: Talk) {
        let mut kept = lock(&self.kept);
        if kept.sessions.len() >= KEPT {
            return; // Dropped, and so closed.
        }
        kept.sessions.insert(bmc, (talk, clock::now()));
        if !kept.swept {
            kept.swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.kept)));
        }
    }
}

/// Closes sessions without work until none is left.
async fn sweep(kept: std::sync::Weak<Mutex<Kept>>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let (Some(kept), now) = (kept.upgrade(), clock::now()) else { return };
        let mut kept = lock(&kept);
        kept.sessions.retain(|_, (_, used)| now.since(*used) < IDLE);
        if kept.sessions.is_empty() {
            kept.swept = false;
            return;
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn resolve(target: &Target<'_>) -> Result<SocketAddr, Stop> {
    let port = target.port.unwrap_or(PORT);
    if let Ok(ip) = target.host.parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let found = tokio::net::lookup_host((target.host.as_str(), port)).await.map_err(Stop::Name)?.next();
    found.ok_or_else(|| Stop::Name(io::Error::other("the name has no address")))
}

/// Why an action stopped short.
enum Stop {
    /// The BMC's name cannot be resolved.
    Name(io::Error),
    /// This host cannot send.
    Local(io::Error),
    Failed(Failure),
}

/// A socket and a session. Dropping it closes the session.
#[derive(Debug)]
struct Talk {
    meter: Meter,
    socket: UdpSocket,
    session: Session,
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(bytes) = self.session.close(rand::random(), clock::now()) {
            // A BMC that does not hear it ends the session by itself.
            self.socket.try_send(&bytes).ok();
        }
    }
}

impl Talk {
    async fn begin(bmc: SocketAddr, login: Arc<Login>, meter: Meter) -> io::Result<Self> {
        let any: SocketAddr = if bmc.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(bmc).await?;
        Ok(Self { meter, socket, session: Session::new(login) })
    }

    /// Carries one action out, with everything that it takes.
    async fn carry_out(&mut self, action: PowerAction, efi: bool) -> Result<Ran, Stop> {
        let (mut buffer, mut until) = ([0; LONGEST], clock::now());
        let mut next = self.session.begin(action, efi, rand::random, until);
        loop {
            for bytes in next.send {
                match self.socket.send(&bytes).await {
                    // ECONNREFUSED is the answer to an earlier packet; the next receive says it again if it is still so.
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(e) => return Err(Stop::Local(e)),
                }
            }
            match next.then {
                Then::Wait(wait) => until = wait.until,
                // Malformed, forged, or late: what is waited for may still come.
                Then::Ignored(_) => self.meter.count("ignored"),
                Then::Ended(result) => return result.map_err(Stop::Failed),
            }
            let patience = until.since(clock::now());
            let heard = tokio::time::timeout(patience, self.socket.recv(&mut buffer)).await;
            let event = match &heard {
                Err(_) => Event::Elapsed,
                Ok(Ok(len)) => Event::Heard(&buffer[..*len]),
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Event::Refused,
                Ok(Err(e)) => return Err(Stop::Local(io::Error::new(e.kind(), e.to_string()))),
            };
            next = self.session.step(&event, rand::random, clock::now());
        }
    }
}

/// What a failure means to the operator.
fn trouble(host: &str, stop: Stop) -> Trouble {
    let failure = match stop {
        Stop::Failed(failure) => failure,
        Stop::Name(e) => {
            let why = format!("the BMC's name {host} cannot be resolved: {e}");
            return Trouble::Fault(fault(FaultKind::Unreachable, why, "correct power_address or this rack's DNS"));
        }
        Stop::Local(e) => {
            let why = format!("this rack cannot send to the BMC at {host}: {e}");
            return Trouble::Fault(fault(FaultKind::Unreachable, why, "check this rack's routes and firewall"));
        }
    };
    of_failure(host, failure)
}

/// A run that took longer than it may.
pub(super) fn late(host: &str, limit: Duration) -> PowerFault {
    let why = format!("the BMC at {host} did not do it in {} s", limit.as_secs());
    fault(FaultKind::Unreachable, why, unreachable(host))
}

/// What a BMC's answer, or its silence, means to the operator.
pub(super) fn of_failure(host: &str, failure: Failure) -> Trouble {
    let why = format!("the BMC at {host}: {failure}");
    let said = |kind, remedy: &str| Trouble::Fault(fault(kind, why.clone(), remedy));
    match failure {
        Failure::Silent { awaited: Awaited::Abilities, .. } | Failure::Refused => {
            Trouble::Fault(fault(FaultKind::Unreachable, why, unreachable(host)))
        }
        Failure::Silent { .. } => said(
            FaultKind::Unreachable,
            "it answered before: look at its log and its load, or restart it (`ipmitool mc reset cold`)",
        ),
        Failure::NotIpmi2 => Trouble::OneAndHalf(fault(FaultKind::Unfit, why, "update the BMC's firmware to IPMI 2.0")),
        Failure::NoSuite(_) => Trouble::Suites(fault(
            FaultKind::Auth,
            why,
            "allow suite 17 or 3 on the BMC, or set cipher_suite_id to one that it allows",
        )),
        Failure::WrongUser(_) => said(
            FaultKind::Auth,
            "correct power_user, or make that user on the BMC; one that is disabled, or locked after wrong tries, is unknown too: enable it there",
        ),
        Failure::WrongPassword(_) => {
            said(FaultKind::Auth, "correct power_pass; several wrong tries may lock the account")
        }
        Failure::WrongKey { .. } => said(FaultKind::Auth, "correct k_g, or leave it empty where the BMC has none"),
        Failure::Privilege { .. } => said(
            FaultKind::Auth,
            "give the BMC's user that privilege on the LAN channel, or set privilege_level to what it has",
        ),
        Failure::NoSession { status: Status::NO_RESOURCES | Status::NO_RESOURCES_FOR_ROLE, .. } => {
            said(FaultKind::Busy, BUSY)
        }
        Failure::NoSession { .. } | Failure::Confused => {
            said(FaultKind::Other, "look at the BMC's log; `[power] ipmi = \"ipmitool\"` is another way to it")
        }
        Failure::Command { completion, .. } => match completion {
            Completion::NOT_IN_PRESENT_STATE => said(FaultKind::Busy, BUSY),
            passing if passing.may_pass() => said(FaultKind::Busy, BUSY),
            Completion::INSUFFICIENT_PRIVILEGE => {
                said(FaultKind::Auth, "give the BMC's user the privilege OPERATOR, or set privilege_level")
            }
            Completion::INVALID_COMMAND => {
                said(FaultKind::Fatal, "the BMC cannot do this; switch the machine by hand, or use another power type")
            }
            _ => said(FaultKind::Other, "look at the BMC's log"),
        },
    }
}

const BUSY: &str = "wait; if it lasts, end other sessions on the BMC or restart it (`ipmitool mc reset cold`)";
