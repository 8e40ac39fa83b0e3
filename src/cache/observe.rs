//! The only place where an operation is counted, timed and logged, after it ended.

use std::time::Duration;

use super::lookup::{AnsweredBy, Fetched, Lookup};
use super::won_lease::Lease;
use super::{Cache, Error};
use crate::access_log::{CallerIds, Ending, Outcome, Record, Subject, Tier};
use crate::clock::{Moment, unix_millis};
use crate::model::{Answer, Entry, EntryKey, EntryRef, KeyRef, Kind, Operation};
use crate::store::{self, Reads, Stored};
use crate::trace;

/// An operation that has started.
pub(super) struct StartedOperation<'a> {
    pub namespace: &'a str,
    pub operation: Operation,
    pub at: Moment,
}

impl<'a> StartedOperation<'a> {
    /// The operation starts now.
    pub fn now(namespace: &'a str, operation: Operation) -> Self {
        Self { namespace, operation, at: Moment::now() }
    }
}

/// The answer to an operation, independent of the protocol.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'e> {
    Done,
    /// The entry did not exist before.
    Created,
    /// The entry does not exist.
    Absent,
    /// The entry says that the source has no such thing.
    KnownAbsent,
    /// Partly done; this error prevented the rest.
    InPart(&'e store::Error),
    /// Nothing of a batch was done, because of this error.
    Nothing(&'e store::Error),
    Failed(&'e Error),
}

impl Reply<'_> {
    /// The answer to a read that found an entry of this kind.
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Json | Kind::Bytes => Self::Done,
            Kind::Absent => Self::KnownAbsent,
        }
    }
}

/// Returns the status and error code of an answer, as the access log shows them.
pub type StatusOf = fn(Reply<'_>) -> (u16, Option<&'static str>);

/// How a read of one entry ended.
pub(super) enum ReadEnd<'e> {
    Hit(Tier, Kind),
    /// An entry past the end of its freshness, which somebody may be refreshing.
    Overdue(Tier, Kind),
    /// A stale copy, because the shard failed.
    Stale(Kind),
    Miss(Tier),
    /// A miss, and whether this caller or another one has the lease on the key.
    Leased(Tier, &'e Lease),
    Failed(&'e Error),
}

impl<'e> ReadEnd<'e> {
    pub fn of(result: &'e Result<Lookup, Error>) -> Self {
        let Lookup { entry, trail, .. } = match result {
            Ok(lookup) => lookup,
            Err(error) => return Self::Failed(error),
        };
        let kind = entry.as_ref().map(|entry| entry.extra.kind);
        let tier = match trail {
            AnsweredBy::Stale { .. } => return Self::Stale(kind.unwrap_or_default()),
            AnsweredBy::L1 { .. } => Tier::L1,
            AnsweredBy::Embedded => Tier::Embedded,
            AnsweredBy::Shard { .. } => Tier::Shard,
        };
        Self::answered(entry.as_ref().map(Entry::borrowed).as_ref(), tier)
    }

    /// The end of a read that this tier answered.
    pub fn answered(entry: Option<&EntryRef<'_>>, tier: Tier) -> Self {
        match entry {
            None => Self::Miss(tier),
            Some(entry) if entry.overdue.is_some() => Self::Overdue(tier, entry.extra.kind),
            Some(entry) => Self::Hit(tier, entry.extra.kind),
        }
    }
}

/// How an operation ended.
struct EndedOperation<'e> {
    answer: Answer,
    told: Reply<'e>,
    /// For answered reads: whether all requested keys were found.
    hit: Option<bool>,
    /// What the access log says in place of the answer.
    outcome: Option<Outcome>,
    /// The tier that answered.
    tier: Option<Tier>,
    /// How many reads it counts as.
    reads: Reads,
}

impl Cache {
    /// Records a read of one entry.
    pub(super) fn observe_read(&self, operation: Operation, key: KeyRef<'_>, end: &ReadEnd<'_>, started: Moment) {
        let (answer, told, tier, outcome) = match *end {
            ReadEnd::Hit(tier, kind) => (Answer::Hit, Reply::of(kind), Some(tier), None),
            ReadEnd::Overdue(tier, kind) => {
                self.metrics.overdue_answers.increment(1);
                (Answer::Hit, Reply::of(kind), Some(tier), Some(Outcome::Stale))
            }
            ReadEnd::Stale(kind) => (Answer::Hit, Reply::of(kind), Some(Tier::L1), Some(Outcome::Stale)),
            ReadEnd::Miss(tier) => (Answer::Miss, Reply::Absent, Some(tier), None),
            ReadEnd::Leased(tier, Lease::Won(_)) => (Answer::Miss, Reply::Absent, Some(tier), Some(Outcome::Won)),
            ReadEnd::Leased(tier, Lease::Held { .. }) => {
                (Answer::Miss, Reply::Absent, Some(tier), Some(Outcome::Held))
            }
            ReadEnd::Failed(error) => {
                let answer = if error.is_refusal() { Answer::Refused } else { Answer::Failed };
                (answer, Reply::Failed(error), self.tier_of(error), None)
            }
        };
        if matches!(told, Reply::KnownAbsent) {
            self.metrics.known_absent_hits.increment(1);
        }
        let (hit, reads) = match answer {
            Answer::Hit => (Some(true), Reads { hits: 1, misses: 0 }),
            Answer::Miss => (Some(false), Reads { hits: 0, misses: 1 }),
            _ => (None, Reads::default()),
        };
        if hit == Some(true) {
            self.store.accessed(key);
            self.counters.hot_keys.found(key);
        }
        let begun = StartedOperation { namespace: key.namespace(), operation, at: started };
        let ended = EndedOperation { answer, told, hit, outcome, tier, reads };
        self.record(&begun, &ended, || Subject::Entry(key.to_key()));
    }

