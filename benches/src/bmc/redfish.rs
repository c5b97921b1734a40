//! A BMC that speaks Redfish, as a pure function of its state and a request. It has one computer system, and the habits of real ones to choose from.

use std::time::Duration;

use rack::power::rmcp::{BootDevice, BootFlags, Completion, Control};
use schema::time::Timestamp;
use serde_json::{Value, json};

use super::{
    Simulated,
    chassis::{Chassis, PowerEvent},
};

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const SYSTEMS: &str = "/redfish/v1/Systems";
/// Sessions at once.
const MOST: usize = 16;
/// A session ends when nothing came for so long.
const IDLE: Duration = Duration::from_secs(300);
/// What its system admits, and how it is done.
const RESETS: [(&str, Control); 6] = [
    ("On", Control::On),
    ("ForceOff", Control::Off),
    ("GracefulShutdown", Control::SoftOff),
    ("ForceRestart", Control::Reset),
    ("GracefulRestart", Control::Reset),
    ("PowerCycle", Control::Cycle),
];

/// How a BMC is set up, and which habits it has.
#[derive(Debug, Clone)]
pub struct Setup {
    pub user: String,
    pub password: String,
    /// The id of its system.
    pub system: String,
    /// It has a session service; else there is basic authentication only.
    pub sessions: bool,
    /// A change without the right `If-Match` is refused (412, or 428 without any).
    pub wants_etag: bool,
    /// Boot overrides are taken by the settings resource only.
    pub boot_by_settings: bool,
    /// A boot override without a mode is refused.
    pub wants_mode: bool,
    /// The reset types that it admits; empty: all.
    pub admits: Vec<&'static str>,
    /// Paths end with a slash, and others are redirected there.
    pub slashes: bool,
}

impl Default for Setup {
    /// User `maas`, password `yard`, system `1`, sessions, and no bad habits.
    fn default() -> Self {
        Self {
            user: "maas".into(),
            password: "yard".into(),
            system: "1".into(),
            sessions: true,
            wants_etag: false,
            boot_by_settings: false,
            wants_mode: false,
            admits: Vec::new(),
            slashes: false,
        }
    }
}

/// One BMC.
#[derive(Debug, Clone)]
pub struct Bmc {
    setup: Setup,
    pub chassis: Chassis,
    /// Token and last use, by number.
    sessions: Vec<(u32, String, Timestamp)>,
    given: u32,
    /// Counts changes.
    version: u32,
}

/// A request, as far as the BMC looks at it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// `X-Auth-Token`.
    pub token: Option<&'a str>,
    /// User and password of basic authentication.
    pub basic: Option<(&'a str, &'a str)>,
    pub if_match: Option<&'a str>,
    pub body: &'a [u8],
}

/// What comes of a request. Without a status, nothing is answered at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Response {
    pub status: Option<u16>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Value>,
    /// The response is to be sent after this.
    pub after: Duration,
    /// What becomes of the machine.
    pub event: Option<PowerEvent>,
}

impl Simulated for Bmc {
    fn chassis(&mut self) -> &mut Chassis {
        &mut self.chassis
    }
}

