//! The bookkeeping of one namespace of the embedded store: its entries, ordered by use, birth, expiry and eviction,
//! and its totals. Every change keeps all of these consistent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lru::LruCache;

use super::leases::Leases;
use super::tombstones::Tombstones;
use crate::clock::{Moment, unix_millis};
use crate::model::{
    Entry, EntryKey, EntryKeyHasher, EvictionPolicy, Extra, Quota, Selection, SourceVersion, Tags, UnixMillis,
    Version, charge,
};
use crate::store::Totals;

/// The memory of an entry in bytes, computed from the bytes that its namespace is charged for it. The name of the
/// namespace is stored with every key.
pub fn cost(key: &EntryKey, charged: u64) -> u64 {
    charged + key.namespace().len() as u64 + 1
}

/// The entries of a namespace. This type has no lock of its own.
pub struct Entries {
    /// By recency of use.
    pub(super) by_use: LruCache<EntryKey, Item, EntryKeyHasher>,
    /// By birth: a key keeps its number as long as it lives, so listings have a stable order.
    pub(super) births: BTreeMap<u64, EntryKey>,
    /// By the time at which they go, only entries that expire.
    pub(super) expiries: BTreeSet<(Moment, u64)>,
    /// In the order of `policy`, if that is neither by use nor by expiry. The first entry is evicted first.
    pub(super) ranks: BTreeSet<(Rank, u64)>,
    pub(super) policy: EvictionPolicy,
    pub(super) next_birth: u64,
    pub(super) next_use: u64,
    pub(super) last_version: u64,
    pub(super) cost: u64,
    pub(super) totals: Totals,
    pub(super) leases: Leases,
    pub(super) tombstones: Tombstones,
}

/// The order of eviction: the first number decides, then the second.
pub(super) type Rank = (u64, u64);

/// One entry.
pub struct Item {
    pub(super) value: Bytes,
    pub(super) version: Version,
    pub(super) created_at: UnixMillis,
    /// The end of its freshness.
    pub(super) expires_at: Option<Moment>,
    /// The end of its grace.
    pub(super) goes_at: Option<Moment>,
    pub(super) extra: Extra,
    pub(super) tags: Tags,
    pub(super) birth: u64,
    pub(super) access_count: u64,
    pub(super) last_accessed: UnixMillis,
    /// Number of the latest read or write.
    pub(super) last_use: u64,
    pub(super) source_version: Option<SourceVersion>,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            by_use: LruCache::unbounded_with_hasher(EntryKeyHasher::default()),
            births: BTreeMap::new(),
            expiries: BTreeSet::new(),
            ranks: BTreeSet::new(),
            policy: EvictionPolicy::default(),
            next_birth: 1,
            next_use: 0,
            last_version: 0,
            cost: 0,
            totals: Totals::default(),
            leases: Leases::default(),
            tombstones: Tombstones::default(),
        }
    }
}

impl Item {
    /// The bytes that the namespace is charged for this entry.
    pub(super) fn charged(&self, key: &EntryKey) -> u64 {
        charge(key.key().len(), self.tags.joined_len(), self.value.len())
    }

    pub(super) fn is_expired(&self, now: Moment) -> bool {
        self.goes_at.is_some_and(|goes_at| goes_at <= now)
    }

    pub(super) fn is_selected(&self, key: &EntryKey, selection: &Selection) -> bool {
        match selection {
            Selection::Tagged(tag) => self.tags.contains(tag),
            Selection::All | Selection::Matching(_) => selection.matches(key.key()),
        }
    }

    /// Its position in `ranks`; `None` if the policy uses another order.
    pub(super) fn rank(&self, policy: EvictionPolicy) -> Option<(Rank, u64)> {
        match policy {
            EvictionPolicy::Lfu => Some(((self.access_count, self.last_use), self.birth)),
            EvictionPolicy::Fifo => Some(((self.version.0, 0), self.birth)),
            EvictionPolicy::Lru | EvictionPolicy::Ttl | EvictionPolicy::None => None,
        }
    }

    pub(super) fn entry(&self, now: Moment) -> Entry {
        Entry {
            value: self.value.clone(),
            version: self.version,
            created_at: self.created_at,
            expires_in: self.expires_at.map(|expires_at| expires_at.since(now)),
            overdue: self.expires_at.filter(|expires_at| *expires_at <= now).map(|expires_at| now.since(expires_at)),
            extra: self.extra,
        }
    }
}

impl Entries {
    /// Removes an entry from all orders and totals. The caller counts the reason.
    pub(super) fn remove(&mut self, key: &EntryKey) {
        let Some(item) = self.by_use.pop(key) else { return };
        self.births.remove(&item.birth);
        if let Some(rank) = item.rank(self.policy) {
            self.ranks.remove(&rank);
        }
        if let Some(goes_at) = item.goes_at {
            self.expiries.remove(&(goes_at, item.birth));
        }
        let charged = item.charged(key);
        self.cost -= cost(key, charged);
        self.totals.keys -= 1;
        self.totals.bytes -= item.value.len() as u64;
        self.totals.charged -= charged;
    }

    pub(super) fn remove_expired(&mut self, key: &EntryKey) {
        self.totals.expirations += 1;
        self.remove(key);
    }

