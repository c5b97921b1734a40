//! The way to the servers: a name is resolved once, each address is judged, and the connection goes to the judged address. A peer proxy, where the
//! plan names one, stands in between. Redirects are the client's business.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use http::{Request, Response, Uri, request};
use http_body_util::Empty;
use hyper::{
    body::{Bytes, Incoming},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::TcpStream;
use tower_service::Service;
use url::Url;

use super::{
    guard::{Forbidden, Guard},
    request::Refusal,
};
use crate::plan::PlanHandle;

/// How long a name may take to be resolved.
const RESOLVE_WAIT: Duration = Duration::from_secs(10);
/// The same where a peer proxy resolves it anyway.
const GLANCE: Duration = Duration::from_secs(2);
/// How long one address may take to accept.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const TRIES: usize = 4;
/// How long a server may take until its answer's head is here.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a connection to a server is kept without use.
const IDLE: Duration = Duration::from_secs(30);
/// Longest head of an answer, and the most that is read at once, in bytes.
const BUFFER: usize = 256 * 1_024;
/// Most fields of an answer.
const MAX_FIELDS: usize = 100;

/// Why a server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Forbidden(Forbidden),
    /// No name, no connection, no HTTP.
    Unreachable(String),
    Slow(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(why) => why.fmt(f),
            Self::Unreachable(why) => f.write_str(why),
            Self::Slow(what) => write!(f, "the server took too long {what}"),
        }
    }
}

impl Error for Failure {}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let (status, counter) = match failure {
            Failure::Forbidden(_) => (403, "refused_address"),
            Failure::Unreachable(_) => (502, "upstream_failed"),
            Failure::Slow(_) => (504, "upstream_failed"),
        };
        Self::new(status, counter, failure.to_string())
    }
}

/// Asks servers. One per thread, cheap to clone there.
#[derive(Clone)]
pub(super) struct Upstream {
    client: Client<Connector, Empty<Bytes>>,
    connector: Connector,
}

impl Upstream {
    pub(super) fn new(guard: Guard, plan: PlanHandle) -> Self {
        let connector = Connector { guard, plan, resolver: Arc::default() };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(8)
            .http1_max_buf_size(BUFFER)
            .http1_max_headers(MAX_FIELDS)
            .build(connector.clone());
        Self { client, connector }
    }

    /// Asks a server and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn ask(&self, parts: request::Parts) -> Result<Response<Incoming>, Failure> {
        let answer = self.client.request(Request::from_parts(parts, Empty::new()));
        let answer = tokio::time::timeout(HEAD_WAIT, answer).await.map_err(|_| Failure::Slow("to answer"))?;
        answer.map_err(|error| {
            let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
            let mut last = String::new();
            while let Some(e) = cause {
                if let Some(failure) = e.downcast_ref::<Failure>() {
                    return failure.clone();
                }
                last = e.to_string();
                cause = e.source();
            }
            Failure::Unreachable(format!("the server gave no answer: {last}"))
        })
    }

    /// Opens a connection for a tunnel. True: it leads to the peer proxy, which is to be asked for the rest of the way.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn open(&self, host: &str, port: u16) -> Result<(TcpStream, bool), Failure> {
        self.connector.connect(host, port).await
    }
}

/// A resolver, and the servers that it asks.
type Resolver = (Vec<IpAddr>, TokioResolver);

/// Connects to the server of an address, or to the peer.
#[derive(Clone)]
struct Connector {
    guard: Guard,
    plan: PlanHandle,
    resolver: Arc<Mutex<Option<Resolver>>>,
}

