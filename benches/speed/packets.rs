//! How long packets take: nanoseconds of a DHCP answer, exchanges a second with durable leases. Sections of other protocols stand beside it.
//!
//! `cargo bench -p benches --bench packets [-- SECTION]`; figures and their machine go to `docs/measuring.md`.

#[path = "packets/dhcp.rs"]
mod dhcp;
#[path = "packets/plan.rs"]
mod plan;

fn main() {
    let only = std::env::args().nth(1).filter(|a| !a.starts_with('-'));
    let wanted = |section: &str| only.as_deref().is_none_or(|o| o == section);
    if wanted("dhcp") {
        dhcp::report();
    }
    if wanted("plan") {
        plan::report();
    }
}
