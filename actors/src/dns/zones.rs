//! Zones and their names as answers read them: an immutable map that is cheap to copy and shares what a change does not touch.

use std::{net::SocketAddr, sync::Arc};

use schema::{
    dns::{DnsName, Generated, RecordKey, RecordSet, Zone},
    messages::link::Rows,
};

use super::{
    name::{parent, wire},
    rows,
};
use crate::sorted::Sorted;

/// All zones. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    /// By their bytes in packets.
    names: Sorted<Box<[u8]>, Arc<Node>>,
}

/// One name.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    /// The zone that begins here.
    pub(super) apex: Option<Arc<Apex>>,
    pub(super) sets: Vec<Set>,
    /// Names one label below. A name without records and with others below it is there all the same (RFC 8020 section 2).
    below: u32,
}

/// A zone's head, ready for packets.
#[derive(Debug)]
pub(super) struct Apex {
    pub(super) name: Vec<u8>,
    pub(super) ttl: u32,
    /// The SOA's data, its length before it.
    pub(super) soa: Vec<u8>,
    pub(super) forward: Arc<[SocketAddr]>,
    pub(super) generated: Vec<Generated>,
}

/// A record set, ready for packets.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    pub(super) rows: Arc<[u8]>,
    pub(super) count: usize,
}

impl Node {
    pub(super) fn set(&self, rtype: u16) -> Option<&Set> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }

    /// Not only names below.
    pub(super) fn says_something(&self) -> bool {
        self.apex.is_some() || !self.sets.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.says_something() && self.below == 0
    }
}

impl Zones {
    /// The map of these zones and records.
    #[must_use]
    pub fn of(zones: &[Zone], records: &[RecordSet]) -> Self {
        let mut all = Self::default();
        zones.iter().for_each(|zone| all.put_zone(zone));
        records.iter().for_each(|set| all.put(set));
        all
    }

    /// With a change made. What it does not touch is shared with the map before.
    pub fn apply(&mut self, zones: &Rows<Zone, DnsName>, records: &Rows<RecordSet, RecordKey>) {
        if zones.replace {
            self.clear(|node| node.apex = None);
        }
        if records.replace {
            self.clear(|node| node.sets.clear());
        }
        for name in &zones.remove {
            self.edit(&wire(name), |node| node.apex = None);
        }
        for key in &records.remove {
            self.edit(&wire(&key.name), |node| node.sets.retain(|set| set.rtype != key.rtype));
        }
        zones.put.iter().for_each(|zone| self.put_zone(zone));
        records.put.iter().for_each(|set| self.put(set));
    }

    fn put_zone(&mut self, zone: &Zone) {
        let apex = Apex {
            name: wire(&zone.name),
            ttl: zone.ttl,
            soa: rows::soa(zone),
            forward: zone.forward.as_slice().into(),
            generated: zone.generated.clone(),
        };
        let name = apex.name.clone();
        self.edit(&name, |node| node.apex = Some(Arc::new(apex)));
    }

    fn put(&mut self, set: &RecordSet) {
        let (rows, count) = rows::encode(&set.data);
        let new = Set { rtype: set.data.rtype(), ttl: set.ttl, rows: rows.into(), count };
        self.edit(&wire(&set.name), |node| {
            node.sets.retain(|old| old.rtype != new.rtype);
            if new.count > 0 {
                node.sets.push(new);
            }
        });
    }

    /// Changes one name. Names above it come into being with it and go with it.
    fn edit(&mut self, name: &[u8], change: impl FnOnce(&mut Node)) {
        let (born, died) = self.edit_one(name, change);
        if born == died {
            return;
        }
        let mut here = name;
        while let Some(above) = parent(here) {
            let count = |node: &mut Node| node.below = if born { node.below + 1 } else { node.below.saturating_sub(1) };
            let (above_born, above_died) = self.edit_one(above, count);
            if !(born && above_born || died && above_died) {
                return;
            }
            here = above;
        }
    }

    /// Whether the name was not there before, and whether it is not there any more.
    fn edit_one(&mut self, name: &[u8], change: impl FnOnce(&mut Node)) -> (bool, bool) {
        if let Some(node) = self.names.get_mut(name) {
            let node = Arc::make_mut(node);
            change(node);
            let died = node.is_empty();
            if died {
                self.names.remove(name);
            }
            return (false, died);
        }
        let mut node = Node::default();
        change(&mut node);
        let died = node.is_empty();
        if !died {
            self.names.insert(name.into(), Arc::new(node));
        }
        (true, died)
    }

    /// Takes something from every name.
    fn clear(&mut self, take: impl Fn(&mut Node)) {
        for name in self.names.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.edit(&name, &take);
        }
    }

    pub(super) fn node(&self, name: &[u8]) -> Option<&Node> {
        self.names.get(name).map(Arc::as_ref)
    }

    /// Every name with its node.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.names.iter().map(|(name, node)| (name.as_ref(), node.as_ref()))
    }

    /// Whether that name has records of that type.
    #[must_use]
    pub fn has(&self, name: &DnsName, rtype: u16) -> bool {
        self.node(&wire(name)).is_some_and(|node| node.set(rtype).is_some())
    }

    /// Whether a zone of that name is here.
    #[must_use]
    pub fn has_zone(&self, name: &DnsName) -> bool {
        self.node(&wire(name)).is_some_and(|node| node.apex.is_some())
    }

    /// How many names there are, empty ones included.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.len()
    }
}
