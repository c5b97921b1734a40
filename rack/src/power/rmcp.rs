//! IPMI 2.0 over LAN (RMCP+) as bytes in and bytes out: packets, keys, commands, and the console's session. No I/O here.
//!
//! The driver and the yard's simulated BMCs share it. Sources: IPMI v2.0 revision 1.1 and ASF v2.0; sections stand at the items.
//! The crates that speak RMCP+ (`ipmi-rs`, `ipmi`, `ruipmi`) own their sockets, know the console's side only, and not all of our suites.

pub mod command;
pub mod console;
pub mod crypto;
pub mod message;
pub mod packet;
pub mod setup;

pub use command::{BootDevice, BootFlags, Command, Completion, Control, Privilege, Reply};
pub use console::{Console, Event, Login};
pub use crypto::Suite;
pub use packet::{Malformed, Packet};

/// The UDP port of every BMC, unless configured otherwise (section 13.1).
pub const PORT: u16 = 623;

#[cfg(test)]
mod tests;
