//! Settles the ring records of the shards for this process: at its start, whenever a shard becomes reachable later,
//! and again when a record was lost or the server is another one.
//!
//! A shard that is unreachable at the start delays the others only briefly: they are settled without its record, and
//! it is settled when it becomes reachable. Several instances may do this at the same time: a record is only written
//! if it is still as the instance read it. Otherwise the instance reads it again.
//!
//! A record names the *incarnation* of the shard's data. The incarnation is renewed if there was no record, if the
//! server's run id differs from the one that wrote the record (after a restart, a failover, or when an address leads
//! to another server), and if the fence or the count of changes was lost. Every script passes the incarnation and the
//! time at which the record was written. So a server that an instance does not know refuses its scripts, and copies
//! from before are void.
//!
//! A shard whose data has another format is emptied of our keys first. Its record is marked meanwhile, so that no
//! instance uses it. The whole fleet uses one secret for places, but a shard that comes from another fleet keeps its
//! own.
//!
//! Limits: a ring stays unknown if all shards that know it are unreachable, or are no longer in any ring of this
//! fleet. A running instance with another ring keeps serving. An instance that starts while living instances use
//! another ring serves nothing, unless `accept_ring_change` is set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Redis;
use super::generations::{Generation, Names, Record, Seen, adopted, number};
use super::history::{History, Rings};
use super::ring_record::{EMPTYING, FORM, StoredRecord, Written, random_name};
use super::ring_state::SettledRecord;
use super::shard::Shard;
use crate::clock::Moment;
use crate::store::{Error, InvalidationSink, RingCount, ShardIndex};

/// How long to wait for the records of all shards at the start. It is shorter than the time that the service waits
/// before it accepts requests, so an unreachable shard does not cause refused requests for the other shards.
const START_TIMEOUT: Duration = Duration::from_millis(700);

/// How long to wait for one record.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// The pause before an unreachable shard is tried again: at the start, and later.
const SOON: Duration = Duration::from_millis(5);
const LATER: Duration = Duration::from_millis(100);

/// How often settled records are checked.
const LOOK: Duration = Duration::from_secs(2);

/// The most rounds of reading and writing before the next check.
const ROUNDS: usize = 20;

impl Redis {
    /// What keeps the records of the shards. The tasks that it starts end with `shutdown`.
    pub(super) fn ring_keeper(&self, sink: Arc<dyn InvalidationSink>, shutdown: CancellationToken) -> RingKeeper {
        RingKeeper {
            names: Names::new(&self.names),
            shards: self.shards.clone(),
            rings: Rings::default(),
            sink,
            warned: 0,
            secret: None,
            ring_version: self.ring.version().to_owned(),
            instance: self.instance.clone(),
            accepts_change: self.accepts_ring_change,
            is_mismatched: false,
            shutdown,
        }
    }
}

/// Keeps the records of all shards up to date.
pub(super) struct RingKeeper {
    names: Names,
    shards: Vec<Arc<Shard>>,
    rings: Rings,
    sink: Arc<dyn InvalidationSink>,
    /// The number of the newest foreign ring that was logged as a warning.
    warned: u64,
    /// The fleet's secret for places, once it is known.
    secret: Option<String>,
    ring_version: String,
    instance: String,
    /// Whether this instance may serve although living instances use another ring.
    accepts_change: bool,
    /// Whether living instances used another ring at the last check.
    is_mismatched: bool,
    shutdown: CancellationToken,
}

/// Why the records are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// The process has started: settle all shards.
    Start,
    /// A shard has become reachable and must be settled.
    Arrival,
    Routine,
}

impl RingKeeper {
    /// Settles the shards, and checks their records from time to time. Nothing is served before a shard is settled.
    pub async fn run(mut self) {
        let started = Moment::now();
        let (mut looked, mut is_doubted) = (started, false);
        loop {
            let now = Moment::now();
            let is_early = now.since(started) < START_TIMEOUT;
            let waiting: Vec<&Arc<Shard>> =
                self.shards.iter().filter(|shard| !shard.ring_state.is_settled()).collect();
            let connected = waiting.iter().filter(|shard| shard.may_be_adopted()).count();
            if connected > 0 && (connected == waiting.len() || !is_early) {
                self.settle(if is_early { Occasion::Start } else { Occasion::Arrival }).await;
            } else if now.since(looked) >= LOOK || is_doubted {
                self.settle(Occasion::Routine).await;
                looked = Moment::now();
            }
            self.void_copies();
            let is_waiting = self.shards.iter().any(|shard| !shard.ring_state.is_settled());
            let pause = if is_waiting && is_early { SOON } else { LATER };
            let doubts = self.shards.iter().map(|shard| Box::pin(shard.ring_state.doubted.notified()));
            is_doubted = timeout(pause, select_all(doubts)).await.is_ok();
            if is_doubted {
                // Pause, even if operations ask for checks all the time.
                sleep(SOON).await;
            }
        }
    }