    /// Removes one expired entry; returns whether there was one.
    pub(super) fn remove_an_expired(&mut self, now: Moment) -> bool {
        let Some((_, birth)) = self.expiries.first().filter(|(goes_at, _)| *goes_at <= now) else {
            return false;
        };
        let key = self.births[birth].clone();
        self.remove_expired(&key);
        true
    }

    /// Orders the entries by `policy`. A change of policy costs a pass over all entries.
    pub(super) fn order_by(&mut self, policy: EvictionPolicy) {
        if self.policy != policy {
            self.policy = policy;
            self.ranks = self.by_use.iter().filter_map(|(_, item)| item.rank(policy)).collect();
        }
    }

    /// Evicts the next entry by the policy, but not `spared`; returns whether there was one. When the store's memory is
    /// full, policy `NONE` evicts in the order of `LRU`.
    pub(super) fn evict_one(&mut self, spared: Option<&EntryKey>) -> bool {
        let may_go = |key: &&EntryKey| Some(*key) != spared;
        let mut by_use = self.by_use.iter().rev().map(|(key, _)| key);
        let victim = match self.policy {
            EvictionPolicy::Lru | EvictionPolicy::None => by_use.find(may_go),
            EvictionPolicy::Lfu | EvictionPolicy::Fifo => {
                self.ranks.iter().map(|(_, birth)| &self.births[birth]).find(may_go)
            }
            EvictionPolicy::Ttl => {
                let mut by_expiry = self.expiries.iter().map(|(_, birth)| &self.births[birth]);
                by_expiry.find(may_go).or_else(|| by_use.find(may_go))
            }
        };
        let Some(victim) = victim.cloned() else { return false };
        self.totals.evictions += 1;
        self.remove(&victim);
        true
    }

    /// Makes room for an entry under `key` that is charged `charged` bytes. Removes expired entries first. Returns
    /// false when there is no room. An entry that would be alone in the namespace always fits.
    pub(super) fn make_room(&mut self, key: &EntryKey, charged: u64, quota: Quota, now: Moment) -> bool {
        let Some(limit) = quota.max_bytes else { return true };
        let own = self.by_use.peek(key).map_or(0, |item| item.charged(key));
        loop {
            let others = self.totals.charged - own;
            if others == 0 || others + charged <= limit.get() {
                return true;
            }
            let is_evictable = quota.eviction_policy != EvictionPolicy::None;
            let has_removed = self.remove_an_expired(now) || (is_evictable && self.evict_one(Some(key)));
            if !has_removed {
                return false;
            }
        }
    }

    /// Whether `key` has an entry that has not expired. Removes an expired one.
    pub(super) fn is_live(&mut self, key: &EntryKey, now: Moment) -> bool {
        match self.by_use.peek(key) {
            Some(item) if item.is_expired(now) => {
                self.remove_expired(key);
                false
            }
            item => item.is_some(),
        }
    }

    /// The version of the entry under `key`; `None` if there is none, or only a known absence. An expired entry must be
    /// removed before.
    pub(super) fn present(&self, key: &EntryKey) -> Option<Version> {
        self.by_use.peek(key).filter(|item| item.extra.is_present()).map(|item| item.version)
    }

    /// The live entry under `key`; counts as a use now. Returns `None` and does nothing if the value has more than
    /// `most` bytes.
    pub(super) fn access(&mut self, key: &EntryKey, now: Moment, most: usize) -> Option<Option<&Item>> {
        match self.by_use.peek(key) {
            None => return Some(None),
            Some(item) if item.is_expired(now) => {
                self.remove_expired(key);
                return Some(None);
            }
            Some(item) if item.value.len() > most => return None,
            Some(_) => {}
        }
        let item = self.by_use.get_mut(key).expect("it is there");
        let before = item.rank(self.policy);
        item.access_count += 1;
        item.last_accessed = unix_millis();
        item.last_use = self.next_use;
        self.next_use += 1;
        if let (Some(before), Some(after)) = (before, item.rank(self.policy))
            && before != after
        {
            self.ranks.remove(&before);
            self.ranks.insert(after);
        }
        Some(Some(item))
    }

    /// The memory of all entries and tombstones in bytes.
    pub(super) fn whole_cost(&self) -> u64 {
        self.cost + self.tombstones.cost()
    }

    /// The source version of the present entry, or in the tombstone of a deleted one.
    pub(super) fn source_version(&self, key: &EntryKey, now: Moment) -> Option<SourceVersion> {
        match self.by_use.peek(key) {
            Some(item) => item.source_version,
            None => self.tombstones.version(key, now),
        }
    }

    /// Removes a live entry. Its source version stays as a tombstone until `ends`.
    pub(super) fn bury(&mut self, key: &EntryKey, ends: Moment, now: Moment) {
        let left = self.by_use.peek(key).and_then(|item| item.source_version);
        self.remove(key);
        if let Some(left) = left {
            self.tombstones.bury(key, left, ends, now);
        }
    }

    pub(super) fn next_version(&mut self, now_micros: u64) -> Version {
        self.last_version = now_micros.max(self.last_version + 1);
        Version(self.last_version)
    }
}
