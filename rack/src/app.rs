//! A rack put together: who holds which handle, the order of start, the order of the end. Every part's own work is its own file's.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use actors::{
    agent::Agent,
    clock,
    link::{
        LinkError,
        ca::{CaError, RackIdentity},
        client::{ClientConfig, LinkClient},
    },
    shell::{self, ActorRef, Arbiter, Registry},
};
use schema::{
    id::{Generation, RackId},
    messages::link::FromRack,
    service::ServiceStatus,
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    agent,
    bodies::Bodies,
    config::{RackConfig, Service},
    control::Control,
    deputies::Deputies,
    dhcp::{Listen, Neighbours},
    dns,
    fetch::Fetcher,
    kernel,
    leases::LeaseTable,
    link::{self, Links, Listener},
    metrics::Metrics,
    outbox,
    plan::PlanHandle,
    planfile::{self, PlanFileError},
    power::Drivers,
    report::{Reporter, Seen},
    services::{self, Place, Services},
    state::{State, StateError},
    sweep::Sweeper,
    syslog::{
        self,
        queue::{Lines, Queue},
    },
};

/// The file of the rack's certificate and key in the state directory.
pub const IDENTITY: &str = "identity.pem";
/// What a rack without a region calls itself.
const FILE_RACK: [u8; 6] = [0; 6];
/// How long reports may go on leaving at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a rack did not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the body store in {dir}: {source}; make it writable for this user")]
    Bodies { dir: PathBuf, source: io::Error },
    #[error(transparent)]
    PlanFile(#[from] PlanFileError),
    #[error("neither a region nor a plan file is set; set region.addresses in rack.toml, or give --plan FILE")]
    NoSource,
    #[error(
        "this rack is not enrolled: {0}; run `hostler rack enrol --region HOST:PORT --token T` with a token of the region"
    )]
    NotEnrolled(CaError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the control socket in {dir}: {source}; make the state directory writable for this user")]
    Control { dir: PathBuf, source: io::Error },
    #[error("the system gives no thread for the actors: {0}")]
    Thread(io::Error),
}

/// A running rack. [`Running::stop`] ends it in order; dropping it ends it at once.
pub struct Running {
    pub plan: PlanHandle,
    pub leases: LeaseTable,
    pub state: State,
    pub registry: Registry,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    agent: ActorRef<Agent>,
    services: Services,
    links: Option<Links>,
    deputies: Deputies,
    gather: JoinHandle<()>,
    reporter: Reporter,
    tasks: Vec<JoinHandle<()>>,
    _arbiter: Arbiter,
}

/// What talks with the regions, or follows the file, works with.
struct Handles {
    plan: PlanHandle,
    bodies: Bodies,
    reporter: Reporter,
    drivers: Drivers,
    /// The machines' lines, for the region.
    lines: Queue,
    neighbours: Neighbours,
}

/// The rack.
#[derive(Debug)]
pub struct App;

impl App {
    /// Starts a rack on the current tokio runtime (it must have more than one thread or be driven on).
    ///
    /// # Errors
    /// [`AppError`]: the first thing that cannot be, with its remedy. What had started is stopped again.
    pub async fn start(config: RackConfig) -> Result<Running, AppError> {
        let identity = identity(&config)?;
        let state = State::open(&config.state, config.outbox)?;
        let started = start(config, identity, state.clone()).await;
        if started.is_err() {
            state.close().await;
        }
        started
    }
}

fn identity(config: &RackConfig) -> Result<Option<RackIdentity>, AppError> {
    match (&config.plan, config.regions.is_empty()) {
        (Some(_), _) => Ok(None),
        (None, true) => Err(AppError::NoSource),
        (None, false) => RackIdentity::load(&config.state.join(IDENTITY)).map(Some).map_err(AppError::NotEnrolled),
    }
}

