//! The corpus: faults by name, what `explain` must say of each, by when, and how the machine ends. Tried on the deterministic yard.

use std::time::Duration;

use actors::machine::{Attempt, Machine};
use region::builtin::INVENTORY;
use schema::{commissioning::CommissionStep as Step, status::NodeStatus, time::Timestamp};

use super::{Chaos, Ill, Scenario, Way, Yard};

mod met;

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Ready,
    /// Failed commissioning, with a remedy.
    Failed,
    /// It never begins: the operator is refused, with a remedy.
    Refused,
}

/// One fault.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    /// What is done, at which step of the watched machine; from the beginning without one.
    pub at: Option<Step>,
    pub does: Vec<Chaos>,
    /// Something about the house or the fleet.
    pub house: fn(&mut Scenario),
    /// The machine that is watched.
    pub watched: u32,
    /// The step that `explain` must name, with who owes it (empty: it fails at once, nobody is waited for), and words that it must hold.
    pub step: Option<Step>,
    pub owner: &'static str,
    pub words: &'static [&'static str],
    pub ends: Ends,
}

/// What was seen of one.
#[derive(Debug, Clone)]
pub struct Tried {
    pub row: Row,
    /// How long after the step's begin it was named.
    pub named: Option<Duration>,
    /// What is not as it must be.
    pub wrong: Vec<String>,
    /// The last explanation in words, or what the operator was told.
    pub said: String,
    /// The last explanation whole.
    pub text: String,
}

const SEED: u64 = 11;
const SCRIPT: &str = "maas-support-info";
const NO_WRITES: [&str; 3] =
    ["the region's database has taken no write since", "no space left", "that its disk has room"];
const HOUR_US: i64 = 3_600_000_000;

fn row(name: &'static str, step: Step, owner: &'static str, words: &'static [&'static str], ends: Ends) -> Row {
    let (at, does, watched) = (None, Vec::new(), 0);
    Row { name, at, does, house: |_| {}, watched, step: Some(step), owner, words, ends }
}

impl Row {
    fn ill(mut self, ill: Ill) -> Self {
        self.does.push(Chaos::Falls(self.watched, ill));
        self
    }

    fn does(mut self, does: impl IntoIterator<Item = Chaos>) -> Self {
        self.does.extend(does);
        self
    }

    fn at(mut self, step: Step) -> Self {
        self.at = Some(step);
        self
    }

    fn house(mut self, house: fn(&mut Scenario)) -> Self {
        self.house = house;
        self
    }

    fn watched(mut self, watched: u32) -> Self {
        self.watched = watched;
        self
    }
}

/// A fault that a machine gets over.
fn harmless(name: &'static str, at: Step, does: impl IntoIterator<Item = Chaos>) -> Row {
    Row { step: None, ..row(name, at, "", &[], Ends::Ready).at(at).does(does) }
}

fn power() -> Vec<Row> {
    let bmc = "the BMC";
    vec![
        row(
            "wrong BMC password",
            Step::PowerOn,
            "",
            &["the password of the user \"maas\" is wrong", "correct power_pass"],
            Ends::Failed,
        )
        .ill(Ill::WrongPassword),
        row("silent BMC", Step::PowerOn, bmc, &["10.78.0.1", "did not answer"], Ends::Failed).ill(Ill::SilentBmc),
        row("BMC is busy for ever", Step::PowerOn, bmc, &["node busy"], Ends::Failed).ill(Ill::BusyBmc),
        row("BMC accepts and does nothing", Step::PowerOn, bmc, &["the BMC says off"], Ends::Failed)
            .ill(Ill::Powerless),
        row("no rack reaches the BMCs", Step::PowerOn, bmc, &["did not answer"], Ends::Failed)
            .does([Chaos::Cut(Way::Bmcs(0)), Chaos::Cut(Way::Bmcs(1))]),
        Row { step: None, ..row("one rack does not reach the BMC", Step::PowerOn, "", &[], Ends::Ready) }
            .does([Chaos::Cut(Way::Bmcs(0))]),
        Row { step: None, ..row("BMC loses each fourth datagram", Step::PowerOn, "", &[], Ends::Ready) }
            .ill(Ill::LossyBmc(4)),
        row("BMC says on for ever", Step::Stored, bmc, &["switched off", "10.78.0.1"], Ends::Failed)
            .at(Step::Scripts)
            .ill(Ill::SaysOn),
        row("racks' clocks an hour ahead", Step::RackChosen, "", &["had passed when it came", "clock"], Ends::Failed)
            .does([Chaos::Skew(0, HOUR_US), Chaos::Skew(1, HOUR_US)]),
    ]
}

