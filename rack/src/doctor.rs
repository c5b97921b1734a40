//! What a rack needs of its host, checked a line each. Changes nothing; ports are tried and given back.

use std::{
    fs,
    net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use actors::clock;
use schema::{
    service::{Health, ServiceStatus},
    time::Timestamp,
};
use serde::Serialize;

use crate::{
    agent,
    app::IDENTITY,
    config::{RackConfig, Service},
    control,
    dhcp::{Listen, seek},
    dns,
    ntp::{self, chrony},
    places,
    power::{PowerSettings, ipmi::IpmiBy},
    syslog,
};

mod network;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: String,
    pub state: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    /// It works, with a risk.
    Warning,
    /// A service cannot run.
    Bad,
}

/// Room for one image and what comes with it.
const DISK: u64 = 4 << 30;
/// How long other DHCP servers have to answer; dnsmasq pings an address for 3 s before it offers it.
const LOOK: Duration = Duration::from_secs(4);
/// Before this no clock is right: 2026-01-01.
const PAST: i64 = 1_767_225_600;
/// Linux capabilities by number (capabilities(7)).
const NET_BIND_SERVICE: u32 = 10;
const NET_RAW: u32 = 13;

/// All checks for a rack with those settings.
#[must_use]
pub fn checks(config: &RackConfig) -> Vec<Finding> {
    // A rack that runs holds its ports itself, and knows how its services are.
    let mut found = match control::services(&config.state) {
        Ok(services) => services.iter().filter(|s| s.health != Health::Off).map(running).collect(),
        Err(_) => ports(config),
    };
    found.extend(capabilities(config));
    if config.services.contains(&Service::Ntp) {
        found.push(timekeeper(config));
    }
    if config.services.contains(&Service::Power) {
        found.push(ipmitool(&config.power));
    }
    if config.services.contains(&Service::Proxy) {
        found.push(cache(config));
    }
    if config.services.contains(&Service::Dhcp) && config.dhcp == Listen::Interfaces && config.dhcp_seek {
        found.extend(other_servers(config));
    }
    found.extend([time(clock::now()), disk(&config.state), interfaces(), source(config)]);
    found.extend(network::outlook(config));
    found
}

/// A service of the rack that runs on this host.
fn running(status: &ServiceStatus) -> Finding {
    let check = format!("service {}", status.service);
    let addresses: Vec<_> = status.addresses.iter().map(ToString::to_string).collect();
    let error = status.last_error.as_ref().map(|e| (e.why.clone(), e.remedy.as_str()));
    let (why, remedy) = error.unwrap_or_else(|| ("it does not serve".into(), "see the rack's log"));
    match status.health {
        Health::Running | Health::Off => good(&check, format!("runs since {} {}", status.since, addresses.join(" "))),
        Health::Degraded => finding(&check, Verdict::Warning, why, remedy),
        Health::Dead => finding(&check, Verdict::Bad, why, remedy),
    }
}

/// What answers a DISCOVER on this host's links, before anything of ours does. Nothing is taken of what is offered.
fn other_servers(config: &RackConfig) -> Vec<Finding> {
    let check = "other DHCP servers";
    let remedy = "turn that server off, or set beside_foreign_dhcp on the subnet if both shall serve; until then a rack offers nothing there";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let looked = runtime.and_then(|runtime| {
        // Of its own thread: the caller may be in a runtime already.
        let look = move || runtime.block_on(seek::look(LOOK));
        std::thread::spawn(look).join().unwrap_or_else(|_| Err(std::io::Error::other("the search ended by a fault")))
    });
    match looked {
        Err(e) => {
            let remedy = "run as root or with CAP_NET_RAW, or set dhcp.seek_foreign = false";
            vec![finding(check, Verdict::Warning, format!("could not be looked for: {e}"), remedy)]
        }
        Ok(found) => {
            let found: Vec<_> = found.into_iter().filter(|f| !config.dhcp_peers.contains(&f.server)).collect();
            if found.is_empty() {
                return vec![good(check, format!("none answered within {} s", LOOK.as_secs()))];
            }
            let seen = |f: seek::Found| format!("{} ({}) answers on {}", f.server, f.mac, f.interface);
            found.into_iter().map(|f| finding(check, Verdict::Bad, seen(f), remedy)).collect()
        }
    }
}

fn good(check: &str, seen: impl Into<String>) -> Finding {
    Finding { check: check.into(), state: Verdict::Good, seen: seen.into(), remedy: String::new() }
}

fn finding(check: &str, state: Verdict, seen: impl Into<String>, remedy: &str) -> Finding {
    Finding { check: check.into(), state, seen: seen.into(), remedy: remedy.into() }
}

