//! The DHCP thread's business with the other rack of a subnet: its leases come in, this rack says how far its own are told, and addresses that
//! are not known to be free are asked for on the wire.

use std::{net::Ipv4Addr, rc::Rc, sync::Arc, time::Duration};

use actors::{
    clock,
    core::TraceId,
    leases::{self, Ask, LeaseEvent, ReplyTo},
};
use schema::{net::MacAddr, plan::Lease};

use super::{
    hands::{Hands, Pending},
    neighbours::Word,
    probe,
};

/// Probes under way; a storm after a long outage must not take every descriptor.
const MOST_PROBES: usize = 256;

/// A step under way, until it is dropped.
pub(super) struct Flight(Rc<Hands>, u64);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.flights.borrow_mut().remove(&self.1);
    }
}

impl Hands {
    pub(super) fn flight(self: &Rc<Self>) -> Flight {
        let mut flights = self.flights.borrow_mut();
        let number = flights.last_key_value().map_or(0, |(number, _)| number + 1);
        flights.insert(number, clock::now());
        Flight(self.clone(), number)
    }

    /// Says up to when every lease was reported: up to the oldest step that is not carried out.
    pub(super) fn say_through(&self) {
        if self.shares.borrow().any() {
            let oldest = self.flights.borrow().values().min().copied();
            self.reporter.leases_through(oldest.unwrap_or_else(clock::now));
        }
    }

    /// Takes in what the region says of other racks' leases, until the service ends.
    pub(super) async fn take_copies(self: Rc<Self>) {
        loop {
            match self.neighbours.next().await {
                Word::Leases(mut leases) => {
                    leases.sort_by_key(|lease| lease.subnet);
                    for part in leases.chunk_by(|a, b| a.subnet == b.subnet) {
                        self.copied(part).await;
                    }
                }
                Word::Through(through) => self.shares.borrow_mut().heard(through),
            }
        }
    }

    /// Nothing that comes later counts before these are durable here.
    async fn copied(self: &Rc<Self>, leases: &[Lease]) {
        let Some(subnet) = leases.first().map(|l| self.subnet(l.subnet)) else { return };
        let event = LeaseEvent::Copied(Arc::new(leases.to_vec()));
        while let Err(error) = subnet.actor.ask(event.clone(), TraceId::default()).await {
            self.counters.complain("uncopied", &error.to_string(), clock::now(), None);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.counters.count("copies");
    }

    /// Asks the wire about an address, then the leases again.
    pub(super) fn probe(self: &Rc<Self>, to: ReplyTo, ip: Ipv4Addr) {
        if self.probing.get() >= MOST_PROBES {
            let complaint = "more addresses are to be probed than may be at once; clients ask again";
            return self.counters.complain("overload", complaint, clock::now(), None);
        }
        self.probing.set(self.probing.get() + 1);
        self.counters.count("probe");
        let hands = self.clone();
        tokio::task::spawn_local(async move {
            let user = match to.0.downcast_ref::<Pending>() {
                Some(pending) => user_of(pending, ip).await,
                None => Ok(None),
            };
            hands.probing.set(hands.probing.get().saturating_sub(1));
            match user {
                Ok(user) => hands.probed(to, ip, user).await,
                Err(why) => {
                    let complaint =
                        format!("an address cannot be probed and is not given out: {why}; give the rack CAP_NET_RAW");
                    hands.counters.complain("unprobed", &complaint, clock::now(), None);
                }
            }
        });
    }

    async fn probed(self: &Rc<Self>, to: ReplyTo, ip: Ipv4Addr, user: Option<MacAddr>) {
        if user.is_some() {
            self.counters.count("probe_answered");
        }
        let Some(Pending { request, routed, subnet, want: Some(want), .. }) = to.0.downcast_ref() else { return };
        let plan = self.view.borrow().plan.clone();
        let Some(planned) = plan.plan.subnets.iter().find(|s| s.id == *subnet) else { return };
        let at = self.subnet(*subnet);
        let hostname = request.hostname.as_ref().map(|h| leases::shared(h.as_str()));
        let ask = Ask { mac: request.mac, hostname, lease_s: routed.lease_s, want: *want, to: to.clone() };
        let event = LeaseEvent::Probed { rules: self.rules(planned, &at), ask, ip, user };
        let flight = self.flight();
        if let Err(error) = at.actor.ask(event, TraceId::default()).await {
            self.counters.complain("unrecorded", &error.to_string(), clock::now(), None);
        }
        drop(flight);
    }
}

/// Who uses an address, by the link that its client is on. A port on an address alone has no link that could be asked.
async fn user_of(pending: &Pending, ip: Ipv4Addr) -> std::io::Result<Option<MacAddr>> {
    let relayed = !pending.request.giaddr.is_unspecified();
    match pending.port.link() {
        Some(_) if relayed => Ok(probe::echo(ip, pending.request.xid as u16).await?.then(MacAddr::default)),
        Some(link) => probe::arp(link, ip).await,
        None => Ok(None),
    }
}
