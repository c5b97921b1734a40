//! The Redfish driver: power and one-shot boot of one computer system. BMCs are slow and each has its habits; what is done about them stands in `model`.

mod model;
mod pins;
mod talk;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{
    clock,
    errand::{FaultKind, PowerFault, Ran},
};
use reqwest::{Client, Method, StatusCode, Url};
use schema::{
    power::{PowerAccess, PowerAction},
    secret::Secret,
    status::PowerState,
    time::Timestamp,
};
use serde_json::json;

use self::{
    model::{Power as State, System, Wanted},
    pins::Pins,
    talk::{Login, Stop, Talk},
};
use super::{Power, PowerSettings, Running, fault};

pub use self::pins::RedfishTls;

/// A run is many requests, and BMCs take seconds for each.
const REQUESTS: u32 = 3;
/// A state on its way is asked after this often, so long apart.
const LOOKS: usize = 15;
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A session without work is kept so long.
const IDLE: Duration = Duration::from_secs(60);
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
            let mode = match access.params.get("power_boot_type").map(String::as_str) {
                Some("efi") => Some("UEFI"),
                Some("legacy") => Some("Legacy"),
                _ => None,
            };
            let limit = self.timeout * REQUESTS;
            match tokio::time::timeout(limit, self.act(action, login, mode)).await {
                Ok(ended) => ended.map_err(|stop| self.fault(&host, stop)),
                Err(_) => Err(self.fault(&host, Stop::Late)),
            }
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
        let http = tls.and_then(|tls| talk::client(tls, settings.timeout).map_err(|e| e.to_string()));
        let http = http.inspect_err(|e| tracing::error!("Redfish has no HTTP client: {e}")).ok();
        Self { timeout: settings.timeout, pins, http, kept: Arc::default() }
    }

    async fn act(&self, action: PowerAction, login: Login, mode: Option<&str>) -> Result<Ran, Stop> {
        let base = login.base.clone();
        let mut talk = match self.take(&login) {
            Some(talk) => talk,
            None => {
                let why = || Stop::Unfit { why: "this rack cannot do TLS".into(), remedy: "look at this rack's log" };
                Talk::new(self.http.clone().ok_or_else(why)?, login)
            }
        };
        let ran = carry_out(&mut talk, action, mode).await;
        // A login that failed is not kept: it begins anew with what is configured then.
        if !matches!(ran, Err(Stop::Login)) {
            self.keep(base, talk);
        }
        ran
    }

    fn take(&self, login: &Login) -> Option<Talk> {
        let (talk, _) = lock(&self.kept).talks.remove(&login.base)?;
        if talk.login == *login {
            return Some(talk);
        }
        tokio::spawn(talk.log_out());
        None
    }

    fn keep(&self, base: Url, talk: Talk) {
        let mut kept = lock(&self.kept);
        kept.talks.insert(base, (talk, clock::now()));
        if !kept.swept {
            kept.swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.kept)));
        }
    }

    /// What a stop means to the operator.
    fn fault(&self, host: &str, stop: Stop) -> PowerFault {
        let at = |why: String| format!("the BMC at {host}: {why}");
        match stop {
            Stop::Transport(e) => {
                let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), |s| root(s).to_string());
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
                format!("if it was renewed, remove the line of {host} from {} and restart the rack", self.pins.place()),
            ),
            Stop::Login => fault(
                FaultKind::Auth,
                at("user or password are wrong".into()),
                "correct power_user and power_pass; several wrong tries may lock the account",
            ),
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
}