/// BMCs as they are met, by their packets: the even machines' speak IPMI, the odd ones' Redfish.
fn bmcs() -> Vec<Row> {
    let (bmc, s) = ("the BMC", Duration::from_secs);
    let fails = |name, owner, words| row(name, Step::PowerOn, owner, words, Ends::Failed);
    let passes = |name| Row { step: None, ..row(name, Step::PowerOn, "", &[], Ends::Ready) };
    vec![
        fails("wrong password, Redfish", "", &["10.78.0.2", "user or password are wrong", "correct power_user"])
            .watched(1)
            .ill(Ill::WrongPassword),
        fails("account of the BMC locked", "", &["does not know the user \"maas\"", "locked", "enable it"])
            .ill(Ill::LockedBmc),
        fails("account of the BMC locked, Redfish", "", &["The account is locked", "unlock the account"])
            .watched(1)
            .ill(Ill::LockedBmc),
        fails("silent BMC, Redfish", bmc, &["10.78.0.2", "did not answer in time"]).watched(1).ill(Ill::SilentBmc),
        fails("BMC is busy for ever, Redfish", bmc, &["The service is busy"]).watched(1).ill(Ill::BusyBmc),
        fails("nobody listens at the BMC's HTTPS port", bmc, &["Connection refused", "TCP port 443", "enabled"])
            .watched(1)
            .ill(Ill::RefusesHttp),
        fails("all sessions of the BMC are taken", bmc, &["insufficient resources", "end other sessions"])
            .ill(Ill::FullBmc),
        passes("all sessions of the BMC are taken, Redfish: basic authentication does").watched(1).ill(Ill::FullBmc),
        passes("BMC takes 0.8 s for each answer").ill(Ill::SlowBmc(800)),
        passes("BMC takes 4 s for each answer, Redfish").watched(1).ill(Ill::SlowBmc(4_000)),
        fails("BMC takes 6 s for each answer", bmc, &["10.78.0.1", "did not"]).ill(Ill::SlowBmc(6_000)),
        passes("BMC loses each fifth request, Redfish").watched(1).ill(Ill::LossyBmc(5)),
        passes("each third answer of the BMC breaks off, Redfish").watched(1).ill(Ill::BreaksHttp(3)),
        harmless("BMC starts anew over the order", Step::PowerOn, [Chaos::RestartBmc(0, s(15))]),
        harmless("BMC starts anew over the order, Redfish", Step::PowerOn, [Chaos::RestartBmc(1, s(15))]).watched(1),
        harmless(
            "BMC forgets its sessions before it is asked to switch off",
            Step::Scripts,
            [Chaos::RestartBmc(0, s(0))],
        ),
    ]
}

