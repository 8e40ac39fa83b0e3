//! One namespace of the embedded store: its entries, their order of use, of birth and of expiry,
//! and its numbers, all under one lock so that they agree at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::clock::{Moment, unix_micros};
use crate::model::{Entry, EntryKey, EntryKeyHasher, Selection, Tags, UnixMillis, Version, Write};
use crate::store::{Outcome, Reads, Stored, Totals};

/// What one entry costs beyond key and value: its nodes in the map and the three orders.
const OVERHEAD_BYTES: u64 = 320;

/// The memory that an entry is charged for, in bytes.
pub fn cost(key: &EntryKey, write: &Write) -> u64 {
    (key.text().len() + write.value.len() + write.tags.joined().len()) as u64 + OVERHEAD_BYTES
}

/// What an operation took out of the space, for the books of the whole store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removed {
    pub entries: u64,
    pub cost: u64,
}

/// One bounded step of a flush.
pub struct FlushBatch {
    pub deleted: u64,
    pub removed: Removed,
    /// Where the next step begins; `None` at the end.
    pub next: Option<u64>,
}

/// The entries of one namespace.
#[derive(Default)]
pub struct Space {
    inner: Mutex<Inner>,
    /// Copy of `inner.cost`, readable without the lock.
    cost: AtomicU64,
}

struct Inner {
    /// By recency of use.
    entries: LruCache<EntryKey, Item, EntryKeyHasher>,
    /// By birth: a key keeps its number while it lives, so listings have a stable order.
    births: BTreeMap<u64, EntryKey>,
    /// By expiry, of the entries that expire.
    expiries: BTreeSet<(Moment, u64)>,
    next_birth: u64,
    last_version: u64,
    cost: u64,
    totals: Totals,
}

struct Item {
    value: Bytes,
    version: Version,
    created_at: UnixMillis,
    expires_at: Option<Moment>,
    tags: Tags,
    birth: u64,
    cost: u64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            entries: LruCache::unbounded_with_hasher(EntryKeyHasher::default()),
            births: BTreeMap::new(),
            expiries: BTreeSet::new(),
            next_birth: 1,
            last_version: 0,
            cost: 0,
            totals: Totals::default(),
        }
    }
}

impl Item {
    fn is_expired(&self, now: Moment) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    fn is_selected(&self, key: &EntryKey, selection: &Selection) -> bool {
        match selection {
            Selection::All => true,
            Selection::Matching(pattern) => pattern.matches(key.key()),
            Selection::Tagged(tag) => self.tags.contains(tag),
        }
    }
}

impl Inner {
    /// Takes an entry out of every book; the caller counts why.
    fn remove(&mut self, key: &EntryKey) -> Removed {
        let Some(item) = self.entries.pop(key) else { return Removed::default() };
        self.births.remove(&item.birth);
        if let Some(expires_at) = item.expires_at {
            self.expiries.remove(&(expires_at, item.birth));
        }
        self.cost -= item.cost;
        self.totals.keys -= 1;
        self.totals.bytes -= item.value.len() as u64;
        Removed { entries: 1, cost: item.cost }
    }

    fn remove_expired(&mut self, key: &EntryKey) -> Removed {
        self.totals.expirations += 1;
        self.remove(key)
    }

    fn next_version(&mut self, now_micros: u64) -> Version {
        self.last_version = now_micros.max(self.last_version + 1);
        Version(self.last_version)
    }
}

impl Removed {
    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.cost += other.cost;
    }
}

impl Space {
    /// Bytes charged for all entries.
    pub fn cost(&self) -> u64 {
        self.cost.load(Relaxed)
    }

