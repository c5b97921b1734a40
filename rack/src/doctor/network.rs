//! What would happen on this host's networks once the rack is on: which subnets it would serve from where, and who leases addresses there already.
//! One question goes out where DHCP would be served: a DISCOVER of a made-up machine, as every booting server sends it. Nothing is taken.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use actors::clock;
use schema::plan::{PlanSubnet, Strangers};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Finding, Verdict, finding, good};
use crate::{
    config::{RackConfig, Service},
    control,
    dhcp::{
        Listen,
        packet::{self, Packet},
        socket::{Interface, interfaces},
    },
    planfile,
    state::State,
};

/// How long answers of other servers are waited for; RFC 2131 lets a server take its time.
const PATIENCE: Duration = Duration::from_secs(3);

/// A line for each interface and each subnet of the plan.
pub(super) fn outlook(config: &RackConfig) -> Vec<Finding> {
    let subnets = match subnets(config) {
        Ok(Some(subnets)) => subnets,
        Ok(None) => {
            let seen = "no plan yet: nothing is served on any network until a region gives one";
            return vec![good("outlook", seen)];
        }
        Err(why) => {
            return vec![finding(
                "outlook",
                Verdict::Warning,
                why,
                "mend the plan; what the rack would serve is not known",
            )];
        }
    };
    let here = interfaces().unwrap_or_default();
    let mut found: Vec<_> = here.iter().filter(|i| i.name != "lo").map(|i| on_interface(config, i, &subnets)).collect();
    found.extend(subnets.iter().filter_map(|subnet| nowhere(config, subnet, &here)));
    if config.services.contains(&Service::Dhcp) && config.dhcp == Listen::Interfaces {
        let leases = |i: &&Interface| subnets.iter().any(|s| s.dhcp && stands(i, s));
        found.extend(here.iter().filter(leases).map(|interface| others(config, interface, &here, &subnets)));
    }
    found
}

/// The subnets that the rack would serve: of the rack that runs, of the plan file, or of the plan that it kept. `None`: no plan.
fn subnets(config: &RackConfig) -> Result<Option<Vec<PlanSubnet>>, String> {
    if let Ok(subnets) = control::subnets(&config.state) {
        return Ok(Some(subnets));
    }
    match &config.plan {
        Some(path) => planfile::subnets(path).map(Some).map_err(|e| e.to_string()),
        None if !config.state.join("rack.redb").exists() => Ok(None),
        None => {
            let state = State::open(&config.state, config.outbox).map_err(|e| e.to_string())?;
            let plan = state.plan().map_err(|e| e.to_string())?;
            Ok((plan.generation.0 > 0).then_some(plan.subnets))
        }
    }
}

fn stands(interface: &Interface, subnet: &PlanSubnet) -> bool {
    interface.addresses.iter().any(|(ip, _)| subnet.cidr.contains(IpAddr::V4(*ip)))
}

fn on_interface(config: &RackConfig, interface: &Interface, subnets: &[PlanSubnet]) -> Finding {
    let check = format!("serve {}", interface.name);
    let here: Vec<_> = subnets.iter().filter(|s| stands(interface, s)).collect();
    if here.is_empty() {
        return good(&check, "in no subnet of the plan: nothing is leased there, and strangers are not answered");
    }
    let lines: Vec<_> = here.iter().map(|subnet| what(config, subnet)).collect();
    let asks = here.iter().any(|s| s.dhcp && s.strangers == Strangers::Enlist);
    if asks {
        let remedy =
            "set the subnet's strangers to ignore or local, unless every unknown machine there is to be enlisted";
        return finding(&check, Verdict::Warning, lines.join("; "), remedy);
    }
    good(&check, lines.join("; "))
}

/// What this rack would do on a subnet, in words.
fn what(config: &RackConfig, subnet: &PlanSubnet) -> String {
    let cidr = subnet.cidr;
    if !subnet.dhcp || !config.services.contains(&Service::Dhcp) {
        return format!("{cidr}: no address is leased; boot files and metadata for machines under orders");
    }
    let ranges: Vec<_> = subnet.dynamic.iter().map(|r| format!("{}-{}", r.start, r.end)).collect();
    let ranges = if ranges.is_empty() { "reservations alone".to_owned() } else { ranges.join(", ") };
    let strangers = match subnet.strangers {
        Strangers::Ignore => "unknown machines are not answered",
        Strangers::Local => "unknown machines get an address and boot from their disk",
        Strangers::Enlist => "unknown machines get an address and are enlisted",
    };
    format!("{cidr}: leases {ranges}; {strangers}")
}

/// A subnet whose DHCP this rack is to serve, and where it has no address: only a relay can reach it.
fn nowhere(config: &RackConfig, subnet: &PlanSubnet, here: &[Interface]) -> Option<Finding> {
    let at = |address: Ipv4Addr| matches!(&config.dhcp, Listen::At(all) if all.iter().any(|a| *a.ip() == address));
    let served = here.iter().any(|i| stands(i, subnet)) || subnet.rack_address.is_some_and(at);
    if !subnet.dhcp || served {
        return None;
    }
    let remedy = "give an interface an address in it, or have a DHCP relay there send to this rack";
    let seen = format!("this host has no address in {}: machines reach it by a relay alone", subnet.cidr);
    Some(finding(&format!("subnet {}", subnet.cidr), Verdict::Warning, seen, remedy))
}

