//! Writes the reads of entries into their metadata in batches. Reads are counted in memory first
//! (`access_counts.rs`), so a read never causes a write of its own.
//!
//! Eviction by use reads the metadata. So while a shard evicts, a batch is written as soon as a few reads have been
//! collected, and not only once per interval: a namespace may replace all its entries several times a second.
//!
//! A known inaccuracy: if a key is deleted and created again, reads of the old entry that another instance has not
//! written yet may count for the new entry.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fred::types::Value;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::reply;
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Shard};
use crate::clock::unix_millis;
use crate::model::{Details, Entry, EntryKey, Positions};
use crate::store::Error;

/// Entries that one script writes to.
const ENTRIES_PER_SCRIPT: usize = 100;

impl Shard {
    /// Writes the pending reads every `period` and whenever there are many, until `shutdown`, and then once more.
    pub async fn run_accesses(self: Arc<Self>, period: Duration, shutdown: CancellationToken) {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut went_well = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => self.accesses.is_evicting.store(false, Relaxed),
                () = self.accesses.due.notified(), if went_well => {}
            }
            went_well = self.record_accesses().await.is_ok();
        }
        if let Err(error) = self.record_accesses().await {
            tracing::warn!(%error, "could not write the latest reads into the metadata of their entries");
        }
    }

    /// Reads an entry with its details, including the pending reads. The shard must have every change up to its own
    /// `positions`.
    pub async fn describe(&self, key: &EntryKey, positions: &Positions) -> Result<Option<(Entry, Details)>, Error> {
        // While a batch is being written, its reads are no longer pending and not certainly stored.
        let _quiet = self.accesses.writing.lock().await;
        let pending = self.accesses.of(key);
        let mut described = self.describe_stored(key, positions).await?;
        if let (Some((_, details)), Some(access)) = (&mut described, pending) {
            details.access_count += access.reads;
            details.last_accessed = details.last_accessed.max(access.last);
        }
        Ok(described)
    }

    /// Writes all reads that are pending now. Reads that were certainly not written become pending again. Reads that
    /// may have been written are dropped, because losing them is better than counting them twice.
    async fn record_accesses(&self) -> Result<(), Error> {
        let batches = self.accesses.entries.load(Relaxed).div_ceil(ENTRIES_PER_SCRIPT);
        for _ in 0..batches {
            let _writing = self.accesses.writing.lock().await;
            let batch = self.accesses.take(ENTRIES_PER_SCRIPT);
            let arguments = |_: &SettledRecord| {
                let now = unix_millis();
                let all = batch.iter().flat_map(|(key, access)| {
                    let age_ms = now.0.saturating_sub(access.last.0);
                    [key.text().to_owned(), access.reads.to_string(), age_ms.to_string()]
                });
                all.map(Value::from).collect()
            };
            let written = self.ask(&scripts::RECORD_ACCESSES, Effect::Write, arguments, reply::number).await;
            let Err(error) = written else { continue };
            for (key, access) in &batch {
                if error.may_have_happened() {
                    self.accesses.metrics.accesses_lost.increment(access.reads);
                } else {
                    self.accesses.merge(key.borrowed(), *access);
                }
            }
            return Err(error);
        }
        Ok(())
    }
}
