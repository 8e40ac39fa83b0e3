//! Where records are kept, whichever the database.

use std::sync::Arc;

use async_trait::async_trait;

use super::Record;
use super::postgres::Postgres;
use super::record::Loaded;
use super::sqlite::Sqlite;
use crate::database::{Database, Error, Pool};
use crate::model::{Namespace, Origin, Policy, PolicyChange, UnixMillis};

/// Records in a database. The revision moves with every change.
#[async_trait]
pub trait Repository: Send + Sync + 'static {
    async fn revision(&self) -> Result<i64, Error>;

    /// All records.
    async fn load(&self) -> Result<Loaded, Error>;

    /// Adds those records whose namespaces are not there yet.
    async fn add_missing(&self, records: Vec<Record>) -> Result<(), Error>;

    /// Creates or replaces a record; the date of birth of one that is there stays. Answers what
    /// is stored now, and whether it is new. The change and its row in the audit trail are there
    /// together or not at all.
    async fn put(&self, record: Record, by: &Asked<'_>) -> Result<(Record, bool), Error>;

    /// Changes the fields of a policy that `change` names, in one transaction with the row in the audit trail.
    /// Answers what is stored now; `None` where there is no such record.
    async fn patch(
        &self,
        namespace: &Namespace,
        change: &PolicyChange,
        at: UnixMillis,
        origin: &Origin,
    ) -> Result<Option<Record>, Error>;

    /// Removes a record and tells whether it was there; if it was, the audit trail says so, and that
    /// `deleted` entries went with it.
    async fn remove(&self, namespace: &Namespace, deleted: u64, by: &Asked<'_>) -> Result<bool, Error>;
}

/// Who asked for a change, and what only the instance that was asked knows.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub origin: &'a Origin,
    /// The policy that a write gave the namespace and the database has not heard of yet.
    pub unsaved: Option<Policy>,
}

/// The repository in `database`.
pub fn repository(database: Arc<Database>) -> Arc<dyn Repository> {
    match database.pool().clone() {
        Pool::Postgres(pool) => Arc::new(Postgres { database, pool }),
        Pool::Sqlite(pool) => Arc::new(Sqlite { database, pool }),
    }
}
