//! The binary, run as its users run it: one test binary, a module for each part.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod actor;
mod bad_input;
mod bench;
mod cli;
mod dev;
mod logs;
mod peers_proxy;
mod racks;
mod seeds;
