//! Hands near the metal: DHCP, TFTP, HTTP, power. Answers machines from a snapshot of the plan; never asks the region on a packet's path.

pub mod agent;
pub mod app;
pub mod bodies;
pub mod boot;
pub mod config;
pub mod control;
pub mod deputies;
pub mod dhcp;
pub mod dns;
pub mod doctor;
pub mod enrol;
pub mod fetch;
pub mod http;
pub mod kernel;
pub mod leases;
pub mod link;
pub mod outbox;
pub mod plan;
pub mod planfile;
pub mod power;
pub mod proxy;
pub mod report;
pub mod service;
pub mod services;
pub mod state;
pub mod tftp;
