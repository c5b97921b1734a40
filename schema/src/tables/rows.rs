//! One struct per table, in column order, as read and written. Their meaning is given to them by the region's store.

use diesel::prelude::*;

use super::{
    columns::{Column, Field, Row},
    *,
};

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident of $table:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Queryable, Insertable, AsChangeset)]
        #[diesel(table_name = $table, treat_none_as_default_value = false, treat_none_as_null = true)]
        #[allow(missing_docs, reason = "a column says what it is")]
        pub struct $name {
            $(pub $field: $type),*
        }

        impl Row for $name {
            const TABLE: &'static str = stringify!($table);
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            fn columns(rows: &[Self]) -> Vec<Column<'_>> {
                vec![$(Field::column(rows.iter().map(|row| &row.$field))),*]
            }
        }
    )*};
}

rows! {
    /// An actor as it stands.
    ActorRow of actors {
        kind: String,
        id: String,
        generation: i64,
        state: Option<String>,
        deadline: Option<i64>,
        updated: i64,
    }

    /// A step of the journal, before the database numbers it.
    NewJournalRow of journal {
        kind: String,
        id: String,
        generation: i64,
        event: String,
        state: String,
        verdict: String,
        trace: String,
        at: i64,
    }

    /// A line of history, before the database numbers it.
    NewEventRow of events {
        system_id: Option<String>,
        at: i64,
        level: i64,
        event_type: String,
        description: String,
        username: Option<String>,
        trace: Option<String>,
    }

    /// The last report of a rack that is durable.
    SeenRow of rack_reports {
        rack: String,
        seq: i64,
    }

    /// What was learned last of the way from a rack to a BMC.
    ReachRow of bmc_reach {
        bmc: String,
        rack: String,
        reachable: bool,
        at: i64,
        how: String,
    }

    /// The read model of a machine.
    MachineRow of machines {
        system_id: String,
        hostname: String,
        domain: String,
        architecture: String,
        description: String,
        zone: String,
        pool: String,
        macs: String,
        status: i64,
        previous_status: i64,
        error: String,
        power_state: String,
        power_type: String,
        power_address: Option<String>,
        boot_method: Option<String>,
        attempt: Option<i64>,
        step: Option<i64>,
        wait: Option<String>,
        created: i64,
        updated: i64,
    }

    /// What commissioning learned of the machine as a whole.
    HardwareRow of hardware {
        system_id: String,
        architecture: String,
        kernel: String,
        cpu_count: i64,
        cpu_model: String,
        cpu_speed: i64,
        memory: i64,
        boot_mac: Option<String>,
        system: String,
    }

    /// One interface.
    InterfaceRow of interfaces {
        id: i64,
        system_id: String,
        position: i64,
        mac: String,
        name: String,
        vendor: String,
        product: String,
        firmware_version: String,
        driver: String,
        link_connected: bool,
        link_speed: i64,
        interface_speed: i64,
        sriov_max_vf: i64,
        numa_node: i64,
        pci_address: String,
        addresses: String,
    }

    /// One disk.
    DiskRow of disks {
        id: i64,
        system_id: String,
        position: i64,
        name: String,
        model: String,
        serial: String,
        id_path: String,
        size: i64,
        block_size: i64,
        rotational: bool,
        removable: bool,
        firmware_version: String,
        numa_node: i64,
        kind: String,
    }

    /// One NUMA node.
    NumaRow of numa_nodes {
        system_id: String,
        number: i64,
        cores: String,
        memory: i64,
    }

    /// One LLDP neighbour.
    NeighbourRow of lldp_neighbours {
        system_id: String,
        position: i64,
        interface: String,
        via: String,
        chassis_id: String,
        chassis_name: String,
        chassis_description: String,
        management_addresses: String,
        port_id: String,
        port_description: String,
        vlan_ids: String,
    }

    /// The scripts of one type of one attempt.
    ScriptSetRow of script_sets {
        id: i64,
        system_id: String,
        attempt: i64,
        script_type: String,
        at: i64,
    }

    /// One script's run.
    ScriptResultRow of script_results {
        id: i64,
        script_set: i64,
        name: String,
        timeout_s: i64,
        may_reboot: bool,
        status: i64,
        started: Option<i64>,
        ended: Option<i64>,
        exit_status: Option<i64>,
        runtime_ms: Option<i64>,
    }

    /// One output file of one result.
    ScriptOutputRow of script_outputs {
        result: i64,
        stream: String,
        sha256: String,
        len: i64,
        content: Option<Vec<u8>>,
    }

    /// A lease as a rack reported it.
    LeaseRow of leases {
        subnet: i64,
        ip: String,
        mac: String,
        hostname: Option<String>,
        granted: i64,
        expires: i64,
    }

    /// A sealed value.
    SecretRow of secrets {
        owner: String,
        name: String,
        sealed: Vec<u8>,
    }
}

/// A step of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
#[allow(missing_docs, reason = "a column says what it is")]
pub struct JournalRow {
    pub seq: i64,
    pub kind: String,
    pub id: String,
    pub generation: i64,
    pub event: String,
    pub state: String,
    pub verdict: String,
    pub trace: String,
    pub at: i64,
}

/// A line of history.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
#[allow(missing_docs, reason = "a column says what it is")]
pub struct EventRow {
    pub id: i64,
    pub system_id: Option<String>,
    pub at: i64,
    pub level: i64,
    pub event_type: String,
    pub description: String,
    pub username: Option<String>,
    pub trace: Option<String>,
}
