//! Reads that ask for a lease: of all callers of the fleet that miss a key, one gets the lease, and the others wait
//! for its value.
//!
//! The store decides who gets a lease. Here the callers of one instance take turns, so that only one at a time asks
//! the store about a key:
//!
//! 1. a caller enters the key's *waiting room* and starts to listen, before it asks;
//! 2. it waits for its turn, and looks whether L1 has the value by now;
//! 3. it takes the answer that another caller got meanwhile, or an earlier answer that still holds; otherwise it asks
//!    the store;
//! 4. if another caller has the lease, it leaves its turn to the next and waits for a change of the key, for the end of
//!    the lease, or for the end of its patience.
//!
//! A wake-up may come without a reason, and it may be lost with the messages of a shard. While it is not proven that
//! the messages arrive, one of the waiting callers asks the store again and again, a few times a second. These reads
//! never join plain reads (`flight.rs`), because the answer of a plain read gives no lease.

use std::pin::pin;
use std::time::Duration;

use tokio::select;
use tokio::time::{sleep, timeout};

use super::lookup::{AnsweredBy, L1SkipReason, Lookup};
use super::observe::ReadEnd;
use super::won_lease::{Lease, WonLease};
use super::{Cache, Error, RESERVED_KEY};
use crate::clock::Moment;
use crate::coherence::{LastAnswer, SharedAnswer};
use crate::metrics::Metrics;
use crate::model::{Entry, EntryKey, LeaseRequest, LeaseToken, Operation, Position, ReadTerms, Unmet, Version};
use crate::stats::LeaseCounts;
use crate::store::{self, Grant, Leased};

/// The longest time that a caller without patience waits for its turn.
const LONGEST_TURN: Duration = Duration::from_millis(250);

/// How often callers that wait check whether the messages of their shard still arrive.
const CHECK: Duration = Duration::from_secs(1);

/// How often one waiting caller asks the store while it is not proven that messages arrive.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// An answered read that asked for a lease.
#[derive(Debug)]
pub struct LeasedLookup {
    pub lookup: Lookup,
    /// `None` if the entry was found and this caller need not refresh it, or if the store gives no lease at present.
    pub lease: Option<Lease>,
}

/// A read that asks for a lease.
pub(super) struct Question<'r> {
    pub key: &'r EntryKey,
    pub terms: &'r ReadTerms,
    pub lease: Duration,
    pub unwanted: Option<Unwanted>,
}

/// An entry that is there and does not meet a term of the read. For this read it counts as missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unwanted {
    version: Version,
    term: Unmet,
}

impl Question<'_> {
    /// The version of the entry that counts as missing.
    fn beyond(&self) -> Option<Version> {
        self.unwanted.map(|unwanted| unwanted.version)
    }
}

/// What a caller learned in its turn.
enum Turn {
    Answered(LeasedLookup),
    /// Another caller has the lease. The lookup is the answer if this caller does not wait.
    Held {
        until: Moment,
        lookup: Lookup,
    },
    /// Ask again, for a lease although there is this entry.
    Unwanted(Unwanted),
}

/// What the store answered to a read that asked for a lease.
pub(super) struct StoreAnswer {
    pub answer: SharedAnswer,
    pub grant: Grant,
    /// The lease, if this caller got it.
    pub won: Option<WonLease>,
}

/// Counts a caller that waits for a value. When it is dropped, it records how long the caller waited.
struct Waiter<'c> {
    metrics: &'c Metrics,
    since: Moment,
}

impl<'c> Waiter<'c> {
    fn begin(metrics: &'c Metrics) -> Self {
        metrics.lease_waiting.increment(1.0);
        Self { metrics, since: Moment::now() }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.metrics.lease_waiting.decrement(1.0);
        self.metrics.leases.wait.observe(Moment::now().since(self.since));
    }
}

