//! Operations on a whole namespace: its numbers, its policy, and its history. The history (audit trail and access log)
//! is read from the database; nothing else waits for it.

use super::observe::{Reply, StartedOperation};
use super::{Cache, Error};
use crate::access_log::{self, Subject};
use crate::audit::{self, Outcome};
use crate::clock::unix_millis;
use crate::model::{Namespace, Operation, Origin, Policy, PolicyChange, Selection, UnixMillis};
use crate::namespaces::{ChangeRequest, Record};
use crate::store::{KnownTotals, Totals};

/// The numbers of a namespace.
pub type Stats = Totals;

/// The policy that is stored now.
#[derive(Debug)]
pub struct StoredPolicy {
    pub record: Record,
    /// Whether the namespace had no policy before.
    pub created: bool,
}

/// Selects rows of the access log.
#[derive(Debug)]
pub struct LogQuery {
    /// Only rows from this time on.
    pub since: Option<UnixMillis>,
    pub operation: Option<Operation>,
    /// The `cursor` of the previous page.
    pub cursor: Option<String>,
    pub limit: usize,
}

impl Cache {
    /// The numbers of a namespace, including the latest reads of this instance.
    ///
    /// # Errors
    /// A shard failed.
    pub async fn stats(&self, namespace: &Namespace) -> Result<Stats, Error> {
        let begun = StartedOperation::now(namespace.as_str(), Operation::Stats);
        self.counters.flush().await;
        let result = self.store.totals(namespace).await.map_err(Error::from);
        let subject = || Subject::Selection(namespace.clone(), "*".to_owned());
        self.observe(&begun, result.as_ref().map(|_| Reply::Done), subject);
        result
    }

    /// The sum over the shards that answer, for pages and lists that accept partial numbers. Not counted and not
    /// logged as an operation.
    ///
    /// # Errors
    /// No shard answers.
    pub async fn known_stats(&self, namespace: &Namespace) -> Result<KnownTotals, Error> {
        self.counters.flush().await;
        Ok(self.store.known_totals(namespace).await?)
    }

    /// All configured namespaces, sorted by name.
    ///
    /// # Errors
    /// The database could not be read yet.
    pub fn namespaces(&self) -> Result<Vec<Record>, Error> {
        if self.registry.is_loaded() { Ok(self.registry.all()) } else { Err(Error::PoliciesUnknown) }
    }

    /// # Errors
    /// The namespace is not configured, or the database could not be read yet.
    pub fn namespace(&self, namespace: &Namespace) -> Result<Record, Error> {
        let absent = || match self.registry.is_policy_unknown(namespace) {
            true => Error::PoliciesUnknown,
            false => Error::NamespaceNotFound,
        };
        self.registry.get(namespace).ok_or_else(absent)
    }

    /// Whether the policies were read from the database since the process started.
    pub fn are_policies_loaded(&self) -> bool {
        self.registry.is_loaded()
    }

    /// The policy of namespaces that have no policy yet.
    pub fn default_policy(&self) -> Policy {
        self.registry.default_policy()
    }

    /// Creates or replaces a policy. It applies here at once, and on other instances after their next refresh.
    ///
    /// # Errors
    /// There are too many namespaces, or the database failed. Nothing changed, unless the error says that the outcome
    /// is unknown.
    pub async fn put_namespace(
        &self,
        namespace: &Namespace,
        policy: Policy,
        origin: &Origin,
    ) -> Result<StoredPolicy, Error> {
        let _turn = self.registry.turn().await;
        self.registry.admit(namespace)?;
        let now = unix_millis();
        // A namespace that was created by a write here may not be in the database yet.
        let unsaved = self.registry.unsaved(namespace);
        let created_at = unsaved.as_ref().map_or(now, |record| record.created_at);
        let record = Record { namespace: namespace.clone(), policy, created_at, updated_at: now };
        let asked = ChangeRequest { origin, unsaved: unsaved.map(|record| record.policy) };
        let (record, created) = self.policies.put(record, &asked).await?;
        self.metrics.audit_written.increment(1);
        self.registry.put(record.clone());
        Ok(StoredPolicy { record, created })
    }

    /// Changes the fields of a policy that `change` names. The new policy applies here at once, and on other
    /// instances after their next refresh.
    ///
    /// # Errors
    /// The namespace has no policy, or the database failed. Nothing changed, unless the error says that the outcome
    /// is unknown.
    pub async fn patch_namespace(
        &self,
        namespace: &Namespace,
        change: &PolicyChange,
        origin: &Origin,
    ) -> Result<Record, Error> {
        if change.is_empty() {
            return self.namespace(namespace);
        }
        let _turn = self.registry.turn().await;
        // A namespace that was created by a write here may not be in the database yet.
        if let Some(record) = self.registry.unsaved(namespace) {
            let records = [record];
            self.policies.add_missing(&records).await?;
            self.registry.saved(&records);
        }
        let changed = self.policies.patch(namespace, change, unix_millis(), origin).await?;
        let record = changed.ok_or(Error::NamespaceNotFound)?;
        self.metrics.audit_written.increment(1);
        self.registry.put(record.clone());
        Ok(record)
    }

    /// Checks that a policy can be removed (the database answers), before the entries are deleted.
    ///
    /// # Errors
    /// The namespace is not configured, or the database failed.
    pub(super) async fn check_removable(&self, namespace: &Namespace) -> Result<(), Error> {
        self.namespace(namespace)?;
        self.policies.revision().await?;
        Ok(())
    }

    /// Removes the policy of a namespace after `deleted` entries were deleted. This is the last step of deleting a
    /// namespace: after a failure the client can repeat the request to finish.
    ///
    /// # Errors
    /// The store or the database failed.
    pub(super) async fn remove_policy(
        &self,
        namespace: &Namespace,
        deleted: u64,
        origin: &Origin,
    ) -> Result<(), Error> {
        self.counters.flush().await;
        self.store.forget(namespace).await?;
        let _turn = self.registry.turn().await;
        let unsaved = self.registry.unsaved(namespace).map(|record| record.policy);
        if self.policies.remove(namespace, deleted, &ChangeRequest { origin, unsaved }).await? {
            self.metrics.audit_written.increment(1);
        } else {
            // Another request has removed it in the meantime.
            self.audit.flush(namespace, &Selection::All, false, origin).ended(Outcome::Complete { deleted });
        }
        self.registry.remove(namespace);
        Ok(())
    }

    /// The audit trail of a namespace, newest first. Also works for deleted namespaces.
    ///
    /// # Errors
    /// The cursor is invalid, or the database failed.
    pub async fn audit(
        &self,
        namespace: &Namespace,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<audit::Page, Error> {
        let decode = |text| audit::Cursor::decode(text).ok_or(Error::InvalidCursor);
        Ok(self.audit.page(namespace, cursor.map(decode).transpose()?, limit).await?)
    }

    /// The rows of the access log of a namespace, newest first.
    ///
    /// # Errors
    /// The cursor is invalid, or the database failed.
    pub async fn logs(&self, namespace: &Namespace, query: &LogQuery) -> Result<access_log::Page, Error> {
        let decode = |text: &String| access_log::Cursor::decode(text).ok_or(Error::InvalidCursor);
        let cursor = query.cursor.as_ref().map(decode).transpose()?;
        let LogQuery { since, operation, limit, .. } = *query;
        Ok(self.access_log.page(namespace, &access_log::Query { since, operation, cursor, limit }).await?)
    }
}
