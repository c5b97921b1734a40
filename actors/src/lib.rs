//! Decisions (pure) and the one shell that carries them.
//!
//! Read [`core`] first: the contract between a decision and the world. Then [`machine`], then the shell.

pub mod agent;
pub mod catalogue;
pub mod clock;
pub mod core;
pub mod dns;
pub mod errand;
pub mod findings;
pub mod inspection;
pub mod leases;
pub mod link;
pub mod logbook;
pub mod machine;
pub mod metrics;
pub mod rack;
pub mod reach;
pub mod service;
pub mod session;
pub mod shell;
pub mod sorted;
pub mod subnet;
pub mod sweep;
pub mod tail;
