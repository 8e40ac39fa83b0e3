//! Writing and deleting one entry.

use std::time::Duration;

use super::jitter::ttl_of_write;
use super::near::Near;
use super::observe::{Reply, StartedOperation};
use super::{Cache, Error, RESERVED_KEY};
use crate::access_log::Subject;
use crate::coherence::WaitingRooms;
use crate::model::{EntryKey, Operation, Policy, Preconditions, Quota, Ttl, Write};
use crate::store::{Deleted, Stored};

/// Voids the L1 copy of a key when the write is over, however it ended: done, failed with an unknown outcome, or
/// cancelled because the client disconnected.
pub(super) struct VoidWhenOver<'c> {
    near: Option<&'c Near>,
    waiting: &'c WaitingRooms,
    key: &'c EntryKey,
}

impl Drop for VoidWhenOver<'_> {
    fn drop(&mut self) {
        if let Some(near) = self.near {
            near.void(self.key);
        }
        self.waiting.changed(self.key);
    }
}

impl Cache {
    /// Stores an entry. Without a TTL the namespace's default applies.
    ///
    /// # Errors
    /// The write is refused, or the owning shard failed.
    pub async fn set(&self, key: &EntryKey, write: Write) -> Result<Stored, Error> {
        let begun = StartedOperation::now(key.namespace(), Operation::Set);
        let fills_lease = write.fills_lease();
        let result = self.store_one(key, write).await;
        self.observe_write(&begun, result.as_ref(), fills_lease, key);
        result
    }

    async fn store_one(&self, key: &EntryKey, write: Write) -> Result<Stored, Error> {
        self.check_write(key, &write, self.registry.for_check(key.namespace())?.quota())?;
        let policy = self.registry.for_write(key.namespace())?;
        let write = completed(write, &policy);
        let _void = self.void_when_over(key);
        let fills_lease = write.fills_lease();
        let result = self.store.set(key, write, policy.quota()).await;
        self.count_conditions(key.namespace(), fills_lease, &result);
        Ok(result?)
    }

    /// Checks a write, before the write may create its namespace.
    pub(super) fn check_write(&self, key: &EntryKey, write: &Write, quota: Quota) -> Result<(), Error> {
        if key.key() == RESERVED_KEY {
            return Err(Error::ReservedKey);
        }
        let (size, limit) = (write.value.len(), self.limits.value_bytes);
        if size > limit {
            return Err(Error::ValueTooLarge { size, limit });
        }
        match quota.max_bytes {
            Some(limit) if !quota.admits(size) => {
                Err(Error::ValueTooLarge { size, limit: usize::try_from(limit.get()).unwrap_or(usize::MAX) })
            }
            _ => Ok(()),
        }
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// The key is reserved, a precondition is not met, or the owning shard failed.
    pub async fn delete(&self, key: &EntryKey, preconditions: Option<&Preconditions>) -> Result<Deleted, Error> {
        let begun = StartedOperation::now(key.namespace(), Operation::Delete);
        let result = self.delete_one(key, preconditions).await;
        let told = |deleted: &Deleted| if deleted.existed { Reply::Done } else { Reply::Absent };
        self.observe(&begun, result.as_ref().map(told), || Subject::Entry(key.clone()));
        result
    }

    async fn delete_one(&self, key: &EntryKey, preconditions: Option<&Preconditions>) -> Result<Deleted, Error> {
        if key.key() == RESERVED_KEY {
            return Err(Error::ReservedKey);
        }
        // A deletion with a source version stores that version, so it creates its namespace as a write does.
        let has_source_version = preconditions.is_some_and(|preconditions| preconditions.source_version.is_some());
        let tombstone_ttl = match has_source_version {
            true => self.registry.for_write(key.namespace())?.tombstone_ttl.as_duration(),
            false => self.tombstone_ttl(key.namespace()),
        };
        let _void = self.void_when_over(key);
        let result = self.store.delete(key, preconditions, tombstone_ttl).await;
        self.count_conditions(key.namespace(), false, &result);
        Ok(result?)
    }

    /// How long the source versions of deleted entries stay.
    pub(super) fn tombstone_ttl(&self, namespace: &str) -> Duration {
        self.registry.policy(namespace).tombstone_ttl.as_duration()
    }

    pub(super) fn void_when_over<'c>(&'c self, key: &'c EntryKey) -> VoidWhenOver<'c> {
        VoidWhenOver { near: self.near.as_ref(), waiting: &self.waiting, key }
    }
}

/// The write with what the policy says where the write says nothing.
pub(super) fn completed(write: Write, policy: &Policy) -> Write {
    let grace = policy.stale_while_revalidate.map(Ttl::as_duration);
    Write {
        ttl: ttl_of_write(write.ttl, policy),
        stale_while_revalidate: write.stale_while_revalidate.or(grace),
        ..write
    }
}
