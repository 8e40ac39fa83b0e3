//! L1: copies of hot entries in this process, bounded in bytes. The least recently used copies are evicted first.
//!
//! **The fill fence.** A fill that began before an invalidation of its key was applied must not be stored after it.
//! This is the interleaving to prevent:
//!
//! 1. a reader misses here and reads v1 from the shard;
//! 2. a writer stores v2;
//! 3. the invalidation arrives and finds no copy to void;
//! 4. the late reader stores v1, which would then stay until it expires.
//!
//! So a reader takes a [`Fence`] before it asks the shard, every invalidation moves the fence of its key, and an
//! insert whose fence has moved is refused. The fence and the entries of a stripe are under one lock, so nothing can
//! happen between check and insert.
//!
//! **The order of versions.** Until the invalidation arrives, one running read may bring v1 and another v2, and v2
//! may be answered first. After that L1 must not answer v1 again:
//!
//! - an insert does not replace a copy with a higher version and the same stamp, or with a later stamp;
//! - a value that was read but cannot be kept leaves a *blank*, which has its version but no value;
//! - removing a copy or blank moves the fence, and so does a read that found no entry ([`L1::void`]).
//!
//! This folder does not decide whether a copy may be served: each copy has a [`Stamp`], which the caller checks (see
//! `coherence`).

mod copy;
mod lru;
mod node;
mod stripe;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;

use self::node::cost;
use self::stripe::Stripe;
use crate::clock::Moment;
use crate::model::{EntryKey, Extra, KeyRef};

pub use self::copy::{Copy, CopyRef, Stamp, Value};

/// Number of stripes, each with its own lock; a power of two.
const STRIPES: usize = 64;

/// A copy may use at most 1/8 of L1; a larger one would evict too many others.
const LARGEST_PART: u64 = 8;

/// The state of a key before a fill; see the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(u64);

/// The cache in front of the shards.
pub struct L1 {
    stripes: Box<[CacheAligned<Mutex<Stripe>>]>,
    sums: CacheAligned<Sums>,
    max_bytes: u64,
    is_fenced: bool,
}

/// Sums over all stripes.
#[derive(Default)]
struct Sums {
    used_bytes: AtomicU64,
    entries: AtomicU64,
}

/// On a cache line of its own, because other cores write to its neighbours.
#[derive(Default)]
#[repr(align(64))]
struct CacheAligned<T>(T);

