//! The rack's subnet: who holds which address, and who gets which next. Packets, sockets and the disk are not here.
//!
//! Where two racks serve a subnet, each gives new leases from its own half and knows the other's by copies ([`Shared`], `copies`); which of them
//! answers a new client is [`watch`]'s.
//!
//! One event holds all packets of one wake-up ([`Batch`]), so that one step has one record: that is the group commit of a subnet's exchanges.
//! A request that changes nothing is answered from a snapshot by [`SubnetLeases::settled`], without a step.

mod copies;
mod decide;
mod pool;
#[cfg(test)]
mod tests;
pub mod watch;

use std::{any::Any, fmt, net::Ipv4Addr, sync::Arc, time::Duration};

use schema::{
    id::SubnetId,
    net::MacAddr,
    plan::{Lease, PlanSettings},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

pub use self::{
    copies::{SETTLE, Shared},
    pool::{Pool, Reservations},
};
use crate::{
    core::{Core, Resume, Step, View},
    sorted::Sorted,
};

/// How long an offered address is kept for the MAC it was offered to. Real firmware takes up to 4 s to request it, emulated firmware more.
pub const OFFER_HOLD: Duration = Duration::from_secs(60);
/// How long an address that a client found in use (DECLINE) is not given out.
pub const DECLINE_HOLD: Duration = Duration::from_secs(3_600);

/// One subnet's leases, as one rack gives them. A clone shares what did not change.
#[derive(Debug, Clone)]
pub struct SubnetLeases {
    subnet: SubnetId,
    by_ip: Sorted<u32, Held>,
    by_mac: Sorted<MacAddr, Last>,
    /// Addresses by the end of their use: the front is the least recently used.
    by_end: Sorted<(Timestamp, u32), ()>,
    /// Below it, every address of the pool was used once (or was reserved when it was passed).
    fresh: u32,
    /// The rules the pool was last searched from its start with.
    searched: Option<u64>,
}

/// One address's present or last use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    mac: MacAddr,
    hostname: Option<Arc<str>>,
    granted: Timestamp,
    /// The end of the lease, as it is on disk.
    expires: Timestamp,
    /// Nobody else is given it before; at or after `expires`.
    until: Timestamp,
    kind: Kind,
    origin: Origin,
}

/// Why an address is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Chosen for a client, while a probe asks the wire whether somebody uses it. Not durable.
    Probing,
    /// Offered, not requested yet. Not durable: a restart forgets it, and the client asks again.
    Offered,
    /// Leased.
    Bound,
    /// A client or a probe found it in use by somebody else.
    Declined,
}

/// Who granted a lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// This rack.
    #[default]
    Own,
    /// Another rack; it came here as a copy.
    Copied,
}

/// The addresses a MAC was last offered and leased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Last {
    offered: Option<u32>,
    bound: Option<u32>,
}

/// A lease (or a declined address) as it is kept on disk, one row per address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub lease: Lease,
    pub kind: Kind,
    #[serde(default)]
    pub origin: Origin,
}

/// What holds on the subnet while a batch is decided: from one snapshot of the plan.
#[derive(Clone)]
pub struct Rules {
    /// Differs whenever anything of the rules may differ.
    pub version: u64,
    pub pool: Arc<Pool>,
    pub reservations: Arc<dyn Reservations>,
    /// `None`: this rack serves the subnet alone.
    pub shared: Option<Shared>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules(version {}, pool of {})", self.version, self.pool.len())
    }
}

/// Where an answer goes: the hands' own business, carried through the decision untouched.
#[derive(Clone)]
pub struct ReplyTo(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo")
    }
}

/// What one client wants (RFC 2131 section 4.3).
#[derive(Debug, Clone)]
pub struct Ask {
    /// The client. Client identifiers are not looked at: one machine shows three of them in one boot.
    pub mac: MacAddr,
    pub hostname: Option<Arc<str>>,
    /// The lease time it would get, in seconds.
    pub lease_s: u32,
    pub want: Want,
    pub to: ReplyTo,
}

