//! The yard: where all of it runs at once. Simulated machines, the fleet that gives them sockets, and the load benches.

pub mod api;
pub mod bmc;
pub mod commission;
pub mod dialogue;
pub mod fleet;
pub mod hardware;
pub mod machine;
pub mod relayed;
pub mod seeds;
pub mod yard;
