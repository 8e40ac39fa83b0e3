//! Reads that ask for a lease: of all callers of the fleet that miss a key, one gets the lease, and the others wait
//! for its value.
//!
//! The store decides who gets a lease. Here the callers of one instance take turns, so that only one at a time asks
//! the store about a key:
//!
//! 1. a caller enters the key's *waiting room* and starts to listen, before it asks;
//! 2. it waits for its turn, and looks whether L1 has the value by now;
//! 3. it asks the store, unless a caller before it learned how long the lease is held and the key has not changed since;
//! 4. if another caller has the lease, it leaves its turn to the next and waits for a change of the key, for the end of
//!    the lease, or for the end of its patience.
//!
//! A wake-up may come without a reason and may be lost with the invalidations of a shard: then the end of the lease
//! ends the wait. These reads never join plain reads (`flight.rs`), because the answer of a plain read gives no lease.

use std::pin::pin;
use std::time::Duration;

use tokio::select;
use tokio::time::{sleep, timeout};

use super::lookup::{AnsweredBy, L1SkipReason, Lookup};
use super::observe::ReadEnd;
use super::won_lease::{Lease, WonLease};
use super::{Cache, Error, RESERVED_KEY};
use crate::clock::Moment;
use crate::coherence::Held;
use crate::model::{Entry, EntryKey, LeaseRequest, LeaseToken, Operation, ReadTerms, Unmet, Version};
use crate::store::{self, Leased};

/// An entry that is there and does not meet a term of the read. For this read it counts as missing.
#[derive(Clone, Copy, Debug)]
struct Unwanted {
    version: Version,
    term: Unmet,
}

fn version(unwanted: Option<Unwanted>) -> Option<Version> {
    unwanted.map(|unwanted| unwanted.version)
}

/// The longest time that a caller without patience waits for its turn.
const LONGEST_TURN: Duration = Duration::from_millis(250);

