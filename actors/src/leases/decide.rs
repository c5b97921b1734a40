//! The choice of an address and the answers to RFC 2131's client messages. Pure: leases, rules and `now` in, outcome out.

use std::{net::Ipv4Addr, time::Duration};

use schema::{net::MacAddr, time::Timestamp};

use super::{Ask, DECLINE_HOLD, Held, Kind, Last, LeaseEffect, OFFER_HOLD, Origin, Outcome, Rules, SubnetLeases, Want};

/// A lease is not written anew while this much of the asked time is left (in percent): repeats and early renewals cost no disk.
const FRESH_PERCENT: u64 = 75;

impl SubnetLeases {
    /// The answer to `ask` where it changes nothing: an offer that stands, a lease that has most of its time left. `None`: it takes a step.
    #[must_use]
    pub fn settled(&self, ask: &Ask, rules: &Rules, now: Timestamp) -> Option<Outcome> {
        match ask.want {
            Want::Offer { .. } => {
                let ip = self.kept_for(ask.mac, rules, now)?;
                let held = self.by_ip.get(&ip).filter(|h| h.mac == ask.mac && h.kind != Kind::Probing)?;
                // Long enough that the request comes in time.
                (held.until > now + OFFER_HOLD / 2).then(|| Outcome::Offer { ip: ip.into(), lease_s: ask.lease_s })
            }
            Want::Take { ip } | Want::Renew { ip } | Want::Reboot { ip } => {
                let held = self.by_ip.get(&u32::from(ip))?;
                let same_name = ask.hostname.is_none() || ask.hostname == held.hostname;
                let mine = held.mac == ask.mac && held.kind == Kind::Bound && same_name;
                let left = held.expires.since(now).as_secs();
                let wanted = u64::from(ask.lease_s);
                let fresh = mine && left * 100 >= wanted * FRESH_PERCENT && left > 0;
                let current = self.by_mac.get(&ask.mac).is_some_and(|l| l.bound == Some(u32::from(ip)));
                let allowed = match rules.is_guest(ip) {
                    true => self.guest(ask, ip, rules, now).is_none(),
                    false => self.may_have(u32::from(ip), ask.mac, rules, now),
                };
                (fresh && current && allowed)
                    .then(|| Outcome::Ack { ip, lease_s: u32::try_from(left.min(wanted)).unwrap_or(ask.lease_s) })
            }
            Want::Elsewhere | Want::Chosen { .. } | Want::Release { .. } | Want::Decline { .. } => None,
        }
    }

    /// Decides about one client and changes the leases accordingly. Rows to be kept are pushed before the answer.
    pub(super) fn decide(&mut self, ask: &Ask, rules: &Rules, now: Timestamp, out: &mut Vec<LeaseEffect>) -> Outcome {
        if let Some(outcome) = self.settled(ask, rules, now) {
            return outcome;
        }
        match ask.want {
            Want::Offer { requested } => self.offer(ask, requested, None, rules, now),
            Want::Take { ip } | Want::Renew { ip } | Want::Reboot { ip } => self.take(ask, ip, false, rules, now, out),
            Want::Elsewhere => {
                self.drop_offer(ask.mac, now);
                Outcome::Silent { why: "the client took another server's offer" }
            }
            Want::Chosen { ip } => {
                self.drop_offer(ask.mac, now);
                self.gone_elsewhere(u32::from(ip), ask.mac, rules, now, out);
                Outcome::Silent { why: "the client took the other rack's offer" }
            }
            Want::Release { ip } => self.release(ask.mac, u32::from(ip), rules, now, out),
            Want::Decline { ip } => self.decline(ask.mac, u32::from(ip), rules, now, out),
        }
    }

