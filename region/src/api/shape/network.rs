//! Fabrics, VLANs, subnets, ranges and reserved addresses as the MAAS API shows them. The catalogue is the only input.

use std::net::IpAddr;

use schema::{
    catalogue::{Catalogue, Fabric, Range, RangeType, ReservedIp, Subnet, Vlan},
    id::FabricId,
    net::Cidr,
};
use serde_json::{Value, json};

use super::{ROOT, user};

/// Spaces come with a later issue; MAAS shows this word where there is none.
const NO_SPACE: &str = "undefined";

/// A fabric with its VLANs.
#[must_use]
pub fn fabric(catalogue: &Catalogue, fabric: &Fabric) -> Value {
    let vlans: Vec<_> =
        catalogue.vlans.values().filter(|v| v.fabric == fabric.id).map(|v| vlan(catalogue, v)).collect();
    json!({
        "id": fabric.id, "name": fabric.name, "class_type": null, "vlans": vlans,
        "resource_uri": format!("{ROOT}/fabrics/{}/", fabric.id),
    })
}

fn fabric_name(catalogue: &Catalogue, id: FabricId) -> String {
    catalogue.fabrics.get(&id).map_or_else(|| format!("fabric-{id}"), |f| f.name.clone())
}

/// A VLAN.
#[must_use]
pub fn vlan(catalogue: &Catalogue, v: &Vlan) -> Value {
    let relay = v.relay_vlan.filter(|id| *id != v.id).and_then(|id| catalogue.vlans.get(&id));
    json!({
        "id": v.id, "vid": v.vid, "name": v.name, "fabric": fabric_name(catalogue, v.fabric), "fabric_id": v.fabric,
        "mtu": v.mtu, "dhcp_on": v.dhcp_on, "external_dhcp": null, "primary_rack": v.primary_rack,
        "secondary_rack": v.secondary_rack,
        // One level deep, so that relays of relays end.
        "relay_vlan": relay.map(|r| vlan(catalogue, &Vlan { relay_vlan: None, ..r.clone() })),
        "space": NO_SPACE, "resource_uri": format!("{ROOT}/vlans/{}/", v.id),
    })
}

/// A subnet with its VLAN.
#[must_use]
pub fn subnet(catalogue: &Catalogue, s: &Subnet) -> Value {
    json!({
        "id": s.id, "name": s.name, "description": s.description, "cidr": s.cidr,
        "vlan": catalogue.vlans.get(&s.vlan).map(|v| vlan(catalogue, v)), "space": NO_SPACE,
        "gateway_ip": s.gateway, "dns_servers": s.dns_servers, "rdns_mode": s.rdns_mode,
        "active_discovery": s.active_discovery, "allow_dns": s.allow_dns, "allow_proxy": s.allow_proxy,
        "managed": s.managed, "disabled_boot_architectures": [],
        // Hostler's own, beside MAAS's.
        "strangers": s.strangers, "tftp_window": s.tftp_window, "beside_foreign_dhcp": s.beside_foreign_dhcp,
        "resource_uri": format!("{ROOT}/subnets/{}/", s.id),
    })
}

/// A range with its subnet and user.
#[must_use]
pub fn range(catalogue: &Catalogue, r: &Range) -> Value {
    json!({
        "id": r.id, "type": r.range_type, "start_ip": r.range.start, "end_ip": r.range.end, "comment": r.comment,
        "user": r.user.as_ref().and_then(|u| catalogue.users.get(u)).map(user),
        "subnet": catalogue.subnets.get(&r.subnet).map(|s| subnet(catalogue, s)),
        "resource_uri": format!("{ROOT}/ipranges/{}/", r.id),
    })
}

/// A reserved address.
#[must_use]
pub fn reserved(catalogue: &Catalogue, r: &ReservedIp) -> Value {
    json!({
        "id": r.id, "ip": r.ip, "mac_address": r.mac, "comment": r.comment,
        "subnet": catalogue.subnets.get(&r.subnet).map(|s| subnet(catalogue, s)),
        "resource_uri": format!("{ROOT}/reservedips/{}/", r.id),
    })
}

