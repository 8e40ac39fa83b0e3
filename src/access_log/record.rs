//! What one operation leaves behind.

use std::net::IpAddr;
use std::time::Duration;

use super::key_pattern;
use crate::model::{EntryKey, Namespace, Operation, UnixMillis};
use crate::trace::{Caller, TraceContext};

/// One operation, as the request leaves it, of bounded size: a queue bounds the number of records, and that bounds
/// their memory. What the writer can compute without more memory is left to it.
#[derive(Debug)]
pub struct Record {
    pub operation: Operation,
    pub subject: Subject,
    /// For reads that were answered: whether everything asked for was found.
    pub hit: Option<bool>,
    pub ending: Ending,
    pub latency: Duration,
    pub at: UnixMillis,
    /// `None` for what nobody asked for.
    pub asked_by: Option<AskedBy>,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub outcome: Outcome,
    /// As the answer over HTTP has it.
    pub status: u16,
    /// `None` where it went well.
    pub error_code: Option<&'static str>,
    /// Where it was answered or failed; `None` where no store was asked.
    pub tier: Option<Tier>,
}

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read found what it asked for; a batch found all of it.
    Hit,
    Miss,
    /// A read was answered with a copy past its time, as the shard did not answer.
    Stale,
    /// Anything that is not a read went well.
    Done,
    /// The request was wrong.
    Refused,
    /// The store or the database failed, perhaps for a part of the request.
    Failed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Where an operation was carried out.
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

/// The request that an operation was part of.
#[derive(Debug)]
pub struct AskedBy {
    request_id: Box<[u8]>,
    client: Option<IpAddr>,
    trace: Option<TraceContext>,
}

impl From<&Caller> for AskedBy {
    fn from(caller: &Caller) -> Self {
        Self { request_id: caller.request_id().into(), client: caller.client, trace: caller.trace }
    }
}

/// What the operation was about.
#[derive(Debug)]
pub enum Subject {
    Entry(EntryKey),
    /// A namespace, and the pattern that the keys of the batch share.
    Batch(Namespace, String),
    /// A namespace, and the pattern or tag that selects within it; `*` for all.
    Selection(Namespace, String),
}

impl Subject {
    /// The pattern is made at once: a batch may have thousands of keys, and the queue holds thousands of records.
    pub fn batch(namespace: &Namespace, keys: &[EntryKey]) -> Self {
        Self::Batch(namespace.clone(), key_pattern::shared(keys.iter().map(EntryKey::key)))
    }
}

/// A record as the databases take it.
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
        let client = record.asked_by.as_ref().and_then(|asked| asked.client);
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
            timestamp_ms: i64::try_from(record.at.0).unwrap_or(i64::MAX),
            trace_id: record.asked_by.as_ref().and_then(|asked| asked.trace).map(|trace| trace.to_string()),
            request_id: record.asked_by.map(|asked| printable(&asked.request_id)),
        }
    }
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}