/// An answered read that asked for a lease.
#[derive(Debug)]
pub struct LeasedLookup {
    pub lookup: Lookup,
    /// `None` if the entry was found, or if the store gives no lease at present.
    pub lease: Option<Lease>,
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
        self.count_lease(lease.as_ref());
        self.observe_read(Operation::Get, key.borrowed(), &ReadEnd::of(&result), started);
        result.map(|lookup| LeasedLookup { lookup, lease })
    }

    async fn look_up_or_lease(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
        request: LeaseRequest,
        started: Moment,
    ) -> Result<LeasedLookup, Error> {
        // Most reads find the entry, and need no room.
        if let Some(lookup) = self.look_up_nearby(key, terms).await? {
            return Ok(LeasedLookup { lookup, lease: None });
        }
        let Some(place) = self.waiting.enter(key) else {
            let lookup = self.look_up(key, terms, started).await?;
            let lease = lookup.entry.is_none().then_some(Lease::Held { left: LeaseRequest::SHORTEST });
            return Ok(LeasedLookup { lookup, lease });
        };
        let room = place.room();
        let patience_ends = started + request.wait;
        // Such a read wants to know what the shard says now.
        let may_be_known = !terms.no_cache && terms.max_staleness.is_none();
        let mut unwanted: Option<Unwanted> = None;
        loop {
            let mut changed = pin!(room.changed());
            changed.as_mut().enable();
            let patience = patience_ends.since(Moment::now()).max(LONGEST_TURN);
            let Ok(mut turn) = timeout(patience, room.turn.lock()).await else {
                // The shard hangs. A plain read has its own ways out: the breaker, and stale copies.
                let lookup = self.look_up(key, terms, started).await?;
                let lease = lookup.entry.is_none().then_some(Lease::Held { left: LeaseRequest::SHORTEST });
                return Ok(LeasedLookup { lookup, lease });
            };
            if let Some(lookup) = self.look_up_nearby(key, terms).await? {
                return Ok(LeasedLookup { lookup, lease: None });
            }
            let changes = room.changes();
            let now = Moment::now();
            let is_known = |held: &Held| {
                let is_current = held.changes == changes && held.until > now && held.beyond == version(unwanted);
                is_current && may_be_known && self.hears_of_changes(key, now)
            };
            let (left, lookup) = match turn.filter(is_known) {
                Some(held) => (held.until.since(now), self.miss(key, unwanted)),
                None => {
                    let mut asked = self.new_lease(key, request.lease);
                    let (leased, lookup) = match self.ask_for_lease(&asked, terms, unwanted).await {
                        Ok(answer) => answer,
                        Err(error) => {
                            let lookup = self.stale_lookup(key, terms, error)?;
                            return Ok(LeasedLookup { lookup, lease: None });
                        }
                    };
                    match leased {
                        Leased::Won => {
                            *turn = Some(Held { until: now + request.lease, changes, beyond: version(unwanted) });
                            return Ok(LeasedLookup { lookup, lease: Some(Lease::Won(asked)) });
                        }
                        Leased::Held { left } => {
                            asked.settle();
                            *turn = Some(Held { until: now + left, changes, beyond: version(unwanted) });
                            (left, lookup)
                        }
                        Leased::Entry(Entry { version, .. }) if let Some(term) = lookup.unmet => {
                            // Ask again, for a lease although there is this entry.
                            asked.settle();
                            unwanted = Some(Unwanted { version, term });
                            continue;
                        }
                        Leased::Entry(_) | Leased::NotGiven => {
                            asked.settle();
                            return Ok(LeasedLookup { lookup, lease: None });
                        }
                    }
                }
            };
            drop(turn);
            let now = Moment::now();
            if now >= patience_ends {
                return Ok(LeasedLookup { lookup, lease: Some(Lease::Held { left }) });
            }
            select! {
                () = changed => {}
                () = sleep(left.min(patience_ends.since(now))) => {}
            }
        }
    }

    /// Asks the store. The lookup is the answer to the read.
    async fn ask_for_lease(
        &self,
        asked: &WonLease,
        terms: &ReadTerms,
        unwanted: Option<Unwanted>,
    ) -> Result<(Leased, Lookup), store::Error> {
        let key = asked.key();
        let departure = self.near.as_ref().map(|near| near.departure(key, &self.store));
        let asked_at = Moment::now();
        self.metrics.shard_reads.increment(1);
        let mut answers =
            self.store.get_or_lease(&[asked.wanted(version(unwanted))], asked.duration(), &|_| true).await;
        let leased = answers.pop().expect("one answer for one key")?;
        let entry = if let Leased::Entry(entry) = &leased { Some(entry.clone()) } else { None };
        // Without an entry in the answer it is unknown whether the unwanted one is still there.
        let is_known = entry.is_some() || unwanted.is_none();
        if let (Some(near), Some(departure), true) = (&self.near, departure, is_known) {
            near.learn(key, entry.as_ref(), asked_at, departure);
        }
        let miss = self.miss(key, unwanted);
        let lookup = if entry.is_some() { Lookup::of_store(entry, terms, miss.trail) } else { miss };
        Ok((leased, lookup))
    }

    /// The entry, if L1 or a store in this process has it and it meets the terms.
    async fn look_up_nearby(&self, key: &EntryKey, terms: &ReadTerms) -> Result<Option<Lookup>, store::Error> {
        let Some(near) = &self.near else {
            let lookup = Lookup::of_store(self.store.get(key).await?, terms, AnsweredBy::Embedded);
            return Ok(Some(lookup).filter(|lookup| lookup.entry.is_some()));
        };
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

    /// A read of the owning shard that found nothing, or an unwanted entry.
    fn miss(&self, key: &EntryKey, unwanted: Option<Unwanted>) -> Lookup {
        let unmet = unwanted.map(|unwanted| unwanted.term);
        let shard = self.store.shard_of(key);
        let trail = match &self.near {
            Some(_) => AnsweredBy::Shard {
                shard,
                skipped: unmet.map_or(L1SkipReason::Miss, L1SkipReason::Terms),
                collapsed: false,
            },
            None => AnsweredBy::Embedded,
        };
        Lookup { entry: None, unmet, trail }
    }

    /// Gives a lease up without a value. Returns whether it stood.
    ///
    /// # Errors
    /// The key is reserved, or the owning shard failed.
    pub async fn release(&self, key: &EntryKey, token: &LeaseToken) -> Result<bool, Error> {
        if key.key() == RESERVED_KEY {
            return Err(Error::ReservedKey);
        }
        let released = self.store.release(key, token).await?;
        self.waiting.changed(key);
        if released {
            self.metrics.leases.released.increment(1);
        }
        Ok(released)
    }

    /// Counts a lease that a read got or was refused.
    pub(super) fn count_lease(&self, lease: Option<&Lease>) {
        match lease {
            Some(Lease::Won(_)) => self.metrics.leases.won.increment(1),
            Some(Lease::Held { .. }) => self.metrics.leases.held.increment(1),
            None => {}
        }
    }

    /// Counts how a change ended that may have preconditions.
    pub(super) fn count_conditions<T>(&self, fills_lease: bool, result: &Result<T, store::Error>) {
        match result {
            Ok(_) if fills_lease => self.metrics.leases.filled.increment(1),
            Err(store::Error::LeaseLost) => self.metrics.leases.lost.increment(1),
            Err(store::Error::PreconditionFailed { .. }) => self.metrics.preconditions_failed.increment(1),
            Err(store::Error::NewerVersionExists { .. }) => self.metrics.outdated_changes.increment(1),
            _ => {}
        }
    }
}