impl Cache {
    /// Reads an entry. If the key has no entry, gets a lease on the key.
    ///
    /// # Errors
    /// The owning shard failed.
    pub async fn get_or_lease(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
        request: LeaseRequest,
    ) -> Result<LeasedLookup, Error> {
        let started = Moment::now();
        let result = self.look_up_or_lease(key, terms, request, started).await;
        let (result, lease) = match result {
            Ok(LeasedLookup { lookup, lease }) => (Ok(lookup), lease),
            Err(error) => (Err(error), None),
        };
        self.count_position_read(terms, result.as_ref());
        let result = result.map_err(Error::from);
        let end = match (ReadEnd::of(&result), &lease) {
            (ReadEnd::Miss(tier), Some(lease)) => ReadEnd::Leased(tier, lease),
            (end, _) => end,
        };
        self.observe_read(Operation::Get, key.borrowed(), &end, started);
        self.count_leases(key.namespace(), lease.iter());
        result.map(|lookup| LeasedLookup { lookup, lease })
    }

    async fn look_up_or_lease(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
        request: LeaseRequest,
        started: Moment,
    ) -> Result<LeasedLookup, store::Error> {
        // Most reads find the entry, and need no room.
        let mut question = Question { key, terms, lease: request.lease, unwanted: None };
        if let Some(found) = self.find_or_refresh(&question).await? {
            return Ok(found);
        }
        let Some(place) = self.waiting.enter(key) else {
            return self.look_up_without_turn(key, terms, started).await;
        };
        let (room, patience_ends) = (place.room(), started + request.wait);
        let mut waiter = None;
        loop {
            // Listen first: a change after this moment ends the wait below, and a change before it is in every answer
            // that the store is asked for from now on.
            let mut changed = pin!(room.changed());
            changed.as_mut().enable();
            let listening_since = Moment::now();
            let patience = patience_ends.since(listening_since).max(LONGEST_TURN);
            let Ok(mut last) = timeout(patience, room.turn.lock()).await else {
                // The shard hangs. A plain read has its own ways out: the breaker, and stale copies.
                return self.look_up_without_turn(key, terms, started).await;
            };
            let turn = self.take_turn(&question, &mut last, room.changes(), listening_since).await?;
            drop(last);
            let (until, lookup) = match turn {
                Turn::Answered(answer) => return Ok(answer),
                Turn::Held { until, lookup } => (until, lookup),
                Turn::Unwanted(unwanted) => {
                    question.unwanted = Some(unwanted);
                    continue;
                }
            };
            let now = Moment::now();
            if now >= patience_ends {
                return Ok(LeasedLookup { lookup, lease: Some(Lease::Held { left: until.since(now) }) });
            }
            waiter.get_or_insert_with(|| Waiter::begin(&self.metrics));
            let next_check = if self.hears_of_changes(key, now) { CHECK } else { ASK_AGAIN };
            select! {
                () = changed => {}
                () = sleep(until.since(now).min(patience_ends.since(now)).min(next_check)) => {}
            }
        }
    }

