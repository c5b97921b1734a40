//! The HTTP server's life: listener, threads, the door between the file path and actix-web, and the end. Answers nothing itself.

use std::{
    cell::Cell,
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    thread,
    time::Duration,
};

use actix_http::HttpService;
use actix_service::{Service, ServiceFactory, map_config};
use actix_web::{App, dev::AppConfig, web};
use schema::service::Health;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    Ends, HttpState, fallback,
    images::{Crowd, Parting, converse},
    metadata,
    wire::Wire,
};
use crate::{
    boot::desk::{BootDesk, Sent},
    service::{Meter, Serving, Stopping, alive},
};

/// Where and how to serve.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads; at least 1.
    pub workers: usize,
    /// Connections that one thread holds at once; beyond, new ones wait in the kernel's queue.
    pub connections: usize,
    /// How long connections may go on after a stop.
    pub grace: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5_248)),
            workers: thread::available_parallelism().map_or(2, usize::from).min(4),
            connections: 4_096,
            grace: Duration::from_secs(5),
        }
    }
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or the address is not ours.
    #[error(
        "HTTP cannot listen on {listen}: {source}; stop the server that holds the port, or set another address or port"
    )]
    Bind { listen: SocketAddr, source: io::Error },
    /// The kernel refused a thread or its runtime.
    #[error("HTTP cannot start its threads: {0}; free some memory or raise the limit of threads")]
    Thread(io::Error),
}

/// A running server; dropping it stops it without waiting.
pub struct Running {
    address: SocketAddr,
    meter: Meter,
    sent: Sent,
    stop: CancellationToken,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, lets requests end for the configured grace, and returns when the threads are gone.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let threads = std::mem::take(&mut self.threads);
        let join = move || threads.into_iter().for_each(|t| drop(t.join()));
        tokio::task::spawn_blocking(join).await.ok(); // A panic was already logged.
    }
}

impl Serving for Running {
    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    fn health(&self) -> Health {
        alive(&self.threads)
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let mut counters = self.meter.counters();
        counters.append(&mut self.sent.named());
        counters
    }

    fn stop(self: Box<Self>) -> Stopping {
        Box::pin(Self::stop(*self))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Binds the port and starts serving.
///
/// # Errors
/// [`StartError`] when the port cannot be had or a thread cannot be made.
pub fn start(config: HttpConfig, state: HttpState) -> Result<Running, StartError> {
    let failed = |source| StartError::Bind { listen: config.listen, source };
    let listener = listen(config.listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // One desk for all threads, so that an absent body is reported once.
    let desk = BootDesk::new(
        state.plan.clone(),
        state.leases.clone(),
        state.bodies.clone(),
        state.reporter.clone(),
        address.port(),
    );
    let (stop, meter) = (CancellationToken::new(), Meter::new("http", &["connections", "accept_failed"]));
    let (sent, mut threads) = (desk.sent.clone(), Vec::new());
    for number in 0..config.workers.max(1) {
        let listener = listener.try_clone().map_err(StartError::Thread)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (state, desk, config) = (state.clone(), desk.clone(), config.clone());
        let (stop, meter) = (stop.clone(), meter.clone());
        let work = move || {
            let door = Door { stop, meter, limit: config.connections, open: Rc::default() };
            tokio::task::LocalSet::new().block_on(&runtime, work(listener, state, desk, config, door));
        };
        threads.push(thread::Builder::new().name(format!("http-{number}")).spawn(work).map_err(StartError::Thread)?);
    }
    Ok(Running { address, meter, sent, stop, threads })
}

/// A listening socket that several threads may accept from.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let kind = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(kind, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

/// One thread: its own accepts, its own connections, its own actix-web.
async fn work(listener: std::net::TcpListener, state: HttpState, desk: BootDesk, config: HttpConfig, door: Door) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("HTTP lost its socket: {error}; restart the rack"),
    };
    let shared = desk.clone();
    let app = App::new()
        .app_data(web::Data::new(state.clone()))
        .configure(move |routes| metadata::configure(routes, &state))
        .default_service(web::to(move |request| fallback::serve(shared.clone(), request)));
    let service = HttpService::build()
        .keep_alive(Duration::from_secs(60))
        .client_request_timeout(Duration::from_secs(10))
        .on_connect_ext(|wire: &Wire, data| {
            if let Ok(ends) = ends_of(wire.stream()) {
                data.insert(ends);
            }
        })
        .h1(map_config(app, |()| AppConfig::default()));
    let Ok(service) = service.new_service(()).await else {
        return tracing::error!("HTTP could not make its routes; restart the rack");
    };
    let service = Rc::new(service);
    while let Some(stream) = door.accept(&listener).await {
        let (desk, service, held) = (desk.clone(), Rc::clone(&service), Held::new(&door.open));
        let crowd = Crowd { open: Rc::clone(&door.open), limit: door.limit };
        let stop = door.stop.clone();
        tokio::task::spawn_local(async move {
            let _held = held;
            let Ok(ends) = ends_of(&stream) else { return };
            stream.set_nodelay(true).ok(); // Slower without, not wrong.
            let parting = tokio::select! {
                parting = converse(stream, ends, &desk, &crowd) => parting,
                () = after(&stop, config.grace) => Parting::Closed,
            };
            if let Parting::HandOver(wire) = parting
                && let Err(error) = service.call((wire, Some(ends.peer))).await
            {
                tracing::debug!(peer = %ends.peer, "HTTP with {} ended: {error}", ends.peer);
            }
        });
    }
    drop(listener);
    let wait = async {
        while door.open.get() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(config.grace, wait).await.ok(); // Who is not done by then asks again.
}

async fn after(stop: &CancellationToken, grace: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
}

/// Where connections of one thread come in.
struct Door {
    stop: CancellationToken,
    meter: Meter,
    limit: usize,
    open: Rc<Cell<usize>>,
}

impl Door {
    /// The next connection; `None` when the server stops.
    async fn accept(&self, listener: &TcpListener) -> Option<TcpStream> {
        loop {
            if self.open.get() >= self.limit {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if self.stop.is_cancelled() {
                    return None;
                }
                continue;
            }
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return None,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.meter.count("connections");
                    return Some(stream);
                }
                Err(error) => {
                    let why = format!("HTTP could not accept: {error}");
                    self.meter.complain("accept_failed", why, "raise the limit of open files (LimitNOFILE)");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

fn ends_of(stream: &TcpStream) -> io::Result<Ends> {
    let plain = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    Ok(Ends { peer: plain(stream.peer_addr()?), local: plain(stream.local_addr()?) })
}

/// One connection in the count of those open.
struct Held(Rc<Cell<usize>>);

impl Held {
    fn new(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
