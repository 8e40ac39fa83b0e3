//! The records in the database. Every change of them also changes the revision number, in the same transaction.

use std::sync::Arc;

use super::Record;
use super::record::{Loaded, PolicyRow, policy_from_row};
use crate::audit::{self, Change};
use crate::database::{Database, Error, Statement, Transaction, signed};
use crate::model::{Namespace, Origin, Policy, PolicyChange, UnixMillis};

const REVISION: &str = "SELECT revision FROM cache_namespaces_revision";

const MOVE_REVISION: &str = "UPDATE cache_namespaces_revision SET revision = revision + 1";

/// The columns of a policy, in the order of [`PolicyRow`].
macro_rules! policy_columns {
    () => {
        "default_ttl, max_size_mb, eviction_policy, stale_if_error, ttl_jitter, refresh_after, \
         stale_while_revalidate, tombstone_ttl"
    };
}

const LOAD: &str =
    concat!("SELECT name, {millis created_at}, {millis updated_at}, ", policy_columns!(), " FROM cache_namespaces");

const ADD: &str = concat!(
    "INSERT INTO cache_namespaces (name, ",
    policy_columns!(),
    ", created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, {date $10}, {date $11}) \
     ON CONFLICT (name) DO NOTHING"
);

/// Changes nothing, but locks the row for this transaction and returns its policy.
const LOCK: &str = concat!("UPDATE cache_namespaces SET name = name WHERE name = $1 RETURNING ", policy_columns!());

const REPLACE: &str = concat!(
    "UPDATE cache_namespaces SET (",
    policy_columns!(),
    ") = ($2, $3, $4, $5, $6, $7, $8, $9), updated_at = {date $10} WHERE name = $1 RETURNING {millis created_at}"
);

const REMOVE: &str = concat!("DELETE FROM cache_namespaces WHERE name = $1 RETURNING ", policy_columns!());

/// Who requested a change, and what only this instance knows about the namespace.
#[derive(Clone, Copy, Debug)]
pub struct ChangeRequest<'a> {
    pub origin: &'a Origin,
    /// The policy of a namespace that was created by a write here and is not in the database yet.
    pub unsaved: Option<Policy>,
}

/// Records in a database. The revision number changes with every change of the records.
pub struct Repository {
    database: Arc<Database>,
}

impl Repository {
    /// The records in `database`.
    pub fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// # Errors
    /// The database failed.
    pub async fn revision(&self) -> Result<i64, Error> {
        self.database.transaction(async |transaction| transaction.query(REVISION).fetch_value().await).await
    }

    /// All records.
    pub(super) async fn load(&self) -> Result<Loaded, Error> {
        self.database
            .transaction(async |transaction| {
                // Read the revision first: a change in between is then loaded twice, never missed.
                let revision = transaction.query(REVISION).fetch_value().await?;
                Ok(Loaded::from_rows(revision, transaction.query(LOAD).fetch_all().await?))
            })
            .await
    }

