//! Cases of the read model: what goes in comes out, and what is asked for is found.

use actors::machine::Machine;
use region::store::{Change, Store, ids, queries};
use schema::{
    boot::{BodyRef, BootMethod, Sha256},
    hardware::{HardwareDisk, HardwareInterface, HardwareReport, NumaNode, SystemInfo},
    id::{AttemptId, ReportSeq, ResultId, SubnetId, SystemId},
    lldp::LldpNeighbour,
    messages::machine::BriefScript,
    plan::Lease,
    projection::{EventLine, Level, Projection},
    script::{Content, ResultStatus, ScriptOutput, ScriptType},
    status::{NodeStatus, PowerState},
    time::Timestamp,
    wait::{OwedBy, Wait},
};

use super::{
    Empty, step,
    writing::{line, mac, machine},
};

fn id(text: &str) -> SystemId {
    text.parse().unwrap()
}

async fn create(store: &Store, machine: Machine) {
    let id = machine.spec.system_id.to_string();
    store.commit(step(&id, 0, vec![Change::Machine(Box::new(machine))])).await.unwrap();
}

async fn project(store: &Store, machine: SystemId, projection: Projection) {
    store.put(vec![Change::Of(machine, projection)]).await.unwrap();
}

async fn record(store: &Store, machine: SystemId) -> queries::MachineRecord {
    store.read(move |db| queries::machine_record(db, machine)).await.unwrap().unwrap()
}

fn report() -> HardwareReport {
    let interface = |name: &str, mac: schema::net::MacAddr| HardwareInterface {
        name: name.into(),
        mac,
        vendor: "Vendor".into(),
        product: "Product".into(),
        firmware_version: "1.2".into(),
        driver: "virtio_net".into(),
        link_connected: true,
        link_speed: 1_000,
        interface_speed: 10_000,
        sriov_max_vf: 8,
        numa_node: 1,
        pci_address: "0000:01:00.0".into(),
        addresses: vec!["10.77.0.9/24".into(), "fe80::1/64".into()],
    };
    let disk = |name: &str, serial: &str| HardwareDisk {
        name: name.into(),
        model: "Model".into(),
        serial: serial.into(),
        id_path: format!("/dev/disk/by-id/{serial}"),
        size: u64::MAX / 4,
        block_size: 4_096,
        rotational: true,
        removable: false,
        firmware_version: "F".into(),
        numa_node: 0,
        kind: "nvme".into(),
    };
    HardwareReport {
        architecture: "amd64".into(),
        kernel: "6.1.0".into(),
        cpu_count: 8,
        cpu_model: "QEMU Virtual CPU".into(),
        cpu_speed: 2_400,
        memory: 32_768,
        numa_nodes: vec![
            NumaNode { index: 0, cores: vec![0, 1], memory: 16_384 },
            NumaNode { index: 1, cores: vec![2, 3], memory: 16_384 },
        ],
        interfaces: vec![interface("ens3", mac("aaaaaa")), interface("ens4", mac("cccccc"))],
        // The last two name the same path, as the two ways to one multipath disk do.
        disks: vec![disk("vda", "s1"), disk("vdb", "s2"), disk("vdc", "s2")],
        system: SystemInfo {
            uuid: "u".into(),
            vendor: "QEMU".into(),
            kind: "virtual-machine".into(),
            ..SystemInfo::default()
        },
        boot_mac: Some(mac("aaaaaa")),
    }
}

