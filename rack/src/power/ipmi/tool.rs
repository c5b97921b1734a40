//! IPMI over LAN through `ipmitool`: its arguments, its answers in words, its ways to fail. Secrets travel by environment only.

use std::{
    collections::HashMap,
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::errand::{FaultKind, PowerFault, Ran};
use schema::{power::PowerAction, status::PowerState};
use tokio::{process::Command, sync::Semaphore};

use super::target::Target;
use crate::power::{fault, rmcp::Privilege, unreachable};

/// Cipher suites to try when none is configured: without one, ipmitool loses 10 s on a BMC that does not list its own.
const SUITES: [u8; 3] = [3, 17, 8];
/// A process costs some 25 ms of CPU; more at once only wait for each other.
const AT_ONCE: usize = 64;
const MISSING: &str = "install the package ipmitool on this rack (apt-get install ipmitool)";

/// What the tool is to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// IPMI 2.0 (RMCP+).
    Two,
    /// IPMI 1.5: nothing is encrypted.
    OneAndHalf,
}

/// The tool.
#[derive(Debug)]
pub struct Tool {
    program: PathBuf,
    timeout: Duration,
    slots: Semaphore,
    /// The cipher suite that worked last, by BMC.
    suites: Mutex<HashMap<String, u8>>,
}

/// How a call of the tool ended badly.
enum Failed {
    /// The BMC does not know this cipher suite.
    Suite(PowerFault),
    Fault(PowerFault),
}

impl Tool {
    /// Runs `program`; no call of it takes longer than `timeout`.
    #[must_use]
    pub fn new(program: PathBuf, timeout: Duration) -> Self {
        Self { program, timeout, slots: Semaphore::new(AT_ONCE), suites: Mutex::default() }
    }

    /// Carries `action` out once.
    ///
    /// # Errors
    /// What the BMC or the tool did wrong, with its remedy.
    pub async fn run(&self, action: PowerAction, target: &Target<'_>, speech: Speech) -> Result<Ran, PowerFault> {
        let job = Job { tool: self, target, speech };
        match action {
            PowerAction::Query => Ok(Ran::State { state: job.state().await? }),
            PowerAction::On => job.switch("on").await,
            PowerAction::Off => job.switch("off").await,
            PowerAction::NetworkBoot => job.network_boot().await,
        }
    }
}

/// One action on one BMC.
struct Job<'a> {
    tool: &'a Tool,
    target: &'a Target<'a>,
    speech: Speech,
}

