//! Which records there are: machines with their interfaces' addresses, reservations, clients with leases, DNS resources, the zones' own,
//! and the racks of every subnet in the internal domain. Pure; one source's change costs that source.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use actors::dns::text;
use schema::{
    catalogue::{Catalogue, DnsResource, Domain, RangeType, ReservedIp},
    dns::{DnsName, Generated, RecordData, Zone},
    id::{RackId, SubnetId, SystemId},
    messages::{link::RackInterface, machine::MachineSpec},
    net::{Cidr, MacAddr},
    plan::Lease,
    time::Timestamp,
};

use super::{
    book::{Book, Delta, Entry, Source},
    reverse,
};

/// Seconds that a subnet's racks may be remembered: one that died is gone for everybody soon.
const RACKS_TTL: u32 = 15;
/// Addresses of a dynamic range that get made-up names at most (MAAS: those of a /16).
const GENERATED: u64 = 65_536;

/// What names are made of, and the records that came of it.
#[derive(Default)]
pub struct Composer {
    book: Book,
    catalogue: Arc<Catalogue>,
    /// The zones' heads, without serials.
    zones: Vec<Zone>,
    machines: HashMap<SystemId, Named>,
    by_mac: HashMap<MacAddr, SystemId>,
    reserved: HashMap<MacAddr, BTreeSet<IpAddr>>,
    /// The records of each DNS resource.
    records: HashMap<i64, Vec<i64>>,
    leases: HashMap<Ipv4Addr, Lease>,
    leased: HashMap<MacAddr, BTreeSet<Ipv4Addr>>,
    racks: Vec<(RackId, Vec<RackInterface>)>,
    /// Where the region's own server is reached.
    own: Vec<IpAddr>,
    /// Subnets in the order of their networks, with their `rdns_mode`.
    subnets: Vec<(Cidr, u8)>,
}

/// A machine's part in it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    hostname: String,
    domain: String,
    macs: Vec<MacAddr>,
    /// What its system calls its interfaces; known after the first commissioning.
    nics: BTreeMap<MacAddr, String>,
}

impl Composer {
    /// A region whose own server is reached at these addresses.
    #[must_use]
    pub fn new(own: Vec<IpAddr>) -> Self {
        Self { own, ..Self::default() }
    }

    /// The catalogue as it is now.
    pub fn catalogue(&mut self, next: Arc<Catalogue>) {
        let old = std::mem::replace(&mut self.catalogue, next);
        let new = self.catalogue.clone();
        let reserved = old.reserved_ips != new.reserved_ips;
        if reserved {
            self.reserved.clear();
            for ip in new.reserved_ips.values() {
                self.reserved.entry(ip.mac).or_default().insert(ip.ip);
            }
        }
        if old.dns_records != new.dns_records {
            self.records.clear();
            for record in new.dns_records.values() {
                self.records.entry(record.resource).or_default().push(record.id);
            }
        }
        if self.zones.is_empty() || wide(&old) != wide(&new) || old.ranges != new.ranges {
            return self.all();
        }
        if reserved {
            let changed = different(&old.reserved_ips, &new.reserved_ips);
            let macs: BTreeSet<_> = changed
                .iter()
                .flat_map(|id| [old.reserved_ips.get(id), new.reserved_ips.get(id)])
                .flatten()
                .map(|ip| ip.mac)
                .collect();
            changed.into_iter().for_each(|id| self.reservation(id));
            macs.into_iter().for_each(|mac| self.mac(mac));
        }
        let mut changed = different(&old.dns_resources, &new.dns_resources);
        for id in different(&old.dns_records, &new.dns_records) {
            let records = [old.dns_records.get(&id), new.dns_records.get(&id)];
            changed.extend(records.into_iter().flatten().map(|record| record.resource));
        }
        changed.into_iter().for_each(|id| self.resource(id));
    }

    /// A machine as it is now; `None`: it is gone.
    pub fn machine(&mut self, id: SystemId, spec: Option<&MachineSpec>) {
        let nics = self.machines.remove(&id).map(|old| {
            for mac in old.macs.iter().chain(old.nics.keys()) {
                self.by_mac.remove(mac);
            }
            old.nics
        });
        if let Some(spec) = spec {
            let named = Named {
                hostname: spec.hostname.clone(),
                domain: spec.domain.clone(),
                macs: spec.macs.clone(),
                nics: nics.unwrap_or_default(),
            };
            self.by_mac.extend(named.macs.iter().chain(named.nics.keys()).map(|mac| (*mac, id)));
            self.machines.insert(id, named);
        }
        self.compose_machine(id);
    }

