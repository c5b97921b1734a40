//! The machine as the MAAS API shows it: every key of it, always, with the right nullability.

use std::sync::Arc;

use actors::machine::Machine;
use schema::{
    catalogue::Catalogue,
    hardware::HardwareReport,
    lldp::LldpNeighbour,
    net::MacAddr,
    script::ResultStatus,
    status::NodeStatus,
};
use serde_json::{Value, json};

use super::{
    ROOT, domain,
    hardware::{self, Disk, Nic},
    pool, zone,
};

/// All that the API shows of one machine, gathered from the read model.
#[derive(Debug, Clone)]
pub struct Facts {
    pub state: Arc<Machine>,
    /// CPUs, memory, NUMA and SMBIOS; interfaces and disks stand beside it with their ids.
    pub hardware: HardwareReport,
    pub nics: Vec<Nic>,
    pub disks: Vec<Disk>,
    pub neighbours: Vec<LldpNeighbour>,
    /// The present (or last) commissioning's script set: its id and status.
    pub commissioning: Option<(i64, ResultStatus)>,
    /// Addresses leased to its MACs now.
    pub addresses: Vec<std::net::IpAddr>,
}

impl Facts {
    /// The fully qualified name.
    #[must_use]
    pub fn fqdn(&self) -> String {
        let spec = &self.state.spec;
        if spec.domain.is_empty() { spec.hostname.clone() } else { format!("{}.{}", spec.hostname, spec.domain) }
    }

    /// The MAC that it boots with: as seen last, else the first that it was given.
    #[must_use]
    pub fn boot_mac(&self) -> Option<MacAddr> {
        let seen = self.state.attempt.as_ref().and_then(|a| a.boot_mac).or(self.hardware.boot_mac);
        seen.or_else(|| self.state.spec.macs.first().copied())
    }
}

/// `status_message`: what it waits for, why it is where it is, or the status.
fn message(machine: &Machine) -> String {
    match (&machine.wait, machine.error.as_str()) {
        (Some(wait), _) => format!("Waiting for {}", wait.what),
        (None, "") => machine.status.label().to_owned(),
        (None, error) => error.to_owned(),
    }
}

fn status_action(machine: &Machine) -> &'static str {
    let step = machine.attempt.as_ref().and_then(actors::machine::Attempt::current_step);
    match (machine.status, step) {
        (NodeStatus::Commissioning, Some(step)) => step.label(),
        _ => "",
    }
}

/// The whole machine.
#[must_use]
pub fn machine(facts: &Facts, catalogue: &Catalogue) -> Value {
    let mut value = identity(facts);
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

fn identity(facts: &Facts) -> Value {
    let spec = &facts.state.spec;
    let uuid = &facts.hardware.system.uuid;
    json!({
        "system_id": spec.system_id, "hostname": spec.hostname, "fqdn": facts.fqdn(), "description": spec.description,
        "hardware_uuid": if uuid.is_empty() { Value::Null } else { json!(uuid) },
        "domain": domain(&spec.domain), "zone": zone(&spec.zone), "pool": pool(&spec.pool),
        "owner": null, "owner_data": {}, "workload_annotations": {}, "locked": false, "parent": null,
        "node_type": 0, "node_type_name": "Machine", "tag_names": [], "address_ttl": null,
        "resource_uri": format!("{ROOT}/machines/{}/", spec.system_id),
    })
}

fn state(facts: &Facts) -> Value {
    let m = &facts.state;
    let method = m.boot_method.map_or("", schema::boot::BootMethod::bios_boot_method);
    json!({
        "status": m.status.number(), "status_name": m.status.label(), "status_message": message(m),
        "status_action": status_action(m), "error_description": m.error, "power_type": m.spec.power.power_type.name(),
        "power_state": m.power_state.label(), "bios_boot_method": method, "netboot": m.status != NodeStatus::Deployed,
        "osystem": "", "distro_series": "", "ephemeral_deploy": false, "disable_ipv4": false,
        "enable_hw_sync": false, "enable_kernel_crash_dump": false, "is_dpu": false, "last_sync": null,
        "sync_interval": null, "next_sync": null, "ip_addresses": facts.addresses,
    })
}

fn measures(facts: &Facts) -> Value {
    let hw = &facts.hardware;
    let bytes: u64 = facts.disks.iter().map(|d| d.hardware.size).sum();
    #[expect(clippy::cast_precision_loss, reason = "MAAS shows megabytes as a float")]
    let storage = (bytes as f64 / 100_000.0).round() / 10.0;
    json!({
        "architecture": facts.state.spec.architecture, "min_hwe_kernel": "", "hwe_kernel": null,
        "cpu_count": hw.cpu_count, "cpu_speed": hw.cpu_speed, "memory": hw.memory, "swap_size": null,
        "storage": storage, "numanode_set": hardware::numa(hw), "hardware_info": hardware::info(&hw.system, &hw.cpu_model),
    })
}

fn devices(facts: &Facts, catalogue: &Catalogue) -> Value {
    let id = facts.state.spec.system_id;
    let nics: Vec<_> = facts.nics.iter().map(|n| hardware::interface(id, n, catalogue, &facts.neighbours)).collect();
    let boot = facts.boot_mac().and_then(|mac| facts.nics.iter().position(|n| n.hardware.mac == mac));
    let boot = boot.or(if nics.is_empty() { None } else { Some(0) }).and_then(|at| nics.get(at).cloned());
    let disks: Vec<_> = facts.disks.iter().map(|d| hardware::block_device(id, d)).collect();
    let gateway = |v4: bool| {
        let mut held = facts.addresses.iter().filter(|ip| ip.is_ipv4() == v4);
        let gateway = held.find_map(|ip| catalogue.subnets.values().find(|s| s.cidr.contains(*ip))?.gateway);
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
    let mut value = json!({
        "current_commissioning_result_id": facts.commissioning.map(|(id, _)| id),
        "current_testing_result_id": null, "current_installation_result_id": null,
        "commissioning_status": facts.commissioning.map_or(-1, |(_, s)| s.number()),
        "commissioning_status_name": facts.commissioning.map_or("Unknown", |(_, s)| s.label()),
    });
    for kind in ["testing", "cpu_test", "memory_test", "network_test", "storage_test", "interface_test", "other_test"] {
        value[format!("{kind}_status")] = json!(-1);
        value[format!("{kind}_status_name")] = json!("Unknown");
    }
    value
}

/// The status of a set of results, as MAAS sums them up: the first of these that any of them has.
#[must_use]
pub fn set_status(results: &[ResultStatus]) -> Option<ResultStatus> {
    use ResultStatus as R;
    let order = [
        R::Running, R::Installing, R::ApplyingNetconf, R::Pending, R::Aborted, R::Failed, R::TimedOut, R::FailedInstalling,
        R::FailedApplyingNetconf, R::Degraded, R::Skipped, R::Passed,
    ];
    let worst = order.into_iter().find(|s| results.contains(s))?;
    // Skipped scripts beside passed ones do not make a set "skipped".
    Some(if worst == R::Skipped && results.contains(&R::Passed) { R::Passed } else { worst })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_as_good_as_its_worst_result() {
        use ResultStatus as R;
        assert_eq!(set_status(&[]), None);
        assert_eq!(set_status(&[R::Passed, R::Skipped]), Some(R::Passed));
        assert_eq!(set_status(&[R::Passed, R::Failed]), Some(R::Failed));
        assert_eq!(set_status(&[R::Passed, R::Pending, R::Failed]), Some(R::Pending));
    }
}
