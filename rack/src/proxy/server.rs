//! The proxy's life: listener, threads, the doors, the end. Answers nothing itself.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    thread,
    time::Duration,
};

use actors::clock;
use schema::service::Health;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    COUNTERS, Desk, Doors, ProxyConfig, Shared, Whereabouts,
    answer::refused,
    converse::converse,
    flight::Flights,
    guard::Guard,
    request::Refusal,
    store::Store,
    upstream::{Upstream, addresses_of},
};
use crate::{
    http::listen,
    plan::PlanHandle,
    service::{Meter, Serving, Stopping, alive},
};

/// How long connections may go on after a stop.
const GRACE: Duration = Duration::from_secs(5);
/// How often the regions' names are resolved anew.
const REGIONS_AGAIN: Duration = Duration::from_secs(60);

/// The proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or the address is not ours.
    #[error("the package proxy cannot listen on {listen}: {source}; stop what holds the port, or set proxy.listen")]
    Bind { listen: SocketAddr, source: io::Error },
    /// The cache's directory cannot be made.
    #[error(
        "the package proxy cannot keep its cache in {dir}: {source}; make it writable for this user, or set proxy.dir"
    )]
    Dir { dir: PathBuf, source: io::Error },
    /// The kernel refused a thread or its runtime.
    #[error("the package proxy cannot start its threads: {0}; free some memory or raise the limit of threads")]
    Thread(io::Error),
}

/// A running proxy; dropping it stops it without waiting.
pub struct Running {
    address: SocketAddr,
    known: Whereabouts,
    shared: Arc<Shared>,
    stop: CancellationToken,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers kept, bytes of bodies kept or coming, and answers let go for want of room.
    #[must_use]
    pub fn census(&self) -> (usize, u64, u64) {
        self.shared.store.census()
    }

    /// Accepts no more, lets requests end for a while, and returns when the threads are gone.
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
        &self.shared.meter
    }

    fn stop(self: Box<Self>) -> Stopping {
        Box::pin(Self::stop(*self))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.known.set(None);
        self.stop.cancel();
    }
}

/// What the proxy is started with.
#[derive(Debug, Clone)]
pub struct ProxyHandles {
    /// The rack's state directory.
    pub state: PathBuf,
    /// HOST:PORT of each region, where no way leads.
    pub regions: Vec<String>,
    pub plan: PlanHandle,
    /// Told where the proxy listens.
    pub known: Whereabouts,
}

/// Binds the port and starts serving.
///
/// # Errors
/// [`StartError`].
pub fn start(config: ProxyConfig, handles: ProxyHandles) -> Result<Running, StartError> {
    let ProxyHandles { state, regions, plan, known } = handles;
    let failed = |source| StartError::Bind { listen: config.listen, source };
    let listener = listen(config.listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let dir = config.dir.clone().unwrap_or_else(|| state.join("proxy"));
    let draw: u32 = rand::random();
    let store = Store::open(&dir, config.cache, draw).map_err(|source| StartError::Dir { dir, source })?;
    let meter = Meter::new("proxy", COUNTERS);
    let doors = Doors {
        most: config.connections,
        per_client: config.per_client,
        open: AtomicUsize::new(0),
        clients: Mutex::default(),
    };
    let shared = Arc::new(Shared {
        guard: Guard::new(config.reach.clone(), plan.clone()),
        plan,
        meter,
        store: store.clone(),
        flights: Flights::default(),
        max_object: config.max_object,
        connect: config.connect.clone(),
        own: format!("hostler-{draw:08x}"),
        doors: Arc::new(doors),
    });
    let stop = CancellationToken::new();
    let mut running = Running { address, known, shared, stop, threads: Vec::new() };
    let load = move || {
        store.load();
        let (answers, bytes, _) = store.census();
        tracing::info!(answers, mebibytes = bytes >> 20, "the package proxy found its cache");
    };
    thread::Builder::new().name("proxy-load".into()).spawn(load).map_err(StartError::Thread)?;
    for number in 0..config.workers.max(1) {
        let listener = listener.try_clone().map_err(StartError::Thread)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (shared, stop) = (Arc::clone(&running.shared), running.stop.clone());
        // One thread is enough to know where the regions are.
        let regions = if number == 0 { regions.clone() } else { Vec::new() };
        let work = move || tokio::task::LocalSet::new().block_on(&runtime, work(listener, shared, stop, regions));
        let thread = thread::Builder::new().name(format!("proxy-{number}")).spawn(work).map_err(StartError::Thread)?;
        running.threads.push(thread);
    }
    running.known.set(Some(address));
    Ok(running)
}

/// One thread: its own accepts, its own connections, its own way to the servers.
async fn work(listener: std::net::TcpListener, shared: Arc<Shared>, stop: CancellationToken, regions: Vec<String>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the package proxy lost its socket: {error}; restart the rack"),
    };
    if !regions.is_empty() {
        let guard = shared.guard.clone();
        tokio::task::spawn_local(async move {
            loop {
                guard.regions_are(addresses_of(&regions).await);
                tokio::time::sleep(REGIONS_AGAIN).await;
            }
        });
    }
    let upstream = Upstream::new(shared.guard.clone(), shared.plan.clone());
    let (desk, open) = (Rc::new(Desk { shared, upstream }), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (desk, stop, token) = (Rc::clone(&desk), stop.clone(), open.token());
                tokio::task::spawn_local(async move {
                    let _token = token;
                    tokio::select! {
                        () = serve(stream, peer.ip().to_canonical(), &desk) => {}
                        () = after(&stop) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!("the package proxy could not accept: {error}; it goes on");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    open.close();
    tokio::time::timeout(GRACE, open.wait()).await.ok(); // Who is not done by then asks again.
}

async fn after(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

async fn serve(stream: TcpStream, client: IpAddr, desk: &Rc<Desk>) {
    stream.set_nodelay(true).ok(); // Slower without, not wrong.
    match desk.shared.doors.enter(client) {
        Ok(_guest) => converse(stream, client, desk).await,
        Err(why) => {
            desk.shared.meter.complain(
                "refused_limit",
                format!("{client} was refused: {why}"),
                "raise the limit, or see what that client does",
            );
            let text = refused(&Refusal::new(503, "refused_limit", why), false, false, clock::now());
            stream.try_write(&text).ok(); // A courtesy.
        }
    }
}
