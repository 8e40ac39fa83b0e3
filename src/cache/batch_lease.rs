//! Batch reads that ask for leases. Unlike a read of one entry (`lease.rs`), a batch neither waits for values nor for
//! its turn: it asks the store about all missing keys at once.

use std::time::Duration;

use super::Cache;
use super::lookup::Fetched;
use super::won_lease::{Lease, WonLease};
use crate::clock::Moment;
use crate::model::{EntryKey, ReadTerms, WantedLease};
use crate::store::{self, Grant, Leased, Room};

impl Cache {
    /// Fetches entries from the store, keeps copies, and gets a lease on each key without an entry. The answers are in
    /// the order of `keys`. Leases that the caller does not learn of are given back.
    pub(super) async fn fetch_or_lease(
        &self,
        keys: &[EntryKey],
        terms: &ReadTerms,
        lease: Duration,
        room: Room<'_>,
    ) -> Vec<Fetched> {
        let departure = |key| self.near.as_ref().map(|near| near.departure(key, &self.store));
        let departures: Vec<_> = keys.iter().map(departure).collect();
        let asked: Vec<WonLease> = keys.iter().map(|key| self.new_lease(key, lease)).collect();
        let wanted: Vec<WantedLease> = asked.iter().map(|asked| asked.wanted(None, None)).collect();
        let asked_at = Moment::now();
        self.metrics.shard_reads.increment(keys.len() as u64);
        let answers = self.store.get_or_lease(&wanted, lease, &terms.positions, room).await;
        self.count_position_reads(terms, &answers);
        let fetched = asked.into_iter().zip(departures).zip(answers).map(|((asked, departure), answer)| {
            if let (Ok(leased), Some(near), Some(departure)) = (&answer, &self.near, departure) {
                near.learn(asked.key(), leased.entry.as_ref(), asked_at, departure);
            }
            self.fetched_or_leased(asked, terms, answer)
        });
        fetched.collect()
    }

    /// The result for one key.
    fn fetched_or_leased(
        &self,
        mut asked: WonLease,
        terms: &ReadTerms,
        answer: Result<Leased, store::Error>,
    ) -> Fetched {
        let Leased { entry, lease } = match answer {
            Ok(leased) => leased,
            Err(error) => {
                if matches!(error, store::Error::Unavailable { .. }) {
                    // Nothing was executed.
                    asked.settle();
                }
                return self.stale_or_failed(asked.key(), terms, error);
            }
        };
        if lease != Grant::Won {
            asked.settle();
        }
        match lease {
            Grant::Won => Fetched::Leased(Lease::Won(asked)),
            Grant::Held { left } => Fetched::Leased(Lease::Held { left }),
            Grant::NotGiven | Grant::NotDue { .. } => Fetched::of(entry, terms),
        }
    }
}
