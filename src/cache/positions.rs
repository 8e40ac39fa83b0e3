//! Positions: what a change answers, and reads that are not older than a position.
//!
//! L1 answers such a read if this instance has applied every message up to the position, without a gap; else the
//! shard does, in one script that reads and says how far the shard has come. Such a read joins no flight, because a
//! flight may have begun too early.

use super::Cache;
use crate::model::{Entry, EntryKey, Positions, ReadTerms};
use crate::store::{Error, Room};

impl Cache {
    /// The present positions of all shards that answer.
    pub(super) async fn present_positions(&self) -> Positions {
        let mut positions = Positions::default();
        for (shard, position) in self.shard_names().iter().zip(self.store.positions().await) {
            if let Some(position) = position {
                positions.add(shard, position);
            }
        }
        positions
    }

    /// The name of the shard that owns `key`.
    pub fn shard_of(&self, key: &EntryKey) -> &str {
        self.shard_name(self.store.shard_of(key))
    }

    /// Reads entries from the store, not older than the positions of the terms.
    pub(super) async fn read_stored(
        &self,
        keys: &[EntryKey],
        terms: &ReadTerms,
        room: Room<'_>,
    ) -> Vec<Result<Option<Entry>, Error>> {
        if terms.positions.is_empty() {
            return self.store.get_many(keys, room).await;
        }
        let answers = self.store.get_many_at(keys, &terms.positions, room).await;
        answers.iter().for_each(|answer| self.count_position_read(answer));
        answers
    }

    /// Reads one entry from the store, for this request alone, not older than the positions of the terms.
    pub(super) async fn read_one_stored(&self, key: &EntryKey, terms: &ReadTerms) -> Result<Option<Entry>, Error> {
        if terms.positions.is_empty() {
            return self.store.get(key).await;
        }
        let mut answers = self.read_stored(std::slice::from_ref(key), terms, &|_| true).await;
        answers.pop().expect("one answer for one key")
    }

    /// Checks that the shards of these keys have come as far as the positions of the terms, before another read of
    /// them.
    ///
    /// # Errors
    /// [`Error::PositionLost`], or a shard failed.
    pub(super) async fn check_positions(&self, keys: &[EntryKey], terms: &ReadTerms) -> Result<(), Error> {
        if terms.positions.is_empty() {
            return Ok(());
        }
        let reached = self.store.reach(keys, &terms.positions).await;
        self.count_position_read(&reached);
        reached
    }

    fn count_position_read<T>(&self, answer: &Result<T, Error>) {
        match answer {
            Ok(_) => self.metrics.position_reads.shard.increment(1),
            Err(Error::PositionLost { .. }) => self.metrics.position_reads.lost.increment(1),
            Err(_) => {}
        }
    }
}
