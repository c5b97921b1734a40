//! The region's own DNS server: its zones over UDP and TCP, and their transfer to those who may have it. It asks nobody else.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use actors::dns::{
    Query, Transport, answer,
    listen::{Connections, Listener, Server},
    transfer::transfer,
    wire::{AXFR, IN, IXFR},
};
use schema::net::Cidr;
use tracing::{debug, info};

use crate::app::App;

/// A running server; dropping it ends it.
pub struct Running {
    listeners: Vec<Listener>,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "DNS cannot listen on {address}: {source}; choose another dns.listen, or stop what holds the port (`ss -lunpt`)"
)]
pub struct StartError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::address).collect()
    }
}

/// Serves on `address`, on the present runtime. The wildcard is served as each address that this host has now: an answer over UDP leaves
/// from the address that was asked.
///
/// # Errors
/// [`StartError`].
pub(crate) fn start(app: &App) -> Result<Running, StartError> {
    let address = app.config.dns_listen;
    let desk = Arc::new(Desk {
        app: app.clone(),
        transfer: app.config.dns_transfer.clone(),
        draw: AtomicU32::new(rand::random()),
    });
    let connections = Connections::default();
    let open = |ip: IpAddr| {
        let address = SocketAddr::new(ip, address.port());
        Listener::open(address, &desk, &connections).map_err(|source| StartError { address, source })
    };
    let listeners: Vec<_> = reached(address.ip()).into_iter().map(open).collect::<Result<_, _>>()?;
    let at: Vec<_> = listeners.iter().map(|l| l.address().to_string()).collect();
    info!(addresses = at.join(" "), "the region's zones are served");
    Ok(Running { listeners })
}

/// The addresses that `listen` stands for.
#[must_use]
pub fn reached(listen: IpAddr) -> Vec<IpAddr> {
    if !listen.is_unspecified() {
        return vec![listen];
    }
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|entry| entry.address);
    let mut own: Vec<IpAddr> = all
        .filter_map(|address| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => Some(v4.ip().into()),
            (None, Some(v6)) if listen.is_ipv6() && !v6.ip().is_unicast_link_local() => Some(v6.ip().into()),
            _ => None,
        })
        .collect();
    own.sort_unstable();
    own.dedup();
    own
}

struct Desk {
    app: App,
    /// Who may have a zone as a whole.
    transfer: Vec<Cidr>,
    draw: AtomicU32,
}

impl Desk {
    fn answer(&self, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> bool {
        answer(packet, &self.app.names.zones(), transport, self.draw.fetch_add(1, Ordering::Relaxed), out)
    }

    /// The messages of a transfer that is asked for and permitted.
    fn transfer(&self, message: &[u8], peer: IpAddr) -> Option<Vec<Vec<u8>>> {
        let query = Query::read(message).ok().filter(|q| [AXFR, IXFR].contains(&q.rtype) && q.class == IN)?;
        if !self.transfer.iter().any(|network| network.contains(peer.to_canonical())) {
            debug!(%peer, "a zone transfer was refused; name its network in dns.transfer");
            return None;
        }
        transfer(&query, &self.app.names.zones())
    }
}

impl Server for Desk {
    fn datagram(&self, packet: &[u8], _: SocketAddr, _: &Arc<UdpSocket>, out: &mut Vec<u8>) -> bool {
        self.answer(packet, Transport::Udp, out)
    }

    async fn message(&self, message: &[u8], peer: SocketAddr) -> Vec<Vec<u8>> {
        if let Some(messages) = self.transfer(message, peer.ip()) {
            return messages;
        }
        let mut out = Vec::new();
        if self.answer(message, Transport::Tcp, &mut out) { vec![out] } else { Vec::new() }
    }
}
