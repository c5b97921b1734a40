//! The inventory of a simulated machine as LXD's resources JSON (API 1.0), the shape that the built-in inventory script prints.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::{Hardware, Nic};

pub(super) fn json(hardware: &Hardware, cmdline: &str, ip: Ipv4Addr) -> Value {
    json!({
        "api_extensions": ["resources", "resources_v2", "api_os", "resources_system"],
        "api_version": "1.0",
        "environment": {
            "kernel": "Linux", "kernel_architecture": "x86_64", "kernel_version": "6.1.0-50-amd64",
            "kernel_cmdline": cmdline, "os_name": "debian", "os_version": "12",
        },
        "resources": {
            "cpu": { "architecture": "x86_64", "total": hardware.threads(), "sockets": sockets(hardware) },
            "memory": memory(hardware),
            "network": { "cards": [card(hardware)] },
            "storage": { "disks": disks(hardware) },
            "gpu": { "cards": gpus(hardware) },
            "system": system(hardware),
        },
        "networks": networks(hardware, ip),
    })
}

fn sockets(hardware: &Hardware) -> Value {
    let (cores, (base, turbo)) = (hardware.cpu.cores, hardware.cpu.mhz);
    let all = hardware.sockets * cores;
    // The kernel numbers the first threads of all cores, then the second ones.
    let core = |socket: u32, core: u32| {
        let first = socket * cores + core;
        let thread =
            |thread: u32| json!({ "id": first + thread * all, "thread": thread, "online": true, "numa_node": socket });
        json!({ "core": core, "die": 0, "frequency": base, "threads": [thread(0), thread(1)] })
    };
    let socket = |number: u32| {
        json!({
            "name": hardware.cpu.name, "vendor": hardware.cpu.vendor, "socket": number, "frequency": base,
            "frequency_minimum": 800, "frequency_turbo": turbo,
            "cores": (0..cores).map(|c| core(number, c)).collect::<Vec<_>>(),
        })
    };
    (0..hardware.sockets).map(socket).collect()
}

fn memory(hardware: &Hardware) -> Value {
    let total = hardware.memory << 30;
    let nodes = u64::from(hardware.sockets);
    let node = |n: u32| json!({ "numa_node": n, "total": total / nodes, "used": 1 << 28 });
    json!({ "total": total, "used": nodes << 28, "nodes": (0..hardware.sockets).map(node).collect::<Vec<_>>() })
}

fn card(hardware: &Hardware) -> Value {
    let Some(first) = hardware.nics.first() else { return Value::Null };
    let speed = first.model.speed;
    let port = |(number, nic): (usize, &Nic)| {
        json!({
            "id": nic.name, "address": nic.mac.to_string(), "port": number, "protocol": "ethernet",
            "auto_negotiation": true, "link_detected": nic.linked, "link_speed": if nic.linked { speed } else { 0 },
            "supported_modes": ["1000baseT/Full", format!("{speed}baseT/Full")],
        })
    };
    json!({
        "driver": first.model.driver, "vendor": first.model.vendor, "product": first.model.product,
        "pci_address": "0000:5e:00.0", "numa_node": 0, "firmware_version": "21.80.9",
        "sriov": { "current_vfs": 0, "maximum_vfs": first.model.virtual_functions, "vfs": null },
        "ports": hardware.nics.iter().enumerate().map(port).collect::<Vec<_>>(),
    })
}

fn disks(hardware: &Hardware) -> Value {
    let disk = |(number, (disk, serial)): (usize, &(&super::tables::Disk, String))| {
        let letter = char::from(b'a' + u8::try_from(number % 26).unwrap_or(0));
        let (id, bus) = match disk.kind {
            "nvme" => (format!("nvme{number}n1"), "nvme"),
            "sata" => (format!("sd{letter}"), "ata"),
            _ => (format!("sd{letter}"), "scsi"),
        };
        json!({
            "id": id, "model": disk.model, "type": disk.kind, "read_only": false, "removable": false,
            "size": disk.bytes, "block_size": disk.block, "rpm": disk.rpm, "serial": serial,
            "device_id": format!("{bus}-{}_{serial}", disk.model.replace(' ', "_")),
            "firmware_version": disk.firmware, "numa_node": 0,
        })
    };
    hardware.disks.iter().enumerate().map(disk).collect()
}

fn gpus(hardware: &Hardware) -> Value {
    let card = |(number, product): (usize, &&str)| {
        json!({
            "driver": "", "vendor": "NVIDIA Corporation", "vendor_id": "10de", "product": product,
            "pci_address": format!("0000:{:02x}:00.0", 0x17 + number), "numa_node": 0,
        })
    };
    hardware.gpus.iter().enumerate().map(card).collect()
}

fn system(hardware: &Hardware) -> Value {
    let model = hardware.model;
    json!({
        "uuid": hardware.uuid_text(), "vendor": model.vendor, "product": model.product, "family": "", "version": "",
        "sku": "", "serial": hardware.serial, "type": "physical",
        "firmware": { "vendor": model.firmware.0, "version": model.firmware.1, "date": model.firmware.2 },
        "chassis": { "vendor": model.vendor, "type": "Rack Mount Chassis", "serial": hardware.serial, "version": "" },
        "motherboard": { "vendor": model.vendor, "product": model.board, "serial": format!(".{}.", hardware.serial), "version": "A02" },
    })
}

fn networks(hardware: &Hardware, ip: Ipv4Addr) -> Map<String, Value> {
    let shown = |(number, nic): (usize, &Nic)| {
        let own = json!({ "family": "inet", "address": ip.to_string(), "netmask": "24", "scope": "global" });
        let addresses = if number == 0 { vec![own] } else { Vec::new() };
        let network = json!({
            "addresses": addresses, "hwaddr": nic.mac.to_string(), "mtu": 1_500, "type": "broadcast",
            "state": if nic.linked { "up" } else { "down" },
        });
        (nic.name.clone(), network)
    };
    hardware.nics.iter().enumerate().map(shown).collect()
}
