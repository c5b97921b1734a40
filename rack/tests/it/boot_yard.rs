//! A small plan with one machine under orders and one without, and the rack's handles around it. Starts no server.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use actors::clock;
use rack::{
    bodies::Bodies,
    boot::desk::BootDesk,
    leases::LeaseTable,
    plan::PlanHandle,
    report::{Reporter, Seen},
};
use schema::{
    boot::{BootFile, Image},
    id::{AttemptId, SubnetId, VlanId},
    messages::report::Fact,
    net::MacAddr,
    plan::{BootPurpose, Lease, NodeKey, Plan, PlanSettings, PlanSubnet, Strangers, Ticket, TicketBoot},
    secret::Secret,
};
use tokio::sync::mpsc::UnboundedReceiver;

pub(crate) const ORDERED: &str = "52:54:00:aa:00:01";
pub(crate) const AT_REST: &str = "52:54:00:aa:00:02";
pub(crate) const PARAMS: &str = "nomodeset ro root=squash:{squashfs_url} ip=dhcp cc:{'datasource_list':['MAAS']}end_cc \
                          cloud-config-url={preseed_url} log_host={log_host} log_port={log_port}";

/// Bytes that are not all alike, so that a misplaced block is seen.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect()
}

pub(crate) struct Yard {
    pub(crate) plan: Plan,
    pub(crate) desk: BootDesk,
    pub(crate) seen: UnboundedReceiver<Seen>,
    pub(crate) dir: tempfile::TempDir,
}

impl Yard {
    /// The machine under orders holds 127.77.9.11 and 127.0.0.1, the one at rest 127.77.9.12.
    pub(crate) fn new(kernel: &[u8], http_port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::open(dir.path()).unwrap();
        let (kernel, initrd) = (bodies.put(kernel).unwrap(), bodies.put(&pattern(70_000)).unwrap());
        let (squashfs, loader) = (bodies.put(&pattern(3_000_000)).unwrap(), bodies.put(&pattern(1_468 * 3)).unwrap());
        let user_data = bodies.put(b"#!/bin/sh\nsecret things\n").unwrap();
        let ticket = |machine: &str, mac: &str, purpose| Ticket {
            machine: machine.parse().unwrap(),
            attempt: AttemptId(u32::from(purpose == BootPurpose::Commissioning) * 7),
            purpose,
            macs: vec![mac.parse().unwrap()],
            hostname: format!("host-{machine}"),
            domain: "maas".into(),
            arch: "amd64".into(),
            expires: clock::now() + Duration::from_secs(3_600),
            boot: None,
        };
        let mut ordered = ticket("abc123", ORDERED, BootPurpose::Commissioning);
        ordered.boot = Some(TicketBoot {
            image: Image {
                name: "debian/bookworm/amd64/generic".into(),
                arch: "amd64".into(),
                kernel,
                initrd,
                squashfs: Some(squashfs),
                kernel_params: PARAMS.into(),
            },
            kernel_opts: "console=ttyS0\nquiet".into(),
            key: NodeKey { consumer_key: "c".into(), token_key: "t".into(), token_secret: Secret::new("s".into()) },
            user_data,
            scripts: vec![],
            ssh_keys: vec![],
            stay_on: false,
        });
        let plan = Plan {
            settings: PlanSettings::default(),
            subnets: vec![PlanSubnet {
                id: SubnetId(1),
                vlan: VlanId(5_001),
                cidr: "127.77.9.0/24".parse().unwrap(),
                rack_address: Some(Ipv4Addr::new(127, 77, 9, 1)),
                gateway: None,
                dns_servers: vec![],
                ntp_servers: vec![],
                domain: None,
                search: vec![],
                mtu: 1_500,
                dynamic: vec![],
                excluded: vec![],
                dhcp: true,
                strangers: Strangers::Ignore,
                beside_foreign_dhcp: false,
                tftp_window: true,
                allow_dns: true,
                allow_proxy: true,
                racks: vec![],
                failover: None,
            }],
            reservations: vec![],
            tickets: vec![ordered, ticket("def456", AT_REST, BootPurpose::Local)],
            boot_files: vec![
                BootFile { name: "bootx64.efi".into(), body: loader },
                BootFile { name: "empty.efi".into(), body: bodies.put(b"").unwrap() },
            ],
            ..Plan::default()
        };
        let leases = LeaseTable::default();
        for (ip, mac) in [("127.77.9.11", ORDERED), ("127.0.0.1", ORDERED), ("127.77.9.12", AT_REST)] {
            leases.put(lease(ip, mac));
        }
        let (reporter, seen) = Reporter::channel();
        let desk = BootDesk::new(PlanHandle::new(plan.clone()), leases, bodies, reporter, http_port);
        Self { plan, desk, seen, dir }
    }

    pub(crate) fn image(&self) -> &Image {
        &self.plan.tickets[0].boot.as_ref().unwrap().image
    }

    /// Facts seen so far, without the FileAsked of names in `habits`.
    pub(crate) fn facts(&mut self) -> Vec<Fact> {
        let mut facts = vec![];
        while let Ok(seen) = self.seen.try_recv() {
            if let Seen::Fact { fact, .. } = seen {
                facts.push(fact);
            }
        }
        facts
    }

    /// Waits until a fact fits.
    pub(crate) async fn wait_for(&mut self, what: &str, fits: impl Fn(&Fact) -> bool) -> Fact {
        let found = async {
            loop {
                match self.seen.recv().await.expect("the desk is alive") {
                    Seen::Fact { fact, .. } if fits(&fact) => return fact,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.unwrap_or_else(|_| panic!("no {what} within 10 s"))
    }

    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

pub(crate) fn lease(ip: &str, mac: &str) -> Lease {
    let mac: MacAddr = mac.parse().unwrap();
    let granted = clock::now();
    let expires = granted + Duration::from_secs(600);
    Lease { subnet: SubnetId(1), ip: ip.parse().unwrap(), mac, hostname: None, granted, expires }
}
