//! Where the proxy may connect to, and for whom. Judged on the address that is connected to, so that no name leads around it. Pure but for the
//! list of the rack's own addresses, which is asked of the kernel.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
    sync::Arc,
};

use arc_swap::ArcSwap;
use schema::net::Cidr;

use crate::{
    agent,
    plan::{PlanHandle, Snapshot},
};

/// Ports that may be connected to: one, or `FIRST-LAST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(format!("\"{text}\" is no port and no range of ports")),
        }
    }
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self(port..=port)
    }
}

/// Servers that CONNECT may lead to: `HOST:PORT`, where HOST may begin with `*.` for every name below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnels {
    host: String,
    port: u16,
}

impl FromStr for Tunnels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).ok_or_else(wrong)?;
        Ok(Self { host: host.to_ascii_lowercase(), port: port.parse().map_err(|_| wrong())? })
    }
}

impl Tunnels {
    /// Whether this server is among them. `host` is in lower case.
    pub(super) fn lead_to(&self, host: &str, port: u16) -> bool {
        let named = match self.host.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => self.host == host,
        };
        named && self.port == port
    }
}

/// What the operator says about addresses and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    pub ports: Vec<Ports>,
    /// Networks that may be connected to although they would be refused.
    pub allow: Vec<Cidr>,
    /// Networks that may not be, besides those that never may: management networks, above all.
    pub deny: Vec<Cidr>,
}

impl Default for Reach {
    fn default() -> Self {
        Self { ports: [80, 443, 8_080].map(Ports::from).into(), allow: Vec::new(), deny: Vec::new() }
    }
}

/// Why an address is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forbidden {
    pub what: String,
    pub because: &'static str,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is out of bounds for the package proxy: {}", self.what, self.because)
    }
}

/// The guard of one rack. Cloned freely.
#[derive(Clone)]
pub(super) struct Guard {
    reach: Arc<Reach>,
    plan: PlanHandle,
    /// The regions' addresses as they were last resolved.
    regions: Arc<ArcSwap<Vec<IpAddr>>>,
}

impl Guard {
    pub(super) fn new(reach: Reach, plan: PlanHandle) -> Self {
        Self { reach: Arc::new(reach), plan, regions: Arc::default() }
    }

    /// From now on these are the regions.
    pub(super) fn regions_are(&self, addresses: Vec<IpAddr>) {
        self.regions.store(Arc::new(addresses));
    }

    /// Whether that port may be connected to, whatever the address.
    pub(super) fn port(&self, port: u16) -> Result<(), Forbidden> {
        if self.reach.ports.iter().any(|ports| ports.0.contains(&port)) {
            return Ok(());
        }
        Err(Forbidden { what: format!("port {port}"), because: "proxy.ports of the rack does not list it" })
    }

    /// Whether that address may be connected to.
    pub(super) fn address(&self, address: SocketAddr) -> Result<(), Forbidden> {
        self.port(address.port())?;
        let ip = plain(address.ip());
        let own = agent::interfaces().into_iter().flat_map(|i| i.addresses).map(|(ip, _)| plain(ip));
        match out_of_bounds(ip, &self.reach, &self.plan.load(), &self.regions.load(), own) {
            None => Ok(()),
            Some(because) => Err(Forbidden { what: ip.to_string(), because }),
        }
    }
}

/// Why `ip` may not be connected to, if it may not.
fn out_of_bounds(
    ip: IpAddr,
    reach: &Reach,
    plan: &Snapshot,
    regions: &[IpAddr],
    mut own: impl Iterator<Item = IpAddr>,
) -> Option<&'static str> {
    let within = |networks: &[Cidr]| networks.iter().any(|n| n.contains(ip));
    if within(&reach.deny) {
        return Some("proxy.deny of the rack lists it");
    }
    if within(&reach.allow) {
        return None;
    }
    if let Some(why) = special(ip) {
        return Some(why);
    }
    if own.any(|address| address == ip) {
        return Some("it is the rack's own");
    }
    if regions.contains(&ip) {
        return Some("it is a region's");
    }
    let subnets = &plan.plan.subnets;
    let racks = subnets.iter().flat_map(|s| s.racks.iter().map(|r| r.address).chain(s.rack_address));
    if racks.map(IpAddr::from).any(|address| address == ip) {
        return Some("it is a rack's");
    }
    let ends =
        |s: &schema::plan::PlanSubnet| s.cidr.network() == ip || s.cidr.broadcast().map(IpAddr::from) == Some(ip);
    subnets.iter().any(ends).then_some("it is a network's own address")
}

/// An IPv4 address inside an IPv6 one, in all the ways that lead to it, as IPv4.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::from((u32::from(high) << 16 | u32::from(low)).to_be_bytes());
    match [a, b, c, d, e, f] {
        // Mapped (RFC 4291 section 2.5.5.2), translated (RFC 6052: the well-known prefix; RFC 2765).
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] | [0, 0, 0, 0, 0xffff, 0] => v4(g, h),
        // Compatible (deprecated), but neither `::` nor `::1`.
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => v4(g, h),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => v4(high, low),
        _ => ip,
    }
}

