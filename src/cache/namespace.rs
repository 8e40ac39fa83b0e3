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
    ///
    /// # Errors
    /// The database could not be read yet.
    pub fn namespaces(&self) -> Result<Vec<Record>, Error> {
        if self.registry.is_loaded() { Ok(self.registry.all()) } else { Err(Error::PoliciesNotLoaded) }
    }

    /// # Errors
    /// It is not configured, or the database could not be read yet.
    pub fn namespace(&self, namespace: &Namespace) -> Result<Record, Error> {
        let absent = || if self.registry.is_loaded() { Error::NamespaceNotFound } else { Error::PoliciesNotLoaded };
        self.registry.get(namespace).ok_or_else(absent)
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
        let _turn = self.registry.turn().await;
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
        // Nothing is deleted for a policy that then cannot be.
        self.policies.revision().await?;
        // The policy last: if something fails, asking again finishes the work.
        let deleted = self.flush(namespace, &Selection::All).await?;
        self.counters.flush().await;
        self.store.forget(namespace).await?;
        let _turn = self.registry.turn().await;
        self.policies.remove(namespace).await?;
        self.registry.remove(namespace);
        Ok(deleted)
    }
}
