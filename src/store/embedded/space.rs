//! One namespace of the embedded store: its [`Entries`] behind one lock, so that entries and totals always agree.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::entries::{Entries, Item, cost};
use super::leases::LeaseState;
use crate::clock::{Moment, unix_micros};
use crate::model::{
    Details, Entry, EntryKey, EvictionPolicy, Position, Preconditions, Quota, Selection, UnixMillis, Version, Write,
    charge,
};
use crate::store::{Error, Outcome, Reads, Removal, Stored, Totals};

/// The most expired entries that are counted for the totals.
const MAX_COUNTED: usize = 100_000;

/// The bytes that the namespace is charged for an entry.
pub fn charged(key: &EntryKey, write: &Write) -> u64 {
    charge(key.key().len(), write.tags.joined_len(), write.value.len())
}

/// The entries of one namespace.
#[derive(Default)]
pub struct Space {
    inner: Mutex<Entries>,
    /// Copy of the cost in `inner`, readable without the lock.
    cost: AtomicU64,
    /// Sum of the costs of all namespaces of the store.
    used: Arc<AtomicU64>,
}

impl Space {
    /// An empty namespace. Its cost is added to `used`.
    pub fn new(used: Arc<AtomicU64>) -> Self {
        Self { used, ..Self::default() }
    }

    /// The memory of all entries and tombstones in bytes.
    pub fn cost(&self) -> u64 {
        self.cost.load(Relaxed)
    }

