//! IPMI 2.0 over LAN through `ipmitool`: its arguments, its answers in words, its ways to fail. Secrets travel by environment only.

use std::{
    collections::HashMap,
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use actors::errand::{FaultKind, PowerFault, Ran};
use schema::{
    power::{PowerAccess, PowerAction},
    status::PowerState,
};
use tokio::process::Command;

use super::{Power, Running, fault};

/// Cipher suites to try when none is configured: without one, ipmitool loses 10 s on a BMC that does not list its own.
const SUITES: [u8; 3] = [3, 17, 8];
/// A K_g has 20 bytes (IPMI 2.0, section 13.33).
const KG_BYTES: usize = 20;
const MISSING: &str = "install the package ipmitool on this rack (apt-get install ipmitool)";

/// The IPMI driver.
#[derive(Debug)]
pub struct Ipmi {
    tool: PathBuf,
    timeout: Duration,
    /// The cipher suite that worked last, by BMC.
    suites: Mutex<HashMap<String, u8>>,
}

/// A checked set of parameters.
struct Target<'a> {
    host: String,
    port: Option<u16>,
    user: &'a str,
    privilege: &'a str,
    suite: Option<u8>,
    password: &'a str,
    kg: Option<OsString>,
    efi: bool,
}

/// How a call of the tool ended badly.
enum Failed {
    /// The BMC does not know this cipher suite.
    Suite(PowerFault),
    Fault(PowerFault),
}

impl Power for Ipmi {
    fn run<'a>(&'a self, action: PowerAction, access: &'a PowerAccess) -> Running<'a> {
        Box::pin(async move {
            let target = Target::check(access)?;
            match action {
                PowerAction::Query => Ok(Ran::State { state: self.state(&target).await? }),
                PowerAction::On => self.switch(&target, "on").await,
                PowerAction::Off => self.switch(&target, "off").await,
                PowerAction::NetworkBoot => self.network_boot(&target).await,
            }
        })
    }
}

impl Ipmi {
    /// A driver that runs `tool`; no call of it takes longer than `timeout`.
    #[must_use]
    pub fn new(tool: PathBuf, timeout: Duration) -> Self {
        Self { tool, timeout, suites: Mutex::default() }
    }

    async fn state(&self, target: &Target<'_>) -> Result<PowerState, PowerFault> {
        let said = self.call(target, &["chassis", "power", "status"]).await?;
        parse_state(&said).ok_or_else(|| {
            let why = format!("ipmitool said \"{}\" instead of a power state", said.trim());
            fault(FaultKind::Other, why, "run `ipmitool chassis power status` against the BMC by hand")
        })
    }

    async fn switch(&self, target: &Target<'_>, to: &str) -> Result<Ran, PowerFault> {
        self.call(target, &["chassis", "power", to]).await?;
        Ok(Ran::Accepted { notes: Vec::new() })
    }

    /// The boot device for once, then on, or a cycle where it is on.
    async fn network_boot(&self, target: &Target<'_>) -> Result<Ran, PowerFault> {
        let mut bootdev = vec!["chassis", "bootdev", "pxe"];
        bootdev.extend(target.efi.then_some("options=efiboot"));
        let mut notes = Vec::new();
        match self.call(target, &bootdev).await {
            Ok(_) => {}
            // A machine whose own order begins with the network boots all the same.
            Err(f) if f.kind != FaultKind::Unreachable && f.kind != FaultKind::Auth && f.kind != FaultKind::Unfit => {
                notes.push(format!("the BMC did not take the boot device (network): {}", f.why));
            }
            Err(f) => return Err(f),
        }
        let to = if self.state(target).await? == PowerState::On { "cycle" } else { "on" };
        self.call(target, &["chassis", "power", to]).await?;
        Ok(Ran::Accepted { notes })
    }