    /// What a machine's system calls its interfaces.
    pub fn nics(&mut self, id: SystemId, nics: BTreeMap<MacAddr, String>) {
        if let Some(named) = self.machines.get_mut(&id).filter(|named| named.nics != nics) {
            for mac in named.nics.keys().filter(|mac| !named.macs.contains(mac)) {
                self.by_mac.remove(mac);
            }
            self.by_mac.extend(nics.keys().map(|mac| (*mac, id)));
            named.nics = nics;
            self.compose_machine(id);
        }
    }

    /// Leases that were granted, renewed or ended by `now`.
    pub fn leases(&mut self, leases: impl IntoIterator<Item = Lease>, now: Timestamp) {
        for lease in leases {
            let (ip, mac) = (lease.ip, lease.mac);
            let old = self.leases.get(&ip);
            let same = old.is_some_and(|old| (old.mac, &old.hostname) == (mac, &lease.hostname)) && lease.expires > now;
            if same {
                self.leases.insert(ip, lease);
                continue;
            }
            let before = self.leases.remove(&ip).map(|old| old.mac);
            if let Some(of_mac) = before.and_then(|mac| self.leased.get_mut(&mac)) {
                of_mac.remove(&ip);
            }
            if lease.expires > now {
                self.leased.entry(mac).or_default().insert(ip);
                self.leases.insert(ip, lease);
            }
            self.client(ip);
            before.into_iter().chain([mac]).collect::<BTreeSet<_>>().into_iter().for_each(|mac| self.mac(mac));
        }
    }

    /// Leases that ran out by `now` are forgotten.
    pub fn expire(&mut self, now: Timestamp) {
        let over: Vec<_> = self.leases.values().filter(|lease| lease.expires <= now).cloned().collect();
        self.leases(over, now);
    }

    /// The racks that are healthy, with their interfaces.
    pub fn racks(&mut self, racks: Vec<(RackId, Vec<RackInterface>)>) {
        if self.racks != racks {
            self.racks = racks;
            self.compose_racks();
        }
    }

