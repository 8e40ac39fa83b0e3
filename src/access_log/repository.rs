//! The interface to the rows in the database, the same for PostgreSQL and SQLite.

use async_trait::async_trait;

use super::page::{Page, Query};
use super::record::Row;
use crate::database::Error;
use crate::journal;
use crate::model::Namespace;

/// The rows in the database. The journal only writes; this also reads.
#[async_trait]
pub trait Repository: journal::Repository<Row> {
    async fn page(&self, namespace: &Namespace, query: &Query) -> Result<Page, Error>;
}