    /// Runs `change` under the lock and then updates the copy and the sum of the cost.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> T {
        let mut inner = self.inner.lock();
        let before = inner.whole_cost();
        let result = change(&mut inner);
        let cost = inner.whole_cost();
        if cost != before {
            self.cost.store(cost, Relaxed);
            // The addition wraps around, so this also subtracts.
            self.used.fetch_add(cost.wrapping_sub(before), Relaxed);
        }
        result
    }

    /// Reads an entry and counts the read. Returns `None` and counts nothing if the value has more than `most` bytes.
    pub fn get(&self, key: &EntryKey, most: usize) -> Option<Option<Entry>> {
        let now = Moment::now();
        self.change(|inner| Some(inner.access(key, now, most)?.map(|item| item.entry(now))))
    }

    /// Reads an entry without counting the read.
    pub fn peek(&self, key: &EntryKey) -> Option<Entry> {
        let now = Moment::now();
        let inner = self.inner.lock();
        inner.by_use.peek(key).filter(|item| !item.is_expired(now)).map(|item| item.entry(now))
    }

    /// Reads an entry with its details. The details do not include this read.
    pub fn describe(&self, key: &EntryKey) -> Option<(Entry, Details)> {
        let now = Moment::now();
        self.change(|inner| {
            let details = inner.by_use.peek(key).map(|item| Details {
                last_accessed: item.last_accessed,
                access_count: item.access_count,
                tags: item.tags.clone(),
                source_version: item.source_version,
            });
            inner.access(key, now, usize::MAX)?.map(|item| item.entry(now)).zip(details)
        })
    }

    /// Stores an entry.
    ///
    /// # Errors
    /// The quota has no room, a precondition is not met, or the lease is lost.
    pub fn set(&self, key: &EntryKey, write: Write, quota: Quota) -> Result<Stored, Error> {
        let (now, now_micros) = (Moment::now(), unix_micros());
        let (charged, fills_lease) = (charged(key, &write), write.fills_lease());
        let source_version = write.preconditions.as_ref().and_then(|preconditions| preconditions.source_version);
        // A value that is a slice of a request would keep the whole request in memory.
        let value = Bytes::copy_from_slice(&write.value);
        self.change(|inner| {
            inner.order_by(quota.eviction_policy);
            inner.is_live(key, now);
            if let Some(stored) = check(inner, key, write.preconditions.as_deref(), now)? {
                return Ok(stored);
            }
            if !inner.make_room(key, charged, quota, now) {
                return Err(Error::QuotaUsedUp);
            }
            let created_at = UnixMillis(now_micros / 1000);
            let previous = inner.by_use.peek(key).map(|item| (item.birth, item.access_count, item.last_accessed));
            let (birth, access_count, last_accessed) = previous.unwrap_or((inner.next_birth, 0, created_at));
            // What is written over a known absence is new.
            let outcome = inner.present(key).map_or(Outcome::Created, |_| Outcome::Replaced);
            inner.remove(key);
            inner.tombstones.remove(key);
            inner.next_birth = inner.next_birth.max(birth + 1);
            let version = inner.next_version(now_micros);
            let extra = write.extra();
            let expires_at = write.ttl.map(|ttl| now + ttl.as_duration());
            let goes_at = expires_at.map(|expires_at| expires_at + extra.grace());
            let last_use = inner.next_use;
            inner.next_use += 1;
            inner.births.insert(birth, key.clone());
            if let Some(goes_at) = goes_at {
                inner.expiries.insert((goes_at, birth));
            }
            inner.cost += cost(key, charged);
            inner.totals.keys += 1;
            inner.totals.bytes += value.len() as u64;
            inner.totals.charged += charged;
            let tags = write.tags;
            let item = Item {
                value,
                version,
                created_at,
                expires_at,
                goes_at,
                extra,
                tags,
                birth,
                access_count,
                last_accessed,
                last_use,
                source_version,
            };
            inner.ranks.extend(item.rank(inner.policy));
            inner.by_use.put(key.clone(), item);
            // The store counts the change.
            let stored = Stored { outcome, version, position: Position::default() };
            match fills_lease {
                true => inner.leases.fill(key, stored),
                false => inner.leases.end(key),
            }
            Ok(stored)
        })
    }

    /// Deletes an entry; returns whether there was one, not counting a known absence. Its source version, or the one in
    /// `preconditions`, stays as a tombstone for `tombstone_ttl`.
    ///
    /// # Errors
    /// A precondition is not met.
    pub fn delete(
        &self,
        key: &EntryKey,
        preconditions: Option<&Preconditions>,
        tombstone_ttl: Duration,
    ) -> Result<bool, Error> {
        let now = Moment::now();
        self.change(|inner| {
            inner.is_live(key, now);
            check(inner, key, preconditions, now)?;
            let was_present = inner.present(key).is_some();
            inner.leases.end(key);
            inner.bury(key, now + tombstone_ttl, now);
            if let Some(version) = preconditions.and_then(|preconditions| preconditions.source_version) {
                inner.tombstones.bury(key, version, now + tombstone_ttl, now);
            }
            Ok(was_present)
        })
    }

    /// Evicts entries, and then tombstones, until `bytes` of cost are free; returns whether there was anything to
    /// remove. Evicts `spared` last.
    pub fn evict(&self, bytes: u64, spared: &EntryKey) -> bool {
        let now = Moment::now();
        self.change(|inner| {
            let before = inner.whole_cost();
            while before - inner.whole_cost() < bytes
                && (inner.remove_an_expired(now)
                    || inner.evict_one(Some(spared))
                    || inner.tombstones.drop_first()
                    || inner.evict_one(None))
            {}
            inner.whole_cost() < before
        })
    }

    /// Removes up to `limit` tombstones and entries: those that have expired, and entries that are evicted because the
    /// namespace is over `quota`. Without a quota only what has expired is removed. Returns how many were removed.
    pub fn sweep(&self, limit: usize, quota: Option<Quota>) -> usize {
        let now = Moment::now();
        self.change(|inner| {
            if let Some(quota) = quota {
                inner.order_by(quota.eviction_policy);
            }
            let most_bytes = quota.filter(|quota| quota.eviction_policy != EvictionPolicy::None);
            let most_bytes = most_bytes.and_then(|quota| quota.max_bytes);
            let mut removed = inner.tombstones.prune(limit, now);
            while removed < limit {
                let is_over =
                    inner.totals.keys > 1 && most_bytes.is_some_and(|most| inner.totals.charged > most.get());
                let has_removed = inner.remove_an_expired(now) || (is_over && inner.evict_one(None));
                if !has_removed {
                    break;
                }
                removed += 1;
            }
            removed
        })
    }

    /// The version of the latest write.
    pub fn last_version(&self) -> Version {
        Version(self.inner.lock().last_version)
    }

    /// Looks at up to `limit` entries whose birth is `from` or later. Deletes or marks those that are selected and were
    /// not written after `before`; the source versions of deleted entries stay. Returns how many live entries were
    /// deleted or marked, and the birth at which the next step begins, `None` at the end.
    pub fn flush(
        &self,
        selection: &Selection,
        from: u64,
        before: Version,
        limit: usize,
        removal: Removal,
    ) -> (u64, Option<u64>) {
        let now = Moment::now();
        self.change(|inner| {
            let looked_at: Vec<(u64, EntryKey)> =
                inner.births.range(from..).take(limit).map(|(birth, key)| (*birth, key.clone())).collect();
            let next = (looked_at.len() == limit).then(|| looked_at[limit - 1].0 + 1);
            let mut deleted = 0;
            for (_, key) in looked_at {
                let item = inner.by_use.peek(&key).expect("every birth has its entry");
                if item.version > before || !item.is_selected(&key, selection) {
                    continue;
                }
                deleted += u64::from(inner.is_live(&key, now));
                if !inner.mark(&key, removal.windows, now) {
                    inner.bury(&key, now + removal.tombstone_ttl, now);
                }
            }
            (deleted, next)
        })
    }

    /// Up to `limit` live selected keys with a birth greater than `after`; looks at up to `looks` entries. Also
    /// returns the birth to continue after, `None` at the end.
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
            let item = inner.by_use.peek(key).expect("every birth has its entry");
            if !item.is_expired(now) && item.is_selected(key, selection) {
                keys.push(key.key().to_owned());
            }
        }
        let newest = inner.births.last_key_value().map(|(birth, _)| *birth);
        (keys, last.filter(|last| newest.is_some_and(|newest| *last < newest)))
    }

    pub fn totals(&self) -> Totals {
        let inner = self.inner.lock();
        // Usually few, except shortly after very many entries expired at once.
        let expired = inner.expiries.range(..=(Moment::now(), u64::MAX)).take(MAX_COUNTED).count();
        Totals { unswept: expired as u64, ..inner.totals }
    }

    pub fn record_reads(&self, reads: Reads) {
        let totals = &mut self.inner.lock().totals;
        totals.hits += reads.hits;
        totals.misses += reads.misses;
    }

    /// Resets the counters, but keeps the totals that describe the entries. Removes the tombstones.
    pub fn forget(&self) {
        self.change(|inner| {
            let Totals { keys, bytes, charged, .. } = inner.totals;
            inner.totals = Totals { keys, bytes, charged, ..Totals::default() };
            inner.tombstones.clear();
        });
    }

    /// How many tombstones were given up before their time.
    pub fn tombstones_dropped(&self) -> u64 {
        self.inner.lock().tombstones.dropped()
    }
}