impl Job<'_> {
    async fn state(&self) -> Result<PowerState, PowerFault> {
        let said = self.call(&["chassis", "power", "status"]).await?;
        parse_state(&said).ok_or_else(|| {
            let why = format!("ipmitool said \"{}\" instead of a power state", said.trim());
            fault(FaultKind::Other, why, "run `ipmitool chassis power status` against the BMC by hand")
        })
    }

    async fn switch(&self, to: &str) -> Result<Ran, PowerFault> {
        self.call(&["chassis", "power", to]).await?;
        Ok(Ran::Accepted { notes: Vec::new() })
    }

    /// The boot device for once, then on, or a cycle where it is on.
    async fn network_boot(&self) -> Result<Ran, PowerFault> {
        let mut bootdev = vec!["chassis", "bootdev", "pxe"];
        bootdev.extend(self.target.efi.then_some("options=efiboot"));
        let mut notes = Vec::new();
        match self.call(&bootdev).await {
            Ok(_) => {}
            // A machine whose own order begins with the network boots all the same.
            Err(f) if f.kind != FaultKind::Unreachable && f.kind != FaultKind::Auth && f.kind != FaultKind::Unfit => {
                notes.push(format!("the BMC did not take the boot device (network): {}", f.why));
            }
            Err(f) => return Err(f),
        }
        let to = if self.state().await? == PowerState::On { "cycle" } else { "on" };
        self.call(&["chassis", "power", to]).await?;
        Ok(Ran::Accepted { notes })
    }

    /// Calls the tool with the cipher suite that is configured or known to work, or else with each in turn.
    async fn call(&self, words: &[&str]) -> Result<String, PowerFault> {
        if self.speech == Speech::OneAndHalf {
            return self.call_with(None, words).await.map_err(|(Failed::Suite(f) | Failed::Fault(f))| f);
        }
        let target = self.target;
        let bmc = format!("{}:{:?}", target.host, target.port);
        let known = self.suites().get(&bmc).copied();
        let suites = match (target.suite, known) {
            (Some(suite), _) => vec![suite],
            (None, Some(known)) => std::iter::once(known).chain(SUITES.into_iter().filter(|s| *s != known)).collect(),
            (None, None) => SUITES.to_vec(),
        };
        let mut refused = None;
        for suite in suites {
            match self.call_with(Some(suite), words).await {
                Ok(said) => {
                    if target.suite.is_none() && known != Some(suite) {
                        self.suites().insert(bmc, suite);
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

    fn suites(&self) -> MutexGuard<'_, HashMap<String, u8>> {
        self.tool.suites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call_with(&self, suite: Option<u8>, words: &[&str]) -> Result<String, Failed> {
        let mut command = self.command(suite).map_err(Failed::Fault)?;
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let (host, timeout, program) = (&self.target.host, self.tool.timeout, self.tool.program.display());
        let _slot = self.tool.slots.acquire().await;
        let ran = match tokio::time::timeout(timeout, command.output()).await {
            Err(_) => {
                let why = format!("ipmitool got no answer from the BMC at {host} in {} s", timeout.as_secs());
                return Err(Failed::Fault(fault(FaultKind::Unreachable, why, unreachable(host))));
            }
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                let why = format!("the program {program} is not here");
                return Err(Failed::Fault(fault(FaultKind::Unfit, why, MISSING)));
            }
            Ok(Err(e)) => {
                let why = format!("{program} could not be run: {e}");
                return Err(Failed::Fault(fault(FaultKind::Other, why, MISSING)));
            }
            Ok(Ok(output)) => output,
        };
        if ran.status.success() {
            return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
        }
        Err(classify(host, suite, &String::from_utf8_lossy(&ran.stderr)))
    }

    /// The tool with everything but the words that say what to do.
    fn command(&self, suite: Option<u8>) -> Result<Command, PowerFault> {
        let (target, mut command) = (self.target, Command::new(&self.tool.program));
        // -v makes it say why a session failed; -N and -R bound its own retries.
        command.args(["-v", "-N", "2", "-R", "2", "-H", &target.host]);
        match suite {
            Some(suite) => command.args(["-I", "lanplus", "-C", &suite.to_string()]),
            None => command.args(["-I", "lan"]),
        };
        command.args(["-L", level(target.privilege)]);
        if let Some(port) = target.port {
            command.args(["-p", &port.to_string()]);
        }
        if !target.user.is_empty() {
            command.args(["-U", target.user]);
        }
        command.arg("-E").env("IPMI_PASSWORD", target.password).env("LC_ALL", "C");
        match &target.kg {
            // Its environment takes the bytes raw, ended by the first zero.
            Some(kg) if kg.contains(&0) => {
                let why = "the BMC key k_g has a zero byte inside, which ipmitool cannot be given";
                return Err(fault(FaultKind::Unfit, why, "choose another k_g on the BMC, or the native driver"));
            }
            Some(kg) => command.arg("-K").env("IPMI_KGKEY", OsString::from_vec(kg.clone())),
            None => command.env_remove("IPMI_KGKEY"),
        };
        Ok(command)
    }
}

fn level(privilege: Privilege) -> &'static str {
    match privilege {
        Privilege::Callback => "CALLBACK",
        Privilege::User => "USER",
        Privilege::Operator => "OPERATOR",
        Privilege::Administrator => "ADMINISTRATOR",
    }
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

/// What the tool's words mean. What `-v` says of its own habits is no part of it.
fn classify(host: &str, suite: Option<u8>, said: &str) -> Failed {
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
                None => {
                    let suite = suite.map_or_else(String::new, |suite| format!(" (cipher suite {suite})"));
                    Failed::Suite(fault(FaultKind::Auth, why + &suite, *remedy))
                }
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
        match classify("bmc", Some(3), said) {
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
        let suite = classify(
            "bmc",
            Some(17),
            &format!("Error in open session response message : no matching cipher suite{tail}"),
        );
        assert!(matches!(suite, Failed::Suite(f) if f.why.contains("suite 17")));
    }

    #[test]
    fn states_parse() {
        assert_eq!(parse_state("Chassis Power is on\n"), Some(PowerState::On));
        assert_eq!(parse_state("x\nChassis Power is off"), Some(PowerState::Off));
        assert_eq!(parse_state("Chassis Power is maybe"), None);
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
        let tool = Tool::new(tool, Duration::from_secs(5));
        let access = schema::power::PowerAccess {
            power_type: schema::power::PowerType::Ipmi,
            params: [("power_address".to_owned(), "127.0.0.1".to_owned())].into(),
            secrets: [].into(),
        };
        let target = Target::check(&access).unwrap();
        for _ in 0..2 {
            let ran = tool.run(PowerAction::Query, &target, Speech::Two).await.unwrap();
            assert_eq!(ran, Ran::State { state: PowerState::On });
        }
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let suites: Vec<_> = log.lines().map(|l| l.split("-C ").nth(1).unwrap().split(' ').next().unwrap()).collect();
        assert_eq!(suites, ["3", "17", "17"]);
    }
}
