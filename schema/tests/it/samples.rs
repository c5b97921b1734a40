//! One value or more of every wire message; the golden frames are these, frozen.

use std::{collections::BTreeMap, net::Ipv4Addr};

use schema::{
    boot::{BodyRef, BootFile, BootMethod, Image, Sha256},
    dns::{Generated, Mx, RecordData, RecordKey, RecordSet, Srv, Sshfp, Zone},
    id::{AttemptId, Generation, ReportSeq, ResultId, SubnetId, SystemId, VlanId},
    logs::{LogBatch, LogLine, LogSource},
    messages::{
        enrol::{EnrolAnswer, EnrolAsk},
        link::{
            BulkAnswer, BulkHeader, ClockReport, ForeignDhcp, FromRack, Hello, InspectAsk, Order, PlanUpdate,
            RackInterface, Rows, Stray, SweepTarget, SweepUpdate, ToRack,
        },
        report::{Fact, FileKind, Report},
    },
    net::{IpRange, MacAddr},
    plan::{
        BootPurpose, Failover, Lease, Listening, NodeKey, PlanSettings, PlanSubnet, Reservation, Strangers, SubnetRack,
        Ticket, TicketBoot,
    },
    power::{PowerAccess, PowerAction, PowerType},
    script::{Content, ScriptOutput, ScriptRef, ScriptType, SignalStatus},
    secret::Secret,
    service::{Health, ServiceError, ServiceStatus},
    status::PowerState,
    time::Timestamp,
};

pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);
pub(crate) const NOW: Timestamp = Timestamp(1_795_366_923_456_789);

pub(crate) fn machine() -> SystemId {
    "4y3h7n".parse().unwrap()
}

fn rack() -> SystemId {
    "rackab".parse().unwrap()
}

pub(crate) fn body(n: u8, len: u64) -> BodyRef {
    BodyRef { sha256: Sha256([n; 32]), len }
}

fn image() -> Image {
    Image {
        name: "debian/bookworm/amd64/generic".into(),
        arch: "amd64".into(),
        kernel: body(1, 8_000_000),
        initrd: body(2, 40_000_000),
        squashfs: Some(body(3, 300_000_000)),
        kernel_params: "boot=live fetch={squashfs_url} ip=dhcp".into(),
    }
}

pub(crate) fn ticket() -> Ticket {
    Ticket {
        machine: machine(),
        attempt: AttemptId(3),
        purpose: BootPurpose::Commissioning,
        macs: vec![MAC],
        hostname: "fox".into(),
        domain: "maas".into(),
        arch: "amd64".into(),
        expires: NOW,
        boot: Some(TicketBoot {
            image: image(),
            kernel_opts: "console=ttyS0".into(),
            key: NodeKey { consumer_key: "c".into(), token_key: "t".into(), token_secret: Secret::new("s".into()) },
            user_data: body(4, 20_000),
            scripts: vec![ScriptRef {
                name: "20-lldp".into(),
                script_type: ScriptType::Commissioning,
                script_result_id: ResultId(41),
                script_version_id: 7,
                timeout_seconds: 60,
                parallel: 1,
                hardware_type: 4,
                may_reboot: false,
                packages: "{}".into(),
                body: body(5, 900),
            }],
            ssh_keys: vec!["ssh-ed25519 AAAA me".into()],
            stay_on: true,
        }),
    }
}

fn subnet() -> PlanSubnet {
    PlanSubnet {
        id: SubnetId(1),
        vlan: VlanId(5001),
        cidr: "10.77.0.0/24".parse().unwrap(),
        rack_address: Some(Ipv4Addr::new(10, 77, 0, 2)),
        gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
        dns_servers: vec!["10.77.0.2".parse().unwrap(), "fd00::53".parse().unwrap()],
        ntp_servers: vec![],
        domain: Some("maas".into()),
        search: vec!["maas".into()],
        mtu: 1_500,
        dynamic: vec![IpRange { start: "10.77.0.100".parse().unwrap(), end: "10.77.0.199".parse().unwrap() }],
        excluded: vec![],
        dhcp: true,
        strangers: Strangers::Ignore,
        beside_foreign_dhcp: false,
        tftp_window: true,
        allow_dns: true,
        allow_proxy: false,
        racks: vec![SubnetRack { rack: rack(), address: Ipv4Addr::new(10, 77, 0, 2) }],
        failover: Some(Failover {
            peer: machine(),
            peer_addresses: vec![Ipv4Addr::new(10, 77, 0, 3)],
            secondary: true,
            others: vec![IpRange { start: "10.77.0.200".parse().unwrap(), end: "10.77.0.249".parse().unwrap() }],
        }),
    }
}

