//! The machine as the MAAS API shows it: every key of it, always, with the right nullability.

use schema::{
    catalogue::Catalogue, commissioning::CommissionStep, id::SystemId, net::MacAddr, plan::Lease, status::NodeStatus,
};
use serde_json::{Value, json};

use super::{ROOT, dns, hardware, pool, zone};
use crate::store::queries::{MachineRecord, MachineSummary};

/// All that the API shows of one machine: its record, and the leases that its addresses hold now.
#[derive(Debug, Clone)]
pub struct Facts {
    pub record: MachineRecord,
    pub leases: Vec<Lease>,
}

impl Facts {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> SystemId {
        self.record.machine.system_id
    }

    /// The fully qualified name.
    #[must_use]
    pub fn fqdn(&self) -> String {
        fqdn(&self.record.machine.hostname, &self.record.machine.domain)
    }

    /// The MAC that it boots with: as seen last, else the first that it was given.
    #[must_use]
    pub fn boot_mac(&self) -> Option<MacAddr> {
        let seen = self.record.hardware.as_ref().and_then(|h| h.boot_mac);
        seen.or_else(|| self.record.machine.macs.first().copied())
    }

    /// Whether it has that address.
    #[must_use]
    pub fn has_mac(&self, mac: MacAddr) -> bool {
        self.record.machine.macs.contains(&mac) || self.record.interfaces.iter().any(|i| i.hardware.mac == mac)
    }
}

/// Host name and domain as one name.
#[must_use]
pub fn fqdn(hostname: &str, domain: &str) -> String {
    if domain.is_empty() { hostname.to_owned() } else { format!("{hostname}.{domain}") }
}

/// `status_message`: what it waits for, why it is where it is, or the status.
fn message(machine: &MachineSummary) -> String {
    match (&machine.wait, machine.error.as_str()) {
        (Some(wait), _) => format!("Waiting for {}", wait.what),
        (None, "") => machine.status.label().to_owned(),
        (None, error) => error.to_owned(),
    }
}

fn status_action(machine: &MachineSummary) -> &'static str {
    let step = machine.step.and_then(|n| CommissionStep::ALL.get(usize::from(n).checked_sub(1)?));
    match (machine.status, step) {
        (NodeStatus::Commissioning, Some(step)) => step.label(),
        _ => "",
    }
}

/// The whole machine.
#[must_use]
pub fn machine(facts: &Facts, catalogue: &Catalogue) -> Value {
    let mut value = identity(facts, catalogue);
    let parts = [state(facts), measures(facts), devices(facts, catalogue), tests(facts)];
    if let Value::Object(all) = &mut value {
        for part in parts {
            if let Value::Object(part) = part {
                all.extend(part);
            }
        }
    }
    value
}

fn identity(facts: &Facts, catalogue: &Catalogue) -> Value {
    let m = &facts.record.machine;
    let uuid = facts.record.hardware.as_ref().map(|h| h.system.uuid.as_str()).filter(|u| !u.is_empty());
    json!({
        "system_id": m.system_id, "hostname": m.hostname, "fqdn": facts.fqdn(), "description": m.description,
        "hardware_uuid": uuid, "domain": dns::domain_of(catalogue, &m.domain), "zone": zone(&m.zone), "pool": pool(&m.pool),
        "owner": null, "owner_data": {}, "workload_annotations": {}, "locked": false, "parent": null,
        "node_type": 0, "node_type_name": "Machine", "tag_names": [], "address_ttl": null,
        "resource_uri": format!("{ROOT}/machines/{}/", m.system_id),
    })
}

