//! The rack's DHCPv4 service. The parts: [`packet`] reads, [`route`] finds the subnet, the leases' core decides, [`answer`] writes, [`socket`] is the wire.
//!
//! Everything on a packet's path but the socket and the journal is pure. It runs on a thread of its own: reading, deciding and answering
//! take turns there, the disk has another thread. A subnet's exchanges share a commit: while one is on its way to the disk,
//! what comes meanwhile gathers and is the actor's next event, one step with one record.
//! What changes nothing (a repeated DISCOVER, a REQUEST for a lease with most of its time left) is answered from the actor's snapshot.

pub mod answer;
pub mod boot;
mod hands;
pub mod journal;
pub mod packet;
pub mod route;
mod server;
pub mod socket;
pub mod status;

pub use self::{
    server::{DhcpConfig, DhcpHandles, DhcpStartError, Listen, Running, start, start_with},
    status::{DhcpStatus, ForeignServer},
};