/// Who else leases addresses on that wire.
fn others(config: &RackConfig, interface: &Interface, here: &[Interface], subnets: &[PlanSubnet]) -> Finding {
    let check = format!("other DHCP {}", interface.name);
    let mut own: BTreeSet<Ipv4Addr> = here.iter().flat_map(|i| &i.addresses).map(|(ip, _)| *ip).collect();
    own.extend(&config.dhcp_peers);
    own.extend(subnets.iter().flat_map(|s| &s.racks).map(|rack| rack.address));
    match discover(&interface.name) {
        Err(e) => {
            let remedy = "run as root; a DHCP client that holds port 68 of this interface keeps doctor from asking";
            finding(&check, Verdict::Warning, format!("could not ask: {e}"), remedy)
        }
        Ok(servers) => {
            let strange: Vec<_> = servers.difference(&own).map(|ip| named(*ip, &interface.name)).collect();
            if strange.is_empty() {
                return good(&check, format!("nobody else answered within {} s", PATIENCE.as_secs()));
            }
            let seen = format!("{} leases addresses there: this rack would stand aside", strange.join(", "));
            let remedy = "turn that server off, or set beside_foreign_dhcp on the subnet if both shall serve";
            finding(&check, Verdict::Warning, seen, remedy)
        }
    }
}

/// With its hardware address, where this host knows it.
fn named(server: Ipv4Addr, device: &str) -> String {
    let table = std::fs::read_to_string("/proc/net/arp").unwrap_or_default();
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut mac = columns.filter_map(|c| match c[..] {
        [ip, _, _, mac, _, dev] if ip == server.to_string() && dev == device => Some(mac.to_owned()),
        _ => None,
    });
    mac.next()
        .filter(|mac| mac != "00:00:00:00:00:00")
        .map_or_else(|| server.to_string(), |mac| format!("{server} ({mac})"))
}

/// Asks for an address as a booting machine would, and lets the offers pass; who made them.
fn discover(device: &str) -> io::Result<BTreeSet<Ipv4Addr>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into())?;
    let socket = UdpSocket::from(socket);
    let question = question(rand::random(), rand::random());
    socket.send_to(&question, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67))?;
    let (started, mut servers, mut buffer) = (clock::tick(), BTreeSet::new(), [0; 2_048]);
    while let Some(left) = PATIENCE.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        let (len, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(e) => return Err(e),
        };
        let bytes = buffer.get(..len).unwrap_or_default();
        if bytes.get(4..8) == question.get(4..8)
            && let Ok(Packet::Heard(answer)) = packet::parse(bytes)
            && let (Some(server), IpAddr::V4(source)) = (answer.server_id, from.ip())
        {
            // A server's identifier may be an address of another network; both name it.
            servers.insert(if server.is_unspecified() { source } else { server });
        }
    }
    Ok(servers)
}

/// A DISCOVER (RFC 2131 section 4.4.1) of a locally administered address, which asks for answers by broadcast.
fn question(xid: [u8; 4], mac: [u8; 5]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&xid);
    bytes[10] = 0x80;
    bytes[28] = 0x02;
    bytes[29..34].copy_from_slice(&mac);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, 1, 55, 2, 1, 3, 255]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> PlanSubnet {
        toml::from_str(text).unwrap()
    }

    fn eth(address: [u8; 4]) -> Interface {
        let mut interface = Interface::default();
        (interface.name, interface.addresses) = ("eth0".into(), vec![(address.into(), 24)]);
        interface
    }

    #[test]
    fn each_interface_says_what_would_be_served_there() {
        let config = RackConfig::default();
        let lab = subnet(
            "id = 1\ncidr = \"10.77.0.0/24\"\ndhcp = true\ndynamic = [{ start = \"10.77.0.100\", end = \"10.77.0.120\" }]",
        );
        let here = on_interface(&config, &eth([10, 77, 0, 2]), std::slice::from_ref(&lab));
        assert_eq!(here.state, Verdict::Good);
        assert!(here.seen.contains("10.77.0.100-10.77.0.120") && here.seen.contains("not answered"), "{}", here.seen);
        let elsewhere = on_interface(&config, &eth([10, 78, 0, 2]), std::slice::from_ref(&lab));
        assert!(elsewhere.seen.contains("in no subnet"), "{}", elsewhere.seen);
        assert!(nowhere(&config, &lab, &[eth([10, 77, 0, 2])]).is_none());
        assert!(nowhere(&config, &lab, &[eth([10, 78, 0, 2])]).unwrap().remedy.contains("relay"));
        let open = PlanSubnet { strangers: Strangers::Enlist, ..lab };
        assert_eq!(on_interface(&config, &eth([10, 77, 0, 2]), &[open]).state, Verdict::Warning);
    }

    #[test]
    fn the_question_is_a_discover_that_our_own_server_can_read() {
        let Ok(Packet::Request(request)) = packet::parse(&question([1, 2, 3, 4], [5; 5])) else { panic!("no request") };
        assert_eq!((request.xid, request.mac.0[0]), (0x0102_0304, 2));
    }
}
