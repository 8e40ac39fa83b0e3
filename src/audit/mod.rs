//! The audit trail: who changed what, and when.
//!
//! A change of a policy and its row are written in one transaction (by `namespaces`, with the functions `add` of
//! [`postgres`] and [`sqlite`]), so that neither exists without the other. A flush must not wait for the database, so
//! its row goes through a journal.
//!
//! Deleting a namespace leaves one row, with the deleted policy. If the deletion ends before the policy is deleted, or
//! its outcome is unknown, it leaves the row of a flush. A namespace that a write creates leaves no row, because nobody
//! changed a policy.

mod flush;
pub(crate) mod postgres;
mod record;
mod repository;
mod row;
mod sql;
pub(crate) mod sqlite;

use std::sync::Arc;

pub use flush::FlushNote;
pub use record::{Change, Outcome, Record};
pub use row::Row;

use repository::Repository;

use crate::config::JournalConfig;
use crate::database::{Database, Error, Pool};
use crate::journal::{self, Journal, Meters};
use crate::metrics::Metrics;
use crate::model::{Namespace, Origin, Selection};

/// The writer at the end of the queue.
pub type Writer = journal::Writer<Record, Row>;

/// Takes the records of flushes, and reads all rows back. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    journal: Journal<Record>,
    repository: Arc<dyn Repository>,
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
        let repository = repository(database);
        let (journal, writer) = Journal::new(format!("audit-{instance}"), config, repository.clone(), meters);
        (Self { journal, repository }, writer)
    }

    /// Call this when a flush begins. The returned note queues its record when it is dropped.
    pub fn flush(&self, namespace: &Namespace, selection: &Selection, origin: &Origin) -> FlushNote {
        let flush = Change::Flush { selection: selection.clone(), outcome: Outcome::Abandoned };
        FlushNote::new(self.journal.clone(), Record::new(namespace, origin, flush))
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
        let mut found = self.repository.page(namespace, before, limit as i64 + 1).await?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|(id, _)| Cursor { id: *id });
        Ok(Page { rows: found.into_iter().map(|(_, row)| row).collect(), next })
    }
}

fn repository(database: Arc<Database>) -> Arc<dyn Repository> {
    match database.pool().clone() {
        Pool::Postgres(pool) => Arc::new(postgres::Postgres { database, pool }),
        Pool::Sqlite(pool) => Arc::new(sqlite::Sqlite { database, pool }),
    }
}
