//! L1 together with what keeps it true and what shares its misses.

use std::sync::Arc;
use std::time::Duration;

use super::flight::{Departure, Flights, Landed, Role};
use super::read::Skipped;
use crate::clock::Moment;
use crate::coherence::{Coherence, Freshness};
use crate::l1::{Copy, CopyRef, L1};
use crate::metrics::Metrics;
use crate::model::{Entry, EntryKey, KeyRef};
use crate::namespaces::Registry;
use crate::store::SharedStore;

/// The near side of a remote store.
pub struct Near {
    l1: Arc<L1>,
    coherence: Arc<Coherence>,
    flights: Flights,
    /// Asked when a copy is made, or has to stand in.
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
}

/// An entry that stands in for the answer of its shard.
#[derive(Debug)]
pub struct Stale {
    pub entry: Entry,
    /// Since the last moment at which it could have been served as fresh.
    pub overdue: Duration,
}

impl Near {
    pub fn new(l1: Arc<L1>, coherence: Arc<Coherence>, registry: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        let flights = Flights::new(coherence.max_staleness());
        Self { l1, coherence, flights, registry, metrics }
    }

    /// Has `serve` look at the copy of `key`, if there is one that may be served at `now`; else why not.
    ///
    /// L1 holds a lock meanwhile, see [`L1::with`]. Counts nothing.
    pub fn with<R>(&self, key: KeyRef<'_>, now: Moment, serve: impl FnOnce(CopyRef<'_>) -> R) -> Result<R, Skipped> {
        if !self.l1.is_on() {
            return Err(Skipped::Off);
        }
        let look = |copy: CopyRef<'_>| match self.coherence.freshness(copy.stamp, now) {
            Freshness::Fresh => Ok(serve(copy)),
            Freshness::Void => Err(Skipped::Void),
            Freshness::Unproven => Err(Skipped::Unproven),
        };
        self.l1.with(key, now, look).unwrap_or(Err(Skipped::Miss))
    }

    /// The copy of `key`, if there is one that may be served at `now`; else why not.
    pub fn get(&self, key: &EntryKey, now: Moment) -> Result<Entry, Skipped> {
        let served = self.with(key.borrowed(), now, Copy::of);
        match served {
            Ok(_) => self.metrics.l1_hits.increment(1),
            Err(Skipped::Void) => self.metrics.l1_void.increment(1),
            Err(Skipped::Unproven) => self.metrics.l1_unproven.increment(1),
            Err(Skipped::Miss | Skipped::Off | Skipped::Request) => {}
        }
        served.map(|copy| entry(copy, now))
    }

    /// A copy of `key` past its bound or past its expiry, if the namespace's policy lets it stand in while
    /// the shard does not answer. Never one that an invalidation voided, or a write here: that one is gone.
    pub fn stand_in(&self, key: &EntryKey) -> Option<Stale> {
        let longest = self.registry.policy(key.namespace()).stale_if_error?.as_duration();
        let copy = self.l1.get_stale(key)?;
        let proven_until = self.coherence.proven_until(copy.stamp)?;
        let fresh_until = copy.expires_at.map_or(proven_until, |expires_at| expires_at.min(proven_until));
        let now = Moment::now();
        let overdue = now.since(fresh_until);
        if overdue > longest {
            return None;
        }
        self.metrics.l1_hits.increment(1);
        self.metrics.stale_answers.increment(1);
        Some(Stale { entry: entry(copy, now), overdue })
    }

    /// The moment before a read of the store, which [`Near::learn`] wants to know.
    pub fn departure(&self, key: &EntryKey, store: &SharedStore) -> Departure {
        // The stamp first: an epoch that ends between the two moves on and makes it void.
        let stamp = self.coherence.stamp(store.shard_of(key));
        Departure { fence: self.l1.fence(key), stamp }
    }

    /// Reads `key` from the store, together with whoever else wants it now, and keeps a copy.
    pub async fn load(&self, key: &EntryKey, store: &SharedStore) -> (Landed, Role) {
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
        let (landed, role) = self.flights.join(key, departure, load).await;
        if role == Role::Follower {
            self.metrics.coalesced_reads.increment(1);
        }
        (landed, role)
    }

    /// Notes what the store answered to a question that was asked at `asked_at` and is no flight: from
    /// now on nobody is answered with what is older.
    pub fn learn(&self, key: &EntryKey, found: Option<&Entry>, asked_at: Moment, departure: Departure) {
        learn(&self.l1, &self.registry, key, found, asked_at, departure);
        self.flights.close(key);
    }

    /// Brings the metrics that are gauges up to now, before they are shown.
    pub fn refresh_gauges(&self) {
        self.coherence.refresh_gauges();
    }

    pub fn void(&self, key: &EntryKey) {
        self.l1.void(key);
    }

    /// Voids a whole namespace, where it is not known which keys changed.
    pub fn void_namespace(&self, namespace: &str) {
        let prefix = format!("{namespace}:");
        self.l1.void_where(|text| text.starts_with(&prefix));
    }
}

/// Keeps a copy of what was found; where nothing was, there is none to keep.
fn learn(
    l1: &L1,
    registry: &Registry,
    key: &EntryKey,
    found: Option<&Entry>,
    asked_at: Moment,
    departure: Departure,
) {
    let Some(entry) = found else { return l1.void(key) };
    let copy = Copy {
        value: entry.value.clone(),
        version: entry.version,
        created_at: entry.created_at,
        // Counted from before the question, so that a copy never outlives its entry.
        expires_at: entry.expires_in.map(|left| asked_at + left),
        // What never expires is kept without a reason.
        stale_seconds: match entry.expires_in {
            Some(_) => registry.policy(key.namespace()).stale_if_error_seconds().try_into().unwrap_or(u32::MAX),
            None => 0,
        },
        stamp: departure.stamp,
    };
    l1.insert(key, copy, departure.fence);
}

fn entry(copy: Copy, now: Moment) -> Entry {
    Entry {
        value: copy.value,
        version: copy.version,
        created_at: copy.created_at,
        expires_in: copy.expires_at.map(|expires_at| expires_at.since(now)),
    }
}
