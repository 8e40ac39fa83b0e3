//! Soft deletion: ends the freshness of entries, so that one reader refreshes each of them while the others are
//! answered.

use super::observe::{Reply, StartedOperation};
use super::{Cache, Error, RESERVED_KEY};
use crate::access_log::Subject;
use crate::model::{EntryKey, Operation, Preconditions, Ttl};
use crate::store::{Deleted, Removal, Windows};

impl Cache {
    /// How entries of a namespace are removed: marked stale where its policy or their own grace allows it, or deleted.
    pub(super) fn removal(&self, namespace: &str, is_mark: bool) -> Removal {
        let policy = self.registry.policy(namespace);
        let duration = |ttl: Option<Ttl>| ttl.map_or(Default::default(), Ttl::as_duration);
        let windows = Windows {
            stale_while_revalidate: duration(policy.stale_while_revalidate),
            stale_if_error: duration(policy.stale_if_error),
        };
        Removal { tombstone_ttl: policy.tombstone_ttl.as_duration(), windows: is_mark.then_some(windows) }
    }

    /// Marks an entry as stale, or deletes it if it has no window.
    ///
    /// # Errors
    /// The key is reserved, a precondition is not met, or the owning shard failed.
    pub async fn mark(&self, key: &EntryKey, preconditions: Option<&Preconditions>) -> Result<Deleted, Error> {
        let begun = StartedOperation::now(key.namespace(), Operation::Delete);
        let result = self.mark_one(key, preconditions).await;
        let told = |marked: &Deleted| if marked.existed { Reply::Done } else { Reply::Absent };
        self.observe(&begun, result.as_ref().map(told), || Subject::Entry(key.clone()));
        result
    }

    async fn mark_one(&self, key: &EntryKey, preconditions: Option<&Preconditions>) -> Result<Deleted, Error> {
        if key.key() == RESERVED_KEY {
            return Err(Error::ReservedKey);
        }
        let _void = self.void_when_over(key);
        let result = self.store.mark(key, preconditions, self.removal(key.namespace(), true)).await;
        self.count_conditions(key.namespace(), false, &result);
        Ok(result?)
    }
}
