//! The rack's DHCPv4 service. The parts: [`packet`] reads, [`route`] finds the subnet, the leases' core decides, [`answer`] writes, [`socket`] is the wire.
//!
//! Everything on a packet's path but the socket and the journal is pure. It runs on a thread of its own: reading, deciding and answering
//! take turns there, the disk has another thread. A subnet's exchanges share a commit: while one is on its way to the disk,
//! what comes meanwhile gathers and is the actor's next event, one step with one record.
//! Where another rack serves a subnet too, [`Neighbours`] brings its leases, `shares` says whose turn a client is, [`probe`] asks the wire about an
//! address that is not known to be free. [`seek`] looks for servers that are none of ours.
//! What changes nothing (a repeated DISCOVER, a REQUEST for a lease with most of its time left) is answered from the actor's snapshot.

pub mod answer;
pub mod boot;
mod hands;
pub mod journal;
mod neighbours;
pub mod packet;
mod partners;
pub mod probe;
pub mod route;
pub mod seek;
mod server;
pub mod shares;
pub mod socket;
pub mod status;
pub mod strays;
pub mod twins;

pub use self::{
    neighbours::Neighbours,
    server::{DhcpConfig, DhcpHandles, DhcpStartError, Listen, Running, start, start_with},
    status::{DhcpStatus, ForeignServer},
};
