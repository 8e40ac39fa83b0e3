//! Keeps L1 from answering with old values.
//!
//! Three things make a copy unusable: an invalidation of its key; a loss of messages from its shard, which starts a
//! new epoch and so voids every copy of that shard; and silence, because a copy may only be served while the shard's
//! watermark (see [`watermark`]) is within the staleness bound. The third rule does not depend on any message, so it
//! holds in every kind of failure.

mod refreshes;
mod sequence;
mod waiting;
mod watermark;

use std::sync::Arc;
use std::time::Duration;

use self::sequence::{Before, Sequence};
use self::watermark::ShardState;
use crate::clock::Moment;
use crate::l1::{L1, Stamp};
use crate::metrics::{Metrics, ShardMetrics};
use crate::model::{EntryKey, Namespace, Position, Positions};
use crate::store::{InvalidationSink, ShardIndex};

pub use self::refreshes::Turn;
pub use self::waiting::{LastAnswer, SharedAnswer, WaitingRooms};

/// What this instance knows about the writes on each shard.
pub struct Coherence {
    l1: Arc<L1>,
    shards: Box<[ShardState]>,
    /// The names of the shards, in the order of `shards`.
    names: Box<[String]>,
    /// One for each shard, in the order of `shards`.
    gauges: Box<[ShardMetrics]>,
    started: Moment,
    max_staleness: Duration,
    is_watched: bool,
    waiting: Arc<WaitingRooms>,
    metrics: Arc<Metrics>,
}

/// Whether a copy may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh {
        /// The age of the shard's watermark: no acknowledged write older than this is missing from the copy.
        staleness: Duration,
    },
    /// The copy was made before invalidation messages were lost.
    Void,
    /// The last proof from the shard is too old.
    Unproven,
}

impl Coherence {
    /// At first nothing is known about the shards. `shards` are their names, in the order of their indices.
    pub fn new(
        l1: Arc<L1>,
        shards: &[String],
        max_staleness: Duration,
        waiting: Arc<WaitingRooms>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let gauges = shards.iter().map(|name| metrics.shard(name)).collect();
        let names = shards.into();
        let shards = shards.iter().map(|_| ShardState::default()).collect();
        Self { l1, shards, names, gauges, started: Moment::now(), max_staleness, is_watched: true, waiting, metrics }
    }

    /// Treats every copy as fresh. Only for tests, which must notice the stale answers.
    #[must_use]
    pub fn without_watermark(self) -> Self {
        Self { is_watched: false, ..self }
    }

    pub fn max_staleness(&self) -> Duration {
        self.max_staleness
    }

    /// The stamp for a copy whose read from the shard starts now.
    pub fn stamp(&self, shard: ShardIndex) -> Stamp {
        Stamp { shard, epoch: self.shards[usize::from(shard)].epoch() }
    }

    /// Whether a copy with this stamp may be served at `now`; read `now` after the request arrived.
    pub fn freshness(&self, stamp: Stamp, now: Moment) -> Freshness {
        if !self.is_watched {
            return Freshness::Fresh { staleness: Duration::ZERO };
        }
        // Read the watermark before the epoch. A watermark that is read after the epoch may already belong to the
        // next epoch and proves nothing about this copy.
        let age = self.watermark_age(stamp.shard, now);
        if self.shards[usize::from(stamp.shard)].epoch() != stamp.epoch {
            return Freshness::Void;
        }
        match age {
            Some(staleness) if staleness <= self.max_staleness => Freshness::Fresh { staleness },
            _ => Freshness::Unproven,
        }
    }

    /// Whether no change up to `positions` is missing from a copy with this stamp that L1 holds. False if that is
    /// unknown.
    pub fn has_reached(&self, stamp: Stamp, positions: &Positions) -> bool {
        let shard = usize::from(stamp.shard);
        let name = &self.names[shard];
        let sequence = *self.shards[shard].sequence.lock();
        let has_reached = positions.iter().all(|(of, position)| {
            // With another ring, another shard may have owned the key.
            sequence.is_of_ring(position) && (of != name || sequence.has_reached(position))
        });
        // Read the epoch after the sequence, which may already belong to the next epoch.
        has_reached && self.shards[shard].epoch() == stamp.epoch
    }

    /// Whether copies of this shard may be served at `now`.
    pub fn is_proven(&self, shard: ShardIndex, now: Moment) -> bool {
        self.watermark_age(shard, now).is_some_and(|age| age <= self.max_staleness)
    }

    /// The last watermark of the epoch of a copy with this stamp; `None` if that is unknown. Takes a lock, so use it
    /// only when the shard does not answer.
    pub fn last_watermark(&self, stamp: Stamp) -> Option<Moment> {
        self.shards[usize::from(stamp.shard)].watermark_of(stamp.epoch)
    }

