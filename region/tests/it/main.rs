//! The region's integration tests: one binary, a module for each part.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod api;
mod commission;
mod copies;
mod health;
mod inspect;
mod store;