/// First and last address of a network as numbers, network and IPv4 broadcast addresses included.
fn edges(cidr: &Cidr) -> (u128, u128) {
    let first = number(cidr.network());
    let bits = if cidr.network().is_ipv4() { 32 } else { 128 } - u32::from(cidr.prefix());
    let span = 1_u128.checked_shl(bits).map_or(u128::MAX, |s| s - 1);
    (first, first.saturating_add(span))
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn address(cidr: &Cidr, number: u128) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

/// The addresses of a subnet that machines may have: first and last, as numbers.
fn usable(cidr: &Cidr) -> (u128, u128) {
    let (first, last) = edges(cidr);
    let small = if cidr.network().is_ipv4() { cidr.prefix() >= 31 } else { cidr.prefix() >= 127 };
    match (small, cidr.network().is_ipv4()) {
        (true, _) => (first, last),
        (false, true) => (first + 1, last - 1),
        // The first is the subnet-router anycast address (RFC 4291 section 2.6.1).
        (false, false) => (first + 1, last),
    }
}

/// What is taken in a subnet, sorted: (first, last, purpose).
fn taken(catalogue: &Catalogue, s: &Subnet) -> Vec<(u128, u128, &'static str)> {
    let ranges = catalogue.ranges.values().filter(|r| r.subnet == s.id).map(|r| {
        let purpose = if r.range_type == RangeType::Dynamic { "dynamic" } else { "reserved" };
        (number(r.range.start), number(r.range.end), purpose)
    });
    let reserved = catalogue.reserved_ips.values().filter(|r| r.subnet == s.id);
    let reserved = reserved.map(|r| (number(r.ip), number(r.ip), "reserved-ip"));
    let gateway = s.gateway.filter(|g| s.cidr.contains(*g)).map(|g| (number(g), number(g), "gateway-ip"));
    let mut all: Vec<_> = ranges.chain(reserved).chain(gateway).collect();
    all.sort_unstable();
    all
}

fn piece(cidr: &Cidr, (start, end): (u128, u128)) -> Value {
    let count = u64::try_from(end - start + 1).unwrap_or(u64::MAX);
    json!({"start": address(cidr, start), "end": address(cidr, end), "num_addresses": count})
}

/// `op=reserved_ip_ranges`.
#[must_use]
pub fn reserved_ranges(catalogue: &Catalogue, s: &Subnet) -> Vec<Value> {
    let with_purpose = |(start, end, purpose)| {
        let mut value = piece(&s.cidr, (start, end));
        value["purpose"] = json!([purpose]);
        value
    };
    taken(catalogue, s).into_iter().map(with_purpose).collect()
}

fn gaps(catalogue: &Catalogue, s: &Subnet) -> Vec<(u128, u128)> {
    let (mut next, last) = usable(&s.cidr);
    let mut free = Vec::new();
    for (start, end, _) in taken(catalogue, s) {
        if start > next {
            free.push((next, (start - 1).min(last)));
        }
        next = next.max(end.saturating_add(1));
    }
    if next <= last {
        free.push((next, last));
    }
    free
}

/// `op=unreserved_ip_ranges`.
#[must_use]
pub fn unreserved_ranges(catalogue: &Catalogue, s: &Subnet) -> Vec<Value> {
    gaps(catalogue, s).into_iter().map(|gap| piece(&s.cidr, gap)).collect()
}

/// `op=statistics`.
#[must_use]
pub fn statistics(catalogue: &Catalogue, s: &Subnet) -> Value {
    let (first, last) = usable(&s.cidr);
    let total = last - first + 1;
    let free = gaps(catalogue, s);
    let size = |(start, end): &(u128, u128)| end - start + 1;
    let available: u128 = free.iter().map(size).sum();
    let largest = free.iter().map(size).max().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a share, shown in per cent")]
    let share = available as f64 / total as f64;
    let small = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    json!({
        "num_available": small(available), "largest_available": small(largest),
        "num_unavailable": small(total - available), "total_addresses": small(total), "usage": 1.0 - share,
        "usage_string": format!("{:.0}%", (1.0 - share) * 100.0), "available_string": format!("{:.0}%", share * 100.0),
        "first_address": address(&s.cidr, first), "last_address": address(&s.cidr, last),
        "ip_version": if s.cidr.network().is_ipv4() { 4 } else { 6 },
    })
}

#[cfg(test)]
mod tests {
    use schema::{
        id::{RangeId, SubnetId, VlanId},
        net::IpRange,
    };

    use super::*;

    fn catalogue() -> Catalogue {
        let mut c = Catalogue::default();
        let id = SubnetId(3);
        c.subnets.insert(
            id,
            Subnet {
                name: "n".into(),
                gateway: Some("10.77.0.1".parse().unwrap()),
                ..Subnet::new(id, VlanId(5001), "10.77.0.0/24".parse().unwrap())
            },
        );
        c.ranges.insert(
            RangeId(1),
            Range {
                id: RangeId(1),
                subnet: id,
                range_type: RangeType::Dynamic,
                range: IpRange::new("10.77.0.100".parse().unwrap(), "10.77.0.199".parse().unwrap()).unwrap(),
                comment: String::new(),
                user: None,
            },
        );
        c
    }

    #[test]
    fn reserved_and_unreserved_make_up_the_subnet() {
        let c = catalogue();
        let s = &c.subnets[&SubnetId(3)];
        let free = unreserved_ranges(&c, s);
        assert_eq!(free.len(), 2);
        assert_eq!((free[0]["start"].as_str(), free[0]["end"].as_str()), (Some("10.77.0.2"), Some("10.77.0.99")));
        assert_eq!((free[1]["start"].as_str(), free[1]["end"].as_str()), (Some("10.77.0.200"), Some("10.77.0.254")));
        let stats = statistics(&c, s);
        assert_eq!(stats["total_addresses"], 254);
        assert_eq!(stats["num_available"], 153);
        assert_eq!(stats["num_unavailable"], 101);
        assert_eq!(reserved_ranges(&c, s)[0]["purpose"][0], "gateway-ip");
    }

    #[test]
    fn whole_address_spaces_do_not_overflow() {
        let mut c = catalogue();
        for cidr in ["0.0.0.0/0", "::/0", "fd00::/64", "10.0.0.0/31", "10.0.0.0/32", "fd00::1/128"] {
            let s = Subnet { cidr: cidr.parse().unwrap(), gateway: None, ..c.subnets[&SubnetId(3)].clone() };
            c.ranges.clear();
            let _ = statistics(&c, &s);
        }
    }
}
