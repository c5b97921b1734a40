//! The tables of the region's database, their rows and their migrations. What reads and writes them is the region's store.
//!
//! Portable columns only: TEXT, BIGINT, BOOLEAN, BLOB. Times are microseconds since the epoch; lists and records are JSON text.

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub mod columns;
mod rows;

pub use rows::*;

/// The way up and down for SQLite.
pub const SQLITE_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
/// The way up and down for PostgreSQL.
pub const POSTGRES_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

diesel::table! {
    /// One row per actor, as it is now. The generation counts its writes. Its state stands in the journal, at that generation;
    /// here only where that row of the journal has been dropped.
    actors (kind, id) {
        kind -> Text,
        id -> Text,
        generation -> BigInt,
        state -> Nullable<Text>,
        deadline -> Nullable<BigInt>,
        updated -> BigInt,
    }
}

diesel::table! {
    /// One row per step that moved an actor, kept for 30 days.
    journal (seq) {
        seq -> BigInt,
        kind -> Text,
        id -> Text,
        generation -> BigInt,
        event -> Text,
        state -> Text,
        verdict -> Text,
        trace -> Text,
        at -> BigInt,
    }
}

diesel::table! {
    /// The next integer id to give out, by name.
    counters (name) {
        name -> Text,
        next -> BigInt,
    }
}

diesel::table! {
    /// The last report of each rack that is durable here.
    rack_reports (rack) {
        rack -> Text,
        seq -> BigInt,
    }
}

diesel::table! {
    /// Which rack reaches which BMC, as it was learned last.
    bmc_reach (bmc, rack) {
        bmc -> Text,
        rack -> Text,
        reachable -> Bool,
        at -> BigInt,
        how -> Text,
    }
}

diesel::table! {
    /// Sealed values; only the region's seal can open them.
    secrets (owner, name) {
        owner -> Text,
        name -> Text,
        sealed -> Binary,
    }
}

diesel::table! {
    machines (system_id) {
        system_id -> Text,
        hostname -> Text,
        domain -> Text,
        architecture -> Text,
        description -> Text,
        zone -> Text,
        pool -> Text,
        macs -> Text,
        status -> BigInt,
        previous_status -> BigInt,
        error -> Text,
        power_state -> Text,
        power_type -> Text,
        power_address -> Nullable<Text>,
        boot_method -> Nullable<Text>,
        attempt -> Nullable<BigInt>,
        step -> Nullable<BigInt>,
        wait -> Nullable<Text>,
        created -> BigInt,
        updated -> BigInt,
    }
}

diesel::table! {
    hardware (system_id) {
        system_id -> Text,
        architecture -> Text,
        kernel -> Text,
        cpu_count -> BigInt,
        cpu_model -> Text,
        cpu_speed -> BigInt,
        memory -> BigInt,
        boot_mac -> Nullable<Text>,
        system -> Text,
    }
}

diesel::table! {
    interfaces (id) {
        id -> BigInt,
        system_id -> Text,
        position -> BigInt,
        mac -> Text,
        name -> Text,
        vendor -> Text,
        product -> Text,
        firmware_version -> Text,
        driver -> Text,
        link_connected -> Bool,
        link_speed -> BigInt,
        interface_speed -> BigInt,
        sriov_max_vf -> BigInt,
        numa_node -> BigInt,
        pci_address -> Text,
        addresses -> Text,
    }
}

diesel::table! {
    disks (id) {
        id -> BigInt,
        system_id -> Text,
        position -> BigInt,
        name -> Text,
        model -> Text,
        serial -> Text,
        id_path -> Text,
        size -> BigInt,
        block_size -> BigInt,
        rotational -> Bool,
        removable -> Bool,
        firmware_version -> Text,
        numa_node -> BigInt,
        kind -> Text,
    }
}

diesel::table! {
    numa_nodes (system_id, number) {
        system_id -> Text,
        number -> BigInt,
        cores -> Text,
        memory -> BigInt,
    }
}

diesel::table! {
    lldp_neighbours (system_id, position) {
        system_id -> Text,
        position -> BigInt,
        interface -> Text,
        via -> Text,
        chassis_id -> Text,
        chassis_name -> Text,
        chassis_description -> Text,
        management_addresses -> Text,
        port_id -> Text,
        port_description -> Text,
        vlan_ids -> Text,
    }
}

diesel::table! {
    script_sets (id) {
        id -> BigInt,
        system_id -> Text,
        attempt -> BigInt,
        script_type -> Text,
        at -> BigInt,
    }
}

diesel::table! {
    script_results (id) {
        id -> BigInt,
        script_set -> BigInt,
        name -> Text,
        timeout_s -> BigInt,
        may_reboot -> Bool,
        status -> BigInt,
        started -> Nullable<BigInt>,
        ended -> Nullable<BigInt>,
        exit_status -> Nullable<BigInt>,
        runtime_ms -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// The output files of a result: "combined", "stdout", "stderr", "result". Without content: in the body store.
    script_outputs (result, stream) {
        result -> BigInt,
        stream -> Text,
        sha256 -> Text,
        len -> BigInt,
        content -> Nullable<Binary>,
    }
}

diesel::table! {
    events (id) {
        id -> BigInt,
        system_id -> Nullable<Text>,
        at -> BigInt,
        level -> BigInt,
        event_type -> Text,
        description -> Text,
        username -> Nullable<Text>,
        trace -> Nullable<Text>,
    }
}

diesel::table! {
    leases (subnet, ip) {
        subnet -> BigInt,
        ip -> Text,
        mac -> Text,
        hostname -> Nullable<Text>,
        granted -> BigInt,
        expires -> BigInt,
    }
}

diesel::joinable!(hardware -> machines (system_id));
diesel::joinable!(interfaces -> machines (system_id));
diesel::joinable!(script_results -> script_sets (script_set));
diesel::allow_tables_to_appear_in_same_query!(machines, hardware, interfaces, events);
diesel::allow_tables_to_appear_in_same_query!(script_sets, script_results);
diesel::allow_tables_to_appear_in_same_query!(actors, journal);
