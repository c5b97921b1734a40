//! A packet's way: in from a port, to the leases' snapshot or their actor, out as an answer with its facts. The thread's own state; ports and their opening are next door.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddrV4},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actors::{
    clock,
    core::{Moved, RecordError, TraceId},
    leases::{
        Ask, Batch, LeaseEffect, LeaseEvent, Outcome, Pool, ReplyTo, Row, Rules, SubnetLeases, Want, shared,
        watch::{Turn, Watch},
    },
    shell::{ActorRef, LocalBoxFuture, Perform, Registry, spawn_here},
};
use schema::{
    id::{Generation, SubnetId},
    messages::report::Fact,
    net::MacAddr,
    plan::{Lease, PlanSubnet},
    time::Timestamp,
};

use super::{
    answer::{self, Reply},
    journal::Journal,
    neighbours::Neighbours,
    packet::{self, MessageType, Packet, Request},
    route::{self, Action, Passed, Reserved, Routed},
    seek,
    shares::{self, Shares, is_peer},
    socket::Port,
    status::{Counters, Shortage, Sighting},
    strays::{self, Strays},
    twins::Twins,
};
use crate::{
    leases::LeaseTable,
    plan::{PlanHandle, Snapshot},
    report::Reporter,
    service::Meter,
};

/// Packets that wait for one subnet's disk; beyond it clients are left to ask again.
const MOST_WAITING: usize = 8_192;

/// A machine that waits is told of a foreign server this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// All that a packet needs, on the DHCP thread.
pub(super) struct Hands {
    pub(super) plan: PlanHandle,
    pub(super) table: LeaseTable,
    pub(super) reporter: Reporter,
    pub(super) counters: Counters,
    pub(super) meter: Meter,
    pub(super) registry: Registry,
    pub(super) journal: Journal,
    pub(super) http_port: u16,
    /// Other racks of ours: never foreign.
    pub(super) peers: Vec<Ipv4Addr>,
    /// Rows of subnets that no packet has asked for yet.
    pub(super) kept: RefCell<HashMap<SubnetId, Vec<Row>>>,
    pub(super) view: RefCell<View>,
    pub(super) subnets: RefCell<HashMap<SubnetId, Rc<Subnet>>>,
    /// Subnets that got asks in this round.
    pub(super) dirty: RefCell<Vec<Rc<Subnet>>>,
    pub(super) neighbours: Neighbours,
    pub(super) shares: RefCell<Shares>,
    /// Whether ports look for other servers.
    pub(super) seek: bool,
    /// Steps that were asked for and are not carried out yet, by number: since when.
    pub(super) flights: RefCell<BTreeMap<u64, Timestamp>>,
    pub(super) probing: Cell<usize>,
    /// Which machine was told last, and when, that this rack stands aside.
    pub(super) told: RefCell<HashMap<MacAddr, Timestamp>>,
    pub(super) strays: RefCell<Strays>,
    pub(super) twins: RefCell<Twins>,
}

/// The plan as this round of packets sees it.
#[derive(Default)]
pub(super) struct View {
    pub(super) plan: Arc<Snapshot>,
    version: u64,
    rules: HashMap<SubnetId, Rules>,
    /// Every address of this host that is served.
    pub(super) own: Vec<Ipv4Addr>,
}

/// One subnet's actor, and the asks that wait while its last batch is on its way to the disk.
pub(super) struct Subnet {
    pub(super) actor: ActorRef<SubnetLeases>,
    waiting: RefCell<Vec<Ask>>,
    busy: Cell<bool>,
    /// Releases and declines on their way: the snapshot must not answer before them.
    ending: Cell<usize>,
    watch: RefCell<Watch>,
}

/// A client that waits for its answer.
pub(super) struct Pending {
    pub(super) request: Box<Request>,
    pub(super) routed: Routed,
    pub(super) subnet: SubnetId,
    plan: Arc<Snapshot>,
    pub(super) port: Arc<Port>,
    source: SocketAddrV4,
    pub(super) want: Option<Want>,
    /// When the packet was read.
    read: Instant,
}

