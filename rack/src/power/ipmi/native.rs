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
use schema::{power::PowerAction, secret::Secret, status::PowerState, time::Timestamp};
use tokio::net::UdpSocket;

use super::target::Target;
use crate::power::{
    fault,
    rmcp::{
        BootFlags, Command, Completion, Console, Control, Event, Login, PORT, Reply, Suite,
        console::{Awaited, Failure, Then},
        packet::LONGEST,
        setup::Status,
    },
    unreachable,
};
use crate::service::Meter;

/// A session without work is kept so long. BMCs end theirs after 60 s, and have few.
const IDLE: Duration = Duration::from_secs(20);
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
            Err(_) => {
                let why = format!("the BMC at {host} did not do it in {} s", self.timeout.as_secs());
                Err(Trouble::Fault(fault(FaultKind::Unreachable, why, unreachable(host))))
            }
        }
    }

    async fn act(&self, action: PowerAction, target: &Target<'_>) -> Result<Ran, Stop> {
        let bmc = resolve(target).await?;
        let mut talk = match self.take(bmc, target) {
            Some(talk) => talk,
            None => Talk::begin(bmc, Arc::new(login(target)), self.meter.clone()).await.map_err(Stop::Local)?,
        };
        let ran = carry_out(&mut talk, action, target.efi).await;
        if talk.console.is_open() {
            self.keep(bmc, talk);
        }
        ran
    }

    /// The kept session with that BMC, if it is of the same login.
    fn take(&self, bmc: SocketAddr, target: &Target<'_>) -> Option<Talk> {
        let (talk, _) = lock(&self.kept).sessions.remove(&bmc)?;
        (**talk.console.login() == login(target)).then_some(talk)
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

fn login(target: &Target<'_>) -> Login {
    let suites = Suite::ALL.into_iter().filter(|suite| target.suite.is_none_or(|id| id == suite.id()));
    Login {
        user: target.user.into(),
        password: Secret::new(target.password.as_bytes().to_vec()),
        kg: target.kg.clone().map(Secret::new),
        privilege: target.privilege,
        suites: suites.collect(),
        quirks: target.quirks,
    }
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

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One action as commands.
async fn carry_out(talk: &mut Talk, action: PowerAction, efi: bool) -> Result<Ran, Stop> {
    let mut notes = Vec::new();
    match action {
        PowerAction::Query => {
            let state = if is_on(talk).await? { PowerState::On } else { PowerState::Off };
            return Ok(Ran::State { state });
        }
        PowerAction::On => switch(talk, Control::On).await?,
        PowerAction::Off => switch(talk, Control::Off).await?,
        PowerAction::NetworkBoot => {
            match talk.ask(Command::set_boot(BootFlags::network_once(efi))).await {
                Ok(_) => {}
                // A machine whose own order begins with the network boots all the same.
                Err(Stop::Failed(Failure::Command { completion, .. }))
                    if completion != Completion::INSUFFICIENT_PRIVILEGE =>
                {
                    notes.push(format!("the BMC did not take the boot device (network): {completion}"));
                }
                Err(stop) => return Err(stop),
            }
            let to = if is_on(talk).await? { Control::Cycle } else { Control::On };
            switch(talk, to).await?;
        }
    }
    Ok(Ran::Accepted { notes })
}

async fn is_on(talk: &mut Talk) -> Result<bool, Stop> {
    Ok(matches!(talk.ask(Command::ChassisStatus).await?, Reply::Chassis { on: true }))
}

/// Switches. A BMC that refuses what is so already is content; one that cannot cycle resets (only that is mandatory, section 28.3).
async fn switch(talk: &mut Talk, to: Control) -> Result<(), Stop> {
    let failed = match talk.ask(Command::ChassisControl(to)).await {
        Ok(_) => return Ok(()),
        Err(stop) => stop,
    };
    let Stop::Failed(Failure::Command { completion, .. }) = &failed else { return Err(failed) };
    match (to, *completion) {
        (Control::Cycle, Completion::INVALID_FIELD) => {
            talk.ask(Command::ChassisControl(Control::Reset)).await.map(drop)
        }
        (Control::Cycle, Completion::NOT_IN_PRESENT_STATE) if !is_on(talk).await? => {
            talk.ask(Command::ChassisControl(Control::On)).await.map(drop)
        }
        (Control::On | Control::Off, Completion::NOT_IN_PRESENT_STATE) if is_on(talk).await? == (to == Control::On) => {
            Ok(())
        }
        _ => Err(failed),
    }
}

/// A socket and a console. Dropping it closes the session.
#[derive(Debug)]
struct Talk {
    meter: Meter,
    socket: UdpSocket,
    console: Console,
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(bytes) = self.console.step(&Event::Close, rand::random(), clock::now()).send {
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
        Ok(Self { meter, socket, console: Console::new(login) })
    }

    /// Carries one command out, with everything that it takes.
    async fn ask(&mut self, command: Command) -> Result<Reply, Stop> {
        let (mut buffer, mut until) = ([0; LONGEST], clock::now());
        let mut step = self.console.step(&Event::Ask(command), rand::random(), until);
        loop {
            self.console = step.next;
            if let Some(bytes) = step.send {
                match self.socket.send(&bytes).await {
                    // ECONNREFUSED is the answer to an earlier packet; the next receive says it again if it is still so.
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(e) => return Err(Stop::Local(e)),
                }
            }
            match step.then {
                Then::Wait(wait) => until = wait.until,
                // Malformed, forged, or late: what is waited for may still come.
                Then::Ignored(_) => self.meter.count("ignored"),
                Then::Ended(result) => return result.map_err(Stop::Failed),
                Then::Closed => return Err(Stop::Failed(Failure::Confused)),
            }
            let patience = until.since(clock::now());
            let heard = tokio::time::timeout(patience, self.socket.recv(&mut buffer)).await;
            let event = match &heard {
                Err(_) => Event::Elapsed,
                Ok(Ok(len)) => Event::Heard(&buffer[..*len]),
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Event::Refused,
                Ok(Err(e)) => return Err(Stop::Local(io::Error::new(e.kind(), e.to_string()))),
            };
            step = self.console.step(&event, rand::random(), clock::now());
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
        Failure::WrongUser(_) => said(FaultKind::Auth, "correct power_user, or make that user on the BMC"),
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
            Completion::BUSY
            | Completion::TIMEOUT
            | Completion::OUT_OF_SPACE
            | Completion::CANNOT_RESPOND
            | Completion::IN_UPDATE
            | Completion::IN_INITIALISATION
            | Completion::NOT_IN_PRESENT_STATE => said(FaultKind::Busy, BUSY),
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
