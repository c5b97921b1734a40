//! The rack's DHCP as `rack::dhcp::hands` carries it: a packet in, the leases' decision, the bytes of the answer out.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use actors::leases::{
    Ask, Batch, Kind as LeaseKind, LeaseEvent, Outcome, ReplyTo, Row, Rules, SubnetLeases, Want, shared,
};
use rack::{
    dhcp::{
        answer,
        packet::{self, Packet, Request},
        route::{self, Action, Routed},
        shares,
        status::Sighting,
        strays,
    },
    plan::Snapshot,
};
use schema::{
    id::SubnetId,
    messages::{link::FromRack, report::Fact},
    plan::{Lease, PlanSubnet},
};

use crate::seeds::{
    hosted::{Hosted, Tag, Who, tell},
    metal::MetalEv,
    world::{Ev, World},
};

/// The port of the machine-facing HTTP.
pub(super) const HTTP: u16 = 5_248;
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A client that waits for its answer.
pub(super) struct Waits {
    pub(super) request: Box<Request>,
    routed: Routed,
    pub(super) subnet: SubnetId,
    plan: Arc<Snapshot>,
    pub(super) metal: usize,
    socket: u64,
    pub(super) want: Want,
}

impl Waits {
    /// What it asks the leases; the answer comes back to it.
    pub(super) fn ask(self: &Arc<Self>) -> Ask {
        Ask {
            mac: self.request.mac,
            hostname: self.request.hostname.as_ref().map(|h| shared(h.as_str())),
            lease_s: self.routed.lease_s,
            want: self.want,
            to: ReplyTo(self.clone()),
        }
    }
}

/// A row as servers and region see it: a declined address belongs to nobody.
pub(super) fn reported(row: Row) -> Lease {
    match row.kind {
        LeaseKind::Declined => Lease { expires: row.lease.granted, ..row.lease },
        _ => row.lease,
    }
}

impl World {
    pub(super) fn dhcp_packet(&mut self, rack: usize, metal: usize, socket: u64, bytes: &[u8]) {
        if self.racks[rack].dead.contains("dhcp") {
            return;
        }
        let now = self.rack_now(rack);
        let Ok(Packet::Request(request)) = packet::parse(bytes) else { return };
        let plan = self.racks[rack].memory.plan.clone();
        let here = [self.racks[rack].address];
        let routed = route::route(&request, &here, &plan, now);
        let stray = strays::of(&request, routed.as_ref().map_err(|why| *why), &here, &plan, "eth0", now);
        if let Some(all) = stray.and_then(|stray| self.racks[rack].memory.strays.note(stray)) {
            self.racks[rack].memory.strays_said.clone_from(&all);
            self.say_to_region(rack, FromRack::Strays(all));
        }
        if let Some((uuid, ticket)) = request.client.firmware_uuid().zip(route::orders(&plan, request.mac, now))
            && request.kind == packet::MessageType::Discover
            && let Some(uuids) = self.racks[rack].memory.twins.note(request.mac, ticket.attempt, uuid, now)
        {
            self.report(rack, ticket.machine, ticket.attempt, Fact::TwoHosts { mac: request.mac, uuids });
        }
        let routed = match routed {
            Ok(routed) => routed,
            Err(passed) => return self.say(&format!("r{rack} dhcp passes {}: {passed}", request.mac)),
        };
        let Some(subnet) = plan.plan.subnets.get(routed.subnet).cloned() else { return };
        let Action::Ask(want) = routed.action else { return };
        let (want, foreign) = shares::heard(&subnet, self.watch(rack, subnet.id), want, &request);
        if let Some(server) = foreign {
            let evidence = "a client's REQUEST names it as its server";
            self.note_foreign(rack, subnet.id, &Sighting { server, mac: None, evidence, certain: false });
        }
        let waits = Waits { request, routed, subnet: subnet.id, plan, metal, socket, want };
        if self.halted(rack, &subnet, want, &waits) || self.left_to_another(rack, &subnet, &waits) {
            return;
        }
        self.dhcp_ask(rack, &subnet, waits);
    }

    /// A client is left to a foreign server. A machine under orders is told so, for somebody waits for it.
    fn halted(&mut self, rack: usize, subnet: &PlanSubnet, want: Want, waits: &Waits) -> bool {
        let now = self.rack_now(rack);
        let memory = &mut self.racks[rack].memory;
        let takes = matches!(want, Want::Take { .. } | Want::Renew { .. } | Want::Reboot { .. });
        let offer = matches!(want, Want::Offer { .. });
        if !(takes || offer) || subnet.beside_foreign_dhcp || !memory.counters.has_foreign(subnet.id) {
            return false;
        }
        let mac = waits.request.mac;
        if takes && memory.leases.get(&subnet.id).is_some_and(|l| l.core.lease_of(mac, now).is_some()) {
            return false;
        }
        let (Some(foreign), Some(ticket)) =
            (memory.counters.foreign_of(subnet.id), route::orders(&waits.plan, mac, now))
        else {
            return true;
        };
        if memory.told_foreign.get(&mac).is_none_or(|at| now.since(*at) >= SAY_AGAIN) {
            memory.told_foreign.insert(mac, now);
            let fact = Fact::NoAddress { mac, subnet: subnet.id, why: foreign.to_string(), remedy: foreign.remedy };
            let (machine, attempt) = (ticket.machine, ticket.attempt);
            self.report(rack, machine, attempt, fact);
        }
        true
    }

