//! Reading machines: the list, and everything that is known of some.

use std::collections::HashMap;

use diesel::{QueryResult, prelude::*};
use schema::{
    boot::BootMethod,
    hardware::{HardwareDisk, HardwareInterface, NumaNode, SystemInfo},
    id::{AttemptId, SystemId},
    lldp::LldpNeighbour,
    net::MacAddr,
    power::PowerType,
    status::{NodeStatus, PowerState},
    tables::*,
    time::Timestamp,
    wait::Wait,
};

use super::{ScriptSet, parsed, read_json, read_word, script_sets_of, unsigned};
use crate::store::Db;

/// Ids in one statement.
const CHUNK: usize = 500;

/// A machine's row of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSummary {
    pub system_id: SystemId,
    pub hostname: String,
    pub domain: String,
    pub architecture: String,
    pub description: String,
    pub zone: String,
    pub pool: String,
    /// As its maker named them.
    pub macs: Vec<MacAddr>,
    pub status: NodeStatus,
    pub previous_status: NodeStatus,
    /// Empty when all is well.
    pub error: String,
    pub power_state: PowerState,
    pub power_type: PowerType,
    pub power_address: Option<String>,
    pub boot_method: Option<BootMethod>,
    /// The present or the last attempt.
    pub attempt: Option<AttemptId>,
    /// The attempt's present step, 1 to 12; `None` when it is over.
    pub step: Option<u8>,
    pub wait: Option<Wait>,
    pub created: Timestamp,
    pub updated: Timestamp,
}

/// What commissioning learned of the machine as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Debian's word: `amd64`.
    pub architecture: String,
    pub kernel: String,
    pub cpu_count: u32,
    pub cpu_model: String,
    /// MHz; 0 when unknown.
    pub cpu_speed: u32,
    /// MiB.
    pub memory: u64,
    pub boot_mac: Option<MacAddr>,
    pub system: SystemInfo,
}

/// An interface with its integer id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub id: i64,
    pub hardware: HardwareInterface,
}

/// A disk with its integer id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub id: i64,
    pub hardware: HardwareDisk,
}

/// Everything that the read model knows of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRecord {
    pub machine: MachineSummary,
    /// `None` before the first commissioning.
    pub hardware: Option<Hardware>,
    pub interfaces: Vec<Interface>,
    pub disks: Vec<Disk>,
    pub numa_nodes: Vec<NumaNode>,
    pub neighbours: Vec<LldpNeighbour>,
    /// The sets of the newest attempt, without outputs.
    pub script_sets: Vec<ScriptSet>,
}

/// Which machines are asked for. Empty lists admit all.
#[derive(Debug, Clone, Default)]
pub struct MachineFilter {
    pub system_ids: Vec<SystemId>,
    pub hostnames: Vec<String>,
    /// Any interface's address.
    pub macs: Vec<MacAddr>,
    pub statuses: Vec<NodeStatus>,
    pub zones: Vec<String>,
    pub pools: Vec<String>,
    pub domains: Vec<String>,
    pub architectures: Vec<String>,
    pub power_addresses: Vec<String>,
}

/// What every machine's system calls its interfaces.
pub fn interface_names(db: &mut Db) -> QueryResult<Vec<(SystemId, MacAddr, String)>> {
    let all = interfaces::table.select((interfaces::system_id, interfaces::mac, interfaces::name));
    let rows: Vec<(String, String, String)> = all.load(db)?;
    let read = |(id, mac, name): (String, String, String)| {
        Ok((parsed("interfaces.system_id", &id)?, parsed("interfaces.mac", &mac)?, name))
    };
    rows.into_iter().map(read).collect()
}

