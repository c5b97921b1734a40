//! Which addresses of a subnet may be leased to anybody: dynamic ranges without what is excluded. Who holds them is not known here.

use std::net::{IpAddr, Ipv4Addr};

use schema::{
    net::{IpRange, MacAddr},
    plan::PlanSubnet,
};

/// IPv4 addresses that may be leased, as disjoint ranges in ascending order, ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    ranges: Vec<(u32, u32)>,
}

impl Pool {
    /// The subnet's dynamic ranges inside its CIDR, without the excluded ones, the network and broadcast addresses, the gateway, and `own`
    /// (addresses of the rack itself). IPv6 ranges are left out.
    #[must_use]
    pub fn of(subnet: &PlanSubnet, own: &[Ipv4Addr]) -> Self {
        let (IpAddr::V4(first), Some(last)) = (subnet.cidr.network(), subnet.cidr.broadcast()) else {
            return Self::default();
        };
        let (first, last) = (u32::from(first), u32::from(last));
        let mut ranges: Vec<_> = subnet
            .dynamic
            .iter()
            .filter_map(v4)
            .map(|(start, end)| (start.max(first), end.min(last)))
            .filter(|(start, end)| start <= end)
            .collect();
        ranges.sort_unstable();
        let mut pool = Self { ranges: merged(ranges) };
        for (start, end) in subnet.excluded.iter().filter_map(v4) {
            pool.cut(start, end);
        }
        // RFC 3021: a /31 has neither a network nor a broadcast address.
        if subnet.cidr.prefix() < 31 {
            pool.cut(first, first);
            pool.cut(last, last);
        }
        for address in subnet.gateway.iter().chain(&subnet.rack_address).chain(own) {
            pool.cut(u32::from(*address), u32::from(*address));
        }
        pool
    }

    fn cut(&mut self, from: u32, to: u32) {
        self.ranges = std::mem::take(&mut self.ranges)
            .into_iter()
            .flat_map(|(start, end)| {
                let before = (from > start).then(|| (start, end.min(from.saturating_sub(1))));
                let after = (to < end).then(|| (start.max(to.saturating_add(1)), end));
                [before, after].into_iter().flatten()
            })
            .collect();
    }

    /// Whether that address may be leased to anybody.
    #[must_use]
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        let ip = u32::from(ip);
        let after = self.ranges.partition_point(|(start, _)| *start <= ip);
        after.checked_sub(1).and_then(|i| self.ranges.get(i)).is_some_and(|(_, end)| ip <= *end)
    }

    /// How many addresses it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| u64::from(end - start) + 1).sum()
    }

    /// Whether nothing may be leased but what is reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The lowest address at or above `from`.
    pub(super) fn at_or_after(&self, from: u32) -> Option<u32> {
        let i = self.ranges.partition_point(|(_, end)| *end < from);
        self.ranges.get(i).map(|(start, _)| from.max(*start))
    }
}

fn v4(range: &IpRange) -> Option<(u32, u32)> {
    match (range.start, range.end) {
        (IpAddr::V4(start), IpAddr::V4(end)) if start <= end => Some((start.into(), end.into())),
        _ => None,
    }
}

fn merged(sorted: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    let mut out: Vec<(u32, u32)> = Vec::with_capacity(sorted.len());
    for (start, end) in sorted {
        match out.last_mut() {
            Some((_, until)) if start <= until.saturating_add(1) => *until = end.max(*until),
            _ => out.push((start, end)),
        }
    }
    out
}

/// What the plan keeps for whom, on one subnet. Implemented over an immutable snapshot, so that asking it is no I/O.
pub trait Reservations: Send + Sync {
    /// The address kept for that MAC.
    fn of(&self, mac: MacAddr) -> Option<Ipv4Addr>;
    /// The MAC that address is kept for.
    fn holder(&self, ip: Ipv4Addr) -> Option<MacAddr>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(json: &str) -> PlanSubnet {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn exclusions_and_special_addresses_are_cut_out() {
        let subnet = subnet(
            r#"{"id":1,"cidr":"10.0.0.0/24","gateway":"10.0.0.9","rack_address":"10.0.0.1",
            "dynamic":[{"start":"10.0.0.0","end":"10.0.0.10"},{"start":"10.0.0.8","end":"10.0.0.12"},{"start":"10.0.0.250","end":"10.0.1.9"}],
            "excluded":[{"start":"10.0.0.4","end":"10.0.0.5"}]}"#,
        );
        let pool = Pool::of(&subnet, &[Ipv4Addr::new(10, 0, 0, 251)]);
        let all: Vec<u8> = (0..=255).filter(|i| pool.contains(Ipv4Addr::new(10, 0, 0, *i))).collect();
        assert_eq!(all, [2, 3, 6, 7, 8, 10, 11, 12, 250, 252, 253, 254]);
        assert_eq!(pool.len(), 12);
        assert!(!pool.contains(Ipv4Addr::new(10, 0, 1, 1)), "outside the network");
        assert_eq!(
            pool.at_or_after(u32::from(Ipv4Addr::new(10, 0, 0, 13))),
            Some(u32::from(Ipv4Addr::new(10, 0, 0, 250)))
        );
        assert_eq!(pool.at_or_after(u32::MAX), None);
    }
}
