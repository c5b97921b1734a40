//! The racks that can be counted on now: for plans, names, orders and tickets. Whether one can is decided in `actors::rack`.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use actors::rack::{Duty, Rack, Unfit};
use schema::{
    catalogue::RackEntry,
    id::RackId,
    messages::link::{Hello, RackInterface},
    net::Cidr,
    plan::{PlanSubnet, SubnetRack},
    service::ServiceStatus,
};
use tokio::sync::watch;

use crate::{
    app::App,
    plans::{self, Sections},
};

impl App {
    /// A rack's actor as it stands; `None` before it was woken.
    #[must_use]
    pub fn rack_state(&self, rack: RackId) -> Option<Arc<Rack>> {
        self.racks.awake(&rack).map(|actor| actor.snapshot())
    }

    /// Whether new work of that kind may be given to a rack.
    ///
    /// # Errors
    /// Why not.
    pub fn fit(&self, rack: RackId, duty: Duty) -> Result<(), Unfit> {
        let unknown = || Unfit { why: "it is not enrolled".into(), remedy: "enrol it with a token".into() };
        let c = self.catalogue_content();
        let entry = c.racks.get(&rack).ok_or_else(unknown)?;
        self.rack_state(rack).ok_or_else(unknown)?.fit(duty, entry)
    }

    /// The racks that new work of that kind may be given to, with what they said of themselves.
    #[must_use]
    pub fn fit_racks(&self, duty: Duty) -> Vec<(RackId, Arc<Hello>)> {
        self.racks().into_iter().filter(|(rack, _)| self.fit(*rack, duty).is_ok()).collect()
    }

    /// The racks that may be back in a moment.
    #[must_use]
    pub fn awaited_racks(&self) -> Vec<(RackId, Arc<Rack>)> {
        let awaited = |entry: &RackEntry| {
            let state = self.rack_state(entry.id)?;
            state.is_awaited(entry, self.links.is_connected(entry.id)).then_some((entry.id, state))
        };
        self.catalogue_content().racks.values().filter_map(awaited).collect()
    }

    /// The racks that machines of a subnet may be led to: healthy, with an address there. In the order of their ids.
    #[must_use]
    pub fn subnet_racks(&self, cidr: Cidr) -> Vec<SubnetRack> {
        racks_on(&self.fit_racks(Duty::Names), cidr)
    }

    /// Changes whenever a rack's health may have.
    #[must_use]
    pub fn health_changes(&self) -> watch::Receiver<()> {
        self.health_changed.subscribe()
    }

    /// How a rack's services stood at its last word on the present connection, with counters.
    #[must_use]
    pub fn services(&self, rack: RackId) -> Vec<ServiceStatus> {
        self.links.services(rack)
    }

    /// The sections of a rack's plan, its neighbours on each subnet included.
    pub(crate) fn sections(&self, rack: RackId, interfaces: &[RackInterface]) -> Sections {
        let mut sections = plans::sections(&self.catalogue_content(), rack, interfaces);
        let fit = self.fit_racks(Duty::Names);
        for subnet in &mut sections.subnets {
            subnet.racks = racks_on(&fit, subnet.cidr);
            name_neighbours(subnet);
        }
        sections
    }
}

/// The other racks of the subnet answer for names after this one: a machine whose rack dies goes on.
pub fn name_neighbours(subnet: &mut PlanSubnet) {
    let Some(own) = subnet.rack_address.filter(|_| subnet.allow_dns).map(IpAddr::V4) else { return };
    let Some(at) = subnet.dns_servers.iter().position(|server| *server == own) else { return };
    let known = subnet.dns_servers.clone();
    let others = subnet.racks.iter().map(|r| IpAddr::V4(r.address)).filter(|server| !known.contains(server));
    subnet.dns_servers.splice(at + 1..at + 1, others);
}

/// Those with an address in that subnet, with the first of them.
fn racks_on(racks: &[(RackId, Arc<Hello>)], cidr: Cidr) -> Vec<SubnetRack> {
    let own = |(rack, hello): &(RackId, Arc<Hello>)| {
        let inside = |a: &Ipv4Addr| cidr.contains(IpAddr::V4(*a));
        Some(SubnetRack { rack: *rack, address: plans::addresses(&hello.interfaces).find(inside)? })
    };
    let mut found: Vec<_> = racks.iter().filter_map(own).collect();
    found.sort_by_key(|r| r.rack);
    found
}