async fn start(mut config: RackConfig, identity: Option<RackIdentity>, state: State) -> Result<Running, AppError> {
    let dir = config.state.clone();
    let bodies = Bodies::open(&dir).map_err(|source| AppError::Bodies { dir, source })?;
    let plan = first_plan(&mut config, &state, &bodies)?;
    let errands = state.errands()?;
    let (reporter, seen) = Reporter::kept();
    let (leases, registry) = (LeaseTable::default(), Registry::default());
    let lines = Lines::new(config.syslog.room);

    let arbiter = Arbiter::start("rack-actors").map_err(AppError::Thread)?;
    let rack = identity.as_ref().map_or_else(|| RackId::from_draws(FILE_RACK), |i| i.rack);
    let orders = errands.iter().filter_map(|e| Some((e.machine, e.under_way()?))).collect();
    let generation = plan.load().plan.generation;
    let core = Agent::starting(rack, config.regions.iter().cloned(), generation, orders, clock::now());
    let runtime = tokio::runtime::Handle::current();
    let hands = agent::Hands::new(runtime.clone());
    let agent = shell::spawn(&arbiter.handle(), core, Generation(0), hands.clone(), &registry, true);

    let drivers = Drivers::new(&config.power);
    let neighbours = Neighbours::default();
    let place = Place {
        config: config.clone(),
        plan: plan.clone(),
        leases: leases.clone(),
        bodies: bodies.clone(),
        reporter: reporter.clone(),
        registry: registry.clone(),
        drivers: drivers.clone(),
        proxy: Default::default(),
        lines: lines.clone(),
        neighbours: neighbours.clone(),
        disk: state.disk().clone(),
        bound: Default::default(),
    };
    let services = Services::start(place, rack, &arbiter.handle(), agent.clone()).await;
    let deputies = Deputies::start(
        errands,
        arbiter.handle(),
        registry.clone(),
        state.clone(),
        drivers.clone(),
        agent.clone(),
        runtime,
    );
    let mut running = Running {
        plan: plan.clone(),
        leases,
        state: state.clone(),
        registry,
        metrics: None,
        agent,
        services,
        links: None,
        deputies,
        gather: tokio::spawn(async {}),
        reporter: reporter.clone(),
        tasks: Vec::new(),
        _arbiter: arbiter,
    };
    let control = Control {
        state: state.clone(),
        plan: plan.clone(),
        region: identity.is_some(),
        services: running.services.clone(),
    };
    let failed = |source| AppError::Control { dir: config.state.clone(), source };
    let socket = Control::bind(&config.state).map_err(failed)?;
    running.tasks.push(tokio::spawn(control.run(socket)));
    running.measure(config.metrics).await;
    let handles = Handles { plan, bodies, reporter, drivers, lines: lines.region, neighbours };
    match identity {
        Some(identity) => dial(&mut running, &config, &identity, handles, seen, &hands)?,
        None => follow_file(&mut running, &config, handles, seen),
    }
    Ok(running)
}

/// The plan to begin with: the file's, or the last one that a region gave.
fn first_plan(config: &mut RackConfig, state: &State, bodies: &Bodies) -> Result<PlanHandle, AppError> {
    let kept = state.plan()?;
    let Some(path) = &config.plan else { return Ok(PlanHandle::new(kept)) };
    let file = planfile::read(path, config.files.as_deref(), bodies)?;
    if !file.listen.dhcp.is_empty() {
        config.dhcp = Listen::At(file.listen.dhcp);
    }
    if !file.listen.ntp.is_empty() {
        config.ntp.listen = Listen::At(file.listen.ntp);
    }
    if !file.listen.syslog.is_empty() {
        config.syslog.listen = Listen::At(file.listen.syslog);
    }
    config.tftp = file.listen.tftp.unwrap_or(config.tftp);
    config.http = file.listen.http.unwrap_or(config.http);
    config.proxy.listen = file.listen.proxy.unwrap_or(config.proxy.listen);
    if !file.listen.dns.is_empty() {
        config.dns.listen = dns::Listen::At(file.listen.dns);
    }
    Ok(PlanHandle::new(planfile::with_reservations(file.plan, &kept.reservations)))
}

/// Dials the regions, and sets everything up that speaks with them.
fn dial(
    running: &mut Running,
    config: &RackConfig,
    identity: &RackIdentity,
    handles: Handles,
    seen: mpsc::UnboundedReceiver<Seen>,
    hands: &agent::Hands,
) -> Result<(), AppError> {
    let Handles { plan, bodies, reporter, drivers, lines, neighbours } = handles;
    let sweeper = Sweeper::new(config.power.sweep, drivers, running.deputies.clone(), reporter.clone());
    let state = running.state.clone();
    let (client, events) = LinkClient::start(ClientConfig::new(config.regions.clone()), identity, rand::random::<f64>)?;
    let links = Links::new(client.clone(), config.regions.clone());
    hands.linked(links.clone());
    let leases = outbox::Leases::default();
    running.gather = tokio::spawn(outbox::gather(seen, state.clone(), leases.clone(), running.deputies.ears()));
    let (fetcher, fetching) =
        Fetcher::new(client.clone(), config.regions.len(), plan.clone(), bodies.clone(), reporter.clone());
    let listener = Listener {
        links: links.clone(),
        agent: running.agent.clone(),
        deputies: running.deputies.clone(),
        sweeper: sweeper.clone(),
        state: state.clone(),
        plan,
        fetcher,
        reporter,
        neighbours: neighbours.clone(),
        registry: running.registry.clone(),
    };
    running.tasks.extend([
        tokio::spawn(fetching),
        tokio::spawn(outbox::send(client.clone(), state, bodies, links.ready(), links.acked())),
        tokio::spawn(outbox::send_known(client.clone(), neighbours.foreign(), FromRack::ForeignDhcp, links.ready())),
        tokio::spawn(outbox::send_known(client.clone(), neighbours.strays(), FromRack::Strays, links.ready())),
        tokio::spawn(outbox::send_leases(client, leases, links.ready())),
        tokio::spawn(listener.run(events)),
        tokio::spawn(link::tell_clock(links.clone())),
        tokio::spawn(syslog::send::to_region(lines, links.client().clone(), links.ready(), links.logs_kept())),
        tokio::spawn(sweeper.run()),
        tokio::spawn(services::say(running.services.clone(), links.clone())),
    ]);

    running.links = Some(links);
    Ok(())
}

