//! The rack's side of the link: plans into force, orders to their errands, acknowledgements to the outbox. The wire is `actors::link`'s.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::{
    agent::{Agent, AgentEvent},
    clock,
    core::TraceId,
    inspection,
    link::client::{Event, LinkClient, LinkId, Welcome},
    shell::{ActorRef, Registry, Source},
};
use schema::{
    id::ReportSeq,
    messages::{
        link::{ClockReport, FromRack, Hello, InspectAsk, PlanUpdate, ToRack},
        report::Fact,
    },
    plan::{BootPurpose, Ticket},
};
use tokio::sync::{mpsc, watch};

use crate::{
    deputies::Deputies,
    dhcp::Neighbours,
    fetch::Fetcher,
    kernel,
    outbox::{Ready, Session},
    plan::PlanHandle,
    report::Reporter,
    state::State,
    sweep::Sweeper,
    syslog::send::Kept,
};

/// Clocks that differ by more spoil deadlines and OAuth; it is said in the log.
const SKEW: Duration = Duration::from_secs(5);

/// The links, for those who speak. Cloned freely.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    client: LinkClient,
    /// HOST:PORT of each link.
    addresses: Vec<String>,
    ready: Ready,
    acked: watch::Sender<ReportSeq>,
    logs_kept: Kept,
    sessions: AtomicU64,
    /// What the region had when the link came up; moves to `ready` after the Hello.
    welcomed: std::sync::Mutex<BTreeMap<LinkId, ReportSeq>>,
}

impl Links {
    /// Over a dialling client.
    #[must_use]
    pub fn new(client: LinkClient, addresses: Vec<String>) -> Self {
        let (ready, acked, logs_kept) = (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
        let (sessions, welcomed) = (AtomicU64::new(0), std::sync::Mutex::default());
        Self(Arc::new(Inner { client, addresses, ready, acked, logs_kept, sessions, welcomed }))
    }

    /// The client under it.
    #[must_use]
    pub fn client(&self) -> &LinkClient {
        &self.0.client
    }

    /// Which links are ready for reports.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.0.ready.clone()
    }

    /// The last report that a region has acknowledged.
    #[must_use]
    pub fn acked(&self) -> watch::Receiver<ReportSeq> {
        self.0.acked.subscribe()
    }

    /// Which batches of log lines a region has kept.
    #[must_use]
    pub fn logs_kept(&self) -> Kept {
        self.0.logs_kept.clone()
    }

    /// Says what the rack is; reports follow it.
    pub async fn say_hello(&self, address: &str, hello: Hello, trace: TraceId) {
        let Some(link) = self.0.addresses.iter().position(|a| a == address) else { return };
        if self.0.client.send(link, &FromRack::Hello(hello), trace).await.is_err() {
            return; // Down again; its return brings another Hello.
        }
        let welcomed = self.welcomed().remove(&link);
        if let Some(last) = welcomed {
            let number = self.0.sessions.fetch_add(1, Ordering::Relaxed);
            self.0.ready.send_modify(|ready| {
                ready.insert(link, Session { last, number });
            });
        }
    }

    /// Says it to every region that has heard the Hello.
    pub async fn say(&self, message: &FromRack, trace: TraceId) {
        let up: Vec<_> = self.0.ready.borrow().keys().copied().collect();
        for link in up {
            self.0.client.send(link, message, trace).await.ok(); // Down: the next Hello says it.
        }
    }

    fn welcomed(&self) -> std::sync::MutexGuard<'_, BTreeMap<LinkId, ReportSeq>> {
        self.0.welcomed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn down(&self, link: LinkId) {
        self.welcomed().remove(&link);
        self.0.ready.send_if_modified(|ready| ready.remove(&link).is_some());
    }

    fn address(&self, link: LinkId) -> String {
        self.0.addresses.get(link).cloned().unwrap_or_default()
    }
}

/// How often a rack says how its clock stands.
const CLOCK: Duration = Duration::from_secs(60);

/// Says how the clock stands: on every new link, and every minute.
pub async fn tell_clock(links: Links) {
    let mut ready = links.ready().subscribe();
    loop {
        let synchronised = kernel::clock_care().is_ok_and(|care| care.synchronised);
        let report = ClockReport { now: clock::now(), synchronised };
        links.say(&FromRack::Clock(report), TraceId::default()).await;
        tokio::select! {
            changed = ready.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(CLOCK) => {}
        }
    }
}

/// What the link's messages are handed to.
pub struct Listener {
    pub links: Links,
    pub agent: ActorRef<Agent>,
    pub deputies: Deputies,
    pub sweeper: Sweeper,
    pub state: State,
    pub plan: PlanHandle,
    pub fetcher: Fetcher,
    pub reporter: Reporter,
    pub neighbours: Neighbours,
    pub registry: Registry,
}

