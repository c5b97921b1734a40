//! The inventory reader: MAAS's rules on a physical server's data, this host's real data, and whatever else may come.

use proptest::prelude::*;
use schema::hardware::{HardwareError, HardwareReport, boot_mac};
use serde_json::Value;

const SAMPLE: &[u8] = include_bytes!("samples/resources.json");

fn sample() -> Value {
    serde_json::from_slice(SAMPLE).unwrap()
}

fn read(value: &Value) -> Result<HardwareReport, HardwareError> {
    HardwareReport::from_resources(value.to_string().as_bytes())
}

#[test]
fn a_physical_server_is_read_by_maass_rules() {
    let report = HardwareReport::from_resources(SAMPLE).unwrap();
    assert_eq!((report.architecture.as_str(), report.kernel.as_str()), ("amd64", "6.1.0-50-amd64"));
    assert_eq!((report.cpu_count, report.cpu_speed), (4, 2_100));
    assert_eq!(report.cpu_model, "Intel(R) Xeon(R) CPU E5-2620 v2");
    assert_eq!(report.memory, 32_768);
    assert_eq!(report.boot_mac.unwrap().to_string(), "a0:36:9f:00:00:01");
    let nodes: Vec<_> = report.numa_nodes.iter().map(|n| (n.index, n.cores.clone(), n.memory)).collect();
    assert_eq!(nodes, [(0, vec![0, 2], 16_384), (1, vec![1, 3], 16_384)]);

    let [fast, slow] = &report.interfaces[..] else { panic!("{:?}", report.interfaces) };
    assert_eq!((fast.name.as_str(), fast.mac.to_string().as_str()), ("enp4s0f0", "a0:36:9f:00:00:01"));
    assert_eq!((fast.link_connected, fast.link_speed, fast.interface_speed), (true, 10_000, 10_000));
    assert_eq!((fast.sriov_max_vf, fast.numa_node, &fast.addresses[..]), (63, 1, &["10.77.0.80/24".to_owned()][..]));
    assert_eq!((slow.link_connected, slow.interface_speed, slow.numa_node), (false, 1_000, 0));

    let disks: Vec<_> = report.disks.iter().map(|d| (d.id_path.as_str(), d.block_size, d.rotational)).collect();
    assert_eq!(disks, [("/dev/disk/by-id/ata-INTEL_BTWL0001", 512, false), ("/dev/sdb", 4_096, true)]);

    let system = &report.system;
    assert_eq!(system.uuid, "4c4c4544-0031-3010-8048-b4c04f4b4e31");
    assert_eq!((system.vendor.as_str(), system.serial.as_str()), ("Dell Inc.", "1TK0KN1"));
    for placeholder in [&system.version, &system.sku, &system.chassis_serial, &system.chassis_version] {
        assert_eq!(placeholder, "");
    }
}

#[test]
fn cpu_speed_comes_from_the_name_then_the_turbo_then_the_mean() {
    let speed = |name: &str, turbo: u32, mean: u32| {
        let mut value = sample();
        let mut socket = value["resources"]["cpu"]["sockets"][0].clone();
        (socket["name"], socket["frequency_turbo"], socket["frequency"]) = (name.into(), turbo.into(), mean.into());
        value["resources"]["cpu"]["sockets"] = Value::Array(vec![socket]);
        read(&value).unwrap().cpu_speed
    };
    assert_eq!(speed("Xeon @ 2.40GHz", 3_000, 1_234), 2_400);
    assert_eq!(speed("EPYC 7313", 3_729, 1_500), 3_729);
    assert_eq!(speed("QEMU", 0, 2_596), 2_600);
    assert_eq!(speed("Odd @ fast", 0, 0), 0);
}

