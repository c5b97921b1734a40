//! What the packet benches share: a rack's handles around a plan of many machines, CPU seconds of threads by name, one line per number.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each bench uses its part, and a bench that cannot measure says so by panicking"
)]

use std::{
    fs,
    time::{Duration, Instant},
};

use actors::clock;
use rack::{bodies::Bodies, boot::desk::BootDesk, leases::LeaseTable, plan::PlanHandle, report::Reporter};
use schema::{
    boot::{BodyRef, BootFile, Image},
    id::{AttemptId, SubnetId},
    net::MacAddr,
    plan::{BootPurpose, Lease, NodeKey, Plan, Ticket, TicketBoot},
    secret::Secret,
};

/// Bytes that do not compress.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| step()).collect()
}

/// A plan of `machines` under orders; files by name. Reports are read and dropped.
pub(crate) fn desk(machines: u32, files: &[(&str, usize)]) -> (BootDesk, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::open(dir.path()).unwrap();
    let boot_files: Vec<BootFile> = files
        .iter()
        .map(|(name, len)| BootFile { name: (*name).into(), body: bodies.put(&noise(*len)).unwrap() })
        .collect();
    let body = boot_files.first().map_or_else(|| bodies.put(b"kernel").unwrap(), |f| f.body);
    let leases = LeaseTable::default();
    let tickets = (0..machines).map(|i| ticket(i, body)).collect::<Vec<_>>();
    for (i, ticket) in tickets.iter().enumerate() {
        leases.put(Lease {
            subnet: SubnetId(1),
            ip: std::net::Ipv4Addr::from(0x7f4d_0000 + i as u32),
            mac: ticket.macs[0],
            hostname: None,
            granted: clock::now(),
            expires: clock::now() + Duration::from_secs(3_600),
        });
    }
    let (reporter, mut seen) = Reporter::channel();
    std::thread::spawn(move || while seen.blocking_recv().is_some() {});
    let plan = PlanHandle::new(Plan { tickets, boot_files, ..Plan::default() });
    (BootDesk::new(plan, leases, bodies, reporter, 5_248), dir)
}

pub(crate) fn ticket(number: u32, body: BodyRef) -> Ticket {
    let [_, b, c, d] = number.to_be_bytes();
    Ticket {
        machine: schema::id::SystemId::from_draws([b % 24, c / 24, c % 24, d / 24, d % 24, 0]),
        attempt: AttemptId(1),
        purpose: BootPurpose::Commissioning,
        macs: vec![MacAddr([0x52, 0x54, 0, b, c, d])],
        hostname: format!("host-{number}"),
        domain: "maas".into(),
        arch: "amd64".into(),
        expires: clock::now() + Duration::from_secs(3_600),
        boot: Some(TicketBoot {
            image: Image {
                name: "debian/bookworm/amd64/generic".into(),
                arch: "amd64".into(),
                kernel: body,
                initrd: body,
                squashfs: Some(body),
                kernel_params: "nomodeset ro root=squash:{squashfs_url} ip=dhcp ip6=off overlayroot=tmpfs \
                                cc:{'datasource_list':['MAAS']}end_cc cloud-config-url={preseed_url} log_host={log_host} log_port={log_port}"
                    .into(),
            },
            kernel_opts: "console=ttyS0".into(),
            key: NodeKey { consumer_key: "c".into(), token_key: "t".into(), token_secret: Secret::new("s".into()) },
            user_data: body,
            scripts: vec![],
            ssh_keys: vec![],
            stay_on: false,
        }),
    }
}

/// CPU time of this process's threads whose name begins with `prefix`.
pub(crate) fn cpu_of(prefix: &str) -> Duration {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let text = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if text("comm").starts_with(prefix) {
            let on_cpu = text("schedstat").split(' ').next().and_then(|n| n.parse::<u64>().ok());
            nanoseconds += on_cpu.unwrap_or(0);
        }
    }
    Duration::from_nanos(nanoseconds)
}

/// Nanoseconds of one call, over a run of about `Duration`.
pub(crate) fn each(time: Duration, mut call: impl FnMut()) -> f64 {
    let (start, mut calls): (Instant, u64) = (clock::tick(), 0);
    while start.elapsed() < time {
        for _ in 0..64 {
            call();
        }
        calls += 64;
    }
    start.elapsed().as_nanos() as f64 / calls as f64
}