    fn dhcp_ask(&mut self, rack: usize, subnet: &PlanSubnet, waits: Waits) {
        let now = self.rack_now(rack);
        let rules = self.rules(rack, subnet);
        let ask = Arc::new(waits).ask();
        let memory = &mut self.racks[rack].memory;
        let leases = memory.leases.entry(subnet.id);
        let leases = leases.or_insert_with(|| Hosted::new(SubnetLeases::load(subnet.id, [])));
        if let Some(outcome) = leases.core.settled(&ask, &rules, now) {
            return self.dhcp_deliver(rack, &ask.to, &outcome);
        }
        memory.waiting.entry(subnet.id).or_default().push(ask);
        if memory.batches.insert(subnet.id) {
            self.dispatch(rack, subnet.id, rules);
        }
    }

    /// A subnet gets all that waits for it.
    fn dispatch(&mut self, rack: usize, subnet: SubnetId, rules: Rules) {
        let flight = self.flight(rack);
        let asks = self.racks[rack].memory.waiting.remove(&subnet).unwrap_or_default();
        let event = LeaseEvent::Asked(Arc::new(Batch { rules, asks }));
        tell::<SubnetLeases>(self, Who::Leases(rack, subnet), event, Tag::Batch(rack, subnet, flight));
    }

    /// A batch is answered; what came meanwhile is the next one.
    pub(super) fn batch_over(&mut self, rack: usize, subnet: SubnetId) {
        let memory = &mut self.racks[rack].memory;
        let plan = memory.plan.clone();
        let planned = plan.plan.subnets.iter().find(|s| s.id == subnet);
        let Some(planned) = planned.filter(|_| memory.waiting.contains_key(&subnet)) else {
            memory.batches.remove(&subnet);
            memory.waiting.remove(&subnet);
            return;
        };
        let rules = self.rules(rack, planned);
        self.dispatch(rack, subnet, rules);
    }

    /// An outcome to its client, and what there is to report about it.
    pub(super) fn dhcp_deliver(&mut self, rack: usize, to: &ReplyTo, outcome: &Outcome) {
        let Some(waits) = to.0.downcast_ref::<Waits>() else { return };
        let now = self.rack_now(rack);
        let Waits { request, routed, subnet, plan, metal, socket, .. } = waits;
        let Some(around) = route::around(plan, *routed, request, HTTP, now) else { return };
        let reply = answer::reply(request, outcome, &around);
        let (mac, subnet, method) = (request.mac, *subnet, route::method(plan, request, now));
        let fact = match outcome {
            Outcome::Offer { ip, .. } => Some(Fact::Offered { mac, ip: *ip, subnet, method }),
            Outcome::Ack { ip, lease_s } if request.ciaddr.is_unspecified() => {
                Some(Fact::Leased { mac, ip: *ip, subnet, method, lease_s: *lease_s })
            }
            Outcome::Full { why, remedy } => {
                Some(Fact::NoAddress { mac, subnet, why: why.clone(), remedy: remedy.clone() })
            }
            _ => None,
        };
        if let Outcome::Ack { ip, lease_s } = outcome {
            self.laws.an_ack_has_a_row(&self.racks[rack].disk.leases, subnet, *ip, mac);
            self.an_address_is_given(*ip, mac, *lease_s);
        }
        if let (Some(fact), Some(ticket)) = (fact, route::orders(plan, mac, now)) {
            let (machine, attempt) = (ticket.machine, ticket.attempt);
            self.report(rack, machine, attempt, fact);
        }
        if let Some(reply) = reply {
            self.datagram_to(rack, *metal, *socket, &reply.bytes);
        }
    }

    /// A datagram to a machine, by the weather.
    pub(in crate::seeds) fn datagram_to(&mut self, rack: usize, metal: usize, socket: u64, bytes: &[u8]) {
        if self.cuts.has(crate::seeds::weather::Way::Machines(rack)) {
            return;
        }
        for way in self.weather.datagram(&mut self.draw) {
            let what = MetalEv::Datagram { socket, bytes: bytes.to_vec() };
            self.queue.after(way, Ev::Metal { index: metal, what });
        }
    }

    /// Another server's word was heard on the wire.
    pub(super) fn overheard(&mut self, rack: usize, server: Ipv4Addr) {
        let address = self.racks[rack].address;
        let on = |s: &PlanSubnet| s.dhcp && s.cidr.contains(address.into());
        let subnets: Vec<SubnetId> =
            self.racks[rack].memory.plan.plan.subnets.iter().filter(|s| on(s)).map(|s| s.id).collect();
        let mac = Some(schema::net::MacAddr([2, 0xf0, 0, 0, 0, 1]));
        for subnet in subnets {
            let evidence = "its answer to a client was heard";
            self.note_foreign(rack, subnet, &Sighting { server, mac, evidence, certain: true });
        }
    }

    fn note_foreign(&mut self, rack: usize, subnet: SubnetId, seen: &Sighting<'_>) {
        let now = self.rack_now(rack);
        let memory = &mut self.racks[rack].memory;
        memory.counters.foreign(subnet, seen, now);
        let all = memory.counters.foreign_now();
        if all != memory.foreign_said && memory.listening {
            memory.foreign_said.clone_from(&all);
            self.say_to_region(rack, FromRack::ForeignDhcp(all));
        }
    }
}
