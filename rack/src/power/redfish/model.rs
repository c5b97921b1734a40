//! What Redfish resources say, as far as power needs it, and what to ask of them (DSP0266 1.20, ComputerSystem 1.20). No I/O here.

use serde_json::{Value, json};

/// Where computer systems are, unless the service root says otherwise.
pub(super) const SYSTEMS: &str = "/redfish/v1/Systems";
pub(super) const ROOT: &str = "/redfish/v1/";
/// Where a session is asked for, unless the service root says otherwise (DSP0266 section 13.3.4).
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// A computer system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct System {
    pub(super) path: String,
    pub(super) power: Option<Power>,
    /// Where a reset is asked for.
    pub(super) reset: String,
    /// Reset types that it admits; empty where it does not say.
    pub(super) admits: Vec<String>,
    /// Where it says which reset types it admits, if not here.
    pub(super) action_info: Option<String>,
    /// How it boots now: `UEFI` or `Legacy`.
    pub(super) boot_mode: Option<String>,
    /// Where changes are to go, if not to itself.
    pub(super) settings: Option<String>,
    pub(super) etag: Option<String>,
}

/// `PowerState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    On,
    Off,
    PoweringOn,
    PoweringOff,
}

impl Power {
    /// Whether it is on its way from one state to the other.
    pub(super) fn is_passing(self) -> bool {
        matches!(self, Self::PoweringOn | Self::PoweringOff)
    }
}

impl System {
    /// Reads the resource that stands at `path`; `etag` is the header's.
    pub(super) fn read(path: &str, etag: Option<&str>, body: &Value) -> Self {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
        let action = &body["Actions"]["#ComputerSystem.Reset"];
        let power = match text("/PowerState") {
            Some("On" | "Paused") => Some(Power::On),
            Some("Off") => Some(Power::Off),
            Some("PoweringOn") => Some(Power::PoweringOn),
            Some("PoweringOff") => Some(Power::PoweringOff),
            _ => None,
        };
        let reset = action["target"].as_str().map(path_of);
        Self {
            path: path.into(),
            power,
            reset: reset.unwrap_or_else(|| format!("{}/Actions/ComputerSystem.Reset", path.trim_end_matches('/'))),
            admits: texts(&action["ResetType@Redfish.AllowableValues"]),
            action_info: action["@Redfish.ActionInfo"].as_str().map(path_of),
            boot_mode: text("/Boot/BootSourceOverrideMode").map(Into::into),
            settings: body["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str().map(path_of),
            etag: etag.or_else(|| body["@odata.etag"].as_str()).map(Into::into),
        }
    }
}

/// Where the service of that root gives sessions; `None` where it gives none.
pub(super) fn sessions(root: &Value) -> Option<String> {
    let link = root["Links"]["Sessions"]["@odata.id"].as_str().map(path_of);
    link.or_else(|| root["SessionService"].is_object().then(|| SESSIONS.to_owned()))
}

/// The reset types that an ActionInfo admits.
pub(super) fn action_info(body: &Value) -> Vec<String> {
    let parameters = body["Parameters"].as_array().into_iter().flatten();
    parameters.filter(|p| p["Name"] == "ResetType").flat_map(|p| texts(&p["AllowableValues"])).collect()
}

/// The paths of a collection's members.
pub(super) fn members(body: &Value) -> Vec<String> {
    let members = body["Members"].as_array().into_iter().flatten();
    members.filter_map(|m| m["@odata.id"].as_str()).map(path_of).collect()
}

/// The member that is meant: the one of that id, or the only one.
///
/// # Errors
/// A sentence: there is none, or it cannot be told which.
pub(super) fn choose<'a>(members: &'a [String], node_id: Option<&str>) -> Result<&'a str, String> {
    let id = |path: &'a String| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let known = || members.iter().map(id).collect::<Vec<_>>().join(", ");
    match (node_id, members) {
        (_, []) => Err("it lists no computer system".into()),
        (None, [only]) => Ok(only),
        (None, several) => Err(format!("it has {} computer systems ({})", several.len(), known())),
        (Some(node), all) => {
            let found = all.iter().find(|path| id(path) == node);
            found.map(String::as_str).ok_or_else(|| format!("it has no computer system \"{node}\", only {}", known()))
        }
    }
}

/// What a system is to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    On,
    Off,
    /// Off and on again at once.
    Restarted,
}

/// The reset type that does it, of those that the system admits.
pub(super) fn reset_type(wanted: Wanted, admits: &[String]) -> Option<&'static str> {
    let ways: &[&str] = match wanted {
        Wanted::On => &["On", "ForceOn", "PushPowerButton"],
        Wanted::Off => &["ForceOff", "GracefulShutdown"],
        Wanted::Restarted => &["ForceRestart", "PowerCycle", "GracefulRestart"],
    };
    ways.iter().copied().find(|way| admits.is_empty() || admits.iter().any(|admitted| admitted == way))
}

/// A try to have the next boot come from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootTry {
    /// The system's settings resource instead of the system.
    pub(super) at_settings: bool,
    pub(super) body: Value,
}

