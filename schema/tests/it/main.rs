//! The integration tests of the schema crate, one file per part.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod codec;
mod hardware;
mod lldp;
mod ports;
mod samples;
mod script;
mod wire_variants;
