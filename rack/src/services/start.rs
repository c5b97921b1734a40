//! How each service starts: the one table. A new service is a variant of [`Service`] and a line here; the rest is its own file's and the supervisor's.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actors::{service::ServiceFault, shell::Registry};

use crate::{
    bodies::Bodies,
    boot::desk::BootDesk,
    config::{RackConfig, Service},
    dhcp::{self, DhcpConfig, DhcpHandles, Listen},
    dns::{self, DnsConfig},
    http::{self, HttpState},
    leases::LeaseTable,
    plan::PlanHandle,
    power::Drivers,
    proxy::{self, ProxyConfig, ProxyHandles, Whereabouts},
    report::Reporter,
    service::Serving,
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
        Service::Power => Ok(Box::new(place.drivers.clone())),
        Service::Dns => dns(place),
    }
}

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
    /// Where each listened last: who is started again takes the same port, for others name it.
    bound: Mutex<BTreeMap<Service, Vec<SocketAddr>>>,
}

impl Place {
    /// Where nothing has listened yet.
    #[must_use]
    pub fn new(
        config: RackConfig,
        plan: PlanHandle,
        leases: LeaseTable,
        bodies: Bodies,
        reporter: Reporter,
        registry: Registry,
        drivers: Drivers,
    ) -> Self {
        Self {
            config,
            plan,
            leases,
            bodies,
            reporter,
            registry,
            drivers,
            proxy: Whereabouts::default(),
            bound: Mutex::default(),
        }
    }

    pub(super) fn bound(&self) -> MutexGuard<'_, BTreeMap<Service, Vec<SocketAddr>>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where that service is to listen: where it did before, else as configured.
    fn listen(&self, service: Service, configured: SocketAddr) -> SocketAddr {
        self.bound().get(&service).and_then(|bound| bound.first().copied()).unwrap_or(configured)
    }

    /// The port of the machine-facing HTTP, which boot URLs name. It is started first.
    fn http_port(&self) -> u16 {
        self.listen(Service::Http, self.config.http).port()
    }
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
    let before = place.bound().get(&Service::Dhcp).cloned().unwrap_or_default();
    let before = before.iter().filter_map(|address| match address {
        SocketAddr::V4(v4) => Some(*v4),
        SocketAddr::V6(_) => None,
    });
    let listen = match &place.config.dhcp {
        Listen::At(_) if before.clone().next().is_some() => Listen::At(before.collect()),
        configured => configured.clone(),
    };
    let settings = DhcpConfig {
        listen,
        http_port: place.http_port(),
        state: place.config.state.clone(),
        peers: place.config.dhcp_peers.clone(),
    };
    let handles = DhcpHandles {
        plan: place.plan.clone(),
        leases: place.leases.clone(),
        reporter: place.reporter.clone(),
        registry: place.registry.clone(),
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
