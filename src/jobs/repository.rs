//! Where jobs are kept for all instances, whichever the database.

use std::sync::Arc;

use async_trait::async_trait;

use super::job::{Id, Job};
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use crate::audit::Row;
use crate::database::{Database, Error, Pool};

/// What the database says of a job whose progress was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Running,
    /// It runs, and somebody wants it cancelled.
    CancelAsked,
    /// Another instance has written its end.
    Ended,
}

/// Jobs in a database. A job that has ended is there for an hour.
#[async_trait]
pub trait Repository: Send + Sync + 'static {
    /// Writes how far a job that runs is; adds it if it is not there.
    async fn beat(&self, job: &Job) -> Result<Standing, Error>;

    /// Writes the end of a job with its row in the audit trail, both or neither, and removes old jobs; tells
    /// whether it was the first to write an end.
    /// Without a row nothing is added to the trail.
    async fn end(&self, job: &Job, row: Option<&Row>) -> Result<bool, Error>;

    async fn find(&self, id: &Id) -> Result<Option<Job>, Error>;

    /// Up to `limit` jobs, the newest first.
    async fn list(&self, limit: i64) -> Result<Vec<Job>, Error>;

    /// Leaves word for the instance that runs a job.
    async fn ask_to_cancel(&self, id: &Id) -> Result<(), Error>;

    /// Whether [`Repository::fail_silent`] has anything to do; mostly not, and then nothing is written.
    async fn is_any_silent_or_old(&self) -> Result<bool, Error>;

    /// Ends jobs whose instances gave no sign of life for [`SILENT_MS`], each with its row in the audit trail, and
    /// removes old jobs; answers how many it ended.
    async fn fail_silent(&self) -> Result<u64, Error>;
}

/// After how long without a sign of life an instance is silent.
pub const SILENT_MS: i64 = 15_000;

/// The repository in `database`.
pub fn repository(database: Arc<Database>) -> Arc<dyn Repository> {
    match database.pool().clone() {
        Pool::Postgres(pool) => Arc::new(Postgres { database, pool }),
        Pool::Sqlite(pool) => Arc::new(Sqlite { database, pool }),
    }
}
