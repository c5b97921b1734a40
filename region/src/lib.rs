//! Hands near the operator: API, store, plans, the link's server side.

pub mod api;
pub mod app;
pub mod bodies;
pub mod briefs;
pub mod builtin;
pub mod census;
pub mod config;
pub mod directory;
pub mod dns;
pub mod health;
pub mod init;
pub mod inspect;
pub mod link;
pub mod links;
pub mod logs;
pub mod metrics;
pub mod perform;
pub mod plans;
pub mod seal;
pub mod sessions;
pub mod settings;
pub mod store;
pub mod sweeps;
pub mod testing;
pub mod tickets;
pub mod turns;