fn ports(config: &RackConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut port = |service: Service, proto: &str, address: SocketAddr, tried: std::io::Result<()>| {
        let check = format!("port {} {proto}/{}", service.name(), address.port());
        found.push(match tried {
            Ok(()) => good(&check, format!("{address} is free")),
            Err(e) => {
                let remedy =
                    "stop what holds the port (`ss -lunpt`), run with CAP_NET_BIND_SERVICE, or set another address";
                finding(&check, Verdict::Bad, format!("{address}: {e}"), remedy)
            }
        });
    };
    let has = |service| config.services.contains(&service);
    if has(Service::Http) {
        port(Service::Http, "tcp", config.http, TcpListener::bind(config.http).map(drop));
    }
    if has(Service::Proxy) {
        port(Service::Proxy, "tcp", config.proxy.listen, TcpListener::bind(config.proxy.listen).map(drop));
    }
    if has(Service::Tftp) {
        port(Service::Tftp, "udp", config.tftp.into(), UdpSocket::bind(config.tftp).map(drop));
    }
    if has(Service::Ntp) {
        // The plan is not known here: any address of the host may turn out to be one of its subnets.
        for address in places::candidates(&config.ntp.listen, ntp::PORT) {
            port(Service::Ntp, "udp", address.into(), places::udp(address).map(drop));
        }
    }
    if has(Service::Syslog) {
        for address in places::candidates(&config.syslog.listen, syslog::PORT) {
            port(Service::Syslog, "udp", address.into(), places::udp(address).map(drop));
            port(Service::Syslog, "tcp", address.into(), TcpListener::bind(address).map(drop));
        }
    }
    if has(Service::Dhcp) {
        let any = SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, schema::ports::DHCP.number);
        let listen = match &config.dhcp {
            Listen::Interfaces => vec![any],
            Listen::At(addresses) => addresses.clone(),
        };
        for address in listen {
            port(Service::Dhcp, "udp", address.into(), UdpSocket::bind(address).map(drop));
        }
    }
    if has(Service::Dns) {
        for address in dns_addresses(config) {
            let tried = UdpSocket::bind(address).and_then(|_| TcpListener::bind(address).map(drop));
            port(Service::Dns, "udp and tcp", address, tried);
        }
    }
    found
}

/// Where DNS is to be served; without a plan yet, on each address of this host but loopback. The wildcard is never tried: a resolver
/// of the host on 127.0.0.53 does not stand in the way.
fn dns_addresses(config: &RackConfig) -> Vec<SocketAddr> {
    match &config.dns.listen {
        dns::Listen::At(addresses) => addresses.clone(),
        dns::Listen::Subnets { port } => {
            let own = agent::interfaces().into_iter().flat_map(|i| i.addresses).map(|(address, _)| address);
            own.filter(|ip| ip.is_ipv4() && !ip.is_loopback()).map(|ip| SocketAddr::new(ip, *port)).collect()
        }
    }
}

/// Whether this process holds that capability, by its number.
pub(crate) fn capable(bit: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map_or("0", str::trim);
    u64::from_str_radix(effective, 16).unwrap_or(0) & (1 << bit) != 0
}