impl Hands {
    /// The plan in force, with what is derived from it.
    pub(super) fn refresh(&self) {
        let plan = self.plan.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(&plan, &view.plan) {
            self.shares.borrow_mut().plan_changed(&plan.plan.subnets, clock::now());
            view.plan = plan;
            view.version += 1;
            view.rules.clear();
        }
    }

    /// The addresses of this host have changed.
    pub(super) fn set_own(&self, own: Vec<Ipv4Addr>) {
        let mut view = self.view.borrow_mut();
        if view.own != own {
            view.own = own;
            view.version += 1;
            view.rules.clear();
        }
    }

    pub(super) fn rules(&self, plan: &PlanSubnet, subnet: &Subnet) -> Rules {
        let shared = self.shares.borrow().of(plan, subnet.watch.borrow().lost());
        let mut view = self.view.borrow_mut();
        if let Some(rules) = view.rules.get(&plan.id) {
            return Rules { shared, ..rules.clone() };
        }
        let pool = Arc::new(Pool::of(plan, &view.own));
        let reserved = Reserved { plan: view.plan.clone(), subnet: plan.id, cidr: plan.cidr };
        let rules = Rules { version: view.version, pool, reservations: Arc::new(reserved), shared: None };
        view.rules.insert(plan.id, rules.clone());
        Rules { shared, ..rules }
    }

    /// One packet. Nothing in it can stop the service.
    pub(super) fn packet(self: &Rc<Self>, port: &Arc<Port>, bytes: &[u8], source: SocketAddrV4, now: Timestamp) {
        self.counters.count("received");
        let read = clock::tick();
        let request = match packet::parse(bytes) {
            Ok(Packet::Request(request)) => request,
            Ok(Packet::Heard(_)) => return self.counters.count("stray_reply"),
            Err(why) => return self.counters.complain("malformed", &why.to_string(), now, None),
        };
        self.counters.count(name(request.kind));
        let plan = self.view.borrow().plan.clone();
        let routed = route::route(&request, &port.addresses, &plan, now);
        if let Some(stray) =
            strays::of(&request, routed.as_ref().map_err(|why| *why), &port.addresses, &plan, &port.name, now)
            && let Some(all) = self.strays.borrow_mut().note(stray)
        {
            self.neighbours.astray(all);
        }
        if request.kind == MessageType::Discover
            && let Some((uuid, ticket)) = request.client.firmware_uuid().zip(route::orders(&plan, request.mac, now))
            && let Some(uuids) = self.twins.borrow_mut().note(request.mac, ticket.attempt, uuid, now)
        {
            self.reporter.fact(ticket, now, Fact::TwoHosts { mac: request.mac, uuids });
        }
        let routed = match routed {
            Ok(routed) => routed,
            Err(Passed::Stranger) => return self.counters.count("stranger"),
            Err(passed) => return self.counters.complain("passed", &passed.to_string(), now, Some(request.mac)),
        };
        let Some(subnet) = plan.plan.subnets.get(routed.subnet) else { return };
        let (id, port) = (subnet.id, port.clone());
        let mut pending = Pending { request, routed, subnet: id, plan: plan.clone(), port, source, want: None, read };
        match routed.action {
            Action::Inform => self.inform(&pending, now),
            Action::Ask(want) => {
                let at = self.subnet(id);
                let want = self.heard(subnet, &at, want, &pending.request, now);
                pending.want = Some(want);
                match self.passed(subnet, &at, want, &pending, now) {
                    Some(passed) => self.pass(passed, &pending, now),
                    None => self.ask(subnet, at, want, pending, now),
                }
            }
        }
    }

    fn inform(&self, pending: &Pending, now: Timestamp) {
        let Pending { request, routed, plan, .. } = pending;
        if let Some(around) = route::around(plan, *routed, request, self.http_port, now) {
            self.send(pending, &answer::inform(request, &around), now);
        }
    }

    /// What a packet tells of other servers.
    fn heard(&self, plan: &PlanSubnet, subnet: &Subnet, want: Want, request: &Request, now: Timestamp) -> Want {
        let (want, foreign) = shares::heard(plan, &mut subnet.watch.borrow_mut(), want, request);
        if let Some(server) = foreign {
            let evidence = "a client's REQUEST names it as its server";
            self.note_foreign(plan, &Sighting { server, mac: None, evidence, certain: false }, now);
        }
        want
    }

