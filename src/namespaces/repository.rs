//! Where records are kept, whichever the database.

use std::sync::Arc;

use async_trait::async_trait;

use super::Record;
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use crate::database::{Database, Error, Pool};
use crate::model::Namespace;

/// Records in a database. The revision moves with every change.
#[async_trait]
pub trait Repository: Send + Sync + 'static {
    async fn revision(&self) -> Result<i64, Error>;

    /// All records, and the revision they are of.
    async fn load(&self) -> Result<(i64, Vec<Record>), Error>;

    /// Adds those records whose namespaces are not there yet.
    async fn add_missing(&self, records: Vec<Record>) -> Result<(), Error>;

    /// Creates or replaces a record; the date of birth of one that is there stays. Answers what
    /// is stored now, and whether it is new.
    async fn put(&self, record: Record) -> Result<(Record, bool), Error>;

    /// Removes a record and tells whether it was there.
    async fn remove(&self, namespace: &Namespace) -> Result<bool, Error>;
}

/// The repository in `database`.
pub fn repository(database: Arc<Database>) -> Arc<dyn Repository> {
    match database.pool().clone() {
        Pool::Postgres(pool) => Arc::new(Postgres { database, pool }),
        Pool::Sqlite(pool) => Arc::new(Sqlite { database, pool }),
    }
}