impl Listener {
    /// Until the client stops.
    pub async fn run(self, mut events: mpsc::Receiver<Event>) {
        let open: Vec<_> = self.plan.load().tickets().map(|t| Ticket::clone(t)).collect();
        self.held(&open);
        while let Some(event) = events.recv().await {
            match event {
                Event::Up { link, welcome } => self.up(link, &welcome).await,
                Event::Down { link, why, remedy, .. } => {
                    self.links.down(link);
                    self.tell(AgentEvent::LinkDown { address: self.links.address(link), why, remedy }).await;
                }
                Event::Message { link, trace, message } => {
                    Source::new("link", &self.links.address(link)).scope(self.heard(link, trace, message)).await;
                }
            }
        }
    }

    async fn up(&self, link: LinkId, welcome: &Welcome) {
        let now = clock::now();
        let skew = now.since(welcome.now).max(welcome.now.since(now));
        if skew > SKEW {
            tracing::warn!(?skew, region = %welcome.region, "the clocks of region and rack differ; run NTP on both");
        }
        if let Err(error) = self.state.number_above(welcome.last_report).await {
            tracing::error!(%error, "reports cannot be numbered above what the region has");
        }
        if let Err(error) = self.state.acked(welcome.last_report).await {
            tracing::error!(%error, "reports that the region has stay on disk until the next acknowledgement");
        }
        self.links.0.acked.send_replace(welcome.last_report);
        self.links.welcomed().insert(link, welcome.last_report);
        let address = self.links.address(link);
        tracing::info!(%address, region = %welcome.region, rack = %welcome.rack, "linked to the region");
        self.tell(AgentEvent::LinkUp { address, region: welcome.region }).await;
    }

    async fn heard(&self, link: LinkId, trace: TraceId, message: ToRack) {
        match message {
            ToRack::Plan(update) => self.plan(link, *update).await,
            ToRack::Order(order) => {
                self.sweeper.stand_aside(order.machine);
                self.deputies.order(order, trace).await;
            }
            ToRack::Sweep(update) => self.sweeper.update(*update),
            ToRack::CancelOrder { machine, attempt } => self.deputies.cancel(machine, attempt, trace).await,
            ToRack::Ack { through } => drop(self.links.0.acked.send_replace(through)),
            ToRack::LogsKept { run, number } => drop(self.links.0.logs_kept.send_replace((run, number))),
            ToRack::SendHello => self.tell(AgentEvent::HelloAsked { address: self.links.address(link) }).await,
            ToRack::Leases(leases) => self.neighbours.leases(leases),
            ToRack::LeasesThrough { rack, through } => self.neighbours.through(rack, through),
            ToRack::Inspect { number, ask } => self.show(link, trace, number, ask),
            ToRack::Welcome { .. } | ToRack::Refused { .. } => {} // The link's own words.
        }
    }

    /// What the actors show, to the region that asked. Beside the other messages: an order does not wait for it.
    fn show(&self, link: LinkId, trace: TraceId, number: u64, ask: InspectAsk) {
        let (registry, client) = (self.registry.clone(), self.links.client().clone());
        tokio::spawn(async move {
            let (json, left_off) = inspection::answer(&registry, &ask);
            let answer = FromRack::Inspected { number, json, left_off };
            client.send(link, &answer, trace).await.ok(); // Down: who asked has given up.
        });
    }

    /// Durable first, then in force, then said.
    async fn plan(&self, link: LinkId, update: PlanUpdate) {
        let before = self.plan.load();
        if let Some(base) = update.base
            && base != before.plan.generation
        {
            tracing::warn!(%base, have = %before.plan.generation, "a plan update does not fit; asking for the whole plan");
            return self.tell(AgentEvent::PlanGap { address: self.links.address(link) }).await;
        }
        if let Err(error) = self.state.apply(&update).await {
            // Unsaid, so the region sends it again.
            return tracing::error!(%error, generation = %update.generation, "the plan cannot be made durable; the old one stays in force");
        }
        let (generation, put) = (update.generation, update.tickets.put.clone());
        self.plan.apply(update);
        tracing::info!(%generation, tickets = put.len(), "a plan is in force");
        self.tell(AgentEvent::PlanInForce { generation }).await;
        self.held(&put);
    }

    /// Open tickets that came into force: said once each, and their bodies fetched.
    fn held(&self, tickets: &[Ticket]) {
        let now = clock::now();
        let open = |t: &&Ticket| t.purpose == BootPurpose::Commissioning && t.expires > now;
        let open: Vec<_> = tickets.iter().filter(open).cloned().collect();
        open.iter().for_each(|ticket| self.reporter.fact(ticket, now, Fact::TicketHeld));
        self.fetcher.plan_changed(open);
    }

    async fn tell(&self, event: AgentEvent) {
        while let Err(actors::shell::Busy::Full { .. }) = self.agent.tell(event.clone(), TraceId::default()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
