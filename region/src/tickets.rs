//! The tickets as the racks are to hold them, by machine. Composing them is `plans`', sending them is `link`'s.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
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
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    rows: HashMap<SystemId, Row>,
    /// The machines that are switched at an address: `explain` asks for one machine's among all.
    at_power: HashMap<String, BTreeSet<SystemId>>,
}

impl Book {
    /// The machine is switched at `after` and no more at `before`.
    fn moved(&mut self, id: SystemId, before: Option<&str>, after: Option<&str>) {
        if before == after {
            return;
        }
        if let Some(before) = before
            && let Some(there) = self.at_power.get_mut(before)
        {
            there.remove(&id);
            if there.is_empty() {
                self.at_power.remove(before);
            }
        }
        if let Some(after) = after {
            self.at_power.entry(after.to_owned()).or_default().insert(id);
        }
    }
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
        let mut book = self.book();
        if machine.life != Life::Present {
            let gone = book.rows.remove(&id);
            let before = gone.as_ref().and_then(|row| row.machine.spec.power.address());
            book.moved(id, before, None);
            return gone.is_some();
        }
        let before = match book.rows.get_mut(&id) {
            Some(row) if row.machine.spec == machine.spec => return false,
            Some(row) => Some(std::mem::replace(&mut row.machine.spec, machine.spec.clone())),
            None => {
                let row = MachineRow { spec: machine.spec.clone(), boot: None };
                book.rows.insert(id, Row { machine: row, withdrawn: AttemptId(0) });
                None
            }
        };
        let before = before.as_ref().and_then(|spec| spec.power.address());
        book.moved(id, before, machine.spec.power.address());
        true
    }

    /// Puts an attempt's ticket in. False when that attempt's was withdrawn, or the machine is gone.
    pub fn publish(&self, id: SystemId, boot: BootRow) -> bool {
        let mut book = self.book();
        let Some(row) = book.rows.get_mut(&id).filter(|row| row.withdrawn < boot.attempt) else { return false };
        row.machine.boot = Some(boot);
        true
    }

    /// The machine boots from its disk again.
    pub fn withdraw(&self, id: SystemId, attempt: AttemptId) {
        if let Some(row) = self.book().rows.get_mut(&id) {
            row.withdrawn = row.withdrawn.max(attempt);
            row.machine.boot.take_if(|boot| boot.attempt <= attempt);
        }
    }

    /// Calls `each` with every machine.
    pub fn each(&self, mut each: impl FnMut(&MachineSpec)) {
        self.book().rows.values().for_each(|row| each(&row.machine.spec));
    }

    /// One machine's ticket for that rack; `None`: the machine is gone, or on a VLAN that the rack does not serve.
    #[must_use]
    pub fn ticket(&self, id: SystemId, rack: RackId, served: &HashSet<VlanId>) -> Option<Ticket> {
        self.book().rows.get(&id).and_then(|row| of(row, rack, served))
    }

    /// The VLAN that the machine is known to be on.
    #[must_use]
    pub fn vlan(&self, id: SystemId) -> Option<VlanId> {
        self.book().rows.get(&id)?.machine.spec.vlan
    }

    /// Whose these MACs are: each with the machine's id and host name, and whether it is under orders to boot.
    #[must_use]
    pub fn of_macs(&self, macs: &HashSet<MacAddr>) -> Vec<Owner> {
        if macs.is_empty() {
            return Vec::new();
        }
        let book = self.book();
        let owners = book.rows.iter().flat_map(|(id, row)| {
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
        let book = self.book();
        let there = book.at_power.get(address).into_iter().flatten().filter_map(|id| book.rows.get(id));
        let others = there
            .map(|row| &row.machine.spec)
            .filter(|other| other.system_id != spec.system_id && other.power.power_type == spec.power.power_type);
        let mut names: Vec<_> = others.map(|other| other.hostname.clone()).collect();
        names.sort();
        names
    }

    /// How every machine is switched, and where it boots, if that is known.
    #[must_use]
    pub fn powers(&self) -> Vec<(SystemId, PowerConfig, Option<VlanId>)> {
        let book = self.book();
        book.rows.iter().map(|(id, row)| (*id, row.machine.spec.power.clone(), row.machine.spec.vlan)).collect()
    }

    /// All tickets for that rack.
    #[must_use]
    pub fn all(&self, rack: RackId, served: &HashSet<VlanId>) -> Vec<Ticket> {
        let mut all: Vec<_> = self.book().rows.values().filter_map(|row| of(row, rack, served)).collect();
        all.sort_by_key(|ticket| ticket.machine);
        all
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of(row: &Row, rack: RackId, served: &HashSet<VlanId>) -> Option<Ticket> {
    row.machine.spec.vlan.is_none_or(|vlan| served.contains(&vlan)).then(|| plans::ticket(&row.machine, rack))
}

#[cfg(test)]
mod tests {
    use schema::power::PowerType;

    use super::*;

    fn machine(n: u8, address: Option<&str>) -> Machine {
        let mut machine = Machine::absent(format!("mach0{n}").parse().unwrap());
        machine.life = Life::Present;
        machine.spec.hostname = format!("m{n}");
        machine.spec.power.power_type = PowerType::Ipmi;
        machine.spec.power.params.extend(address.map(|at| ("power_address".to_owned(), at.to_owned())));
        machine
    }

    #[test]
    fn who_is_switched_at_an_address_is_known_as_machines_come_move_and_go() {
        let tickets = Tickets::default();
        let one = machine(1, Some("10.9.0.5"));
        for machine in [&one, &machine(2, Some("10.9.0.5")), &machine(3, Some("10.9.0.6")), &machine(4, None)] {
            assert!(tickets.note(machine));
        }
        assert_eq!(tickets.of_power(&one.spec), ["m2"]);
        assert!(tickets.note(&machine(3, Some("10.9.0.5"))), "it moves there");
        assert_eq!(tickets.of_power(&one.spec), ["m2", "m3"]);
        let mut redfish = one.clone();
        redfish.spec.power.power_type = PowerType::Redfish;
        assert!(tickets.of_power(&redfish.spec).is_empty(), "another kind of BMC at the same address");
        assert!(tickets.note(&machine(2, None)), "it has no BMC any more");
        assert!(tickets.note(&Machine { life: Life::Deleted, ..machine(3, Some("10.9.0.5")) }));
        assert!(tickets.of_power(&one.spec).is_empty());
        assert_eq!(tickets.book().at_power.len(), 1, "only what is used is kept");
    }
}