    /// One turn of a caller: looks into L1, takes the latest answer of the room if that is good enough, or asks the
    /// store. `changes` was read before, and the caller hears of every change since `listening_since`.
    async fn take_turn(
        &self,
        question: &Question<'_>,
        last: &mut Option<LastAnswer>,
        changes: u64,
        listening_since: Moment,
    ) -> Result<Turn, store::Error> {
        let Question { key, terms, .. } = *question;
        let answered = |lookup, lease| Turn::Answered(LeasedLookup { lookup, lease });
        if let Some(lookup) = self.look_up_nearby(key, terms)? {
            return Ok(answered(lookup, None));
        }
        let is_usable = |last: &&LastAnswer| {
            // A read with positions asks for itself: nobody else had the shard check them.
            let may_share = terms.positions.is_empty() && last.beyond == question.beyond();
            may_share && (last.asked >= listening_since || self.still_holds(key, terms, last, changes))
        };
        let known = last.as_ref().filter(is_usable).map(|last| last.answer.clone());
        let miss = self.miss(question, known.is_some());
        let answer = match known {
            Some(answer) => answer,
            None => {
                let asked = Moment::now();
                let StoreAnswer { answer, won, .. } = match self.ask_for_lease(question, asked).await {
                    Ok(answer) => answer,
                    Err(error) => return Ok(answered(self.stale_lookup(key, terms, error)?, None)),
                };
                *last = Some(LastAnswer { asked, changes, beyond: question.beyond(), answer: answer.clone() });
                match (won, answer) {
                    (Some(won), SharedAnswer::Entry(entry)) => {
                        return Ok(Turn::Answered(self.found(entry, terms, miss.trail, Some(won))));
                    }
                    (Some(won), _) => return Ok(answered(miss, Some(Lease::Won(won)))),
                    (None, answer) => answer,
                }
            }
        };
        Ok(match answer {
            SharedAnswer::Held { until } => Turn::Held { until, lookup: miss },
            SharedAnswer::NotGiven => answered(miss, None),
            SharedAnswer::Entry(entry) => {
                let version = entry.version;
                let lookup = Lookup::of_store(Some(entry), terms, miss.trail);
                match lookup.unmet {
                    Some(term) => Turn::Unwanted(Unwanted { version, term }),
                    None => answered(lookup, None),
                }
            }
        })
    }

    /// Reads an entry without asking for a lease. If there is no entry, the caller is told that another one loads it.
    async fn look_up_without_turn(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
        started: Moment,
    ) -> Result<LeasedLookup, store::Error> {
        let lookup = self.look_up(key, terms, started).await?;
        let lease = lookup.entry.is_none().then_some(Lease::Held { left: LeaseRequest::SHORTEST });
        Ok(LeasedLookup { lookup, lease })
    }

    /// Whether the store would say the same now: the lease is held, and nothing has ended it as far as is known here.
    fn still_holds(&self, key: &EntryKey, terms: &ReadTerms, last: &LastAnswer, changes: u64) -> bool {
        let now = Moment::now();
        // Such a read wants to know what the shard says now.
        let may_be_known = !terms.no_cache && terms.max_staleness.is_none();
        let is_held = matches!(last.answer, SharedAnswer::Held { until } if until > now) && last.changes == changes;
        let is_recent =
            || self.near.as_ref().is_some_and(|near| now.since(last.asked) < near.max_staleness().min(ASK_AGAIN));
        is_held && may_be_known && (self.hears_of_changes(key, now) || is_recent())
    }

    /// Asks the store for a lease.
    pub(super) async fn ask_for_lease(
        &self,
        question: &Question<'_>,
        asked: Moment,
    ) -> Result<StoreAnswer, store::Error> {
        let Question { key, terms, lease, .. } = *question;
        let mut asking = self.new_lease(key, lease);
        let departure = self.near.as_ref().map(|near| near.departure(key, &self.store));
        self.metrics.shard_reads.increment(1);
        let wanted = asking.wanted(question.beyond(), Some(self.refresh_after(key)));
        let mut answers = self.store.get_or_lease(&[wanted], lease, &terms.positions, &|_| true).await;
        let Leased { entry, lease: grant } = answers.pop().expect("one answer for one key")?;
        // Without an entry in the answer it is unknown whether the unwanted one is still there.
        let is_known = entry.is_some() || question.unwanted.is_none();
        if let (Some(near), Some(departure), true) = (&self.near, departure, is_known) {
            near.learn(key, entry.as_ref(), asked, departure);
        }
        // What may not be answered counts as missing: one caller loads, and the others wait.
        let answer = match (entry.filter(Entry::is_answerable), grant) {
            (Some(entry), _) => SharedAnswer::Entry(entry),
            (None, Grant::Won) => SharedAnswer::Held { until: asked + lease },
            (None, Grant::Held { left }) => SharedAnswer::Held { until: asked + left },
            (None, Grant::NotGiven | Grant::NotDue { .. }) => SharedAnswer::NotGiven,
        };
        let won = if grant == Grant::Won {
            Some(asking)
        } else {
            asking.settle();
            None
        };
        Ok(StoreAnswer { answer, grant, won })
    }