    /// RFC 2131 section 4.3.1: what the plan keeps, what the client had, what it would like, what was longest unused.
    /// `proved`: a probe has shown that nobody uses that address.
    pub(super) fn offer(
        &mut self,
        ask: &Ask,
        requested: Option<Ipv4Addr>,
        proved: Option<u32>,
        rules: &Rules,
        now: Timestamp,
    ) -> Outcome {
        let wish = || requested.map(u32::from).filter(|ip| self.may_have(*ip, ask.mac, rules, now));
        let choice = self.kept_for(ask.mac, rules, now).or_else(wish);
        let Some(ip) = choice.or_else(|| self.unused(ask.mac, rules, now)) else {
            return self.full(rules);
        };
        let mine = self.by_ip.get(&ip).filter(|h| h.mac == ask.mac);
        if mine.is_some_and(|h| h.kind == Kind::Probing && h.until > now) && proved != Some(ip) {
            return Outcome::Silent { why: "a probe of the client's address is under way" };
        }
        let until = now + OFFER_HOLD;
        let held = match mine.filter(|h| h.kind == Kind::Bound) {
            // Its own lease, running or over: kept for it a little longer. That is not durable and need not be.
            Some(own) => Held { until: own.until.max(until), ..own.clone() },
            None => {
                let known = proved == Some(ip) || self.known_free(ip, ask.mac, rules);
                let kind = if known { Kind::Offered } else { Kind::Probing };
                let (hostname, origin) = (ask.hostname.clone(), Origin::Own);
                Held { mac: ask.mac, hostname, granted: now, expires: now, until, kind, origin }
            }
        };
        let probing = held.kind == Kind::Probing;
        self.hold(ip, held);
        if probing { Outcome::Probe { ip: ip.into() } } else { Outcome::Offer { ip: ip.into(), lease_s: ask.lease_s } }
    }

    /// RFC 2131 section 4.3.2: the lease, or a refusal that makes the client start anew.
    pub(super) fn take(
        &mut self,
        ask: &Ask,
        ip: Ipv4Addr,
        proved: bool,
        rules: &Rules,
        now: Timestamp,
        out: &mut Vec<LeaseEffect>,
    ) -> Outcome {
        if let Some(outcome) = self.guest(ask, ip, rules, now) {
            return outcome;
        }
        let ip = u32::from(ip);
        if !self.runs_for(ip, ask.mac, rules, now) && !self.may_have(ip, ask.mac, rules, now) {
            let holder = self.by_ip.get(&ip).filter(|h| h.until > now && h.mac != ask.mac);
            return Outcome::Nak {
                why: match (rules.reservations.of(ask.mac), holder) {
                    (Some(other), _) if u32::from(other) != ip => "another address is reserved for you",
                    (_, Some(_)) => "the address is in use",
                    _ => "the address is not for you on this subnet",
                },
            };
        }
        let before = self.by_ip.get(&ip).filter(|h| h.mac == ask.mac);
        let offered = before.is_some_and(|h| h.kind == Kind::Offered && h.until > now);
        if !offered && !proved && !self.known_free(ip, ask.mac, rules) {
            return Outcome::Probe { ip: ip.into() };
        }
        let hostname = ask.hostname.clone().or_else(|| before.and_then(|h| h.hostname.clone()));
        let running = before.filter(|h| h.kind == Kind::Bound && h.expires > now);
        let last = self.by_ip.get(&ip).filter(|h| matches!(h.kind, Kind::Bound | Kind::Declined));
        let anew = last.map_or(now, |h| now.max(h.after()));
        let granted = running.map_or(anew, |h| h.granted);
        let asked = now + Duration::from_secs(ask.lease_s.into());
        // Never less than another rack has promised already.
        let expires = running.map_or(asked, |h| if rules.shared.is_some() { asked.max(h.expires) } else { asked });
        let last = self.by_mac.get(&ask.mac).copied().unwrap_or_default();
        // A client that moves to another address gives up the one it had.
        if let Some(old) = last.bound.filter(|old| *old != ip) {
            self.end(old, ask.mac, rules, now, out);
        }
        if last.offered.is_some_and(|offered| offered != ip) {
            self.drop_offer(ask.mac, now);
        }
        let (kind, origin) = (Kind::Bound, Origin::Own);
        let held = Held { mac: ask.mac, hostname, granted, expires, until: expires, kind, origin };
        out.push(LeaseEffect::Keep(self.row(ip, &held)));
        self.hold(ip, held);
        Outcome::Ack { ip: ip.into(), lease_s: ask.lease_s }
    }

