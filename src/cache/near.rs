//! L1, together with its coherence and with the flights that share its misses.

use std::sync::Arc;
use std::time::Duration;

use super::flight::{Departure, FlightResult, Flights, Role};
use super::lookup::{L1SkipReason, check};
use crate::clock::Moment;
use crate::coherence::{Coherence, Freshness};
use crate::l1::{Copy, CopyRef, L1};
use crate::metrics::Metrics;
use crate::model::{Entry, EntryKey, KeyRef, ReadTerms, Unmet};
use crate::namespaces::Registry;
use crate::store::{Error, ShardIndex, SharedStore};

/// The part of a remote store's cache that lives in this process.
pub struct Near {
    l1: Arc<L1>,
    coherence: Arc<Coherence>,
    flights: Flights,
    /// Gives the policy when a copy is made or may be served stale.
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
}

/// A stale entry that is served because its shard does not answer.
#[derive(Debug)]
pub struct Stale {
    pub entry: Entry,
    /// Time since it could last be served as fresh.
    pub overdue: Duration,
    /// No acknowledged write older than this is missing from it.
    pub staleness: Duration,
}

impl Near {
    pub fn new(l1: Arc<L1>, coherence: Arc<Coherence>, registry: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        let flights = Flights::new(coherence.max_staleness());
        Self { l1, coherence, flights, registry, metrics }
    }

    /// Calls `serve` with the copy of `key`, and with its staleness, if it may be served at `now`; otherwise returns
    /// the reason. No acknowledged write older than the staleness is missing from the copy.
    ///
    /// L1 holds a lock during the call, see [`L1::with`]. Counts nothing.
    pub fn with<R>(
        &self,
        key: KeyRef<'_>,
        now: Moment,
        serve: impl FnOnce(CopyRef<'_>, Duration) -> R,
    ) -> Result<R, L1SkipReason> {
        if !self.l1.is_on() {
            return Err(L1SkipReason::Off);
        }
        let look = |copy: CopyRef<'_>| match self.coherence.freshness(copy.stamp, now) {
            Freshness::Fresh { staleness } => Ok(serve(copy, staleness)),
            Freshness::Void => Err(L1SkipReason::Void),
            Freshness::Unproven => Err(L1SkipReason::Unproven),
        };
        self.l1.with(key, now, look).unwrap_or(Err(L1SkipReason::Miss))
    }

    /// The copy of `key` and its staleness (see [`Near::with`]) if it may be served at `now` to a read with these
    /// terms; otherwise the reason.
    pub fn get(&self, key: &EntryKey, terms: &ReadTerms, now: Moment) -> Result<(Entry, Duration), L1SkipReason> {
        if terms.no_cache {
            return Err(L1SkipReason::Terms(Unmet::NoCache));
        }
        let served = self.with(key.borrowed(), now, |copy, staleness| {
            let has_reached = terms.positions.is_empty() || self.coherence.has_reached(copy.stamp, &terms.positions);
            has_reached.then(|| (Copy::of(copy), staleness))
        });
        let served = served.and_then(|served| {
            let (copy, staleness) = served.ok_or(L1SkipReason::Terms(Unmet::Position))?;
            let entry = entry(copy, now);
            check(terms, &entry, Duration::ZERO, staleness).map_err(L1SkipReason::Terms)?;
            Ok((entry, staleness))
        });
        match served {
            Ok(_) => {
                self.metrics.l1_hits.increment(1);
                if !terms.positions.is_empty() {
                    self.metrics.position_reads.l1.increment(1);
                }
            }
            Err(L1SkipReason::Void) => self.metrics.l1_void.increment(1),
            Err(L1SkipReason::Unproven) => self.metrics.l1_unproven.increment(1),
            Err(L1SkipReason::Miss | L1SkipReason::Off | L1SkipReason::Terms(_)) => {}
        }
        served
    }

    /// A stale copy of `key` (expired or unproven) that may be served instead of this error: the shard did not answer,
    /// and the namespace's policy and the terms of the read allow it. A copy that was voided by an invalidation, or by
    /// a write of this instance, does not exist any more, so it is never served.
    pub fn stand_in(&self, key: &EntryKey, terms: &ReadTerms, error: &Error) -> Option<Stale> {
        if terms.no_cache || !terms.positions.is_empty() || !error.is_unanswered() {
            return None;
        }
        let longest = self.registry.policy(key.namespace()).stale_if_error?.as_duration();
        let copy = self.l1.get_stale(key)?;
        let watermark = self.coherence.last_watermark(copy.stamp)?;
        let proven_until = watermark + self.coherence.max_staleness();
        let fresh_until = copy.expires_at.map_or(proven_until, |expires_at| expires_at.min(proven_until));
        let now = Moment::now();
        let overdue = now.since(fresh_until);
        if overdue > longest {
            return None;
        }
        let (entry, staleness) = (entry(copy, now), now.since(watermark));
        check(terms, &entry, overdue, staleness).ok()?;
        self.metrics.l1_hits.increment(1);
        self.metrics.stale_answers.increment(1);
        Some(Stale { entry, overdue, staleness })
    }

