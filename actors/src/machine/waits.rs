//! What a machine waits for, in words: the answer to "why has it not come back?". Texts only; no decision.

use std::time::Duration;

use schema::{
    boot::BootMethod,
    commissioning::{CommissionStep, StepState},
    id::RackId,
    messages::machine::MachineTimer,
    power::{PowerConfig, PowerType, redfish_url, split_address},
    script::ResultStatus,
    status::PowerState,
    time::Timestamp,
    wait::{OwedBy, Wait},
};

use super::{
    Attempt, Machine, PowerErrand,
    power::{ONE_OF_SEVERAL, WORD},
};
use crate::core::{Step, TimerOp};

/// What a script may take beyond its own time-out before it counts as lost (MAAS: 5 minutes).
const SCRIPT_GRACE: Duration = Duration::from_secs(300);
/// How long a person may take to press the button of a machine without a BMC.
const HAND: Duration = Duration::from_secs(1_800);
/// How long a machine may wait for its turn.
const TURN: Duration = Duration::from_secs(12 * 3_600);
/// How long after its return a region waits for what the racks kept while it was away: they dial again within 30 s.
pub(super) const BACK: Duration = Duration::from_secs(60);
/// A deadline that passed so long ago was never judged: there was no region.
const UNJUDGED: Duration = Duration::from_secs(5);
/// How long a ticket outlives the sum of its steps' deadlines: clocks differ, scripts add theirs.
const TICKET_LIFE: Duration = Duration::from_secs(24 * 3_600);

impl Machine {
    /// The machine as the state after a step that goes on: with its wait, and the timers that end it.
    pub(super) fn expecting(mut self, now: Timestamp) -> Step<Self> {
        let unjudged = self.wait.as_ref().is_some_and(|wait| wait.deadline + UNJUDGED < now);
        if let Some(attempt) = self.attempt.as_mut().filter(|a| unjudged && a.ended.is_none()) {
            attempt.held = Some(now + BACK);
        }
        let wait = match (self.open_attempt(), &self.errand) {
            (Some(attempt), _) => self.attempt_wait(attempt, now),
            (None, Some(errand)) => Some(errand_wait(errand)),
            (None, None) => None,
        };
        let Some(wait) = wait else { return self.resting() };
        self.wait = Some(wait.clone());
        let script = self.script_timer();
        let mut step = Step::waiting(self, wait.clone()).arm(MachineTimer::Deadline, wait.deadline);
        step.timers.push(script.unwrap_or(TimerOp::Cancel { timer: MachineTimer::Script }));
        step
    }

    /// The machine as a state that expects nothing, or only its power errand.
    pub(super) fn resting(mut self) -> Step<Self> {
        self.wait = self.errand.as_ref().map(errand_wait);
        match self.wait.clone() {
            Some(wait) => {
                let deadline = wait.deadline;
                Step::waiting(self, wait).arm(MachineTimer::Deadline, deadline)
            }
            None => Step::moved(self),
        }
    }

    /// The timer of the script that runs longest.
    pub(super) fn script_timer(&self) -> Option<TimerOp<MachineTimer>> {
        self.script_due().map(|(timer, at)| TimerOp::Arm { timer, at })
    }

    /// When the script that runs longest is overdue: after its time-out and the grace.
    pub(super) fn script_due(&self) -> Option<(MachineTimer, Timestamp)> {
        let attempt = self.open_attempt()?;
        let at = attempt.scripts.iter().filter_map(super::AttemptScript::overdue_at).min()?;
        Some((MachineTimer::Script, attempt.not_held(at)))
    }

    fn attempt_wait(&self, attempt: &Attempt, now: Timestamp) -> Option<Wait> {
        let step = attempt.current_step()?;
        let since = attempt.steps.get(step as usize).and_then(|r| r.started).unwrap_or(now);
        if let Some(place) = attempt.place {
            return Some(turn_wait(attempt, place));
        }
        let (what, owed_by, remedy) = self.owed(attempt, step);
        let (owed_by, remedy) = attempt.owed_by_who_ails(owed_by, remedy);
        let booting = (CommissionStep::DhcpLease..=CommissionStep::Scripts).contains(&step);
        let remedy = match (self.power_state, attempt.unseen_by()) {
            (_, Some(racks)) if booting && owed_by == OwedBy::Machine => format!(
                "the link of {racks} is down: look at its host and its way to the region (UDP port 5250); what it saw meanwhile comes when it is back; {remedy}"
            ),
            (PowerState::Off, None) if booting => format!(
                "the machine is off: look at its power supplies, its temperature and the BMC's own log (`ipmitool sel list`); {remedy}"
            ),
            _ => remedy,
        };
        Some(Wait {
            what,
            owed_by,
            since,
            deadline: if self.by_hand(step) {
                since + HAND
            } else {
                self.given_up(attempt, step, since, attempt.deadline(step, since))
            },
            evidence: attempt.evidence(),
            on_timeout: if self.boots_again(attempt, step) {
                "the machine is booted once more, since a rack was lost while it booted".into()
            } else {
                format!("attempt {} fails and the machine is switched off", attempt.id)
            },
            remedy,
        })
    }