    /// Time since the shard's watermark; `None` before the first.
    pub fn watermark_age(&self, shard: ShardIndex, now: Moment) -> Option<Duration> {
        self.shards[usize::from(shard)].watermark().map(|watermark| now.since(watermark))
    }

    /// Updates the gauges before the metrics are shown.
    pub fn refresh_gauges(&self) {
        let now = Moment::now();
        for (shard, gauges) in self.shards.iter().zip(&self.gauges) {
            let since = shard.watermark().unwrap_or(self.started);
            gauges.watermark_age.set(now.since(since).as_secs_f64());
        }
    }
}

impl InvalidationSink for Coherence {
    fn apply(&self, shard: ShardIndex, payload: &[u8]) {
        let Some(invalidation) = Invalidation::parse(payload) else {
            tracing::warn!(shard, "invalid invalidation message: voiding all copies of the shard");
            self.lost(shard);
            return;
        };
        if invalidation.is_empty() {
            // The leases of a namespace ended.
            self.waiting.all_changed();
        }
        for key in invalidation.keys() {
            self.l1.void(&key);
            self.waiting.changed(&key);
            self.metrics.invalidations_received.increment(1);
        }
        // After the copies are void: a reader that sees the number must not find an old copy.
        self.number(shard, invalidation.seq, |sequence| sequence.message(invalidation.seq));
    }

    fn lost(&self, shard: ShardIndex) {
        let state = &self.shards[usize::from(shard)];
        *state.sequence.lock() = Sequence::Unknown;
        state.begin_epoch();
        self.waiting.all_changed();
        self.metrics.subscription_losses.increment(1);
    }

    fn proven(&self, shard: ShardIndex, moment: Moment, last: Position) {
        self.number(shard, last.seq, |sequence| sequence.reading(last));
        self.shards[usize::from(shard)].raise_watermark(moment);
    }
}

impl Coherence {
    /// The number `seq` arrived, and `advance` adds it to the sequence. Voids all copies of the shard, unless every
    /// message before the number is applied.
    fn number(&self, shard: ShardIndex, seq: u64, advance: impl FnOnce(&mut Sequence) -> Before) {
        let state = &self.shards[usize::from(shard)];
        let mut sequence = state.sequence.lock();
        let before = advance(&mut sequence);
        if before == Before::Applied {
            return;
        }
        // Under the lock: a reader that sees the number must not find an old copy.
        state.begin_epoch();
        drop(sequence);
        self.waiting.all_changed();
        if before == Before::Missing {
            tracing::warn!(shard, seq, "invalidations were lost: numbers are missing");
            self.metrics.subscription_losses.increment(1);
        }
    }
}

/// An invalidation message: the number of a change, a namespace, and the keys whose copies are void. The keys are
/// parsed during iteration.
///
/// On the wire it is UTF-8 text: `number kind namespace\nkey\nkey...`. A namespace has no blanks, and neither namespace
/// nor key has a line feed. The kind of change is a word such as `set`, for people and for later use.
/// `SUBSCRIBE sidecache:invalidations` shows the messages in readable form.
#[derive(Debug)]
pub struct Invalidation<'m> {
    /// The number of the change; 0 if the shard has lost its count.
    pub seq: u64,
    namespace: &'m str,
    keys: &'m str,
}

impl<'m> Invalidation<'m> {
    /// `None` if the payload is not such a message.
    pub fn parse(payload: &'m [u8]) -> Option<Self> {
        let (head, keys) = std::str::from_utf8(payload).ok()?.split_once('\n')?;
        let (seq, rest) = head.split_once(' ')?;
        let (_kind, namespace) = rest.split_once(' ')?;
        Namespace::parse(namespace).ok()?;
        Some(Self { seq: seq.parse().ok()?, namespace, keys })
    }

