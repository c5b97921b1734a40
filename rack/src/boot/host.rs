//! By which name a machine reaches its racks: the internal domain's for what any of them may answer, this rack's address for the rest. Pure.

use std::net::{IpAddr, SocketAddr};

use schema::dns::DnsName;

use crate::plan::Snapshot;

/// DNS type A.
const A: u16 = 1;

/// Host and port of metadata URLs for a machine at `peer` that reaches this rack at `rack`: `192-168-1-0--24.maas-internal:5248`, which
/// leads to every healthy rack of the subnet; the address where the machine has no way to resolve that. `names`: this rack serves DNS at
/// `rack`'s address.
#[must_use]
pub fn host(snapshot: &Snapshot, peer: IpAddr, rack: SocketAddr, names: bool) -> String {
    let by_address = || rack.to_string();
    // The machine was told to ask this rack.
    let asks = snapshot.subnet_of(peer).is_some_and(|subnet| subnet.dns_servers.contains(&rack.ip()));
    let (true, true, Some(subnet)) = (names, asks, snapshot.subnet_of(rack.ip())) else { return by_address() };
    let internal = snapshot.plan.settings.internal_domain.parse();
    let name = internal.and_then(|internal| DnsName::of_subnet(subnet.cidr, &internal));
    match name {
        Ok(name) if snapshot.zones().has(&name, A) => format!("{name}:{}", rack.port()),
        _ => by_address(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"{"subnets": [
        {"id": 1, "cidr": "10.77.0.0/24", "dns_servers": ["10.77.0.2"]}, {"id": 2, "cidr": "10.78.0.0/24", "dns_servers": ["192.0.2.1"]},
        {"id": 3, "cidr": "10.79.0.0/24", "dns_servers": ["10.77.0.2"]}],
        "zones": [{"name": "maas-internal"}], "records": [{"name": "10-77-0-0--24.maas-internal", "a": ["10.77.0.2"]}]}"#;

    #[test]
    fn the_internal_name_is_used_where_the_machine_can_resolve_it() {
        let whole = Snapshot::new(serde_json::from_str(PLAN).unwrap());
        let bare = PLAN.replace(
            r#"[{"name": "maas-internal"}], "records": [{"name": "10-77-0-0--24.maas-internal", "a": ["10.77.0.2"]}]"#,
            "[]",
        );
        let bare = Snapshot::new(serde_json::from_str(&bare).unwrap());
        let said =
            |plan, peer: &str, names| host(plan, peer.parse().unwrap(), "10.77.0.2:5248".parse().unwrap(), names);
        assert_eq!(said(&whole, "10.77.0.9", true), "10-77-0-0--24.maas-internal:5248");
        assert_eq!(said(&whole, "10.79.0.9", true), "10-77-0-0--24.maas-internal:5248", "over a relay");
        assert_eq!(said(&whole, "10.78.0.9", true), "10.77.0.2:5248", "told of other servers");
        assert_eq!(said(&whole, "10.77.0.9", false), "10.77.0.2:5248");
        assert_eq!(said(&bare, "10.77.0.9", true), "10.77.0.2:5248");
    }
}
