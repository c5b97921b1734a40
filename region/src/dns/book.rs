//! Record sets by what they come from: when one source changes, its records change and no others. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use schema::{
    dns::{DnsName, RecordData, RecordKey, RecordSet, Zone},
    id::{SubnetId, SystemId},
    messages::link::Rows,
};

/// What a name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    Machine(SystemId),
    /// A client that no machine is known for; by its address. Whatever it calls itself, it takes nobody's name.
    Lease(std::net::Ipv4Addr),
    /// A reserved address, by id.
    Reserved(i64),
    /// A DNS resource with its records, by id.
    Resource(i64),
    /// The zones' own records.
    Zones,
    /// The racks of a subnet.
    Racks(SubnetId),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: DnsName,
    pub(super) ttl: u32,
    /// A set of one.
    pub(super) data: RecordData,
}

/// What changed: rows for racks and for our own server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    pub zones: Rows<Zone, DnsName>,
    pub records: Rows<RecordSet, RecordKey>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<Source, Vec<Entry>>,
    sources: HashMap<RecordKey, Vec<Source>>,
    /// As they were last given out.
    sets: HashMap<RecordKey, RecordSet>,
    zones: HashMap<DnsName, Zone>,
    touched: HashSet<RecordKey>,
    touched_zones: BTreeSet<DnsName>,
}

fn key(entry: &Entry) -> RecordKey {
    RecordKey { name: entry.name.clone(), rtype: entry.data.rtype() }
}

impl Book {
    /// Replaces what comes from that source.
    pub(super) fn put(&mut self, source: Source, entries: Vec<Entry>) {
        if self.entries.get(&source).map_or(entries.is_empty(), |old| *old == entries) {
            return;
        }
        for entry in self.entries.remove(&source).unwrap_or_default() {
            let key = key(&entry);
            if let Some(sources) = self.sources.get_mut(&key) {
                sources.retain(|other| *other != source);
                if sources.is_empty() {
                    self.sources.remove(&key);
                }
            }
            self.touched.insert(key);
        }
        for entry in &entries {
            let key = key(entry);
            let sources = self.sources.entry(key.clone()).or_default();
            if !sources.contains(&source) {
                sources.push(source);
            }
            self.touched.insert(key);
        }
        if !entries.is_empty() {
            self.entries.insert(source, entries);
        }
    }

    /// Every source that there is of that kind.
    pub(super) fn sources(&self, kind: impl Fn(&Source) -> bool) -> Vec<Source> {
        self.entries.keys().filter(|source| kind(source)).copied().collect()
    }

    /// Replaces the zones' heads. Serials are the book's own.
    pub(super) fn put_zones(&mut self, zones: Vec<Zone>) {
        let names: HashSet<&DnsName> = zones.iter().map(|zone| &zone.name).collect();
        self.touched_zones.extend(self.zones.keys().filter(|name| !names.contains(name)).cloned());
        for zone in zones {
            let serial = self.zones.get(&zone.name).map_or(0, |old| old.serial);
            let zone = Zone { serial, ..zone };
            if self.zones.get(&zone.name) != Some(&zone) {
                self.touched_zones.insert(zone.name.clone());
            }
        }
    }

    /// Whether something may have changed since the last [`Self::delta`].
    pub(super) fn is_dirty(&self) -> bool {
        !self.touched.is_empty() || !self.touched_zones.is_empty()
    }

    /// What changed since the last call; each zone that something of changed gets that serial. `zones`: all heads, as last put.
    pub(super) fn delta(&mut self, zones: &[Zone], serial: u32) -> Option<Delta> {
        let mut delta = Delta::default();
        for name in std::mem::take(&mut self.touched_zones) {
            match zones.iter().find(|zone| zone.name == name) {
                Some(zone) => drop(self.zones.insert(name, zone.clone())),
                None if self.zones.remove(&name).is_some() => delta.zones.remove.push(name),
                None => {}
            }
        }
        let mut changed = BTreeSet::new();
        for key in std::mem::take(&mut self.touched) {
            let set = self.compose(&key);
            if self.sets.get(&key) == set.as_ref() {
                continue;
            }
            changed.extend(self.zone_of(&key.name).cloned());
            match set {
                Some(set) => {
                    delta.records.put.push(set.clone());
                    self.sets.insert(key, set);
                }
                None => {
                    self.sets.remove(&key);
                    delta.records.remove.push(key);
                }
            }
        }
        for zone in self.zones.values_mut().filter(|zone| zone.serial == 0 || changed.contains(&zone.name)) {
            zone.serial = serial;
            delta.zones.put.push(zone.clone());
        }
        (delta != Delta::default()).then_some(delta)
    }

    /// Everything, as it was last given out.
    pub(super) fn whole(&self) -> Delta {
        let mut zones: Vec<_> = self.zones.values().cloned().collect();
        zones.sort_by(|a, b| a.name.cmp(&b.name));
        Delta {
            zones: Rows { replace: true, put: zones, remove: Vec::new() },
            records: Rows { replace: true, put: self.sets.values().cloned().collect(), remove: Vec::new() },
        }
    }

