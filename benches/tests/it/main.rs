//! Tests of the yard: the simulated machine beside captures of real ones, and whole commissionings over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod machine;
mod trace;
mod yard;
