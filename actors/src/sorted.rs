//! A sorted map whose copies share what did not change: a table of thousands is cloned per step, or per snapshot, for the price of a few pointers.
//! Knows nothing of what it holds: leases in the rack's subnets, tickets and reservations in the rack's plan.

use std::{borrow::Borrow, sync::Arc};

/// Entries per chunk before it is split: small enough to copy, large enough to keep the spine short.
const CHUNK: usize = 128;

/// A map from `K` to `V` in the order of `K`. Cloning it copies one pointer per 64 to 128 entries; a change copies one chunk, once per clone.
#[derive(Debug, Clone)]
pub struct Sorted<K, V> {
    chunks: Vec<Arc<Vec<(K, V)>>>,
    len: usize,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> Sorted<K, V> {
    /// How many entries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk that holds `key` or would.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|c| c.first().is_some_and(|(first, _)| first.borrow() <= key));
        after.saturating_sub(1)
    }

    /// The value of that key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let i = chunk.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        chunk.get(i).map(|(_, v)| v)
    }

    /// The value of that key, to be changed in place.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let shared = self.chunks.get_mut(at)?;
        let i = shared.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        Arc::make_mut(shared).get_mut(i).map(|(_, v)| v)
    }

    /// Whether it has that key.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts the entry; the one it replaces is returned.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk_of(&key);
        let Some(shared) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(shared);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(i) => chunk.get_mut(i).map(|entry| std::mem::replace(&mut entry.1, value)),
            Err(i) => {
                chunk.insert(i, (key, value));
                self.len += 1;
                if chunk.len() > CHUNK {
                    let rest = chunk.split_off(CHUNK / 2);
                    self.chunks.insert(at + 1, Arc::new(rest));
                }
                None
            }
        }
    }

    /// Takes the entry out; what it was is returned.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let shared = self.chunks.get_mut(at)?;
        let i = shared.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let (_, value) = Arc::make_mut(shared).remove(i);
        self.len -= 1;
        if shared.is_empty() {
            self.chunks.remove(at);
        }
        Some(value)
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.chunks.iter().flat_map(|c| c.iter())
    }

    /// The entries in order, from the first whose key is `from` or above.
    pub fn iter_from<'a>(&'a self, from: &K) -> impl Iterator<Item = &'a (K, V)> + use<'a, K, V> {
        let at = self.chunk_of(from);
        let within = self.chunks.get(at).map_or(0, |c| c.partition_point(|(key, _)| key < from));
        let rest = self.chunks.get(at..).unwrap_or_default();
        rest.iter().flat_map(|c| c.iter()).skip(within)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put in and taken out, it equals the standard map, and older copies keep what they had.
        #[test]
        fn it_is_a_map_and_its_copies_do_not_change(ops in prop::collection::vec((any::<bool>(), 0_u16..400, any::<u8>()), 0..800)) {
            let (mut ours, mut theirs) = (Sorted::default(), BTreeMap::new());
            let mut kept = Vec::new();
            for (i, (put, key, value)) in ops.into_iter().enumerate() {
                if put {
                    prop_assert_eq!(ours.insert(key, value), theirs.insert(key, value));
                } else {
                    prop_assert_eq!(ours.remove(&key), theirs.remove(&key));
                }
                prop_assert_eq!(ours.get(&key), theirs.get(&key));
                prop_assert_eq!(ours.len(), theirs.len());
                if i % 100 == 0 {
                    kept.push((ours.clone(), theirs.clone()));
                }
            }
            kept.push((ours, theirs));
            for (ours, theirs) in kept {
                for from in [0, 7, 200, 399, 500] {
                    prop_assert!(ours.iter_from(&from).map(|(k, v)| (k, v)).eq(theirs.range(from..)));
                }
                prop_assert!(ours.iter().map(|(k, v)| (k, v)).eq(theirs.iter()));
            }
        }
    }
}
