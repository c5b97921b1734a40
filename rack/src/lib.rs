//! Hands near the metal: DHCP, TFTP, HTTP, power. Answers machines from a snapshot of the plan; never asks the region on a packet's path.

pub mod bodies;
pub mod boot;
pub mod dhcp;
pub mod http;
pub mod kernel;
pub mod leases;
pub mod plan;
pub mod power;
pub mod report;
pub mod state;
pub mod tftp;