    /// Whether the step waits for a person.
    fn by_hand(&self, step: CommissionStep) -> bool {
        step == CommissionStep::PowerOn && self.spec.power.power_type == PowerType::Manual
    }

    /// What the step lacks, who owes it, and what a person can look at.
    fn owed(&self, attempt: &Attempt, step: CommissionStep) -> (String, OwedBy, String) {
        let mac = self.spec.macs.first().map_or_else(|| "its boot interface".to_owned(), ToString::to_string);
        let bmc = self.spec.power.address().unwrap_or("the BMC");
        let name = &self.spec.hostname;
        match step {
            CommissionStep::Request | CommissionStep::Order => {
                ("the order to be composed".into(), OwedBy::Region, "look at the region's log".into())
            }
            CommissionStep::RackChosen => self.owed_by_racks(attempt),
            CommissionStep::PowerOn if self.by_hand(step) => (
                "a person to switch the machine on".into(),
                OwedBy::Operator,
                format!("switch {name} on; it must boot from the network on {mac}"),
            ),
            CommissionStep::PowerOn => (
                format!("the BMC {bmc} to say that the machine is on"),
                OwedBy::Bmc,
                format!("try it from the rack: {}; check address, user and password", query_by_hand(&self.spec.power)),
            ),
            CommissionStep::DhcpLease => (
                format!("a DHCP request from {mac}"),
                OwedBy::Machine,
                attempt.astray_remedy().unwrap_or_else(|| {
                    format!("look at the machine's console: network boot enabled first for {mac}? cable and VLAN right? another MAC than {mac}? is {bmc} this machine's own BMC?")
                }),
            ),
            CommissionStep::NextServer => (
                "the boot loader to be fetched to its last byte".into(),
                OwedBy::Machine,
                "look at the machine's console; check that TFTP (69/udp) and the ephemeral ports pass between it and the rack".into(),
            ),
            CommissionStep::BootResources => (
                "kernel, initrd and squashfs to arrive on the rack".into(),
                OwedBy::AnyRack,
                "check the link between rack and region, and the disk of the rack".into(),
            ),
            CommissionStep::BootConfig => (
                "the kernel to be asked for".into(),
                OwedBy::Machine,
                self.loader_remedy(),
            ),
            CommissionStep::EphemeralBoot => (
                "the ephemeral system to be fetched to its last byte".into(),
                OwedBy::Machine,
                "look at the kernel's messages on the console; check memory (the system lives in it) and 5248/tcp to the rack".into(),
            ),
            CommissionStep::Metadata => (
                "cloud-init to fetch its user-data".into(),
                OwedBy::Machine,
                format!("{}look at the console: does the system start (a squashfs that is damaged on the rack's disk does not mount), and does cloud-init reach the rack on 5248/tcp?", attempt.helps_lack()),
            ),
            CommissionStep::Scripts => (scripts_owed(attempt), OwedBy::Machine, scripts_remedy(attempt, name)),
            CommissionStep::Stored => stored_owed(attempt, bmc),
        }
    }

    /// The loader was fetched, and no kernel was asked for.
    fn loader_remedy(&self) -> String {
        let look = "look at the loader's messages on the machine's console";
        match self.boot_method {
            Some(BootMethod::UefiAmd64Tftp | BootMethod::UefiArm64Tftp) => format!(
                "{look}; does it go on from shim to GRUB? with Secure Boot on, firmware runs only what its keys admit: bring shim and GRUB from one distribution (`hostler image loaders`), or turn Secure Boot off"
            ),
            Some(BootMethod::UefiAmd64Http | BootMethod::UefiArm64Http) => format!(
                "{look}; with Secure Boot on, firmware refuses iPXE, which is not signed: turn Secure Boot off, or boot by PXE (TFTP) instead of HTTP boot"
            ),
            _ => look.into(),
        }
    }