    /// Whether something may have changed since the last [`Self::delta`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.book.is_dirty()
    }

    /// What changed since the last call, under that serial.
    pub fn delta(&mut self, serial: u32) -> Option<Delta> {
        self.book.delta(&self.zones, serial)
    }

    /// Everything, as it was last given out.
    #[must_use]
    pub fn whole(&self) -> Delta {
        self.book.whole()
    }

    fn all(&mut self) {
        let subnets = self.catalogue.subnets.values();
        self.subnets = subnets.map(|s| (s.cidr, s.rdns_mode)).collect();
        self.subnets.sort_unstable();
        self.compose_zones();
        self.compose_racks();
        let gone = |source: &Source| matches!(source, Source::Resource(_) | Source::Reserved(_) | Source::Lease(_));
        for source in self.book.sources(gone) {
            match source {
                Source::Resource(id) => self.resource(id),
                Source::Reserved(id) => self.reservation(id),
                Source::Lease(ip) => self.client(ip),
                _ => {}
            }
        }
        let c = self.catalogue.clone();
        c.dns_resources.keys().for_each(|id| self.resource(*id));
        c.reserved_ips.keys().for_each(|id| self.reservation(*id));
        self.machines.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.compose_machine(id));
        self.leases.keys().copied().collect::<Vec<_>>().into_iter().for_each(|ip| self.client(ip));
    }

    /// Whatever hangs on that MAC.
    fn mac(&mut self, mac: MacAddr) {
        if let Some(id) = self.by_mac.get(&mac).copied() {
            self.compose_machine(id);
        }
        for ip in self.leased.get(&mac).cloned().unwrap_or_default() {
            self.client(ip);
        }
    }

    fn compose_zones(&mut self) {
        let c = self.catalogue.clone();
        let main = c.main_domain();
        let made_up = generated(&c, &main.name);
        let mut zones = Vec::new();
        for domain in c.domains.values() {
            let ours = domain.authoritative;
            let forward = domain.forward_dns_servers.iter().map(|ip| (*ip, 53).into());
            let own = if domain.id == main.id { made_up.values().flatten().cloned().collect() } else { Vec::new() };
            // A domain that is neither ours nor somebody's we know is asked for like any other name.
            if ours || !domain.forward_dns_servers.is_empty() {
                zones.push(Zone {
                    name: domain.name.clone(),
                    serial: 0,
                    ttl: c.ttl(domain),
                    forward: forward.collect(),
                    generated: own,
                });
            }
        }
        // Each makes up the names of its own subnets alone: every zone that changed goes to every rack.
        let mut reversed: BTreeMap<DnsName, Vec<Generated>> = BTreeMap::new();
        for subnet in c.subnets.values() {
            for name in reverse::zones(subnet.cidr, subnet.rdns_mode) {
                reversed.entry(name).or_default().extend(made_up.get(&subnet.id).into_iter().flatten().cloned());
            }
        }
        let zone = |name, ttl, generated| Zone { name, serial: 0, ttl, forward: Vec::new(), generated };
        zones.extend(reversed.into_iter().map(|(name, own)| zone(name, c.ttl(&main), own)));
        zones.push(zone(c.internal_domain(), RACKS_TTL, Vec::new()));
        let ours = zones.iter().filter(|zone| zone.forward.is_empty());
        let servers = ours.map(|zone| Entry {
            name: zone.name.clone(),
            ttl: zone.ttl,
            data: RecordData::Ns(vec![main.name.clone()]),
        });
        let own = self.own.iter().map(|ip| Entry { name: main.name.clone(), ttl: c.ttl(&main), data: address(*ip) });
        self.book.put(Source::Zones, servers.chain(own).collect());
        self.book.put_zones(zones.clone());
        self.zones = zones;
    }

    fn compose_racks(&mut self) {
        let c = self.catalogue.clone();
        for source in self.book.sources(|source| matches!(source, Source::Racks(_))) {
            if let Source::Racks(id) = source
                && !c.subnets.contains_key(&id)
            {
                self.book.put(source, Vec::new());
            }
        }
        for subnet in c.subnets.values() {
            let name = DnsName::of_subnet(subnet.cidr, &c.internal_domain()).ok().filter(|_| subnet.managed);
            let inside = |interfaces: &Vec<RackInterface>| {
                interfaces.iter().flat_map(|i| &i.addresses).map(|(ip, _)| *ip).find(|ip| subnet.cidr.contains(*ip))
            };
            let addresses = self.racks.iter().filter_map(|(_, interfaces)| inside(interfaces));
            let entry = |ip| Some(Entry { name: name.clone()?, ttl: RACKS_TTL, data: address(ip) });
            let entries = addresses.filter_map(entry).collect();
            self.book.put(Source::Racks(subnet.id), entries);
        }
    }

    fn resource(&mut self, id: i64) {
        let entries = self.catalogue.dns_resources.get(&id).and_then(|resource| self.resource_entries(resource));
        self.book.put(Source::Resource(id), entries.unwrap_or_default());
    }

    fn resource_entries(&self, resource: &DnsResource) -> Option<Vec<Entry>> {
        let c = &self.catalogue;
        let domain = c.domains.get(&resource.domain).filter(|domain| domain.authoritative)?;
        let (name, ttl) = (c.fqdn(resource)?, c.ttl(domain));
        let own = resource.address_ttl.unwrap_or(ttl);
        let mut entries = self.host(&name, &resource.ip_addresses, own);
        let records = self.records.get(&resource.id).into_iter().flatten().filter_map(|id| c.dns_records.get(id));
        // What is no record was refused when it was made.
        entries.extend(records.filter_map(|r| {
            let data = text::parse(&r.rrtype, &r.rrdata).ok()?;
            Some(Entry { name: name.clone(), ttl: r.ttl.unwrap_or(ttl), data })
        }));
        Some(entries)
    }

    fn reservation(&mut self, id: i64) {
        let entries = self.catalogue.reserved_ips.get(&id).and_then(|r: &ReservedIp| {
            // A machine that is known has names of its own.
            let hostname = r.hostname.as_ref().filter(|_| !self.by_mac.contains_key(&r.mac))?;
            self.at_main(hostname, r.ip)
        });
        self.book.put(Source::Reserved(id), entries.unwrap_or_default());
    }

    fn client(&mut self, ip: Ipv4Addr) {
        let entries = self.leases.get(&ip).and_then(|lease| {
            let hostname = lease.hostname.as_ref().filter(|_| !self.by_mac.contains_key(&lease.mac))?;
            if self.reserved.get(&lease.mac).is_some_and(|ips| ips.contains(&ip.into())) {
                return None;
            }
            self.at_main(hostname, ip.into())
        });
        self.book.put(Source::Lease(ip), entries.unwrap_or_default());
    }

    /// A name in the default domain, made of what a client calls itself.
    fn at_main(&self, hostname: &str, ip: IpAddr) -> Option<Vec<Entry>> {
        let main = self.catalogue.main_domain();
        let name = main.name.below(&label(hostname)?).ok()?;
        Some(self.host(&name, &[ip], self.catalogue.ttl(&main)))
    }

    fn compose_machine(&mut self, id: SystemId) {
        let entries = self.machines.get(&id).and_then(|named| self.machine_entries(named));
        self.book.put(Source::Machine(id), entries.unwrap_or_default());
    }

    /// The machine's name leads to its first interface that has addresses; each other one has a name below it.
    fn machine_entries(&self, named: &Named) -> Option<Vec<Entry>> {
        let domain = self.domain(&named.domain)?;
        let (name, ttl) = (domain.name.below(&named.hostname).ok()?, self.catalogue.ttl(&domain));
        let others = named.nics.keys().filter(|mac| !named.macs.contains(mac));
        let mut interfaces =
            named.macs.iter().chain(others).map(|mac| (mac, self.addresses(mac))).filter(|(_, ips)| !ips.is_empty());
        let (_, first) = interfaces.next()?;
        let mut entries = self.host(&name, &first, ttl);
        for (mac, ips) in interfaces {
            let own = named.nics.get(mac).and_then(|nic| label(nic)).and_then(|nic| name.below(&nic).ok());
            entries.extend(own.map(|own| self.host(&own, &ips, ttl)).unwrap_or_default());
        }
        Some(entries)
    }

    fn domain(&self, name: &str) -> Option<Domain> {
        let c = &self.catalogue;
        let found = || c.domains.values().find(|d| d.name.as_str() == name).cloned();
        let domain = if name.is_empty() { Some(c.main_domain()) } else { found() };
        domain.filter(|domain| domain.authoritative)
    }

    /// What is kept for a MAC, or else what it has leased.
    fn addresses(&self, mac: &MacAddr) -> Vec<IpAddr> {
        let kept = self.reserved.get(mac).into_iter().flatten().copied().collect::<Vec<_>>();
        let leased = || self.leased.get(mac).into_iter().flatten().map(|ip| (*ip).into()).collect();
        if kept.is_empty() { leased() } else { kept }
    }

    /// A name with its addresses, and the way back from each.
    fn host(&self, name: &DnsName, ips: &[IpAddr], ttl: u32) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(ips.len() * 2);
        for ip in ips {
            entries.push(Entry { name: name.clone(), ttl, data: address(*ip) });
            let Some((subnet, mode)) = self.subnet_of(*ip) else { continue };
            let Some((pointer, alias)) = reverse::pointer(subnet, mode, *ip) else { continue };
            let alias = alias.map(|alias| Entry { name: alias, ttl, data: RecordData::Cname(pointer.clone()) });
            entries.extend(alias);
            entries.push(Entry { name: pointer, ttl, data: RecordData::Ptr(vec![name.clone()]) });
        }
        entries
    }

    fn subnet_of(&self, ip: IpAddr) -> Option<(Cidr, u8)> {
        let after = self.subnets.partition_point(|(cidr, _)| cidr.network() <= ip);
        self.subnets.get(after.checked_sub(1)?).copied().filter(|(cidr, _)| cidr.contains(ip))
    }
}

