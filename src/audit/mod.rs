//! The audit trail: who changed what, and when.
//!
//! A change of a policy writes its row in its own transaction (`namespaces` does, with what
//! [`postgres`] and [`sqlite`] lend it), so that neither is there without the other. A flush is a call
//! of the cache, which never waits for a database: its row goes through a journal.
//!
//! Deleting a namespace leaves one row, with the deleted policy. If the deletion ends before the policy is gone, or
//! nobody can tell, it leaves the row of a flush. A namespace that a write creates leaves no row, because nobody changed
//! a policy.

mod flush;
pub(crate) mod postgres;
mod record;
mod row;
mod sql;
pub(crate) mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;

pub use flush::FlushNote;
pub use record::{Change, Outcome, Record};
pub use row::Row;

use crate::config::JournalConfig;
use crate::database::{Database, Error, Pool};
use crate::journal::{self, Journal, Meters};
use crate::metrics::Metrics;
use crate::model::{Namespace, Origin, Selection};

/// The writer at the end of the queue.
pub type Writer = journal::Writer<Record, Row>;

/// Where flushes leave their records, and where all changes are found again. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    journal: Journal<Record>,
    repository: Arc<dyn Repository>,
}

/// Some rows, the newest first: in the order in which the database took them.
#[derive(Debug)]
pub struct Page {
    pub rows: Vec<Row>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Behind which row a listing goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    id: i64,
}

impl Cursor {
    /// Tells this form from later ones.
    const FORM: &str = "audit1";

    pub fn encode(self) -> String {
        journal::encode(Self::FORM, &[self.id])
    }

    /// The cursor in `text`; `None` when no listing gave it.
    pub fn decode(text: &str) -> Option<Self> {
        journal::decode(Self::FORM, text).map(|[id]| Self { id })
    }
}

impl Audit {
    /// The handle, and the writer at the other end of its queue. `instance` is a name that no other
    /// process has.
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

    /// Takes note that a flush begins; the note leaves its record when it goes out of scope.
    pub fn flush(&self, namespace: &Namespace, selection: &Selection, origin: &Origin) -> FlushNote {
        let flush = Change::Flush { selection: selection.clone(), outcome: Outcome::Abandoned };
        FlushNote::new(self.journal.clone(), Record::new(namespace, origin, flush))
    }

    /// Brings the metrics that are gauges up to now, before they are shown.
    pub fn refresh_gauges(&self) {
        self.journal.refresh_gauge();
    }

    /// What was changed of `namespace`, the newest first; also of one that is no more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn page(&self, namespace: &Namespace, cursor: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let before = cursor.map_or(i64::MAX, |cursor| cursor.id);
        // One more tells whether there are more.
        let mut found = self.repository.page(namespace, before, limit as i64 + 1).await?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|(id, _)| Cursor { id: *id });
        Ok(Page { rows: found.into_iter().map(|(_, row)| row).collect(), next })
    }
}

/// Rows in a database, which can be read as well.
#[async_trait]
trait Repository: journal::Repository<Row> {
    /// Up to `limit` rows with ids below `before`, the highest first.
    async fn page(&self, namespace: &Namespace, before: i64, limit: i64) -> Result<Vec<(i64, Row)>, Error>;
}

fn repository(database: Arc<Database>) -> Arc<dyn Repository> {
    match database.pool().clone() {
        Pool::Postgres(pool) => Arc::new(postgres::Postgres { database, pool }),
        Pool::Sqlite(pool) => Arc::new(sqlite::Sqlite { database, pool }),
    }
}
