//! The hands of the rack's own core: what it says of itself to the regions. When to say it is decided in `actors::agent`.

use std::{
    fs,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use actors::{
    agent::{Agent, AgentEffect},
    clock,
    core::{Moved, RecordError, TraceId},
    shell::{ActorRef, LocalBoxFuture, Perform},
};
use schema::{
    messages::link::{FromRack, Hello, RackInterface},
    net::{Cidr, MacAddr},
    plan::Listening,
    service::ServiceStatus,
    time::Timestamp,
};

use crate::link::Links;

/// The agent's hands. Cloned freely.
#[derive(Clone)]
pub struct Hands(Arc<Inner>);

struct Inner {
    runtime: tokio::runtime::Handle,
    /// Set once the links are dialled; a rack of a plan file has none.
    links: OnceLock<Links>,
}

impl Hands {
    /// Hands that carry their talk on that runtime.
    #[must_use]
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self(Arc::new(Inner { runtime, links: OnceLock::new() }))
    }

    /// From now on there are links.
    pub fn linked(&self, links: Links) {
        self.0.links.set(links).ok(); // Once only, by the app.
    }
}

impl Perform<Agent> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    /// Nothing of it is kept: plan and orders stand in the store, links and services are found anew at every start.
    fn record(&self, _moved: Moved<Agent>) -> LocalBoxFuture<'static, Result<(), RecordError>> {
        Box::pin(async { Ok(()) })
    }

    fn perform(&self, me: &ActorRef<Agent>, effect: AgentEffect, trace: TraceId) {
        let Some(links) = self.0.links.get().cloned() else { return };
        match effect {
            AgentEffect::SayHello { address } => {
                let hello = hello(&me.snapshot());
                self.0.runtime.spawn(async move { links.say_hello(&address, hello, trace).await });
            }
            AgentEffect::SayPlanInForce { generation } => {
                self.0.runtime.spawn(async move {
                    links.say(&FromRack::PlanInForce { generation }, trace).await;
                });
            }
        }
    }
}

/// What the rack is and holds.
fn hello(agent: &Agent) -> Hello {
    let mut interfaces = interfaces();
    let places = |status: &ServiceStatus| {
        let service = status.service.clone();
        status.addresses.clone().into_iter().map(move |address| Listening { service: service.clone(), address })
    };
    let listening: Vec<_> = agent.services.values().flat_map(places).collect();
    interfaces.extend(on_loopback(&listening));
    Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: hostname(),
        plan: agent.plan,
        interfaces,
        listening,
        orders: agent.orders.iter().map(|(machine, attempt)| (*machine, *attempt)).collect(),
        now: clock::now(),
    }
}

/// The loopback addresses that services were bound to on purpose. The kernel lists 127.0.0.1 alone, yet takes all of 127.0.0.0/8:
/// `dev` and tests give each rack addresses of its own there, a /24 for each subnet.
fn on_loopback(listening: &[Listening]) -> Option<RackInterface> {
    let own = listening.iter().map(|l| l.address.ip()).filter(|ip| ip.is_loopback() && ip.is_ipv4());
    let mut addresses: Vec<_> = own.filter_map(|ip| Cidr::new(ip, 24).ok().map(|cidr| (ip, cidr))).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.retain(|(ip, _)| *ip != IpAddr::from([127, 0, 0, 1]));
    (!addresses.is_empty()).then(|| RackInterface { name: "lo".into(), mac: None, addresses })
}

/// This host's name as the kernel has it.
#[must_use]
pub fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "rack".into() } else { name.into() }
}

/// This host's network interfaces with their addresses, loopback too: `dev` and tests live there.
#[must_use]
pub fn interfaces() -> Vec<RackInterface> {
    let mut found: Vec<RackInterface> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let at = found.iter().position(|i| i.name == entry.interface_name);
        let at = at.unwrap_or_else(|| {
            found.push(RackInterface { name: entry.interface_name.clone(), mac: None, addresses: Vec::new() });
            found.len() - 1
        });
        let (Some(address), Some(interface)) = (entry.address, found.get_mut(at)) else { continue };
        if let Some(mac) = address.as_link_addr().and_then(|link| link.addr()) {
            interface.mac = (mac != [0; 6]).then_some(MacAddr(mac));
        }
        let netmask = entry.netmask;
        let network = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => {
                let mask = netmask.as_ref().and_then(|m| m.as_sockaddr_in()).map_or(0, |m| u32::from(m.ip()));
                Some((IpAddr::V4(v4.ip()), mask.count_ones()))
            }
            (None, Some(v6)) => {
                let mask = netmask.as_ref().and_then(|m| m.as_sockaddr_in6()).map_or(0, |m| u128::from(m.ip()));
                Some((IpAddr::V6(v6.ip()), mask.count_ones()))
            }
            _ => None,
        };
        if let Some((ip, prefix)) = network
            && let Ok(cidr) = Cidr::new(ip, u8::try_from(prefix).unwrap_or(0))
        {
            interface.addresses.push((ip, cidr));
        }
    }
    found
}