impl L1 {
    /// An L1 that holds at most `max_bytes` of keys, values and bookkeeping; 0 turns it off.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| CacheAligned::default()).collect(),
            sums: CacheAligned::default(),
            max_bytes,
            is_fenced: true,
        }
    }

    /// Accepts every fill. Only for tests, which must notice the stale answers.
    #[must_use]
    pub fn without_fence(self) -> Self {
        Self { is_fenced: false, ..self }
    }

    /// Whether anything can be kept.
    pub fn is_on(&self) -> bool {
        self.max_bytes > 0
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub fn used_bytes(&self) -> u64 {
        self.sums.0.used_bytes.load(Relaxed)
    }

    pub fn entries(&self) -> u64 {
        self.sums.0.entries.load(Relaxed)
    }

    fn stripe_index(key: KeyRef<'_>) -> usize {
        // The low bits choose the bucket in the stripe's index, so the stripe is chosen by other bits.
        (key.map_hash() >> 32) as usize % STRIPES
    }

    fn stripe(&self, key: KeyRef<'_>) -> &Mutex<Stripe> {
        &self.stripes[Self::stripe_index(key)].0
    }

    /// Calls `look` with the copy of `key` if it is fresh, or may be stale while somebody refreshes the entry. It
    /// becomes the most recently used copy of its stripe.
    ///
    /// The stripe is locked during the call, so `look` may copy a small value but must not wait.
    pub fn with<R>(&self, key: KeyRef<'_>, now: Moment, look: impl FnOnce(CopyRef<'_>) -> R) -> Option<R> {
        let mut stripe = self.stripe(key).lock();
        let copy = stripe.get(key)?;
        if copy.is_blank() {
            return None;
        }
        if let Some(expires_at) = copy.expires_at.filter(|expires_at| *expires_at <= now)
            && expires_at + copy.extra.stale_while_revalidate() <= now
        {
            if copy.is_over(expires_at, now) {
                let freed = stripe.remove(key);
                self.forget(freed);
            }
            return None;
        }
        Some(look(copy))
    }

    /// Like [`L1::with`], but returns an owned copy.
    pub fn get(&self, key: &EntryKey, now: Moment) -> Option<Copy> {
        self.with(key.borrowed(), now, Copy::of)
    }

    /// The copy of `key`, even if it has expired; for use when the shard does not answer.
    pub fn get_stale(&self, key: &EntryKey) -> Option<Copy> {
        let key = key.borrowed();
        self.stripe(key).lock().get(key).filter(|copy| !copy.is_blank()).map(Copy::of)
    }

    /// The fence to take before asking the shard for `key`.
    pub fn fence(&self, key: &EntryKey) -> Fence {
        let key = key.borrowed();
        Fence(self.stripe(key).lock().generation(key))
    }

    /// Stores a copy unless its fence has moved or L1 has a newer one. Returns whether it was stored.
    pub fn insert(&self, key: &EntryKey, copy: Copy, fence: Fence) -> bool {
        if !self.is_on() {
            return false;
        }
        let key = key.borrowed();
        let cost_of = |copy: &Copy| cost(key.text().len(), copy.value.len());
        let is_too_large = cost_of(&copy) > self.max_bytes / LARGEST_PART;
        let mut stripe = self.stripe(key).lock();
        let mut kept = !is_too_large;
        if self.is_fenced {
            kept = kept && stripe.generation(key) == fence.0;
            let is_known = |there: CopyRef<'_>| {
                let is_the_same = there.stamp == copy.stamp && there.version == copy.version;
                copy.is_older_than(&there) || (is_the_same && !kept)
            };
            if stripe.peek(key).is_some_and(is_known) {
                return false;
            }
        }
        let copy = if kept { copy } else { Copy { value: Bytes::new(), extra: Extra::default(), ..copy } };
        let cost = cost_of(&copy);
        if cost > self.max_bytes / LARGEST_PART {
            let freed = stripe.remove(key);
            drop(stripe);
            self.forget(freed);
            return false;
        }
        let freed = stripe.insert(key, copy);
        self.sums.0.used_bytes.fetch_add(cost, Relaxed);
        self.sums.0.entries.fetch_add(1, Relaxed);
        self.forget(freed);
        // Keep the new copy itself: otherwise a stripe with few or large copies would keep nothing.
        while self.used_bytes() > self.max_bytes && stripe.len() > 1 {
            let freed = stripe.remove_least_recent();
            self.forget(freed);
        }
        drop(stripe);
        self.make_room(key);
        kept
    }

    /// Removes the copy of `key` and refuses every running fill of it.
    pub fn void(&self, key: &EntryKey) {
        let key = key.borrowed();
        let freed = self.stripe(key).lock().remove(key);
        self.forget(freed);
    }

    /// Removes all copies for whose key text `meant` returns true, and refuses every running fill. It visits every
    /// copy, so use it only when the keys are not known.
    pub fn void_where(&self, meant: impl Fn(&str) -> bool) {
        for stripe in &self.stripes {
            for freed in stripe.0.lock().remove_where(&meant) {
                self.forget(Some(freed));
            }
        }
    }

    /// If the stripe of `key` could not make enough room, evicts from the other stripes, starting with the next one,
    /// so that over time all stripes give up equally much.
    fn make_room(&self, key: KeyRef<'_>) {
        let own = Self::stripe_index(key);
        for i in 1..=STRIPES {
            if self.used_bytes() <= self.max_bytes {
                return;
            }
            let stripe = &self.stripes[(own + i) % STRIPES].0;
            while self.used_bytes() > self.max_bytes {
                let Some(freed) = stripe.lock().remove_least_recent() else { break };
                self.forget(Some(freed));
            }
        }
    }

    fn forget(&self, freed_bytes: Option<u64>) {
        if let Some(bytes) = freed_bytes {
            self.sums.0.used_bytes.fetch_sub(bytes, Relaxed);
            self.sums.0.entries.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::node::OVERHEAD_BYTES;
    use super::*;
    use crate::model::{Extra, Kind, Mark, UnixMillis, Version};
    use proptest::prelude::*;
    use std::time::Duration;

    fn key(i: usize) -> EntryKey {
        EntryKey::parse("n", &format!("key_{i}")).unwrap()
    }

    fn copy(bytes: usize) -> Copy {
        Copy {
            value: Bytes::from(vec![b'1'; bytes]),
            version: Version(1),
            created_at: UnixMillis(0),
            expires_at: None,
            stale_seconds: 0,
            extra: Extra::default(),
            stamp: Stamp { shard: 0, epoch: 0 },
        }
    }

    fn insert(l1: &L1, key: &EntryKey, copy: Copy) -> bool {
        l1.insert(key, copy, l1.fence(key))
    }

    #[test]
    fn a_copy_is_found_until_it_expires() {
        let (l1, now) = (L1::new(1 << 20), Moment::now());
        let expires_at = Some(now + Duration::from_secs(1));
        assert!(insert(&l1, &key(1), Copy { expires_at, ..copy(10) }));
        assert!(l1.get(&key(1), now).is_some());
        assert!(l1.get(&key(1), now + Duration::from_secs(1)).is_none());
        assert_eq!((l1.entries(), l1.used_bytes()), (0, 0));
    }

    #[test]
    fn an_expired_copy_is_kept_as_long_as_it_may_stand_in() {
        let (l1, now) = (L1::new(1 << 20), Moment::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(insert(&l1, &key(1), Copy { expires_at: Some(later(1)), stale_seconds: 10, ..copy(10) }));
        assert!(l1.get(&key(1), later(1)).is_none(), "expired");
        assert!(l1.get_stale(&key(1)).is_some());
        assert!(l1.get(&key(1), later(10)).is_none() && l1.entries() == 1);
        assert!(l1.get(&key(1), later(11)).is_none() && l1.entries() == 0, "too old even for a stale answer");
        assert!(l1.get_stale(&key(1)).is_none());
        // A voided copy cannot be served stale either.
        assert!(insert(&l1, &key(1), Copy { expires_at: Some(now), stale_seconds: 10, ..copy(10) }));
        l1.void(&key(1));
        assert!(l1.get_stale(&key(1)).is_none());
    }

    #[test]
    fn a_copy_is_found_during_its_grace_unless_it_is_kept_for_errors() {
        let (l1, now) = (L1::new(1 << 20), Moment::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        let grace = |mark| Extra::new(Kind::Json, mark, Duration::from_secs(10));
        let with = |extra| Copy { expires_at: Some(later(1)), extra, ..copy(10) };
        for mark in [Mark::Unmarked, Mark::WhileRevalidating] {
            assert!(insert(&l1, &key(1), with(grace(mark))));
            let found = l1.get(&key(1), later(3)).unwrap();
            assert_eq!((found.extra.mark, found.overdue(later(3))), (mark, Some(Duration::from_secs(2))));
            assert!(l1.get(&key(1), later(11)).is_none() && l1.entries() == 0, "gone");
        }
        assert!(insert(&l1, &key(1), with(grace(Mark::IfError))));
        assert!(l1.get(&key(1), later(3)).is_none() && l1.get_stale(&key(1)).is_some());
    }

    #[test]
    fn a_copy_stays_small() {
        assert_eq!(size_of::<Copy>(), 104);
    }

    #[test]
    fn a_fill_that_began_before_an_invalidation_does_not_land() {
        let l1 = L1::new(1 << 20);
        let fence = l1.fence(&key(1));
        l1.void(&key(1));
        assert!(!l1.insert(&key(1), copy(10), fence));
        assert!(l1.get(&key(1), Moment::now()).is_none());
        let fence = l1.fence(&key(1));
        l1.void_where(|_| false);
        assert!(!l1.insert(&key(1), copy(10), fence));
    }

    /// A copy of this version; its length shows which one it is.
    fn version(number: u64) -> Copy {
        Copy { version: Version(number), ..copy(number as usize) }
    }

    fn kept_version(l1: &L1) -> Option<u64> {
        l1.get(&key(1), Moment::now()).map(|copy| copy.version.0)
    }

    #[test]
    fn regression_an_older_version_does_not_replace_a_newer_one() {
        // Two reads start before the write's invalidation arrives; the one that read first is stored last.
        let l1 = L1::new(1 << 20);
        let (slow, fast) = (l1.fence(&key(1)), l1.fence(&key(1)));
        assert!(l1.insert(&key(1), version(2), fast));
        assert!(!l1.insert(&key(1), version(1), slow));
        assert_eq!(kept_version(&l1), Some(2));
        // After a loss, versions may start again at lower numbers, so a copy of a later epoch replaces every older
        // one.
        let later = Stamp { shard: 0, epoch: 1 };
        assert!(insert(&l1, &key(1), Copy { stamp: later, ..version(1) }));
        assert!(!insert(&l1, &key(1), version(3)), "from the previous epoch");
        assert_eq!(kept_version(&l1), Some(1));
    }

    #[test]
    fn regression_what_could_not_be_kept_is_not_forgotten() {
        for newer in [version(2), Copy { version: Version(2), ..copy(1 << 18) }] {
            let l1 = L1::new(1 << 20);
            let early = l1.fence(&key(1));
            l1.void(&key(1));
            let slow = l1.fence(&key(1));
            // The client got this value, although its fence had moved or it is too large to be kept.
            let fence = if newer.value.len() > 2 { slow } else { early };
            assert!(!l1.insert(&key(1), newer, fence));
            assert!(!l1.insert(&key(1), version(1), slow), "older than the answer");
            assert!(kept_version(&l1).is_none() && l1.get_stale(&key(1)).is_none());
            assert!(insert(&l1, &key(1), version(3)));
            assert_eq!(kept_version(&l1), Some(3));
        }
    }

    #[test]
    fn an_empty_value_is_kept_if_its_kind_allows_it() {
        let l1 = L1::new(1 << 20);
        let bytes = Copy { extra: Extra::new(Kind::Bytes, Mark::Unmarked, Duration::ZERO), ..copy(0) };
        assert!(insert(&l1, &key(1), bytes.clone()));
        assert!(l1.get(&key(1), Moment::now()).unwrap().value.is_empty());
        // What could not be kept is no empty value.
        let early = l1.fence(&key(2));
        l1.void(&key(2));
        assert!(!l1.insert(&key(2), Copy { value: Bytes::from_static(b"x"), ..bytes }, early));
        assert!(l1.get(&key(2), Moment::now()).is_none());
    }

    #[test]
    fn regression_a_copy_that_goes_takes_the_older_fills_with_it() {
        let l1 = L1::new(1 << 20);
        let slow = l1.fence(&key(1));
        let now = Moment::now();
        assert!(insert(&l1, &key(1), Copy { expires_at: Some(now), ..version(2) }));
        assert!(l1.get(&key(1), now).is_none());
        assert!(!l1.insert(&key(1), version(1), slow), "after an expiry");

        let slow = l1.fence(&key(0));
        assert!(insert(&l1, &key(0), version(2)));
        for i in 2..5_000 {
            insert(&l1, &key(i), copy(1000));
        }
        assert!(l1.get(&key(0), now).is_none(), "evicted");
        assert!(!l1.insert(&key(0), version(1), slow), "after an eviction");
    }

    #[test]
    fn voiding_a_key_hardly_ever_refuses_a_fill_of_another() {
        let l1 = L1::new(1 << 20);
        let fences: Vec<Fence> = (0..1000).map(|i| l1.fence(&key(i))).collect();
        l1.void(&key(1000));
        let refused = (0..1000).filter(|i| l1.fence(&key(*i)) != fences[*i]).count();
        assert!(refused < 10, "{refused} of 1000");
    }

    #[test]
    fn bytes_are_bounded_and_the_recently_used_stay() {
        let l1 = L1::new(1 << 20);
        for i in 0..20_000 {
            assert!(insert(&l1, &key(i), copy(1000)));
            assert!(l1.used_bytes() <= 1 << 20);
            assert!(l1.get(&key(0), Moment::now()).is_some() || i > 0, "the newest is kept");
        }
        assert!(l1.entries() > 700, "{}", l1.entries());
        assert!(l1.get(&key(0), Moment::now()).is_some(), "used all the time");
        assert!(l1.get(&key(1), Moment::now()).is_none(), "never used again");
    }

    #[test]
    fn regression_an_empty_stripe_of_a_full_l1_keeps_a_new_copy() {
        // An insert evicted only from its own stripe, and so evicted its own copy if the stripe had no other: copies
        // in that stripe could never be kept again.
        let l1 = L1::new(1 << 20);
        for i in 0..200 {
            insert(&l1, &key(i), copy(100_000));
            assert!(l1.get(&key(i), Moment::now()).is_some(), "key {i}");
            assert!(l1.used_bytes() <= 1 << 20);
        }
    }

    #[test]
    fn a_value_too_large_for_its_part_is_not_kept() {
        let l1 = L1::new(8000);
        assert!(!insert(&l1, &key(1), copy(1000)));
        assert!(insert(&l1, &key(1), copy(100)));
        assert!(!insert(&L1::new(0), &key(1), copy(1)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, usize),
        Get(usize),
        Void(usize),
        VoidOdd,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..30usize, 1..400usize).prop_map(|(key, bytes)| Step::Insert(key, bytes)),
            (0..30usize).prop_map(Step::Get),
            (0..30usize).prop_map(Step::Void),
            Just(Step::VoidOdd),
        ]
    }

    proptest! {
        #[test]
        fn the_books_agree_with_the_contents(steps in prop::collection::vec(step(), 1..200)) {
            let l1 = L1::new(10_000);
            let mut model = std::collections::HashMap::new();
            for step in steps {
                match step {
                    Step::Insert(i, bytes) => {
                        prop_assert!(insert(&l1, &key(i), copy(bytes)));
                        model.insert(i, bytes);
                    }
                    Step::Get(i) => if let Some(found) = l1.get(&key(i), Moment::now()) {
                        prop_assert_eq!(Some(&found.value.len()), model.get(&i));
                    },
                    Step::Void(i) => { l1.void(&key(i)); model.remove(&i); }
                    Step::VoidOdd => {
                        let odd = |text: &str| text.ends_with(['1', '3', '5', '7', '9']);
                        l1.void_where(odd);
                        model.retain(|i, _| i % 2 == 0);
                    }
                }
                let mut found = (0, 0);
                for i in 0..30 {
                    if let Some(copy) = l1.get(&key(i), Moment::now()) {
                        prop_assert!(model.contains_key(&i));
                        found.0 += 1;
                        found.1 += (key(i).text().len() + copy.value.len()) as u64 + OVERHEAD_BYTES;
                    }
                }
                prop_assert_eq!(found, (l1.entries(), l1.used_bytes()));
                prop_assert!(l1.used_bytes() <= 10_000);
            }
        }
    }
}