    /// Why a client of this subnet is not answered now, if it is not.
    fn passed(
        &self,
        plan: &PlanSubnet,
        subnet: &Subnet,
        want: Want,
        pending: &Pending,
        now: Timestamp,
    ) -> Option<Passed> {
        let mac = pending.request.mac;
        let takes = matches!(want, Want::Take { .. } | Want::Renew { .. } | Want::Reboot { .. });
        let offer = matches!(want, Want::Offer { .. });
        if (takes || offer) && !plan.beside_foreign_dhcp && self.counters.has_foreign(plan.id) {
            // Who has a lease keeps it; nobody gets a new one.
            let held = takes && subnet.actor.snapshot().lease_of(mac, now).is_some();
            return (!held).then_some(Passed::Halted);
        }
        if !offer {
            return None;
        }
        let port = &pending.port;
        if self.seek && port.interface.is_some() && now.since(port.opened) < seek::LISTEN {
            return Some(Passed::Looking);
        }
        let secs = pending.request.secs;
        match self.shares.borrow().turn(plan, &mut subnet.watch.borrow_mut(), mac, secs, now) {
            Turn::Answer => None,
            Turn::Leave => Some(Passed::OtherRack),
            Turn::Copies => Some(Passed::Copies),
        }
    }

    fn pass(&self, passed: Passed, pending: &Pending, now: Timestamp) {
        match passed {
            Passed::OtherRack => self.counters.count("left_to_other_rack"),
            Passed::Copies => self.counters.count("awaits_copies"),
            Passed::Looking => self.counters.count("looks_for_servers"),
            Passed::Halted => self.halted(pending, now),
            other => self.counters.complain("passed", &other.to_string(), now, Some(pending.request.mac)),
        }
    }

    /// A client is left to a foreign server. A machine under orders is told so, for somebody waits for it.
    fn halted(&self, pending: &Pending, now: Timestamp) {
        let mac = pending.request.mac;
        self.counters.complain("halted", &Passed::Halted.to_string(), now, Some(mac));
        let (Some(foreign), Some(ticket)) =
            (self.counters.foreign_of(pending.subnet), route::orders(&pending.plan, mac, now))
        else {
            return;
        };
        let mut told = self.told.borrow_mut();
        if told.get(&mac).is_none_or(|at| now.since(*at) >= SAY_AGAIN) {
            told.retain(|_, at| now.since(*at) < SAY_AGAIN);
            told.insert(mac, now);
            let (subnet, why, remedy) = (pending.subnet, foreign.to_string(), foreign.remedy);
            self.reporter.fact(ticket, now, Fact::NoAddress { mac, subnet, why, remedy });
        }
    }

    fn ask(self: &Rc<Self>, plan: &PlanSubnet, subnet: Rc<Subnet>, want: Want, pending: Pending, now: Timestamp) {
        let mac = pending.request.mac;
        let leases = subnet.actor.snapshot();
        let hostname = pending.request.hostname.as_ref().map(|h| shared(h.as_str()));
        let to = ReplyTo(Arc::new(pending));
        let (rules, lease_s) = (self.rules(plan, &subnet), self.lease_s(&to));
        let ask = Ask { mac, hostname, lease_s, want, to };
        if subnet.ending.get() == 0
            && let Some(outcome) = leases.settled(&ask, &rules, now)
        {
            self.counters.count("settled");
            return self.deliver(&ask.to, &outcome, now);
        }
        if matches!(want, Want::Release { .. } | Want::Decline { .. }) {
            subnet.ending.set(subnet.ending.get() + 1);
        }
        let mut waiting = subnet.waiting.borrow_mut();
        if waiting.len() >= MOST_WAITING {
            return self.counters.complain(
                "overload",
                "more requests wait than the disk takes; clients ask again",
                now,
                None,
            );
        }
        if waiting.is_empty() {
            self.dirty.borrow_mut().push(subnet.clone());
        }
        waiting.push(ask);
    }

    fn lease_s(&self, to: &ReplyTo) -> u32 {
        to.0.downcast_ref::<Pending>().map_or(1, |p| p.routed.lease_s)
    }

