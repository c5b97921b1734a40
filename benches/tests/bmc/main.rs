//! The rack's power drivers against the yard's simulated BMCs, and both against other people's programs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod ipmi;
mod peers_ipmi;
mod redfish;
mod wire;
