//! Reverse zones of subnets, and the names of addresses in them (RFC 1035 section 3.5, RFC 3596 section 2.5, RFC 2317). Pure.

use std::net::{IpAddr, Ipv4Addr};

use schema::{dns::DnsName, net::Cidr};

/// MAAS's `rdns_mode`.
const OFF: u8 = 0;
const RFC2317: u8 = 2;
/// Bits of a label, of IPv4 and of IPv6.
const LABEL_BITS: [u8; 2] = [8, 4];

/// The zones that hold a subnet's addresses: one, or several where its prefix ends within a label.
#[must_use]
pub(super) fn zones(subnet: Cidr, mode: u8) -> Vec<DnsName> {
    if mode == OFF || subnet.prefix() == 0 {
        return Vec::new();
    }
    let v4 = subnet.network().is_ipv4();
    let bits = LABEL_BITS[usize::from(!v4)];
    // A prefix longer than the last boundary lies within one zone of that boundary.
    let last = if v4 { 24 } else { 124 };
    let labels = subnet.prefix().div_ceil(bits).min(last / bits);
    let free = (labels * bits).saturating_sub(subnet.prefix());
    let step = |n: u32| match subnet.network() {
        IpAddr::V4(a) => IpAddr::from((u32::from(a) + (n << (32 - u32::from(labels * bits)))).to_be_bytes()),
        IpAddr::V6(a) => {
            IpAddr::from((u128::from(a) + (u128::from(n) << (128 - u32::from(labels * bits)))).to_be_bytes())
        }
    };
    let mut all: Vec<_> = (0..1_u32 << free).filter_map(|n| upper(step(n), usize::from(labels))).collect();
    all.extend(classless(subnet, mode));
    all
}

/// The last `labels` labels of an address's reverse name, before `in-addr.arpa` or `ip6.arpa`.
fn upper(address: IpAddr, labels: usize) -> Option<DnsName> {
    let name = DnsName::reverse(address);
    let all = name.labels().count();
    let kept: Vec<_> = name.labels().skip(all - 2 - labels).collect();
    kept.join(".").parse().ok()
}

/// RFC 2317's zone of a subnet longer than /24: `128-25.0.77.10.in-addr.arpa` (with a hyphen, as the RFC allows, for the slash).
fn classless(subnet: Cidr, mode: u8) -> Option<DnsName> {
    match subnet.network() {
        IpAddr::V4(a) if mode == RFC2317 && subnet.prefix() > 24 => {
            upper(a.into(), 3)?.below(&format!("{}-{}", a.octets()[3], subnet.prefix())).ok()
        }
        _ => None,
    }
}

/// The name that has an address's PTR record, and the one in the parent's zone that is an alias of it, if there is one.
#[must_use]
pub(super) fn pointer(subnet: Cidr, mode: u8, address: IpAddr) -> Option<(DnsName, Option<DnsName>)> {
    let plain = DnsName::reverse(address);
    match (mode, classless(subnet, mode), address) {
        (OFF, ..) => None,
        (_, Some(zone), IpAddr::V4(a)) => Some((zone.below(&last(a)).ok()?, Some(plain))),
        _ => Some((plain, None)),
    }
}

fn last(address: Ipv4Addr) -> String {
    address.octets()[3].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(cidr: &str, mode: u8) -> Vec<String> {
        zones(cidr.parse().unwrap(), mode).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn subnets_have_the_zones_of_their_boundaries() {
        assert_eq!(named("10.77.0.0/24", 1), ["0.77.10.in-addr.arpa"]);
        assert_eq!(named("10.0.0.0/8", 1), ["10.in-addr.arpa"]);
        assert_eq!(named("172.16.4.0/22", 1).len(), 4);
        assert_eq!(named("172.16.4.0/22", 1)[3], "7.16.172.in-addr.arpa");
        assert_eq!(named("192.0.2.128/25", 1), ["2.0.192.in-addr.arpa"]);
        assert_eq!(named("192.0.2.128/25", 2), ["2.0.192.in-addr.arpa", "128-25.2.0.192.in-addr.arpa"]);
        assert_eq!(named("fd00:1:2::/48", 2), ["2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa"]);
        assert_eq!(named("fd00::/7", 1).len(), 2);
        assert_eq!(named("fd00::1/128", 2)[0].split('.').count(), 33);
        assert!(named("10.77.0.0/24", 0).is_empty() && named("0.0.0.0/0", 1).is_empty());
        assert_eq!(named("240.0.0.0/4", 1).last().unwrap(), "255.in-addr.arpa");
    }

    #[test]
    fn addresses_are_found_in_them() {
        let of = |cidr: &str, mode, address: &str| pointer(cidr.parse().unwrap(), mode, address.parse().unwrap());
        let plain: DnsName = "9.0.77.10.in-addr.arpa".parse().unwrap();
        assert_eq!(of("10.77.0.0/24", 2, "10.77.0.9"), Some((plain.clone(), None)));
        let (ptr, alias) = of("10.77.0.0/28", 2, "10.77.0.9").unwrap();
        assert_eq!((ptr.to_string().as_str(), alias), ("9.0-28.0.77.10.in-addr.arpa", Some(plain)));
        assert_eq!(of("10.77.0.0/24", 0, "10.77.0.9"), None);
    }
}