fn network() -> Vec<Row> {
    let machine = "the machine";
    vec![
        row(
            "cabled into another network",
            Step::DhcpLease,
            machine,
            &["a DHCP request from", "asked for an address to boot on subnet 2", "the switch port's VLAN"],
            Ends::Failed,
        )
        .ill(Ill::WrongWire(1)),
        Row {
            step: None,
            ..row(
                "DHCP is off on the VLAN",
                Step::Request,
                "",
                &["DHCP is off on its VLAN", "dhcp_on=true"],
                Ends::Refused,
            )
        }
        .house(|s| s.house.no_dhcp = true),
        Row {
            step: None,
            ..row("VLAN without a rack", Step::Request, "", &["has no rack", "primary_rack"], Ends::Refused)
        }
        .house(|s| s.house.no_rack = true),
        row(
            "powers on and never asks DHCP",
            Step::DhcpLease,
            machine,
            &["a DHCP request from", "network boot"],
            Ends::Failed,
        )
        .ill(Ill::DeafCard),
        row(
            "asks DHCP with another card",
            Step::DhcpLease,
            machine,
            &[
                "a DHCP request from",
                "0c:42:a0:00:00:55, a card of no machine that is known",
                "add its MAC to the machine",
            ],
            Ends::Failed,
        )
        .ill(Ill::OtherCard),
        row(
            "foreign DHCP server answers",
            Step::DhcpLease,
            machine,
            &["another DHCP server, 192.168.7.1", "turn"],
            Ends::Failed,
        )
        .does([Chaos::Foreign(0, true)]),
        row("pool is empty", Step::DhcpLease, machine, &["no address for", "add a dynamic range"], Ends::Failed)
            .house(|s| (s.house.pool, s.machines) = (1, 3))
            .watched(2),
        row(
            "machines' network is cut after power on",
            Step::DhcpLease,
            machine,
            &["a DHCP request from"],
            Ends::Failed,
        )
        .at(Step::DhcpLease)
        .does([Chaos::Cut(Way::Machines(0))]),
    ]
}

/// Machines whose power or firmware does what nobody asked for.
fn power_of_their_own() -> Vec<Row> {
    let machine = "the machine";
    vec![
        row(
            "goes off by itself as soon as it is switched on",
            Step::PowerOn,
            "the BMC",
            &["the BMC says off", "power supply"],
            Ends::Failed,
        )
        .ill(Ill::Dies(900)),
        row(
            "goes off by itself before it asks for an address, Redfish",
            Step::DhcpLease,
            machine,
            &["the BMC says off", "went off by itself", "power supplies"],
            Ends::Failed,
        )
        .watched(1)
        .ill(Ill::Dies(5_000)),
        row(
            "starts anew whenever the kernel is asked for",
            Step::BootConfig,
            machine,
            &["the kernel to be asked for", "by network boot once more", "started anew"],
            Ends::Failed,
        )
        .ill(Ill::Loops("boot-kernel")),
    ]
}

fn boot() -> Vec<Row> {
    let machine = "the machine";
    vec![
        row(
            "large datagrams do not reach the machine",
            Step::NextServer,
            machine,
            &["the boot loader to be fetched", "acknowledged none of the blocks of 1", "MTU"],
            Ends::Failed,
        )
        .ill(Ill::Narrow(900)),
        row(
            "loader missing",
            Step::NextServer,
            machine,
            &["asked for and is not here", "hostler image loaders"],
            Ends::Failed,
        )
        .house(|s| s.house.without = vec!["bootx64.efi", "lpxelinux.0"]),
        row("loader's bytes gone from the rack", Step::NextServer, machine, &["lacks a body"], Ends::Failed)
            .at(Step::DhcpLease)
            .does([Chaos::Lose(0, "bootx64.efi"), Chaos::Lose(0, "lpxelinux.0")]),
        row("TFTP does not pass", Step::NextServer, machine, &["the boot loader to be fetched", "TFTP"], Ends::Failed)
            .ill(Ill::Loses("bootx64.efi"))
            .ill(Ill::Loses("lpxelinux.0")),
        row("loader fetched, kernel not", Step::BootConfig, machine, &["the kernel to be asked for"], Ends::Failed)
            .ill(Ill::Loses("boot-kernel")),
        row(
            "kernel damaged on disk",
            Step::EphemeralBoot,
            machine,
            &["the ephemeral system to be fetched", "boot-kernel"],
            Ends::Failed,
        )
        .at(Step::DhcpLease)
        .does([Chaos::Damage(0, "kernel")]),
        row(
            "kernel fetched, squashfs not",
            Step::EphemeralBoot,
            machine,
            &["the ephemeral system to be fetched"],
            Ends::Failed,
        )
        .ill(Ill::Loses("/squashfs")),
        row(
            "squashfs' bytes gone from the rack",
            Step::EphemeralBoot,
            machine,
            &["squashfs was asked for and is not here"],
            Ends::Failed,
        )
        .at(Step::DhcpLease)
        .does([Chaos::Lose(0, "squashfs")]),
        row("squashfs damaged on disk", Step::Metadata, machine, &["squashfs", "damaged"], Ends::Failed)
            .at(Step::DhcpLease)
            .does([Chaos::Damage(0, "squashfs")]),
        Row {
            step: None,
            ..row(
                "no image for the architecture",
                Step::Request,
                "",
                &["no ephemeral image for architecture amd64", "hostler image build"],
                Ends::Refused,
            )
        }
        .house(|s| s.house.no_image = true),
        row(
            "image's bytes are not in the region",
            Step::RackChosen,
            "a rack of the boot VLAN",
            &["lacks a body", "is not here"],
            Ends::Failed,
        )
        .house(|s| s.house.lost = vec!["squashfs"]),
    ]
}

