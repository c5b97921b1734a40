//! Thousands of Redfish BMCs on the wire: one listener, over TLS or plain HTTP; the address that was called says which BMC is meant.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use actors::clock;
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, body::Bytes, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{Fleet, Powered, redfish};

/// No request that a BMC understands is longer.
const BODY: usize = 64 << 10;
/// Connections that the kernel keeps for us: a whole site is switched on at once.
const WAITING: u32 = 4_096;

/// Many Redfish BMCs. Cloned freely; it ends with its last handle. Its BMCs are reached through the [`Fleet`] that it stands for.
#[derive(Debug, Clone)]
pub struct Web(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fleet: Fleet<redfish::Bmc>,
    port: u16,
    tls: bool,
    heard: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Deref for Web {
    type Target = Fleet<redfish::Bmc>;

    fn deref(&self) -> &Self::Target {
        &self.0.fleet
    }
}

impl Web {
    /// Listens at `port` of every loopback address (0: a free one); events come by the receiver. `tls`: with one certificate of its own for all.
    ///
    /// # Errors
    /// When the port is taken, or no certificate can be made.
    pub fn start(port: u16, tls: bool) -> io::Result<(Self, mpsc::UnboundedReceiver<Powered>)> {
        let acceptor = if tls { Some(acceptor()?) } else { None };
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
        let listener = socket.listen(WAITING)?;
        let port = listener.local_addr()?.port();
        let (fleet, (tell, events)) = (Fleet::default(), mpsc::unbounded_channel());
        let heard = Arc::new(AtomicU64::new(0));
        let door = Door { fleet: Fleet::clone(&fleet), heard: heard.clone(), tell };
        let task = tokio::spawn(listen(listener, acceptor, door)).abort_handle();
        Ok((Self(Arc::new(Inner { fleet, port, tls, heard, task })), events))
    }

    /// Requests that its BMCs were sent.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// What to write into `power_address` for the BMC at that address.
    #[must_use]
    pub fn url(&self, address: Ipv4Addr) -> String {
        format!("{}://{address}:{}", if self.0.tls { "https" } else { "http" }, self.0.port)
    }
}

fn acceptor() -> io::Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(["bmc.yard".to_owned()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[derive(Clone)]
struct Door {
    fleet: Fleet<redfish::Bmc>,
    heard: Arc<AtomicU64>,
    tell: mpsc::UnboundedSender<Powered>,
}

async fn listen(listener: TcpListener, acceptor: Option<TlsAcceptor>, door: Door) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let Ok(SocketAddr::V4(called)) = stream.local_addr() else { continue };
        stream.set_nodelay(true).ok();
        let (door, acceptor) = (door.clone(), acceptor.clone());
        tokio::spawn(async move { door.open(stream, acceptor, *called.ip()).await });
    }
}

impl Door {
    async fn open(self, stream: TcpStream, acceptor: Option<TlsAcceptor>, bmc: Ipv4Addr) {
        match acceptor {
            None => self.serve(stream, bmc).await,
            Some(acceptor) => {
                // A client that does not like the certificate goes away.
                if let Ok(stream) = acceptor.accept(stream).await {
                    self.serve(stream, bmc).await;
                }
            }
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, bmc: Ipv4Addr) {
        let service = service_fn(|request| self.answer(request, bmc));
        // What breaks a connection is the client's to notice.
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn answer(&self, request: Request<Incoming>, bmc: Ipv4Addr) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let text = |name: header::HeaderName| head.headers.get(name).and_then(|v| v.to_str().ok());
        let basic = text(header::AUTHORIZATION).and_then(|v| v.strip_prefix("Basic "));
        let basic = basic.and_then(|b| STANDARD.decode(b).ok()).and_then(|b| String::from_utf8(b).ok());
        let request = redfish::Request {
            method: head.method.as_str(),
            path: head.uri.path(),
            token: head.headers.get("x-auth-token").and_then(|v| v.to_str().ok()),
            basic: basic.as_deref().and_then(|b| b.split_once(':')),
            if_match: text(header::IF_MATCH),
            body: &body,
        };
        self.heard.fetch_add(1, Ordering::Relaxed);
        let answer = self.fleet.with(bmc, |known| known.answer(&request, rand::random(), clock::now()));
        let answer = answer.unwrap_or_default();
        if let Some(event) = answer.event {
            self.tell.send(Powered { bmc, event }).ok();
        }
        tokio::time::sleep(answer.after).await;
        let Some(status) = answer.status else { return std::future::pending().await };
        let body = answer.body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut response = Response::builder().status(status).header("odata-version", "4.0");
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        if !body.is_empty() {
            response = response.header(header::CONTENT_TYPE, "application/json");
        }
        Ok(response.body(Full::new(body)).unwrap_or_default())
    }
}
