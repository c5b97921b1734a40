//! A rack of the deterministic yard: what stands on its disk, what it has in memory, and how it starts and dies.
//! Its side of the link is in `cell/link.rs`, its actors' hands in `cell/hands.rs`, its servers in `cell/dhcp.rs`, `tftp.rs` and `http.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use actors::{
    agent::Agent,
    errand::{Errand, Progress as ErrandProgress},
    leases::{Ask, ReplyTo, Row, SubnetLeases},
    session::Sending,
};
use rack::{
    dhcp::{status::Counters, strays::Strays, twins::Twins},
    disk::Disk as Standing,
    http::metadata::Progress,
    leases::LeaseTable,
    plan::Snapshot,
    state::outbox::{Index, OutboxLimits},
};
use schema::{
    boot::{BodyRef, Sha256},
    id::{AttemptId, RackId, ReportSeq, SubnetId, SystemId},
    messages::{
        link::{ForeignDhcp, Order, PlanUpdate, Stray, ToRack},
        report::{Fact, FileKind, Report},
    },
    net::MacAddr,
    time::Timestamp,
};

use super::{
    hosted::{Hosted, Who, resume},
    world::World,
};
use crate::machine::Request;

mod dhcp;
mod fetch;
mod hands;
mod http;
mod link;
mod names;
mod outbox;
mod partners;
mod power;
mod tftp;

pub(super) use self::power::BmcEv;

/// Reports sent and not acknowledged, as in `rack::outbox`.
const WINDOW: usize = 4_096;

/// What stands on a rack's disk.
pub(super) struct Disk {
    pub(super) plan: Snapshot,
    pub(super) errands: BTreeMap<SystemId, (Option<Order>, ErrandProgress)>,
    pub(super) outbox: BTreeMap<u64, Report>,
    pub(super) index: Index,
    /// The number of the last report.
    pub(super) last: u64,
    pub(super) most: usize,
    pub(super) leases: BTreeMap<(SubnetId, Ipv4Addr), Row>,
    pub(super) bodies: BTreeMap<Sha256, Vec<u8>>,
    /// Nothing can be written.
    pub(super) full: bool,
    /// How it says so.
    pub(super) refusal: &'static str,
    /// Each write takes so much longer.
    pub(super) slower: Duration,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            plan: Snapshot::default(),
            errands: BTreeMap::new(),
            outbox: BTreeMap::new(),
            index: Index::new(OutboxLimits::default()),
            last: 0,
            most: 0,
            leases: BTreeMap::new(),
            bodies: BTreeMap::new(),
            full: false,
            refusal: "",
            slower: Duration::ZERO,
        }
    }
}

/// A fact on its way to the disk.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    pub(super) machine: SystemId,
    pub(super) attempt: AttemptId,
    pub(super) at: Timestamp,
    pub(super) fact: Fact,
}

/// An answer that waits until what was reported before it is durable.
pub(super) struct Settling {
    pub(super) metal: usize,
    pub(super) request: u64,
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// What a rack has in memory.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) agent: Option<Hosted<Agent>>,
    pub(super) errands: BTreeMap<SystemId, Hosted<Errand>>,
    pub(super) leases: BTreeMap<SubnetId, Hosted<SubnetLeases>>,
    pub(super) plan: Arc<Snapshot>,
    pub(super) plan_version: u64,
    pub(super) table: LeaseTable,
    pub(super) progress: Progress,
    pub(super) counters: Counters,
    pub(super) foreign_said: Vec<ForeignDhcp>,
    strays: Strays,
    twins: Twins,
    pub(super) strays_said: Vec<Stray>,
    pub(super) told_foreign: BTreeMap<MacAddr, Timestamp>,
    pub(super) sending: Option<Sending>,
    pub(super) acked: ReportSeq,
    /// Reports up to there are acknowledged and leave the disk with the next write, or a little later.
    pub(super) forgets: Option<ReportSeq>,
    pub(super) welcomed: Option<ReportSeq>,
    pub(super) listening: bool,
    pub(super) inbox: VecDeque<ToRack>,
    pub(super) applying: bool,
    pub(super) fresh: Vec<Fresh>,
    pub(super) settling: Vec<Settling>,
    pub(super) writing: Option<(Vec<Fresh>, Vec<Settling>)>,
    pub(super) waiting: BTreeMap<SubnetId, Vec<Ask>>,
    pub(super) batches: BTreeSet<SubnetId>,
    shared: partners::Shared,
    /// Where the addresses of a name begin in its next answer.
    pub(super) turn: u32,
    transfers: BTreeMap<(usize, u64), tftp::Sender>,
    pub(super) power: power::Power,
    tickets: Vec<fetch::Missing>,
    pub(super) fetching: BTreeSet<Sha256>,
    pub(super) paused: BTreeMap<Sha256, Timestamp>,
    pub(super) absent: BTreeSet<(SystemId, AttemptId, Sha256)>,
    /// What the process knows of its disk.
    pub(super) standing: Standing,
}