fn system() -> Vec<Row> {
    let machine = "the machine";
    vec![
        row(
            "metadata never called",
            Step::Metadata,
            machine,
            &["cloud-init to fetch its user-data", "5248"],
            Ends::Failed,
        )
        .ill(Ill::Loses("get_preseed")),
        row("clock off by a year", Step::Metadata, machine, &["its clock is 3153", "s behind", "NTP"], Ends::Failed)
            .ill(Ill::Clock(-31_536_000)),
        row(
            "cloud-init never begins the scripts",
            Step::Scripts,
            machine,
            &["the runner's next signal", "console"],
            Ends::Failed,
        )
        .ill(Ill::Loses("maas-scripts")),
        row("wrong OAuth key", Step::Metadata, machine, &["was refused", "key that is not its own"], Ends::Failed)
            .ill(Ill::WrongKey),
        row("script fails", Step::Stored, "", &["failed scripts: maas-support-info", "machine results"], Ends::Failed)
            .ill(Ill::ScriptFails(SCRIPT)),
        row("script runs into its time-out", Step::Stored, "", &["failed scripts: maas-support-info"], Ends::Failed)
            .ill(Ill::ScriptTimesOut(SCRIPT)),
        row("machine freezes in a script", Step::Scripts, machine, &["maas-support-info to end"], Ends::Failed)
            .ill(Ill::FreezesIn(SCRIPT)),
        row("script reboots the machine", Step::Scripts, machine, &["maas-list-modaliases to end"], Ends::Failed)
            .ill(Ill::RebootsIn("maas-list-modaliases")),
        Row { step: None, ..row("script floods its output", Step::Scripts, "", &[], Ends::Ready) }
            .ill(Ill::Floods(SCRIPT)),
        row("inventory is no JSON", Step::Stored, "", &["failed scripts: 50-maas-01-commissioning"], Ends::Failed)
            .ill(Ill::Garbles(INVENTORY)),
        row("runner fails", Step::Stored, "", &["the disk of the system is full"], Ends::Failed).ill(Ill::RunnerFails),
    ]
}

