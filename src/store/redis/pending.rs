//! The operations of single entries that are queued for the next script, see `gather.rs`.

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::in_flight::Place;
use super::quota_share::QuotaShare;
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
pub struct Gathering(pub PerWorker<Mutex<PendingBatch>>);

impl Gathering {
    pub fn take(&self, worker: usize) -> PendingBatch {
        std::mem::take(&mut self.0.at(worker).lock())
    }
}
