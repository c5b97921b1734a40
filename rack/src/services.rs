//! The rack's services under one supervisor: each is started, looked at twice a second, and started again when it does not serve. When is decided in `actors::service`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{
    agent::{Agent, AgentEvent},
    clock,
    core::{Moved, RecordError, TraceId, Verdict},
    service::{Service as Core, ServiceEffect, ServiceEvent, ServiceFault, ServiceState},
    shell::{self, ActorRef, ArbiterHandle, Busy, LocalBoxFuture, Perform, Source, inspect::Spread},
};
use schema::{
    id::{Generation, RackId},
    service::{Health, ServiceStatus},
    time::Timestamp,
};
use tokio::{sync::watch, task::AbortHandle};

use crate::config::Service;

mod say;
mod start;

pub use self::{
    say::say,
    start::{Bound, Place, Started},
};

/// How often what runs is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long the rack's start waits for the first word of its services.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// A full mailbox is tried again this often.
const AGAIN: Duration = Duration::from_millis(50);

/// The supervisor. Cloned freely.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    actors: BTreeMap<Service, ActorRef<Core>>,
    hands: Hands,
    look: AbortHandle,
}

impl Services {
    /// Starts the configured services and waits for their first word, HTTP's before the others', which name its port.
    /// What does not start is tried again; it stops nothing else.
    pub async fn start(place: Place, rack: RackId, arbiter: &ArbiterHandle, agent: ActorRef<Agent>) -> Self {
        let (wanted, registry) = (place.config.services.clone(), place.registry.clone());
        let hands = Hands::new(place, agent);
        let spawn = |service: Service| {
            let core = Core::off(rack, service.name(), clock::now());
            (service, shell::spawn(arbiter, core, Generation(0), hands.clone(), &registry, false))
        };
        let actors: BTreeMap<_, _> = Service::ALL.into_iter().map(spawn).collect();
        let look = tokio::spawn(look(hands.clone(), actors.clone())).abort_handle();
        let services = Self(Arc::new(Inner { actors, hands, look }));
        let (first, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|s| *s == Service::Http);
        services.first_word(&first).await;
        services.first_word(&others).await;
        services
    }

    async fn first_word(&self, wanted: &[Service]) {
        let actors: Vec<_> = wanted.iter().filter_map(|service| self.0.actors.get(service)).collect();
        for actor in &actors {
            tell(actor, ServiceEvent::Start).await;
        }
        let mut changed = self.0.hands.changed();
        let silent =
            |actor: &&ActorRef<Core>| matches!(actor.snapshot().state, ServiceState::Off | ServiceState::Starting);
        let all = changed.wait_for(|()| !actors.iter().any(silent));
        tokio::time::timeout(FIRST_WORD, all).await.ok(); // Who starts longer is supervised like the others.
    }

    /// Where a service listens now.
    #[must_use]
    pub fn addresses(&self, service: Service) -> Vec<SocketAddr> {
        self.0.actors.get(&service).map(|actor| actor.snapshot().addresses().to_vec()).unwrap_or_default()
    }

    /// How every service stands, with its counters; and the disk while it refuses.
    #[must_use]
    pub fn statuses(&self) -> Vec<ServiceStatus> {
        let live = self.0.hands.live();
        let status = |(service, actor): (&Service, &ActorRef<Core>)| {
            let counters = live.get(service).map(|serving| serving.counters()).unwrap_or_default();
            let own = live.get(service).and_then(|serving| serving.last_error());
            let status = actor.snapshot().status();
            let last_error = status.last_error.clone().max_by_time(own);
            ServiceStatus { counters, last_error, ..status }
        };
        self.0.actors.iter().map(status).chain(self.0.hands.0.place.disk.trouble()).collect()
    }

    /// How long a service's answers took, since it was started.
    #[must_use]
    pub fn latency(&self, service: Service) -> Option<Spread> {
        self.0.hands.live().get(&service).and_then(|serving| serving.latency())
    }

    /// Says when a service's state has changed.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<()> {
        self.0.hands.changed()
    }

    /// No new requests anywhere; what is under way may end. Nothing is started again.
    pub async fn stop(&self) {
        self.0.look.abort();
        for actor in self.0.actors.values() {
            tell(actor, ServiceEvent::Stop).await;
        }
        futures_util::future::join_all(self.0.actors.keys().map(|service| self.0.hands.end(*service))).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.look.abort();
    }
}

/// The later of two errors.
trait Later: Sized {
    fn max_by_time(self, other: Self) -> Self;
}

impl Later for Option<schema::service::ServiceError> {
    fn max_by_time(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|error| error.at)
    }
}

async fn tell(actor: &ActorRef<Core>, event: ServiceEvent) {
    while let Err(Busy::Full { .. }) = actor.tell(event.clone(), TraceId::default()) {
        tokio::time::sleep(AGAIN).await;
    }
}

/// What runs says how it is; only what differs from what is known is told.
async fn look(hands: Hands, actors: BTreeMap<Service, ActorRef<Core>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        for (service, actor) in &actors {
            if let Some(event) = hands.differs(*service, &actor.snapshot()) {
                tell(actor, event).await;
            }
        }
    }
}