/// What every record may depend on.
fn wide(c: &Catalogue) -> impl PartialEq + '_ {
    let setting = |name: &str| c.settings.get(name);
    (c.default_domain, &c.domains, &c.subnets, setting("default_dns_ttl"), setting("maas_internal_domain"))
}

/// The keys whose values differ.
fn different<V: PartialEq>(old: &BTreeMap<i64, V>, new: &BTreeMap<i64, V>) -> BTreeSet<i64> {
    let changed = new.iter().filter(|(id, value)| old.get(id) != Some(value)).map(|(id, _)| *id);
    changed.chain(old.keys().filter(|id| !new.contains_key(id)).copied()).collect()
}

fn address(ip: IpAddr) -> RecordData {
    match ip {
        IpAddr::V4(a) => RecordData::A(vec![a]),
        IpAddr::V6(a) => RecordData::Aaaa(vec![a]),
    }
}

/// The ranges whose names are made up, by subnet.
fn generated(c: &Catalogue, domain: &DnsName) -> BTreeMap<SubnetId, Vec<Generated>> {
    let dynamic = c.ranges.values().filter(|r| r.range_type == RangeType::Dynamic && r.range.start.is_ipv4());
    let mut made_up: BTreeMap<SubnetId, Vec<Generated>> = BTreeMap::new();
    for range in dynamic.filter(|r| r.range.len() <= GENERATED) {
        let own = made_up.entry(range.subnet).or_default();
        own.push(Generated { range: range.range, domain: domain.clone() });
    }
    made_up
}

/// One label made of what a client says: its first one, with hyphens for what a name may not have.
fn label(text: &str) -> Option<String> {
    let first = text.split('.').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = first.chars().take(63).map(plain).collect();
    let name = name.trim_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
