//! The machine-facing HTTP of a rack (port 5248): its state and the shape of a connection. Routes and the server live below.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_web::HttpRequest;

use crate::{bodies::Bodies, leases::LeaseTable, plan::PlanHandle, proxy::Whereabouts, report::Reporter};

mod fallback;
pub mod files;
mod images;
pub mod metadata;
pub(crate) mod send;
mod server;
mod wire;

pub(crate) use server::listen;
pub use server::{HttpConfig, Running, StartError, start};

/// What every handler of this server may read. In handlers: `web::Data<HttpState>`.
#[derive(Clone)]
pub struct HttpState {
    pub plan: PlanHandle,
    pub leases: LeaseTable,
    pub bodies: Bodies,
    pub reporter: Reporter,
    /// What the metadata service remembers; `default()` once per rack.
    pub metadata: metadata::Memory,
    /// Where the package proxy listens while it runs here.
    pub proxy: Whereabouts,
}

/// The two ends of a connection; in handlers by [`ends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The machine.
    pub peer: SocketAddr,
    /// The rack's address and port as that machine reaches it: what URLs in answers must name.
    pub local: SocketAddr,
}

/// The two ends of the connection that `request` came on. Never trusts a header.
/// In a test without a connection: the test's peer address and the application's configured address.
#[must_use]
pub fn ends(request: &HttpRequest) -> Ends {
    request.conn_data::<Ends>().copied().unwrap_or_else(|| Ends {
        peer: request.peer_addr().unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
        local: request.app_config().local_addr(),
    })
}