    /// The entry, if L1 has it and it meets the terms.
    ///
    /// # Errors
    /// L1 does not have it, and no shard may be asked.
    pub(super) fn look_up_nearby(&self, key: &EntryKey, terms: &ReadTerms) -> Result<Option<Lookup>, store::Error> {
        let Some(near) = &self.near else { return Ok(None) };
        match near.get(key, terms, Moment::now()) {
            Ok((entry, staleness)) => Ok(Some(Lookup::hit(entry, AnsweredBy::L1 { staleness }))),
            Err(_) if terms.only_if_cached => Err(store::Error::NotInMemory),
            Err(_) => Ok(None),
        }
    }

    /// Whether a change of the key on another instance would be known here by now.
    fn hears_of_changes(&self, key: &EntryKey, now: Moment) -> bool {
        self.near.as_ref().is_none_or(|near| near.is_proven(self.store.shard_of(key), now))
    }

    /// A read of the owning shard that found nothing, or an unwanted entry. `collapsed`: another caller asked.
    pub(super) fn miss(&self, question: &Question<'_>, collapsed: bool) -> Lookup {
        let unmet = question.unwanted.map(|unwanted| unwanted.term);
        let shard = self.store.shard_of(question.key);
        let skipped = unmet.map_or(L1SkipReason::Miss, L1SkipReason::Terms);
        let trail = match &self.near {
            Some(_) => AnsweredBy::Shard { shard, skipped, collapsed },
            None => AnsweredBy::Embedded,
        };
        Lookup { entry: None, unmet, trail }
    }

    /// Gives a lease up without a value. Returns the position after that; `None` if the lease did not stand.
    ///
    /// # Errors
    /// The key is reserved, or the owning shard failed.
    pub async fn release(&self, key: &EntryKey, token: &LeaseToken) -> Result<Option<Position>, Error> {
        if key.key() == RESERVED_KEY {
            return Err(Error::ReservedKey);
        }
        let released = self.store.release(key, token).await?;
        self.waiting.changed(key);
        if released.is_some() {
            self.metrics.leases.released.increment(1);
        }
        Ok(released)
    }

    /// Counts the leases that a read got or was refused. Call it after the read is counted, which makes its namespace
    /// known.
    pub(super) fn count_leases<'l>(&self, namespace: &str, leases: impl Iterator<Item = &'l Lease>) {
        let mut counts = LeaseCounts::default();
        leases.for_each(|lease| match lease {
            Lease::Won(_) => counts.won += 1,
            Lease::Held { .. } => counts.held += 1,
        });
        self.record_leases(namespace, counts);
    }

    /// Counts how a change ended that may have preconditions.
    pub(super) fn count_conditions<T>(&self, namespace: &str, fills_lease: bool, result: &Result<T, store::Error>) {
        match result {
            Ok(_) if fills_lease => {
                self.record_leases(namespace, LeaseCounts { filled: 1, ..LeaseCounts::default() });
            }
            Err(store::Error::LeaseLost) => {
                self.record_leases(namespace, LeaseCounts { lost: 1, ..LeaseCounts::default() });
            }
            Err(store::Error::PreconditionFailed { .. }) => self.metrics.preconditions_failed.increment(1),
            _ => {}
        }
    }

    fn record_leases(&self, namespace: &str, counts: LeaseCounts) {
        if counts == LeaseCounts::default() {
            return;
        }
        let LeaseCounts { won, held, filled, lost } = counts;
        let metrics = &self.metrics.leases;
        for (counter, count) in
            [(&metrics.won, won), (&metrics.held, held), (&metrics.filled, filled), (&metrics.lost, lost)]
        {
            counter.increment(count);
        }
        self.counters.record_leases(namespace, counts);
    }
}