impl Connector {
    async fn connect(&self, host: &str, port: u16) -> Result<(TcpStream, bool), Failure> {
        self.guard.port(port).map_err(Failure::Forbidden)?;
        let peer = self.peer()?;
        let found = self.resolve(host, if peer.is_some() { GLANCE } else { RESOLVE_WAIT }).await;
        let judged = found.and_then(|found| self.judge(&found, port));
        match peer {
            None => Ok((dial(&judged?).await?, false)),
            // The peer may know names that nobody here does; a name that leads where none may go is refused all the same.
            Some((peer, peer_port)) => match judged {
                Err(Failure::Forbidden(why)) => Err(Failure::Forbidden(why)),
                _ => {
                    let found = self.resolve(&peer, RESOLVE_WAIT).await?;
                    let addresses: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, peer_port)).collect();
                    Ok((dial(&addresses).await?, true))
                }
            },
        }
    }

    /// The peer proxy of the plan.
    fn peer(&self) -> Result<Option<(String, u16)>, Failure> {
        let snapshot = self.plan.load();
        let settings = &snapshot.plan.settings.proxy;
        let Some(url) = settings.url.as_ref().filter(|_| settings.peer) else { return Ok(None) };
        let parsed = Url::parse(url).ok().filter(|u| u.scheme() == "http");
        let end =
            parsed.and_then(|u| Some((u.host_str()?.trim_matches(['[', ']']).to_owned(), u.port_or_known_default()?)));
        let why =
            || Failure::Unreachable(format!("the peer proxy \"{url}\" is no http://HOST:PORT; correct http_proxy"));
        end.map(Some).ok_or_else(why)
    }

    /// Those of the addresses that may be connected to.
    fn judge(&self, found: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let (mut good, mut bad) = (Vec::new(), None);
        for address in found.iter().map(|ip| SocketAddr::new(*ip, port)) {
            match self.guard.address(address) {
                Ok(()) => good.push(address),
                Err(forbidden) => bad = Some(forbidden),
            }
        }
        match bad {
            Some(forbidden) if good.is_empty() => Err(Failure::Forbidden(forbidden)),
            _ => Ok(good),
        }
    }

    /// The addresses of a name, by the servers that the plan names (MAAS: upstream_dns), or as the rack's host resolves names.
    async fn resolve(&self, host: &str, wait: Duration) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![ip]);
        }
        let servers = self.plan.load().plan.settings.upstream_dns.clone();
        let finding = async {
            if servers.is_empty() {
                let found = tokio::net::lookup_host((host, 0)).await.map_err(|e| e.to_string())?;
                Ok(found.map(|address| address.ip()).collect())
            } else {
                let resolver = self.resolver(servers).map_err(|e| e.to_string())?;
                let name = format!("{}.", host.trim_end_matches('.'));
                let found = resolver.lookup_ip(name).await.map_err(|e| e.to_string())?;
                Ok::<Vec<IpAddr>, String>(found.iter().collect())
            }
        };
        let mut found: Vec<IpAddr> = tokio::time::timeout(wait, finding)
            .await
            .map_err(|_| Failure::Slow("to be found by name"))?
            .map_err(|e| Failure::Unreachable(format!("{host} cannot be resolved: {e}")))?;
        found.dedup();
        found.sort_by_key(IpAddr::is_ipv6);
        match found.is_empty() {
            true => Err(Failure::Unreachable(format!("{host} has no address"))),
            false => Ok(found),
        }
    }

    /// The resolver for these servers, with its cache; made anew when the plan names others.
    fn resolver(&self, servers: Vec<IpAddr>) -> Result<TokioResolver, Box<dyn Error + Send + Sync>> {
        let mut held = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, resolver)) = held.as_ref().filter(|(of, _)| *of == servers) {
            return Ok(resolver.clone());
        }
        let config =
            ResolverConfig::from_name_servers(servers.iter().copied().map(NameServerConfig::udp_and_tcp).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        let resolver = builder.build()?;
        *held = Some((servers, resolver.clone()));
        Ok(resolver)
    }
}

async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut last = Failure::Unreachable("the server has no address".into());
    for address in addresses.iter().take(TRIES) {
        match tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).ok(); // Slower without, not wrong.
                return Ok(stream);
            }
            Ok(Err(error)) => last = Failure::Unreachable(format!("{address} cannot be reached: {error}")),
            Err(_) => last = Failure::Slow("to accept a connection"),
        }
    }
    Err(last)
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let (stream, proxied) = connector.connect(host, uri.port_u16().unwrap_or(80)).await?;
            Ok(Wire { io: TokioIo::new(stream), proxied })
        })
    }
}

/// A connection that knows whether a peer proxy is at its end: then requests name the whole address.
struct Wire {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The addresses of the regions (`HOST:PORT` each), as far as they can be resolved now.
pub(super) async fn addresses_of(regions: &[String]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for region in regions {
        if let Ok(addresses) = tokio::net::lookup_host(region).await {
            found.extend(addresses.map(|a| a.ip().to_canonical()));
        }
    }
    found
}
