//! What one operation leaves behind.

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
    /// For reads: whether everything asked for was found.
    pub hit: Option<bool>,
    pub latency: Duration,
    pub at: UnixMillis,
    /// `None` for what nobody asked for.
    pub asked_by: Option<AskedBy>,
}

/// The request that an operation was part of.
#[derive(Debug)]
pub struct AskedBy {
    request_id: Box<[u8]>,
    trace: Option<TraceContext>,
}

impl From<&Caller> for AskedBy {
    fn from(caller: &Caller) -> Self {
        Self { request_id: caller.request_id().into(), trace: caller.trace }
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
}

impl From<Record> for Row {
    fn from(record: Record) -> Self {
        let (namespace, key_pattern) = match record.subject {
            Subject::Entry(key) => (key.namespace().to_owned(), key_pattern::of(key.key())),
            Subject::Batch(namespace, pattern) => (namespace.to_string(), pattern),
            Subject::Selection(namespace, selection) => (namespace.to_string(), selection),
        };
        Self {
            namespace,
            key_pattern,
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
