//! The operations on one shard: the limit for those in flight (operations above the limit are refused, they do not
//! wait), and the queue of those that wait for the next script, see `batching.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::{Entry, EntryKey, EvictionPolicy, Write};
use crate::store::{Error, Stored};
use crate::workers::PerWorker;

/// Where the result of a queued operation is sent.
pub type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// A read that is queued.
pub struct Get {
    pub key: EntryKey,
    pub answer: Answer<Option<Entry>>,
    pub _place: Place,
}

/// A write that is queued.
pub struct Set {
    pub key: EntryKey,
    pub write: Write,
    pub limit_bytes: u64,
    pub policy: EvictionPolicy,
    pub answer: Answer<Stored>,
    pub _place: Place,
}

/// The part of a namespace's quota that belongs to one shard: how many bytes the namespace may use there, and the
/// policy by which it evicts entries beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuotaShare<'n> {
    pub namespace: &'n str,
    /// 0: no limit.
    pub limit_bytes: u64,
    pub policy: &'static str,
}

impl Set {
    pub fn grant(&self) -> QuotaShare<'_> {
        QuotaShare { namespace: self.key.namespace(), limit_bytes: self.limit_bytes, policy: self.policy.as_str() }
    }
}

/// The operations of one turn. As long as there are any, a task is about to take them.
#[derive(Default)]
pub struct PendingBatch {
    pub gets: Vec<Get>,
    pub sets: Vec<Set>,
}

/// The operations on one shard that are about to be sent, by worker.
#[derive(Default)]
pub struct Pending(pub PerWorker<Mutex<PendingBatch>>);

impl Pending {
    pub fn take(&self, worker: usize) -> PendingBatch {
        std::mem::take(&mut self.0.at(worker).lock())
    }
}

/// Counts the operations in flight.
pub struct InFlight {
    count: AtomicUsize,
    most: usize,
}

/// The place of one operation in flight; dropping it frees the place.
#[must_use]
pub struct Place(Arc<InFlight>);

impl InFlight {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), most })
    }

    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Takes a place, if one is free.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        // If no place is free, `place` is dropped, which decrements the count again.
        let place = Place(self.clone());
        (self.count.fetch_add(1, Relaxed) < self.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_above_the_limit_are_refused() {
        let in_flight = InFlight::new(2);
        let (first, second) = (in_flight.enter(), in_flight.enter());
        assert!(first.is_some() && second.is_some() && in_flight.enter().is_none());
        assert_eq!(in_flight.count(), 2, "one that was refused takes no place");
        drop(first);
        assert!(in_flight.enter().is_some());
    }
}
