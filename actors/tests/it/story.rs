//! Builders for machine tests: a machine, its events, and the facts of a good commissioning in order.

use actors::{
    core::{Core, Step, Verdict},
    machine::{Machine, MachineEffect},
};
use schema::{
    boot::{BodyRef, BootMethod, Image, Sha256},
    id::{AttemptId, RackId, ReportSeq, ResultId, SubnetId, SystemId},
    messages::{
        machine::{Brief, BriefScript, CommissionOptions, Derived, MachineEvent, MachineSpec},
        report::{Fact, FileKind, Report},
    },
    power::{PowerAction, PowerConfig, PowerType},
    script::{ScriptOutput, ScriptType, SignalStatus},
    status::PowerState,
    time::Timestamp,
};

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds)
}

pub(crate) fn rack(n: u8) -> RackId {
    SystemId::from_draws([n; 6])
}

pub(crate) fn spec(power_type: PowerType) -> MachineSpec {
    let params = [("power_address".to_owned(), "10.78.0.1".to_owned())];
    MachineSpec {
        system_id: "q7m3xd".parse().unwrap(),
        hostname: "fox".into(),
        domain: "maas".into(),
        architecture: "amd64/generic".into(),
        macs: vec!["52:54:00:77:00:01".parse().unwrap()],
        power: PowerConfig { power_type, params: params.into(), secret_fields: vec!["power_pass".into()] },
        description: String::new(),
        zone: "default".into(),
        pool: "default".into(),
        vlan: None,
    }
}

fn body(n: u8) -> BodyRef {
    BodyRef { sha256: Sha256([n; 32]), len: 1_000 }
}

pub(crate) fn brief() -> Brief {
    let script = |n: i64, name: &str, timeout_s| BriefScript {
        result: ResultId(n),
        name: name.into(),
        script_type: ScriptType::Commissioning,
        timeout_s,
        may_reboot: false,
    };
    Brief {
        away: Vec::new(),
        bmc_racks: vec![rack(1), rack(2)],
        unserved: None,
        boot_racks: vec![rack(1), rack(2)],
        lame: Vec::new(),
        boot_subnets: vec![SubnetId(1)],
        image: Some(Image {
            name: "debian/bookworm/amd64/generic".into(),
            arch: "amd64".into(),
            kernel: body(1),
            initrd: body(2),
            squashfs: Some(body(3)),
            kernel_params: String::new(),
        }),
        kernel_opts: String::new(),
        scripts: vec![script(11, "20-maas-01-install-lldpd", 30), script(12, "50-maas-01-commissioning", 60)],
        place: None,
    }
}

pub(crate) fn created(power_type: PowerType) -> Machine {
    let spec = spec(power_type);
    let absent = Machine::absent(spec.system_id);
    absent.step(&MachineEvent::Created { by: "admin".into(), spec }, at(0)).next.unwrap()
}

pub(crate) fn commission() -> MachineEvent {
    MachineEvent::Commission { by: "admin".into(), options: CommissionOptions::default(), brief: brief() }
}

pub(crate) fn fact(from: RackId, attempt: u32, when: i64, fact: Fact) -> MachineEvent {
    let machine = "q7m3xd".parse().unwrap();
    let report = Report { seq: ReportSeq(1), at: at(when), machine, attempt: AttemptId(attempt), fact };
    MachineEvent::Reported { rack: from, report, derived: Derived::default() }
}

pub(crate) fn leased(method: Option<BootMethod>) -> Fact {
    Fact::Leased {
        mac: "52:54:00:77:00:01".parse().unwrap(),
        ip: [10, 77, 0, 50].into(),
        subnet: SubnetId(1),
        method,
        lease_s: 30,
    }
}

pub(crate) fn fetched(kind: FileKind) -> Fact {
    Fact::FileFetched { file: format!("{kind:?}"), kind, service: "http".into(), bytes: 1_000, took_ms: 5 }
}

pub(crate) fn asked(kind: FileKind, found: bool) -> Fact {
    Fact::FileAsked { file: format!("{kind:?}"), kind, service: "http".into(), found }
}

pub(crate) fn script_ended(result: i64, exit_status: i32) -> Fact {
    Fact::ScriptEnded {
        result: ResultId(result),
        name: String::new(),
        status: SignalStatus::Working,
        exit_status,
        runtime_ms: 900,
        output: Box::new(ScriptOutput::default()),
    }
}

pub(crate) fn power_done(action: PowerAction, state: PowerState) -> Fact {
    Fact::PowerDone { action, state }
}

/// The facts of a good commissioning by UEFI PXE, in order, up to the final signal.
pub(crate) fn good_facts() -> Vec<Fact> {
    vec![
        Fact::TicketHeld,
        Fact::ResourcesReady { fetched: 0 },
        Fact::OrderAccepted,
        Fact::PowerTry { action: PowerAction::NetworkBoot, try_number: 1 },
        power_done(PowerAction::NetworkBoot, PowerState::On),
        leased(Some(BootMethod::UefiAmd64Tftp)),
        fetched(FileKind::Loader),
        asked(FileKind::Config, true),
        asked(FileKind::Kernel, true),
        fetched(FileKind::Kernel),
        fetched(FileKind::Initrd),
        leased(None),
        fetched(FileKind::Squashfs),
        Fact::PreseedFetched { from: [10, 77, 0, 50].into() },
        Fact::UserDataFetched,
        Fact::ScriptsFetched { scripts: 2 },
        Fact::ScriptStarted { result: ResultId(11), name: String::new(), status: SignalStatus::Working },
        script_ended(11, 0),
        Fact::ScriptStarted { result: ResultId(12), name: String::new(), status: SignalStatus::Working },
        script_ended(12, 0),
        Fact::Finished { status: SignalStatus::Ok, error: String::new() },
    ]
}

/// Steps the machine through events; panics on a refusal. Gives the end state and all effects.
pub(crate) fn run(
    machine: Machine,
    events: impl IntoIterator<Item = MachineEvent>,
    start: i64,
) -> (Machine, Vec<MachineEffect>) {
    let mut state = machine;
    let mut effects = Vec::new();
    for (n, event) in events.into_iter().enumerate() {
        let step: Step<Machine> = state.step(&event, at(start + i64::try_from(n).unwrap()));
        assert!(!matches!(step.verdict, Verdict::Refused { .. }), "{event:?}: {:?}", step.verdict);
        effects.extend(step.effects);
        state = step.next.unwrap_or(state);
    }
    (state, effects)
}

/// A machine under commissioning after the first `n` good facts.
pub(crate) fn after(n: usize) -> (Machine, Vec<MachineEffect>) {
    let facts = good_facts().into_iter().take(n).map(|f| fact(rack(1), 1, 10, f));
    run(created(PowerType::Ipmi), std::iter::once(commission()).chain(facts), 1)
}