pub(crate) async fn hardware_is_replaced_and_what_stays_keeps_its_id(empty: Empty<'_>) {
    let store = empty.open();
    create(&store, machine("bbbbbb")).await;
    create(&store, machine("aaaaaa")).await;
    let first = record(&store, id("aaaaaa")).await.interfaces[0].id;
    let report = report();
    project(&store, id("aaaaaa"), Projection::Hardware(report.clone().into())).await;
    let neighbour = LldpNeighbour {
        interface: "ens3".into(),
        via: "LLDP".into(),
        chassis_id: "52:54:00:00:00:01".into(),
        chassis_name: "switch-1".into(),
        chassis_description: "a switch".into(),
        management_addresses: vec!["10.77.0.250".into()],
        port_id: "swp7".into(),
        port_description: "rack 4".into(),
        vlan_ids: vec![1, 4_094],
    };
    project(&store, id("aaaaaa"), Projection::Neighbours(vec![neighbour.clone(), neighbour.clone()].into())).await;

    let found = record(&store, id("aaaaaa")).await;
    assert_eq!(
        found.interfaces.iter().map(|i| &i.hardware).collect::<Vec<_>>(),
        report.interfaces.iter().collect::<Vec<_>>()
    );
    assert_eq!(found.disks.iter().map(|d| &d.hardware).collect::<Vec<_>>(), report.disks.iter().collect::<Vec<_>>());
    assert_eq!(found.numa_nodes, report.numa_nodes);
    assert_eq!(found.neighbours, [neighbour.clone(), neighbour]);
    let hardware = found.hardware.clone().unwrap();
    assert_eq!((hardware.cpu_count, hardware.cpu_speed, hardware.memory), (8, 2_400, 32_768));
    assert_eq!(
        (hardware.cpu_model, hardware.kernel, hardware.architecture),
        (report.cpu_model.clone(), report.kernel.clone(), "amd64".into())
    );
    assert_eq!((hardware.system, hardware.boot_mac), (report.system.clone(), report.boot_mac));
    assert_eq!(found.interfaces[0].id, first);

    // Again with a disk gone, a new one first, and the interfaces swapped.
    let mut next = report.clone();
    next.interfaces.reverse();
    let mut new = next.disks[0].clone();
    (new.name, new.id_path) = ("vdz".into(), "/dev/vdz".into());
    next.disks = vec![new, report.disks[0].clone()];
    project(&store, id("aaaaaa"), Projection::Hardware(next.into())).await;
    project(&store, id("aaaaaa"), Projection::Neighbours(vec![].into())).await;
    let again = record(&store, id("aaaaaa")).await;
    let ids = |record: &queries::MachineRecord| record.interfaces.iter().map(|i| i.id).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&found).into_iter().rev().collect::<Vec<_>>());
    assert_eq!(again.disks[1].id, found.disks[0].id);
    assert!(found.disks.iter().all(|disk| disk.id != again.disks[0].id));
    assert_eq!(again.neighbours, []);
    assert_eq!(record(&store, id("bbbbbb")).await.interfaces.len(), 1);
}

fn brief(result: i64, script_type: ScriptType) -> BriefScript {
    BriefScript {
        result: ResultId(result),
        name: format!("script-{result}"),
        script_type,
        timeout_s: 300,
        may_reboot: false,
    }
}