/// The kinds of wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// DHCPDISCOVER, with the address it would like.
    Offer { requested: Option<Ipv4Addr> },
    /// DHCPREQUEST for the address that this server offered (SELECTING).
    Take { ip: Ipv4Addr },
    /// DHCPREQUEST of a client that uses the address (RENEWING, REBINDING).
    Renew { ip: Ipv4Addr },
    /// DHCPREQUEST of a client that remembers the address (INIT-REBOOT).
    Reboot { ip: Ipv4Addr },
    /// DHCPREQUEST that names another server: what was offered here is free again.
    Elsewhere,
    /// DHCPREQUEST that names the other rack of the subnet: as [`Want::Elsewhere`], and nobody else has the address any more.
    Chosen { ip: Ipv4Addr },
    /// DHCPRELEASE.
    Release { ip: Ipv4Addr },
    /// DHCPDECLINE.
    Decline { ip: Ipv4Addr },
}

/// All packets of one wake-up.
#[derive(Debug, Clone)]
pub struct Batch {
    pub rules: Rules,
    pub asks: Vec<Ask>,
}

/// What happens to a subnet's leases. Nothing needs a timer: an end of a lease is a comparison with `now`.
#[derive(Debug, Clone)]
pub enum LeaseEvent {
    Asked(Arc<Batch>),
    /// A probe has ended: `user` answered for the address, or nobody did.
    Probed {
        rules: Rules,
        ask: Ask,
        ip: Ipv4Addr,
        user: Option<MacAddr>,
    },
    /// Leases that other racks granted, renewed or ended; also this rack's own, as the region has them.
    Copied(Arc<Vec<Lease>>),
}

/// A decision about one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// DHCPOFFER.
    Offer { ip: Ipv4Addr, lease_s: u32 },
    /// DHCPACK; the lease is durable.
    Ack { ip: Ipv4Addr, lease_s: u32 },
    /// DHCPNAK.
    Nak { why: &'static str },
    /// No answer.
    Silent { why: &'static str },
    /// No address is left for it.
    Full { why: String, remedy: String },
    /// Ask the wire whether somebody uses the address, then come back with [`LeaseEvent::Probed`].
    Probe { ip: Ipv4Addr },
}

/// What a step asks the hands to do.
#[derive(Debug, Clone)]
pub enum LeaseEffect {
    /// Durable before the effects of the step are carried out; then put into the lease table and reported.
    Keep(Row),
    /// As `Keep`, but told to nobody: another rack's lease.
    Copy(Row),
    /// Answer that client.
    Answer { mac: MacAddr, to: ReplyTo, outcome: Outcome },
}

/// Figures for status pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeaseCounts {
    /// Addresses that were ever held and still have an entry.
    pub known: usize,
    /// Clients that have an entry.
    pub clients: usize,
}

impl SubnetLeases {
    /// The leases as they were kept, in any order. Where two rows disagree about a MAC's address, the later end wins.
    #[must_use]
    pub fn load(subnet: SubnetId, rows: impl IntoIterator<Item = Row>) -> Self {
        let mut leases = Self {
            subnet,
            by_ip: Sorted::default(),
            by_mac: Sorted::default(),
            by_end: Sorted::default(),
            fresh: 0,
            searched: None,
        };
        for Row { lease, kind, origin } in rows {
            let ip = u32::from(lease.ip);
            let (mac, hostname) = (lease.mac, lease.hostname.map(Arc::from));
            let (granted, expires, until) = (lease.granted, lease.expires, lease.expires);
            leases.hold(ip, Held { mac, hostname, granted, expires, until, kind, origin });
        }
        leases
    }

    /// The lease that runs at `now` and belongs to `mac`.
    #[must_use]
    pub fn lease_of(&self, mac: MacAddr, now: Timestamp) -> Option<Lease> {
        let ip = self.by_mac.get(&mac)?.bound?;
        let held = self.by_ip.get(&ip).filter(|h| h.kind == Kind::Bound && h.expires > now)?;
        Some(self.row(ip, held).lease)
    }

