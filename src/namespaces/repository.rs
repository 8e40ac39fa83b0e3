//! The interface to the records in the database, the same for PostgreSQL and SQLite.

use async_trait::async_trait;

use super::Record;
use super::record::Loaded;
use crate::database::Error;
use crate::model::{Namespace, Origin, Policy, PolicyChange, UnixMillis};

/// Records in a database. The revision number changes with every change of the records.
#[async_trait]
pub trait Repository: Send + Sync + 'static {
    async fn revision(&self) -> Result<i64, Error>;

    /// All records.
    async fn load(&self) -> Result<Loaded, Error>;

    /// Adds the records whose namespaces do not exist yet.
    async fn add_missing(&self, records: Vec<Record>) -> Result<(), Error>;

    /// Creates or replaces a record; an existing record keeps its creation time. Returns the stored record and
    /// whether it is new. The change and its row in the audit trail are written in one transaction.
    async fn put(&self, record: Record, by: &ChangeRequest<'_>) -> Result<(Record, bool), Error>;

    /// Changes the fields of a policy that `change` names, and adds a row to the audit trail, in one transaction.
    /// Returns the stored record; `None` if there is no such record.
    async fn patch(
        &self,
        namespace: &Namespace,
        change: &PolicyChange,
        at: UnixMillis,
        origin: &Origin,
    ) -> Result<Option<Record>, Error>;

    /// Removes a record. Returns whether it existed; if so, a row in the audit trail says that it was removed with
    /// `deleted` entries.
    async fn remove(&self, namespace: &Namespace, deleted: u64, by: &ChangeRequest<'_>) -> Result<bool, Error>;
}

/// Who requested a change, and what only this instance knows about the namespace.
#[derive(Clone, Copy, Debug)]
pub struct ChangeRequest<'a> {
    pub origin: &'a Origin,
    /// The policy of a namespace that was created by a write here and is not in the database yet.
    pub unsaved: Option<Policy>,
}
