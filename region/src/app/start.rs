//! Start and stop: opens what the configuration names, wakes who waits, lets racks in, and takes it all down in order.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use actors::{
    clock,
    core::TraceId,
    link::{
        LinkError,
        ca::Ca,
        server::{Connection, LinkServer, ServerConfig},
    },
    machine::Machine,
    rack::{LinkState, RackEvent},
    shell::{Arbiter, Registry},
};
use schema::{id::SystemId, time::Timestamp};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::{App, Inner, Missing, Pending, StartError, new_trace, read};
use crate::{
    bodies::Bodies,
    builtin,
    config::Config,
    dns::{self, Names},
    inspect, link,
    logs::{self, Logs},
    seal::Seal,
    store::{Store, queries},
    sweeps, turns,
};

/// How often overdue actors that sleep are looked for.
const SWEEP: Duration = Duration::from_secs(5);
const PRUNE: Duration = Duration::from_secs(3_600);
/// How long a stop waits for actors to finish what they hold.
const DRAIN: Duration = Duration::from_secs(5);

/// A running region.
pub struct Running {
    pub app: App,
    /// Where racks dial in.
    pub link: SocketAddr,
    /// The zones' own server.
    pub dns: dns::server::Running,
    arbiter: Option<Arbiter>,
    tasks: JoinSet<()>,
}

/// Starts the region on the present runtime. The API is started beside it, with `Running::app`.
///
/// # Errors
/// [`StartError`].
pub async fn start(config: Config) -> Result<Running, StartError> {
    let url = config.database.expose().clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&url)).await;
    let store = opened.map_err(|e| StartError::Thread(std::io::Error::other(e)))??;
    let seal = Seal::open(&config.key_file(), store.clone()).await?;
    let bodies = Bodies::open(&config.data_dir)?;
    let ca = Ca::open_or_create(&config.ca_dir(), clock::now())?;
    let user_data = bodies.put(builtin::USER_DATA.as_bytes())?;
    let (logs, keeper) = Logs::new(&config.data_dir, config.logs);
    let arbiter = Arbiter::start("actors").map_err(StartError::Thread)?;
    let app = App(Arc::new(Inner {
        catalogue: Default::default(),
        links: Default::default(),
        logs,
        names: Names::new(
            dns::server::reached(config.dns_listen.ip()).into_iter().filter(|ip| !ip.is_loopback()).collect(),
        ),
        changed: broadcast::channel(4_096).0,
        health_changed: watch::Sender::default(),
        registry: Registry::default(),
        census: Default::default(),
        sessions: Default::default(),
        inspector: Default::default(),
        requests: Default::default(),
        turns: Default::default(),
        tickets: Default::default(),
        ways: Default::default(),
        machines: Default::default(),
        racks: Default::default(),
        subnets: Default::default(),
        arbiter: arbiter.handle(),
        runtime: tokio::runtime::Handle::current(),
        publishing: Pending(watch::Sender::new(0)),
        config,
        store,
        seal,
        bodies,
        user_data,
        ca,
    }));
    app.wake_all(&arbiter).await?;
    app.begin_names().await?;
    let dns = dns::server::start(&app)?;
    // Racks come in last: what they report finds its machine awake, and no plan goes out before every ticket is back in.
    let (server, connections) = listen(&app).await?;
    let link = server.address();
    app.links.server.store(Some(Arc::new(server)));
    let mut tasks = JoinSet::new();
    tasks.spawn(link::accept(app.clone(), connections));
    tasks.spawn(logs::keep(app.clone(), keeper));
    tasks.spawn(sweep(app.clone()));
    tasks.spawn(prune(app.clone()));
    tasks.spawn(dns::keep(app.clone()));
    tasks.spawn(sweeps::expire(app.clone()));
    tasks.spawn(sweeps::assign(app.clone()));
    tasks.spawn(sample(app.clone()));
    tasks.spawn(give_turns(app.clone()));
    info!(%link, database = app.store.address(), "the region is up");
    Ok(Running { app, link, dns, arbiter: Some(arbiter), tasks })
}