fn controllers() -> Vec<Row> {
    let s = Duration::from_secs;
    vec![
        row(
            "rack gone before it holds the ticket",
            Step::RackChosen,
            "a rack of the boot VLAN",
            &["to hold the ticket", "lost its link"],
            Ends::Failed,
        )
        .does([Chaos::KillRack(0)]),
        Row {
            step: None,
            ..row("rack gone before anybody asks", Step::Request, "", &["no connected rack serves DHCP"], Ends::Refused)
        }
        .house(|s| s.chaos = vec![(Duration::from_millis(100), Chaos::KillRack(0))]),
        row("rack gone while a machine boots", Step::EphemeralBoot, "the machine", &["lost its link"], Ends::Failed)
            .at(Step::EphemeralBoot)
            .does([Chaos::KillRack(0)]),
        row(
            "disk full on the rack",
            Step::RackChosen,
            "a rack of the boot VLAN",
            &["to hold the ticket", "disk"],
            Ends::Failed,
        )
        .does([Chaos::DiskFull(0, true)]),
        row(
            "the rack's disk is read only",
            Step::RackChosen,
            "a rack of the boot VLAN",
            &["to hold the ticket", "Read-only file system", "written again"],
            Ends::Failed,
        )
        .does([Chaos::DiskReadOnly(0)]),
        row(
            "disk full on the rack while machines boot",
            Step::DhcpLease,
            "rack aaaa33",
            &["its disk does not serve", "No space left", "leases no address"],
            Ends::Failed,
        )
        .at(Step::PowerOn)
        .does([Chaos::DiskFull(0, true)]),
        harmless(
            "disk full on the rack for a minute while scripts run",
            Step::Scripts,
            // The step begins before the system has its address, for which it asks for a minute too.
            [
                Chaos::In(s(20), Box::new(Chaos::DiskFull(0, true))),
                Chaos::In(s(80), Box::new(Chaos::DiskFull(0, false))),
            ],
        ),
        harmless("DNS rotation with an unreachable rack", Step::Metadata, [Chaos::Cut(Way::Machines(0))])
            .house(|s| (s.house.pairs, s.house.names) = (true, true)),
        harmless("link flapping", Step::PowerOn, [Chaos::Flap(0, 15)]),
        harmless(
            "region killed and back",
            Step::NextServer,
            [Chaos::KillRegion, Chaos::In(s(20), Box::new(Chaos::StartRegion))],
        ),
        harmless(
            "rack killed and back while scripts run",
            Step::Scripts,
            [Chaos::KillRack(0), Chaos::In(s(8), Box::new(Chaos::StartRack(0)))],
        ),
        row("database away for 20 s", Step::DhcpLease, "the machine", &NO_WRITES, Ends::Ready)
            .at(Step::DhcpLease)
            .does([Chaos::StoreAway(s(20))]),
        row("disk full on the region for two minutes", Step::EphemeralBoot, "the machine", &NO_WRITES, Ends::Ready)
            .at(Step::EphemeralBoot)
            .does([Chaos::StoreAway(s(120))]),
    ]
}

/// All of them.
#[must_use]
pub fn rows() -> Vec<Row> {
    [power(), bmcs(), network(), power_of_their_own(), boot(), system(), controllers(), met::rows()].concat()
}

/// Tries one.
#[must_use]
pub fn attempt(row: &Row) -> Tried {
    let mut scenario = Scenario::fair(9, 2);
    scenario.seed = SEED;
    (row.house)(&mut scenario);
    let mut yard = Yard::new(scenario);
    let mut seen = Seen::default();
    if row.at.is_none() {
        row.does.iter().for_each(|chaos| yard.later(Duration::from_millis(1_400), chaos.clone()));
    }
    let (mut done, mut look, mut rest) = (row.at.is_none(), yard.now(), None);
    while yard.happen() {
        let Some(machine) = yard.machine(row.watched) else { break };
        let step = machine.open_attempt().and_then(Attempt::current_step);
        if !done && step.is_some_and(|step| Some(step) >= row.at) {
            done = true;
            row.does.iter().for_each(|chaos| yard.inject(chaos.clone()));
        }
        let now = yard.now();
        if now < look {
            continue;
        }
        look = now + Duration::from_millis(500);
        seen.look(row, &yard, &machine, now);
        let over = machine.wait.is_none() && (machine.status != NodeStatus::New || yard.refused(row.watched).is_some());
        match rest {
            Some(until) if now >= until => break,
            None if over && done => rest = Some(now + Duration::from_secs(30)),
            _ => {}
        }
    }
    seen.judge(row, &yard)
}

/// What was seen of the explanation so far.
#[derive(Default)]
struct Seen {
    named: Option<(Duration, bool)>,
    owner: bool,
    /// When the step began that must be named.
    begun: Option<Timestamp>,
}