    /// Calls the tool with the cipher suite that is configured or known to work, or else with each in turn.
    async fn call(&self, target: &Target<'_>, words: &[&str]) -> Result<String, PowerFault> {
        let bmc = format!("{}:{:?}", target.host, target.port);
        let known = self.suites.lock().unwrap_or_else(PoisonError::into_inner).get(&bmc).copied();
        let suites = match (target.suite, known) {
            (Some(suite), _) => vec![suite],
            (None, Some(known)) => std::iter::once(known).chain(SUITES.into_iter().filter(|s| *s != known)).collect(),
            (None, None) => SUITES.to_vec(),
        };
        let mut refused = None;
        for suite in suites {
            match self.call_with(target, suite, words).await {
                Ok(said) => {
                    if target.suite.is_none() && known != Some(suite) {
                        self.suites.lock().unwrap_or_else(PoisonError::into_inner).insert(bmc, suite);
                    }
                    return Ok(said);
                }
                // The first refusal counts: the last suites are the unlikely ones.
                Err(Failed::Suite(f)) => refused = refused.or(Some(f)),
                Err(Failed::Fault(f)) => return Err(f),
            }
        }
        Err(refused.unwrap_or_else(|| fault(FaultKind::Other, "no cipher suite was tried", "report this as a defect")))
    }

    async fn call_with(&self, target: &Target<'_>, suite: u8, words: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new(&self.tool);
        // -v makes it say why a session failed; -N and -R bound its own retries.
        command.args(["-v", "-I", "lanplus", "-N", "2", "-R", "2", "-C", &suite.to_string()]);
        command.args(["-H", &target.host, "-L", target.privilege]);
        if let Some(port) = target.port {
            command.args(["-p", &port.to_string()]);
        }
        if !target.user.is_empty() {
            command.args(["-U", target.user]);
        }
        command.arg("-E").env("IPMI_PASSWORD", target.password).env("LC_ALL", "C");
        match &target.kg {
            Some(kg) => command.arg("-K").env("IPMI_KGKEY", kg),
            None => command.env_remove("IPMI_KGKEY"),
        };
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let host = &target.host;
        let ran = match tokio::time::timeout(self.timeout, command.output()).await {
            Err(_) => {
                let why = format!("ipmitool got no answer from the BMC at {host} in {} s", self.timeout.as_secs());
                return Err(Failed::Fault(fault(FaultKind::Unreachable, why, unreachable(host))));
            }
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                let why = format!("the program {} is not here", self.tool.display());
                return Err(Failed::Fault(fault(FaultKind::Unfit, why, MISSING)));
            }
            Ok(Err(e)) => {
                let why = format!("{} could not be run: {e}", self.tool.display());
                return Err(Failed::Fault(fault(FaultKind::Other, why, MISSING)));
            }
            Ok(Ok(output)) => output,
        };
        if ran.status.success() {
            return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
        }
        Err(classify(host, suite, &String::from_utf8_lossy(&ran.stderr)))
    }
}

impl<'a> Target<'a> {
    fn check(access: &'a PowerAccess) -> Result<Self, PowerFault> {
        let unfit = |why: String, remedy: &str| fault(FaultKind::Unfit, why, remedy);
        let param = |name: &str| access.params.get(name).map_or("", String::as_str);
        let secret = |name: &str| access.secrets.get(name).map_or("", |s| s.expose().as_str());
        let (host, port) = split_address(param("power_address")).ok_or_else(|| {
            let why = format!("power_address \"{}\" is not HOST or HOST:PORT", param("power_address"));
            unfit(why, "set power_address to the BMC's IP address or name")
        })?;
        let suite = match param("cipher_suite_id") {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                let why = format!("cipher_suite_id \"{text}\" is not a number of 0 to 255");
                unfit(why, "use 3, 8, 12 or 17, or leave it empty")
            })?),
        };
        let privilege = match param("privilege_level") {
            "" | "OPERATOR" => "OPERATOR",
            "ADMIN" | "ADMINISTRATOR" => "ADMINISTRATOR",
            "USER" => "USER",
            other => {
                let why = format!("privilege_level \"{other}\" is not known");
                return Err(unfit(why, "use USER, OPERATOR or ADMIN"));
            }
        };
        let kg = match secret("k_g") {
            "" => None,
            text => Some(kg_key(text).ok_or_else(|| {
                let why = "the BMC key k_g is not 1 to 20 bytes in hexadecimal without a zero byte inside".into();
                unfit(why, "give k_g as 0x and up to 40 hexadecimal digits")
            })?),
        };
        let user = param("power_user");
        if user.starts_with('-') {
            return Err(unfit(format!("power_user \"{user}\" begins with a hyphen"), "choose another user on the BMC"));
        }
        let efi = param("power_boot_type") == "efi";
        Ok(Self { host, port, user, privilege, suite, password: secret("power_pass"), kg, efi })
    }
}