/// The hands of all services.
#[derive(Clone)]
struct Hands(Arc<Work>);

struct Work {
    place: Place,
    agent: ActorRef<Agent>,
    runtime: tokio::runtime::Handle,
    live: Mutex<BTreeMap<Service, Started>>,
    /// One start or end at a time per service: who starts again finds the port free.
    turns: BTreeMap<Service, tokio::sync::Mutex<()>>,
    changed: watch::Sender<()>,
}

impl Hands {
    fn new(place: Place, agent: ActorRef<Agent>) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let turns = Service::ALL.into_iter().map(|service| (service, tokio::sync::Mutex::default())).collect();
        Self(Arc::new(Work { place, agent, runtime, live: Mutex::default(), turns, changed: watch::Sender::default() }))
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<Service, Started>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    async fn turn(&self, service: Service) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        Some(self.0.turns.get(&service)?.lock().await)
    }

    async fn begin(&self, service: Service) -> ServiceEvent {
        let _turn = self.turn(service).await;
        let work = self.0.clone();
        let started = tokio::task::spawn_blocking(move || start::start(service, &work.place)).await;
        let panicked = |_| {
            let remedy = "report it as a defect, with what the log says of the panic".into();
            Err(ServiceFault { why: format!("the start of {} panicked", service.name()), remedy })
        };
        match started.unwrap_or_else(panicked) {
            Err(fault) => ServiceEvent::Failed { fault },
            Ok(serving) => {
                let addresses = serving.addresses();
                self.0.place.bound().insert(service, addresses.clone());
                self.live().insert(service, serving);
                ServiceEvent::Started { addresses }
            }
        }
    }

    async fn end(&self, service: Service) {
        let _turn = self.turn(service).await;
        let serving = self.live().remove(&service);
        if let Some(serving) = serving {
            serving.stop().await;
        }
    }

    /// What is to be told of a service, given what is known of it.
    fn differs(&self, service: Service, known: &Core) -> Option<ServiceEvent> {
        let live = self.live();
        let (serving, was) = (live.get(&service)?, known.health());
        let fault = |otherwise: &str| match serving.last_error() {
            Some(error) => ServiceFault { why: error.why, remedy: error.remedy },
            None => ServiceFault { why: otherwise.into(), remedy: "see the rack's log".into() },
        };
        match serving.health() {
            _ if !matches!(was, Health::Running | Health::Degraded) => None,
            Health::Dead | Health::Off => Some(ServiceEvent::Died { fault: fault("it ended by itself") }),
            Health::Degraded => {
                let fault = fault("it does not serve all");
                let known = known.last_error.as_ref().is_some_and(|error| error.why == fault.why);
                (was != Health::Degraded || !known).then_some(ServiceEvent::Degraded { fault })
            }
            Health::Running => {
                let addresses = serving.addresses();
                let same = was == Health::Running && known.addresses() == addresses;
                (!same).then_some(ServiceEvent::Well { addresses })
            }
        }
    }
}

impl Perform<Core> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    /// Nothing of it is kept: at the next start every service is started anew.
    fn record(&self, _moved: Moved<Core>) -> LocalBoxFuture<'static, Result<(), RecordError>> {
        Box::pin(async { Ok(()) })
    }

    fn perform(&self, me: &ActorRef<Core>, effect: ServiceEffect, _trace: TraceId) {
        let Ok(service) = me.id().parse::<Service>() else { return };
        let (hands, me) = (self.clone(), me.clone());
        self.0.runtime.spawn(Source::present().scope(async move {
            match effect {
                ServiceEffect::Start => {
                    let event = hands.begin(service).await;
                    tell(&me, event).await;
                }
                ServiceEffect::Stop => hands.end(service).await,
            }
        }));
    }

    fn show(&self, me: &ActorRef<Core>, verdict: &Verdict) {
        if matches!(verdict, Verdict::Ignored { .. } | Verdict::Refused { .. }) {
            return;
        }
        let core = me.snapshot();
        log(&core);
        // Nothing is lost by a full mailbox but a line of what the rack shows; the next change brings it.
        self.0.agent.tell(AgentEvent::Service { status: core.status() }, TraceId::default()).ok();
        self.0.changed.send_replace(());
    }
}

/// A change of a service, in the log.
fn log(core: &Core) {
    let service = core.name;
    let error = core.last_error.as_ref();
    let (why, remedy) = error.map_or(("", ""), |e| (e.why.as_str(), e.remedy.as_str()));
    match &core.state {
        ServiceState::Resting { until } => {
            tracing::warn!(service, remedy, again = %until, "{service} does not serve: {why}");
        }
        ServiceState::Starting if core.restarts > 0 => {
            tracing::info!(service, restarts = core.restarts, "{service} is started again")
        }
        ServiceState::Serving { degraded: true, .. } => {
            tracing::warn!(service, remedy, "{service} serves in part: {why}")
        }
        ServiceState::Serving { addresses, .. } => {
            let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
            tracing::info!(service, addresses = addresses.join(" "), "{service} serves");
        }
        ServiceState::Off | ServiceState::Starting => {}
    }
}