    /// The set of that key, of all its sources; a client's own word counts where nobody else has the name.
    fn compose(&self, key: &RecordKey) -> Option<RecordSet> {
        let sources = self.sources.get(key)?;
        let known = sources.iter().any(|source| !matches!(source, Source::Lease(_)));
        let counts = |source: &&Source| !known || !matches!(source, Source::Lease(_));
        let all = sources.iter().filter(counts).filter_map(|source| self.entries.get(source)).flatten();
        let mut all = all.filter(|entry| entry.name == key.name && entry.data.rtype() == key.rtype);
        let first = all.next()?;
        let (mut ttl, mut data) = (first.ttl, first.data.clone());
        for entry in all {
            ttl = ttl.min(entry.ttl);
            merge(&mut data, &entry.data);
        }
        Some(RecordSet { name: key.name.clone(), ttl, data })
    }

    /// The zone that holds that name.
    fn zone_of(&self, name: &DnsName) -> Option<&DnsName> {
        let mut rest = name.as_str();
        loop {
            if let Some((zone, _)) = self.zones.get_key_value(rest) {
                return Some(zone);
            }
            rest = rest.split_once('.')?.1;
        }
    }
}

/// Adds a set of the same type, each record once and in order.
fn merge(data: &mut RecordData, more: &RecordData) {
    fn add<T: Ord + Clone>(all: &mut Vec<T>, more: &[T]) {
        all.extend_from_slice(more);
        all.sort_unstable();
        all.dedup();
    }
    match (data, more) {
        (RecordData::A(all), RecordData::A(more)) => add(all, more),
        (RecordData::Aaaa(all), RecordData::Aaaa(more)) => add(all, more),
        (RecordData::Ns(all), RecordData::Ns(more)) | (RecordData::Ptr(all), RecordData::Ptr(more)) => add(all, more),
        (RecordData::Mx(all), RecordData::Mx(more)) => add(all, more),
        (RecordData::Txt(all), RecordData::Txt(more)) => add(all, more),
        (RecordData::Srv(all), RecordData::Srv(more)) => add(all, more),
        (RecordData::Sshfp(all), RecordData::Sshfp(more)) => add(all, more),
        // A name has one alias: the first.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, address: &str) -> Entry {
        Entry { name: name.parse().unwrap(), ttl: 30, data: RecordData::A(vec![address.parse().unwrap()]) }
    }

    fn zone(name: &str) -> Zone {
        Zone { name: name.parse().unwrap(), serial: 0, ttl: 30, forward: vec![], generated: vec![] }
    }

    #[test]
    fn a_change_holds_what_changed_and_moves_its_zone_alone() {
        let (mut book, zones) = (Book::default(), [zone("maas"), zone("lab")]);
        book.put_zones(zones.to_vec());
        book.put(Source::Resource(1), vec![entry("fox.maas", "10.0.0.1"), entry("fox.maas", "10.0.0.2")]);
        book.put(Source::Resource(2), vec![entry("fox.maas", "10.0.0.2"), entry("cat.lab", "10.0.0.3")]);
        let first = book.delta(&zones, 7).unwrap();
        assert_eq!((first.zones.put.len(), first.records.put.len()), (2, 2));
        assert!(!book.is_dirty() && book.delta(&zones, 8).is_none());
        book.put(Source::Resource(1), vec![entry("fox.maas", "10.0.0.1")]);
        assert!(book.delta(&zones, 9).is_none(), "the other source has that address too");
        book.put(Source::Resource(2), vec![entry("cat.lab", "10.0.0.3")]);
        let delta = book.delta(&zones, 10).unwrap();
        assert_eq!(delta.zones.put, [Zone { serial: 10, ..zone("maas") }]);
        assert_eq!(delta.records.put[0].data, RecordData::A(vec!["10.0.0.1".parse().unwrap()]));
        book.put(Source::Resource(2), vec![]);
        assert_eq!(book.delta(&zones, 11).unwrap().records.remove.len(), 1);
        book.put_zones(zones[..1].to_vec());
        assert_eq!(book.delta(&zones[..1], 12).unwrap().zones.remove.len(), 1);
        assert_eq!((book.whole().zones.put.len(), book.whole().records.put.len()), (1, 1));
    }

    #[test]
    fn a_client_takes_nobodys_name() {
        let (mut book, zones) = (Book::default(), [zone("maas")]);
        book.put_zones(zones.to_vec());
        book.put(Source::Lease([10, 0, 0, 66].into()), vec![entry("fox.maas", "10.0.0.66")]);
        assert_eq!(book.delta(&zones, 1).unwrap().records.put.len(), 1);
        book.put(Source::Machine("mach01".parse().unwrap()), vec![entry("fox.maas", "10.0.0.1")]);
        let delta = book.delta(&zones, 2).unwrap();
        assert_eq!(delta.records.put[0].data, RecordData::A(vec!["10.0.0.1".parse().unwrap()]));
    }
}