pub(crate) async fn script_results_move_from_pending_to_their_end(empty: Empty<'_>) {
    let store = empty.open();
    create(&store, machine("aaaaaa")).await;
    let first = store.allot(ids::RESULT, 3).await.unwrap();
    let scripts = vec![
        brief(first, ScriptType::Commissioning),
        brief(first + 1, ScriptType::Commissioning),
        brief(first + 2, ScriptType::Testing),
    ];
    let at = Timestamp::from_seconds(1_800_000_000);
    project(&store, id("aaaaaa"), Projection::ScriptsChosen { attempt: AttemptId(1), at, scripts }).await;
    let sets = store.read(|db| queries::script_sets(db, id("aaaaaa"))).await.unwrap();
    assert_eq!(
        sets.iter().map(|s| (s.script_type, s.results.len())).collect::<Vec<_>>(),
        [(ScriptType::Commissioning, 2), (ScriptType::Testing, 1)]
    );
    assert_eq!(sets[0].status(), Some(ResultStatus::Pending));

    let inline = Content { body: BodyRef { sha256: Sha256::of(b"\0\xff"), len: 2 }, inline: Some(b"\0\xff".to_vec()) };
    let elsewhere = Content { body: BodyRef { sha256: Sha256::of(b"large"), len: 5 }, inline: None };
    let moved = |result: i64, status, seconds: i64, output: Option<bool>| Projection::ScriptResult {
        result: ResultId(result),
        status,
        at: Timestamp::from_seconds(1_800_000_000 + seconds),
        exit_status: output.is_some_and(|ended| ended).then_some(0),
        runtime_ms: output.is_some_and(|ended| ended).then_some(2_000),
        output: output.filter(|ended| *ended).map(|_| {
            Box::new(ScriptOutput {
                combined: Some(inline.clone()),
                stdout: Some(elsewhere.clone()),
                stderr: None,
                result: None,
            })
        }),
    };
    project(&store, id("aaaaaa"), moved(first, ResultStatus::Running, 5, None)).await;
    project(&store, id("aaaaaa"), moved(first, ResultStatus::Passed, 8, Some(true))).await;
    // Its start was lost: the end less the run time stands for it.
    project(&store, id("aaaaaa"), moved(first + 1, ResultStatus::Passed, 20, Some(true))).await;
    // Nobody knows this one; it stops nothing.
    project(&store, id("aaaaaa"), moved(999, ResultStatus::Passed, 20, Some(true))).await;

    let record = record(&store, id("aaaaaa")).await;
    let results = &record.script_sets[0].results;
    assert_eq!(record.script_sets[0].status(), Some(ResultStatus::Passed));
    assert_eq!(results[0].started, Some(at + std::time::Duration::from_secs(5)));
    assert_eq!(results[0].ended, Some(at + std::time::Duration::from_secs(8)));
    assert_eq!((results[0].exit_status, results[0].runtime_ms), (Some(0), Some(2_000)));
    assert_eq!(results[1].started, Some(at + std::time::Duration::from_secs(18)));
    let output = store.read(move |db| queries::script_output(db, ResultId(first))).await.unwrap();
    assert_eq!(
        output,
        ScriptOutput { combined: Some(inline), stdout: Some(elsewhere.clone()), stderr: None, result: None }
    );
    assert_eq!(store.read(queries::bodies_of_outputs).await.unwrap(), [elsewhere.body.sha256]);

    // Old attempts make room.
    for attempt in 2..=14 {
        let result = store.allot(ids::RESULT, 1).await.unwrap();
        let scripts = vec![brief(result, ScriptType::Commissioning)];
        project(&store, id("aaaaaa"), Projection::ScriptsChosen { attempt: AttemptId(attempt), at, scripts }).await;
    }
    let sets = store.read(|db| queries::script_sets(db, id("aaaaaa"))).await.unwrap();
    assert_eq!(sets.iter().map(|s| s.attempt.0).collect::<Vec<_>>(), (5..=14).rev().collect::<Vec<_>>());
    let (first, other) = (sets[0].id, sets[0].clone());
    assert_eq!(store.read(move |db| queries::script_set(db, id("aaaaaa"), first)).await.unwrap(), Some(other));
    assert_eq!(store.read(move |db| queries::script_set(db, id("bbbbbb"), first)).await.unwrap(), None);
}