    /// Whether the message names no key.
    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys in the message. Invalid keys are skipped, as they cannot have a copy.
    pub fn keys(&self) -> impl Iterator<Item = EntryKey> {
        self.keys.split('\n').filter_map(|key| EntryKey::parse(self.namespace, key).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l1::Copy;
    use crate::model::{Extra, UnixMillis, Version};
    use bytes::Bytes;

    fn coherence() -> Coherence {
        let names = ["a", "b"].map(str::to_owned);
        Coherence::new(
            Arc::new(L1::new(1 << 20)),
            &names,
            Duration::from_millis(1000),
            Arc::default(),
            Arc::new(Metrics::default()),
        )
    }

    fn keep(coherence: &Coherence, key: &EntryKey) {
        let copy = Copy {
            value: Bytes::from_static(b"1"),
            version: Version(1),
            created_at: UnixMillis(0),
            expires_at: None,
            stale_seconds: 0,
            extra: Extra::default(),
            stamp: coherence.stamp(0),
        };
        assert!(coherence.l1.insert(key, copy, coherence.l1.fence(key)));
    }

    #[test]
    fn a_copy_is_fresh_only_within_the_bound_of_its_own_shards_watermark() {
        let coherence = coherence();
        let now = Moment::now();
        assert_eq!(coherence.freshness(coherence.stamp(0), now), Freshness::Unproven, "before the first proof");
        coherence.proven(1, now, Position::default());
        assert_eq!(coherence.freshness(coherence.stamp(0), now), Freshness::Unproven, "another shard's proof");
        coherence.proven(0, now, Position::default());
        let stamp = coherence.stamp(0);
        let staleness = Duration::from_millis(1000);
        assert_eq!(coherence.freshness(stamp, now + staleness), Freshness::Fresh { staleness });
        assert_eq!(coherence.freshness(stamp, now + Duration::from_millis(1001)), Freshness::Unproven);
    }

    #[test]
    fn regression_the_proof_of_a_new_epoch_is_none_for_copies_of_the_last() {
        // The epoch was read before the watermark. (1) A reader sees the epoch of its copy; (2) the subscription
        // works again: a new epoch starts, and its first proof arrives; (3) the reader sees that proof and takes it
        // for a proof of its copy, which was not proven for a long time.
        let metrics = Arc::new(Metrics::default());
        for _ in 0..300 {
            let (l1, names) = (Arc::new(L1::new(0)), ["a".to_owned()]);
            let coherence = Coherence::new(l1, &names, Duration::from_secs(3600), Arc::default(), metrics.clone());
            let (stamp, now) = (coherence.stamp(0), Moment::now());
            let gate = std::sync::Barrier::new(2);
            let seen = std::thread::scope(|scope| {
                scope.spawn(|| {
                    gate.wait();
                    coherence.lost(0);
                    coherence.proven(0, now, Position::default());
                });
                gate.wait();
                loop {
                    match coherence.freshness(stamp, now) {
                        Freshness::Unproven => {}
                        seen => break seen,
                    }
                }
            });
            assert_eq!(seen, Freshness::Void);
        }
    }

    #[test]
    fn a_loss_voids_the_copies_of_its_shard_alone() {
        let coherence = coherence();
        let now = Moment::now();
        coherence.proven(0, now, Position::default());
        coherence.proven(1, now, Position::default());
        let (first, second) = (coherence.stamp(0), coherence.stamp(1));
        coherence.lost(0);
        assert_eq!(coherence.freshness(first, now), Freshness::Void);
        let fresh = Freshness::Fresh { staleness: Duration::ZERO };
        assert_eq!(coherence.freshness(second, now), fresh);
        assert_eq!(coherence.freshness(coherence.stamp(0), now), fresh, "a copy made after the loss");
    }

    #[test]
    fn regression_a_copy_made_after_a_gap_is_void_once_its_own_message_is_missing() {
        // After a gap every number was accepted until the next reading, so a second loss went unnoticed.
        let (coherence, now) = (coherence(), Moment::now());
        let last = |seq| Position { seq, ..Position::default() };
        coherence.proven(0, now, last(4));
        let old = coherence.stamp(0);
        coherence.apply(0, b"6 set users\nk");
        assert_eq!(coherence.freshness(old, now), Freshness::Void, "5 is missing");
        let copy = coherence.stamp(0);
        coherence.proven(0, now, last(7));
        assert_eq!(coherence.freshness(copy, now), Freshness::Void, "7 is missing");
    }

    #[test]
    fn the_last_watermark_of_a_copy_is_that_of_its_epoch() {
        let coherence = coherence();
        let now = Moment::from_nanos(1_000);
        assert_eq!(coherence.last_watermark(coherence.stamp(0)), None);
        coherence.proven(0, now, Position::default());
        let old = coherence.stamp(0);
        assert_eq!(coherence.last_watermark(old), Some(now));
        coherence.lost(0);
        let later = Moment::from_nanos(2_000);
        coherence.proven(0, later, Position::default());
        assert_eq!(coherence.last_watermark(old), Some(now), "later proofs do not count");
        assert_eq!(coherence.last_watermark(coherence.stamp(0)), Some(later));
    }

    #[test]
    fn an_invalidation_voids_the_keys_it_names() {
        let coherence = coherence();
        let keys = ["a", "b", "c"].map(|key| EntryKey::parse("users", key).unwrap());
        keys.iter().for_each(|key| keep(&coherence, key));
        coherence.apply(0, b"5 set users\na\nc");
        let left = keys.map(|key| coherence.l1.get(&key, Moment::now()).is_some());
        assert_eq!(left, [false, true, false]);
    }

    #[test]
    fn an_invalidation_that_does_not_parse_voids_everything_of_the_shard() {
        for payload in
            [&b""[..], b"5 set users", b"\xff\n\xff", b"5 set bad namespace\nkey", b"users\nkey", b"x set users\nkey"]
        {
            let coherence = coherence();
            let stamp = coherence.stamp(0);
            coherence.apply(0, payload);
            assert_ne!(coherence.stamp(0), stamp, "{payload:?}");
        }
    }
}
