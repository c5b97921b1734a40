//! What is kept, by address: the little that a hit needs, in memory, and who has to go when room is needed. Opens no file.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use schema::time::Timestamp;

/// Answers of one address that may stand side by side (Vary).
const VARIANTS: usize = 4;

/// One kept answer. Its body and its rules are in files named by `id`.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: u64,
    /// The address in its normal form.
    pub url: Box<str>,
    /// Bytes of its body.
    pub len: u64,
    /// When its server last said that it is so.
    pub confirmed: Timestamp,
    /// Its age in seconds by then.
    pub age: u64,
    /// Until when it will do without asking.
    pub fresh_until: Timestamp,
    /// Until when it may stand in for a server that fails.
    pub stale_until: Timestamp,
    /// It answers only requests like its own: its rules must be asked.
    pub varies: bool,
    pub etag: Option<Box<str>>,
    pub last_modified: Option<Box<str>>,
    /// Its fields as lines, but for those that every answer has anew.
    pub head: Box<str>,
    /// When it was last used, by the index's own count.
    pub used: AtomicU64,
}

/// All that is kept, within a bound in bytes.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<Box<str>, Vec<Arc<Entry>>>,
    /// Bytes of the kept bodies.
    bytes: u64,
    /// Bytes promised to bodies that are still coming.
    reserved: u64,
    uses: u64,
}