/// Watches the plan file. Facts are for the log alone: there is nobody to report to.
fn follow_file(running: &mut Running, config: &RackConfig, handles: Handles, mut seen: mpsc::UnboundedReceiver<Seen>) {
    running.gather = tokio::spawn(async move {
        while let Some(seen) = seen.recv().await {
            match seen {
                Seen::Fact { machine, fact, .. } => tracing::info!(%machine, ?fact, "seen"),
                Seen::Settle(_) | Seen::LeasesThrough(_) => {}
                Seen::Lease(lease) => {
                    tracing::info!(mac = %lease.mac, ip = %lease.ip, until = %lease.expires, "leased")
                }
            }
        }
    });
    if config.services.contains(&Service::Syslog) {
        let keeping = syslog::send::to_files(handles.lines, config.state.join("logs"), config.syslog.keep);
        running.tasks.push(tokio::spawn(keeping));
    }
    let Some(path) = config.plan.clone() else { return };
    let (state, files) = (running.state.clone(), config.files.clone());
    let own = move || state.plan().map(|plan| plan.reservations).unwrap_or_default();
    running.tasks.push(tokio::spawn(planfile::watch(path, files, handles.bodies, handles.plan, own, |_| {})));
}

impl Running {
    /// Where a service listens; the ports that the system chose, where 0 was asked for.
    #[must_use]
    pub fn addresses(&self, service: Service) -> Vec<SocketAddr> {
        self.services.addresses(service)
    }

    /// Serves metrics, where that is wanted.
    async fn measure(&mut self, listen: Option<SocketAddr>) {
        let (registry, services, state) = (self.registry.clone(), self.services.clone(), self.state.clone());
        let metrics = Metrics { registry, services, state };
        let Some(listen) = listen else { return };
        if let Some((address, task)) = metrics.serve(listen).await {
            self.metrics = Some(address);
            self.tasks.push(task);
        }
    }

    /// How every service stands, with its counters.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceStatus> {
        self.services.statuses()
    }

    /// The first IPv4 address and port of a service.
    #[must_use]
    pub fn address(&self, service: Service) -> Option<SocketAddrV4> {
        self.addresses(service).into_iter().find_map(|address| match address {
            SocketAddr::V4(v4) => Some(v4),
            SocketAddr::V6(_) => None,
        })
    }

    /// How the rack stands: links, plan, services, orders.
    #[must_use]
    pub fn status(&self) -> Arc<Agent> {
        self.agent.snapshot()
    }

    /// The end, in order: no new requests, what was seen into the store, the last reports and a Goodbye to the region, the store closed.
    pub async fn stop(mut self) {
        self.services.stop().await;
        self.deputies.stop();
        if let Some(links) = &self.links {
            let mut counts = self.state.outbox();
            let told = async { counts.wait_for(|c| c.waiting == 0).await.is_ok() };
            if !links.ready().borrow().is_empty() && !matches!(tokio::time::timeout(LAST_WORDS, told).await, Ok(true)) {
                tracing::info!(
                    waiting = self.state.outbox().borrow().waiting,
                    "reports wait on disk for the next start"
                );
            }
            links.client().stop().await;
        }
        let tasks = std::mem::take(&mut self.tasks);
        tasks.iter().for_each(JoinHandle::abort);
        for task in tasks {
            task.await.ok(); // Aborted, as meant.
        }
        let (reporter, mut gather) =
            (self.reporter.clone(), std::mem::replace(&mut self.gather, tokio::spawn(async {})));
        let state = self.state.clone();
        drop(self);
        drop(reporter);
        if tokio::time::timeout(LAST_WORDS, &mut gather).await.is_err() {
            gather.abort();
        }
        state.close().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Runs a rack until SIGINT or SIGTERM, then ends it in order. What `hostler rack` does.
///
/// # Errors
/// [`AppError`] when it does not start.
pub async fn run(config: RackConfig) -> Result<(), AppError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Thread)?;
    kernel::raise_open_files();
    let running = App::start(config).await?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}
