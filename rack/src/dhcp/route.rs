//! Which subnet a packet belongs to, whether its client is served there, and what it wants. Pure: snapshot, request and `now` in.

use std::{net::Ipv4Addr, sync::Arc};

use actors::leases::{Reservations, Want, lease_seconds};
use schema::{
    boot::BootMethod,
    id::SubnetId,
    net::{Cidr, MacAddr},
    plan::{BootPurpose, PlanSubnet, Strangers, Ticket},
    time::Timestamp,
};

use super::{
    answer::Around,
    boot::{Server, loader},
    packet::{MessageType, Request},
};
use crate::plan::Snapshot;

/// A packet that belongs to a subnet and deserves an answer or a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// Its place in the plan's subnets.
    pub subnet: usize,
    /// This rack's address there.
    pub server: Ipv4Addr,
    pub action: Action,
    pub lease_s: u32,
}

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A matter of leases.
    Ask(Want),
    /// DHCPINFORM: configuration only.
    Inform,
}

/// Why a packet gets no answer. Counted, one counter each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Passed {
    #[error("no subnet of the plan with DHCP on fits the link it came from")]
    NoSubnet,
    #[error("its relay's address lies in no subnet of the plan with DHCP on")]
    UnknownRelay,
    #[error("a stranger: the plan knows no machine and no reservation with that MAC, and the subnet ignores strangers")]
    Stranger,
    #[error("it names no address where one must stand")]
    NoAddress,
    #[error("meant for another server")]
    OtherServer,
    #[error("this rack does not offer here while another DHCP server does")]
    Halted,
    #[error("this rack has just begun to serve here and looks for other DHCP servers first")]
    Looking,
    #[error("the other rack of the subnet answers new clients")]
    OtherRack,
    #[error("the other rack's leases are not here yet")]
    Copies,
}

/// Finds the subnet, the client and the wish. `here`: this host's addresses on the link that the packet came by.
///
/// # Errors
/// [`Passed`]: the packet gets no answer.
pub fn route(request: &Request, here: &[Ipv4Addr], plan: &Snapshot, now: Timestamp) -> Result<Routed, Passed> {
    let (index, subnet) = subnet(request, here, plan)?;
    let server = server_address(subnet, here).ok_or(Passed::NoSubnet)?;
    let known = plan.ticket_by_mac(request.mac, now).is_some() || plan.reservation(subnet.id, request.mac).is_some();
    // What a client gives back is taken from anybody who holds it.
    let gives_back = matches!(request.kind, MessageType::Release | MessageType::Decline);
    if !known && !gives_back && subnet.strangers == Strangers::Ignore {
        return Err(Passed::Stranger);
    }
    let ours = |id: Ipv4Addr| id == server || here.contains(&id) || is_ours(plan, id);
    let action = action(request, ours)?;
    let lease_s = lease_seconds(&plan.plan.settings, request.client.is_firmware());
    Ok(Routed { subnet: index, server, action, lease_s })
}

/// The subnet that a packet belongs to, whoever sent it.
#[must_use]
pub fn subnet_of(request: &Request, here: &[Ipv4Addr], plan: &Snapshot) -> Option<SubnetId> {
    subnet(request, here, plan).ok().map(|(_, subnet)| subnet.id)
}

/// RFC 2131 section 4.3.1: by the relay's link (RFC 3527 before giaddr), by the client's own address, by the link it came from.
fn subnet<'a>(request: &Request, here: &[Ipv4Addr], plan: &'a Snapshot) -> Result<(usize, &'a PlanSubnet), Passed> {
    let served = || plan.plan.subnets.iter().enumerate().filter(|(_, s)| s.dhcp && s.cidr.network().is_ipv4());
    let holds = |ip: Ipv4Addr| served().find(|(_, s)| s.cidr.contains(ip.into()));
    let link = request.relay.as_ref().and_then(|r| r.link).or(Some(request.giaddr));
    if let Some(link) = link.filter(|l| !l.is_unspecified()) {
        return holds(link).ok_or(Passed::UnknownRelay);
    }
    if !request.ciaddr.is_unspecified()
        && let Some(found) = holds(request.ciaddr)
    {
        return Ok(found);
    }
    let on_link = || served().filter(|(_, s)| here.iter().any(|ip| s.cidr.contains((*ip).into())));
    // Several subnets may share a link.
    let reserved = || on_link().find(|(_, s)| plan.reservation(s.id, request.mac).is_some());
    let requested = || request.requested.and_then(|ip| on_link().find(|(_, s)| s.cidr.contains(ip.into())));
    let with_pool = || on_link().find(|(_, s)| !s.dynamic.is_empty());
    reserved().or_else(requested).or_else(with_pool).or_else(|| on_link().next()).ok_or(Passed::NoSubnet)
}

