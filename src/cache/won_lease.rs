//! A lease that a read got. If its caller never learns of it, it is given back.

use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use crate::coherence::WaitingRooms;
use crate::metrics::Metrics;
use crate::model::{EntryKey, LeaseToken, Part, Version, WantedLease};
use crate::store::SharedStore;

/// Who has the lease on a key without an entry.
#[derive(Debug)]
pub enum Lease {
    Won(WonLease),
    Held { left: Duration },
}

/// A lease that this caller has, or has asked for. Dropped before it is settled, it is given back: the caller is gone,
/// or never learned whether it has the lease, and cannot store the value.
pub struct WonLease {
    token: LeaseToken,
    lease: Duration,
    key: EntryKey,
    store: SharedStore,
    waiting: Arc<WaitingRooms>,
    metrics: Arc<Metrics>,
    /// Whether there is nothing to give back.
    is_settled: bool,
}

impl WonLease {
    pub fn key(&self) -> &EntryKey {
        &self.key
    }

    pub fn token(&self) -> &LeaseToken {
        &self.token
    }

    pub fn duration(&self) -> Duration {
        self.lease
    }

    /// What to ask the store for. An entry of the version `beyond` counts as missing.
    pub(super) fn wanted(&self, beyond: Option<Version>, refresh_after: Option<Part>) -> WantedLease {
        WantedLease { key: self.key.clone(), token: self.token.clone(), beyond, refresh_after }
    }

    /// There is nothing to give back: the store did not give the lease, or the caller has the token now.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
    }

    /// The caller has the token now.
    pub fn delivered(mut self) {
        self.settle();
    }
}

impl std::fmt::Debug for WonLease {
    /// Without the token, which is a secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WonLease").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Drop for WonLease {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        // During the end of the process there is no runtime any more; then the lease ends by its time.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (store, key, token) = (self.store.clone(), self.key.clone(), self.token.clone());
        let (waiting, metrics) = (self.waiting.clone(), self.metrics.clone());
        runtime.spawn(async move {
            match store.release(&key, &token).await {
                Ok(Some(_)) => metrics.leases.returned.increment(1),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a lease of a caller that is gone could not be given back"),
            }
            waiting.changed(&key);
        });
    }
}

impl Cache {
    /// A lease to ask the store for, with a new token.
    pub(super) fn new_lease(&self, key: &EntryKey, lease: Duration) -> WonLease {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system provides random numbers");
        WonLease {
            token: LeaseToken::from_bits(u128::from_le_bytes(bytes)),
            lease,
            key: key.clone(),
            store: self.store.clone(),
            waiting: self.waiting.clone(),
            metrics: self.metrics.clone(),
            is_settled: false,
        }
    }
}
