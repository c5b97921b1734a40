//! The Redfish driver: power and one-shot boot of one computer system. BMCs are slow and each has its habits; what is done about them stands in `model`.

mod model;
mod pins;
pub mod run;
pub mod talk;
mod web;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{
    clock,
    errand::{FaultKind, PowerFault, Ran},
};
use reqwest::{Client, StatusCode, Url};
use schema::{
    power::{PowerAccess, PowerAction, redfish_url},
    secret::Secret,
    time::Timestamp,
};

use self::{
    pins::Pins,
    run::{Run, Then},
    talk::{Ask, Login, Stop, Talk, Told},
};
use super::{Power, PowerSettings, Running, fault};

pub use self::pins::RedfishTls;

/// A run is many requests, and BMCs take seconds for each.
pub const REQUESTS: u32 = 3;
/// A session without work is kept so long.
pub const IDLE: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(15);

/// The Redfish driver.
#[derive(Debug)]
pub struct Redfish {
    timeout: Duration,
    pins: Pins,
    /// `None`: TLS could not be set up, and why was logged.
    http: Option<Client>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By service, with the time of the last use.
    talks: HashMap<Url, (Talk, Timestamp)>,
    swept: bool,
}

impl Power for Redfish {
    fn run<'a>(&'a self, action: PowerAction, access: &'a PowerAccess) -> Running<'a> {
        Box::pin(async move {
            let login = check(access)?;
            let host = login.base.host_str().unwrap_or_default().to_owned();
            let limit = self.timeout * REQUESTS;
            let ended = tokio::time::timeout(limit, self.act(action, login, boot_mode(access))).await;
            ended.unwrap_or(Err(Stop::Late)).map_err(|stop| fault_of(&host, stop, &self.pins.place()))
        })
    }
}

impl Redfish {
    /// The driver with those settings.
    #[must_use]
    pub fn new(settings: &PowerSettings) -> Self {
        let pins = Pins::open(settings.pins.clone(), settings.redfish_tls == RedfishTls::Any);
        let tls = match settings.redfish_tls {
            RedfishTls::Verify => Ok(None),
            RedfishTls::Pin | RedfishTls::Any => pins.client().map(Some).map_err(|e| e.to_string()),
        };
        let http = tls.and_then(|tls| web::client(tls, settings.timeout).map_err(|e| e.to_string()));
        let http = http.inspect_err(|e| tracing::error!("Redfish has no HTTP client: {e}")).ok();
        Self { timeout: settings.timeout, pins, http, kept: Arc::default() }
    }

    async fn act(&self, action: PowerAction, login: Login, mode: Option<&'static str>) -> Result<Ran, Stop> {
        let why = || Stop::Unfit { why: "this rack cannot do TLS".into(), remedy: "look at this rack's log" };
        let http = self.http.as_ref().ok_or_else(why)?;
        let base = login.base.clone();
        let talk = self.take(&login).unwrap_or_else(|| Talk::new(login));
        let (talk, ran) = carry(http, Run::new(talk, action, mode)).await;
        if let Some(talk) = talk {
            self.keep(base, talk);
        }
        ran
    }

    fn take(&self, login: &Login) -> Option<Talk> {
        let (talk, _) = lock(&self.kept).talks.remove(&login.base)?;
        if talk.login == *login {
            return Some(talk);
        }
        self.log_out(talk);
        None
    }

    fn log_out(&self, talk: Talk) {
        if let Some(http) = self.http.clone() {
            tokio::spawn(async move { carry(&http, Run::log_out(talk)).await });
        }
    }

    fn keep(&self, base: Url, talk: Talk) {
        let mut kept = lock(&self.kept);
        kept.talks.insert(base, (talk, clock::now()));
        if let Some(http) = self.http.clone().filter(|_| !kept.swept) {
            kept.swept = true;
            tokio::spawn(sweep(http, Arc::downgrade(&self.kept)));
        }
    }
}

/// Carries a run's requests, to its end.
async fn carry(http: &Client, mut run: Run) -> (Option<Talk>, Result<Ran, Stop>) {
    let mut told = None;
    loop {
        told = Some(match run.step(told) {
            Then::Ask(Ask::Call(call)) => Told::Reply(web::exchange(http, *call).await),
            Then::Ask(Ask::Pause(time)) => {
                tokio::time::sleep(time).await;
                Told::Rested
            }
            Then::Ended(talk, ran) => return (talk.map(|talk| *talk), ran),
        });
    }
}

