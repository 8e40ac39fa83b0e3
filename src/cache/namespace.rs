//! What concerns a namespace as a whole: its numbers and its policy.

use super::{Cache, Error};
use crate::access_log::Subject;
use crate::clock::{Moment, unix_millis};
use crate::model::{Namespace, Operation, Policy, Selection};
use crate::namespaces::Record;
use crate::store::Totals;

/// The numbers of a namespace.
pub type Stats = Totals;

/// A policy as it is stored now.
#[derive(Debug)]
pub struct StoredPolicy {
    pub record: Record,
    /// Whether the namespace had none before.
    pub created: bool,
}

impl Cache {
    /// The numbers of a namespace, this instance's latest reads included.
    ///
    /// # Errors
    /// A shard failed.
    pub async fn stats(&self, namespace: &Namespace) -> Result<Stats, Error> {
        let started = Moment::now();
        self.counters.flush().await;
        let result = self.store.totals(namespace).await.map_err(Error::from);
        let subject = || Subject::Selection(namespace.clone(), "*".to_owned());
        self.observe(Operation::Stats, &result, started, subject);
        result
    }

    /// All configured namespaces, sorted by name.
    pub fn namespaces(&self) -> Vec<Record> {
        self.registry.all()
    }

    /// # Errors
    /// It is not configured.
    pub fn namespace(&self, namespace: &Namespace) -> Result<Record, Error> {
        self.registry.get(namespace).ok_or(Error::NamespaceNotFound)
    }

    /// The policy of namespaces nobody configured.
    pub fn default_policy(&self) -> Policy {
        self.registry.default_policy()
    }

    /// Creates or replaces a policy; in force here at once, elsewhere within a refresh.
    ///
    /// # Errors
    /// There are too many namespaces, or the database failed and nothing changed.
    pub async fn put_namespace(&self, namespace: &Namespace, policy: Policy) -> Result<StoredPolicy, Error> {
        self.registry.admit(namespace)?;
        let now = unix_millis();
        let record = Record { namespace: namespace.clone(), policy, created_at: now, updated_at: now };
        // One that a write here created may not have reached the database yet.
        let known = self.registry.get(namespace).is_some();
        let (record, added) = self.policies.put(record).await?;
        self.registry.put(record.clone());
        Ok(StoredPolicy { record, created: added && !known })
    }

    /// Removes a policy and flushes the entries; answers how many went.
    ///
    /// # Errors
    /// It is not configured, or the store or the database failed.
    pub async fn delete_namespace(&self, namespace: &Namespace) -> Result<u64, Error> {
        self.namespace(namespace)?;
        // The entries first: if something fails, the policy is still there and asking again
        // finishes the work.
        let deleted = self.flush(namespace, &Selection::All).await?;
        self.policies.remove(namespace).await?;
        self.registry.remove(namespace);
        self.store.forget(namespace).await?;
        Ok(deleted)
    }
}
