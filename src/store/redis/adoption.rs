//! Settles the shards' records of rings for this process: at its start, whenever a shard comes later,
//! and again where a record was lost or the server is another one.
//!
//! A shard that is away at the start does not hold the others up for long: they are settled without
//! its record, and it is settled when it comes. Several instances may do this at once; a record is only
//! written by who has read it as it is, and who was too late reads again.
//!
//! A record names the *incarnation* of what the shard holds. It is made anew where there was no record, where the
//! server's run is another than the one that wrote it (a restart, a failover, an address that leads elsewhere), and
//! where the fence was lost. Every script passes the incarnation and the moment at which the record was written, so
//! a server that an instance does not know refuses it, and copies from before are void.
//!
//! A shard whose content has another form is emptied of our keys first: with the record marked so, nobody uses it
//! meanwhile. Places go by one secret for the whole fleet; a shard that comes from another fleet keeps its own.
//!
//! What this cannot know: a ring that only shards know of which are all away, or in no ring of ours any
//! more. And an instance that runs with another ring at the same time goes on with it; one that comes to living
//! instances with another ring serves nothing, unless `accept_ring_change` is set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Redis;
use super::belonging::{EMPTYING, FORM, Found, Settled, Written, random_name};
use super::generations::{Generation, Names, Record, Seen, adopted, number};
use super::history::{History, Rings};
use super::shard::Shard;
use crate::clock::Moment;
use crate::store::{Error, InvalidationSink, RingCount, ShardIndex};

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
            secret: None,
            ring_version: self.ring.version().to_owned(),
            instance: self.instance.clone(),
            accepts_change: self.accepts_ring_change,
            is_mismatched: false,
            shutdown: shutdown.clone(),
        };
        tasks.spawn(keeper.run());
        for shard in &self.shards {
            tasks.spawn(shard.clone().run_cleaning(self.instance.clone(), shutdown.clone()));
            tasks.spawn(shard.clone().run_repairs(self.instance.clone(), shutdown.clone()));
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
    /// The fleet's secret of places, once it is known.
    secret: Option<String>,
    ring_version: String,
    instance: String,
    /// Whether living instances with another ring are no reason to serve nothing.
    accepts_change: bool,
    /// Whether there were some at the last look.
    is_mismatched: bool,
    shutdown: CancellationToken,
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
    async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let started = Moment::now();
        let (mut looked, mut is_doubted) = (started, false);
        loop {
            let now = Moment::now();
            let is_early = now.since(started) < PATIENCE;
            let waiting: Vec<&Arc<Shard>> =
                self.shards.iter().filter(|shard| !shard.belonging.is_settled()).collect();
            let connected = waiting.iter().filter(|shard| shard.may_be_adopted()).count();
            if connected > 0 && (connected == waiting.len() || !is_early) {
                self.settle(if is_early { Occasion::Start } else { Occasion::Arrival }).await;
            } else if now.since(looked) >= LOOK || is_doubted {
                self.settle(Occasion::Routine).await;
                looked = Moment::now();
            }
            self.void_copies();
            let is_waiting = self.shards.iter().any(|shard| !shard.belonging.is_settled());
            let pause = if is_waiting && is_early { SOON } else { LATER };
            let doubts = self.shards.iter().map(|shard| Box::pin(shard.belonging.doubted.notified()));
            is_doubted = timeout(pause, select_all(doubts)).await.is_ok();
            if is_doubted {
                // Not again and again without a pause, however often operations ask.
                sleep(SOON).await;
            }
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
            // A shard that is known by another name changes the ring, too.
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
                // One from before that known here came back with old data, from a replica or a snapshot: it
                // is written anew, so that everybody looks at it again.
                let known_written = shard.belonging.settled().map_or(0, |settled| settled.written);
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
                            writes.push((shard.clone(), record, written, state, secret));
                        }
                    }
                }
            }
            if writes.is_empty() {
                break;
            }
            let written = join_all(writes.iter().map(|(shard, record, written, state, secret)| async move {
                let is_written = write(shard, record, *written, *state, secret).await;
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

    /// Has a task empty the shard, which may take long, and write its record then. Other shards do not wait for it.
    fn empty(&self, shard: &Arc<Shard>, record: Record, written: Option<u64>, secret: String) {
        if !shard.belonging.begin_emptying() {
            return;
        }
        let (shard, shutdown) = (shard.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            let emptied = tokio::select! {
                emptied = empty(&shard, &record, written, &secret) => emptied,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = emptied {
                tracing::debug!(%error, shard = %shard.name, "not emptied yet");
                sleep(LATER).await;
            }
            shard.belonging.end_emptying();
        });
    }

    /// Serves the shard under `record` from now on.
    fn serve(&mut self, index: ShardIndex, record: Record, written: Written) {
        let (shard, rings) = (&self.shards[usize::from(index)], &mut self.rings);
        let history = (!record.is_clean).then(|| History::new(&record, rings));
        self.secret = Some(written.identity.place_secret.to_string());
        shard.belonging.settle(Settled::new(record, written.at, written.identity, history));
        self.void_copies();
    }

    /// Chooses the secret of places for shards without one: the secret in force here, or else the most frequent secret
    /// among the shards (of equally frequent ones that of the first shard by name), or else a new secret.
    fn secret_of(&mut self, found: &[Option<Found>]) -> String {
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
        // Of equals `max_by_key` takes the last.
        let most = named.iter().rev().max_by_key(|(_, secret)| count(secret));
        most.map_or_else(random_name, |(_, secret)| (*secret).to_owned())
    }

    /// Whether this instance may serve: not where it would change under others that live what a shard owns. If so, it
    /// lets the shards know that it lives.
    async fn may_begin(&mut self, is_new: bool, is_exchanged: bool) -> bool {
        let shards = || self.shards.iter().filter(|shard| shard.may_be_adopted());
        let mut is_mismatched = false;
        if (is_new || is_exchanged) && !self.accepts_change {
            let counted = join_all(shards().map(|shard| shard.living_rings(&self.instance))).await;
            // Instances that start at once with the same new ring are no reason.
            let matters = |ring: &RingCount| is_exchanged || ring.version != self.ring_version;
            is_mismatched = counted.iter().flatten().flatten().any(|ring| ring.instances > 0 && matters(ring));
            if !is_mismatched && counted.iter().any(Option::is_none) {
                return false;
            }
        }
        for shard in &self.shards {
            shard.belonging.mismatch(is_mismatched);
        }
        if is_mismatched && !self.is_mismatched {
            tracing::error!(
                "living instances divide the keys among other shards than `redis_shards` names here: nothing is served. \
                 Correct the setting, or set accept_ring_change = true to change the shards"
            );
        }
        self.is_mismatched = is_mismatched;
        if !is_mismatched {
            // A shard that takes no writes at present is not adopted either.
            join_all(shards().map(|shard| shard.announce(&self.ring_version, &self.instance))).await;
        }
        !is_mismatched
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

/// What has to happen to a shard before it is served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing.
    Good,
    /// Its record is to be written, perhaps by another server.
    Stale,
    /// The same, and every copy of what it holds is void.
    Suspect,
    /// What it holds has another form, or lost its fence: it has to go.
    Foreign,
}

/// The secret of places that what a shard holds was put in by, where it holds anything of ours.
fn shard_secret(shard: &Shard, found: &Found) -> Option<String> {
    let of_record = found.written.as_ref().filter(|written| written.form == FORM);
    let of_record = of_record.map(|written| written.identity.place_secret.to_string());
    // A record that was lost alone was about what is still there.
    of_record.or_else(|| Some(shard.belonging.settled()?.identity.place_secret.to_string()))
}

/// What is found on a shard that was emptied.
const EMPTY: Seen = Seen { record: None, has_data: false };

impl State {
    fn of(found: &Found, shard: &Shard) -> Self {
        let Some(written) = &found.written else {
            // A record that alone was lost is written again over what it was written for.
            return if found.seen.has_data && found.seen.record.is_none() { Self::Foreign } else { Self::Stale };
        };
        let is_readable = written.form == FORM && written.is_fenced;
        if !is_readable && (found.seen.has_data || written.form == EMPTYING) {
            Self::Foreign
        } else if shard.belonging.is_suspect() {
            Self::Suspect
        } else if is_readable && written.identity.run_id == found.run_id {
            Self::Good
        } else {
            Self::Stale
        }
    }
}

fn is_known_form(form: &str) -> bool {
    form == FORM || form == EMPTYING
}

/// Writes a shard's record; tells whether it was.
async fn write(
    shard: &Shard,
    record: &Record,
    written: Option<u64>,
    state: State,
    secret: &str,
) -> Result<bool, Error> {
    let suspicions = shard.belonging.suspicions();
    let is_another = state == State::Suspect || shard.belonging.is_suspect();
    let is_written = shard.write_record(written, record, FORM, secret, is_another).await?.is_some();
    if is_written && is_another {
        shard.belonging.trust(suspicions);
    }
    Ok(is_written)
}

/// Removes what a shard holds in another form, and writes its record.
async fn empty(shard: &Shard, record: &Record, written: Option<u64>, secret: &str) -> Result<(), Error> {
    // Nobody uses the shard from here on.
    let Some(emptying) = shard.write_record(written, record, EMPTYING, secret, true).await? else { return Ok(()) };
    let gone = shard.empty(emptying).await?;
    tracing::warn!(shard = %shard.name, gone, "the shard held entries in another form and was emptied of them");
    if shard.write_record(Some(emptying), record, FORM, secret, true).await?.is_some() {
        tracing::info!(shard = %shard.name, generation = record.current.number, "ring adopted");
    }
    Ok(())
}

/// The shard's record; `None` where it does not answer. One that was lost is as it was settled.
async fn find(shard: &Shard) -> Option<Found> {
    if !shard.may_be_adopted() || shard.belonging.is_being_emptied() {
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