/// The machines that the filter admits, by host name.
pub fn machines(db: &mut Db, filter: &MachineFilter) -> QueryResult<Vec<MachineSummary>> {
    let mut query = machines::table.into_boxed();
    macro_rules! admit {
        ($column:ident, $values:expr) => {
            let values = $values;
            if !values.is_empty() {
                query = query.filter(machines::$column.eq_any(values));
            }
        };
    }
    admit!(system_id, filter.system_ids.iter().map(SystemId::to_string).collect::<Vec<_>>());
    admit!(hostname, filter.hostnames.clone());
    admit!(status, filter.statuses.iter().map(|status| status.number()).collect::<Vec<_>>());
    admit!(zone, filter.zones.clone());
    admit!(pool, filter.pools.clone());
    admit!(domain, filter.domains.clone());
    admit!(architecture, filter.architectures.clone());
    admit!(power_address, filter.power_addresses.clone());
    if !filter.macs.is_empty() {
        query = query.filter(machines::system_id.eq_any(machines_with(db, &filter.macs)?));
    }
    let rows: Vec<MachineRow> = query.order((machines::hostname, machines::system_id)).load(db)?;
    rows.into_iter().map(summary).collect()
}

/// The ids of machines that have one of these addresses.
pub(super) fn machines_with(db: &mut Db, macs: &[MacAddr]) -> QueryResult<Vec<String>> {
    let macs: Vec<String> = macs.iter().map(MacAddr::to_string).collect();
    interfaces::table.filter(interfaces::mac.eq_any(macs)).select(interfaces::system_id).distinct().load(db)
}

/// As [`machines`], with all that hangs on each: a fixed number of statements for some hundred machines.
pub fn machine_records(db: &mut Db, filter: &MachineFilter) -> QueryResult<Vec<MachineRecord>> {
    let mut records = Vec::new();
    for summaries in machines(db, filter)?.chunks(CHUNK) {
        records.extend(with_details(db, summaries)?);
    }
    Ok(records)
}

/// One machine with all that hangs on it.
pub fn machine_record(db: &mut Db, id: SystemId) -> QueryResult<Option<MachineRecord>> {
    let filter = MachineFilter { system_ids: vec![id], ..MachineFilter::default() };
    Ok(machine_records(db, &filter)?.pop())
}

fn with_details(db: &mut Db, summaries: &[MachineSummary]) -> QueryResult<Vec<MachineRecord>> {
    let ids: Vec<String> = summaries.iter().map(|machine| machine.system_id.to_string()).collect();
    macro_rules! of_these {
        ($table:ident by $($order:ident),+) => {
            $table::table.filter($table::system_id.eq_any(&ids)).order(($($table::$order,)+)).load(db)?
        };
    }
    let hardware: Vec<HardwareRow> = of_these!(hardware by system_id);
    let interfaces: Vec<InterfaceRow> = of_these!(interfaces by position);
    let disks: Vec<DiskRow> = of_these!(disks by position);
    let numa: Vec<NumaRow> = of_these!(numa_nodes by number);
    let neighbours: Vec<NeighbourRow> = of_these!(lldp_neighbours by position);
    let mut hardware = grouped(hardware, |row| row.system_id.clone());
    let mut interfaces = grouped(interfaces, |row| row.system_id.clone());
    let mut disks = grouped(disks, |row| row.system_id.clone());
    let mut numa = grouped(numa, |row| row.system_id.clone());
    let mut neighbours = grouped(neighbours, |row| row.system_id.clone());
    let mut sets = grouped(script_sets_of(db, &ids)?, |set| set.system_id.to_string());

    let record = |machine: &MachineSummary| {
        let id = machine.system_id.as_str();
        let mut script_sets = sets.remove(id).unwrap_or_default();
        let newest = script_sets.iter().map(|set| set.attempt).max();
        script_sets.retain(|set| Some(set.attempt) == newest);
        Ok(MachineRecord {
            machine: machine.clone(),
            hardware: hardware.remove(id).and_then(|mut rows| rows.pop()).map(read_hardware).transpose()?,
            interfaces: each_of(interfaces.remove(id), interface)?,
            disks: each_of(disks.remove(id), |row| Ok(disk(row)))?,
            numa_nodes: each_of(numa.remove(id), numa_node)?,
            neighbours: each_of(neighbours.remove(id), neighbour)?,
            script_sets,
        })
    };
    summaries.iter().map(record).collect()
}

