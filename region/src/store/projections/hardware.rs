//! Rows of a machine's hardware. A new report replaces the old one, but an interface or a disk that is still there keeps its id.

use std::collections::{HashMap, HashSet};

use ::actors::machine::Machine;
use diesel::{QueryResult, prelude::*};
use schema::{
    hardware::{HardwareDisk, HardwareInterface, HardwareReport},
    id::SystemId,
    lldp::LldpNeighbour,
    tables::*,
};

use super::{insert, json, number, text};
use crate::store::{Db, ids, steps::allot};

/// The interfaces that a new machine's maker named, so that they have ids before any report.
pub(super) fn introduce(db: &mut Db, machine: &Machine) -> QueryResult<()> {
    let named = machine.spec.macs.iter().enumerate().map(|(n, mac)| HardwareInterface {
        name: format!("eth{n}"),
        mac: *mac,
        ..HardwareInterface::default()
    });
    put_interfaces(db, machine.spec.system_id, &named.collect::<Vec<_>>())
}

/// Replaces the machine's hardware.
pub(super) fn put(db: &mut Db, id: SystemId, report: &HardwareReport) -> QueryResult<()> {
    let row = HardwareRow {
        system_id: id.to_string(),
        architecture: text(&report.architecture),
        kernel: text(&report.kernel),
        cpu_count: report.cpu_count.into(),
        cpu_model: text(&report.cpu_model),
        cpu_speed: report.cpu_speed.into(),
        memory: number(report.memory),
        boot_mac: report.boot_mac.map(|mac| mac.to_string()),
        system: json(&report.system),
    };
    diesel::delete(hardware::table.find(id.as_str())).execute(db)?;
    diesel::insert_into(hardware::table).values(&row).execute(db)?;

    diesel::delete(numa_nodes::table.filter(numa_nodes::system_id.eq(id.as_str()))).execute(db)?;
    let mut numbers = HashSet::new();
    let nodes = report.numa_nodes.iter().filter(|node| numbers.insert(node.index)).map(|node| NumaRow {
        system_id: id.to_string(),
        number: node.index.into(),
        cores: json(&node.cores),
        memory: number(node.memory),
    });
    insert!(db, numa_nodes::table, nodes.collect::<Vec<_>>());

    put_interfaces(db, id, &report.interfaces)?;
    put_disks(db, id, &report.disks)
}

/// Replaces the machine's LLDP neighbours.
pub(super) fn put_neighbours(db: &mut Db, id: SystemId, neighbours: &[LldpNeighbour]) -> QueryResult<()> {
    diesel::delete(lldp_neighbours::table.filter(lldp_neighbours::system_id.eq(id.as_str()))).execute(db)?;
    let rows = neighbours.iter().zip(0_i64..).map(|(neighbour, position)| NeighbourRow {
        system_id: id.to_string(),
        position,
        interface: text(&neighbour.interface),
        via: text(&neighbour.via),
        chassis_id: text(&neighbour.chassis_id),
        chassis_name: text(&neighbour.chassis_name),
        chassis_description: text(&neighbour.chassis_description),
        management_addresses: json(&neighbour.management_addresses),
        port_id: text(&neighbour.port_id),
        port_description: text(&neighbour.port_description),
        vlan_ids: json(&neighbour.vlan_ids),
    });
    insert!(db, lldp_neighbours::table, rows.collect::<Vec<_>>());
    Ok(())
}

fn put_interfaces(db: &mut Db, id: SystemId, interfaces: &[HardwareInterface]) -> QueryResult<()> {
    let mine = interfaces::table.filter(interfaces::system_id.eq(id.as_str()));
    let old = mine.select((interfaces::mac, interfaces::id)).load(db)?;
    diesel::delete(mine).execute(db)?;
    let keys: Vec<String> = interfaces.iter().map(|interface| interface.mac.to_string()).collect();
    let numbers = numbers(db, ids::INTERFACE, old, &keys)?;
    let rows =
        interfaces.iter().zip(keys).zip(numbers).zip(0_i64..).map(|(((interface, mac), row), position)| InterfaceRow {
            id: row,
            system_id: id.to_string(),
            position,
            mac,
            name: text(&interface.name),
            vendor: text(&interface.vendor),
            product: text(&interface.product),
            firmware_version: text(&interface.firmware_version),
            driver: text(&interface.driver),
            link_connected: interface.link_connected,
            link_speed: interface.link_speed.into(),
            interface_speed: interface.interface_speed.into(),
            sriov_max_vf: interface.sriov_max_vf.into(),
            numa_node: interface.numa_node.into(),
            pci_address: text(&interface.pci_address),
            addresses: json(&interface.addresses),
        });
    insert!(db, interfaces::table, rows.collect::<Vec<_>>());
    Ok(())
}

fn put_disks(db: &mut Db, id: SystemId, disks: &[HardwareDisk]) -> QueryResult<()> {
    let mine = disks::table.filter(disks::system_id.eq(id.as_str()));
    let old = mine.select((disks::id_path, disks::id)).load(db)?;
    diesel::delete(mine).execute(db)?;
    let keys: Vec<String> = disks.iter().map(|disk| text(&disk.id_path)).collect();
    let numbers = numbers(db, ids::DISK, old, &keys)?;
    let rows = disks.iter().zip(keys).zip(numbers).zip(0_i64..).map(|(((disk, id_path), row), position)| DiskRow {
        id: row,
        system_id: id.to_string(),
        position,
        name: text(&disk.name),
        model: text(&disk.model),
        serial: text(&disk.serial),
        id_path,
        size: number(disk.size),
        block_size: disk.block_size.into(),
        rotational: disk.rotational,
        removable: disk.removable,
        firmware_version: text(&disk.firmware_version),
        numa_node: disk.numa_node.into(),
        kind: text(&disk.kind),
    });
    insert!(db, disks::table, rows.collect::<Vec<_>>());
    Ok(())
}

/// An id for each key: the one it had, each given out once, else a new one.
fn numbers(db: &mut Db, counter: &str, old: Vec<(String, i64)>, keys: &[String]) -> QueryResult<Vec<i64>> {
    let mut old: HashMap<String, i64> = old.into_iter().collect();
    let kept: Vec<Option<i64>> = keys.iter().map(|key| old.remove(key)).collect();
    let missing = kept.iter().filter(|id| id.is_none()).count();
    let mut next = if missing == 0 { 0 } else { allot(db, counter, number(missing))? };
    let fill = |id: Option<i64>| {
        id.unwrap_or_else(|| {
            next += 1;
            next - 1
        })
    };
    Ok(kept.into_iter().map(fill).collect())
}
