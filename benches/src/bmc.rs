//! Simulated BMCs: the far end of the rack's power drivers, with the same codec, and with faults to order.
//!
//! [`ipmi::Bmc`] and [`redfish::Bmc`] are pure: a datagram or a request in, an answer and what became of the machine out. [`farm::Farm`] and
//! [`web::Web`] put thousands of them on the wire, each at an address of 127.0.0.0/8. The machine behind a BMC hears
//! [`chassis::PowerEvent`]s and tells its BMC by `set_power` when it went off by itself.

pub mod chassis;
pub mod farm;
pub mod ipmi;
pub mod redfish;
pub mod web;

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use self::chassis::{Chassis, Faults, PowerEvent};

/// What the BMCs of a fleet speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mix {
    /// One half IPMI, the other Redfish, on every rack.
    #[default]
    Half,
    Ipmi,
    Redfish,
}

/// What became of the machine behind a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Powered {
    pub bmc: Ipv4Addr,
    pub event: PowerEvent,
}

/// A simulated BMC, whatever it speaks.
pub trait Simulated {
    /// What is behind it.
    fn chassis(&mut self) -> &mut Chassis;
}

/// BMCs by their address. Cloned freely.
#[derive(Debug)]
pub struct Fleet<B>(Arc<Mutex<HashMap<Ipv4Addr, B>>>);

impl<B> Clone for Fleet<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Default for Fleet<B> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<B: Simulated> Fleet<B> {
    /// Puts a BMC at an address of 127.0.0.0/8; what was there before is gone.
    pub fn put(&self, address: Ipv4Addr, bmc: B) {
        self.bmcs().insert(address, bmc);
    }

    /// Takes a BMC off the wire.
    pub fn remove(&self, address: Ipv4Addr) {
        self.bmcs().remove(&address);
    }

    /// The machine behind that BMC went on or off by itself.
    pub fn set_power(&self, address: Ipv4Addr, on: bool) {
        self.with(address, |bmc| bmc.chassis().set_power(on));
    }

    /// What is to go wrong with that BMC from now on.
    pub fn set_faults(&self, address: Ipv4Addr, faults: Faults) {
        self.with(address, |bmc| bmc.chassis().faults = faults);
    }

    /// Looks at a BMC, or changes it; `None` where there is none.
    pub fn with<T>(&self, address: Ipv4Addr, look: impl FnOnce(&mut B) -> T) -> Option<T> {
        self.bmcs().get_mut(&address).map(look)
    }

    fn bmcs(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
