//! The snapshot of all namespaces that this instance knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::MutexGuard;

use super::Record;
use crate::clock::{Moment, unix_millis};
use crate::config::NamespaceConfig;
use crate::model::{Namespace, Policy, Quota, Quotas};

/// Why a namespace cannot be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not exist, and writes do not create namespaces.
    Unknown,
    /// Its policy is unknown here: the database could not be read yet, or has a policy that this release does not
    /// understand.
    PolicyUnknown,
    /// It does not exist, and the maximum number of namespaces is reached.
    TooMany { limit: usize },
}

/// Policies by namespace. The cache looks them up only here.
pub struct Registry {
    config: NamespaceConfig,
    records: RwLock<BTreeMap<String, Record>>,
    /// Namespaces with policies that this release does not understand.
    unreadable: RwLock<BTreeSet<String>>,
    /// Namespaces created by a write here and not yet in the database. Sorted, so that instances that save the same
    /// names lock the rows in the same order.
    pending: Mutex<BTreeSet<String>>,
    /// Whether the database was read at least once. Before that, a namespace that is missing here may exist.
    is_loaded: AtomicBool,
    /// When the snapshot was last compared with the database, in nanoseconds of [`Moment`]; 0 for never.
    confirmed_at: AtomicU64,
    /// Locked while database and snapshot are changed together, so that two changes do not undo each other.
    changing: tokio::sync::Mutex<()>,
}

impl Registry {
    pub fn new(config: NamespaceConfig) -> Self {
        Self {
            config,
            records: RwLock::default(),
            unreadable: RwLock::default(),
            pending: Mutex::default(),
            is_loaded: AtomicBool::new(false),
            confirmed_at: AtomicU64::new(0),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The policy for a write. Creates the namespace if it does not exist and `auto_create_namespaces` is on.
    ///
    /// # Errors
    /// [`Refusal`] if the policy is unknown or the namespace cannot be created.
    pub fn for_write(&self, namespace: &str) -> Result<Policy, Refusal> {
        if let Some(policy) = self.known_policy(namespace)? {
            return Ok(policy);
        }
        if !self.config.auto_create {
            return Err(Refusal::Unknown);
        }
        self.create(namespace)
    }

    /// The policy of a namespace; `None` if the namespace does not exist.
    ///
    /// # Errors
    /// [`Refusal::PolicyUnknown`]: it may have a policy that is not known here.
    fn known_policy(&self, namespace: &str) -> Result<Option<Policy>, Refusal> {
        if let Some(record) = self.records.read().get(namespace) {
            return Ok(Some(record.policy));
        }
        if !self.is_loaded() || self.unreadable.read().contains(namespace) {
            return Err(Refusal::PolicyUnknown);
        }
        Ok(None)
    }

    /// The policy for checking a write before its namespace is created.
    ///
    /// # Errors
    /// [`Refusal::PolicyUnknown`].
    pub fn for_check(&self, namespace: &str) -> Result<Policy, Refusal> {
        Ok(self.known_policy(namespace)?.unwrap_or(self.config.default_policy))
    }

    fn create(&self, namespace: &str) -> Result<Policy, Refusal> {
        // Unreachable for requests: their names were parsed before.
        let namespace = Namespace::parse(namespace).map_err(|_| Refusal::Unknown)?;
        let mut records = self.records.write();
        if let Some(record) = records.get(namespace.as_str()) {
            return Ok(record.policy);
        }
        if records.len() >= self.config.max_namespaces {
            return Err(Refusal::TooMany { limit: self.config.max_namespaces });
        }
        let now = unix_millis();
        let policy = self.config.default_policy;
        self.pending.lock().insert(namespace.to_string());
        records.insert(namespace.to_string(), Record { namespace, policy, created_at: now, updated_at: now });
        Ok(policy)
    }

    /// Whether the database was read at least once.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded.load(Relaxed)
    }

    /// Waits for the exclusive right to change database and snapshot together.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Whether the namespace exists or may exist. Such a namespace must not be removed as an orphan.
    pub fn may_exist(&self, namespace: &Namespace) -> bool {
        !matches!(self.known_policy(namespace.as_str()), Ok(None))
    }

    /// Whether the namespace may have a policy that is not known here.
    pub fn is_policy_unknown(&self, namespace: &Namespace) -> bool {
        self.known_policy(namespace.as_str()).is_err()
    }

    /// The policy of a namespace, or the default policy if it does not exist.
    pub fn policy(&self, namespace: &str) -> Policy {
        self.records.read().get(namespace).map_or(self.config.default_policy, |record| record.policy)
    }

    /// How often the snapshot is compared with the database.
    pub fn refresh(&self) -> Duration {
        self.config.refresh
    }

    /// The policy of new namespaces.
    pub fn default_policy(&self) -> Policy {
        self.config.default_policy
    }

    pub fn get(&self, namespace: &Namespace) -> Option<Record> {
        self.records.read().get(namespace.as_str()).cloned()
    }

    /// All records, sorted by name.
    pub fn all(&self) -> Vec<Record> {
        self.records.read().values().cloned().collect()
    }

    /// The names of all records, sorted.
    pub fn names(&self) -> Vec<Namespace> {
        self.records.read().values().map(|record| record.namespace.clone()).collect()
    }

    /// Whether another namespace may be configured.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub fn admit(&self, namespace: &Namespace) -> Result<(), Refusal> {
        let records = self.records.read();
        if records.len() < self.config.max_namespaces || records.contains_key(namespace.as_str()) {
            Ok(())
        } else {
            Err(Refusal::TooMany { limit: self.config.max_namespaces })
        }
    }

