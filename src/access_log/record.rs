//! The record of one operation.

use std::net::IpAddr;
use std::time::Duration;

use super::key_pattern;
use crate::database::signed;
use crate::model::{EntryKey, Namespace, Operation, UnixMillis, printable};
use crate::trace::{Caller, TraceContext};

/// The record of one operation, as a request queues it. Its size is bounded, so the bound on the number of queued
/// records also bounds their memory. The writer later turns the record into a [`Row`], so that the request does little
/// work.
#[derive(Debug)]
pub struct Record {
    pub operation: Operation,
    pub subject: Subject,
    /// For answered reads: whether all requested keys were found.
    pub hit: Option<bool>,
    pub ending: Ending,
    pub latency: Duration,
    pub at: UnixMillis,
    /// The request that caused the operation; `None` for background work.
    pub caller: Option<CallerIds>,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub outcome: Outcome,
    /// The HTTP status of the answer.
    pub status: u16,
    /// `None` if the operation succeeded.
    pub error_code: Option<&'static str>,
    /// The tier that answered or failed; `None` if no store was asked.
    pub tier: Option<Tier>,
}

/// The outcome in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read found its key; a batch found all of its keys.
    Hit,
    Miss,
    /// A read was answered with a stale copy because the shard did not answer.
    Stale,
    /// A miss that got a lease.
    Won,
    /// A miss while another caller has the lease.
    Held,
    /// A write that filled a lease.
    Filled,
    /// An operation other than a read succeeded.
    Done,
    /// The request was invalid or not allowed.
    Refused,
    /// The store or the database failed, at least for a part of the request.
    Failed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Won => "won",
            Self::Held => "held",
            Self::Filled => "filled",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The part of the system that carried out an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    L1,
    Shard,
    Embedded,
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::Shard => "shard",
            Self::Embedded => "embedded",
        }
    }
}

/// The request that an operation belongs to.
#[derive(Debug)]
pub struct CallerIds {
    request_id: Box<[u8]>,
    client: Option<IpAddr>,
    trace: Option<TraceContext>,
}

impl From<&Caller> for CallerIds {
    fn from(caller: &Caller) -> Self {
        Self { request_id: caller.request_id().into(), client: caller.client, trace: caller.trace }
    }
}

/// What the operation was applied to.
#[derive(Debug)]
pub enum Subject {
    Entry(EntryKey),
    /// A namespace, and the pattern that all keys of the batch share.
    Batch(Namespace, String),
    /// A namespace, and the selecting pattern or tag; `*` for all entries.
    Selection(Namespace, String),
}

impl Subject {
    /// Computes the pattern now and not in the writer: a batch may have thousands of keys, and the queue holds
    /// thousands of records.
    pub fn batch(namespace: &Namespace, keys: &[EntryKey]) -> Self {
        Self::Batch(namespace.clone(), key_pattern::shared(keys.iter().map(EntryKey::key)))
    }
}

/// A record as it is written to the databases.
#[derive(Clone, Debug)]
pub struct Row {
    pub namespace: String,
    pub key_pattern: String,
    pub operation: &'static str,
    pub hit: Option<bool>,
    pub latency_ms: f64,
    pub timestamp_ms: i64,
    pub request_id: Option<String>,
    /// 32 hexadecimal digits.
    pub trace_id: Option<String>,
    pub outcome: &'static str,
    pub status: i32,
    pub error_code: Option<&'static str>,
    pub tier: Option<&'static str>,
    pub client: Option<String>,
}

impl From<Record> for Row {
    fn from(record: Record) -> Self {
        let (namespace, key_pattern) = match record.subject {
            Subject::Entry(key) => (key.namespace().to_owned(), key_pattern::of(key.key())),
            Subject::Batch(namespace, pattern) => (namespace.to_string(), pattern),
            Subject::Selection(namespace, selection) => (namespace.to_string(), selection),
        };
        let Ending { outcome, status, error_code, tier } = record.ending;
        let client = record.caller.as_ref().and_then(|caller| caller.client);
        Self {
            namespace,
            key_pattern,
            outcome: outcome.as_str(),
            status: status.into(),
            error_code,
            tier: tier.map(Tier::as_str),
            client: client.map(|client| client.to_string()),
            operation: record.operation.as_str(),
            hit: record.hit,
            latency_ms: record.latency.as_secs_f64() * 1000.0,
            timestamp_ms: signed(record.at.0),
            trace_id: record.caller.as_ref().and_then(|caller| caller.trace).map(|trace| trace.to_string()),
            request_id: record.caller.map(|caller| printable(&String::from_utf8_lossy(&caller.request_id))),
        }
    }
}
