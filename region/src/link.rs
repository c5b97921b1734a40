//! The region's side of the link: lets racks in, takes what they say to the actors, tells them plans and orders. The wire is `actors::link`'s.
//!
//! Reports of one rack are handed to their machines in order; a report counts as heard once its step, and every step before it, is
//! durable. Only then is it acknowledged, so a region that dies loses nothing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use actors::{
    clock,
    core::TraceId,
    link::{
        bulk::BulkRequest,
        server::{Connection, Incoming},
        stream::Sender,
    },
    rack::{RackClock, RackEvent, RackFacts},
    shell::Source,
    subnet::SubnetEvent,
};
use schema::{
    id::{RackId, SystemId},
    messages::link::{BulkHeader, ClockReport, FromRack, Hello, Order, PlanUpdate, ToRack},
    plan::Lease,
    power::PowerAccess,
    secret::Secret,
    time::Timestamp,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::MissedTickBehavior,
};
use tracing::{debug, info, warn};

use crate::{
    app::{App, Missing, new_trace},
    links::{Connected, Dirty, ToDo},
    plans::{self, Told},
    seal::SealError,
    store::StoreError,
    sweeps,
};

mod copies;
pub mod derive;
mod door;
mod pace;
mod reports;
mod services;
mod strays;

pub use door::Door;
use pace::Pace;

/// Changes of a plan gather for that long before they go out together.
const GATHER: Duration = Duration::from_millis(5);
/// Pages of names to one rack are that far apart: every name goes to every rack's disk, and no boot waits for one. The first goes at once.
const NAMES_APART: Duration = Duration::from_secs(1);
/// Each page is a write of the rack's disk and two steps of its actor: a large site has so many times its racks between two to one rack.
const NAMES_A_RACK: Duration = Duration::from_millis(50);

/// How long an order waits before the store is asked again for its secrets.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// Takes connections until the link stops.
pub async fn accept(app: App, mut connections: mpsc::Receiver<Connection>) {
    let mut racks = JoinSet::new();
    loop {
        tokio::select! {
            connection = connections.recv() => match connection {
                Some(connection) => {
                    let source = Source::new("link", connection.rack.as_str());
                    racks.spawn(source.scope(serve(app.clone(), connection)));
                }
                None => break,
            },
            Some(ended) = racks.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a rack's connection ended by a fault");
                }
            }
        }
    }
    // The link stops: every connection says so to its own task.
    while racks.join_next().await.is_some() {}
}

/// One rack's connection, from its Welcome to its end.
async fn serve(app: App, mut connection: Connection) {
    let rack = connection.rack;
    info!(%rack, peer = %connection.peer, "connected");
    let (queue, todo) = mpsc::unbounded_channel();
    let connected = Arc::new(Connected {
        number: connection.number,
        hello: OnceLock::new(),
        services: Mutex::default(),
        queue,
        dirty: Dirty::default(),
        copies: Default::default(),
        names: Default::default(),
    });
    app.links.put(rack, connected.clone());
    let talking = Talking { app: app.clone(), rack, connected: connected.clone(), sender: connection.sender.clone() };
    let mut tasks = JoinSet::new();
    tasks.spawn(speak(app.clone(), rack, todo, connection.sender.clone()));
    let why = talking.listen(&mut connection, &mut tasks).await;
    tasks.shutdown().await;
    info!(%rack, why, "disconnected");
    if app.links.take(rack, connected.number) {
        app.racks_changed();
        let last_report = app.links.seen(rack).unwrap_or_default();
        talking.tell_rack(RackEvent::Disconnected { why, last_report }, new_trace()).await;
    }
}

/// Whether that is longer ago than the time between two looks. Of what takes no time it says that the region itself was busy.
fn is_late(began: Instant) -> bool {
    clock::tick().saturating_duration_since(began) > services::LOOK
}

/// One rack's connection, as its parts use it.
struct Talking {
    app: App,
    rack: RackId,
    connected: Arc<Connected>,
    sender: Sender<ToRack>,
}