/// The rack's address on the subnet: as planned, else the link's own, else (behind a relay) the one it was reached at.
fn server_address(subnet: &PlanSubnet, here: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let inside = || here.iter().find(|ip| subnet.cidr.contains((**ip).into())).copied();
    subnet.rack_address.or_else(inside).or_else(|| here.first().copied())
}

fn is_ours(plan: &Snapshot, id: Ipv4Addr) -> bool {
    plan.plan.subnets.iter().any(|s| s.rack_address == Some(id))
}

/// RFC 2131 table 4: what each message must name.
fn action(request: &Request, ours: impl Fn(Ipv4Addr) -> bool) -> Result<Action, Passed> {
    let some = |ip: Ipv4Addr| (!ip.is_unspecified()).then_some(ip);
    let elsewhere = request.server_id.is_some_and(|id| !ours(id));
    let want = match request.kind {
        MessageType::Discover => Want::Offer { requested: request.requested },
        MessageType::Request if elsewhere => Want::Elsewhere,
        // SELECTING and INIT-REBOOT name it in option 50, RENEWING and REBINDING in ciaddr.
        MessageType::Request => match (request.requested, some(request.ciaddr)) {
            (Some(ip), _) if request.server_id.is_some() => Want::Take { ip },
            (Some(ip), None) => Want::Reboot { ip },
            (Some(ip), Some(_)) | (None, Some(ip)) => Want::Renew { ip },
            (None, None) => return Err(Passed::NoAddress),
        },
        MessageType::Release | MessageType::Decline if elsewhere => return Err(Passed::OtherServer),
        MessageType::Release => Want::Release { ip: some(request.ciaddr).ok_or(Passed::NoAddress)? },
        MessageType::Decline => Want::Decline { ip: request.requested.ok_or(Passed::NoAddress)? },
        MessageType::Inform if request.ciaddr.is_unspecified() => return Err(Passed::NoAddress),
        MessageType::Inform => return Ok(Action::Inform),
        MessageType::Offer | MessageType::Ack | MessageType::Nak => return Err(Passed::OtherServer),
    };
    Ok(Action::Ask(want))
}

/// The ticket whose attempt a client's packet belongs to: only a machine under orders leaves facts and is told what to boot.
#[must_use]
pub fn orders(plan: &Snapshot, mac: MacAddr, now: Timestamp) -> Option<&Ticket> {
    plan.ticket_by_mac(mac, now).filter(|t| t.purpose != BootPurpose::Local)
}

/// How a client under orders boots; `None`: from its disk, or it did not ask.
#[must_use]
pub fn method(plan: &Snapshot, request: &Request, now: Timestamp) -> Option<BootMethod> {
    orders(plan, request.mac, now).and_then(|_| request.client.method())
}

/// What stands around an answer.
#[must_use]
pub fn around<'a>(
    plan: &'a Snapshot,
    routed: Routed,
    request: &Request,
    http_port: u16,
    now: Timestamp,
) -> Option<Around<'a>> {
    let subnet = plan.plan.subnets.get(routed.subnet)?;
    let reserved = plan.reservation(subnet.id, request.mac).and_then(|r| r.hostname.as_deref());
    let ticket = plan.ticket_by_mac(request.mac, now);
    let hostname = ticket.map(|t| t.hostname.as_str()).or(reserved);
    let server = Server { address: routed.server, http_port };
    let boot = method(plan, request, now).map(|method| loader(method, server));
    Some(Around { subnet, settings: &plan.plan.settings, server: routed.server, hostname, boot })
}

/// The plan's reservations on one subnet, as the leases' decision asks for them.
pub struct Reserved {
    pub plan: Arc<Snapshot>,
    pub subnet: SubnetId,
    /// Reservations outside it are not honoured.
    pub cidr: Cidr,
}

impl Reservations for Reserved {
    fn of(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        self.plan.reservation(self.subnet, mac).map(|r| r.ip).filter(|ip| self.cidr.contains((*ip).into()))
    }

    fn holder(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        self.plan.reserved_for(ip)
    }
}