/// Checks the preconditions of a change; an expired entry must be removed before. Returns the answer if the change is
/// already done.
pub(super) fn check(
    entries: &Entries,
    key: &EntryKey,
    preconditions: Option<&Preconditions>,
    now: Moment,
) -> Result<Option<Stored>, Error> {
    let Some(preconditions) = preconditions else { return Ok(None) };
    match preconditions.lease.as_ref().map(|lease| entries.leases.state(key, lease, now)) {
        Some(LeaseState::Filled(stored)) => return Ok(Some(stored)),
        Some(LeaseState::Lost) => return Err(Error::LeaseLost),
        Some(LeaseState::Stands) | None => {}
    }
    let present = entries.present(key);
    if !preconditions.allow(present) {
        return Err(Error::PreconditionFailed { present });
    }
    let newest = entries.source_version(key, now);
    match preconditions.source_version {
        Some(version) if newest.is_some_and(|newest| newest > version) => Err(Error::NewerVersionExists { present }),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ENTRY_OVERHEAD, Namespace, Pattern, Tags, Ttl};
    use crate::store::entry_key;
    use std::num::NonZeroU64;

    fn key(i: usize) -> EntryKey {
        entry_key(&Namespace::parse("n").unwrap(), &format!("key_{i}")).unwrap()
    }

    fn write(value: &'static str) -> Write {
        Write { value: Bytes::from_static(value.as_bytes()), ..Write::default() }
    }

    fn set(space: &Space, i: usize) -> Stored {
        space.set(&key(i), write("1"), Quota::default()).unwrap()
    }

    fn get(space: &Space, i: usize) -> Option<Entry> {
        space.get(&key(i), usize::MAX).unwrap()
    }

    fn filled(count: usize) -> Space {
        let space = Space::default();
        for i in 0..count {
            set(&space, i);
        }
        space
    }

    #[test]
    fn a_listing_returns_every_key_that_exists_throughout_exactly_once() {
        let space = filled(25);
        let mut seen = Vec::new();
        let mut after = Some(0);
        while let Some(position) = after {
            let (keys, next) = space.list(&Selection::All, position, 10, 10);
            seen.extend(keys);
            after = next;
            // Overwriting a key does not change its position.
            set(&space, 3);
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
        set(&space, 2);
        let pattern = Selection::Matching(Pattern::parse("key_*").unwrap());
        assert_eq!(space.flush(&pattern, 0, before, 100, Removal::deletion(Duration::ZERO)), (4, None));
        assert!(get(&space, 2).is_some());
    }

    #[test]
    fn versions_only_grow() {
        let space = filled(1);
        let first = space.last_version();
        space.delete(&key(0), None, Duration::ZERO).unwrap();
        assert!(set(&space, 0).version > first);
    }

    /// Room for three of these entries.
    fn room_for_three(eviction_policy: EvictionPolicy) -> Quota {
        Quota { max_bytes: NonZeroU64::new(3 * charged(&key(0), &write("1"))), eviction_policy }
    }

    /// Fills a namespace with three entries, reads some of them, and returns which one a fourth entry evicts.
    fn pushed_out(eviction_policy: EvictionPolicy, ttls: [Option<u64>; 3], reads: &[usize]) -> Option<usize> {
        let (space, quota) = (Space::default(), room_for_three(eviction_policy));
        for (i, ttl) in ttls.into_iter().enumerate() {
            let ttl = ttl.map(|seconds| Ttl::from_seconds(seconds).unwrap());
            space.set(&key(i), Write { ttl, ..write("1") }, quota).unwrap();
        }
        for i in reads {
            get(&space, *i).unwrap();
        }
        let stored = space.set(&key(3), write("1"), quota);
        let totals = space.totals();
        assert_eq!((totals.keys, totals.bytes, totals.evictions), (3, 3, u64::from(stored.is_ok())));
        (0..3).find(|i| get(&space, *i).is_none())
    }

    #[test]
    fn each_policy_evicts_the_right_entry() {
        use EvictionPolicy as P;
        let never = [None; 3];
        assert_eq!(pushed_out(P::Lru, never, &[0, 2]), Some(1));
        assert_eq!(pushed_out(P::Lfu, never, &[0, 0, 1, 1, 2]), Some(2));
        assert_eq!(pushed_out(P::Lfu, never, &[0, 1, 2]), Some(0), "the least recently used of equals");
        assert_eq!(pushed_out(P::Fifo, never, &[0, 0]), Some(0));
        assert_eq!(pushed_out(P::Ttl, [Some(50), Some(40), None], &[1]), Some(1));
        assert_eq!(pushed_out(P::Ttl, never, &[0]), Some(1), "the least recently used when none expires");
        assert_eq!(pushed_out(P::None, never, &[]), None);
    }

    #[test]
    fn a_new_policy_also_orders_the_old_entries() {
        let (space, quota) = (filled(3), room_for_three(EvictionPolicy::Lru));
        for i in [1, 2, 2] {
            get(&space, i).unwrap();
        }
        let quota = Quota { eviction_policy: EvictionPolicy::Lfu, ..quota };
        space.set(&key(3), write("1"), quota).unwrap();
        assert!(get(&space, 0).is_none());
    }

    #[test]
    fn an_entry_as_large_as_the_quota_evicts_all_others() {
        let (space, quota) = (filled(3), room_for_three(EvictionPolicy::Lru));
        // Together with the overhead, exactly as large as the quota.
        let size = 1 + 2 * charged(&key(1), &write("1")) as usize;
        space.set(&key(1), Write { value: vec![b'1'; size].into(), ..write("") }, quota).unwrap();
        let totals = space.totals();
        assert_eq!((totals.keys, totals.bytes, totals.evictions), (1, size as u64, 2));
        assert_eq!(totals.charged, quota.max_bytes.unwrap().get());
    }

    #[test]
    fn a_quota_charges_key_tags_and_overhead_until_the_entry_is_removed() {
        let (space, tags) = (Space::default(), Tags::parse(vec!["one".into(), "two".into()]).unwrap());
        let tagged = Write { tags, ..write("1234") };
        space.set(&key(10), tagged, Quota::default()).unwrap();
        assert_eq!(space.totals().charged, 4 + "key_10".len() as u64 + "one\ntwo".len() as u64 + ENTRY_OVERHEAD);
        // A thousand values of one byte are charged far more than a thousand bytes.
        let quota = Quota { max_bytes: NonZeroU64::new(10_000), ..Quota::default() };
        for i in 0..1000 {
            space.set(&key(i), write("1"), quota).unwrap();
            assert!(space.totals().charged <= 10_000);
        }
        assert_eq!(space.totals().keys, 10_000 / charged(&key(999), &write("1")));
        space.flush(&Selection::All, 0, space.last_version(), 1000, Removal::deletion(Duration::ZERO));
        assert_eq!((space.totals().charged, space.cost()), (0, 0));
    }
}