    /// The subnet's actor, started with what the disk has of it.
    pub(super) fn subnet(self: &Rc<Self>, id: SubnetId) -> Rc<Subnet> {
        if let Some(subnet) = self.subnets.borrow().get(&id) {
            return subnet.clone();
        }
        let rows = self.kept.borrow_mut().remove(&id).unwrap_or_default();
        let core = SubnetLeases::load(id, rows);
        let actor = spawn_here(core, Generation::default(), LeaseHands(self.clone()), &self.registry, false);
        let watch = RefCell::new(Watch::new(clock::now()));
        let (waiting, busy, ending) = (RefCell::default(), Cell::new(false), Cell::new(0));
        let subnet = Rc::new(Subnet { actor, waiting, busy, ending, watch });
        self.subnets.borrow_mut().insert(id, subnet.clone());
        subnet
    }

    /// After a round of packets: each subnet whose last batch is done gets its next, with all that came meanwhile.
    pub(super) fn flush(self: &Rc<Self>) {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        for subnet in dirty {
            if !subnet.busy.get() {
                self.dispatch(subnet);
            }
        }
    }

    fn dispatch(self: &Rc<Self>, subnet: Rc<Subnet>) {
        let asks = std::mem::take(&mut *subnet.waiting.borrow_mut());
        let plan = self.view.borrow().plan.clone();
        let Some(planned) = plan.plan.subnets.iter().find(|s| s.id == *subnet.actor.id()) else {
            return; // The subnet went out of the plan while they waited.
        };
        let rules = self.rules(planned, &subnet);
        let ending = subnet.ending.get();
        let flight = self.flight();
        let asked = subnet.actor.ask(LeaseEvent::Asked(Arc::new(Batch { rules, asks })), TraceId::default());
        subnet.busy.set(true);
        let hands = self.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = asked.await {
                hands.counters.complain("unrecorded", &error.to_string(), clock::now(), None);
            }
            drop(flight);
            subnet.busy.set(false);
            subnet.ending.set(subnet.ending.get().saturating_sub(ending));
            if !subnet.waiting.borrow().is_empty() {
                hands.dispatch(subnet);
            }
        });
    }

    /// An outcome to its client, and what there is to report about it.
    fn deliver(&self, to: &ReplyTo, outcome: &Outcome, now: Timestamp) {
        let Some(pending) = to.0.downcast_ref::<Pending>() else { return };
        let Pending { request, routed, subnet, plan, .. } = pending;
        let Some(around) = route::around(plan, *routed, request, self.http_port, now) else { return };
        let reply = answer::reply(request, outcome, &around);
        let (mac, subnet) = (request.mac, *subnet);
        let method = route::method(plan, request, now);
        let fact = match outcome {
            Outcome::Offer { ip, .. } => Some(Fact::Offered { mac, ip: *ip, subnet, method }),
            // A renewal is no step of a boot.
            Outcome::Ack { ip, lease_s } if request.ciaddr.is_unspecified() => {
                Some(Fact::Leased { mac, ip: *ip, subnet, method, lease_s: *lease_s })
            }
            Outcome::Full { why, remedy } => {
                let complaint = format!("subnet {subnet} has no address for a client: {why}; {remedy}");
                self.counters.complain("full", &complaint, now, Some(mac));
                self.counters.full(subnet, Shortage { mac, at: now, why: why.clone(), remedy: remedy.clone() });
                Some(Fact::NoAddress { mac, subnet, why: why.clone(), remedy: remedy.clone() })
            }
            Outcome::Nak { why } => {
                tracing::info!(%mac, %subnet, why, "DHCPNAK");
                None
            }
            Outcome::Silent { why } => {
                tracing::debug!(%mac, %subnet, why, "no DHCP answer");
                None
            }
            _ => None,
        };
        // Before the answer leaves, so that what the machine does with it is reported after it.
        if let (Some(fact), Some(ticket)) = (fact, route::orders(plan, mac, now)) {
            self.reporter.fact(ticket, now, fact);
        }
        if let Some(reply) = reply {
            self.send(pending, &reply, now);
        }
    }

    fn send(&self, pending: &Pending, reply: &Reply, now: Timestamp) {
        tracing::debug!(mac = %pending.request.mac, kind = ?reply.kind, to = ?reply.to, "DHCP answer");
        match pending.port.send(reply, pending.source, pending.routed.server) {
            Ok(()) => {
                self.counters.count(name(reply.kind));
                self.counters.answered(pending.read.elapsed());
            }
            Err(why) => {
                let complaint =
                    format!("an answer could not be sent on {}: {why}; clients ask again", pending.port.name);
                self.counters.complain("unsent", &complaint, now, Some(pending.request.mac));
            }
        }
    }

    /// Another server, unless it is this host or a rack of ours.
    pub(super) fn note_foreign(&self, subnet: &PlanSubnet, seen: &Sighting<'_>, now: Timestamp) {
        let server = seen.server;
        if is_peer(subnet, server) {
            if let Some(subnet) = self.subnets.borrow().get(&subnet.id) {
                subnet.watch.borrow_mut().other_lives();
            }
            return;
        }
        let ours = self.peers.contains(&server) || self.view.borrow().own.contains(&server);
        if ours || subnet.rack_address == Some(server) {
            return;
        }
        if self.counters.foreign(subnet.id, seen, now) {
            let (mac, evidence) = (seen.mac.map(|mac| mac.to_string()).unwrap_or_default(), seen.evidence);
            let goes_on = subnet.beside_foreign_dhcp;
            tracing::warn!(subnet = %subnet.id, %server, mac, evidence, goes_on, "another DHCP server is on this subnet; without beside_foreign_dhcp nothing more is offered there");
        }
        self.neighbours.heard(self.counters.foreign_now());
    }

    /// Servers that answer nobody any more are forgotten.
    pub(super) fn forget_gone(&self, now: Timestamp) {
        for (subnet, gone) in self.counters.forget_gone(now) {
            tracing::info!(%subnet, server = %gone.server, "the other DHCP server is silent; this rack serves there again");
        }
        self.neighbours.heard(self.counters.foreign_now());
    }
}