/// Opens the link's port. One that is just being let go by the process before is waited for.
async fn listen(app: &App) -> Result<(LinkServer, mpsc::Receiver<Connection>), StartError> {
    let mut tries = 20;
    loop {
        let ca = Ca::open_or_create(&app.config.ca_dir(), clock::now())?;
        let config = ServerConfig::new(app.config.link_listen, app.config.id);
        match LinkServer::start(config, ca, Arc::new(link::Door(app.clone()))) {
            Err(LinkError::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse && tries > 0 => {
                tries -= 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            started => return Ok(started?),
        }
    }
}

impl Running {
    /// Lets no more racks in, lets every actor finish what it holds, and ends.
    pub async fn stop(mut self) {
        // The server holds the app by its doorkeeper: taken out, both can go.
        if let Some(server) = self.app.links.server.swap(None) {
            server.stop("the region stops").await;
        }
        self.tasks.shutdown().await;
        let idle = async {
            while self.app.registry.list(None).iter().any(|probe| probe.depth() > 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(DRAIN, idle).await.is_err() {
            warn!("some actors did not finish in time; they resume at the next start");
        }
        let arbiter = self.arbiter.take();
        tokio::task::spawn_blocking(move || drop(arbiter)).await.ok(); // Its thread has nothing to hand over.
    }
}

impl App {
    /// Puts back what memory holds: the catalogue, every machine's ticket, and the actors that wait for something.
    async fn wake_all(&self, arbiter: &Arbiter) -> Result<(), StartError> {
        self.reload_catalogue().await.map_err(|e| match e {
            Missing::NotThere { .. } => StartError::Empty { database: self.store.address() },
            other => StartError::Actor(other),
        })?;
        self.keep_builtin_scripts().await?;
        sweeps::restore(self).await?;
        for machine in self.stored_machines().await? {
            self.tickets.note(&machine);
            self.census.note(&machine, false);
        }
        let forever = Timestamp(i64::MAX);
        for (kind, id, _) in self.store.read(move |db| queries::actors_with_deadline(db, forever)).await? {
            self.wake(&kind, &id).await?;
        }
        let racks: Vec<_> = self.catalogue_content().racks.keys().copied().collect();
        for id in racks {
            let rack = self.rack(id).await?;
            let state = rack.snapshot();
            if state.link == LinkState::Connected {
                let why = "the region restarted".to_owned();
                let away = RackEvent::Disconnected { why, last_report: state.last_report };
                rack.ask(away, new_trace()).await.map_err(Missing::Ask)?;
            }
        }
        arbiter.settled().await;
        self.publishing.none().await;
        Ok(())
    }

    async fn stored_machines(&self) -> Result<Vec<Machine>, StartError> {
        let rows = self.store.read(|db| {
            let ids = queries::actor_ids(db, "machine")?;
            ids.into_iter().map(|id| Ok((queries::load_actor(db, "machine", &id)?, id))).collect()
        });
        let rows: Vec<(Option<(String, schema::id::Generation)>, String)> = rows.await?;
        let states = rows.into_iter().filter_map(|(row, id)| row.map(|(state, _)| read::<Machine>(&state, &id)));
        Ok(states.collect::<Result<_, _>>()?)
    }

    async fn wake(&self, kind: &str, id: &str) -> Result<(), Missing> {
        match (kind, id.parse::<SystemId>(), id.parse()) {
            ("machine", Ok(id), _) => drop(self.machine(id).await?),
            ("rack", Ok(id), _) => drop(self.rack(id).await?),
            ("subnet", _, Ok(id)) => drop(self.subnet(schema::id::SubnetId(id)).await?),
            _ => warn!(kind, id, "an actor of a kind that this version does not know waits in the store"),
        }
        Ok(())
    }
}

/// Wakes actors whose deadline passed while nobody had them: another region's, or one that failed to wake before.
async fn sweep(app: App) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = clock::now();
        match app.store.read(move |db| queries::actors_with_deadline(db, now)).await {
            Err(error) => warn!(%error, "overdue actors could not be looked for"),
            Ok(overdue) => {
                for (kind, id, _) in overdue {
                    if let Err(error) = app.wake(&kind, &id).await {
                        warn!(kind, id, %error, "an overdue actor did not wake");
                    }
                }
            }
        }
    }
}

/// Tells machines that wait for their turn when it has come.
async fn give_turns(app: App) {
    let mut tick = interval(turns::TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for machine in app.turns.due(clock::tick()) {
            let app = app.clone();
            // The machine knows the trace of its attempt.
            app.runtime.clone().spawn(async move { app.give_turn(machine, TraceId::default()).await });
        }
    }
}

/// Counts messages, for rates.
async fn sample(app: App) {
    let mut tick = interval(inspect::SAMPLE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        app.inspector.rates.sample(&app.registry, &app.links);
    }
}

/// Drops what the journal need not keep.
async fn prune(app: App) {
    let kept = Duration::from_secs(u64::from(app.config.journal_days) * 86_400);
    let mut tick = interval(PRUNE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match app.store.prune_journal(clock::now() - kept).await {
            Ok(0) => {}
            Ok(gone) => info!(gone, days = app.config.journal_days, "old steps left the journal"),
            Err(error) => warn!(%error, "the journal could not be pruned"),
        }
    }
}