    /// Every lease that runs at `now`, in the order of addresses.
    #[must_use]
    pub fn running(&self, now: Timestamp) -> Vec<Lease> {
        let runs = |held: &Held| held.kind == Kind::Bound && held.expires > now;
        self.by_ip.iter().filter(|(_, held)| runs(held)).map(|(ip, held)| self.row(*ip, held).lease).collect()
    }

    /// Every lease that runs at `now` and was granted or renewed last by this rack.
    #[must_use]
    pub fn granted_here(&self, now: Timestamp) -> Vec<Lease> {
        let own = |held: &Held| held.kind == Kind::Bound && held.expires > now && held.origin == Origin::Own;
        self.by_ip.iter().filter(|(_, held)| own(held)).map(|(ip, held)| self.row(*ip, held).lease).collect()
    }

    /// How much it holds.
    #[must_use]
    pub fn counts(&self) -> LeaseCounts {
        LeaseCounts { known: self.by_ip.len(), clients: self.by_mac.len() }
    }

    fn row(&self, ip: u32, held: &Held) -> Row {
        let hostname = held.hostname.as_deref().map(str::to_owned);
        let (granted, expires) = (held.granted, held.expires);
        let lease = Lease { subnet: self.subnet, ip: ip.into(), mac: held.mac, hostname, granted, expires };
        Row { lease, kind: held.kind, origin: held.origin }
    }
}

/// The lease time of a client: firmware that boots gets the short one, so that its address is free soon after a failed boot.
#[must_use]
pub fn lease_seconds(settings: &PlanSettings, firmware: bool) -> u32 {
    if firmware { settings.pxe_lease_s } else { settings.lease_s }.max(1)
}

/// A host name as it is shared between a client's requests.
#[must_use]
pub fn shared(name: &str) -> Arc<str> {
    Arc::from(name)
}

impl Core for SubnetLeases {
    const KIND: &'static str = "leases";
    const PARENT: &'static str = "service/dhcp";
    type Id = SubnetId;
    type Event = LeaseEvent;
    type Effect = LeaseEffect;
    type Timer = ();

    fn id(&self) -> SubnetId {
        self.subnet
    }

    fn step(&self, event: &LeaseEvent, now: Timestamp) -> Step<Self> {
        let mut next = self.clone();
        let mut effects = Vec::new();
        match event {
            LeaseEvent::Asked(batch) => {
                effects.reserve(2 * batch.asks.len());
                for ask in &batch.asks {
                    let outcome = next.decide(ask, &batch.rules, now, &mut effects);
                    effects.push(LeaseEffect::Answer { mac: ask.mac, to: ask.to.clone(), outcome });
                }
            }
            LeaseEvent::Probed { rules, ask, ip, user } => {
                let outcome = next.probed(ask, u32::from(*ip), *user, rules, now, &mut effects);
                effects.push(LeaseEffect::Answer { mac: ask.mac, to: ask.to.clone(), outcome });
            }
            LeaseEvent::Copied(leases) => leases.iter().for_each(|lease| next.copied(lease, now, &mut effects)),
        }
        Step::moved(next).with(effects)
    }

    fn resume(&self, _now: Timestamp) -> Resume<Self> {
        Resume::default() // A client that got no answer asks again.
    }

    fn elapsed((): ()) -> LeaseEvent {
        // There are no timers; an empty batch changes nothing.
        let rules = Rules { version: 0, pool: Arc::default(), reservations: Arc::new(Nobody), shared: None };
        LeaseEvent::Asked(Arc::new(Batch { rules, asks: Vec::new() }))
    }

    fn view(&self) -> View {
        let detail = serde_json::to_value(self.counts()).unwrap_or_default();
        View { state: "serving".into(), wait: None, detail }
    }
}

/// A plan without reservations.
struct Nobody;

impl Reservations for Nobody {
    fn of(&self, _: MacAddr) -> Option<Ipv4Addr> {
        None
    }

    fn holder(&self, _: Ipv4Addr) -> Option<MacAddr> {
        None
    }
}