    /// Call this before a read of the store and pass the result to [`Near::learn`].
    pub fn departure(&self, key: &EntryKey, store: &SharedStore) -> Departure {
        // Take the stamp first: if the epoch changes before the fence is taken, the copy has the old epoch and is
        // void.
        let stamp = self.coherence.stamp(store.shard_of(key));
        Departure { fence: self.l1.fence(key), stamp }
    }

    /// Reads `key` from the store, shared with other requests for it, and keeps a copy. The answer is at most as
    /// stale as the terms allow.
    pub async fn load(&self, key: &EntryKey, terms: &ReadTerms, store: &SharedStore) -> (FlightResult, Role) {
        let departure = self.departure(key, store);
        let load = || {
            let (key, store, l1) = (key.clone(), store.clone(), self.l1.clone());
            let (registry, metrics) = (self.registry.clone(), self.metrics.clone());
            async move {
                let asked_at = Moment::now();
                metrics.shard_reads.increment(1);
                let landed = store.get(&key).await;
                if let Ok(found) = &landed {
                    learn(&l1, &registry, &key, found.as_ref(), asked_at, departure);
                }
                landed
            }
        };
        let (flight, role) = self.flights.join(key, departure, terms.max_staleness.unwrap_or(Duration::MAX), load);
        let landed = flight.await;
        if role == Role::Follower {
            self.metrics.coalesced_reads.increment(1);
        }
        (landed, role)
    }

    /// Keeps the store's answer to a read outside of a flight, which was sent at `asked_at`. From now on no read may
    /// return an older value.
    pub fn learn(&self, key: &EntryKey, found: Option<&Entry>, asked_at: Moment, departure: Departure) {
        learn(&self.l1, &self.registry, key, found, asked_at, departure);
        self.flights.close(key);
    }

    /// Whether all changes on this shard up to a recent moment are known here.
    pub fn is_proven(&self, shard: ShardIndex, now: Moment) -> bool {
        self.coherence.is_proven(shard, now)
    }

    /// How old an answer may be.
    pub fn max_staleness(&self) -> Duration {
        self.coherence.max_staleness()
    }

    /// Updates the gauges before the metrics are shown.
    pub fn refresh_gauges(&self) {
        self.coherence.refresh_gauges();
    }

    pub fn void(&self, key: &EntryKey) {
        self.l1.void(key);
    }

    /// Voids a whole namespace, for when it is not known which keys changed.
    pub fn void_namespace(&self, namespace: &str) {
        let prefix = format!("{namespace}:");
        self.l1.void_where(|text| text.starts_with(&prefix));
    }
}

/// Keeps a copy of the entry, or voids the key if there was no entry.
fn learn(
    l1: &L1,
    registry: &Registry,
    key: &EntryKey,
    found: Option<&Entry>,
    asked_at: Moment,
    departure: Departure,
) {
    let Some(entry) = found else { return l1.void(key) };
    // Counted from before the read was sent, so that a copy never outlives its entry.
    let expires_at = match (entry.expires_in, entry.overdue) {
        (None, _) => None,
        (Some(left), None) => Some(asked_at + left),
        (Some(_), Some(overdue)) => match asked_at.earlier(overdue) {
            Some(expires_at) => Some(expires_at),
            // It was fresh only before this machine's boot: no moment says so.
            None => return l1.void(key),
        },
    };
    let copy = Copy {
        value: entry.value.clone(),
        version: entry.version,
        created_at: entry.created_at,
        expires_at,
        // An entry that never expires needs no extra time.
        stale_seconds: match entry.expires_in {
            Some(_) => registry.policy(key.namespace()).stale_if_error_seconds().try_into().unwrap_or(u32::MAX),
            None => 0,
        },
        extra: entry.extra,
        stamp: departure.stamp,
    };
    l1.insert(key, copy, departure.fence);
}

fn entry(copy: Copy, now: Moment) -> Entry {
    Entry {
        overdue: copy.overdue(now),
        value: copy.value,
        version: copy.version,
        created_at: copy.created_at,
        expires_in: copy.expires_at.map(|expires_at| expires_at.since(now)),
        extra: copy.extra,
    }
}
