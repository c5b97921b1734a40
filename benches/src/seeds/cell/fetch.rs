//! The bodies that a rack's plan names and that are not here, as `rack::fetch` gets them: a few at a time, verified.

use std::time::Duration;

use schema::{
    boot::{BodyRef, Sha256},
    id::{AttemptId, SystemId},
    messages::report::Fact,
    plan::Ticket,
};

use super::RackEv;
use crate::seeds::world::World;

const AT_ONCE: usize = 4;
const AGAIN: Duration = Duration::from_secs(5);

/// A ticket whose bodies are not all here, or that was not told so yet.
pub(super) struct Missing {
    machine: SystemId,
    attempt: AttemptId,
    bodies: Vec<BodyRef>,
    fetched: u64,
}

impl World {
    pub(super) fn want_bodies(&mut self, rack: usize, ticket: &Ticket) {
        let Some(boot) = &ticket.boot else { return };
        let image = [Some(boot.image.kernel), Some(boot.image.initrd), boot.image.squashfs, Some(boot.user_data)];
        let bodies = image.into_iter().flatten().chain(boot.scripts.iter().map(|s| s.body)).collect();
        let tickets = &mut self.racks[rack].memory.tickets;
        tickets.retain(|missing| missing.machine != ticket.machine);
        tickets.push(Missing { machine: ticket.machine, attempt: ticket.attempt, bodies, fetched: 0 });
    }

    /// Tells what is complete, and fetches what is not.
    pub(super) fn fetch(&mut self, rack: usize) {
        let now = self.rack_now(rack);
        let node = &mut self.racks[rack];
        let mut told = Vec::new();
        let (plan, bodies, fetching) = (node.memory.plan.clone(), &node.disk.bodies, &node.memory.fetching);
        node.memory.tickets.retain(|missing| {
            if plan.ticket(missing.machine, now).is_none_or(|t| t.attempt != missing.attempt) {
                return false;
            }
            let lacks = |b: &BodyRef| fetching.contains(&b.sha256) || !bodies.contains_key(&b.sha256);
            if missing.bodies.iter().any(lacks) {
                return true;
            }
            told.push((missing.machine, missing.attempt, missing.fetched));
            false
        });
        for (machine, attempt, fetched) in told {
            self.report(rack, machine, attempt, Fact::ResourcesReady { fetched });
        }
        if self.links[rack].rack_up {
            self.begin_fetches(rack);
        }
    }

    fn begin_fetches(&mut self, rack: usize) {
        let now = self.rack_now(rack);
        let node = &self.racks[rack];
        let of_tickets = node.memory.tickets.iter().flat_map(|missing| missing.bodies.iter().copied());
        // In the order of their hashes: an index by hash has none of its own.
        let mut others: Vec<BodyRef> = node.memory.plan.bodies().collect();
        others.sort_by_key(|body| body.sha256);
        let wanted: Vec<BodyRef> = of_tickets.chain(others).collect();
        for body in wanted {
            let memory = &self.racks[rack].memory;
            let paused = memory.paused.get(&body.sha256).is_some_and(|until| *until > now);
            let here = self.racks[rack].disk.bodies.contains_key(&body.sha256);
            if paused || here || memory.fetching.contains(&body.sha256) {
                continue;
            }
            if memory.fetching.len() >= AT_ONCE {
                return;
            }
            let bytes = self.region.store.bodies.get(&body.sha256).cloned().filter(|_| self.region.up);
            let way = self.weather.stream(&mut self.draw) * 2 + self.rack_write(rack);
            self.racks[rack].memory.fetching.insert(body.sha256);
            self.for_rack(way, rack, RackEv::Fetched { body, bytes });
        }
    }

    pub(super) fn fetched(&mut self, rack: usize, body: BodyRef, bytes: Option<Vec<u8>>) {
        let now = self.rack_now(rack);
        let linked = self.links[rack].rack_up && !self.cuts.has(crate::seeds::weather::Way::Region(rack));
        let full = linked && bytes.is_some() && self.refuses(rack);
        let node = &mut self.racks[rack];
        node.memory.fetching.remove(&body.sha256);
        let why = match bytes {
            _ if !linked => return self.for_rack(AGAIN, rack, RackEv::FetchTick),
            Some(_) if full => "No space left on device (os error 28)".to_owned(),
            Some(bytes) if Sha256::of(&bytes) != body.sha256 => "it arrived damaged".to_owned(),
            Some(bytes) => {
                let len = bytes.len() as u64;
                node.disk.bodies.insert(body.sha256, bytes);
                let concerned = |missing: &&mut Missing| missing.bodies.iter().any(|b| b.sha256 == body.sha256);
                node.memory.tickets.iter_mut().filter(concerned).for_each(|missing| missing.fetched += len);
                return self.fetch(rack);
            }
            None => format!("the region refuses: the body {} is not here", body.sha256),
        };
        if node.memory.paused.insert(body.sha256, now + AGAIN).is_none() {
            let named = |missing: &&Missing| missing.bodies.iter().any(|b| b.sha256 == body.sha256);
            let told: Vec<_> =
                node.memory.tickets.iter().filter(named).map(|missing| (missing.machine, missing.attempt)).collect();
            for (machine, attempt) in told {
                self.report(rack, machine, attempt, Fact::ResourcesMissing { body, why: why.clone() });
            }
        }
        self.for_rack(AGAIN, rack, RackEv::FetchTick);
        self.fetch(rack);
    }
}