pub(crate) fn plan() -> PlanUpdate {
    PlanUpdate {
        base: Some(Generation(4)),
        generation: Generation(5),
        settings: Some(PlanSettings::default()),
        subnets: Some(vec![subnet()]),
        boot_files: Some(vec![BootFile { name: "bootx64.efi".into(), body: body(6, 900_000) }]),
        reservations: Rows {
            replace: true,
            put: vec![Reservation {
                subnet: SubnetId(1),
                mac: MAC,
                ip: Ipv4Addr::new(10, 77, 0, 50),
                hostname: Some("fox".into()),
            }],
            remove: vec![],
        },
        tickets: Rows { replace: false, put: vec![ticket()], remove: vec![rack()] },
        zones: Rows { replace: true, put: vec![zone()], remove: vec!["old.maas".parse().unwrap()] },
        records: Rows {
            replace: false,
            put: records(),
            remove: vec![RecordKey { name: "gone.maas".parse().unwrap(), rtype: 28 }],
        },
    }
}

fn zone() -> Zone {
    let range = IpRange { start: "10.77.0.100".parse().unwrap(), end: "10.77.0.199".parse().unwrap() };
    Zone {
        name: "maas".parse().unwrap(),
        serial: 70_000,
        ttl: 30,
        forward: vec!["10.77.0.53:53".parse().unwrap()],
        generated: vec![Generated { range, domain: "maas".parse().unwrap() }],
    }
}

/// One set of every type.
fn records() -> Vec<RecordSet> {
    let fox = || "fox.maas".parse().unwrap();
    let sshfp = Sshfp { algorithm: 4, kind: 2, fingerprint: "00ff".into() };
    let sets = vec![
        RecordData::A(vec![Ipv4Addr::new(10, 77, 0, 50)]),
        RecordData::Ns(vec![fox()]),
        RecordData::Cname(fox()),
        RecordData::Ptr(vec![fox()]),
        RecordData::Mx(vec![Mx { preference: 10, exchange: fox() }]),
        RecordData::Txt(vec!["v=1".into()]),
        RecordData::Aaaa(vec!["fd00::50".parse().unwrap()]),
        RecordData::Srv(vec![Srv { priority: 1, weight: 2, port: 5_060, target: fox() }]),
        RecordData::Sshfp(vec![sshfp]),
    ];
    sets.into_iter().map(|data| RecordSet { name: fox(), ttl: 30, data }).collect()
}

pub(crate) fn to_rack() -> Vec<ToRack> {
    vec![
        ToRack::Welcome { rack: rack(), region: machine(), last_report: ReportSeq(300), now: NOW },
        ToRack::Refused { why: "revoked".into(), remedy: "enrol again".into() },
        ToRack::Plan(Box::new(plan())),
        ToRack::Order(Order {
            machine: machine(),
            attempt: AttemptId(3),
            hostname: "fox".into(),
            action: PowerAction::NetworkBoot,
            access: PowerAccess {
                power_type: PowerType::Ipmi,
                params: BTreeMap::from([("power_address".into(), "10.77.1.9".into())]),
                secrets: BTreeMap::from([("power_pass".into(), Secret::new("hunter2".into()))]),
            },
            deadline: NOW,
        }),
        ToRack::CancelOrder { machine: machine(), attempt: AttemptId(3) },
        ToRack::Ack { through: ReportSeq(1 << 40) },
        ToRack::SendHello,
        ToRack::Order(Order {
            machine: machine(),
            attempt: AttemptId(4),
            hostname: "hare".into(),
            action: PowerAction::Off,
            access: PowerAccess {
                power_type: PowerType::Redfish,
                params: BTreeMap::from([("power_address".into(), "https://10.77.1.10".into())]),
                secrets: BTreeMap::from([("power_pass".into(), Secret::new("hunter2".into()))]),
            },
            deadline: NOW,
        }),
        ToRack::LogsKept { run: 77, number: 4 },
        ToRack::Sweep(Box::new(SweepUpdate {
            replace: true,
            put: vec![SweepTarget {
                machine: machine(),
                access: PowerAccess {
                    power_type: PowerType::Ipmi,
                    params: BTreeMap::from([("power_address".into(), "10.77.1.9".into())]),
                    secrets: BTreeMap::from([("power_pass".into(), Secret::new("hunter2".into()))]),
                },
            }],
            remove: vec![rack()],
        })),
        ToRack::Leases(vec![lease()]),
        ToRack::LeasesThrough { rack: rack(), through: NOW },
        ToRack::Inspect { number: 7, ask: InspectAsk::Actor { kind: "errand".into(), id: "aaaaaa".into() } },
    ]
}