pub(crate) async fn machines_are_found_by_each_filter(empty: Empty<'_>) {
    use queries::MachineFilter;
    let store = empty.open();
    let mut a = machine("aaaaaa");
    a.spec.zone = "z1".into();
    a.status = NodeStatus::Commissioning;
    a.power_state = PowerState::On;
    a.boot_method = Some(BootMethod::UefiAmd64Tftp);
    a.spec.power.power_type = schema::power::PowerType::Ipmi;
    a.spec.power.params.insert("power_address".into(), "198.51.100.7".into());
    a.wait = Some(Wait {
        what: "a DHCP request".into(),
        owed_by: OwedBy::Machine,
        since: Timestamp(1),
        deadline: Timestamp(2),
        evidence: vec!["powered on".into()],
        on_timeout: "the attempt fails".into(),
        remedy: "look at its console".into(),
    });
    let mut b = machine("bbbbbb");
    b.spec.pool = "p1".into();
    b.spec.domain = "lab".into();
    create(&store, b).await;
    create(&store, a.clone()).await;

    let found = |filter: MachineFilter| {
        let store = store.clone();
        async move {
            let machines = store.read(move |db| queries::machines(db, &filter)).await.unwrap();
            machines.iter().map(|m| m.system_id.to_string()).collect::<Vec<_>>()
        }
    };
    let all = MachineFilter::default();
    assert_eq!(found(all.clone()).await, ["aaaaaa", "bbbbbb"]);
    assert_eq!(
        found(MachineFilter { hostnames: vec!["host-bbbbbb".into(), "x".into()], ..all.clone() }).await,
        ["bbbbbb"]
    );
    assert_eq!(found(MachineFilter { macs: vec![mac("aaaaaa")], ..all.clone() }).await, ["aaaaaa"]);
    assert_eq!(found(MachineFilter { statuses: vec![NodeStatus::Commissioning], ..all.clone() }).await, ["aaaaaa"]);
    assert_eq!(found(MachineFilter { system_ids: vec![id("bbbbbb")], ..all.clone() }).await, ["bbbbbb"]);
    assert_eq!(found(MachineFilter { zones: vec!["z1".into()], ..all.clone() }).await, ["aaaaaa"]);
    assert_eq!(found(MachineFilter { pools: vec!["p1".into()], ..all.clone() }).await, ["bbbbbb"]);
    assert_eq!(found(MachineFilter { domains: vec!["lab".into()], ..all.clone() }).await, ["bbbbbb"]);
    assert_eq!(found(MachineFilter { power_addresses: vec!["198.51.100.7".into()], ..all.clone() }).await, ["aaaaaa"]);
    assert_eq!(found(MachineFilter { macs: vec![mac("aaaaaa")], zones: vec!["z2".into()], ..all }).await, [""; 0]);

    let row = record(&store, id("aaaaaa")).await.machine;
    assert_eq!((row.wait, row.power_state, row.boot_method), (a.wait.clone(), PowerState::On, a.boot_method));
    assert_eq!(row.macs, a.spec.macs);
    let created = row.created;
    a.status = NodeStatus::Ready;
    a.wait = None;
    store.commit(step("aaaaaa", 1, vec![Change::Machine(Box::new(a))])).await.unwrap();
    let row = record(&store, id("aaaaaa")).await.machine;
    assert_eq!((row.status, row.wait, row.created), (NodeStatus::Ready, None, created));
    assert!(row.updated > created);
}

