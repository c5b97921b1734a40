//! The region's side of the link, as `region::link` has it: racks come in, reports reach their machines in order and are acknowledged once
//! they are durable, plans go out whole and then by what changed.

use std::{collections::BTreeSet, time::Duration};

use actors::{
    machine::Machine,
    rack::{Rack, RackClock, RackEvent, RackFacts},
    session::{Receiving, Taken},
    subnet::{Subnet, SubnetEvent},
};
use region::{
    health::name_neighbours,
    link::derive,
    plans::{self, Sections, Told},
};
use schema::{
    id::{Generation, RackId, ReportSeq},
    messages::{
        link::{FromRack, Hello, Stray, ToRack},
        machine::MachineEvent,
        report::Report,
    },
    plan::{Lease, SubnetRack},
};

use super::{Conn, RegionEv};
use crate::seeds::{
    hosted::{Tag, Who, tell},
    world::World,
};

/// As in `region::link`.
const GATHER: Duration = Duration::from_millis(5);

impl World {
    /// A rack knocks: what the region has of its reports.
    pub(in crate::seeds) fn admit(&mut self, rack: usize) -> ReportSeq {
        let stored = self.region.store.seen.get(&rack).copied().unwrap_or_default();
        let session = self.region.sessions.entry(rack).or_insert_with(|| Receiving::new(stored));
        let last = session.last_report();
        session.connected();
        let conn = Conn {
            hello: None,
            told: None,
            whole: true,
            sections: false,
            marked: BTreeSet::new(),
            gathering: false,
            updates: Default::default(),
            asking: false,
            copies: Default::default(),
            named: 0,
            watched: None,
        };
        self.region.conns.insert(rack, conn);
        last
    }

    /// The connection is over.
    pub(in crate::seeds) fn rack_gone(&mut self, rack: usize, why: &str) {
        if self.region.conns.remove(&rack).is_none() {
            return;
        }
        let last_report = self.region.sessions.get(&rack).map(Receiving::last_report).unwrap_or_default();
        let event = RackEvent::Disconnected { why: why.into(), last_report };
        tell::<Rack>(self, Who::Rack(self.racks[rack].id), event, Tag::Nobody);
        self.ways_changed();
    }

    pub(in crate::seeds) fn region_hears(&mut self, rack: usize, message: FromRack) {
        let id = self.racks[rack].id;
        match message {
            FromRack::Hello(hello) => self.greet(rack, hello),
            FromRack::PlanInForce { generation } => {
                tell::<Rack>(self, Who::Rack(id), RackEvent::PlanInForce { generation }, Tag::Nobody);
            }
            FromRack::Report(report) => self.take_report(rack, report),
            FromRack::Leases(leases) => self.take_leases(rack, leases),
            FromRack::Clock(report) => {
                let ahead_ms = (report.now.0 - self.queue.now.0) / 1_000;
                let heard = RackClock { ahead_ms, synchronised: report.synchronised };
                let known = self.region.racks.get(&id).and_then(|hosted| hosted.core.clock);
                if known.is_none_or(|known| known.differs(&heard)) {
                    tell::<Rack>(self, Who::Rack(id), RackEvent::ClockHeard { clock: heard }, Tag::Nobody);
                }
            }
            FromRack::ForeignDhcp(foreign) => drop(self.region.foreign.insert(id, foreign)),
            FromRack::Strays(strays) => self.take_strays(id, strays),
            FromRack::Services(services) => {
                tell::<Rack>(self, Who::Rack(id), RackEvent::Services { services }, Tag::Nobody);
            }
            FromRack::LeasesThrough { through } => self.through_came(rack, through),
            FromRack::Goodbye | FromRack::Logs(_) | FromRack::Inspected { .. } => {}
        }
    }

    fn greet(&mut self, rack: usize, hello: Hello) {
        let id = self.racks[rack].id;
        let facts = RackFacts::from(&hello);
        let (plan, last_report) =
            (hello.plan, self.region.sessions.get(&rack).map(Receiving::last_report).unwrap_or_default());
        let anew = self.region.conns.get(&rack).is_some_and(|conn| conn.hello.is_none());
        if let Some(conn) = self.region.conns.get_mut(&rack) {
            // After a second Hello the plan is told anew from its beginning.
            (conn.told, conn.whole, conn.asking) = (None, true, false);
            conn.updates.clear();
            conn.hello.get_or_insert(hello);
        }
        tell::<Rack>(self, Who::Rack(id), RackEvent::Connected { facts, plan, last_report, anew }, Tag::Nobody);
        self.gather_soon(rack);
        self.ways_changed();
    }

    /// As `region::link` does.
    fn take_strays(&mut self, rack: RackId, strays: Vec<Stray>) {
        let known = self.region.strays.insert(rack, strays.clone()).unwrap_or_default();
        let fresh: Vec<_> = strays.into_iter().filter(|stray| !known.contains(stray)).collect();
        let macs = fresh.iter().map(|stray| stray.mac).collect();
        for owner in self.region.tickets.of_macs(&macs).into_iter().filter(|owner| owner.ordered) {
            let stray = fresh.iter().find(|stray| stray.mac == owner.mac).cloned();
            if let Some(stray) = stray.filter(|_| self.wake_machine(owner.machine)) {
                tell::<Machine>(self, Who::Machine(owner.machine), MachineEvent::Strayed { rack, stray }, Tag::Nobody);
            }
        }
    }

