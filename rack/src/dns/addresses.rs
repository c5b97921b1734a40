//! Where the service listens: this rack's own address of each subnet. Pure.

use std::net::{IpAddr, SocketAddr};

use schema::plan::PlanSubnet;

/// The addresses to serve on, in order, each once. `own`: this host's addresses.
pub(super) fn wanted(subnets: &[PlanSubnet], own: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let mut all: Vec<_> = subnets.iter().filter_map(|subnet| address(subnet, own)).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// The plan's word, where this host has that address; otherwise its first one inside. A relayed subnet has none: its machines reach the
/// rack by the address of another subnet, which is served for that one.
fn address(subnet: &PlanSubnet, own: &[IpAddr]) -> Option<IpAddr> {
    // All of 127.0.0.0/8 is this host's, though the kernel lists one.
    let here = |ip: &IpAddr| own.contains(ip) || ip.is_loopback();
    let said = subnet.rack_address.map(IpAddr::V4).filter(here);
    said.or_else(|| own.iter().copied().find(|ip| subnet.cidr.contains(*ip)))
}

#[cfg(test)]
mod tests {
    use schema::plan::Plan;

    use super::*;

    #[test]
    fn each_subnet_has_the_address_this_host_has_there() {
        let plan = r#"{"subnets": [
            {"id": 1, "cidr": "10.77.0.0/24", "rack_address": "10.77.0.2"},
            {"id": 2, "cidr": "10.78.0.0/24"},
            {"id": 3, "cidr": "10.79.0.0/24", "rack_address": "10.77.0.2"},
            {"id": 4, "cidr": "10.80.0.0/24", "rack_address": "10.80.0.2"},
            {"id": 5, "cidr": "127.77.0.0/24", "rack_address": "127.77.0.2"}]}"#;
        let plan: Plan = serde_json::from_str(plan).unwrap();
        let own = ["127.0.0.1", "10.77.0.2", "10.77.0.9", "10.78.0.5"].map(|ip| ip.parse().unwrap());
        let wanted: Vec<_> = wanted(&plan.subnets, &own, 53).iter().map(SocketAddr::to_string).collect();
        assert_eq!(wanted, ["10.77.0.2:53", "10.78.0.5:53", "127.77.0.2:53"]);
    }
}
