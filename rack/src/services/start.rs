//! How each service starts: the one table. A new service is a variant of [`Service`] and a line here; the rest is its own file's and the supervisor's.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actors::{service::ServiceFault, shell::Registry};

use crate::{
    bodies::Bodies,
    boot::desk::BootDesk,
    config::{RackConfig, Service},
    dhcp::{self, DhcpConfig, DhcpHandles, Listen, Neighbours},
    disk::Disk,
    dns::{self, DnsConfig},
    http::{self, HttpState},
    leases::LeaseTable,
    ntp::{self, NtpConfig},
    plan::PlanHandle,
    power::Drivers,
    proxy::{self, ProxyConfig, ProxyHandles, Whereabouts},
    report::Reporter,
    service::Serving,
    syslog::{self, SyslogConfig, queue::Lines},
    tftp,
};

/// A service that runs.
pub type Started = Box<dyn Serving>;

/// Starts that service. Runs on a thread that may block, inside the rack's tokio runtime.
///
/// # Errors
/// Why it cannot, with the remedy.
pub(super) fn start(service: Service, place: &Place) -> Result<Started, ServiceFault> {
    match service {
        Service::Http => http(place),
        Service::Tftp => tftp(place),
        Service::Dhcp => dhcp(place),
        Service::Proxy => proxy(place),
        Service::Ntp => ntp(place),
        Service::Syslog => syslog(place),
        Service::Power => Ok(Box::new(place.drivers.clone())),
        Service::Dns => dns(place),
    }
}

/// Where each service listened last.
pub type Bound = Mutex<BTreeMap<Service, Vec<SocketAddr>>>;

/// What services are started with: the settings, and the handles that they share.
pub struct Place {
    pub config: RackConfig,
    pub plan: PlanHandle,
    pub leases: LeaseTable,
    pub bodies: Bodies,
    pub reporter: Reporter,
    pub registry: Registry,
    pub drivers: Drivers,
    /// Where the package proxy listens while it runs: machines are told of it.
    pub proxy: Whereabouts,
    /// Where the machines' log lines wait.
    pub lines: Lines,
    /// What DHCP exchanges with the region.
    pub neighbours: Neighbours,
    /// What the state directory's disk refuses.
    pub disk: Disk,
    /// Where each listened last: who is started again takes the same port, for others name it.
    pub bound: Bound,
}

impl Place {
    pub(super) fn bound(&self) -> MutexGuard<'_, BTreeMap<Service, Vec<SocketAddr>>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where that service is to listen: where it did before, else as configured.
    fn listen(&self, service: Service, configured: SocketAddr) -> SocketAddr {
        self.bound().get(&service).and_then(|bound| bound.first().copied()).unwrap_or(configured)
    }

    /// As [`Place::listen`], for a service of several addresses.
    fn listen_at(&self, service: Service, configured: &Listen) -> Listen {
        let before = self.bound().get(&service).cloned().unwrap_or_default();
        let before: Vec<_> = before.into_iter().filter_map(v4).collect();
        match configured {
            Listen::At(_) if !before.is_empty() => Listen::At(before),
            configured => configured.clone(),
        }
    }

    /// The port of the machine-facing HTTP, which boot URLs name. It is started first.
    fn http_port(&self) -> u16 {
        self.listen(Service::Http, self.config.http).port()
    }
}

fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    if let SocketAddr::V4(v4) = address { Some(v4) } else { None }
}

fn ntp(place: &Place) -> Result<Started, ServiceFault> {
    let (listen, state) = (place.listen_at(Service::Ntp, &place.config.ntp.listen), place.config.state.clone());
    Ok(Box::new(ntp::start(NtpConfig { listen, state, ..place.config.ntp.clone() }, place.plan.clone())?))
}

fn syslog(place: &Place) -> Result<Started, ServiceFault> {
    let listen = place.listen_at(Service::Syslog, &place.config.syslog.listen);
    let config = SyslogConfig { listen, ..place.config.syslog.clone() };
    Ok(Box::new(syslog::start(config, place.plan.clone(), place.leases.clone(), place.lines.clone())?))
}

fn http(place: &Place) -> Result<Started, ServiceFault> {
    let state = HttpState {
        plan: place.plan.clone(),
        leases: place.leases.clone(),
        bodies: place.bodies.clone(),
        reporter: place.reporter.clone(),
        metadata: http::metadata::Memory::default(),
        proxy: place.proxy.clone(),
    };
    let listen = place.listen(Service::Http, place.config.http);
    Ok(Box::new(http::start(http::HttpConfig { listen, ..http::HttpConfig::default() }, state)?))
}

fn proxy(place: &Place) -> Result<Started, ServiceFault> {
    let configured = &place.config.proxy;
    let listen = place.listen(Service::Proxy, configured.listen);
    let handles = ProxyHandles {
        state: place.config.state.clone(),
        regions: place.config.regions.clone(),
        plan: place.plan.clone(),
        known: place.proxy.clone(),
    };
    Ok(Box::new(proxy::start(ProxyConfig { listen, ..configured.clone() }, handles)?))
}

fn tftp(place: &Place) -> Result<Started, ServiceFault> {
    let desk = BootDesk::new(
        place.plan.clone(),
        place.leases.clone(),
        place.bodies.clone(),
        place.reporter.clone(),
        place.http_port(),
    );
    let SocketAddr::V4(listen) = place.listen(Service::Tftp, place.config.tftp.into()) else {
        return Err(ServiceFault { why: "TFTP is served on IPv4 alone".into(), remedy: "set tftp.listen".into() });
    };
    Ok(Box::new(tftp::start(tftp::TftpConfig { listen, ..tftp::TftpConfig::default() }, Arc::new(desk))?))
}

fn dhcp(place: &Place) -> Result<Started, ServiceFault> {
    let settings = DhcpConfig {
        listen: place.listen_at(Service::Dhcp, &place.config.dhcp),
        http_port: place.http_port(),
        state: place.config.state.clone(),
        peers: place.config.dhcp_peers.clone(),
        seek: place.config.dhcp_seek,
    };
    let handles = DhcpHandles {
        plan: place.plan.clone(),
        leases: place.leases.clone(),
        reporter: place.reporter.clone(),
        registry: place.registry.clone(),
        neighbours: place.neighbours.clone(),
        disk: place.disk.clone(),
    };
    Ok(Box::new(dhcp::start(settings, handles)?))
}

fn dns(place: &Place) -> Result<Started, ServiceFault> {
    let before = place.bound().get(&Service::Dns).cloned().unwrap_or_default();
    let listen = match &place.config.dns.listen {
        dns::Listen::At(_) if !before.is_empty() => dns::Listen::At(before),
        configured => configured.clone(),
    };
    Ok(Box::new(dns::start(DnsConfig { listen, ..place.config.dns.clone() }, place.plan.clone())?))
}