    /// Reads all records and writes those that must change, until no record must change.
    async fn settle(&mut self, occasion: Occasion) {
        for _ in 0..ROUNDS {
            let found = join_all(self.shards.iter().map(|shard| find(shard))).await;
            if occasion == Occasion::Start && found.iter().any(Option::is_none) {
                return;
            }
            let records: Vec<&Record> =
                found.iter().flatten().filter_map(|found| found.seen.record.as_ref()).collect();
            let (number, is_new) = number(&self.names, records.iter().copied());
            let is_running = self.shards.iter().any(|shard| shard.ring_state.is_settled());
            if occasion == Occasion::Routine && is_new && is_running {
                // The other ring was adopted after this instance's ring, so this instance's ring is out of date.
                if self.warned < number {
                    tracing::warn!(
                        "other instances use a different set of shards, so reads may return old values: restart this instance with \
                         their list, or the others with this one"
                    );
                    self.warned = number;
                }
                return;
            }
            // A shard that is recorded under another name changes the ring too.
            let is_exchanged = (self.shards.iter().zip(&found)).any(|(shard, found)| {
                let record = found.as_ref().and_then(|found| found.seen.record.as_ref());
                record.is_some_and(|record| record.shard != shard.name)
            });
            if !is_running && !self.may_begin(is_new, is_exchanged).await {
                return;
            }
            let secret = self.secret_of(&found);
            let known: BTreeSet<Generation> = records.iter().flat_map(|record| record.rings()).cloned().collect();
            let mine = Generation { number, names: self.names.clone() };
            let mut writes = Vec::new();
            for (index, found) in (0..).zip(found) {
                let Some(found) = found else { continue };
                let shard = &self.shards[usize::from(index)];
                let secret = shard_secret(shard, &found).unwrap_or_else(|| secret.clone());
                let state = State::of(&found, shard);
                let seen = if state == State::Foreign { &EMPTY } else { &found.seen };
                let record = adopted(&shard.name, &mine, &known, seen);
                // A record older than the one known here came back with old data, from a replica or a snapshot. It is
                // written again, so that all instances check it.
                let known_written = shard.ring_state.settled().map_or(0, |settled| settled.written);
                match found.written {
                    Some(written)
                        if state == State::Good
                            && found.seen.record.as_ref() == Some(&record)
                            && written.at >= known_written =>
                    {
                        self.serve(index, record, written);
                    }
                    written => {
                        let written = written.map(|written| written.at);
                        if state == State::Foreign {
                            self.empty(shard, record, written, secret);
                        } else {
                            writes.push(write(shard.clone(), record, written, state, secret));
                        }
                    }
                }
            }
            if writes.is_empty() {
                break;
            }
            if join_all(writes).await.iter().any(Result::is_err) {
                // Try again at the next check, not at once.
                break;
            }
        }
        self.rings.prune();
    }

    /// Starts a task that empties the shard, which may take long, and then writes its record. Other shards do not
    /// wait.
    fn empty(&self, shard: &Arc<Shard>, record: Record, written: Option<u64>, secret: String) {
        if !shard.ring_state.begin_emptying() {
            return;
        }
        let (shard, shutdown) = (shard.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            let emptied = tokio::select! {
                emptied = empty(&shard, &record, written, &secret) => emptied,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = emptied {
                tracing::debug!(%error, shard = %shard.name, "the shard is not emptied yet");
                sleep(LATER).await;
            }
            shard.ring_state.end_emptying();
        });
    }

    /// Serves the shard under `record` from now on.
    fn serve(&mut self, index: ShardIndex, record: Record, written: Written) {
        let (shard, rings) = (&self.shards[usize::from(index)], &mut self.rings);
        let history = (!record.is_clean).then(|| History::new(&record, rings));
        self.secret = Some(written.identity.place_secret.to_string());
        shard.ring_state.settle(SettledRecord::new(record, written.at, written.identity, history));
        self.void_copies();
    }

    /// Chooses the secret for places for shards without one: the secret that this process uses already, or else the
    /// most frequent secret among the shards (on a tie, that of the first shard by name), or else a new secret.
    fn secret_of(&mut self, found: &[Option<StoredRecord>]) -> String {
        if let Some(secret) = &self.secret {
            return secret.clone();
        }
        let mut named: Vec<(&str, &str)> = Vec::new();
        for (shard, found) in self.shards.iter().zip(found) {
            let written = found.as_ref().and_then(|found| found.written.as_ref());
            if let Some(written) = written.filter(|written| is_known_form(&written.form)) {
                named.push((&shard.name, &written.identity.place_secret));
            }
        }
        named.sort_unstable();
        let count = |secret: &str| named.iter().filter(|(_, other)| *other == secret).count();
        // On a tie `max_by_key` returns the last, hence the reverse order.
        let most = named.iter().rev().max_by_key(|(_, secret)| count(secret));
        most.map_or_else(random_name, |(_, secret)| (*secret).to_owned())
    }