    fn take_leases(&mut self, rack: usize, leases: Vec<Lease>) {
        let from = Some(self.racks[rack].id);
        let subnets: BTreeSet<_> = leases.iter().map(|lease| lease.subnet).collect();
        for subnet in subnets {
            let of: Vec<_> = leases.iter().filter(|lease| lease.subnet == subnet).cloned().collect();
            if self.leases_came(rack).is_some() {
                let tag = Tag::Leases(rack, self.links[rack].number);
                tell::<Subnet>(self, Who::Subnet(subnet), SubnetEvent::Leases { leases: of, from }, tag);
            }
        }
    }

    fn take_report(&mut self, rack: usize, report: Report) {
        let seq = report.seq;
        let Some(session) = self.region.sessions.get_mut(&rack) else { return };
        match session.take(seq) {
            Taken::New => drop(self.region.came.insert((rack, seq), self.queue.now)),
            Taken::UnderWay => return,
            Taken::Repeat { through } => return self.say_to_rack(rack, ToRack::Ack { through }),
            Taken::OutOfOrder { after } => {
                self.laws.broken(format!("report {seq} of rack {rack} came after report {after}"));
                return;
            }
        }
        let bodies = &self.region.store.bodies;
        let derived = derive::of(&report, |content| {
            let stored = || bodies.get(&content.body.sha256).cloned();
            let lost = || format!("the output {} ({} bytes) is not here", content.body.sha256, content.body.len);
            content.inline.clone().or_else(stored).ok_or_else(lost)
        });
        let machine = report.machine;
        if !self.wake_machine(machine) {
            return self.report_durable(rack, seq);
        }
        self.learn(rack, &report);
        let event = MachineEvent::Reported { rack: self.racks[rack].id, report, derived };
        tell::<Machine>(self, Who::Machine(machine), event, Tag::Report(rack, seq));
    }

    /// A report's step is durable, or it never has one.
    pub(in crate::seeds) fn report_durable(&mut self, rack: usize, seq: ReportSeq) {
        if let Some(came) = self.region.came.remove(&(rack, seq)) {
            self.region.turns.heard(self.queue.now.since(came), self.tick());
        }
        if let Some(through) = self.region.sessions.get_mut(&rack).and_then(|session| session.durable(seq)) {
            self.say_to_rack(rack, ToRack::Ack { through });
        }
    }

    /// Changes of a plan gather for a little while.
    pub(in crate::seeds) fn gather_soon(&mut self, rack: usize) {
        let Some(conn) = self.region.conns.get_mut(&rack).filter(|c| c.hello.is_some() && !c.gathering) else { return };
        conn.gathering = true;
        self.for_region(GATHER, RegionEv::Gather { rack });
    }

    fn sections(&self, rack: usize, hello: &Hello) -> Sections {
        let mut sections = plans::sections(self.region.content(), self.racks[rack].id, &hello.interfaces);
        for subnet in &mut sections.subnets {
            let fit = self.connected().into_iter().filter(|id| self.region.fit(*id, actors::rack::Duty::Names).is_ok());
            let there = |id| {
                let near = self.by_rack.get(&id).map(|n| self.racks[*n].address);
                near.filter(|ip| subnet.cidr.contains((*ip).into())).map(|address| SubnetRack { rack: id, address })
            };
            subnet.racks = fit.filter_map(there).collect();
            if self.scenario.house.names {
                name_neighbours(subnet);
            }
        }
        self.name_peers(&mut sections);
        sections
    }

    /// Composes what that rack is not told yet.
    pub(super) fn gather(&mut self, rack: usize) {
        let id = self.racks[rack].id;
        let Some(conn) = self.region.conns.get_mut(&rack) else { return };
        conn.gathering = false;
        let (marked, whole) = (std::mem::take(&mut conn.marked), std::mem::take(&mut conn.whole));
        let with_sections = std::mem::take(&mut conn.sections);
        let Some(hello) = conn.hello.clone() else { return };
        let told = conn.told.take();
        let served = plans::served_vlans(self.region.content(), id);
        let (mut told, update) = match told {
            Some(mut told) if !whole => {
                let tickets: Vec<_> =
                    marked.iter().map(|m| (*m, self.region.tickets.ticket(*m, id, &served))).collect();
                let sections = with_sections.then(|| self.sections(rack, &hello));
                let update = told.update(sections, tickets);
                (told, update)
            }
            before => {
                let wanted = self.region.racks.get(&id).map(|hosted| hosted.core.plan_wanted).unwrap_or_default();
                let known = before.map_or(Generation(0), |told| told.generation);
                let from = wanted.max(hello.plan).max(known);
                let tickets = self.region.tickets.all(id, &served);
                let (told, update) = Told::whole(from.next(), self.sections(rack, &hello), tickets);
                (told, Some(update))
            }
        };
        let pages = self.pages(rack, whole, &mut told);
        let Some(conn) = self.region.conns.get_mut(&rack) else { return };
        conn.told = Some(told);
        conn.updates.extend(update.into_iter().chain(pages));
        self.want_plan(rack);
    }

    /// The rack's actor first knows which plan is wanted; then the plan goes out.
    fn want_plan(&mut self, rack: usize) {
        let Some(conn) = self.region.conns.get_mut(&rack).filter(|conn| !conn.asking) else { return };
        let Some(generation) = conn.updates.front().map(|update| update.generation) else { return };
        conn.asking = true;
        let who = Who::Rack(self.racks[rack].id);
        tell::<Rack>(self, who, RackEvent::PlanWanted { generation }, Tag::Plan(rack));
    }

    pub(super) fn plan_wanted(&mut self, rack: usize) {
        let Some(conn) = self.region.conns.get_mut(&rack).filter(|conn| conn.asking) else { return };
        conn.asking = false;
        if let Some(update) = conn.updates.pop_front() {
            self.hold_copies(rack);
            self.say_to_rack(rack, ToRack::Plan(Box::new(update)));
            self.send_copies(rack);
        }
        self.want_plan(rack);
    }
}