fn capabilities(config: &RackConfig) -> Vec<Finding> {
    let dhcp = config.services.contains(&Service::Dhcp) && config.dhcp == Listen::Interfaces;
    let names =
        config.services.contains(&Service::Dns) && dns_addresses(config).iter().any(|a| (1..1_024).contains(&a.port()));
    let ntp = config.services.contains(&Service::Ntp) && config.ntp.listen == Listen::Interfaces;
    let low = names || config.services.contains(&Service::Tftp) && config.tftp.port() < 1_024;
    let needed = [
        (dhcp || low || ntp, NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", "ports below 1024"),
        (dhcp, NET_RAW, "CAP_NET_RAW", "answers to machines that have no address yet"),
    ];
    let check = |(_, bit, name, what): (bool, u32, &str, &str)| {
        let check = format!("capability {name}");
        if capable(bit) {
            good(&check, "held")
        } else {
            let remedy = format!("run as root, or with AmbientCapabilities={name}: it is needed for {what}");
            finding(&check, Verdict::Bad, "not held", &remedy)
        }
    };
    needed.into_iter().filter(|(needed, ..)| *needed).map(check).collect()
}

fn ipmitool(power: &PowerSettings) -> Finding {
    let tool = &power.ipmitool;
    let candidates: Vec<PathBuf> = if tool.components().count() > 1 {
        vec![tool.into()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(tool)).collect()
    };
    match candidates.iter().find(|file| file.is_file()) {
        Some(file) => good("ipmitool", file.display().to_string()),
        None => {
            let (state, remedy) = match power.ipmi {
                IpmiBy::Native => (
                    Verdict::Warning,
                    "BMCs of IPMI 1.5, or without cipher suites 17 and 3, need it (apt-get install ipmitool); others do not",
                ),
                IpmiBy::Ipmitool => (
                    Verdict::Bad,
                    "install the package ipmitool (apt-get install ipmitool), or set [power] ipmi to \"native\"",
                ),
            };
            finding("ipmitool", state, format!("{} is not here", tool.display()), remedy)
        }
    }
}

/// Who will answer for NTP, and who keeps the host's clock.
fn timekeeper(config: &RackConfig) -> Finding {
    let keepers = chrony::keepers(None);
    let kept = match keepers.as_slice() {
        [] => "nobody keeps this host's clock".to_owned(),
        names => format!("{} keeps this host's clock and is left alone", names.join(", ")),
    };
    match (config.ntp.server, chrony::installed()) {
        (ntp::Server::Chrony, None) => {
            let remedy = "install the package chrony, or set ntp.server to auto";
            finding("ntp", Verdict::Bad, "ntp.server is chrony, and chronyd is not installed", remedy)
        }
        (ntp::Server::Own, _) | (_, None) if keepers.is_empty() => {
            let remedy = "install the package chrony: the rack then follows ntp_servers by itself";
            finding("ntp", Verdict::Warning, format!("our own server will answer; {kept}"), remedy)
        }
        (ntp::Server::Own, _) | (_, None) => good("ntp", format!("our own server will answer; {kept}")),
        (_, Some(programs)) => good("ntp", format!("{} will answer; {kept}", programs.chronyd.display())),
    }
}

/// Whether this host's clock can be right, and is kept so.
#[must_use]
pub fn time(now: Timestamp) -> Finding {
    let remedy = "run an NTP client: nodes whose clock differs by more than 5 minutes are refused";
    if now.seconds() < PAST {
        return finding("clock", Verdict::Bad, format!("it says {now}"), remedy);
    }
    let ntp = ["/run/systemd/timesync/synchronized", "/run/chrony", "/var/lib/ntpsec", "/run/ntpd.pid"];
    if ntp.iter().any(|path| Path::new(path).exists()) {
        good("clock", format!("{now}, kept by NTP"))
    } else {
        finding("clock", Verdict::Warning, format!("{now}; no NTP client was found on this host"), remedy)
    }
}

/// Whether there is room for images below that directory.
#[must_use]
pub fn disk(state: &Path) -> Finding {
    let existing = state.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let remedy = "free some space: images are kept below the state directory";
    match nix::sys::statvfs::statvfs(existing) {
        Err(e) => {
            finding("disk", Verdict::Bad, format!("{}: {e}", existing.display()), "make the state directory readable")
        }
        Ok(fs) => {
            let free = fs.blocks_available().saturating_mul(fs.fragment_size());
            let seen = format!("{} MiB free at {}", free >> 20, existing.display());
            match free {
                f if f >= DISK => good("disk", seen),
                f if f >= DISK / 8 => finding("disk", Verdict::Warning, seen, remedy),
                _ => finding("disk", Verdict::Bad, seen, remedy),
            }
        }
    }
}

/// Whether the file system has room for what the package proxy may keep. It never fills it: a small one just keeps less.
fn cache(config: &RackConfig) -> Finding {
    let dir = config.proxy.dir.clone().unwrap_or_else(|| config.state.join("proxy"));
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let bound = config.proxy.cache;
    match nix::sys::statvfs::statvfs(existing) {
        Err(e) => {
            finding("package cache", Verdict::Bad, format!("{}: {e}", existing.display()), "make proxy.dir readable")
        }
        Ok(fs) => {
            let room = fs.blocks_available().saturating_mul(fs.fragment_size());
            let seen = format!("up to {} MiB, {} MiB free at {}", bound >> 20, room >> 20, existing.display());
            let remedy =
                "set proxy.cache_mebibytes to what the disk has, or proxy.dir to a larger one; until then less is kept";
            if room >= bound {
                good("package cache", seen)
            } else {
                finding("package cache", Verdict::Warning, seen, remedy)
            }
        }
    }
}

fn interfaces() -> Finding {
    let addresses = agent::interfaces().into_iter().flat_map(|interface| {
        interface.addresses.into_iter().map(move |(ip, cidr)| (interface.name.clone(), ip, cidr))
    });
    let seen: Vec<_> = addresses
        .filter(|(_, ip, _)| ip.is_ipv4() && !ip.is_loopback())
        .map(|(name, ip, cidr)| format!("{name} {ip}/{}", cidr.prefix()))
        .collect();
    if seen.is_empty() {
        let remedy = "give an interface an address in the subnet that this rack is to serve";
        return finding("interfaces", Verdict::Warning, "no IPv4 address but loopback", remedy);
    }
    good("interfaces", seen.join(", "))
}

fn source(config: &RackConfig) -> Finding {
    match (&config.plan, config.regions.is_empty()) {
        (Some(path), _) if path.is_file() => good("plan", path.display().to_string()),
        (Some(path), _) => {
            finding("plan", Verdict::Bad, format!("{} is not here", path.display()), "give the path of a plan file")
        }
        (None, true) => {
            finding("region", Verdict::Bad, "none is set", "set region.addresses in rack.toml, or give --plan FILE")
        }
        (None, false) => match actors::link::ca::RackIdentity::load(&config.state.join(IDENTITY)) {
            Ok(identity) => good("region", format!("enrolled as {} with {}", identity.rack, config.regions.join(", "))),
            Err(e) => {
                let remedy = "run `hostler rack enrol --region HOST:PORT --token T` with a token of the region";
                finding("region", Verdict::Bad, format!("not enrolled: {e}"), remedy)
            }
        },
    }
}