    /// Adds the records whose namespaces do not exist yet.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_missing(&self, records: &[Record]) -> Result<(), Error> {
        self.database
            .transaction(async |transaction| {
                let mut is_any_new = false;
                for record in records {
                    is_any_new |= add(transaction, record).await?;
                }
                if is_any_new {
                    transaction.query(MOVE_REVISION).execute().await?;
                }
                Ok(())
            })
            .await
    }

    /// Creates or replaces a record; an existing record keeps its creation time. Returns the stored record and
    /// whether it is new. The change and its row in the audit trail are written in one transaction.
    ///
    /// # Errors
    /// The database failed, or the outcome is unknown.
    pub async fn put(&self, mut record: Record, by: &ChangeRequest<'_>) -> Result<(Record, bool), Error> {
        self.database
            .change(async |transaction| {
                let before = loop {
                    if add(transaction, &record).await? {
                        break by.unsaved;
                    }
                    let before =
                        transaction.query(LOCK).bind(record.namespace.as_str()).fetch_optional::<PolicyRow>().await?;
                    // If there is no row, another instance removed it between the two statements: add again.
                    let Some(before) = before else { continue };
                    record.created_at = replace(transaction, &record).await?;
                    // A policy that this release does not understand can still be replaced.
                    break policy_from_row(before).ok();
                };
                let after = record.policy;
                let change = match before {
                    None => Change::PolicyCreated { after },
                    Some(before) => Change::PolicyReplaced { before, after },
                };
                audit::add(transaction, &audit::Record::new(&record.namespace, by.origin, change).into()).await?;
                transaction.query(MOVE_REVISION).execute().await?;
                Ok((record, before.is_none()))
            })
            .await
    }

    /// Changes the fields of a policy that `change` names, and adds a row to the audit trail, in one transaction.
    /// Returns the stored record; `None` if there is no such record.
    ///
    /// # Errors
    /// The database failed, or the outcome is unknown.
    pub async fn patch(
        &self,
        namespace: &Namespace,
        change: &PolicyChange,
        at: UnixMillis,
        origin: &Origin,
    ) -> Result<Option<Record>, Error> {
        self.database
            .change(async |transaction| {
                let before = transaction.query(LOCK).bind(namespace.as_str()).fetch_optional::<PolicyRow>().await?;
                let Some(before) = before.map(policy_from_row).transpose()? else { return Ok(None) };
                let after = change.apply(before);
                let mut record =
                    Record { namespace: namespace.clone(), policy: after, created_at: at, updated_at: at };
                record.created_at = replace(transaction, &record).await?;
                let change = Change::PolicyReplaced { before, after };
                audit::add(transaction, &audit::Record::new(namespace, origin, change).into()).await?;
                transaction.query(MOVE_REVISION).execute().await?;
                Ok(Some(record))
            })
            .await
    }

    /// Removes a record. Returns whether it existed; if so, a row in the audit trail says that it was removed with
    /// `deleted` entries.
    ///
    /// # Errors
    /// The database failed, or the outcome is unknown.
    pub async fn remove(&self, namespace: &Namespace, deleted: u64, by: &ChangeRequest<'_>) -> Result<bool, Error> {
        self.database
            .change(async |transaction| {
                let stored = transaction.query(REMOVE).bind(namespace.as_str()).fetch_optional::<PolicyRow>().await?;
                if stored.is_some() {
                    transaction.query(MOVE_REVISION).execute().await?;
                }
                let before = stored.map(policy_from_row).transpose()?.or(by.unsaved);
                if let Some(before) = before {
                    let change = Change::PolicyDeleted { before, deleted };
                    audit::add(transaction, &audit::Record::new(namespace, by.origin, change).into()).await?;
                }
                Ok(before.is_some())
            })
            .await
    }
}

/// Adds a record. Returns false if its namespace exists already.
async fn add(transaction: &mut Transaction, record: &Record) -> Result<bool, Error> {
    let add = bind_policy(transaction.query(ADD), record);
    Ok(add.bind(signed(record.created_at.0)).bind(signed(record.updated_at.0)).execute().await? > 0)
}

/// Replaces the policy of an existing record. Returns when the record was created.
async fn replace(transaction: &mut Transaction, record: &Record) -> Result<UnixMillis, Error> {
    let replace = bind_policy(transaction.query(REPLACE), record);
    let created_at: i64 = replace.bind(signed(record.updated_at.0)).fetch_value().await?;
    Ok(UnixMillis(u64::try_from(created_at).unwrap_or(0)))
}

/// Binds the name and the policy of a record to `$1` to `$9`.
fn bind_policy<'t>(statement: Statement<'t>, Record { namespace, policy, .. }: &Record) -> Statement<'t> {
    let fields = policy.fields();
    let statement = statement.bind(namespace.as_str()).bind(signed(fields.default_ttl));
    let statement = statement.bind(signed(fields.max_size_mb)).bind(policy.eviction_policy.as_str());
    let statement = statement.bind(signed(fields.stale_if_error)).bind(fields.ttl_jitter).bind(fields.refresh_after);
    statement.bind(signed(fields.stale_while_revalidate)).bind(signed(fields.tombstone_ttl))
}