/// It does not fit, whatever goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Index {
    /// The answers kept for that address, marked as used.
    pub(super) fn find(&mut self, url: &str) -> &[Arc<Entry>] {
        self.uses += 1;
        let found = self.entries.get(url).map(Vec::as_slice).unwrap_or_default();
        found.iter().for_each(|entry| entry.used.store(self.uses, Ordering::Relaxed));
        found
    }

    /// Takes an answer in. Returns what it replaces: the one it comes for (`instead_of`), all others if it is the address's only answer.
    pub(super) fn insert(&mut self, entry: Arc<Entry>, instead_of: Option<u64>) -> Vec<Arc<Entry>> {
        self.uses += 1;
        entry.used.store(self.uses, Ordering::Relaxed);
        self.bytes += entry.len;
        let here = self.entries.entry(entry.url.clone()).or_default();
        let stays = |old: &Arc<Entry>| entry.varies && old.varies && Some(old.id) != instead_of;
        let mut gone: Vec<_> = here.extract_if(.., |old| !stays(old)).collect();
        while here.len() >= VARIANTS {
            let oldest = (0..here.len()).min_by_key(|i| here.get(*i).map(|e| e.used.load(Ordering::Relaxed)));
            gone.extend(oldest.map(|i| here.remove(i)));
        }
        here.push(entry);
        self.bytes -= gone.iter().map(|e| e.len).sum::<u64>();
        gone
    }

    /// Lets one answer go.
    pub(super) fn remove(&mut self, entry: &Entry) -> Option<Arc<Entry>> {
        let here = self.entries.get_mut(&entry.url)?;
        let gone = here.iter().position(|e| e.id == entry.id).map(|i| here.remove(i))?;
        if here.is_empty() {
            self.entries.remove(&entry.url);
        }
        self.bytes -= gone.len;
        Some(gone)
    }

    /// Promises `bytes` to a body that is coming; what must go for it, least recently used first, is gone from the index.
    pub(super) fn reserve(&mut self, bytes: u64, bound: u64) -> Result<Vec<Arc<Entry>>, TooLarge> {
        if self.reserved.saturating_add(bytes) > bound {
            return Err(TooLarge);
        }
        self.reserved += bytes;
        Ok(self.shrink(bound))
    }

    /// Takes a promise back, kept or not.
    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Lets go what exceeds the bound, and a little more, so that this is rare.
    fn shrink(&mut self, bound: u64) -> Vec<Arc<Entry>> {
        if self.bytes + self.reserved <= bound {
            return Vec::new();
        }
        let aim = (bound - bound / 32).saturating_sub(self.reserved);
        let mut all: Vec<_> =
            self.entries.values().flatten().map(|e| (e.used.load(Ordering::Relaxed), Arc::clone(e))).collect();
        all.sort_unstable_by_key(|(used, entry)| (*used, entry.id));
        let mut gone = Vec::new();
        for (_, entry) in all {
            if self.bytes <= aim {
                break;
            }
            gone.extend(self.remove(&entry));
        }
        gone
    }

    /// Bytes of bodies, kept and promised.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.reserved
    }

    /// How many answers are kept.
    pub(super) fn len(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn entry(id: u64, url: &str, len: u64, varies: bool) -> Arc<Entry> {
        Arc::new(Entry {
            id,
            url: url.into(),
            len,
            confirmed: Timestamp(0),
            age: 0,
            fresh_until: Timestamp(0),
            stale_until: Timestamp(0),
            varies,
            etag: None,
            last_modified: None,
            head: "".into(),
            used: AtomicU64::new(0),
        })
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut index = Index::default();
        for id in 0..4 {
            index.insert(entry(id, &format!("u{id}"), 10, false), None);
        }
        assert_eq!(index.find("u0").len(), 1);
        let gone: Vec<_> = index.reserve(25, 50).unwrap().iter().map(|e| e.id).collect();
        assert_eq!(gone, [1, 2], "u0 was used since");
        assert_eq!((index.bytes(), index.len()), (45, 2));
        assert_eq!(index.reserve(26, 50), Err(TooLarge));
        index.release(25);
        assert_eq!(index.bytes(), 20);
    }

    impl PartialEq for Entry {
        fn eq(&self, other: &Self) -> bool {
            self.id == other.id
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Find(u8),
        Insert { url: u8, len: u64, varies: bool, instead: bool },
        Remove(u8),
        Reserve(u64),
        Release,
    }

    fn op() -> impl Strategy<Value = Op> {
        let url = || 0_u8..6;
        prop_oneof![
            url().prop_map(Op::Find),
            (url(), 0_u64..40, any::<bool>(), any::<bool>()).prop_map(|(url, len, varies, instead)| Op::Insert {
                url,
                len,
                varies,
                instead
            }),
            url().prop_map(Op::Remove),
            (0_u64..120).prop_map(Op::Reserve),
            Just(Op::Release),
        ]
    }

    proptest! {
        /// Against a plain list in the order of use: the same answers are kept, the count of bytes is right, and the bound holds after each promise.
        #[test]
        fn random_histories_agree_with_a_list(ops in proptest::collection::vec(op(), 0..60)) {
            const BOUND: u64 = 100;
            let mut index = Index::default();
            // Oldest use first: (id, url, len, varies).
            let mut list: Vec<(u64, u8, u64, bool)> = Vec::new();
            let mut promises: Vec<u64> = Vec::new();
            for (id, op) in ops.into_iter().enumerate() {
                let id = id as u64;
                match op {
                    Op::Find(url) => {
                        let found: BTreeSet<_> = index.find(&url.to_string()).iter().map(|e| e.id).collect();
                        let listed: BTreeSet<_> = list.iter().filter(|e| e.1 == url).map(|e| e.0).collect();
                        prop_assert_eq!(found, listed);
                        list.sort_by_key(|e| e.1 == url);
                        // Answers found together were used together; among those the older goes first.
                        let at = list.iter().position(|e| e.1 == url).unwrap_or(list.len());
                        list[at..].sort_by_key(|e| e.0);
                    }
                    Op::Insert { url, len, varies, instead } => {
                        let old = list.iter().rfind(|e| e.1 == url).map(|e| e.0).filter(|_| instead);
                        let gone: BTreeSet<_> = index.insert(entry(id, &url.to_string(), len, varies), old).iter().map(|e| e.id).collect();
                        let before: BTreeMap<_, _> = list.iter().map(|e| (e.0, *e)).collect();
                        list.retain(|e| e.1 != url || varies && e.3 && Some(e.0) != old);
                        while list.iter().filter(|e| e.1 == url).count() >= VARIANTS {
                            let oldest = list.iter().position(|e| e.1 == url).unwrap();
                            list.remove(oldest);
                        }
                        let stays: BTreeSet<_> = list.iter().map(|e| e.0).collect();
                        prop_assert_eq!(gone, before.keys().filter(|k| !stays.contains(k)).copied().collect());
                        list.push((id, url, len, varies));
                    }
                    Op::Remove(url) => {
                        if let Some(at) = list.iter().position(|e| e.1 == url) {
                            let (id, ..) = list.remove(at);
                            prop_assert!(index.remove(&entry(id, &url.to_string(), 0, false)).is_some());
                            prop_assert!(index.remove(&entry(id, &url.to_string(), 0, false)).is_none());
                        }
                    }
                    Op::Reserve(bytes) => {
                        let promised: u64 = promises.iter().sum();
                        match index.reserve(bytes, BOUND) {
                            Err(TooLarge) => prop_assert!(promised + bytes > BOUND),
                            Ok(gone) => {
                                promises.push(bytes);
                                let gone: Vec<_> = gone.iter().map(|e| e.id).collect();
                                let oldest: Vec<_> = list.iter().take(gone.len()).map(|e| e.0).collect();
                                prop_assert_eq!(&gone, &oldest, "the least recently used go, in order");
                                list.drain(..gone.len());
                                prop_assert!(index.bytes() <= BOUND);
                            }
                        }
                    }
                    Op::Release => index.release(promises.pop().unwrap_or(0)),
                }
                let kept: u64 = list.iter().map(|e| e.2).sum();
                prop_assert_eq!(index.bytes(), kept + promises.iter().sum::<u64>());
                prop_assert_eq!(index.len(), list.len());
            }
        }
    }
}
