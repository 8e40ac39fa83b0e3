//! The audit trail: who changed what, and when.
//!
//! A change of a policy and its row are written in one transaction (by `namespaces`, with [`add`]), so that neither
//! exists without the other. A flush must not wait for the database, so its row goes through a journal.
//!
//! Deleting a namespace leaves one row, with the deleted policy. If the deletion ends before the policy is deleted, or
//! its outcome is unknown, it leaves the row of a flush. A namespace that a write creates leaves no row, because nobody
//! changed a policy.

mod record;
mod repository;
mod row;

use std::sync::Arc;

pub use record::{Change, Outcome, Record};
pub(crate) use repository::add;
pub use row::Row;

use crate::config::JournalConfig;
use crate::database::{Database, Error};
use crate::journal::{self, Journal, Meters};
use crate::metrics::Metrics;
use crate::model::{Namespace, Origin, Selection};

/// The writer at the end of the queue.
pub type Writer = journal::Writer<Record, Row>;

/// Takes the records of flushes, and reads all rows back. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    journal: Arc<Journal<Record>>,
    database: Arc<Database>,
}

/// One page of rows, newest first, in the order in which the database received them.
#[derive(Debug)]
pub struct Page {
    pub rows: Vec<Row>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<Cursor>,
}

/// The position of a listing: the last row seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    id: i64,
}

impl Cursor {
    /// Distinguishes this format from later ones.
    const FORM: &str = "audit1";

    pub fn encode(self) -> String {
        journal::encode(Self::FORM, &[self.id])
    }

    /// The cursor in `text`; `None` if it is invalid.
    pub fn decode(text: &str) -> Option<Self> {
        journal::decode(Self::FORM, text).map(|[id]| Self { id })
    }
}

impl Audit {
    /// The handle, and the writer at the other end of its queue. `instance` is unique among all processes.
    pub fn new(config: &JournalConfig, instance: &str, database: Arc<Database>, metrics: &Metrics) -> (Self, Writer) {
        let meters = Meters {
            written: metrics.audit_written.clone(),
            dropped: metrics.audit_dropped.clone(),
            queued: metrics.audit_queued.clone(),
        };
        let name = format!("audit-{instance}");
        let (journal, writer) = Journal::new(name, config, database.clone(), repository::Table, meters);
        (Self { journal, database }, writer)
    }

    /// Call this when a flush begins. `is_mark`: the flush marks entries instead of deleting them. The returned note
    /// queues its record when it is dropped.
    pub fn flush(&self, namespace: &Namespace, selection: &Selection, is_mark: bool, origin: &Origin) -> FlushNote {
        let flush = Change::Flush { selection: selection.clone(), is_mark, outcome: Outcome::Abandoned };
        FlushNote { journal: self.journal.clone(), record: Some(Record::new(namespace, origin, flush)) }
    }

    /// Updates the gauges before the metrics are shown.
    pub fn refresh_gauges(&self) {
        self.journal.refresh_gauge();
    }

    /// The changes of `namespace`, newest first. Also works for deleted namespaces.
    ///
    /// # Errors
    /// The database failed.
    pub async fn page(&self, namespace: &Namespace, cursor: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let before = cursor.map_or(i64::MAX, |cursor| cursor.id);
        // One more than the page size, to know whether there are more rows.
        let mut found = repository::page(&self.database, namespace, before, limit as i64 + 1).await?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|(id, _)| Cursor { id: *id });
        Ok(Page { rows: found.into_iter().map(|(_, row)| row).collect(), next })
    }
}

/// Queues the record of a flush when dropped, so that a flush leaves a record however it ends, even if it is cancelled.
/// The record says "abandoned" unless [`FlushNote::ended`] was called.
pub struct FlushNote {
    journal: Arc<Journal<Record>>,
    record: Option<Record>,
}

impl FlushNote {
    /// Sets the outcome of the flush.
    pub fn ended(&mut self, ended: Outcome) {
        if let Some(Record { change: Change::Flush { outcome, .. }, .. }) = &mut self.record {
            *outcome = ended;
        }
    }

    /// Queues no record, because another row already records the flush.
    pub fn discard(mut self) {
        self.record = None;
    }
}

impl Drop for FlushNote {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.journal.leave(record);
        }
    }
}