/// A rack.
pub(super) struct Rack {
    pub(super) id: RackId,
    /// The network that it serves.
    pub(super) wire: usize,
    /// Its address there.
    pub(super) address: Ipv4Addr,
    pub(super) life: u32,
    pub(super) up: bool,
    /// Its clock before the world's.
    pub(super) skew_us: i64,
    /// Services that do not answer.
    pub(super) dead: BTreeSet<&'static str>,
    /// Another DHCP server on its wire answers first.
    pub(super) foreign: Option<Ipv4Addr>,
    /// Numbers of sockets, requests and waits: never used twice, whatever life it is.
    numbers: u64,
    pub(super) disk: Disk,
    pub(super) memory: Memory,
}

/// What happens to it.
pub(super) enum RackEv {
    PlanDurable(Box<PlanUpdate>),
    Gathered,
    Forget,
    Silence {
        acked: ReportSeq,
    },
    Clock,
    /// A disk that refused is looked at again.
    Room,
    /// The look that a rack takes every second while it shares a subnet.
    Look,
    /// The wire has answered for an address, or nobody did.
    Probed {
        to: ReplyTo,
        ip: Ipv4Addr,
        user: Option<MacAddr>,
    },
    /// Other racks' leases are tried again.
    Copies,
    /// A BMC answers a driver's run, or something about it is due.
    Bmc(SystemId, power::BmcEv),
    /// Somebody is to be asked by the sweep.
    Sweep(u64),
    Dhcp {
        metal: usize,
        socket: u64,
        bytes: Vec<u8>,
    },
    Overheard {
        server: Ipv4Addr,
    },
    Tftp {
        metal: usize,
        socket: u64,
        bytes: Vec<u8>,
    },
    TftpSilence {
        metal: usize,
        socket: u64,
        number: u64,
    },
    Http {
        metal: usize,
        request: u64,
        asked: Box<Request>,
    },
    /// The machine's kernel has acknowledged the last byte, or it never will.
    Arrived {
        whose: (SystemId, AttemptId),
        file: String,
        kind: FileKind,
        bytes: u64,
        since: Timestamp,
        ok: bool,
    },
    Fetched {
        body: BodyRef,
        bytes: Option<Vec<u8>>,
    },
    FetchTick,
}

impl Rack {
    pub(super) fn new(id: RackId, wire: usize, address: Ipv4Addr) -> Self {
        let (disk, memory) = (Disk::new(), Memory::default());
        Self {
            id,
            wire,
            address,
            life: 0,
            up: false,
            skew_us: 0,
            foreign: None,
            dead: BTreeSet::new(),
            numbers: 0,
            disk,
            memory,
        }
    }
}

