-- The actors and their journal: what the region decides from.
CREATE TABLE actors (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    state TEXT NOT NULL,
    deadline BIGINT,
    updated BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX actors_deadline ON actors (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    event TEXT NOT NULL,
    state TEXT NOT NULL,
    verdict TEXT NOT NULL,
    trace TEXT NOT NULL,
    at BIGINT NOT NULL,
    UNIQUE (kind, id, generation)
);

CREATE TABLE counters (
    name TEXT PRIMARY KEY NOT NULL,
    next BIGINT NOT NULL
);

CREATE TABLE rack_reports (
    rack TEXT PRIMARY KEY NOT NULL,
    seq BIGINT NOT NULL
);

CREATE TABLE secrets (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (owner, name)
);

-- The read model: what operators ask for.
CREATE TABLE machines (
    system_id TEXT PRIMARY KEY NOT NULL,
    hostname TEXT NOT NULL,
    domain TEXT NOT NULL,
    architecture TEXT NOT NULL,
    description TEXT NOT NULL,
    zone TEXT NOT NULL,
    pool TEXT NOT NULL,
    macs TEXT NOT NULL,
    status BIGINT NOT NULL,
    previous_status BIGINT NOT NULL,
    error TEXT NOT NULL,
    power_state TEXT NOT NULL,
    power_type TEXT NOT NULL,
    power_address TEXT,
    boot_method TEXT,
    attempt BIGINT,
    step BIGINT,
    wait TEXT,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX machines_hostname ON machines (hostname);
CREATE INDEX machines_status ON machines (status);

CREATE TABLE hardware (
    system_id TEXT PRIMARY KEY NOT NULL REFERENCES machines (system_id) ON DELETE CASCADE,
    architecture TEXT NOT NULL,
    kernel TEXT NOT NULL,
    cpu_count BIGINT NOT NULL,
    cpu_model TEXT NOT NULL,
    cpu_speed BIGINT NOT NULL,
    memory BIGINT NOT NULL,
    boot_mac TEXT,
    system TEXT NOT NULL
);

CREATE TABLE interfaces (
    id BIGINT PRIMARY KEY NOT NULL,
    system_id TEXT NOT NULL REFERENCES machines (system_id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    mac TEXT NOT NULL,
    name TEXT NOT NULL,
    vendor TEXT NOT NULL,
    product TEXT NOT NULL,
    firmware_version TEXT NOT NULL,
    driver TEXT NOT NULL,
    link_connected BOOLEAN NOT NULL,
    link_speed BIGINT NOT NULL,
    interface_speed BIGINT NOT NULL,
    sriov_max_vf BIGINT NOT NULL,
    numa_node BIGINT NOT NULL,
    pci_address TEXT NOT NULL,
    addresses TEXT NOT NULL
);
CREATE INDEX interfaces_machine ON interfaces (system_id);
CREATE INDEX interfaces_mac ON interfaces (mac);

CREATE TABLE disks (
    id BIGINT PRIMARY KEY NOT NULL,
    system_id TEXT NOT NULL REFERENCES machines (system_id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    model TEXT NOT NULL,
    serial TEXT NOT NULL,
    id_path TEXT NOT NULL,
    size BIGINT NOT NULL,
    block_size BIGINT NOT NULL,
    rotational BOOLEAN NOT NULL,
    removable BOOLEAN NOT NULL,
    firmware_version TEXT NOT NULL,
    numa_node BIGINT NOT NULL,
    kind TEXT NOT NULL
);
CREATE INDEX disks_machine ON disks (system_id);

CREATE TABLE numa_nodes (
    system_id TEXT NOT NULL REFERENCES machines (system_id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    cores TEXT NOT NULL,
    memory BIGINT NOT NULL,
    PRIMARY KEY (system_id, number)
);

CREATE TABLE lldp_neighbours (
    system_id TEXT NOT NULL REFERENCES machines (system_id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    interface TEXT NOT NULL,
    via TEXT NOT NULL,
    chassis_id TEXT NOT NULL,
    chassis_name TEXT NOT NULL,
    chassis_description TEXT NOT NULL,
    management_addresses TEXT NOT NULL,
    port_id TEXT NOT NULL,
    port_description TEXT NOT NULL,
    vlan_ids TEXT NOT NULL,
    PRIMARY KEY (system_id, position)
);

CREATE TABLE script_sets (
    id BIGINT PRIMARY KEY NOT NULL,
    system_id TEXT NOT NULL REFERENCES machines (system_id) ON DELETE CASCADE,
    attempt BIGINT NOT NULL,
    script_type TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX script_sets_machine ON script_sets (system_id);

CREATE TABLE script_results (
    id BIGINT PRIMARY KEY NOT NULL,
    script_set BIGINT NOT NULL REFERENCES script_sets (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    timeout_s BIGINT NOT NULL,
    may_reboot BOOLEAN NOT NULL,
    status BIGINT NOT NULL,
    started BIGINT,
    ended BIGINT,
    exit_status BIGINT,
    runtime_ms BIGINT
);
CREATE INDEX script_results_set ON script_results (script_set);

CREATE TABLE script_outputs (
    result BIGINT NOT NULL REFERENCES script_results (id) ON DELETE CASCADE,
    stream TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    len BIGINT NOT NULL,
    content BLOB,
    PRIMARY KEY (result, stream)
);

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    system_id TEXT,
    at BIGINT NOT NULL,
    level BIGINT NOT NULL,
    event_type TEXT NOT NULL,
    description TEXT NOT NULL,
    username TEXT
);
CREATE INDEX events_machine ON events (system_id, id);

CREATE TABLE leases (
    subnet BIGINT NOT NULL,
    ip TEXT NOT NULL,
    mac TEXT NOT NULL,
    hostname TEXT,
    granted BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (subnet, ip)
);
CREATE INDEX leases_mac ON leases (mac);