#[test]
fn faults_name_field_value_and_rule() {
    let with = |pointer: &str, new: Value| {
        let mut value = sample();
        *value.pointer_mut(pointer).unwrap() = new;
        read(&value).unwrap_err().to_string()
    };
    for (pointer, new, parts) in [
        ("/api_version", "2.0".into(), ["api_version", "2.0"]),
        ("/api_extensions", serde_json::json!(["resources"]), ["api_extensions", "resources_v2"]),
        ("/resources/cpu/total", (-1).into(), ["resources.cpu.total of the inventory is -1", "whole number"]),
        ("/resources/cpu/total", Value::Null, ["resources.cpu.total of the inventory is missing", "threads"]),
        ("/resources/memory/total", 1e30.into(), ["resources.memory.total", "whole number"]),
        (
            "/resources/network/cards/0/ports/0/address",
            "aa:bb".into(),
            ["cards[0].ports[0].address", "52:54:00:12:34:56"],
        ),
        ("/resources/network/cards/1/ports/0/address", "a0:36:9f:00:00:01".into(), ["enp4s0f0", "eno1"]),
        ("/resources/storage/disks", "none".into(), ["resources.storage.disks", "a list"]),
        ("/resources/storage/disks/0/size", "big".into(), ["disks[0].size", "\"big\""]),
        ("/resources", Value::Null, ["resources of the inventory is missing", "a map"]),
    ] {
        let error = with(pointer, new);
        assert!(parts.iter().all(|p| error.contains(p)), "{pointer}: {error}");
    }
    assert!(matches!(HardwareReport::from_resources(&vec![b' '; 5 << 20]), Err(HardwareError::TooLong { .. })));
    assert!(HardwareReport::from_resources(b"Traceback").unwrap_err().to_string().contains("not JSON"));
}

#[test]
fn bootif_names_the_boot_interface() {
    let mac = |line: &str| boot_mac(line).map(|m| m.to_string());
    assert_eq!(mac("ro quiet BOOTIF=01-52-54-00-77-00-01\n").as_deref(), Some("52:54:00:77:00:01"));
    assert_eq!(mac("BOOTIF=01-52-54-00-AA-bb-01 x").as_deref(), Some("52:54:00:aa:bb:01"));
    for line in ["", "BOOTIF=", "BOOTIF=01", "BOOTIF=52-54-00-77-00-01", "XBOOTIF=01-52-54-00-77-00-01"] {
        assert_eq!(mac(line), None, "{line}");
    }
}

/// The script itself, run here and now; what it says must agree with the kernel.
#[test]
fn this_hosts_own_inventory_is_read() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../region/machine/scripts/50-maas-01-commissioning");
    let run = std::process::Command::new("python3").arg(script).output().expect("python3 is here");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report = HardwareReport::from_resources(&run.stdout).unwrap();
    let threads = std::fs::read_dir("/sys/devices/system/cpu").unwrap().filter(|e| {
        let name = e.as_ref().unwrap().file_name().into_string().unwrap();
        name.strip_prefix("cpu").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    });
    assert_eq!(report.cpu_count as usize, threads.count());
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let usable: u64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(report.memory >= usable / 1024, "{} MiB installed, {usable} KiB usable", report.memory);
    assert!(!report.architecture.is_empty() && !report.kernel.is_empty());
    assert_eq!(report.numa_nodes.iter().map(|n| n.cores.len()).sum::<usize>(), report.cpu_count as usize);
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), found)),
        Value::Object(map) => map.iter().for_each(|(k, v)| places(v, &format!("{at}/{k}"), found)),
        _ => {}
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[0-9a-f:]{12,17}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::hash_map("[a-z_]{1,8}", inner, 0..5).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn mutated_inventories_never_panic(which in any::<prop::sample::Index>(), new in any_json(), again in any::<prop::sample::Index>(), other in any_json()) {
        let mut value = sample();
        let mut found = Vec::new();
        places(&value, "", &mut found);
        *value.pointer_mut(&found[which.index(found.len())]).unwrap() = new;
        if let Some(place) = value.pointer_mut(&found[again.index(found.len())]) {
            *place = other;
        }
        if let Err(error) = read(&value) {
            prop_assert!(!error.to_string().is_empty() && error.to_string().len() < 400);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(HardwareReport::from_resources(&bytes).is_err());
    }
}
