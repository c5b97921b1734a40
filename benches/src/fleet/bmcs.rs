//! A BMC for each machine, on the wire: what the rack's driver does to it, it does to its machine, and the other way round.

use std::{io, net::Ipv4Addr};

use serde_json::{Value, json};

use super::Fleet;
use crate::bmc::{
    chassis::PowerEvent,
    farm::{Farm, Powered},
    ipmi::{Bmc, Setup},
};
use rack::power::rmcp::BootDevice;

/// The BMCs of a fleet.
#[derive(Debug, Clone)]
pub struct Bmcs(Farm);

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

impl Bmcs {
    /// Puts a BMC beside every machine. Needs a tokio runtime, on which it lives.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(fleet: &Fleet) -> io::Result<Self> {
        let (farm, mut events) = Farm::start(0)?;
        for hardware in fleet.hardware() {
            farm.put(address(hardware.index), Bmc::new(Setup::at(address(hardware.index))));
        }
        let bmcs = Self(farm);
        // The machine that goes off by itself tells its BMC.
        let told = bmcs.clone();
        fleet.on_power(move |machine, on| told.0.set_power(address(machine), on));
        let fleet = fleet.clone();
        tokio::spawn(async move {
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
        });
        Ok(bmcs)
    }

    /// Datagrams that they were sent.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.0.heard()
    }

    /// Its power parameters, as the API takes them.
    #[must_use]
    pub fn parameters(&self, machine: u32) -> Value {
        json!({
            "power_type": "ipmi",
            "power_parameters_power_address": format!("{}:{}", address(machine), self.0.port()),
            "power_parameters_power_user": "maas", "power_parameters_power_pass": "yard",
        })
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
}