    fn release(&mut self, mac: MacAddr, ip: u32, rules: &Rules, now: Timestamp, out: &mut Vec<LeaseEffect>) -> Outcome {
        if self.end(ip, mac, rules, now, out) {
            Outcome::Silent { why: "released" }
        } else {
            Outcome::Silent { why: "a release of an address that the client does not hold" }
        }
    }

    fn decline(&mut self, mac: MacAddr, ip: u32, rules: &Rules, now: Timestamp, out: &mut Vec<LeaseEffect>) -> Outcome {
        let known = self.by_ip.get(&ip).is_some_and(|h| h.mac == mac && h.until > now && h.kind != Kind::Declined);
        if !known || !(rules.pool.contains(ip.into()) || rules.reservations.holder(ip.into()) == Some(mac)) {
            return Outcome::Silent { why: "a decline of an address that the client was not given" };
        }
        self.set_aside(ip, mac, rules, now, out);
        Outcome::Silent { why: "declined: somebody else uses the address" }
    }

    /// Nobody gets `ip` for a while: it is in use by a host that holds no lease of it. An address of the other rack is set aside here only.
    pub(super) fn set_aside(
        &mut self,
        ip: u32,
        mac: MacAddr,
        rules: &Rules,
        now: Timestamp,
        out: &mut Vec<LeaseEffect>,
    ) {
        let (until, kind) = (now + DECLINE_HOLD, Kind::Declined);
        let guest = rules.is_guest(ip.into());
        let origin = if guest { Origin::Copied } else { Origin::Own };
        let granted = self.by_ip.get(&ip).map_or(now, |h| now.max(h.after()));
        let held = Held { mac, hostname: None, granted, expires: until, until, kind, origin };
        let row = self.row(ip, &held);
        out.push(if guest { LeaseEffect::Copy(row) } else { LeaseEffect::Keep(row) });
        self.hold(ip, held);
    }

    /// Ends the lease of `ip` now, if `mac` holds it.
    pub(super) fn end(
        &mut self,
        ip: u32,
        mac: MacAddr,
        rules: &Rules,
        now: Timestamp,
        out: &mut Vec<LeaseEffect>,
    ) -> bool {
        let mine = |h: &&Held| h.mac == mac && h.kind == Kind::Bound && h.expires > now;
        let Some(held) = self.by_ip.get(&ip).filter(mine).cloned() else { return false };
        // `expires` = `granted`: the mark of a released lease in reports.
        let at = if rules.shared.is_some() { now.max(held.after()) } else { now };
        let ended = Held { granted: at, expires: at, until: at, origin: Origin::Own, ..held };
        out.push(LeaseEffect::Keep(self.row(ip, &ended)));
        self.hold(ip, ended);
        true
    }

    /// The address that stands for a MAC already: its reservation, what it was offered, what it had.
    fn kept_for(&self, mac: MacAddr, rules: &Rules, now: Timestamp) -> Option<u32> {
        let free = |ip: &u32| self.may_have(*ip, mac, rules, now);
        let reserved = rules.reservations.of(mac).map(u32::from).filter(free);
        let last = self.by_mac.get(&mac).copied().unwrap_or_default();
        reserved.or_else(|| last.offered.filter(free)).or_else(|| last.bound.filter(free))
    }

    /// Whether `mac` may be given `ip` at `now`.
    fn may_have(&self, ip: u32, mac: MacAddr, rules: &Rules, now: Timestamp) -> bool {
        if self.taken(ip, mac, now) {
            return false;
        }
        match rules.reservations.of(mac).map(u32::from) {
            Some(own) if own == ip => true,
            // While somebody else sits on the reserved address, one of the pool must do.
            Some(own) if !self.taken(own, mac, now) => false,
            _ => {
                let address = Ipv4Addr::from(ip);
                rules.pool.contains(address) && rules.reservations.holder(address).is_none_or(|holder| holder == mac)
            }
        }
    }

    /// Whether somebody else holds `ip`, or it was declined.
    fn taken(&self, ip: u32, mac: MacAddr, now: Timestamp) -> bool {
        self.by_ip.get(&ip).is_some_and(|h| h.until > now && (h.mac != mac || h.kind == Kind::Declined))
    }