fn state(facts: &Facts) -> Value {
    let m = &facts.record.machine;
    let method = m.boot_method.map_or("", schema::boot::BootMethod::bios_boot_method);
    let addresses: Vec<_> = facts.leases.iter().map(|l| l.ip).collect();
    json!({
        "status": m.status.number(), "status_name": m.status.label(), "status_message": message(m),
        "status_action": status_action(m), "error_description": m.error, "power_type": m.power_type.name(),
        "power_state": m.power_state.label(), "bios_boot_method": method, "netboot": m.status != NodeStatus::Deployed,
        "osystem": "", "distro_series": "", "ephemeral_deploy": false, "disable_ipv4": false,
        "enable_hw_sync": false, "enable_kernel_crash_dump": false, "is_dpu": false, "last_sync": null,
        "sync_interval": null, "next_sync": null, "ip_addresses": addresses,
        // Hostler's own: the wait in short. All of it is told by op=explain.
        "waiting_for": m.wait.as_ref().map(|w| w.what.clone()), "commissioning_step": m.step,
    })
}

fn measures(facts: &Facts) -> Value {
    let record = &facts.record;
    let bytes: u64 = record.disks.iter().map(|d| d.hardware.size).sum();
    #[expect(clippy::cast_precision_loss, reason = "MAAS shows megabytes as a float")]
    let storage = (bytes as f64 / 100_000.0).round() / 10.0;
    let hw = record.hardware.as_ref();
    let info = hw.map(|h| hardware::info(&h.system, &h.cpu_model));
    json!({
        "architecture": record.machine.architecture, "min_hwe_kernel": "", "hwe_kernel": null,
        "cpu_count": hw.map_or(0, |h| h.cpu_count), "cpu_speed": hw.map_or(0, |h| h.cpu_speed),
        "memory": hw.map_or(0, |h| h.memory), "swap_size": null, "storage": storage,
        "numanode_set": hardware::numa(&record.numa_nodes),
        "hardware_info": info.unwrap_or_else(|| hardware::info(&schema::hardware::SystemInfo::default(), "")),
    })
}

fn devices(facts: &Facts, catalogue: &Catalogue) -> Value {
    let record = &facts.record;
    let nics: Vec<_> = record.interfaces.iter().map(|n| hardware::interface(facts, n, catalogue)).collect();
    let boot = facts.boot_mac().and_then(|mac| record.interfaces.iter().position(|n| n.hardware.mac == mac));
    let boot = nics.get(boot.unwrap_or(0));
    let disks: Vec<_> = record.disks.iter().map(|d| hardware::block_device(facts.id(), d)).collect();
    let gateway = |v4: bool| {
        let subnets = facts.leases.iter().filter_map(|l| catalogue.subnets.get(&l.subnet));
        let gateway = subnets.filter_map(|s| s.gateway).find(|g| g.is_ipv4() == v4);
        json!({"gateway_ip": gateway, "link_id": null})
    };
    json!({
        "boot_interface": boot, "interface_set": nics, "boot_disk": disks.first(), "blockdevice_set": disks,
        "physicalblockdevice_set": disks, "virtualblockdevice_set": [], "special_filesystems": [], "raids": [],
        "volume_groups": [], "bcaches": [], "cache_sets": [],
        "default_gateways": {"ipv4": gateway(true), "ipv6": gateway(false)},
    })
}

fn tests(facts: &Facts) -> Value {
    use schema::script::ScriptType::{Commissioning, Testing};
    let set = |kind| facts.record.script_sets.iter().find(|s| s.script_type == kind);
    let status = |kind| set(kind).and_then(crate::store::queries::ScriptSet::status);
    let (commissioning, testing) = (status(Commissioning), status(Testing));
    let number = |s: Option<schema::script::ResultStatus>| s.map_or(-1, schema::script::ResultStatus::number);
    let label = |s: Option<schema::script::ResultStatus>| s.map_or("Unknown", schema::script::ResultStatus::label);
    let mut value = json!({
        "current_commissioning_result_id": set(Commissioning).map(|s| s.id),
        "current_testing_result_id": set(Testing).map(|s| s.id), "current_installation_result_id": null,
        "commissioning_status": number(commissioning), "commissioning_status_name": label(commissioning),
        "testing_status": number(testing), "testing_status_name": label(testing),
    });
    for kind in ["cpu_test", "memory_test", "network_test", "storage_test", "interface_test", "other_test"] {
        value[format!("{kind}_status")] = json!(-1);
        value[format!("{kind}_status_name")] = json!("Unknown");
    }
    value
}
