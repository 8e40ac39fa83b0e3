//! The one place where an operation is counted, timed and logged, on its way out.

use std::time::Duration;

use super::{Cache, Error};
use crate::access_log::{Record, Subject};
use crate::clock::{Moment, unix_millis};
use crate::model::{Answer, EntryKey, KeyRef, Namespace, Operation};
use crate::store::Reads;

impl Cache {
    /// A read of one entry: `hit` is `None` when it was not answered.
    pub(super) fn observe_read(&self, operation: Operation, key: KeyRef<'_>, hit: Option<bool>, started: Moment) {
        let reads = match hit {
            Some(true) => Reads { hits: 1, misses: 0 },
            Some(false) => Reads { hits: 0, misses: 1 },
            None => Reads::default(),
        };
        if hit.is_some() {
            self.counters.add(key.namespace(), reads);
        }
        if hit == Some(true) {
            self.store.accessed(key);
        }
        let answer = match hit {
            Some(true) => Answer::Hit,
            Some(false) => Answer::Miss,
            None => Answer::Failed,
        };
        self.note(operation, answer, hit, started, || Subject::Entry(key.to_key()));
    }

    /// A batch of reads: counts those that were answered.
    pub(super) fn observe_reads(&self, namespace: &Namespace, keys: &[EntryKey], reads: Reads, started: Moment) {
        if reads != Reads::default() {
            self.counters.add(namespace.as_str(), reads);
        }
        let all = reads.hits == keys.len() as u64;
        let is_answered = reads.hits + reads.misses == keys.len() as u64;
        let answer = match (is_answered, all) {
            (false, _) => Answer::Failed,
            (true, true) => Answer::Hit,
            (true, false) => Answer::Miss,
        };
        let subject = || Subject::Batch(namespace.clone(), keys.to_vec());
        self.note(Operation::Mget, answer, Some(all), started, subject);
    }

    /// Anything that is no read.
    pub(super) fn observe<T>(
        &self,
        operation: Operation,
        result: &Result<T, Error>,
        started: Moment,
        subject: impl FnOnce() -> Subject,
    ) {
        let answer = match result {
            Ok(_) => Answer::Done,
            Err(error) if error.is_refusal() => Answer::Refused,
            Err(_) => Answer::Failed,
        };
        self.note(operation, answer, None, started, subject);
    }

    fn note(
        &self,
        operation: Operation,
        answer: Answer,
        hit: Option<bool>,
        started: Moment,
        subject: impl FnOnce() -> Subject,
    ) {
        let latency: Duration = Moment::now().since(started);
        self.metrics.observe(operation, answer, latency);
        self.access_log.record(|| Record { operation, subject: subject(), hit, latency, at: unix_millis() });
    }
}
