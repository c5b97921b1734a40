//! Interfaces, block devices, NUMA nodes and SMBIOS data as the MAAS API shows them.

use std::net::Ipv4Addr;

use schema::{
    catalogue::{Catalogue, Subnet},
    hardware::{NumaNode, SystemInfo},
    id::SystemId,
    net::MacAddr,
};
use serde_json::{Value, json};

use super::{ROOT, machine::Facts, network};
use crate::store::queries::{Disk, Interface};

/// An interface. Its VLAN and its discovered links come from the subnets of its leases.
#[must_use]
pub fn interface(facts: &Facts, nic: &Interface, catalogue: &Catalogue) -> Value {
    let (id, hw) = (facts.id(), &nic.hardware);
    let leased = facts.leases.iter().filter(|l| l.mac == hw.mac);
    let subnets: Vec<(Ipv4Addr, &Subnet)> =
        leased.filter_map(|l| catalogue.subnets.get(&l.subnet).map(|s| (l.ip, s))).collect();
    let discovered: Vec<Value> =
        subnets.iter().map(|(ip, s)| json!({"subnet": network::subnet(catalogue, s), "ip_address": ip})).collect();
    let vlan = subnets.first().and_then(|(_, s)| catalogue.vlans.get(&s.vlan));
    let near: Vec<_> = facts.record.neighbours.iter().filter(|n| n.interface == hw.name).collect();
    json!({
        "id": nic.id, "system_id": id, "name": hw.name, "type": "physical", "enabled": true,
        "mac_address": if hw.mac == MacAddr::default() { Value::Null } else { json!(hw.mac) },
        "vlan": vlan.map(|v| network::vlan(catalogue, v)), "links": [], "tags": [], "parents": [], "children": [],
        "params": "", "discovered": discovered, "effective_mtu": vlan.map_or(1_500, |v| v.mtu),
        "vendor": filled(&hw.vendor), "product": filled(&hw.product), "firmware_version": filled(&hw.firmware_version),
        "link_connected": hw.link_connected, "interface_speed": hw.interface_speed, "link_speed": hw.link_speed,
        "numa_node": hw.numa_node, "sriov_max_vf": hw.sriov_max_vf,
        // Hostler's own, beside MAAS's.
        "driver": hw.driver, "pci_address": hw.pci_address, "neighbours": near,
        "resource_uri": format!("{ROOT}/nodes/{id}/interfaces/{}/", nic.id),
    })
}

fn filled(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

/// A physical block device.
#[must_use]
pub fn block_device(id: SystemId, disk: &Disk) -> Value {
    let hw = &disk.hardware;
    let mut tags = vec![if hw.rotational { "rotary" } else { "ssd" }];
    if hw.removable {
        tags.push("removable");
    }
    if !hw.kind.is_empty() {
        tags.push(&hw.kind);
    }
    json!({
        "id": disk.id, "system_id": id, "name": hw.name, "uuid": null, "type": "physical",
        "path": format!("/dev/disk/by-dname/{}", hw.name), "model": filled(&hw.model), "serial": filled(&hw.serial),
        "id_path": filled(&hw.id_path), "size": hw.size, "block_size": hw.block_size, "available_size": hw.size,
        "used_size": 0, "used_for": "Unused", "tags": tags, "filesystem": null, "partition_table_type": null,
        "partitions": [], "firmware_version": filled(&hw.firmware_version), "storage_pool": null,
        "numa_node": hw.numa_node, "resource_uri": format!("{ROOT}/nodes/{id}/blockdevices/{}/", disk.id),
    })
}

/// NUMA nodes.
#[must_use]
pub fn numa(nodes: &[NumaNode]) -> Vec<Value> {
    let node = |n: &NumaNode| json!({"index": n.index, "cores": n.cores, "memory": n.memory, "hugepages_set": []});
    nodes.iter().map(node).collect()
}

/// MAAS's `hardware_info`: "Unknown" where SMBIOS is silent.
#[must_use]
pub fn info(system: &SystemInfo, cpu_model: &str) -> Value {
    let word = |text: &str| if text.is_empty() { "Unknown".to_owned() } else { text.to_owned() };
    json!({
        "system_vendor": word(&system.vendor), "system_product": word(&system.product),
        "system_family": word(&system.family), "system_version": word(&system.version),
        "system_sku": word(&system.sku), "system_serial": word(&system.serial), "cpu_model": word(cpu_model),
        "mainboard_vendor": word(&system.mainboard_vendor), "mainboard_product": word(&system.mainboard_product),
        "mainboard_serial": word(&system.mainboard_serial), "mainboard_version": word(&system.mainboard_version),
        "mainboard_firmware_vendor": word(&system.firmware_vendor),
        "mainboard_firmware_date": word(&system.firmware_date),
        "mainboard_firmware_version": word(&system.firmware_version),
        "chassis_vendor": word(&system.chassis_vendor), "chassis_type": word(&system.chassis_type),
        "chassis_serial": word(&system.chassis_serial), "chassis_version": word(&system.chassis_version),
    })
}
