//! Nanoseconds of one decision of a machine, and of one answer of the metadata service. Prints a table.
//!
//! Hypothesis: a decision costs microseconds (it copies the machine's state), so one arbiter decides for a site; an answer costs less.
//! Run: `cargo bench -p benches --bench step [-- SECONDS_PER_ROW]`.
#![allow(clippy::unwrap_used, reason = "a bench that cannot measure says so by panicking")]

mod common;

use std::{hint::black_box, net::IpAddr, time::Duration};

use actors::{clock, core::Core, machine::Machine};
use rack::{
    http::metadata::{Method, Progress, Request, answer},
    leases::LeaseTable,
    plan::Snapshot,
};
use schema::{
    boot::{BodyRef, BootMethod, Image, Sha256},
    id::{AttemptId, ReportSeq, ResultId, SubnetId, SystemId},
    messages::{
        machine::{Brief, BriefScript, CommissionOptions, Derived, MachineEvent, MachineSpec},
        report::{Fact, Report},
    },
    plan::{Lease, Plan},
    power::{PowerAction, PowerConfig},
    script::ScriptType,
    status::PowerState,
    time::Timestamp,
};

fn main() {
    let seconds: f64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(0.5);
    let span = Duration::from_secs_f64(seconds);
    println!("{:<46} {:>10}", "decision or answer", "ns");
    decisions(span);
    answers(span);
}

fn row(name: &str, span: Duration, call: impl FnMut()) {
    println!("{name:<46} {:>10.0}", common::each(span, call));
}

fn decisions(span: Duration) {
    let now = Timestamp::from_seconds(1_800_000_000);
    let rack = SystemId::from_draws([1; 6]);
    let id = SystemId::from_draws([2; 6]);
    let created = MachineEvent::Created { by: "admin".into(), spec: spec(id) };
    let machine = Machine::absent(id).step(&created, now).next.unwrap();
    let commission =
        MachineEvent::Commission { by: "admin".into(), options: CommissionOptions::default(), brief: brief(rack) };
    row("commission: ready to go", span, || drop(black_box(machine.step(black_box(&commission), now))));
    let fact = |fact| MachineEvent::Reported {
        rack,
        report: Report { seq: ReportSeq(1), at: now, machine: id, attempt: AttemptId(1), fact },
        derived: Derived::default(),
    };
    let lease = Fact::Leased {
        mac: "52:54:00:00:00:01".parse().unwrap(),
        ip: [10, 77, 0, 50].into(),
        subnet: SubnetId(1),
        method: Some(BootMethod::Ipxe),
        lease_s: 30,
    };
    let on = Fact::PowerDone { action: PowerAction::NetworkBoot, state: PowerState::On };
    let mut booting = machine.step(&commission, now).next.unwrap();
    for fact_seen in [Fact::TicketHeld, Fact::ResourcesReady { fetched: 0 }, Fact::OrderAccepted, on] {
        booting = booting.step(&fact(fact_seen), now).next.unwrap_or(booting);
    }
    let (leased, heartbeat) = (fact(lease), fact(Fact::Heartbeat));
    row("report that ends a step (lease)", span, || drop(black_box(booting.step(black_box(&leased), now))));
    row("report that changes nothing (heartbeat)", span, || drop(black_box(booting.step(black_box(&heartbeat), now))));
    row("view (published after each step)", span, || drop(black_box(booting.view())));
}

fn answers(span: Duration) {
    let (now, body) = (clock::now(), BodyRef { sha256: Sha256::of(b"x"), len: 1 });
    let tickets: Vec<_> = (0..10_000).map(|n| common::ticket(n, body)).collect();
    let leases = LeaseTable::default();
    let last = tickets.last().unwrap().clone();
    let ip = std::net::Ipv4Addr::new(10, 77, 0, 50);
    let expires = now + Duration::from_secs(3_600);
    leases.put(Lease { subnet: SubnetId(1), ip, mac: last.macs[0], hostname: None, granted: now, expires });
    let snapshot = Snapshot::new(Plan { tickets, ..Plan::default() });
    let progress = Progress::default();
    let signed = format!(
        "OAuth oauth_nonce=\"1\", oauth_timestamp=\"{}\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", \
         oauth_consumer_key=\"c\", oauth_token=\"{}\", oauth_signature=\"%26s\"",
        now.seconds(),
        last.boot.as_ref().unwrap().key.token_key,
    );
    let preseed = format!("/MAAS/metadata/latest/by-id/{}/", last.machine);
    let request = |path: &'static str| Request {
        method: &Method::GET,
        path,
        query: "op=get_preseed",
        from: IpAddr::V4(ip),
        proxy: None,
        host: "10.77.0.1:5248",
        authorization: Some(&signed),
        content_type: None,
        body: b"",
    };
    let item = request("/MAAS/metadata/2012-03-01/meta-data/instance-id");
    let by_id = Request { path: &preseed, ..request("") };
    row("metadata: instance-id, 10,000 tickets", span, || {
        drop(black_box(answer(&item, &snapshot, &leases, &progress, now)))
    });
    row("metadata: preseed, 10,000 tickets", span, || {
        drop(black_box(answer(&by_id, &snapshot, &leases, &progress, now)))
    });
}

fn spec(system_id: SystemId) -> MachineSpec {
    MachineSpec {
        system_id,
        hostname: "fox".into(),
        domain: "maas".into(),
        architecture: "amd64/generic".into(),
        macs: vec!["52:54:00:00:00:01".parse().unwrap()],
        power: PowerConfig { power_type: schema::power::PowerType::Ipmi, ..PowerConfig::default() },
        description: String::new(),
        zone: "default".into(),
        pool: "default".into(),
        vlan: None,
    }
}

fn brief(rack: SystemId) -> Brief {
    let body = BodyRef { sha256: Sha256::of(b"x"), len: 1 };
    let script = |n| BriefScript {
        result: ResultId(n),
        name: format!("script-{n}"),
        script_type: ScriptType::Commissioning,
        timeout_s: 60,
        may_reboot: false,
    };
    Brief {
        away: Vec::new(),
        bmc_racks: vec![rack],
        unserved: None,
        boot_racks: vec![rack],
        lame: Vec::new(),
        boot_subnets: vec![SubnetId(1)],
        image: Some(Image {
            name: "debian/bookworm/amd64/generic".into(),
            arch: "amd64".into(),
            kernel: body,
            initrd: body,
            squashfs: Some(body),
            kernel_params: String::new(),
        }),
        kernel_opts: String::new(),
        scripts: (1..=10).map(script).collect(),
        place: None,
    }
}
