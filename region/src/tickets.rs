//! The tickets as the racks are to hold them, by machine. Composing them is `plans`', sending them is `link`'s.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use actors::machine::{Life, Machine};
use schema::{
    id::{AttemptId, RackId, SystemId, VlanId},
    messages::machine::MachineSpec,
    net::MacAddr,
    plan::Ticket,
    power::PowerConfig,
};

use crate::plans::{self, BootRow, MachineRow};

/// One row for every machine of the database.
#[derive(Default)]
pub struct Tickets {
    rows: Mutex<HashMap<SystemId, Row>>,
}

struct Row {
    machine: MachineRow,
    /// The last attempt whose ticket was withdrawn: what was published for it and comes late is void.
    withdrawn: AttemptId,
}

/// Whose a MAC is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub mac: MacAddr,
    pub machine: SystemId,
    pub hostname: String,
    pub power_address: String,
    /// It is under orders to boot.
    pub ordered: bool,
}

impl Tickets {
    /// Takes what a machine says of itself now. True when a ticket changed.
    pub fn note(&self, machine: &Machine) -> bool {
        let id = machine.spec.system_id;
        let mut rows = self.rows();
        if machine.life != Life::Present {
            return rows.remove(&id).is_some();
        }
        match rows.get_mut(&id) {
            Some(row) if row.machine.spec == machine.spec => false,
            Some(row) => {
                row.machine.spec = machine.spec.clone();
                true
            }
            None => {
                let row = MachineRow { spec: machine.spec.clone(), boot: None };
                rows.insert(id, Row { machine: row, withdrawn: AttemptId(0) });
                true
            }
        }
    }

    /// Puts an attempt's ticket in. False when that attempt's was withdrawn, or the machine is gone.
    pub fn publish(&self, id: SystemId, boot: BootRow) -> bool {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(&id).filter(|row| row.withdrawn < boot.attempt) else { return false };
        row.machine.boot = Some(boot);
        true
    }

    /// The machine boots from its disk again.
    pub fn withdraw(&self, id: SystemId, attempt: AttemptId) {
        if let Some(row) = self.rows().get_mut(&id) {
            row.withdrawn = row.withdrawn.max(attempt);
            row.machine.boot.take_if(|boot| boot.attempt <= attempt);
        }
    }

    /// Calls `each` with every machine.
    pub fn each(&self, mut each: impl FnMut(&MachineSpec)) {
        self.rows().values().for_each(|row| each(&row.machine.spec));
    }

    /// One machine's ticket for that rack; `None`: the machine is gone, or on a VLAN that the rack does not serve.
    #[must_use]
    pub fn ticket(&self, id: SystemId, rack: RackId, served: &HashSet<VlanId>) -> Option<Ticket> {
        self.rows().get(&id).and_then(|row| of(row, rack, served))
    }

    /// The VLAN that the machine is known to be on.
    #[must_use]
    pub fn vlan(&self, id: SystemId) -> Option<VlanId> {
        self.rows().get(&id)?.machine.spec.vlan
    }

    /// Whose these MACs are: each with the machine's id and host name, and whether it is under orders to boot.
    #[must_use]
    pub fn of_macs(&self, macs: &HashSet<MacAddr>) -> Vec<Owner> {
        if macs.is_empty() {
            return Vec::new();
        }
        let rows = self.rows();
        let owners = rows.iter().flat_map(|(id, row)| {
            let MachineRow { spec, boot } = &row.machine;
            let own = spec.macs.iter().filter(|mac| macs.contains(mac));
            own.map(|mac| Owner {
                mac: *mac,
                machine: *id,
                hostname: spec.hostname.clone(),
                power_address: spec.power.address().unwrap_or_default().to_owned(),
                ordered: boot.is_some(),
            })
        });
        owners.collect()
    }

    /// The host names of other machines that are switched by the same kind of BMC at that machine's address.
    #[must_use]
    pub fn of_power(&self, spec: &MachineSpec) -> Vec<String> {
        let Some(address) = spec.power.address() else { return Vec::new() };
        let rows = self.rows();
        let same = rows.iter().filter(|(id, row)| {
            let power = &row.machine.spec.power;
            **id != spec.system_id && power.power_type == spec.power.power_type && power.address() == Some(address)
        });
        let mut names: Vec<_> = same.map(|(_, row)| row.machine.spec.hostname.clone()).collect();
        names.sort();
        names
    }

    /// How every machine is switched, and where it boots, if that is known.
    #[must_use]
    pub fn powers(&self) -> Vec<(SystemId, PowerConfig, Option<VlanId>)> {
        let rows = self.rows();
        rows.iter().map(|(id, row)| (*id, row.machine.spec.power.clone(), row.machine.spec.vlan)).collect()
    }

    /// All tickets for that rack.
    #[must_use]
    pub fn all(&self, rack: RackId, served: &HashSet<VlanId>) -> Vec<Ticket> {
        let mut all: Vec<_> = self.rows().values().filter_map(|row| of(row, rack, served)).collect();
        all.sort_by_key(|ticket| ticket.machine);
        all
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<SystemId, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of(row: &Row, rack: RackId, served: &HashSet<VlanId>) -> Option<Ticket> {
    row.machine.spec.vlan.is_none_or(|vlan| served.contains(&vlan)).then(|| plans::ticket(&row.machine, rack))
}
