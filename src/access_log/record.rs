//! What one operation leaves behind.

use std::time::Duration;

use super::key_pattern;
use crate::model::{EntryKey, Namespace, Operation, UnixMillis};

/// One operation, as the request leaves it: nothing is computed or copied that the writer can do.
#[derive(Debug)]
pub struct Record {
    pub operation: Operation,
    pub subject: Subject,
    /// For reads: whether everything asked for was found.
    pub hit: Option<bool>,
    pub latency: Duration,
    pub at: UnixMillis,
}

/// What the operation was about.
#[derive(Debug)]
pub enum Subject {
    Entry(EntryKey),
    Batch(Namespace, Vec<EntryKey>),
    /// A namespace, and the pattern or tag that selects within it; `*` for all.
    Selection(Namespace, String),
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
}

impl From<Record> for Row {
    fn from(record: Record) -> Self {
        let (namespace, key_pattern) = match record.subject {
            Subject::Entry(key) => (key.namespace().to_owned(), key_pattern::of(key.key())),
            Subject::Batch(namespace, keys) => {
                (namespace.to_string(), key_pattern::shared(keys.iter().map(EntryKey::key)))
            }
            Subject::Selection(namespace, selection) => (namespace.to_string(), selection),
        };
        Self {
            namespace,
            key_pattern,
            operation: record.operation.as_str(),
            hit: record.hit,
            latency_ms: record.latency.as_secs_f64() * 1000.0,
            timestamp_ms: i64::try_from(record.at.0).unwrap_or(i64::MAX),
        }
    }
}
