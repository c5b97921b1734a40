//! Nouns: every shape that is said or stored. No I/O, no clock, no randomness.
//!
//! Read [`messages`] second: it is the list of everything that can be said. [`codec`] is the only place that knows bincode.

pub mod boot;
pub mod catalogue;
pub mod codec;
pub mod commissioning;
pub mod dns;
pub mod hardware;
pub mod id;
pub mod lldp;
pub mod logs;
pub mod messages;
pub mod net;
pub mod plan;
pub mod ports;
pub mod power;
pub mod projection;
pub mod script;
pub mod secret;
pub mod service;
pub mod status;
#[cfg(feature = "db")]
pub mod tables;
pub mod time;
pub mod wait;
