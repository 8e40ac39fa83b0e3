//! The one place where an operation is counted, timed and logged, on its way out.

use std::time::Duration;

use super::{Cache, Error};
use crate::access_log::{AskedBy, Record, Subject};
use crate::clock::{Moment, unix_millis};
use crate::model::{Answer, EntryKey, KeyRef, Namespace, Operation};
use crate::store::Reads;
use crate::trace;

/// An operation that was begun.
pub(super) struct Begun<'a> {
    pub namespace: &'a str,
    pub operation: Operation,
    pub at: Moment,
}

/// How it ended.
struct Ended {
    answer: Answer,
    /// For reads: whether everything asked for was found.
    hit: Option<bool>,
    /// The reads that it was.
    reads: Reads,
}

impl Cache {
    /// A read of one entry: `hit` is `None` when it was not answered.
    pub(super) fn observe_read(&self, operation: Operation, key: KeyRef<'_>, hit: Option<bool>, started: Moment) {
        let (answer, reads) = match hit {
            Some(true) => (Answer::Hit, Reads { hits: 1, misses: 0 }),
            Some(false) => (Answer::Miss, Reads { hits: 0, misses: 1 }),
            None => (Answer::Failed, Reads::default()),
        };
        if hit == Some(true) {
            self.store.accessed(key);
            self.counters.found(key);
        }
        let begun = Begun { namespace: key.namespace(), operation, at: started };
        self.note(&begun, &Ended { answer, hit, reads }, || Subject::Entry(key.to_key()));
    }

    /// A batch of reads: counts those that were answered.
    pub(super) fn observe_reads(&self, namespace: &Namespace, keys: &[EntryKey], reads: Reads, started: Moment) {
        let all = reads.hits == keys.len() as u64;
        let is_answered = reads.hits + reads.misses == keys.len() as u64;
        let answer = match (is_answered, all) {
            (false, _) => Answer::Failed,
            (true, true) => Answer::Hit,
            (true, false) => Answer::Miss,
        };
        let subject = || Subject::batch(namespace, keys);
        let begun = Begun { namespace: namespace.as_str(), operation: Operation::Mget, at: started };
        self.note(&begun, &Ended { answer, hit: Some(all), reads }, subject);
    }

    /// Anything that is no read.
    pub(super) fn observe<T>(&self, begun: &Begun<'_>, result: &Result<T, Error>, subject: impl FnOnce() -> Subject) {
        let answer = match result {
            Ok(_) => Answer::Done,
            Err(error) if error.is_refusal() => Answer::Refused,
            Err(_) => Answer::Failed,
        };
        self.observe_as(begun, answer, subject);
    }

    /// Anything that is no read, and whose result does not say alone how it went.
    pub(super) fn observe_as(&self, begun: &Begun<'_>, answer: Answer, subject: impl FnOnce() -> Subject) {
        self.note(begun, &Ended { answer, hit: None, reads: Reads::default() }, subject);
    }

    fn note(&self, begun: &Begun<'_>, ended: &Ended, subject: impl FnOnce() -> Subject) {
        let Begun { namespace, operation, at } = *begun;
        let Ended { answer, hit, reads } = *ended;
        let latency: Duration = Moment::now().since(at);
        self.metrics.observe(operation, answer, latency);
        self.counters.note(namespace, reads, operation, answer, latency);
        trace::note(&trace::Ended { namespace, operation, answer, latency });
        self.access_log.record(|| Record {
            operation,
            subject: subject(),
            hit,
            latency,
            at: unix_millis(),
            asked_by: trace::with(|caller| caller.map(AskedBy::from)),
        });
    }
}