    /// Adds or replaces a record that the database has.
    pub fn put(&self, record: Record) {
        self.pending.lock().remove(record.namespace.as_str());
        self.unreadable.write().remove(record.namespace.as_str());
        self.records.write().insert(record.namespace.to_string(), record);
    }

    /// Removes a record that the database no longer has.
    pub fn remove(&self, namespace: &Namespace) {
        self.pending.lock().remove(namespace.as_str());
        self.unreadable.write().remove(namespace.as_str());
        self.records.write().remove(namespace.as_str());
    }

    /// The record of a namespace that was created by a write here and is not in the database yet.
    pub fn unsaved(&self, namespace: &Namespace) -> Option<Record> {
        let is_pending = self.pending.lock().contains(namespace.as_str());
        if is_pending { self.get(namespace) } else { None }
    }

    /// All records that were created here and are not in the database yet.
    pub fn pending(&self) -> Vec<Record> {
        let pending = self.pending.lock().clone();
        let records = self.records.read();
        pending.iter().filter_map(|name| records.get(name).cloned()).collect()
    }

    /// Notes that these records are in the database now.
    pub fn saved(&self, saved: &[Record]) {
        let mut pending = self.pending.lock();
        for record in saved {
            pending.remove(record.namespace.as_str());
        }
    }

    /// Notes that the snapshot equals the database now.
    pub fn confirm(&self) {
        self.confirmed_at.store(Moment::now().as_nanos(), Relaxed);
    }

    /// Whether the snapshot was compared with the database within `age` (or within three refreshes, if that is
    /// longer).
    pub fn was_confirmed_within(&self, age: Duration) -> bool {
        let at = self.confirmed_at.load(Relaxed);
        at > 0 && Moment::now().since(Moment::from_nanos(at)) <= age.max(self.config.refresh * 3)
    }

    /// Replaces the snapshot by the contents of the database, and keeps namespaces that are not saved yet. `unreadable`
    /// are the names of rows that this release does not understand.
    pub fn replace(&self, loaded: Vec<Record>, unreadable: BTreeSet<String>) {
        let mut records = self.records.write();
        let pending = self.pending.lock();
        records.retain(|name, _| pending.contains(name) && !unreadable.contains(name));
        *self.unreadable.write() = unreadable;
        records.extend(loaded.into_iter().map(|record| (record.namespace.to_string(), record)));
        self.is_loaded.store(true, Relaxed);
    }
}