    /// Whether this instance may serve. It may not if that would change the owner of keys while other instances use
    /// the shards. If it may, it announces itself on the shards.
    async fn may_begin(&mut self, is_new: bool, is_exchanged: bool) -> bool {
        let shards = || self.shards.iter().filter(|shard| shard.may_be_adopted());
        let mut is_mismatched = false;
        if (is_new || is_exchanged) && !self.accepts_change {
            let counted = join_all(shards().map(|shard| shard.living_rings(&self.instance))).await;
            // Instances that start at the same time with the same new ring do not conflict.
            let matters = |ring: &RingCount| is_exchanged || ring.version != self.ring_version;
            is_mismatched = counted.iter().flatten().flatten().any(|ring| ring.instances > 0 && matters(ring));
            if !is_mismatched && counted.iter().any(Option::is_none) {
                return false;
            }
        }
        for shard in &self.shards {
            shard.ring_state.mismatch(is_mismatched);
        }
        if is_mismatched && !self.is_mismatched {
            tracing::error!(
                "living instances use a different set of shards than `redis_shards` here, so this instance serves \
                 nothing. Correct the setting, or set accept_ring_change = true to change the shards"
            );
        }
        self.is_mismatched = is_mismatched;
        if !is_mismatched {
            // A shard that accepts no writes at present does not get this instance's record either.
            join_all(shards().map(|shard| shard.announce(&self.ring_version, &self.instance))).await;
        }
        !is_mismatched
    }

    /// Voids this process's copies of entries that became void.
    fn void_copies(&self) {
        for (index, shard) in (0..).zip(&self.shards) {
            if shard.ring_state.take_voided() {
                self.sink.lost(index);
            }
        }
    }
}

/// What must happen to a shard before it is served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing.
    Good,
    /// Its record must be written, perhaps because the server is another one.
    Stale,
    /// Its record must be written, and all copies of its entries are void.
    Suspect,
    /// Its data has another format, or its fence is lost, so the data must be removed.
    Foreign,
}

/// The secret for places under which the data of a shard was stored, if it is known.
fn shard_secret(shard: &Shard, found: &StoredRecord) -> Option<String> {
    let of_record = found.written.as_ref().filter(|written| written.form == FORM);
    let of_record = of_record.map(|written| written.identity.place_secret.to_string());
    // If only the record was lost, the data is still stored under the secret that was settled here.
    of_record.or_else(|| Some(shard.ring_state.settled()?.identity.place_secret.to_string()))
}

/// The state of a shard that was emptied.
const EMPTY: Seen = Seen { record: None, has_data: false };

impl State {
    fn of(found: &StoredRecord, shard: &Shard) -> Self {
        let Some(written) = &found.written else {
            // If only the record was lost, the same record is written again for the data.
            return if found.seen.has_data && found.seen.record.is_none() { Self::Foreign } else { Self::Stale };
        };
        let is_readable = written.form == FORM && written.is_fenced;
        if !is_readable && (found.seen.has_data || written.form == EMPTYING) {
            Self::Foreign
        } else if shard.ring_state.is_suspect() {
            Self::Suspect
        } else if is_readable && written.has_count && written.identity.run_id == found.run_id {
            Self::Good
        } else {
            Self::Stale
        }
    }
}

fn is_known_form(form: &str) -> bool {
    form == FORM || form == EMPTYING
}

/// Writes a shard's record, unless it has changed since it was written at `written`.
async fn write(
    shard: Arc<Shard>,
    record: Record,
    written: Option<u64>,
    state: State,
    secret: String,
) -> Result<(), Error> {
    let suspicions = shard.ring_state.suspicions();
    let is_another = state == State::Suspect || shard.ring_state.is_suspect();
    let is_written = shard.write_record(written, &record, FORM, &secret, is_another).await;
    let is_written =
        is_written.inspect_err(|error| tracing::debug!(%error, "ring record not written yet"))?.is_some();
    if is_written {
        if is_another {
            shard.ring_state.trust(suspicions);
        }
        let (generation, clean) = (record.current.number, record.is_clean);
        tracing::info!(shard = %shard.name, generation, clean, "ring record written");
    }
    Ok(())
}

/// Removes data of another format from a shard, and writes its record.
async fn empty(shard: &Shard, record: &Record, written: Option<u64>, secret: &str) -> Result<(), Error> {
    // From here on no instance uses the shard.
    let Some(emptying) = shard.write_record(written, record, EMPTYING, secret, true).await? else { return Ok(()) };
    let gone = shard.empty(emptying).await?;
    tracing::warn!(shard = %shard.name, gone, "the shard held entries of another format; they were removed");
    if shard.write_record(Some(emptying), record, FORM, secret, true).await?.is_some() {
        tracing::info!(shard = %shard.name, generation = record.current.number, "ring record written");
    }
    Ok(())
}

/// The shard's record; `None` if the shard does not answer. For a lost record, the record settled here.
async fn find(shard: &Shard) -> Option<StoredRecord> {
    if !shard.may_be_adopted() || shard.ring_state.is_being_emptied() {
        return None;
    }
    match timeout(READ_TIMEOUT, shard.find_record()).await.ok()? {
        Ok(mut found) => {
            if found.written.is_none() {
                // The record is gone, perhaps with all data. Data that is there now was stored under the record
                // settled here.
                found.seen.record = shard.ring_state.settled().map(|settled| settled.record.clone());
            }
            Some(found)
        }
        Err(error) => {
            tracing::debug!(%error, "could not read the ring record");
            None
        }
    }
}
