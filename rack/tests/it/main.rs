//! The integration tests of the rack crate, one file per part.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod abuse;
mod alone;
mod boot_configs;
mod boot_yard;
mod dhcp;
mod dhcp_wire;
mod dns;
mod metadata;
mod metrics;
mod ntp;
mod peers_dhcp;
mod peers_disk;
mod peers_dns;
mod peers_failover;
mod peers_http;
mod peers_metadata;
mod peers_ntp;
mod peers_power;
mod peers_redfish;
mod peers_relay;
mod peers_sweep;
mod peers_syslog;
mod peers_tftp;
mod plan_file;
mod plan_snapshot;
mod proxy;
mod proxy_abuse;
mod proxy_history;
mod proxy_yard;
mod region_link;
mod rfc1350_tftp;
mod state;
mod syslog;
mod tftp_server;
