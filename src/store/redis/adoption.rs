//! Settles the shards' records of rings for this process: at its start, whenever a shard comes later,
//! and again where a record was lost.
//!
//! A shard that is away at the start does not hold the others up for long: they are settled without
//! its record, and it is settled when it comes. Several instances may do this at once; a record is only
//! written by who has read it as it is, and who was too late reads again.
//!
//! What this cannot know: a ring that only shards know of which are all away, or in no ring of ours any
//! more. And an instance that runs with another ring at the same time goes on with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Redis;
use super::generations::{Generation, Names, Record, adopted, number};
use super::history::{History, Rings};
use super::moved::Found;
use super::shard::Shard;
use crate::clock::Moment;
use crate::store::{InvalidationSink, ShardIndex};

/// How long the records of all shards are waited for at the start; less than the service waits before it
/// takes requests, so that a shard that is away makes it refuse none for the others.
const PATIENCE: Duration = Duration::from_millis(700);

/// How long one record is waited for.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// Pauses while a shard is away: at the start, and later.
const SOON: Duration = Duration::from_millis(5);
const LATER: Duration = Duration::from_millis(100);

/// How often the records are looked at once they are settled.
const LOOK: Duration = Duration::from_secs(2);

/// Rounds of reading and writing until another look is taken later.
const ROUNDS: usize = 20;

impl Redis {
    /// Starts settling the shards and removing what is void on them; nothing is served before.
    pub fn settle(&self, sink: &Arc<dyn InvalidationSink>, tasks: &TaskTracker, shutdown: &CancellationToken) {
        let keeper = Keeper {
            names: Names::new(&self.names),
            shards: self.shards.clone(),
            rings: Rings::default(),
            sink: sink.clone(),
            warned: 0,
        };
        tasks.spawn(keeper.run(shutdown.clone()));
        for shard in &self.shards {
            tasks.spawn(shard.clone().run_cleaning(self.instance.clone(), shutdown.clone()));
        }
    }
}

/// Keeps the records of all shards.
struct Keeper {
    names: Names,
    shards: Vec<Arc<Shard>>,
    rings: Rings,
    sink: Arc<dyn InvalidationSink>,
    /// The newest ring of others that was warned of.
    warned: u64,
}

/// Why the records are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// All shards are to be settled.
    Start,
    /// A shard is to be settled.
    Arrival,
    Routine,
}

impl Keeper {
    async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let started = Moment::now();
        let mut looked = started;
        loop {
            let now = Moment::now();
            let is_early = now.since(started) < PATIENCE;
            let waiting: Vec<&Arc<Shard>> =
                self.shards.iter().filter(|shard| !shard.belonging.is_settled()).collect();
            let connected = waiting.iter().filter(|shard| shard.may_be_adopted()).count();
            if connected > 0 && (connected == waiting.len() || !is_early) {
                self.settle(if is_early { Occasion::Start } else { Occasion::Arrival }).await;
            } else if now.since(looked) >= LOOK || self.shards.iter().any(|shard| shard.belonging.take_doubt()) {
                self.settle(Occasion::Routine).await;
                looked = Moment::now();
            }
            self.void_copies();
            let is_waiting = self.shards.iter().any(|shard| !shard.belonging.is_settled());
            sleep(if is_waiting && is_early { SOON } else { LATER }).await;
        }
    }

    /// Reads all records, and writes those that should be others, until they are as they should.
    async fn settle(&mut self, occasion: Occasion) {
        for _ in 0..ROUNDS {
            let found = join_all(self.shards.iter().map(|shard| find(shard))).await;
            if occasion == Occasion::Start && found.iter().any(Option::is_none) {
                return;
            }
            let records: Vec<&Record> =
                found.iter().flatten().filter_map(|found| found.seen.record.as_ref()).collect();
            let (number, is_new) = number(&self.names, records.iter().copied());
            let is_running = self.shards.iter().any(|shard| shard.belonging.is_settled());
            if occasion == Occasion::Routine && is_new && is_running {
                // It was adopted after mine was, so mine is history.
                if self.warned < number {
                    tracing::warn!("other instances divide the keys among other shards: old values may be seen");
                    self.warned = number;
                }
                return;
            }
            let known: BTreeSet<Generation> = records.iter().flat_map(|record| record.rings()).cloned().collect();
            let mine = Generation { number, names: self.names.clone() };
            let mut writes = Vec::new();
            for (index, found) in (0..).zip(found) {
                let Some(Found { seen, written }) = found else { continue };
                let shard = &self.shards[usize::from(index)];
                let record = adopted(&shard.name, &mine, &known, &seen);
                // One from before that known here came back with old data, from a replica or a snapshot: it
                // is written anew, so that everybody looks at it again.
                let known_written = shard.belonging.settled().map_or(0, |settled| settled.written);
                match written {
                    Some(written) if seen.record.as_ref() == Some(&record) && written >= known_written => {
                        self.serve(index, record, written);
                    }
                    written => writes.push((shard.clone(), record, written)),
                }
            }
            if writes.is_empty() {
                break;
            }
            let written = join_all(writes.iter().map(|(shard, record, written)| async move {
                let is_written = shard.write_record(*written, record).await;
                match &is_written {
                    Ok(true) => tracing::info!(
                        shard = %shard.name, generation = record.current.number, clean = record.is_clean, "ring adopted"
                    ),
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, "ring not adopted yet"),
                }
                is_written
            }))
            .await;
            if written.iter().any(Result::is_err) {
                // Later, rather than at once again.
                break;
            }
        }
        self.rings.prune();
    }

    /// Serves the shard under `record` from now on.
    fn serve(&mut self, index: ShardIndex, record: Record, written: u64) {
        let (shard, rings) = (&self.shards[usize::from(index)], &mut self.rings);
        let history = (!record.is_clean).then(|| History::new(&record, rings));
        shard.belonging.settle(record, written, history);
        self.void_copies();
    }

    /// Copies in this process may be of what has become void.
    fn void_copies(&self) {
        for (index, shard) in (0..).zip(&self.shards) {
            if shard.belonging.take_voided() {
                self.sink.lost(index);
            }
        }
    }
}

/// The shard's record; `None` where it does not answer. One that was lost is as it was settled.
async fn find(shard: &Shard) -> Option<Found> {
    if !shard.may_be_adopted() {
        return None;
    }
    match timeout(READ_TIMEOUT, shard.find_record()).await.ok()? {
        Ok(mut found) => {
            if found.written.is_none() {
                // The shard lost all it held, so what it holds now was written under it.
                found.seen.record = shard.belonging.settled().map(|settled| settled.record.clone());
            }
            Some(found)
        }
        Err(error) => {
            tracing::debug!(%error, "ring not read");
            None
        }
    }
}