    /// Records a batch of reads. Only answered reads are counted. `is_near`: L1 had all of them.
    pub(super) fn observe_reads(
        &self,
        begun: &StartedOperation<'_>,
        subject: impl FnOnce() -> Subject,
        fetched: &[Fetched],
        is_near: bool,
    ) -> Reads {
        let count = |wanted: fn(&Fetched) -> bool| fetched.iter().filter(|fetched| wanted(fetched)).count() as u64;
        let reads = Reads { hits: count(Fetched::is_hit), misses: count(Fetched::is_miss) };
        self.metrics.known_absent_hits.increment(count(Fetched::is_known_absent));
        let overdue = count(Fetched::is_overdue);
        self.metrics.overdue_answers.increment(overdue);
        let failure = fetched.iter().find_map(|fetched| match fetched {
            Fetched::Failed(error) => Some(error),
            _ => None,
        });
        let all = reads.hits == fetched.len() as u64;
        let answer = match (failure, all) {
            (Some(error), _) if error.is_refusal() => Answer::Refused,
            (Some(_), _) => Answer::Failed,
            (None, true) => Answer::Hit,
            (None, false) => Answer::Miss,
        };
        let is_any_stale = overdue > 0 || fetched.iter().any(|fetched| matches!(fetched, Fetched::Stale(_)));
        let ended = EndedOperation {
            answer,
            told: failure.map_or(Reply::Done, Reply::InPart),
            // A read that was not answered is not a miss.
            hit: failure.is_none().then_some(all),
            outcome: (answer == Answer::Hit && is_any_stale).then_some(Outcome::Stale),
            tier: Some(if is_near && !fetched.is_empty() { Tier::L1 } else { self.tier() }),
            reads,
        };
        self.record(begun, &ended, subject);
        reads
    }

    /// Records an operation that is not a read. `result` is what the client is told about a success, or the error.
    pub(super) fn observe(
        &self,
        begun: &StartedOperation<'_>,
        result: Result<Reply<'_>, &Error>,
        subject: impl FnOnce() -> Subject,
    ) {
        let (answer, told, tier) = match result {
            Ok(told) => (Answer::Done, told, Some(self.tier())),
            Err(error) if error.is_refusal() => (Answer::Refused, Reply::Failed(error), self.tier_of(error)),
            Err(error) => (Answer::Failed, Reply::Failed(error), self.tier_of(error)),
        };
        self.record(begun, &EndedOperation { tier, ..EndedOperation::of(answer, told) }, subject);
    }

    /// Records a write of one entry.
    pub(super) fn observe_write(
        &self,
        begun: &StartedOperation<'_>,
        result: Result<&Stored, &Error>,
        fills_lease: bool,
        key: &EntryKey,
    ) {
        let subject = || Subject::Entry(key.clone());
        let told = match result {
            Ok(Stored { outcome: store::Outcome::Created, .. }) => Reply::Created,
            Ok(_) => Reply::Done,
            Err(error) => return self.observe(begun, Err(error), subject),
        };
        let outcome = fills_lease.then_some(Outcome::Filled);
        let ended = EndedOperation { outcome, tier: Some(self.tier()), ..EndedOperation::of(Answer::Done, told) };
        self.record(begun, &ended, subject);
    }

    /// Records an operation that is not a read and whose outcome the caller determines.
    pub(super) fn observe_as(
        &self,
        begun: &StartedOperation<'_>,
        answer: Answer,
        told: Reply<'_>,
        subject: impl FnOnce() -> Subject,
    ) {
        self.record(begun, &EndedOperation { tier: Some(self.tier()), ..EndedOperation::of(answer, told) }, subject);
    }

    /// The tier behind L1.
    pub(super) fn tier(&self) -> Tier {
        if self.store.is_remote() { Tier::Shard } else { Tier::Embedded }
    }

    /// The tier in which this error happened.
    fn tier_of(&self, error: &Error) -> Option<Tier> {
        if matches!(error, Error::Store(store::Error::NotInMemory)) {
            return Some(Tier::L1);
        }
        let is_of_store = matches!(error, Error::Store(_) | Error::PartlyFlushed { .. } | Error::PartlyMarked { .. });
        is_of_store.then(|| self.tier())
    }

    fn record(&self, begun: &StartedOperation<'_>, ended: &EndedOperation<'_>, subject: impl FnOnce() -> Subject) {
        let StartedOperation { namespace, operation, at } = *begun;
        let EndedOperation { answer, told, hit, outcome, tier, reads } = *ended;
        let latency: Duration = Moment::now().since(at);
        self.metrics.operations.observe(operation, answer, latency);
        self.counters.record(namespace, reads, operation, answer, latency);
        trace::export_span(&trace::EndedOperation { namespace, operation, answer, latency });
        self.access_log.record(|| {
            let outcome = outcome.unwrap_or(match answer {
                Answer::Hit => Outcome::Hit,
                Answer::Miss => Outcome::Miss,
                Answer::Done => Outcome::Done,
                Answer::Refused => Outcome::Refused,
                Answer::Failed => Outcome::Failed,
            });
            let (status, error_code) = (self.status_of)(told);
            Record {
                operation,
                subject: subject(),
                hit,
                ending: Ending { outcome, status, error_code, tier },
                latency,
                at: unix_millis(),
                caller: trace::with(|caller| caller.map(CallerIds::from)),
            }
        });
    }
}

impl<'e> EndedOperation<'e> {
    /// The end of an operation that is not a read.
    fn of(answer: Answer, told: Reply<'e>) -> Self {
        Self { answer, told, hit: None, outcome: None, tier: None, reads: Reads::default() }
    }
}
