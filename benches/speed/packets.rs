//! How long packets take: nanoseconds of a DHCP answer, exchanges a second with durable leases. Sections of other protocols stand beside it.
//!
//! `cargo bench -p benches --bench packets`; figures and their machine go to `docs/measuring.md`.

#[path = "packets/dhcp.rs"]
mod dhcp;

fn main() {
    dhcp::report();
}