impl Bmc {
    /// A BMC whose machine is off.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { setup, chassis: Chassis::default(), sessions: Vec::new(), given: 0, version: 1 }
    }

    /// Ends every session, as a restart of the BMC does.
    pub fn restart(&mut self) {
        self.sessions.clear();
    }

    /// Answers a request. `random` is drawn anew for every one.
    pub fn answer(&mut self, request: &Request<'_>, random: u128, now: Timestamp) -> Response {
        if self.chassis.loses() {
            return Response::default();
        }
        let (after, busy) = (self.chassis.faults.slow, self.chassis.faults.busy);
        self.sessions.retain(|(_, _, used)| now.since(*used) < IDLE);
        let response = match self.redirect(request.path) {
            Some(redirect) => redirect,
            None if busy => refuse(503, "Base.1.0.ServiceTemporarilyUnavailable", "The service is busy."),
            None => self.route(request, random, now),
        };
        Response { after, ..response }
    }

    fn redirect(&self, path: &str) -> Option<Response> {
        let missing = self.setup.slashes && !path.ends_with('/') && !path.contains("/Actions/");
        missing.then(|| Response { headers: vec![("location", format!("{path}/"))], ..status(308) })
    }

    fn route(&mut self, request: &Request<'_>, random: u128, now: Timestamp) -> Response {
        let path = request.path.trim_end_matches('/');
        match (request.method, path) {
            ("GET", "/redfish") => return ok(json!({ "v1": "/redfish/v1/" })),
            ("GET", "/redfish/v1") => return self.root(),
            ("POST", SESSIONS) if self.setup.sessions => return self.log_in(request.body, random, now),
            _ => {}
        }
        if !self.admits(request, now) {
            return refuse(401, "Base.1.0.NoValidSession", "There is no valid session established.");
        }
        let system = format!("{SYSTEMS}/{}", self.setup.system);
        let rest = path.strip_prefix(&system);
        match (request.method, path, rest) {
            ("GET", SYSTEMS, _) => ok(json!({
                "@odata.id": SYSTEMS, "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection",
                "Name": "Systems", "Members@odata.count": 1, "Members": [{ "@odata.id": system }],
            })),
            ("GET", _, Some("")) => self.system(&system),
            ("GET", _, Some("/SD")) => self.system(&format!("{system}/SD")),
            ("PATCH", _, Some("")) if self.setup.boot_by_settings => {
                refuse(400, "Base.1.0.PropertyNotWritable", "The property Boot is read only.")
            }
            ("PATCH", _, Some("" | "/SD")) => self.patch(request),
            ("POST", _, Some("/Actions/ComputerSystem.Reset")) => self.reset(request.body),
            ("DELETE", path, _) if path.starts_with(SESSIONS) => {
                self.sessions.retain(|(number, _, _)| path != format!("{SESSIONS}/{number}"));
                status(204)
            }
            ("GET", "/redfish/v1/SessionService", _) if self.setup.sessions => ok(json!({
                "@odata.id": "/redfish/v1/SessionService", "Id": "SessionService", "Name": "Sessions",
                "Sessions": { "@odata.id": SESSIONS }, "SessionTimeout": IDLE.as_secs(), "ServiceEnabled": true,
            })),
            _ => refuse(404, "Base.1.0.ResourceMissingAtURI", "There is no such resource."),
        }
    }

    fn root(&self) -> Response {
        let mut root = json!({
            "@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot", "Id": "RootService",
            "Name": "Root Service", "RedfishVersion": "1.6.0", "UUID": "00000000-0000-0000-0000-000000000000",
            "Systems": { "@odata.id": SYSTEMS },
        });
        if self.setup.sessions {
            root["SessionService"] = json!({ "@odata.id": "/redfish/v1/SessionService" });
            root["Links"] = json!({ "Sessions": { "@odata.id": SESSIONS } });
        }
        ok(root)
    }

    fn log_in(&mut self, body: &[u8], random: u128, now: Timestamp) -> Response {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let (user, password) = (body["UserName"].as_str(), body["Password"].as_str());
        if self.chassis.faults.locked {
            return refuse(401, "Base.1.0.AccountLocked", "The account is locked.");
        }
        if !self.knows(user.unwrap_or_default(), password.unwrap_or_default()) {
            return refuse(401, "Base.1.0.ResourceAtUriUnauthorized", "User name or password are wrong.");
        }
        if self.sessions.len() >= MOST || self.chassis.faults.no_sessions {
            return refuse(503, "Base.1.0.SessionLimitExceeded", "There are too many sessions.");
        }
        self.given += 1;
        let (token, path) = (format!("{random:032x}"), format!("{SESSIONS}/{}", self.given));
        self.sessions.push((self.given, token.clone(), now));
        let session = json!({ "@odata.id": path, "Id": self.given.to_string(), "Name": "Session", "UserName": user });
        Response { headers: vec![("x-auth-token", token), ("location", path)], ..with_body(201, session) }
    }

    fn knows(&self, user: &str, password: &str) -> bool {
        user == self.setup.user && password == self.setup.password && !self.chassis.faults.wrong_password
    }

    fn admits(&mut self, request: &Request<'_>, now: Timestamp) -> bool {
        if let Some(token) = request.token {
            let found = self.sessions.iter_mut().find(|(_, known, _)| known == token);
            return found.map(|(_, _, used)| *used = now).is_some();
        }
        request.basic.is_some_and(|(user, password)| self.knows(user, password))
    }

    fn admitted(&self) -> Vec<&'static str> {
        let all = RESETS.map(|(name, _)| name);
        all.into_iter().filter(|name| self.setup.admits.is_empty() || self.setup.admits.contains(name)).collect()
    }

    fn etag(&self) -> String {
        format!("W/\"{}\"", self.version)
    }

    fn system(&self, path: &str) -> Response {
        let boot = self.chassis.boot();
        let device = match boot.device {
            BootDevice::Network => "Pxe",
            BootDevice::Disk => "Hdd",
            BootDevice::Default | BootDevice::Other(_) => "None",
        };
        let enabled = match (boot.valid, boot.persistent) {
            (false, _) => "Disabled",
            (true, false) => "Once",
            (true, true) => "Continuous",
        };
        let mut body = json!({
            "@odata.id": path, "@odata.type": "#ComputerSystem.v1_10_0.ComputerSystem", "@odata.etag": self.etag(),
            "Id": self.setup.system, "Name": "System", "SystemType": "Physical", "Status": { "State": "Enabled", "Health": "OK" },
            "PowerState": if self.chassis.says_on() { "On" } else { "Off" },
            "Boot": {
                "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": device,
                "BootSourceOverrideMode": if boot.efi { "UEFI" } else { "Legacy" },
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd"],
            },
            "Actions": { "#ComputerSystem.Reset": {
                "target": format!("{SYSTEMS}/{}/Actions/ComputerSystem.Reset", self.setup.system),
                "ResetType@Redfish.AllowableValues": self.admitted(),
            } },
        });
        if self.setup.boot_by_settings {
            let settings = format!("{SYSTEMS}/{}/SD", self.setup.system);
            body["@Redfish.Settings"] = json!({ "SettingsObject": { "@odata.id": settings } });
        }
        Response { headers: vec![("etag", self.etag())], ..ok(body) }
    }

    fn patch(&mut self, request: &Request<'_>) -> Response {
        match request.if_match {
            None if self.setup.wants_etag => {
                return refuse(428, "Base.1.0.PreconditionRequired", "If-Match is missing.");
            }
            // Only the strong form is known to such a BMC.
            Some(tag) if self.setup.wants_etag && tag != self.etag().trim_start_matches("W/") => {
                return refuse(412, "Base.1.0.PreconditionFailed", "The ETag does not match.");
            }
            _ => {}
        }
        let body: Value = serde_json::from_slice(request.body).unwrap_or_default();
        let boot = &body["Boot"];
        let mode = boot["BootSourceOverrideMode"].as_str();
        if self.setup.wants_mode && mode.is_none() {
            return refuse(400, "Base.1.0.PropertyMissing", "The property BootSourceOverrideMode is missing.");
        }
        let (device, enabled) = (boot["BootSourceOverrideTarget"].as_str(), boot["BootSourceOverrideEnabled"].as_str());
        let present = self.chassis.boot();
        let device = match device {
            Some("Pxe") => BootDevice::Network,
            Some("Hdd") => BootDevice::Disk,
            Some("None") => BootDevice::Default,
            None => present.device,
            Some(_) => {
                return refuse(400, "Base.1.0.PropertyValueNotInList", "BootSourceOverrideTarget is not in the list.");
            }
        };
        self.chassis.set_boot(BootFlags {
            valid: enabled.map_or(present.valid, |e| e != "Disabled"),
            persistent: enabled.map_or(present.persistent, |e| e == "Continuous"),
            efi: mode.map_or(present.efi, |m| m == "UEFI"),
            device,
        });
        self.version += 1;
        status(204)
    }

    fn reset(&mut self, body: &[u8]) -> Response {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = body["ResetType"].as_str().unwrap_or_default();
        let known = RESETS.into_iter().find(|(known, _)| *known == name && self.admitted().contains(known));
        let Some((_, control)) = known else {
            return refuse(400, "Base.1.0.ActionParameterNotSupported", "The ResetType is not supported.");
        };
        self.version += 1;
        match self.chassis.control(control) {
            Ok(event) => Response { event, ..status(204) },
            Err(Completion::NOT_IN_PRESENT_STATE) => {
                refuse(409, "Base.1.0.ResourceInUse", "The system is not in a state for that.")
            }
            Err(_) => refuse(500, "Base.1.0.InternalError", "It failed."),
        }
    }
}

fn status(status: u16) -> Response {
    Response { status: Some(status), ..Response::default() }
}

fn with_body(code: u16, body: Value) -> Response {
    Response { body: Some(body), ..status(code) }
}

fn ok(body: Value) -> Response {
    with_body(200, body)
}

/// An error as DSP0266 section 8.6 shapes it.
fn refuse(code: u16, id: &str, message: &str) -> Response {
    let info = json!([{ "MessageId": id, "Message": message, "Severity": "Warning" }]);
    with_body(code, json!({ "error": { "code": id, "message": message, "@Message.ExtendedInfo": info } }))
}
