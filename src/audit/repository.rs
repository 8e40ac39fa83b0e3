//! The interface to the rows in the database, the same for PostgreSQL and SQLite.

use async_trait::async_trait;

use super::row::Row;
use crate::database::Error;
use crate::journal;
use crate::model::Namespace;

/// The rows in the database. The journal only writes; this also reads.
#[async_trait]
pub trait Repository: journal::Repository<Row> {
    /// Up to `limit` rows with ids below `before`, the highest first.
    async fn page(&self, namespace: &Namespace, before: i64, limit: i64) -> Result<Vec<(i64, Row)>, Error>;
}