pub(crate) async fn events_come_in_pages_newest_first(empty: Empty<'_>) {
    use queries::EventFilter;
    let store = empty.open();
    create(&store, machine("aaaaaa")).await;
    for n in 1..=9 {
        let level = if n % 3 == 0 { Level::Warning } else { Level::Info };
        let by = (n == 5).then(|| "admin".to_owned());
        let line = EventLine { level, by, ..line(&n.to_string()) };
        let whose = if n == 9 { None } else { Some(id(if n % 2 == 0 { "bbbbbb" } else { "aaaaaa" })) };
        store.put(vec![Change::Event(whose, line)]).await.unwrap();
    }
    let audit = EventLine { level: Level::Audit, ..line("10") };
    store.put(vec![Change::Event(None, audit)]).await.unwrap();

    let page = |filter: EventFilter| {
        let store = store.clone();
        async move {
            let events = store.read(move |db| queries::events(db, &filter)).await.unwrap();
            events.iter().map(|e| e.line.description.parse::<i64>().unwrap()).collect::<Vec<_>>()
        }
    };
    let all = EventFilter::default();
    assert_eq!(page(all.clone()).await, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(page(EventFilter { limit: 2, before: Some(9), ..all.clone() }).await, [8, 7]);
    assert_eq!(page(EventFilter { limit: 2, after: Some(3), ..all.clone() }).await, [5, 4]);
    assert_eq!(page(EventFilter { level: Some(Level::Warning), ..all.clone() }).await, [9, 6, 3]);
    assert_eq!(page(EventFilter { level: Some(Level::Audit), ..all.clone() }).await, [10]);
    assert_eq!(page(EventFilter { system_ids: vec![id("bbbbbb")], ..all.clone() }).await, [8, 6, 4, 2]);
    assert_eq!(page(EventFilter { hostnames: vec!["host-aaaaaa".into()], ..all.clone() }).await, [7, 5, 3, 1]);
    assert_eq!(page(EventFilter { macs: vec![mac("aaaaaa")], ..all.clone() }).await, [7, 5, 3, 1]);
    assert_eq!(page(EventFilter { owner: Some("admin".into()), ..all.clone() }).await, [5]);
    let newest = store
        .read(move |db| queries::events(db, &EventFilter { system_ids: vec![id("aaaaaa")], limit: 1, ..all }))
        .await
        .unwrap();
    assert_eq!((newest[0].id, newest[0].hostname.as_deref()), (7, Some("host-aaaaaa")));
}

pub(crate) async fn the_lease_granted_last_stands(empty: Empty<'_>) {
    use queries::LeaseFilter;
    let store = empty.open();
    let lease = |last: u8, mac: schema::net::MacAddr, granted| Lease {
        subnet: SubnetId(1),
        ip: std::net::Ipv4Addr::new(10, 77, 0, last),
        mac,
        hostname: Some("fox".into()),
        granted: Timestamp(granted),
        expires: Timestamp(granted + 30),
    };
    let (a, b) = (mac("aaaaaa"), mac("bbbbbb"));
    store
        .put(vec![Change::Lease(lease(10, a, 5)), Change::Lease(lease(9, a, 5)), Change::Lease(lease(10, b, 9))])
        .await
        .unwrap();
    // A rack that was away reports late.
    store.put(vec![Change::Lease(lease(10, a, 7))]).await.unwrap();
    let found = |filter: LeaseFilter| {
        let store = store.clone();
        async move { store.read(move |db| queries::leases(db, &filter)).await.unwrap() }
    };
    assert_eq!(found(LeaseFilter::default()).await, [lease(9, a, 5), lease(10, b, 9)]);
    assert_eq!(found(LeaseFilter { macs: vec![a], ..LeaseFilter::default() }).await, [lease(9, a, 5)]);
    assert_eq!(found(LeaseFilter { at: Some(Timestamp(36)), ..LeaseFilter::default() }).await, [lease(10, b, 9)]);
    assert_eq!(found(LeaseFilter { subnet: Some(SubnetId(2)), ..LeaseFilter::default() }).await, []);
}

pub(crate) async fn reports_seen_only_rise(empty: Empty<'_>) {
    let store = empty.open();
    let rack = id("rrrrrr");
    for (seq, seen) in [(3, 3), (2, 3), (7, 7)] {
        store.put(vec![Change::ReportSeen { rack, seq: ReportSeq(seq) }]).await.unwrap();
        assert_eq!(store.read(move |db| queries::report_seen(db, rack)).await.unwrap(), ReportSeq(seen));
    }
    assert_eq!(store.read(|db| queries::report_seen(db, id("ssssss"))).await.unwrap(), ReportSeq(0));
}

pub(crate) async fn deadlines_come_earliest_first(empty: Empty<'_>) {
    let store = empty.open();
    for (name, deadline) in [("a", Some(30)), ("b", None), ("c", Some(10)), ("d", Some(99))] {
        let mut write = step(name, 0, vec![]);
        write.deadline = deadline.map(Timestamp);
        store.commit(write).await.unwrap();
    }
    let due = store.read(|db| queries::actors_with_deadline(db, Timestamp(50))).await.unwrap();
    let due: Vec<_> = due.iter().map(|(kind, id, at)| (kind.as_str(), id.as_str(), at.0)).collect();
    assert_eq!(due, [("test", "c", 10), ("test", "a", 30)]);
    store.commit(step("c", 1, vec![])).await.unwrap();
    assert_eq!(store.read(|db| queries::actors_with_deadline(db, Timestamp(50))).await.unwrap().len(), 1);
}