impl Talking {
    /// Reads until the connection ends; says why it did.
    async fn listen(&self, connection: &mut Connection, tasks: &mut JoinSet<()>) -> String {
        let reports = reports::Desk::new(&self.app, self.rack);
        let mut kept: Vec<AbortHandle> = Vec::new();
        let mut look = tokio::time::interval(services::LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // From then on the rack could be heard: what a busy region does not read is no silence.
        let mut listening = clock::now();
        let mut read = clock::tick();
        loop {
            // What came is read before silence is spoken of.
            let incoming = tokio::select! {
                biased;
                incoming = connection.incoming.recv() => incoming,
                due = look.tick() => {
                    if is_late(due.into_std()) {
                        listening = clock::now();
                    }
                    // Its words come in order: while others come, the one that is missed may be behind them.
                    if is_late(read) {
                        self.listen_for_silence(listening).await;
                    }
                    continue;
                }
            };
            let Some(incoming) = incoming else { break };
            let taken = clock::tick();
            match incoming {
                Incoming::Closed { why } => return why,
                Incoming::Bulk(request) => drop(tasks.spawn(bulk(self.app.clone(), self.rack, request))),
                Incoming::Message(trace, FromRack::Report(report)) => {
                    if let Err(why) = reports.take(report, trace).await {
                        self.app.links.close(self.rack, &why);
                    }
                }
                Incoming::Message(trace, FromRack::Hello(hello)) => {
                    kept.drain(..).for_each(|old| old.abort());
                    self.greet(hello.clone(), trace).await;
                    let (app, connected) = (self.app.clone(), self.connected.clone());
                    kept.push(tasks.spawn(sweeps::keep(app.clone(), self.rack, self.sender.clone())));
                    kept.push(tasks.spawn(keep_plan(app, self.rack, connected, self.sender.clone(), hello)));
                }
                Incoming::Message(trace, message) => self.hear(message, trace).await,
            }
            if is_late(taken) {
                listening = clock::now();
            }
            read = clock::tick();
        }
        "the link stopped".into()
    }

    async fn greet(&self, hello: Hello, trace: TraceId) {
        let facts = RackFacts::from(&hello);
        let plan = hello.plan;
        let moved = |known: &RackFacts| known.interfaces != facts.interfaces;
        let known = self.app.rack(self.rack).await.ok().and_then(|actor| actor.snapshot().facts.clone());
        let moved = known.as_ref().is_none_or(moved);
        // A second Hello on the same connection tells the rack's actor; the first stays for the briefs.
        let anew = self.connected.hello.set(Arc::new(hello)).is_ok();
        self.app.racks_changed();
        let last_report = self.app.links.seen(self.rack).unwrap_or_default();
        self.tell_rack(RackEvent::Connected { facts, plan, last_report, anew }, trace).await;
        if moved {
            self.app.links.mark_sections(); // Its neighbours know its addresses.
        }
    }

    async fn hear(&self, message: FromRack, trace: TraceId) {
        match message {
            FromRack::PlanInForce { generation } => {
                self.connected.names().in_force(generation);
                self.tell_rack(RackEvent::PlanInForce { generation }, trace).await;
            }
            FromRack::Leases(leases) => self.take_leases(leases, trace).await,
            FromRack::LeasesThrough { through } => self.app.links.told_through(self.rack, through, trace),
            FromRack::ForeignDhcp(foreign) => self.app.links.heard_foreign(self.rack, foreign),
            FromRack::Strays(strays) => self.take_strays(strays, trace).await,
            FromRack::Services(services) => self.take_services(services, trace).await,
            FromRack::Logs(batch) => self.app.logs.take(self.rack, batch),
            FromRack::Clock(clock) => self.hear_clock(&clock, trace).await,
            FromRack::Inspected { number, json, left_off } => self.app.inspector.answered(number, json, left_off),
            FromRack::Goodbye => debug!(rack = %self.rack, "the rack stops on purpose"),
            FromRack::Hello(_) | FromRack::Report(_) => {} // Handled where they are read.
        }
    }

    /// Tells the rack's actor of its clock when it learns something new by it.
    async fn hear_clock(&self, report: &ClockReport, trace: TraceId) {
        let ahead_ms = (report.now.0 - clock::now().0) / 1_000;
        let heard = RackClock { ahead_ms, synchronised: report.synchronised };
        let known = self.app.rack(self.rack).await.ok().and_then(|actor| actor.snapshot().clock);
        if known.is_none_or(|known| known.differs(&heard)) {
            if heard.is_off() {
                warn!(rack = %self.rack, "{}", heard.said_of(self.rack));
            }
            self.tell_rack(RackEvent::ClockHeard { clock: heard }, trace).await;
        }
    }

    async fn take_leases(&self, mut leases: Vec<Lease>, trace: TraceId) {
        leases.sort_by_key(|lease| lease.subnet);
        for leases in leases.chunk_by(|a, b| a.subnet == b.subnet) {
            let Some(subnet) = leases.first().map(|l| l.subnet) else { continue };
            let told = async {
                let actor = self.app.subnet(subnet).await?;
                Ok::<_, Missing>(
                    actor.ask(SubnetEvent::Leases { leases: leases.to_vec(), from: Some(self.rack) }, trace).await?,
                )
            };
            match told.await {
                Ok(_) => {}
                Err(Missing::NotThere { .. }) => debug!(rack = %self.rack, %subnet, "leases of a subnet that is gone"),
                Err(error) => {
                    // On its next connection the rack says all that run; until then nothing may count as told.
                    warn!(rack = %self.rack, %subnet, %error, "leases were not kept; the rack is asked to dial again and say them");
                    self.app.links.close(self.rack, "its leases could not be kept");
                }
            }
        }
    }

    async fn tell_rack(&self, event: RackEvent, trace: TraceId) {
        tell_rack(&self.app, self.rack, event, trace).await;
    }
}

async fn tell_rack(app: &App, rack: RackId, event: RackEvent, trace: TraceId) {
    let told = async { Ok::<_, Missing>(app.rack(rack).await?.ask(event, trace).await?) };
    if let Err(error) = told.await {
        warn!(%rack, %error, "the rack's actor was not told");
    }
}

/// Keeps a rack's plan up to date: whole first, then what changed.
async fn keep_plan(app: App, rack: RackId, connected: Arc<Connected>, sender: Sender<ToRack>, hello: Hello) {
    let compose = async |app: &App| {
        let mut sections = app.sections(rack, &hello.interfaces);
        let peers = copies::addresses(app, &sections).await;
        plans::with_peers(&mut sections, |peer| peers.get(&peer).cloned().unwrap_or_default());
        sections
    };
    let mut copied = copies::Copied::default();
    let wanted = app.rack(rack).await.map(|actor| actor.snapshot().plan_wanted).unwrap_or_default();
    let mut told = Told::nothing(wanted.max(hello.plan));
    let mut whole = true;
    let mut served = HashSet::new();
    let mut names = Pace::new(NAMES_APART);
    loop {
        let mut marks = connected.dirty.take();
        if whole || marks.whole || marks.sections {
            let now = plans::served_vlans(&app.catalogue_content(), rack);
            // Machines come and go with the VLANs that this rack serves.
            marks.whole |= now != served;
            served = now;
        }
        names.at_least(NAMES_A_RACK * app.links.count());
        let mut updates = Vec::new();
        if whole || marks.whole {
            let tickets = app.tickets.all(rack, &served);
            let (anew, update) = Told::whole(told.generation.next(), compose(&app).await, tickets);
            told = anew;
            updates.push(update);
        } else {
            let tickets: Vec<_> =
                marks.machines.iter().map(|id| (*id, app.tickets.ticket(*id, rack, &served))).collect();
            let sections = if marks.sections { Some(compose(&app).await) } else { None };
            updates.extend(told.update(sections, tickets));
        }
        if whole || marks.whole || names.goes(marks.names, clock::tick()) {
            let (version, pages) = app.names.since(told.names);
            updates.extend(pages.into_iter().map(|page| told.page(page)));
            told.names = version;
            connected.names().sent(told.generation, version);
        }
        whole = false;
        for update in updates {
            let trace = plan_trace(&update);
            let generation = update.generation;
            tell_rack(&app, rack, RackEvent::PlanWanted { generation }, trace).await;
            copied.hold(&connected, told.subnets());
            if let Err(error) = sender.send(&ToRack::Plan(Box::new(update)), trace).await {
                warn!(%rack, %generation, %error, "the plan was not sent");
            }
            if let Err(why) = copied.send(&app, &connected, &sender, told.subnets(), trace).await {
                warn!(%rack, why, "the rack was not told of its neighbour's leases; it is asked to dial again");
                app.links.close(rack, "its neighbour's leases could not be said");
            }
        }
        tokio::select! {
            () = connected.dirty.woken.notified() => tokio::time::sleep(GATHER).await,
            () = names.waits(clock::tick()), if names.held() => {}
        }
    }
}

/// The trace of a plan update: that of its ticket, if it has one alone.
fn plan_trace(update: &PlanUpdate) -> TraceId {
    match update.tickets.put.as_slice() {
        [ticket] => TraceId::of_attempt(ticket.machine, ticket.attempt),
        _ => new_trace(),
    }
}

/// The secrets of an order. While the store does not answer it is asked again, since nobody says the order again on a link that stays up.
/// What comes after it waits meanwhile: a word that takes the order back must not overtake it.
async fn secrets(
    app: &App,
    machine: SystemId,
    deadline: Timestamp,
) -> Result<BTreeMap<String, Secret<String>>, Missing> {
    loop {
        match app.power_secrets(machine).await {
            Err(Missing::Seal(SealError::Store(StoreError::Unread { .. }))) if clock::now() < deadline => {
                tokio::time::sleep(STORE_AGAIN).await;
            }
            ended => return ended,
        }
    }
}

/// Says to a rack what was queued for it, in order.
async fn speak(app: App, rack: RackId, mut todo: mpsc::UnboundedReceiver<(ToDo, TraceId)>, sender: Sender<ToRack>) {
    while let Some((next, trace)) = todo.recv().await {
        let message = match next {
            ToDo::Say(message) => *message,
            ToDo::Order { state, attempt, action, deadline } => {
                match secrets(&app, state.spec.system_id, deadline).await {
                    Ok(secrets) => ToRack::Order(Order {
                        machine: state.spec.system_id,
                        attempt,
                        hostname: state.spec.hostname.clone(),
                        action,
                        access: PowerAccess {
                            power_type: state.spec.power.power_type,
                            params: state.spec.power.params.clone(),
                            secrets,
                        },
                        deadline,
                    }),
                    Err(error) => {
                        warn!(%rack, machine = %state.spec.system_id, %attempt, %error, "an order was not sent: its secrets cannot be read");
                        continue;
                    }
                }
            }
        };
        if let Err(error) = sender.send(&message, trace).await {
            warn!(%rack, %error, "not sent; it is said again when the rack is back");
        }
    }
}

/// Answers one bulk stream.
async fn bulk(app: App, rack: RackId, mut request: BulkRequest) {
    let done = match request.header {
        BulkHeader::Fetch { body, .. } => match app.bodies.path(body.sha256) {
            Some(path) => request.serve(&path).await.map(|_| ()).map_err(|e| e.to_string()),
            None => {
                let why = format!("the body {} is not here", body.sha256);
                request.refuse(why.clone(), "add the image or the loaders again on the region").await;
                Err(why)
            }
        },
        BulkHeader::Store { body } if app.bodies.path(body.sha256).is_some() => {
            request.held().await;
            Ok(())
        }
        BulkHeader::Store { body } => {
            let received = request.receive(&app.bodies.partial(body.sha256)).await.map_err(|e| e.to_string());
            match received.and_then(|body| app.bodies.adopt_partial(body).map_err(|e| e.to_string())) {
                Ok(()) => {
                    request.held().await;
                    Ok(())
                }
                Err(why) => Err(why),
            }
        }
    };
    if let Err(why) = done {
        warn!(%rack, why, "a body's transfer failed");
    }
}