    /// An address that nobody ever had, else the one that is longest unused.
    fn unused(&mut self, mac: MacAddr, rules: &Rules, now: Timestamp) -> Option<u32> {
        if let Some(ip) = self.fresh(rules) {
            return Some(ip);
        }
        let ended = self.by_end.iter().map(|((end, ip), ())| (*end, *ip)).take_while(|(end, _)| *end <= now);
        let mut free = ended.map(|(_, ip)| ip).filter(|ip| self.may_have(*ip, mac, rules, now));
        let first = free.next();
        // One that needs no probe, if it is not too far away.
        let known = |ip: &u32| self.known_free(*ip, mac, rules);
        let least_recent = first.filter(known).or_else(|| free.take(64).find(known)).or(first);
        if least_recent.is_some() || self.searched == Some(rules.version) {
            return least_recent;
        }
        // What the pool is, or what is reserved in it, may have changed: addresses that were passed over may be free now.
        (self.fresh, self.searched) = (0, Some(rules.version));
        self.fresh(rules)
    }

    fn fresh(&mut self, rules: &Rules) -> Option<u32> {
        while let Some(ip) = rules.pool.at_or_after(self.fresh) {
            self.fresh = ip.checked_add(1)?;
            if !self.by_ip.contains(&ip) && rules.reservations.holder(ip.into()).is_none() {
                return Some(ip);
            }
        }
        None
    }

    /// Puts what holds `ip`, and mends the indexes.
    pub(super) fn hold(&mut self, ip: u32, held: Held) {
        let (mac, kind, expires, until) = (held.mac, held.kind, held.expires, held.until);
        if let Some(old) = self.by_ip.insert(ip, held) {
            self.by_end.remove(&(old.until, ip));
            if old.mac != mac || kind == Kind::Declined {
                self.forget(old.mac, ip);
            }
        }
        self.by_end.insert((until, ip), ());
        let last = self.by_mac.get(&mac).copied().unwrap_or_default();
        // Where rows of one MAC are loaded in any order, the one that ends last is its address.
        let later = last.bound.and_then(|b| self.by_ip.get(&b)).is_none_or(|b| b.mac != mac || b.expires <= expires);
        let new = match kind {
            Kind::Offered | Kind::Probing => Last { offered: Some(ip), bound: last.bound.filter(|bound| *bound != ip) },
            Kind::Bound if later || last.bound == Some(ip) => Last { offered: None, bound: Some(ip) },
            Kind::Bound => last,
            Kind::Declined => return,
        };
        if new != last {
            self.by_mac.insert(mac, new);
        }
    }

    fn forget(&mut self, mac: MacAddr, ip: u32) {
        let Some(last) = self.by_mac.get(&mac).copied() else { return };
        let left = Last { offered: last.offered.filter(|o| *o != ip), bound: last.bound.filter(|b| *b != ip) };
        if left == Last::default() {
            self.by_mac.remove(&mac);
        } else {
            self.by_mac.insert(mac, left);
        }
    }

    /// Whoever asks next may have what was offered to `mac`.
    fn drop_offer(&mut self, mac: MacAddr, now: Timestamp) {
        let offered = self.by_mac.get(&mac).and_then(|last| last.offered);
        if let Some(ip) = offered
            && let Some(held) =
                self.by_ip.get(&ip).filter(|h| h.mac == mac && matches!(h.kind, Kind::Offered | Kind::Probing)).cloned()
        {
            self.hold(ip, Held { until: now, ..held });
        }
    }

    fn full(&self, rules: &Rules) -> Outcome {
        let (why, remedy) = if rules.pool.is_empty() {
            let why = "the subnet has no dynamic range and no reservation for this MAC".to_owned();
            (why, "add a dynamic range to the subnet, or reserve an address for the MAC".to_owned())
        } else {
            let why = format!(
                "all {} addresses of the dynamic ranges are leased, offered, declined or reserved",
                rules.pool.len()
            );
            (why, "add a dynamic range to the subnet or enlarge one; unused leases end by themselves".to_owned())
        };
        Outcome::Full { why, remedy }
    }
}