/// HOST, HOST:PORT, an IPv6 address, or [IPv6]:PORT. A name cannot begin with a hyphen: it would be an option.
fn split_address(text: &str) -> Option<(String, Option<u16>)> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Some((text.into(), None));
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some((socket.ip().to_string(), Some(socket.port())));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let host: schema::net::HostName = host.parse().ok()?;
    Some((host.as_str().into(), port))
}

/// The key's bytes, as the tool's environment takes them: raw, ended by the first zero byte.
fn kg_key(text: &str) -> Option<OsString> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 2 * KG_BYTES || !digits.is_ascii() {
        return None;
    }
    let mut bytes = Vec::new();
    for at in (0..digits.len()).step_by(2) {
        bytes.push(u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?);
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    (!bytes.is_empty() && !bytes.contains(&0)).then(|| OsString::from_vec(bytes))
}

/// The state in "Chassis Power is on".
fn parse_state(said: &str) -> Option<PowerState> {
    let word = said.lines().find_map(|line| line.trim().strip_prefix("Chassis Power is "))?;
    match word.trim() {
        "on" => Some(PowerState::On),
        "off" => Some(PowerState::Off),
        _ => None,
    }
}

fn unreachable(host: &str) -> String {
    format!("check that UDP port 623 of {host} can be reached from this rack and that IPMI over LAN is enabled there")
}

/// What the tool's words mean. What `-v` says of its own habits is no part of it.
fn classify(host: &str, suite: u8, said: &str) -> Failed {
    const NOISE: [&str; 5] = ["Loading IANA", "Get HPM.x", "Running Get", "Invalid completion code", "Discovered IPMB"];
    let lines = said.lines().map(|line| line.trim().trim_start_matches("> "));
    let lines: Vec<_> = lines.filter(|l| !l.is_empty() && !NOISE.iter().any(|n| l.starts_with(n))).collect();
    let said = lines.join("\n").to_ascii_lowercase();
    let last =
        lines.iter().rfind(|l| !l.starts_with("Error: Unable to establish")).unwrap_or(&"no session could be made");
    let why = format!("the BMC at {host}: {}", last.chars().take(200).collect::<String>());
    for (kind, words, remedy) in WORDS {
        if words.iter().any(|w| said.contains(w)) {
            return match kind {
                None => Failed::Suite(fault(FaultKind::Auth, format!("{why} (cipher suite {suite})"), *remedy)),
                Some(FaultKind::Unreachable) => Failed::Fault(fault(FaultKind::Unreachable, why, unreachable(host))),
                Some(kind) => Failed::Fault(fault(*kind, why, *remedy)),
            };
        }
    }
    Failed::Fault(fault(FaultKind::Other, why, "run the same with ipmitool by hand, and look at the BMC's log"))
}