    fn owed_by_racks(&self, attempt: &Attempt) -> (String, OwedBy, String) {
        if attempt.held_by.is_empty() {
            return (
                format!("a rack of the boot VLAN ({}) to hold the ticket", names(&attempt.boot_racks)),
                OwedBy::AnyRack,
                "is the rack's link up, and is there room on its disk? see `GET /MAAS/api/2.0/rackcontrollers/` and the rack's log".into(),
            );
        }
        if attempt.ordered.is_none() {
            return (
                format!("{} to have kernel, initrd and squashfs", names(&attempt.held_by)),
                OwedBy::AnyRack,
                "check the rack's disk and its link to the region".into(),
            );
        }
        match attempt.bmc_racks.get(attempt.bmc_rack) {
            Some(rack) => (
                format!("rack {rack} to accept the order to power on"),
                OwedBy::Rack(*rack),
                "is the rack's link up? another rack is tried when it does not answer".into(),
            ),
            None => {
                ("a rack that reaches the BMC".into(), OwedBy::AnyRack, "connect a rack that reaches the BMC".into())
            }
        }
    }
}

impl Attempt {
    /// Not before what the racks kept while the region was away had time to arrive.
    pub(super) fn not_held(&self, at: Timestamp) -> Timestamp {
        self.held.map_or(at, |held| held.max(at))
    }

    /// When the step fails, if nothing more is seen.
    pub(super) fn deadline(&self, step: CommissionStep, since: Timestamp) -> Timestamp {
        self.not_held(self.limit(step, since))
    }

    fn limit(&self, step: CommissionStep, since: Timestamp) -> Timestamp {
        match step {
            // Fetching bodies is part of the third step here, since the machine is switched on only when it can boot.
            CommissionStep::RackChosen if self.ordered.is_none() => since + CommissionStep::BootResources.deadline(),
            CommissionStep::RackChosen => self.ordered.unwrap_or(since) + step.deadline(),
            CommissionStep::PowerOn if self.another_rack() => since + step.deadline().min(ONE_OF_SEVERAL + WORD),
            CommissionStep::Scripts => {
                self.last_signal.map_or(since, |s| s.max(since)) + step.deadline().max(self.reboot_grace())
            }
            _ => since + step.deadline(),
        }
    }

    /// A script that may reboot the machine stays silent for as long as it may run.
    fn reboot_grace(&self) -> Duration {
        let rebooting = self.scripts.iter().filter(|s| s.script.may_reboot && s.status == ResultStatus::Running);
        let seconds = rebooting.map(|s| u64::from(s.script.timeout_s)).max();
        seconds.map_or(Duration::ZERO, |s| Duration::from_secs(s) + SCRIPT_GRACE)
    }

    /// When the ticket becomes void by itself. It is withdrawn long before, when the attempt ends.
    pub(super) fn ticket_expires(&self) -> Timestamp {
        self.started + TICKET_LIFE
    }

    /// What ended last, and what never came: the reason of a step that ran out of time.
    pub(super) fn missed(&self, step: CommissionStep, what: &str) -> String {
        let done = CommissionStep::ALL.into_iter().zip(&self.steps).rev().find(|(_, r)| r.state == StepState::Done);
        let after =
            done.map_or_else(String::new, |(s, r)| format!(" The last that was seen: {} ({}).", s.label(), r.evidence));
        // The last line alone may be beside the point: a link that came back after a refusal.
        let seen = self.evidence();
        let last = seen.get(seen.len().saturating_sub(3)..).unwrap_or_default().join("; ");
        let evidence = if last.is_empty() { last } else { format!(" Seen last: {last}.") };
        format!("Step {} ({}) ran out of time waiting for {what}.{after}{evidence}", step.number(), step.label())
    }
}

impl super::AttemptScript {
    /// When a running script is overdue: its time-out and the grace; never for one without a time-out.
    pub(super) fn overdue_at(&self) -> Option<Timestamp> {
        let running =
            matches!(self.status, ResultStatus::Running | ResultStatus::Installing | ResultStatus::ApplyingNetconf);
        let limit = Duration::from_secs(u64::from(self.script.timeout_s));
        (running && !limit.is_zero()).then_some(self.started?).map(|s| s + limit + SCRIPT_GRACE)
    }
}

