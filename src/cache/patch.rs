//! Changing the TTL or the tags of one entry. The value stays, so this ends no lease.

use super::observe::{Reply, StartedOperation};
use super::{Cache, Error, RESERVED_KEY};
use crate::access_log::Subject;
use crate::model::{EntryKey, Operation, Patch};
use crate::store::Patched;

impl Cache {
    /// Changes the TTL or the tags of an entry. Returns `None` if there is no entry. The policy's default TTL does not
    /// matter here.
    ///
    /// # Errors
    /// The key is reserved, a precondition is not met, there is no room for the tags, or the owning shard failed.
    pub async fn patch(&self, key: &EntryKey, patch: &Patch) -> Result<Option<Patched>, Error> {
        let begun = StartedOperation::now(key.namespace(), Operation::Patch);
        let result = self.patch_one(key, patch).await;
        let told = |patched: &Option<Patched>| if patched.is_some() { Reply::Done } else { Reply::Absent };
        self.observe(&begun, result.as_ref().map(told), || Subject::Entry(key.clone()));
        result
    }

    async fn patch_one(&self, key: &EntryKey, patch: &Patch) -> Result<Option<Patched>, Error> {
        if key.key() == RESERVED_KEY {
            return Err(Error::ReservedKey);
        }
        // It creates no namespace: one that nobody wrote has no entries.
        let quota = self.registry.for_check(key.namespace())?.quota();
        // Also a copy of the same version is void: it has the old TTL.
        let _void = self.void_when_over(key);
        let result = self.store.patch(key, patch, quota).await;
        self.count_conditions(key.namespace(), false, &result);
        Ok(result?)
    }
}
