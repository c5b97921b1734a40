//! Simulated BMCs: the far end of the rack's power drivers, with the same codec, and with faults to order.
//!
//! [`ipmi::Bmc`] is pure: a datagram in, an answer and what became of the machine out. [`farm::Farm`] puts thousands of them on the wire.
//! The machine behind a BMC hears [`chassis::PowerEvent`]s and tells its BMC by `set_power` when it went off by itself.

pub mod chassis;
pub mod farm;
pub mod ipmi;
