//! Two racks on one subnet: what one may do with the other's leases, and what it must not take for free. Pure.
//!
//! The law: no address is ever held by two MACs. Each rack gives addresses to new clients from its own half only, so a half has one book.
//! The other rack may renew a lease of that half for the MAC that holds it, as long as its copy of the lease runs. So the owner must not
//! take an address for free when its own book says that the lease has ended: the other may have renewed it. It does so once the other
//! has said that all it granted *up to that end, by its own clock* is told ([`Shared::heard`]); no clocks are compared. Whatever is not
//! known to be free by that rule is probed on the wire first (RFC 5227 section 2.1.1), and set aside when somebody answers.
//! A client of the other half that does not use its address now gets another one here: the owner may have given it away by a probe.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use schema::{net::MacAddr, plan::Lease, time::Timestamp};

use super::{Ask, Held, Kind, LeaseEffect, Origin, Outcome, Pool, Rules, SubnetLeases, Want};

/// How long after the shares changed an address that nobody had is probed, even where the other rack is heard: its plan may be the old one.
pub const SETTLE: Duration = Duration::from_secs(30);

/// The other rack's part in a subnet.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What the other rack gives to new clients.
    pub others: Arc<Pool>,
    /// All that the other rack granted before this moment of its own clock is known here; `None`: nothing was heard since the start.
    pub heard: Option<Timestamp>,
    /// Since when this rack has known the shares as they are.
    pub since: Timestamp,
    /// The other rack is lost: this one answers for both.
    pub lost: bool,
}

impl Rules {
    /// Whether that address is the other rack's to give.
    pub(super) fn is_guest(&self, ip: Ipv4Addr) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.others.contains(ip))
    }
}

impl Held {
    /// The least moment after its grant: copies are put in order by grants, and the clocks of two racks differ.
    pub(super) fn after(&self) -> Timestamp {
        Timestamp(self.granted.0.saturating_add(1))
    }
}

impl SubnetLeases {
    /// Whether `ip` is of the other rack's half and `mac` holds it, as far as is known.
    pub(super) fn runs_for(&self, ip: u32, mac: MacAddr, rules: &Rules, now: Timestamp) -> bool {
        let running = |held: &Held| held.mac == mac && held.kind == Kind::Bound && held.expires > now;
        rules.is_guest(ip.into()) && self.by_ip.get(&ip).is_some_and(running)
    }

    /// Whether it is certain that nobody but `mac` holds `ip`. That `mac` may have it is asked before.
    pub(super) fn known_free(&self, ip: u32, mac: MacAddr, rules: &Rules) -> bool {
        let Some(shared) = &rules.shared else { return true };
        let address = Ipv4Addr::from(ip);
        match self.by_ip.get(&ip) {
            Some(held) if held.kind == Kind::Bound && held.mac == mac => true,
            Some(held) if matches!(held.kind, Kind::Bound | Kind::Declined) => shared.heard >= Some(held.until),
            _ if shared.others.contains(address) => false,
            _ if rules.pool.contains(address) => shared.heard >= Some(shared.since + SETTLE),
            // A reservation outside both halves: nobody else is ever given it.
            _ => true,
        }
    }

    /// A REQUEST for an address of the other rack's half; `None`: it is answered like any other.
    ///
    /// Only a client that uses the address keeps it here. Whom its owner may have given it to meanwhile, by a probe that found nobody,
    /// is not known; a client that merely remembers it gets one of this rack's own.
    pub(super) fn guest(&self, ask: &Ask, ip: Ipv4Addr, rules: &Rules, now: Timestamp) -> Option<Outcome> {
        let lost = rules.shared.as_ref()?.lost;
        let reserved = rules.reservations.of(ask.mac);
        if !rules.is_guest(ip) || reserved == Some(ip) {
            return None;
        }
        let known = self.by_ip.get(&u32::from(ip)).filter(|held| held.kind == Kind::Bound);
        match known {
            Some(held) if held.expires > now && held.mac != ask.mac => {
                Some(Outcome::Nak { why: "the address is in use" })
            }
            Some(_) if reserved.is_some() => Some(Outcome::Nak { why: "another address is reserved for you" }),
            Some(held) if held.expires > now && matches!(ask.want, Want::Renew { .. }) => {
                let kept = rules.reservations.holder(ip).filter(|holder| *holder != ask.mac);
                kept.map(|_| Outcome::Nak { why: "the address is not for you on this subnet" })
            }
            Some(held) if lost && held.mac == ask.mac => {
                Some(Outcome::Nak { why: "the rack that gave the address is away" })
            }
            _ => Some(Outcome::Silent { why: "an address of the other rack" }),
        }
    }

    /// What becomes of a client whose address was probed.
    pub(super) fn probed(
        &mut self,
        ask: &Ask,
        ip: u32,
        user: Option<MacAddr>,
        rules: &Rules,
        now: Timestamp,
        out: &mut Vec<LeaseEffect>,
    ) -> Outcome {
        let user = user.filter(|user| *user != ask.mac);
        let used = user.is_some();
        if let Some(user) = user {
            self.set_aside(ip, user, rules, now, out);
        }
        match ask.want {
            Want::Offer { requested } => {
                let waits = |h: &&Held| h.mac == ask.mac && h.kind == Kind::Probing && h.until > now;
                if !used && self.by_ip.get(&ip).filter(waits).is_none() {
                    // Meanwhile a copy came, or the client took something else.
                    return Outcome::Silent { why: "the address was given up while it was probed" };
                }
                self.offer(ask, requested, (!used).then_some(ip), rules, now)
            }
            _ if used => Outcome::Nak { why: "the address is in use" },
            _ => self.take(ask, ip.into(), true, rules, now, out),
        }
    }

    /// Another rack's word on an address. The later grant wins; of one grant, the later end. Twice is as good as once.
    pub(super) fn copied(&mut self, lease: &Lease, now: Timestamp, out: &mut Vec<LeaseEffect>) {
        let ip = u32::from(lease.ip);
        let old = self.by_ip.get(&ip).cloned();
        let durable = old.as_ref().filter(|h| matches!(h.kind, Kind::Bound | Kind::Declined));
        if durable.is_some_and(|h| (h.granted, h.expires) >= (lease.granted, lease.expires)) {
            return;
        }
        if durable.is_none() && lease.expires <= now {
            return; // It has ended, and nobody here relied on it.
        }
        let (mac, hostname) = (lease.mac, lease.hostname.as_deref().map(Arc::from));
        let (granted, expires, kind, origin) = (lease.granted, lease.expires, Kind::Bound, Origin::Copied);
        let held = Held { mac, hostname, granted, expires, until: expires, kind, origin };
        out.push(LeaseEffect::Copy(self.row(ip, &held)));
        self.hold(ip, held);
    }

    /// `mac` asked the other rack for `ip`: a copy that says that somebody else holds it is out of date.
    pub(super) fn gone_elsewhere(
        &mut self,
        ip: u32,
        mac: MacAddr,
        rules: &Rules,
        now: Timestamp,
        out: &mut Vec<LeaseEffect>,
    ) {
        let stale = |h: &&Held| h.mac != mac && h.kind == Kind::Bound && h.expires > now && rules.is_guest(ip.into());
        let Some(held) = self.by_ip.get(&ip).filter(stale).cloned() else { return };
        // Newer than every word on that grant, older than the next one.
        let ended = Held { granted: held.after(), expires: now, ..held };
        out.push(LeaseEffect::Copy(self.row(ip, &ended)));
        self.hold(ip, ended);
    }
}
