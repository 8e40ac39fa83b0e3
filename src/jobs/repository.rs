//! The interface to the jobs in the database, the same for PostgreSQL and SQLite.

use async_trait::async_trait;

use super::job::{Id, Job};
use crate::audit::Row;
use crate::database::Error;

/// What the database says about a job when its progress is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredState {
    Running,
    /// It is running, and a client asked to cancel it.
    CancelAsked,
    /// Its end was already written, by another instance.
    Ended,
}

/// The jobs in the database. An ended job is kept for an hour.
#[async_trait]
pub trait Repository: Send + Sync + 'static {
    /// Writes the progress of a running job; adds the job if it is not there.
    async fn beat(&self, job: &Job) -> Result<StoredState, Error>;

    /// Writes the end of a job and its audit row in one transaction, and removes old jobs. Returns whether this was
    /// the first end to be written. With `None` no audit row is added.
    async fn end(&self, job: &Job, row: Option<&Row>) -> Result<bool, Error>;

    async fn find(&self, id: &Id) -> Result<Option<Job>, Error>;

    /// Up to `limit` jobs, newest first.
    async fn list(&self, limit: i64) -> Result<Vec<Job>, Error>;

    /// Stores a request to cancel, which the job's instance reads.
    async fn ask_to_cancel(&self, id: &Id) -> Result<(), Error>;

    /// Whether [`Repository::fail_silent`] has anything to do. Usually it has nothing to do, and this check avoids a
    /// write.
    async fn is_any_silent_or_old(&self) -> Result<bool, Error>;

    /// Marks jobs as failed if their instances gave no sign of life for [`SILENT_MS`], adds their audit rows, and
    /// removes old jobs. Returns how many jobs it marked.
    async fn fail_silent(&self) -> Result<u64, Error>;
}

/// After this time without a sign of life an instance is silent.
pub const SILENT_MS: i64 = 15_000;