/// What the tool says, the first that fits; no kind: the cipher suite was refused.
const WORDS: &[(Option<FaultKind>, &[&str], &str)] = &[
    (
        None,
        &[
            "invalid authentication algorithm",
            "no matching cipher suite",
            "invalid integrity algorithm",
            "invalid confidentiality algorithm",
        ],
        "set cipher_suite_id to a suite that the BMC allows (`ipmitool channel getciphers ipmi` lists them)",
    ),
    (
        Some(FaultKind::Auth),
        &["rakp 2 hmac is invalid", "unauthorized name", "password", "invalid user"],
        "correct power_user and power_pass; several wrong tries may lock the account",
    ),
    (Some(FaultKind::Auth), &["rakp 4 message"], "correct the BMC key k_g, or leave it empty where the BMC has none"),
    (
        Some(FaultKind::Auth),
        &["session privilege level to", "unauthorized role", "invalid role", "insufficient privilege level"],
        "give the BMC's user the privilege OPERATOR on the LAN channel, or set privilege_level to what it has",
    ),
    (
        Some(FaultKind::Busy),
        &["insufficient resources", "node busy", "out of space", "in present state", "update mode"],
        "wait; if it lasts, end other sessions on the BMC or restart it (`ipmitool mc reset cold`)",
    ),
    (
        Some(FaultKind::Fatal),
        &["failed: invalid command", "failed: unsupported"],
        "the BMC cannot do this; switch the machine by hand, or use another power type",
    ),
    (
        Some(FaultKind::Unreachable),
        &[
            "address lookup",
            "get auth capabilities error",
            "could not open socket",
            "no response",
            "unable to establish",
        ],
        "",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(said: &str) -> FaultKind {
        match classify("bmc", 3, said) {
            Failed::Suite(f) | Failed::Fault(f) => f.kind,
        }
    }

    #[test]
    fn the_tools_words_are_understood() {
        let tail = "\nError: Unable to establish IPMI v2 / RMCP+ session\n";
        assert_eq!(kind(&format!("Loading IANA PEN Registry...\n> RAKP 2 HMAC is invalid{tail}")), FaultKind::Auth);
        assert_eq!(kind(&format!("RAKP 2 message indicates an error : unauthorized name{tail}")), FaultKind::Auth);
        assert_eq!(kind(&format!("> RAKP 4 message has invalid integrity check value{tail}")), FaultKind::Auth);
        assert_eq!(kind(&format!("Get Auth Capabilities error{tail}")), FaultKind::Unreachable);
        assert_eq!(kind(tail), FaultKind::Unreachable);
        assert_eq!(kind("Set Chassis Power Control to Up/On failed: Node busy"), FaultKind::Busy);
        assert_eq!(kind("Set Chassis Power Control to Up/On failed: Invalid command"), FaultKind::Fatal);
        let suite =
            classify("bmc", 17, &format!("Error in open session response message : no matching cipher suite{tail}"));
        assert!(matches!(suite, Failed::Suite(f) if f.why.contains("suite 17")));
    }

    #[test]
    fn states_addresses_and_keys_parse() {
        assert_eq!(parse_state("Chassis Power is on\n"), Some(PowerState::On));
        assert_eq!(parse_state("x\nChassis Power is off"), Some(PowerState::Off));
        assert_eq!(parse_state("Chassis Power is maybe"), None);
        assert_eq!(split_address("10.0.0.1"), Some(("10.0.0.1".into(), None)));
        assert_eq!(split_address("10.0.0.1:6230"), Some(("10.0.0.1".into(), Some(6230))));
        assert_eq!(split_address("fd00::1"), Some(("fd00::1".into(), None)));
        assert_eq!(split_address("[fd00::1]:623"), Some(("fd00::1".into(), Some(623))));
        assert_eq!(split_address("bmc-1.maas:623"), Some(("bmc-1.maas".into(), Some(623))));
        for wrong in ["", "-oProxy", "a b", "host:port", "host:70000"] {
            assert_eq!(split_address(wrong), None, "{wrong}");
        }
        assert_eq!(kg_key("0x616263"), Some("abc".into()));
        assert_eq!(kg_key("61620000"), Some("ab".into()));
        for wrong in ["0x", "0x6", "61006162", "zz", &"61".repeat(21)] {
            assert_eq!(kg_key(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn suites_are_tried_in_turn_and_the_one_that_works_is_remembered() {
        // Only a stand-in refuses suite 3: ipmi_sim knows no other.
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("ipmitool");
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> {0}/log\ncase \"$*\" in *'-C 17 '*) echo Chassis Power is on;; *) echo no matching cipher suite >&2; exit 1;; esac\n",
            dir.path().display()
        );
        std::fs::write(&tool, script).unwrap();
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let ipmi = Ipmi::new(tool, Duration::from_secs(5));
        let access = PowerAccess {
            power_type: schema::power::PowerType::Ipmi,
            params: [("power_address".to_owned(), "127.0.0.1".to_owned())].into(),
            secrets: [].into(),
        };
        for _ in 0..2 {
            let ran = ipmi.run(PowerAction::Query, &access).await.unwrap();
            assert_eq!(ran, Ran::State { state: PowerState::On });
        }
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let suites: Vec<_> = log.lines().map(|l| l.split("-C ").nth(1).unwrap().split(' ').next().unwrap()).collect();
        assert_eq!(suites, ["3", "17", "17"]);
    }
}
