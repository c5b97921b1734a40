//! The deterministic yard: fair weather, seeds with faults, kills at each step, the corpus of faults.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod campaign;
mod corpus;
mod fair;
mod kills;
mod pairs;