/// Addresses that no repository has (RFC 6890 and its registry).
fn special(ip: IpAddr) -> Option<&'static str> {
    let v6 = |ip: Ipv6Addr| {
        let [a, b, ..] = ip.segments();
        match a {
            _ if ip.is_loopback() => Some("it is loopback"),
            _ if ip.is_unspecified() => Some("it is no address"),
            0xff00.. => Some("it is multicast"),
            0xfe80..=0xfebf => Some("it is link-local"),
            0xfec0..=0xfeff => Some("it is site-local, which is no more"),
            // Local-use translation (RFC 8215) and Teredo hide an IPv4 address.
            0x64 if b == 0xff9b => Some("it hides another address"),
            0x2001 if b == 0 => Some("it hides another address"),
            0x100 => Some("it is discarded"),
            _ => None,
        }
    };
    match ip {
        IpAddr::V6(ip) => v6(ip),
        IpAddr::V4(ip) => match ip.octets() {
            [127, ..] => Some("it is loopback"),
            [0, ..] => Some("it is no address"),
            [169, 254, ..] => Some("it is link-local, where clouds keep their metadata"),
            [224..=239, ..] => Some("it is multicast"),
            [240..=255, ..] => Some("it is reserved or broadcast"),
            [192, 0, 0, _] => Some("it is reserved for protocols"),
            _ => None,
        },
    }
}

/// Whether the plan lets this client use the proxy.
///
/// # Errors
/// What the client is told.
pub(super) fn admit(plan: &Snapshot, client: IpAddr) -> Result<(), &'static str> {
    if !plan.plan.settings.proxy.enabled {
        return Err("the package proxy is switched off (enable_http_proxy)");
    }
    // An address may lie in more subnets than one where one contains the other: the smallest is its own.
    let own = plan.plan.subnets.iter().filter(|s| s.cidr.contains(client)).max_by_key(|s| s.cidr.prefix());
    match own {
        None => Err("your address is in no subnet of this rack; ask from a managed subnet"),
        Some(subnet) if !subnet.allow_proxy => Err("your subnet may not use the package proxy (allow_proxy)"),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use schema::plan::{Plan, SubnetRack};

    use super::*;

    fn plan() -> PlanHandle {
        let text = r#"{"id": 1, "cidr": "10.77.0.0/24", "rack_address": "10.77.0.1"}"#;
        let mut subnet: schema::plan::PlanSubnet = serde_json::from_str(text).unwrap();
        subnet.racks =
            vec![SubnetRack { rack: schema::id::RackId::from_draws([1; 6]), address: "10.77.0.2".parse().unwrap() }];
        let mut closed = subnet.clone();
        closed.cidr = "10.77.0.128/25".parse().unwrap();
        closed.allow_proxy = false;
        PlanHandle::new(Plan { subnets: vec![subnet, closed], ..Plan::default() })
    }

    fn guard(reach: Reach) -> Guard {
        let guard = Guard::new(reach, plan());
        guard.regions_are(vec!["10.1.2.3".parse().unwrap()]);
        guard
    }

    #[test]
    fn no_address_leads_to_the_house() {
        let guard = guard(Reach { deny: vec!["192.168.7.0/24".parse().unwrap()], ..Reach::default() });
        let never = [
            "127.0.0.1",
            "127.77.0.2",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "240.1.1.1",
            "10.77.0.1",
            "10.77.0.2",
            "10.77.0.255",
            "10.77.0.0",
            "10.1.2.3",
            "192.168.7.9",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:10.77.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001::1",
            "::ffff:0:127.0.0.1",
        ];
        for ip in never {
            let address = SocketAddr::new(ip.parse().unwrap(), 80);
            assert!(guard.address(address).is_err(), "{ip}");
        }
        for ip in ["151.101.2.132", "10.77.0.9", "192.168.1.1", "2a04:4e42::644", "100.64.0.1"] {
            let address = SocketAddr::new(ip.parse().unwrap(), 80);
            assert_eq!(guard.address(address), Ok(()), "{ip}");
            assert!(guard.address(SocketAddr::new(address.ip(), 22)).is_err());
            assert!(guard.address(SocketAddr::new(address.ip(), 5_240)).is_err());
        }
        for own in agent::interfaces().into_iter().flat_map(|i| i.addresses).map(|(ip, _)| ip) {
            assert!(guard.address(SocketAddr::new(own, 80)).is_err(), "{own} is the rack's own");
        }
    }

    #[test]
    fn the_operator_may_widen_and_narrow() {
        let reach = Reach {
            ports: vec!["8000-9000".parse().unwrap()],
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            deny: vec!["127.0.0.5/32".parse().unwrap()],
        };
        let guard = guard(reach);
        assert_eq!(guard.address("127.0.0.1:8099".parse().unwrap()), Ok(()));
        assert!(guard.address("127.0.0.1:80".parse().unwrap()).is_err());
        assert!(guard.address("127.0.0.5:8099".parse().unwrap()).is_err());
        for text in ["0", "a", "9-8", "1-70000", ""] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn tunnels_lead_where_the_operator_said() {
        let one: Tunnels = "Deb.example:443".parse().unwrap();
        assert!(
            one.lead_to("deb.example", 443) && !one.lead_to("deb.example", 22) && !one.lead_to("x.deb.example", 443)
        );
        let all: Tunnels = "*.example.com:443".parse().unwrap();
        assert!(all.lead_to("a.b.example.com", 443) && !all.lead_to("example.com", 443));
        assert!(!all.lead_to("evilexample.com", 443) && !all.lead_to(".example.com", 443));
        assert!("x".parse::<Tunnels>().is_err() && ":1".parse::<Tunnels>().is_err());
    }

    #[test]
    fn only_subnets_that_may_use_it_are_admitted() {
        let plan = plan();
        let admit = |ip: &str| admit(&plan.load(), ip.parse().unwrap());
        assert!(admit("10.77.0.9").is_ok());
        assert!(admit("10.77.0.200").unwrap_err().contains("allow_proxy"), "the smaller subnet decides");
        assert!(admit("10.78.0.9").unwrap_err().contains("no subnet"));
        let mut off = Plan::default();
        off.settings.proxy.enabled = false;
        assert!(super::admit(&Snapshot::new(off), "10.77.0.9".parse().unwrap()).is_err());
    }
}