/// So much is under way that this one waits. Its end is the ticket's: there is no step to run out of time.
fn turn_wait(attempt: &Attempt, place: u32) -> Wait {
    Wait {
        what: format!("its turn ({place} were before it)"),
        owed_by: OwedBy::Region,
        since: attempt.started,
        deadline: attempt.started + TURN,
        evidence: attempt.evidence(),
        on_timeout: format!("attempt {} fails; nothing was switched on", attempt.id),
        remedy: "nothing is wrong: as many machines as region and racks can serve are under way, and this one begins when one of them ends".into(),
    }
}

fn scripts_owed(attempt: &Attempt) -> String {
    let running: Vec<_> =
        attempt.scripts.iter().filter(|s| s.status == ResultStatus::Running).map(|s| s.script.name.as_str()).collect();
    let ended = attempt.scripts.iter().filter(|s| s.status.ended()).count();
    let total = attempt.scripts.len();
    if running.is_empty() {
        format!("the runner's next signal ({ended} of {total} scripts ended)")
    } else {
        format!("{} to end ({ended} of {total} scripts ended)", running.join(", "))
    }
}

fn scripts_remedy(attempt: &Attempt, name: &str) -> String {
    let running = attempt.scripts.iter().any(|s| s.status == ResultStatus::Running);
    if running {
        format!("see what it printed so far: hostler machine results {name}")
    } else {
        "look at the machine's console: does the runner start?".into()
    }
}

fn stored_owed(attempt: &Attempt, bmc: &str) -> (String, OwedBy, String) {
    let open: Vec<_> = attempt.scripts.iter().filter(|s| !s.status.ended()).map(|s| s.script.name.as_str()).collect();
    if open.is_empty() {
        (
            format!("the BMC {bmc} to say that the machine is off"),
            OwedBy::Bmc,
            format!("all results are stored; check the BMC {bmc}"),
        )
    } else {
        (
            format!("the results of {}", open.join(", ")),
            OwedBy::AnyRack,
            "a rack holds them in its outbox; check its link".into(),
        )
    }
}

/// The command by which a person asks that BMC how its machine stands. Either asks for the password.
fn query_by_hand(power: &PowerConfig) -> String {
    let address = power.address().unwrap_or("ADDRESS");
    if power.power_type == PowerType::Redfish {
        return format!("curl -k -u USER {}/redfish/v1/Systems", redfish_url(address).trim_end_matches('/'));
    }
    let (host, port) = split_address(address).unwrap_or_else(|| (address.to_owned(), None));
    let port = port.map(|port| format!(" -p {port}")).unwrap_or_default();
    format!("ipmitool -I lanplus -H {host}{port} -U USER -a chassis power status")
}

fn errand_wait(errand: &PowerErrand) -> Wait {
    let rack = errand.racks.get(errand.rack).copied();
    Wait {
        what: format!("the result of \"{}\"", errand.action.label()),
        owed_by: rack.map_or(OwedBy::AnyRack, OwedBy::Rack),
        since: errand.started,
        deadline: errand.deadline(),
        evidence: errand.tried.clone(),
        on_timeout: "the next rack that may reach the BMC is tried; without one the power state becomes \"error\""
            .into(),
        remedy: "check the BMC's address, user and password, and that a rack reaches it".into(),
    }
}

/// A boot file as people read it: of a body's hash its first digits.
pub(super) fn shown(file: &str) -> String {
    let is_hash = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let part = |part: &str| if is_hash(part) { format!("{}…", &part[..8]) } else { part.to_owned() };
    file.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn names(racks: &[RackId]) -> String {
    racks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_files_hash_its_first_digits_are_shown() {
        let file = format!("images/{}/squashfs", "0123456789abcdef".repeat(4));
        assert_eq!(shown(&file), "images/01234567…/squashfs");
        assert_eq!(shown("lpxelinux.0"), "lpxelinux.0");
    }

    #[test]
    fn a_bmc_is_asked_by_hand_in_its_own_language() {
        let bmc = |power_type, address: &str| {
            let params = [("power_address".to_owned(), address.to_owned())].into();
            query_by_hand(&PowerConfig { power_type, params, secret_fields: Vec::new() })
        };
        let ipmi = bmc(PowerType::Ipmi, "10.0.0.7:6230");
        assert_eq!(ipmi, "ipmitool -I lanplus -H 10.0.0.7 -p 6230 -U USER -a chassis power status");
        assert_eq!(bmc(PowerType::Redfish, "10.0.0.7"), "curl -k -u USER https://10.0.0.7/redfish/v1/Systems");
    }
}