/// The ways to ask for it, the plain one first. `told`: `UEFI` or `Legacy` where the operator says so; else the mode stays,
/// but some BMCs take the device only together with a mode.
pub(super) fn boot_tries(system: &System, told: Option<&str>) -> Vec<BootTry> {
    let body = |mode: Option<&str>| {
        let mut boot = json!({ "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once" });
        if let Some(mode) = mode {
            boot["BootSourceOverrideMode"] = mode.into();
        }
        json!({ "Boot": boot })
    };
    let mut bodies = vec![body(told)];
    if told.is_none() && system.boot_mode.is_some() {
        bodies.push(body(system.boot_mode.as_deref()));
    }
    let places = [false, true].into_iter().filter(|at_settings| !at_settings || system.settings.is_some());
    places.flat_map(|at_settings| bodies.iter().map(move |b| BootTry { at_settings, body: b.clone() })).collect()
}

/// The values of `If-Match` to try, in turn, while the BMC says that the precondition fails. Some want the strong form of a weak tag,
/// some anything, some none.
pub(super) fn preconditions(etag: Option<&str>) -> Vec<Option<String>> {
    let Some(etag) = etag else { return vec![None, Some("*".into())] };
    let mut tags = vec![Some(etag.to_owned())];
    tags.extend(etag.strip_prefix("W/").map(|strong| Some(strong.to_owned())));
    tags.extend([Some("*".into()), None]);
    tags
}

/// What an error body says, in one line.
pub(super) fn error_text(body: &Value) -> Option<String> {
    let error = &body["error"];
    let info = error["@Message.ExtendedInfo"].as_array().into_iter().flatten();
    let said: Vec<_> = info.filter_map(|m| m["Message"].as_str().or_else(|| m["MessageId"].as_str())).collect();
    let said = if said.is_empty() { error["message"].as_str()?.to_owned() } else { said.join(" ") };
    Some(said.chars().take(200).collect())
}

/// The path in an `@odata.id`: some BMCs write whole URLs there, with hosts that nobody else knows.
pub(super) fn path_of(id: &str) -> String {
    let rest = id.split_once("://").map_or(id, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_system_is_chosen_and_a_guess_is_refused() {
        let list = |ids: &[&str]| {
            let all: Vec<_> =
                ids.iter().map(|id| json!({ "@odata.id": format!("/redfish/v1/Systems/{id}") })).collect();
            members(&json!({ "Members": all }))
        };
        assert_eq!(choose(&list(&["1"]), None).unwrap(), "/redfish/v1/Systems/1");
        assert_eq!(choose(&list(&["1", "2"]), Some("2")).unwrap(), "/redfish/v1/Systems/2");
        assert_eq!(choose(&list(&["1", "2"]), None).unwrap_err(), "it has 2 computer systems (1, 2)");
        assert_eq!(choose(&list(&["1"]), Some("x")).unwrap_err(), "it has no computer system \"x\", only 1");
        assert!(choose(&[], None).is_err());
    }

    #[test]
    fn resets_are_of_those_admitted() {
        let admits = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(reset_type(Wanted::Restarted, &[]), Some("ForceRestart"));
        assert_eq!(reset_type(Wanted::Restarted, &admits(&["On", "ForceOff", "PowerCycle"])), Some("PowerCycle"));
        assert_eq!(reset_type(Wanted::Restarted, &admits(&["On", "ForceOff"])), None);
        assert_eq!(reset_type(Wanted::Off, &admits(&["GracefulShutdown"])), Some("GracefulShutdown"));
    }

    #[test]
    fn boot_tries_go_from_plain_to_peculiar() {
        let body = json!({
            "PowerState": "Off", "Boot": { "BootSourceOverrideMode": "UEFI" }, "@odata.etag": "W/\"1\"",
            "@Redfish.Settings": { "SettingsObject": { "@odata.id": "http://10.0.0.1/redfish/v1/Systems/1/SD" } },
        });
        let system = System::read("/redfish/v1/Systems/1/", None, &body);
        assert_eq!(system.reset, "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset");
        assert_eq!(system.settings.as_deref(), Some("/redfish/v1/Systems/1/SD"));
        let tries = boot_tries(&system, None);
        let told: Vec<_> =
            tries.iter().map(|t| (t.at_settings, t.body["Boot"]["BootSourceOverrideMode"].as_str())).collect();
        assert_eq!(told, [(false, None), (false, Some("UEFI")), (true, None), (true, Some("UEFI"))]);
        assert_eq!(boot_tries(&system, Some("Legacy")).len(), 2);
        let tags = preconditions(system.etag.as_deref());
        assert_eq!(tags, [Some("W/\"1\"".into()), Some("\"1\"".into()), Some("*".into()), None]);
    }

    proptest::proptest! {
        /// A BMC may say anything: nothing falls over, and paths begin with a slash.
        #[test]
        fn any_body_is_read(text in ".{0,200}", id in ".{0,40}") {
            let body = serde_json::from_str(&text).unwrap_or_else(|_| json!({
                "Members": [{ "@odata.id": id }, 7], "PowerState": id, "Actions": [], "error": text,
            }));
            let system = System::read("/x", None, &body);
            proptest::prop_assert!(system.reset.starts_with('/'));
            proptest::prop_assert!(members(&body).iter().all(|path| path.starts_with('/')));
            boot_tries(&system, None);
            error_text(&body);
            action_info(&body);
        }
    }
}
