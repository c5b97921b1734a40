//! The yard: where all of it runs at once.

pub mod bmc;
pub mod relayed;
