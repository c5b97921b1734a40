//! A Redfish run: one power action as requests, and what refusals mean. No I/O here; [`super::web`] carries the requests, and so does the
//! deterministic yard.

use std::time::Duration;

use actors::errand::Ran;
use reqwest::{Method, StatusCode};
use schema::{power::PowerAction, status::PowerState};
use serde_json::json;

use super::{
    model::{self, Power as State, System, Wanted},
    talk::{Ask, Stop, Talk, Told},
};
use crate::power::dialogue::{Dialogue, Then as Script};

/// A state on its way is asked after this often, so long apart.
const LOOKS: usize = 15;
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A run under way.
#[derive(Debug)]
pub struct Run(Dialogue<Ask, Told, (Talk, Result<Ran, Stop>)>);

/// What follows.
#[derive(Debug)]
pub enum Then {
    /// Carry this out; [`Run::step`] hears what came of it.
    Ask(Ask),
    /// The run is over. With the login, where it may be kept.
    Ended(Option<Box<Talk>>, Result<Ran, Stop>),
}

impl Run {
    /// Begins that action. `mode` is the boot mode that was configured.
    #[must_use]
    pub fn new(mut talk: Talk, action: PowerAction, mode: Option<&'static str>) -> Self {
        Self(Dialogue::new(move |desk| async move {
            talk.desk = desk;
            let ran = carry_out(&mut talk, action, mode).await;
            (talk, ran)
        }))
    }

    /// Ends the session of a login that is not needed any more.
    #[must_use]
    pub fn log_out(mut talk: Talk) -> Self {
        Self(Dialogue::new(move |desk| async move {
            talk.desk = desk;
            talk.log_out().await;
            (talk, Ok(Ran::Accepted { notes: Vec::new() }))
        }))
    }

    /// Goes on with what came of the last question; the first time without.
    pub fn step(&mut self, told: Option<Told>) -> Then {
        match self.0.step(told) {
            Script::Ask(ask) => Then::Ask(ask),
            // A login that failed is not kept: it begins anew with what is configured then.
            Script::Ended((talk, ran)) => {
                let kept = Some(Box::new(talk)).filter(|_| !matches!(ran, Err(Stop::Login(_))));
                Then::Ended(kept, ran)
            }
            Script::Still => Then::Ended(None, Err(Stop::Transport("the conversation stands still".into()))),
        }
    }
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
        talk.pause(LOOK_AGAIN).await;
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
        talk.pause(LOOK_AGAIN).await;
    }
    Err(Stop::Busy("it did not go off to be switched on again".into()))
}