impl World {
    pub(super) fn rack_event(&mut self, rack: usize, what: RackEv) {
        match what {
            RackEv::PlanDurable(update) => self.plan_durable(rack, *update),
            RackEv::Gathered => self.gathered(rack),
            RackEv::Forget => self.forget_acked(rack),
            RackEv::Silence { acked } => self.outbox_silence(rack, acked),
            RackEv::Clock => self.tell_clock(rack),
            RackEv::Look => self.look_at_shares(rack),
            RackEv::Probed { to, ip, user } => self.probed(rack, &to, ip, user),
            RackEv::Copies => self.copy_again(rack),
            RackEv::Room => self.look_for_room(rack),
            RackEv::Bmc(machine, what) => self.bmc_event(rack, machine, what),
            RackEv::Sweep(turn) => self.sweep_due(rack, turn),
            RackEv::Dhcp { metal, socket, bytes } => self.dhcp_packet(rack, metal, socket, &bytes),
            RackEv::Overheard { server } => self.overheard(rack, server),
            RackEv::Tftp { metal, socket, bytes } => self.tftp_packet(rack, metal, socket, &bytes),
            RackEv::TftpSilence { metal, socket, number } => self.tftp_silence(rack, metal, socket, number),
            RackEv::Http { metal, request, asked } => self.http_request(rack, metal, request, &asked),
            RackEv::Arrived { whose, file, kind, bytes, since, ok } => {
                self.arrived(rack, whose, file, kind, bytes, since, ok);
            }
            RackEv::Fetched { body, bytes } => self.fetched(rack, body, bytes),
            RackEv::FetchTick => self.fetch(rack),
        }
    }

    /// `kill -9`. What stands on the disk stands; the rest is lost.
    pub(super) fn kill_rack(&mut self, rack: usize) {
        if !self.racks[rack].up {
            return;
        }
        self.say(&format!("r{rack} killed"));
        let node = &mut self.racks[rack];
        (node.up, node.memory) = (false, Memory::default());
        node.life += 1;
        self.links[rack].rack_up = false;
        self.half_dead(rack);
    }

    /// As `rack::app` starts: plan, errands, leases and outbox from the disk.
    pub(super) fn start_rack(&mut self, rack: usize) {
        if self.racks[rack].up {
            return;
        }
        self.say(&format!("r{rack} starts"));
        let now = self.rack_now(rack);
        let node = &mut self.racks[rack];
        node.up = true;
        node.memory.plan = Arc::new(node.disk.plan.clone());
        node.memory.sending = Some(Sending::new(WINDOW));
        let mut by_subnet: BTreeMap<SubnetId, Vec<Row>> = BTreeMap::new();
        for row in node.disk.leases.values() {
            node.memory.table.put(dhcp::reported(row.clone()));
            by_subnet.entry(row.lease.subnet).or_default().push(row.clone());
        }
        for (subnet, rows) in by_subnet {
            node.memory.leases.insert(subnet, Hosted::new(SubnetLeases::load(subnet, rows)));
        }
        let kept: Vec<Errand> = node
            .disk
            .errands
            .iter()
            .map(|(id, (order, progress))| Errand::restored(*id, order.clone(), progress.clone()))
            .collect();
        let orders = kept.iter().filter_map(|errand| Some((errand.machine, errand.under_way()?))).collect();
        let regions = [link::REGION.to_owned()];
        let agent = Agent::starting(node.id, regions, node.memory.plan.plan.generation, orders, now);
        node.memory.agent = Some(Hosted::new(agent));
        resume::<Agent>(self, Who::Agent(rack));
        for errand in kept {
            let id = errand.machine;
            self.racks[rack].memory.errands.insert(id, Hosted::new(errand));
            resume::<Errand>(self, Who::Errand(rack, id));
        }
        self.shares_change(rack);
        self.begin_listening(rack);
        self.dial_later(rack);
    }

    /// How long a write on that rack's disk takes.
    pub(super) fn rack_write(&mut self, rack: usize) -> Duration {
        self.racks[rack].disk.slower + self.weather.disk(&mut self.draw)
    }

    /// Reports a fact, as `rack::report::Reporter` does: it is durable a little later.
    pub(super) fn report(&mut self, rack: usize, machine: SystemId, attempt: AttemptId, fact: Fact) {
        let at = self.rack_now(rack);
        self.racks[rack].memory.fresh.push(Fresh { machine, attempt, at, fact });
        self.gather_facts(rack);
    }
}