/// The boot mode that was configured.
#[must_use]
pub fn boot_mode(access: &PowerAccess) -> Option<&'static str> {
    match access.params.get("power_boot_type").map(String::as_str) {
        Some("efi") => Some("UEFI"),
        Some("legacy") => Some("Legacy"),
        _ => None,
    }
}

/// A login with those parameters, and the host that it is for.
///
/// # Errors
/// What of the parameters is wrong.
pub fn login(access: &PowerAccess) -> Result<(Talk, String), PowerFault> {
    let login = check(access)?;
    let host = login.base.host_str().unwrap_or_default().to_owned();
    Ok((Talk::new(login), host))
}

/// What a stop means to the operator. `pins` names the place of the certificates.
#[must_use]
pub fn fault_of(host: &str, stop: Stop, pins: &str) -> PowerFault {
    let at = |why: String| format!("the BMC at {host}: {why}");
    match stop {
        Stop::Transport(cause) => {
            let remedy = format!(
                "check that TCP port 443 of {host} can be reached from this rack and that Redfish is enabled there"
            );
            fault(FaultKind::Unreachable, at(format!("no connection: {cause}")), remedy)
        }
        Stop::Late => fault(
            FaultKind::Unreachable,
            at("it did not answer in time".into()),
            "check its load and its network; `[power] timeout_s` may be raised",
        ),
        Stop::Certificate => fault(
            FaultKind::Auth,
            at("its certificate is another one than before".into()),
            format!("if it was renewed, remove the line of {host} from {} and restart the rack", pins),
        ),
        Stop::Login(said) => {
            let said = said.map_or_else(String::new, |said| format!(" ({said})"));
            fault(
                FaultKind::Auth,
                at(format!("user or password are wrong, or the account is locked{said}")),
                "correct power_user and power_pass, or unlock the account on the BMC; several wrong tries lock it",
            )
        }
        Stop::Privilege(said) => {
            fault(FaultKind::Auth, at(said), "give the BMC's user the role Operator or Administrator")
        }
        Stop::Busy(said) => fault(FaultKind::Busy, at(said), "wait; if it lasts, restart the BMC"),
        Stop::Unfit { why, remedy } => fault(FaultKind::Unfit, at(why), remedy),
        Stop::Refused { what, status, said } => {
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            let kind = match status {
                StatusCode::CONFLICT => FaultKind::Busy,
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                    FaultKind::Fatal
                }
                _ => FaultKind::Other,
            };
            fault(kind, at(format!("it refused {what} with {status}{said}")), "look at the BMC's log")
        }
    }
}

/// Ends sessions without work until none is left.
async fn sweep(http: Client, kept: std::sync::Weak<Mutex<Kept>>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let (Some(kept), now) = (kept.upgrade(), clock::now()) else { return };
        let mut kept = lock(&kept);
        for (_, (talk, _)) in kept.talks.extract_if(|_, (_, used)| now.since(*used) >= IDLE) {
            let http = http.clone();
            tokio::spawn(async move { carry(&http, Run::log_out(talk)).await });
        }
        if kept.talks.is_empty() {
            kept.swept = false;
            return;
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// MAAS's parameters, checked.
fn check(access: &PowerAccess) -> Result<Login, PowerFault> {
    let param = |name: &str| access.params.get(name).map_or("", String::as_str);
    let address = param("power_address");
    let fit = |url: &Url| {
        url.has_host()
            && matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
    };
    let Some(mut base) = Url::parse(&redfish_url(address)).ok().filter(fit) else {
        // A password that was written into it is not repeated.
        let address = address.rsplit('@').next().unwrap_or_default();
        let remedy = "set power_address to the BMC's IP address or name, or to a URL of it";
        return Err(fault(
            FaultKind::Unfit,
            format!("power_address \"{address}\" is not HOST, HOST:PORT or a URL"),
            remedy,
        ));
    };
    base.set_path("/");
    base.set_query(None);
    base.set_fragment(None);
    let password = access.secrets.get("power_pass").cloned().unwrap_or_else(|| Secret::new(String::new()));
    let node_id = Some(param("node_id").to_owned()).filter(|id| !id.is_empty());
    Ok(Login { base, user: param("power_user").into(), password, node_id })
}