pub(crate) fn from_rack() -> Vec<FromRack> {
    vec![
        FromRack::Hello(Hello {
            version: "0.1.0".into(),
            hostname: "rack-1".into(),
            plan: Generation(5),
            interfaces: vec![RackInterface {
                name: "eth0".into(),
                mac: Some(MAC),
                addresses: vec![("10.77.0.2".parse().unwrap(), "10.77.0.0/24".parse().unwrap())],
            }],
            listening: vec![Listening { service: "http".into(), address: "10.77.0.2:5248".parse().unwrap() }],
            orders: vec![(machine(), AttemptId(3))],
            now: NOW,
        }),
        FromRack::PlanInForce { generation: Generation(5) },
        FromRack::Report(report(Fact::Heartbeat)),
        FromRack::Leases(vec![lease()]),
        FromRack::Goodbye,
        FromRack::Services(vec![ServiceStatus {
            service: "dns".into(),
            health: Health::Degraded,
            since: NOW,
            addresses: vec!["10.77.0.2:53".parse().unwrap()],
            counters: vec![("answered".into(), 70_000)],
            last_error: Some(ServiceError {
                at: NOW,
                why: "no upstream answers".into(),
                remedy: "set upstream_dns".into(),
            }),
            restarts: 1,
        }]),
        FromRack::Logs(LogBatch {
            run: 77,
            number: 4,
            lines: vec![
                LogLine::heard(
                    b"<86>Nov 22 16:02:03 fox sshd[812]: hello",
                    LogSource::Machine { machine: machine(), attempt: AttemptId(3) },
                    "fox",
                    NOW,
                ),
                LogLine::lost(9, "too many", LogSource::Stranger("10.77.0.9".parse().unwrap()), "10.77.0.9", NOW),
            ],
        }),
        FromRack::Clock(ClockReport { now: NOW, synchronised: true }),
        FromRack::LeasesThrough { through: NOW },
        FromRack::ForeignDhcp(vec![ForeignDhcp {
            subnet: SubnetId(1),
            server: Ipv4Addr::new(10, 77, 0, 9),
            mac: Some(MAC),
            evidence: "its answer to a client was heard".into(),
            proven: true,
            first: NOW,
            last: NOW,
        }]),
        FromRack::Inspected { number: 7, json: "{}".into(), left_off: 0 },
        FromRack::Strays(vec![Stray {
            mac: MAC,
            first: NOW,
            at: NOW,
            subnet: Some(SubnetId(1)),
            relay: Some(Ipv4Addr::new(10, 9, 0, 1)),
            interface: "eth1".into(),
            why: "this rack has no order to boot it".into(),
        }]),
    ]
}

fn lease() -> Lease {
    Lease {
        subnet: SubnetId(1),
        ip: Ipv4Addr::new(10, 77, 0, 100),
        mac: MAC,
        hostname: None,
        granted: NOW,
        expires: Timestamp(NOW.0 + 600_000_000),
    }
}

pub(crate) fn report(fact: Fact) -> Report {
    Report { seq: ReportSeq(9), at: NOW, machine: machine(), attempt: AttemptId(3), fact }
}

fn text(s: &str) -> String {
    s.into()
}