fn name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Discover => "discover",
        MessageType::Offer => "offer",
        MessageType::Request => "request",
        MessageType::Decline => "decline",
        MessageType::Ack => "ack",
        MessageType::Nak => "nak",
        MessageType::Release => "release",
        MessageType::Inform => "inform",
    }
}

/// The leases' hands: rows to the journal, answers to the wire.
#[derive(Clone)]
struct LeaseHands(Rc<Hands>);

impl Perform<SubnetLeases> for LeaseHands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn record(&self, moved: Moved<SubnetLeases>) -> LocalBoxFuture<'static, Result<(), RecordError>> {
        let keep = |effect: &LeaseEffect| match effect {
            LeaseEffect::Keep(row) | LeaseEffect::Copy(row) => Some(row.clone()),
            LeaseEffect::Answer { .. } => None,
        };
        let rows: Vec<Row> = moved.effects.iter().filter_map(keep).collect();
        if rows.is_empty() {
            return Box::pin(std::future::ready(Ok(()))); // Offers and refusals need no disk.
        }
        let journal = self.0.journal.clone();
        Box::pin(async move { journal.keep(rows).await.map_err(|e| RecordError::Unavailable(e.to_string())) })
    }

    fn perform(&self, _: &ActorRef<SubnetLeases>, effect: LeaseEffect, _: TraceId) {
        match effect {
            LeaseEffect::Keep(row) => {
                let lease = reported(row);
                self.0.table.put(lease.clone());
                self.0.reporter.lease(lease);
            }
            LeaseEffect::Copy(row) => self.0.table.put(reported(row)),
            LeaseEffect::Answer { to, outcome: Outcome::Probe { ip }, .. } => self.0.probe(to, ip),
            LeaseEffect::Answer { to, outcome, .. } => self.0.deliver(&to, &outcome, clock::now()),
        }
    }
}

/// A row as the rack's servers and the region see it: a declined address belongs to nobody.
pub(super) fn reported(row: Row) -> Lease {
    match row.kind {
        actors::leases::Kind::Declined => Lease { expires: row.lease.granted, ..row.lease },
        _ => row.lease,
    }
}
