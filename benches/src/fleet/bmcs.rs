//! A BMC for each machine, on the wire: what the rack's driver does to it, it does to its machine, and the other way round.

use std::{io, net::Ipv4Addr};

use rack::power::rmcp::BootDevice;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Fleet;
use crate::bmc::{
    Mix, Powered,
    chassis::{Faults, PowerEvent},
    farm::Farm,
    ipmi, redfish,
    web::Web,
};

/// The BMCs of a fleet.
#[derive(Debug, Clone)]
pub struct Bmcs {
    mix: Mix,
    racks: u32,
    ipmi: Farm,
    redfish: Web,
}

/// The address of a machine's BMC.
fn address(machine: u32) -> Ipv4Addr {
    let [_, _, hi, lo] = (machine / 250 * 256 + machine % 250 + 1).to_be_bytes();
    Ipv4Addr::new(127, 78, hi, lo)
}

/// The machine of a BMC.
fn machine(address: Ipv4Addr) -> Option<u32> {
    let [_, _, hi, lo] = address.octets();
    (u32::from(hi) * 250 + u32::from(lo)).checked_sub(1)
}

/// Whether that machine's BMC speaks Redfish. Of a half, every second one on each rack does.
fn speaks_redfish(mix: Mix, machine: u32, racks: u32) -> bool {
    match mix {
        Mix::Half => machine / racks.max(1) % 2 == 1,
        Mix::Ipmi => false,
        Mix::Redfish => true,
    }
}

impl Bmcs {
    /// Puts a BMC beside every machine. Needs a tokio runtime, on which it lives.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(fleet: &Fleet) -> io::Result<Self> {
        let ((farm, by_ipmi), (web, by_redfish)) = (Farm::start(0)?, Web::start(0, true)?);
        let bmcs = Self { mix: fleet.bmcs(), racks: fleet.racks(), ipmi: farm, redfish: web };
        for index in fleet.hardware().iter().map(|hardware| hardware.index) {
            let at = address(index);
            if bmcs.speaks_redfish(index) {
                bmcs.redfish.put(at, redfish::Bmc::new(redfish::Setup::default()));
            } else {
                bmcs.ipmi.put(at, ipmi::Bmc::new(ipmi::Setup::at(at)));
            }
        }
        // The machine that goes off by itself tells its BMC.
        let told = bmcs.clone();
        fleet.on_power(move |machine, on| told.set_power(machine, on));
        tokio::spawn(obey(fleet.clone(), by_ipmi));
        tokio::spawn(obey(fleet.clone(), by_redfish));
        Ok(bmcs)
    }

    fn speaks_redfish(&self, machine: u32) -> bool {
        speaks_redfish(self.mix, machine, self.racks)
    }

    fn set_power(&self, machine: u32, on: bool) {
        if self.speaks_redfish(machine) {
            self.redfish.set_power(address(machine), on);
        } else {
            self.ipmi.set_power(address(machine), on);
        }
    }

    /// What is to go wrong with that machine's BMC from now on.
    pub fn set_faults(&self, machine: u32, faults: Faults) {
        if self.speaks_redfish(machine) {
            self.redfish.set_faults(address(machine), faults);
        } else {
            self.ipmi.set_faults(address(machine), faults);
        }
    }

    /// How many of the first so many machines speak Redfish; the others speak IPMI.
    #[must_use]
    pub fn redfish_of(&self, machines: u32) -> usize {
        (0..machines).filter(|machine| self.speaks_redfish(*machine)).count()
    }

    /// What they were sent: datagrams of IPMI, requests of Redfish.
    #[must_use]
    pub fn heard(&self) -> [u64; 2] {
        [self.ipmi.heard(), self.redfish.heard()]
    }

    /// Its power parameters, as the API takes them.
    #[must_use]
    pub fn parameters(&self, machine: u32) -> Value {
        let at = address(machine);
        let (kind, place) = if self.speaks_redfish(machine) {
            ("redfish", self.redfish.url(at))
        } else {
            ("ipmi", format!("{at}:{}", self.ipmi.port()))
        };
        json!({
            "power_type": kind, "power_parameters_power_address": place,
            "power_parameters_power_user": "maas", "power_parameters_power_pass": "yard",
        })
    }
}

/// What BMCs do, their machines suffer.
async fn obey(fleet: Fleet, mut events: mpsc::UnboundedReceiver<Powered>) {
    while let Some(Powered { bmc, event }) = events.recv().await {
        let Some(machine) = machine(bmc) else { continue };
        match event {
            PowerEvent::On(boot) => fleet.power_on(machine, boot.device == BootDevice::Network),
            PowerEvent::Restart(boot) => {
                fleet.power_off(machine);
                fleet.power_on(machine, boot.device == BootDevice::Network);
            }
            // A simulated system goes down at once when it is asked to.
            PowerEvent::Off | PowerEvent::SoftOff => {
                fleet.power_off(machine);
                if event == PowerEvent::SoftOff {
                    fleet.tell_power(machine, false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_an_address_of_its_own() {
        for index in 0..60_000 {
            assert_eq!(machine(address(index)), Some(index));
            assert_ne!(address(index).octets()[3], 255);
        }
    }

    #[test]
    fn one_half_of_each_racks_machines_speaks_redfish() {
        for racks in [1, 2, 3, 40] {
            for rack in 0..racks {
                let own = (0..10).map(|n| speaks_redfish(Mix::Half, n * racks + rack, racks));
                assert_eq!(own.filter(|redfish| *redfish).count(), 5, "rack {rack} of {racks}");
            }
        }
    }
}