impl Quotas for Registry {
    fn quota(&self, namespace: &str) -> Quota {
        self.policy(namespace).quota()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PolicyFields;

    fn registry(auto_create: bool, max_namespaces: usize) -> Registry {
        let default_policy = Policy::parse(&PolicyFields::default()).unwrap();
        let refresh = Duration::from_secs(1);
        Registry::new(NamespaceConfig { default_policy, auto_create, max_namespaces, refresh })
    }

    fn loaded(auto_create: bool, max_namespaces: usize) -> Registry {
        let registry = registry(auto_create, max_namespaces);
        registry.replace(Vec::new(), BTreeSet::new());
        registry
    }

    fn record(name: &str, ttl: u64) -> Record {
        Record {
            namespace: Namespace::parse(name).unwrap(),
            policy: Policy::parse(&PolicyFields { default_ttl: ttl, ..PolicyFields::default() }).unwrap(),
            created_at: unix_millis(),
            updated_at: unix_millis(),
        }
    }

    #[test]
    fn a_write_creates_a_namespace_and_the_database_hears_of_it_once() {
        let registry = loaded(true, 10);
        assert!(registry.for_write("a").is_ok() && registry.for_write("a").is_ok());
        let pending = registry.pending();
        assert_eq!(pending.len(), 1);
        registry.saved(&pending);
        assert!(registry.pending().is_empty());
    }

    #[test]
    fn regression_what_is_pending_is_saved_in_one_order() {
        // Two instances that saved the same new names in different orders waited for each other's row locks.
        let registry = loaded(true, 100);
        for i in [7, 3, 9, 1, 8, 2, 6, 4, 5, 0] {
            registry.for_write(&format!("n{i}")).unwrap();
        }
        let names: Vec<String> = registry.pending().iter().map(|record| record.namespace.to_string()).collect();
        assert!(names.is_sorted() && names.len() == 10, "{names:?}");
    }

    #[test]
    fn a_reload_keeps_what_is_pending_and_drops_what_is_gone() {
        let registry = loaded(true, 10);
        registry.put(record("old", 1));
        registry.for_write("pending").unwrap();
        registry.replace(vec![record("new", 2)], BTreeSet::new());
        let names: Vec<String> = registry.all().into_iter().map(|record| record.namespace.to_string()).collect();
        assert_eq!(names, ["new", "pending"]);
    }

    #[test]
    fn no_write_is_taken_without_the_policy() {
        for auto_create in [true, false] {
            let registry = registry(auto_create, 10);
            assert_eq!(registry.for_write("a"), Err(Refusal::PolicyUnknown), "the database may know it");
            assert_eq!(registry.for_check("a"), Err(Refusal::PolicyUnknown));
            registry.put(record("a", 1));
            assert!(registry.for_write("a").is_ok(), "the database has just returned it");
            registry.replace(vec![record("a", 1)], BTreeSet::from(["later".to_owned()]));
            assert_eq!(registry.for_write("later"), Err(Refusal::PolicyUnknown));
            assert!(registry.may_exist(&Namespace::parse("later").unwrap()));
            assert!(!registry.may_exist(&Namespace::parse("other").unwrap()));
        }
    }

    #[test]
    fn creation_can_be_off_and_is_bounded() {
        let closed = registry(false, 10);
        closed.replace(Vec::new(), BTreeSet::new());
        assert_eq!(closed.for_write("a"), Err(Refusal::Unknown));
        let registry = loaded(true, 1);
        registry.for_write("a").unwrap();
        assert_eq!(registry.for_write("b"), Err(Refusal::TooMany { limit: 1 }));
    }
}
