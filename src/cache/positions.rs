//! Positions: what a change answers, and reads that are not older than a position.
//!
//! L1 answers such a read if this instance has applied every message up to the position, without a gap; else the
//! shard does, in one script that reads and says how far the shard has come. Such a read joins no flight, and takes no
//! answer that another caller got: they may have begun too early, and have compared no position.

use super::Cache;
use super::lookup::{AnsweredBy, Lookup};
use crate::model::{Entry, EntryKey, Positions, ReadTerms};
use crate::store::Error;

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

    /// Reads one entry from the store, for this request alone, not older than the positions of the terms.
    pub(super) async fn read_one_stored(&self, key: &EntryKey, terms: &ReadTerms) -> Result<Option<Entry>, Error> {
        if terms.positions.is_empty() {
            return self.store.get(key).await;
        }
        let mut answers = self.store.get_many(std::slice::from_ref(key), &terms.positions, &|_| true).await;
        answers.pop().expect("one answer for one key")
    }

    /// Counts the result of a read of one entry. Reads that L1 answered are already counted.
    pub(super) fn count_position_read(&self, terms: &ReadTerms, result: Result<&Lookup, &Error>) {
        let is_from_l1 = |lookup: &Lookup| matches!(lookup.trail, AnsweredBy::L1 { .. });
        if !terms.positions.is_empty() && !result.is_ok_and(is_from_l1) {
            self.count_stored(result.map(|_| ()));
        }
    }

    /// Counts the answers of the store to a batch of reads.
    pub(super) fn count_position_reads<T>(&self, terms: &ReadTerms, answers: &[Result<T, Error>]) {
        if !terms.positions.is_empty() {
            answers.iter().for_each(|answer| self.count_stored(answer.as_ref().map(|_| ())));
        }
    }

    fn count_stored(&self, answer: Result<(), &Error>) {
        match answer {
            Ok(()) => self.metrics.position_reads.shard.increment(1),
            Err(Error::PositionLost { .. }) => self.metrics.position_reads.lost.increment(1),
            Err(_) => {}
        }
    }
}
