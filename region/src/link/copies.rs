//! Leases on their way to the other rack of a VLAN: a subnet's whole table once, after the plan that shares it; then what is new, as it comes.
//!
//! A word that a rack has told all up to some moment is passed on only while no table is on its way: what it speaks of must be there first.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use crate::{
    app::App,
    links::Connected,
    plans::{self, Sections},
};
use actors::{core::TraceId, link::stream::Sender};
use schema::{
    id::{RackId, SubnetId},
    messages::link::ToRack,
    plan::{Lease, PlanSubnet},
};

/// Leases in one message.
const BATCH: usize = 512;

/// What one connection was told of leases: subnets with the rack they are shared with.
#[derive(Debug, Default)]
pub(super) struct Copied(HashMap<SubnetId, RackId>);

fn shared(subnets: &[PlanSubnet]) -> HashMap<SubnetId, RackId> {
    subnets.iter().filter_map(|s| Some((s.id, s.failover.as_ref()?.peer))).collect()
}

impl Copied {
    /// Before a plan that shares another subnet goes out: nothing is passed on until its table was said.
    pub(super) fn hold(&self, connected: &Connected, subnets: &[PlanSubnet]) {
        if shared(subnets) != self.0 {
            connected.copies().complete = false;
        }
    }

    /// After it: the tables of what is newly shared, and up to when they are complete.
    pub(super) async fn send(
        &mut self,
        app: &App,
        connected: &Connected,
        sender: &Sender<ToRack>,
        subnets: &[PlanSubnet],
        trace: TraceId,
    ) -> Result<(), String> {
        let wanted = shared(subnets);
        if wanted == self.0 {
            return Ok(());
        }
        let news: Vec<_> = wanted.iter().filter(|(id, peer)| self.0.get(id) != Some(peer)).map(|(id, _)| *id).collect();
        // Read before the tables that must hold what it speaks of.
        let peers: HashSet<_> = wanted.values().copied().collect();
        let through: Vec<_> = peers.into_iter().filter_map(|rack| Some((rack, app.links.through(rack)?))).collect();
        // From here on nothing new is missed: it is queued, or in the tables.
        connected.copies().subnets = wanted.keys().copied().collect();
        for subnet in news {
            let actor = app.subnet(subnet).await.map_err(|e| e.to_string())?;
            let table: Vec<Lease> = actor.snapshot().leases.values().cloned().collect();
            for part in table.chunks(BATCH) {
                sender.send(&ToRack::Leases(part.to_vec()), trace).await.map_err(|e| e.to_string())?;
            }
        }
        for (rack, through) in through {
            sender.send(&ToRack::LeasesThrough { rack, through }, trace).await.map_err(|e| e.to_string())?;
        }
        connected.copies().complete = !wanted.is_empty();
        self.0 = wanted;
        Ok(())
    }
}

/// The addresses of the racks that those subnets are shared with, as they said when they were connected last.
pub(super) async fn addresses(app: &App, sections: &Sections) -> HashMap<RackId, Vec<Ipv4Addr>> {
    let mut known = HashMap::new();
    for peer in shared(&sections.subnets).into_values() {
        if !known.contains_key(&peer)
            && let Ok(actor) = app.rack(peer).await
            && let Some(facts) = &actor.snapshot().facts
        {
            known.insert(peer, plans::addresses(&facts.interfaces).filter(|ip| *ip != Ipv4Addr::LOCALHOST).collect());
        }
    }
    known
}