pub(crate) fn facts() -> Vec<Fact> {
    let ip = Ipv4Addr::new(10, 77, 0, 100);
    let subnet = SubnetId(1);
    let (file, kind, service) = (text("grub/grub.cfg"), FileKind::Config, text("tftp"));
    vec![
        Fact::OrderAccepted,
        Fact::OrderRefused { why: text("ipmitool is missing"), remedy: text("apt install ipmitool") },
        Fact::TicketHeld,
        Fact::ResourcesReady { fetched: 348_000_000 },
        Fact::ResourcesMissing { body: body(3, 300_000_000), why: text("the region has it not") },
        Fact::PowerTry { action: PowerAction::NetworkBoot, try_number: 1 },
        Fact::PowerDone { action: PowerAction::Off, state: PowerState::Off },
        Fact::PowerFailed { action: PowerAction::On, why: text("no answer"), remedy: text("check the cable") },
        Fact::PowerByHand { action: PowerAction::On },
        Fact::PowerSeen { state: PowerState::On },
        Fact::Offered { mac: MAC, ip, subnet, method: Some(BootMethod::UefiAmd64Tftp) },
        Fact::Leased { mac: MAC, ip, subnet, method: None, lease_s: 600 },
        Fact::NoAddress { mac: MAC, subnet, why: text("the range is full"), remedy: text("widen it") },
        Fact::FileAsked { file: file.clone(), kind, service: service.clone(), found: true },
        Fact::FileFetched { file: file.clone(), kind, service: service.clone(), bytes: 512, took_ms: 3 },
        Fact::FileAborted { file, kind, service, why: text("ERROR 8") },
        Fact::PreseedFetched { from: ip.into() },
        Fact::PreseedRefused { from: ip.into(), why: text("no lease") },
        Fact::MetadataFetched { item: text("instance-id") },
        Fact::UserDataFetched,
        Fact::AuthRefused { why: text("clock"), skew_s: Some(-400) },
        Fact::ScriptsFetched { scripts: 10 },
        Fact::CloudInit {
            name: text("modules-final"),
            event_type: text("finish"),
            result: Some(text("SUCCESS")),
            description: text("running"),
        },
        Fact::ScriptStarted { result: ResultId(41), name: text("20-lldp"), status: SignalStatus::Working },
        Fact::ScriptEnded {
            result: ResultId(41),
            name: text("20-lldp"),
            status: SignalStatus::Ok,
            exit_status: -1,
            runtime_ms: 1_500,
            output: Box::new(ScriptOutput {
                combined: Some(Content { body: body(8, 3), inline: Some(b"ok\n".to_vec()) }),
                stdout: Some(Content { body: body(9, 900_000), inline: None }),
                stderr: None,
                result: None,
            }),
        },
        Fact::Heartbeat,
        Fact::Finished { status: SignalStatus::Failed, error: text("20-lldp failed") },
        Fact::BmcUnreachable { action: PowerAction::Query, why: text("no answer"), remedy: text("check the route") },
        Fact::PowerTryFailed { action: PowerAction::NetworkBoot, try_number: 6, why: text("no answer") },
        Fact::SignalRefused { why: text("status \"FINE\" is none of OK, FAILED, WORKING") },
        Fact::TwoHosts { mac: MAC, uuids: [[1; 16], [2; 16]] },
    ]
}

pub(crate) fn bulk_headers() -> Vec<BulkHeader> {
    vec![BulkHeader::Fetch { body: body(3, 300_000_000), offset: 1 << 20 }, BulkHeader::Store { body: body(9, 70_000) }]
}

pub(crate) fn bulk_answers() -> Vec<BulkAnswer> {
    vec![
        BulkAnswer::Ready { offset: 1 << 20, len: 7 },
        BulkAnswer::Held,
        BulkAnswer::Refused { why: text("not here"), remedy: text("add the image") },
    ]
}

pub(crate) fn enrol_asks() -> Vec<EnrolAsk> {
    vec![EnrolAsk::Enrol {
        token: Secret::new("00".repeat(24)),
        request: vec![0x30, 0x82],
        hostname: text("rack-1"),
        version: text("0.1.0"),
    }]
}

pub(crate) fn enrol_answers() -> Vec<EnrolAnswer> {
    vec![
        EnrolAnswer::Enrolled { rack: rack(), certificate: vec![0x30, 1], ca: vec![0x30, 2] },
        EnrolAnswer::Refused { why: text("used"), remedy: text("take a new one") },
    ]
}