    /// Runs `change` under the lock and keeps the readable copy of the cost true.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock();
        let result = change(&mut inner);
        self.cost.store(inner.cost, Relaxed);
        result
    }

    pub fn get(&self, key: &EntryKey) -> (Option<Entry>, Removed) {
        let now = Moment::now();
        self.change(|inner| {
            let Some(item) = inner.entries.get(key) else { return (None, Removed::default()) };
            if item.is_expired(now) {
                return (None, inner.remove_expired(key));
            }
            let entry = Entry {
                value: item.value.clone(),
                version: item.version,
                created_at: item.created_at,
                expires_in: item.expires_at.map(|expires_at| expires_at.since(now)),
            };
            (Some(entry), Removed::default())
        })
    }

    /// Stores an entry whose cost the caller has added already; answers what it replaced.
    pub fn set(&self, key: &EntryKey, write: Write) -> (Stored, Removed) {
        let (now, now_micros) = (Moment::now(), unix_micros());
        let cost = cost(key, &write);
        // A value that is a slice of a request would keep the whole request alive.
        let value = Bytes::copy_from_slice(&write.value);
        self.change(|inner| {
            let previous = inner.entries.peek(key).map(|item| (item.birth, item.is_expired(now)));
            let (removed, outcome, birth) = match previous {
                Some((birth, false)) => (inner.remove(key), Outcome::Replaced, birth),
                Some((_, true)) => (inner.remove_expired(key), Outcome::Created, inner.next_birth),
                None => (Removed::default(), Outcome::Created, inner.next_birth),
            };
            inner.next_birth = inner.next_birth.max(birth + 1);
            let version = inner.next_version(now_micros);
            let expires_at = write.ttl.map(|ttl| now + ttl.as_duration());
            inner.births.insert(birth, key.clone());
            if let Some(expires_at) = expires_at {
                inner.expiries.insert((expires_at, birth));
            }
            inner.cost += cost;
            inner.totals.keys += 1;
            inner.totals.bytes += value.len() as u64;
            let created_at = UnixMillis(now_micros / 1000);
            let item = Item { value, version, created_at, expires_at, tags: write.tags, birth, cost };
            inner.entries.put(key.clone(), item);
            (Stored { outcome, version }, removed)
        })
    }

    /// Deletes an entry and tells whether it was alive.
    pub fn delete(&self, key: &EntryKey) -> (bool, Removed) {
        let now = Moment::now();
        self.change(|inner| match inner.entries.peek(key).map(|item| item.is_expired(now)) {
            None => (false, Removed::default()),
            Some(true) => (false, inner.remove_expired(key)),
            Some(false) => (true, inner.remove(key)),
        })
    }

    /// Evicts the least recently used entries until `bytes` of cost are free.
    pub fn evict(&self, bytes: u64) -> Removed {
        let now = Moment::now();
        self.change(|inner| {
            let mut removed = Removed::default();
            while removed.cost < bytes {
                let oldest = inner.entries.peek_lru().map(|(key, item)| (key.clone(), item.is_expired(now)));
                let Some((key, is_expired)) = oldest else { break };
                if is_expired {
                    removed.add(inner.remove_expired(&key));
                } else {
                    removed.add(inner.remove(&key));
                    inner.totals.evictions += 1;
                }
            }
            removed
        })
    }

    /// Takes up to `limit` expired entries out.
    pub fn sweep(&self, limit: usize) -> Removed {
        let now = Moment::now();
        self.change(|inner| {
            let mut removed = Removed::default();
            while removed.entries < limit as u64 {
                let Some(&(expires_at, birth)) = inner.expiries.first() else { break };
                if expires_at > now {
                    break;
                }
                let key = inner.births[&birth].clone();
                removed.add(inner.remove_expired(&key));
            }
            removed
        })
    }

    /// Number of the latest write.
    pub fn last_version(&self) -> Version {
        Version(self.inner.lock().last_version)
    }

    /// Looks at up to `limit` entries born from `from` on and deletes those that are selected and
    /// were not written after `before`.
    pub fn flush(&self, selection: &Selection, from: u64, before: Version, limit: usize) -> FlushBatch {
        let now = Moment::now();
        self.change(|inner| {
            let looked_at: Vec<(u64, EntryKey)> =
                inner.births.range(from..).take(limit).map(|(birth, key)| (*birth, key.clone())).collect();
            let next = (looked_at.len() == limit).then(|| looked_at[limit - 1].0 + 1);
            let mut batch = FlushBatch { deleted: 0, removed: Removed::default(), next };
            for (_, key) in looked_at {
                let item = inner.entries.peek(&key).expect("every birth has its entry");
                if item.version > before || !item.is_selected(&key, selection) {
                    continue;
                }
                if item.is_expired(now) {
                    batch.removed.add(inner.remove_expired(&key));
                } else {
                    batch.removed.add(inner.remove(&key));
                    batch.deleted += 1;
                }
            }
            batch
        })
    }

    /// Up to `limit` live selected keys born behind `after`, looking at up to `looks` entries;
    /// and the birth to go on behind, `None` at the end.
    pub fn list(&self, selection: &Selection, after: u64, limit: usize, looks: usize) -> (Vec<String>, Option<u64>) {
        let now = Moment::now();
        let inner = self.inner.lock();
        let mut keys = Vec::new();
        let mut last = None;
        for (birth, key) in inner.births.range((Bound::Excluded(after), Bound::Unbounded)).take(looks) {
            if keys.len() == limit {
                break;
            }
            last = Some(*birth);
            let item = inner.entries.peek(key).expect("every birth has its entry");
            if !item.is_expired(now) && item.is_selected(key, selection) {
                keys.push(key.key().to_owned());
            }
        }
        let newest = inner.births.last_key_value().map(|(birth, _)| *birth);
        (keys, last.filter(|last| newest.is_some_and(|newest| *last < newest)))
    }

    pub fn totals(&self) -> Totals {
        self.inner.lock().totals
    }

    pub fn record_reads(&self, reads: Reads) {
        let totals = &mut self.inner.lock().totals;
        totals.hits += reads.hits;
        totals.misses += reads.misses;
    }

    /// Starts the counts anew, keeping what describes the entries.
    pub fn forget(&self) {
        let totals = &mut self.inner.lock().totals;
        *totals = Totals { keys: totals.keys, bytes: totals.bytes, ..Totals::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Namespace, Pattern};
    use crate::store::entry_key;

    fn key(i: usize) -> EntryKey {
        entry_key(&Namespace::parse("n").unwrap(), &format!("key_{i}")).unwrap()
    }

    fn filled(count: usize) -> Space {
        let space = Space::default();
        for i in 0..count {
            space.set(&key(i), Write { value: Bytes::from_static(b"1"), ttl: None, tags: Tags::default() });
        }
        space
    }

    #[test]
    fn a_listing_sees_every_key_that_lived_throughout_once() {
        let space = filled(25);
        let mut seen = Vec::new();
        let mut after = Some(0);
        while let Some(position) = after {
            let (keys, next) = space.list(&Selection::All, position, 10, 10);
            seen.extend(keys);
            after = next;
            // Overwriting keeps a key's place.
            space.set(&key(3), Write { value: Bytes::from_static(b"2"), ttl: None, tags: Tags::default() });
        }
        seen.sort();
        let mut expected: Vec<String> = (0..25).map(|i| format!("key_{i}")).collect();
        expected.sort();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_flush_spares_what_was_written_after_it_began() {
        let space = filled(5);
        let before = space.last_version();
        space.set(&key(2), Write { value: Bytes::from_static(b"2"), ttl: None, tags: Tags::default() });
        let pattern = Selection::Matching(Pattern::parse("key_*").unwrap());
        let batch = space.flush(&pattern, 0, before, 100);
        assert_eq!((batch.deleted, batch.next), (4, None));
        assert!(space.get(&key(2)).0.is_some());
    }

    #[test]
    fn versions_only_grow() {
        let space = filled(1);
        let first = space.last_version();
        space.delete(&key(0));
        let (stored, _) = space.set(&key(0), Write { value: Bytes::new(), ttl: None, tags: Tags::default() });
        assert!(stored.version > first);
    }
}