impl Seen {
    fn look(&mut self, row: &Row, yard: &Yard, machine: &Machine, now: Timestamp) {
        let Some(wanted) = row.step else { return };
        let Some(attempt) = &machine.attempt else { return };
        let record = attempt.steps.get(wanted as usize);
        let Some(started) = record.and_then(|record| record.started) else { return };
        self.begun = Some(started);
        let told = yard.explain(row.watched);
        let here = attempt.current_step() == Some(wanted) || attempt.ended.is_some();
        let owner = told["wait"]["owed_by"].as_str().unwrap_or_default();
        self.owner |= here && owner == row.owner && told["wait"]["remedy"].as_str().is_some_and(|r| !r.is_empty());
        let text = format!("{} {}", told["text"].as_str().unwrap_or_default(), told["foreign_dhcp"]);
        if self.named.is_none() && here && row.words.iter().all(|word| text.contains(word)) {
            let after = now.since(started);
            self.named = Some((after, after <= limit(machine, wanted, attempt) + Duration::from_secs(5)));
        }
    }

    fn judge(self, row: &Row, yard: &Yard) -> Tried {
        let mut wrong = Vec::new();
        let machine = yard.machine(row.watched);
        let status = machine.as_ref().map(|m| m.status).unwrap_or_default();
        let error = machine.map(|m| m.error).unwrap_or_default();
        let refused = yard.refused(row.watched).unwrap_or_default().to_owned();
        let said = match row.ends {
            Ends::Refused => refused.clone(),
            _ => yard.explain(row.watched)["summary"].as_str().unwrap_or_default().to_owned(),
        };
        let expected = match row.ends {
            Ends::Ready => status == NodeStatus::Ready && error.is_empty(),
            Ends::Failed => status == NodeStatus::FailedCommissioning && error.contains("Remedy: "),
            Ends::Refused => status == NodeStatus::New && row.words.iter().all(|word| refused.contains(word)),
        };
        if !expected {
            wrong.push(format!("it ends {}: {error}", status.label()));
        }
        if row.step.is_some() && self.begun.is_none() {
            wrong.push("the step never began".into());
        }
        match self.named {
            None if row.step.is_some() => wrong.push(format!("{:?} is not said", row.words)),
            Some((after, false)) => {
                wrong.push(format!("it is said {after:?} after the step's begin, which is too late"))
            }
            _ => {}
        }
        if row.step.is_some() && !row.owner.is_empty() && !self.owner {
            wrong.push(format!("that {} owes it is not said", row.owner));
        }
        let text = yard.explain(row.watched)["text"].as_str().unwrap_or_default().to_owned();
        Tried { row: row.clone(), named: self.named.map(|(after, _)| after), wrong, said, text }
    }
}

/// How long the step may take: fetching bodies is part of the third, and the scripts have their own time-outs.
fn limit(machine: &Machine, step: Step, attempt: &Attempt) -> Duration {
    match step {
        Step::RackChosen => Step::BootResources.deadline(),
        Step::Scripts => {
            let own = attempt.scripts.iter().map(|s| u64::from(s.script.timeout_s)).max().unwrap_or(0);
            step.deadline() + Duration::from_secs(own)
        }
        _ if machine.spec.power.params.is_empty() => Duration::from_secs(1_800),
        _ => step.deadline(),
    }
}

/// The corpus as a table for the documentation.
#[must_use]
pub fn table(tried: &[Tried]) -> String {
    let mut text =
        "| fault | `explain` names | owed by | by its words | after | ends |\n|---|---|---|---|--:|---|\n".to_owned();
    for Tried { row, named, wrong, .. } in tried {
        let step = row.step.map_or("–".into(), |step| format!("{} {}", step.number(), step.label()));
        let words: Vec<_> = row.words.iter().map(|word| format!("“{word}”")).collect();
        let owner = if row.owner.is_empty() { "–" } else { row.owner };
        let after = named.map_or("–".into(), |after| format!("{} s", after.as_secs()));
        let ends = match (wrong.is_empty(), row.ends) {
            (false, _) => "**not named**".to_owned(),
            (_, ends) => format!("{ends:?}"),
        };
        let words = if words.is_empty() { "–".into() } else { words.join(", ") };
        text += &format!("| {} | {step} | {owner} | {words} | {after} | {ends} |\n", row.name);
    }
    text
}