/// Ends sessions without work until none is left.
async fn sweep(kept: std::sync::Weak<Mutex<Kept>>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let (Some(kept), now) = (kept.upgrade(), clock::now()) else { return };
        let mut kept = lock(&kept);
        for (_, (talk, _)) in kept.talks.extract_if(|_, (_, used)| now.since(*used) >= IDLE) {
            tokio::spawn(talk.log_out());
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

/// The last cause of an error: it says what the others only wrap.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last
}

/// MAAS's parameters, checked.
fn check(access: &PowerAccess) -> Result<Login, PowerFault> {
    let param = |name: &str| access.params.get(name).map_or("", String::as_str);
    let address = param("power_address");
    let url = if address.contains("://") {
        address.to_owned()
    } else if address.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("https://[{address}]")
    } else {
        format!("https://{address}")
    };
    let fit = |url: &Url| {
        url.has_host()
            && matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
    };
    let Some(mut base) = Url::parse(&url).ok().filter(fit) else {
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

/// One action as requests.
async fn carry_out(talk: &mut Talk, action: PowerAction, mode: Option<&str>) -> Result<Ran, Stop> {
    let mut system = find(talk).await?;
    let mut notes = Vec::new();
    match action {
        PowerAction::Query => {
            let state = match system.power {
                Some(State::On) => PowerState::On,
                Some(State::Off) => PowerState::Off,
                // On its way: neither, yet.
                _ => PowerState::Unknown,
            };
            return Ok(Ran::State { state });
        }
        PowerAction::On => reset(talk, &mut system, Wanted::On).await?,
        PowerAction::Off => reset(talk, &mut system, Wanted::Off).await?,
        PowerAction::NetworkBoot => {
            system = settle(talk, system).await?;
            if let Err(stop) = boot_once(talk, &system, mode).await? {
                // A machine whose own order begins with the network boots all the same.
                notes.push(format!("the BMC did not take the boot device (network): {stop}"));
            }
            let wanted = if system.power == Some(State::On) { Wanted::Restarted } else { Wanted::On };
            reset(talk, &mut system, wanted).await?;
        }
    }
    Ok(Ran::Accepted { notes })
}

/// The system's resource, found the first time.
async fn find(talk: &mut Talk) -> Result<System, Stop> {
    if let Some(path) = talk.system.clone() {
        let answer = talk.get(&path).await?;
        if answer.status != StatusCode::NOT_FOUND {
            let answer = answer.good("GET of its system")?;
            return Ok(System::read(&path, answer.etag.as_deref(), &answer.body));
        }
    }
    let mut answer = talk.get(model::SYSTEMS).await?;
    if answer.status == StatusCode::NOT_FOUND {
        let root = talk.get(model::ROOT).await?.good("GET of its service root")?;
        let systems = root.body["Systems"]["@odata.id"].as_str().map(model::path_of);
        let why = || Stop::Unfit {
            why: "it offers no computer systems".into(),
            remedy: "check that power_address is a machine's BMC",
        };
        answer = talk.get(&systems.ok_or_else(why)?).await?;
    }
    let members = model::members(&answer.good("GET of its systems")?.body);
    let chosen = model::choose(&members, talk.login.node_id.as_deref());
    let remedy = "set node_id to the system that is this machine";
    let path = chosen.map_err(|why| Stop::Unfit { why, remedy })?.to_owned();
    let answer = talk.get(&path).await?.good("GET of its system")?;
    talk.system = Some(path.clone());
    Ok(System::read(&path, answer.etag.as_deref(), &answer.body))
}

/// Waits until the state is none on its way; for so long as it may last.
async fn settle(talk: &mut Talk, mut system: System) -> Result<System, Stop> {
    for _ in 0..LOOKS {
        if !system.power.is_some_and(State::is_passing) {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        system = find(talk).await?;
    }
    Ok(system)
}

/// Has the next boot come from the network. The inner error is one that a boot survives.
async fn boot_once(talk: &mut Talk, system: &System, mode: Option<&str>) -> Result<Result<(), String>, Stop> {
    let mut refused = Err("it was not tried".to_owned());
    for attempt in model::boot_tries(system, mode) {
        let (path, etag) = match system.settings.as_ref().filter(|_| attempt.at_settings) {
            Some(path) => (path.clone(), talk.get(path).await?.etag),
            None => (system.path.clone(), system.etag.clone()),
        };
        for tag in model::preconditions(etag.as_deref()) {
            let answer = talk.call(Method::PATCH, &path, Some(&attempt.body), tag.as_deref()).await?;
            if answer.status.is_success() {
                return Ok(Ok(()));
            }
            let said = model::error_text(&answer.body).map_or_else(String::new, |said| format!(": {said}"));
            refused = Err(format!("{}{said}", answer.status));
            let again = [StatusCode::PRECONDITION_FAILED, StatusCode::PRECONDITION_REQUIRED];
            if !again.contains(&answer.status) {
                break;
            }
        }
    }
    Ok(refused)
}

/// Switches the system. One that is so already is content.
async fn reset(talk: &mut Talk, system: &mut System, wanted: Wanted) -> Result<(), Stop> {
    if system.admits.is_empty()
        && let Some(path) = system.action_info.clone()
    {
        system.admits = model::action_info(&talk.get(&path).await?.body);
    }
    let Some(kind) = model::reset_type(wanted, &system.admits) else {
        if wanted == Wanted::Restarted {
            return off_and_on(talk, system).await;
        }
        let why = format!("it admits no way to that state, only {}", system.admits.join(", "));
        return Err(Stop::Unfit { why, remedy: "switch the machine by hand" });
    };
    // A button that is pushed twice undoes itself.
    if kind == "PushPowerButton" && system.power == Some(State::On) {
        return Ok(());
    }
    let answer = talk.call(Method::POST, &system.reset, Some(&json!({ "ResetType": kind })), None).await?;
    let failed = match answer.good(&format!("Reset ({kind})")) {
        Ok(_) => return Ok(()),
        Err(stop) => stop,
    };
    if !matches!(failed, Stop::Refused { .. }) {
        return Err(failed);
    }
    *system = find(talk).await?;
    let content = match wanted {
        Wanted::On => matches!(system.power, Some(State::On | State::PoweringOn)),
        Wanted::Off => matches!(system.power, Some(State::Off | State::PoweringOff)),
        Wanted::Restarted => false,
    };
    if content { Ok(()) } else { Err(failed) }
}

/// For a system that cannot restart.
async fn off_and_on(talk: &mut Talk, system: &mut System) -> Result<(), Stop> {
    Box::pin(reset(talk, system, Wanted::Off)).await?;
    for _ in 0..LOOKS {
        *system = find(talk).await?;
        if system.power == Some(State::Off) {
            return Box::pin(reset(talk, system, Wanted::On)).await;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(Stop::Busy("it did not go off to be switched on again".into()))
}