fn grouped<T>(rows: Vec<T>, key: impl Fn(&T) -> String) -> HashMap<String, Vec<T>> {
    let mut groups: HashMap<String, Vec<T>> = HashMap::new();
    for row in rows {
        groups.entry(key(&row)).or_default().push(row);
    }
    groups
}

fn each_of<T, U>(rows: Option<Vec<T>>, read: impl Fn(T) -> QueryResult<U>) -> QueryResult<Vec<U>> {
    rows.unwrap_or_default().into_iter().map(read).collect()
}

fn summary(row: MachineRow) -> QueryResult<MachineSummary> {
    Ok(MachineSummary {
        system_id: parsed("machines.system_id", &row.system_id)?,
        hostname: row.hostname,
        domain: row.domain,
        architecture: row.architecture,
        description: row.description,
        zone: row.zone,
        pool: row.pool,
        macs: read_json("machines.macs", &row.macs)?,
        status: NodeStatus::from_number(row.status).unwrap_or_default(),
        previous_status: NodeStatus::from_number(row.previous_status).unwrap_or_default(),
        error: row.error,
        power_state: read_word("machines.power_state", &row.power_state)?,
        power_type: parsed("machines.power_type", &row.power_type)?,
        power_address: row.power_address,
        boot_method: row.boot_method.map(|word| read_word("machines.boot_method", &word)).transpose()?,
        attempt: row.attempt.map(|n| AttemptId(unsigned(n))),
        step: row.step.map(unsigned),
        wait: row.wait.map(|wait| read_json("machines.wait", &wait)).transpose()?,
        created: Timestamp(row.created),
        updated: Timestamp(row.updated),
    })
}

fn read_hardware(row: HardwareRow) -> QueryResult<Hardware> {
    Ok(Hardware {
        architecture: row.architecture,
        kernel: row.kernel,
        cpu_count: unsigned(row.cpu_count),
        cpu_model: row.cpu_model,
        cpu_speed: unsigned(row.cpu_speed),
        memory: unsigned(row.memory),
        boot_mac: row.boot_mac.map(|mac| parsed("hardware.boot_mac", &mac)).transpose()?,
        system: read_json("hardware.system", &row.system)?,
    })
}

fn interface(row: InterfaceRow) -> QueryResult<Interface> {
    let hardware = HardwareInterface {
        name: row.name,
        mac: parsed("interfaces.mac", &row.mac)?,
        vendor: row.vendor,
        product: row.product,
        firmware_version: row.firmware_version,
        driver: row.driver,
        link_connected: row.link_connected,
        link_speed: unsigned(row.link_speed),
        interface_speed: unsigned(row.interface_speed),
        sriov_max_vf: unsigned(row.sriov_max_vf),
        numa_node: unsigned(row.numa_node),
        pci_address: row.pci_address,
        addresses: read_json("interfaces.addresses", &row.addresses)?,
    };
    Ok(Interface { id: row.id, hardware })
}

fn disk(row: DiskRow) -> Disk {
    let hardware = HardwareDisk {
        name: row.name,
        model: row.model,
        serial: row.serial,
        id_path: row.id_path,
        size: unsigned(row.size),
        block_size: unsigned(row.block_size),
        rotational: row.rotational,
        removable: row.removable,
        firmware_version: row.firmware_version,
        numa_node: unsigned(row.numa_node),
        kind: row.kind,
    };
    Disk { id: row.id, hardware }
}

fn numa_node(row: NumaRow) -> QueryResult<NumaNode> {
    let cores = read_json("numa_nodes.cores", &row.cores)?;
    Ok(NumaNode { index: unsigned(row.number), cores, memory: unsigned(row.memory) })
}

fn neighbour(row: NeighbourRow) -> QueryResult<LldpNeighbour> {
    Ok(LldpNeighbour {
        interface: row.interface,
        via: row.via,
        chassis_id: row.chassis_id,
        chassis_name: row.chassis_name,
        chassis_description: row.chassis_description,
        management_addresses: read_json("lldp_neighbours.management_addresses", &row.management_addresses)?,
        port_id: row.port_id,
        port_description: row.port_description,
        vlan_ids: read_json("lldp_neighbours.vlan_ids", &row.vlan_ids)?,
    })
}
