//! This rack's part in the subnets that another rack serves too: since when, what the other is known to have granted, whose turn a client is.
//! The laws are `actors::leases`'; here is what they are told.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use actors::leases::{
    Pool, Shared, Want,
    watch::{Role, Turn, Watch},
};
use schema::{
    id::{RackId, SubnetId},
    net::{IpRange, MacAddr},
    plan::PlanSubnet,
    time::Timestamp,
};

use super::packet::Request;

/// Up to when another rack's leases are known here.
#[derive(Debug, Clone, Copy)]
pub struct Through {
    pub rack: RackId,
    /// By that rack's clock.
    pub through: Timestamp,
    /// When the word came, by this rack's clock.
    pub at: Timestamp,
}

/// The parts, and what was heard of the other racks.
#[derive(Debug, Default)]
pub struct Shares {
    parts: HashMap<SubnetId, Part>,
    heard: HashMap<RackId, Through>,
}

#[derive(Debug)]
struct Part {
    peer: RackId,
    dynamic: Vec<IpRange>,
    others: Vec<IpRange>,
    pool: Arc<Pool>,
    since: Timestamp,
}

impl Shares {
    /// Another plan is in force. A part that is not what it was begins anew.
    pub fn plan_changed(&mut self, subnets: &[PlanSubnet], now: Timestamp) {
        let mut before = std::mem::take(&mut self.parts);
        for subnet in subnets {
            let Some(failover) = subnet.failover.as_ref().filter(|_| subnet.dhcp) else { continue };
            let same = |part: &Part| {
                (part.peer, &part.dynamic, &part.others) == (failover.peer, &subnet.dynamic, &failover.others)
            };
            let part = before.remove(&subnet.id).filter(same).unwrap_or_else(|| {
                let others = PlanSubnet { dynamic: failover.others.clone(), ..subnet.clone() };
                Part {
                    peer: failover.peer,
                    dynamic: subnet.dynamic.clone(),
                    others: failover.others.clone(),
                    pool: Arc::new(Pool::of(&others, &[])),
                    since: now,
                }
            });
            self.parts.insert(subnet.id, part);
        }
    }

    /// A rack's leases are known up to there. A word that is older than the one before says nothing.
    pub fn heard(&mut self, through: Through) {
        let known = self.heard.entry(through.rack).or_insert(through);
        if through.through >= known.through {
            *known = through;
        }
    }

    /// Whether any subnet is shared.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.parts.is_empty()
    }

    /// What holds of the other rack on that subnet. `lost`: by this rack's own eyes it answers nobody.
    #[must_use]
    pub fn of(&self, subnet: &PlanSubnet, lost: bool) -> Option<Shared> {
        let part = self.parts.get(&subnet.id)?;
        // A word that came before this rack had its part says nothing of this subnet's leases.
        let heard = self.heard.get(&part.peer).filter(|h| h.at >= part.since).map(|h| h.through);
        let lost = lost || other_up(subnet) == Some(false);
        Some(Shared { others: part.pool.clone(), heard, since: part.since, lost })
    }

    /// Whose turn a new client is.
    pub fn turn(&self, subnet: &PlanSubnet, watch: &mut Watch, mac: MacAddr, secs: u16, now: Timestamp) -> Turn {
        let (Some(failover), Some(shared)) = (&subnet.failover, self.of(subnet, false)) else { return Turn::Answer };
        let role = if failover.secondary { Role::Second } else { Role::First };
        watch.asks(mac, secs, role, other_up(subnet), shared.heard.is_some(), now)
    }
}

/// What the region says of the other rack; `None` where the plan names no racks (a subnet behind a relay, a plan file).
fn other_up(subnet: &PlanSubnet) -> Option<bool> {
    let failover = subnet.failover.as_ref()?;
    (!subnet.racks.is_empty()).then(|| subnet.racks.iter().any(|r| r.rack == failover.peer))
}

/// What a packet tells of other servers: what its client wants of this one, and a server that it names and that is none of ours.
/// A REQUEST that names the other rack is a word to this one, too.
pub fn heard(plan: &PlanSubnet, watch: &mut Watch, want: Want, request: &Request) -> (Want, Option<Ipv4Addr>) {
    match (want, request.server_id) {
        (Want::Elsewhere, Some(server)) if is_peer(plan, server) => {
            watch.other_lives();
            (request.requested.map_or(want, |ip| Want::Chosen { ip }), None)
        }
        (Want::Elsewhere, foreign) => (want, foreign),
        (Want::Take { .. }, _) => {
            watch.chosen(request.mac);
            (want, None)
        }
        _ => (want, None),
    }
}

/// Whether that server is the other rack of the subnet.
pub(super) fn is_peer(subnet: &PlanSubnet, server: Ipv4Addr) -> bool {
    let known = |f: &schema::plan::Failover| f.peer_addresses.contains(&server);
    subnet.failover.as_ref().is_some_and(known) || subnet.racks.iter().any(|r| r.address == server)
}
