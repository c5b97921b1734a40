//! One test binary: decisions obey their laws, the shell its order, and the link lets in whom it should.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod agent;
mod astray;
mod awaited;
mod catalogue;
mod dns;
mod errand;
mod failover;
mod inspection;
mod link;
mod machine;
mod machine_laws;
mod metrics;
mod service;
mod session;
mod shell;
mod states_doc;
mod story;
