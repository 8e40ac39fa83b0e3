//! Changing an entry depending on what it is now, for operations that read and write in one step.
//!
//! The entry is read from its shard, the caller decides, and the change is made only if the entry is still the one that
//! was read: its version is the precondition. Otherwise all of this happens again. So the change is atomic on every
//! store and needs no script of its own. Clients that change one key at the same time repeat each other's work.
//!
//! What a read is answered with exists for the caller: an entry whose freshness is over, too, if it is still answered while
//! somebody refreshes it. A known absence, and an entry that is kept only in place of errors, do not exist.
//!
//! A change of the time to live alone makes no new version, so two such changes at the same time do not see each other.

use std::time::Duration;

use bytes::Bytes;

use super::observe::{Reply, StartedOperation};
use super::write::completed;
use super::{Cache, Error};
use crate::access_log::Subject;
use crate::model::{
    Details, Entry, EntryKey, EtagList, Kind, Operation, Patch, Policy, Positions, Preconditions, Tags, Ttl,
    TtlChange, Version, Write,
};
use crate::store;

/// How often an entry is read again before the caller is told that it changes all the time.
const ATTEMPTS: usize = 100;

/// What happens to the entry.
#[derive(Clone, Debug)]
pub enum Change {
    Nothing,
    Put(Put),
    /// Another time to live; value and version stay.
    Ttl(TtlChange),
    Delete,
}

/// The entry that replaces the present one.
#[derive(Clone, Debug)]
pub struct Put {
    pub value: Bytes,
    pub kind: Kind,
    pub lifetime: Lifetime,
    pub tags: Tags,
}

/// How long the new entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As the policy of the namespace says.
    Default,
    /// The same end of freshness and the same grace as the present entry. Without a present entry, what the policy
    /// says.
    Keep,
    For(Ttl),
}

impl Cache {
    /// Lets `decide` see the present entry, and makes the change that it wants. `decide` may be called several times;
    /// the result of its last call is returned. `operation` is how the change is counted.
    ///
    /// # Errors
    /// The change is refused, or the owning shard failed. [`store::Error::PreconditionFailed`] if the entry changed
    /// again and again.
    pub async fn update<R>(
        &self,
        key: &EntryKey,
        operation: Operation,
        decide: impl FnMut(Option<(&Entry, &Details)>) -> (Change, R),
    ) -> Result<R, Error> {
        let begun = StartedOperation::now(key.namespace(), operation);
        let result = self.change(key, decide).await;
        let told = |(told, _): &(Reply<'static>, R)| *told;
        self.observe(&begun, result.as_ref().map(told), || Subject::Entry(key.clone()));
        result.map(|(_, decided)| decided)
    }

    async fn change<R>(
        &self,
        key: &EntryKey,
        mut decide: impl FnMut(Option<(&Entry, &Details)>) -> (Change, R),
    ) -> Result<(Reply<'static>, R), Error> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            self.metrics.shard_reads.increment(1);
            let found = self.store.describe(key, &Positions::default()).await?;
            let version = found.as_ref().and_then(|(entry, _)| version_for_preconditions(entry));
            let present =
                found.as_ref().filter(|(entry, _)| is_shown(entry)).map(|(entry, details)| (entry, details));
            let (change, decided) = decide(present);
            let told = if present.is_some() { Reply::Done } else { Reply::Absent };
            let changed = match change {
                Change::Nothing => return Ok((told, decided)),
                Change::Put(put) => self.put(key, put, present.map(|(entry, _)| entry), version).await,
                Change::Ttl(ttl) => self.set_ttl(key, ttl, version).await,
                Change::Delete => self.remove(key, version).await,
            };
            match changed {
                Ok(told) => return Ok((told, decided)),
                Err(error @ Error::Store(store::Error::PreconditionFailed { .. })) => last = Some(error),
                Err(error) => return Err(error),
            }
            tokio::task::yield_now().await;
        }
        Err(last.expect("there was an attempt"))
    }

    async fn put(
        &self,
        key: &EntryKey,
        put: Put,
        present: Option<&Entry>,
        version: Option<Version>,
    ) -> Result<Reply<'static>, Error> {
        let Put { value, kind, lifetime, tags } = put;
        let preconditions = Some(Box::new(still(version)));
        let write = Write { value, kind, tags, preconditions, ..Write::default() };
        self.check_write(key, &write, self.registry.for_check(key.namespace())?.quota())?;
        let policy = self.registry.for_write(key.namespace())?;
        let write = with_lifetime(write, lifetime, present, &policy);
        let _void = self.void_when_over(key);
        let stored = self.store.set(key, write, policy.quota()).await?;
        Ok(match stored.outcome {
            store::Outcome::Created => Reply::Created,
            store::Outcome::Replaced => Reply::Done,
        })
    }

    async fn set_ttl(
        &self,
        key: &EntryKey,
        ttl: TtlChange,
        version: Option<Version>,
    ) -> Result<Reply<'static>, Error> {
        let quota = self.registry.for_check(key.namespace())?.quota();
        let patch = Patch { ttl, tags: None, preconditions: Some(Box::new(still(version))) };
        let _void = self.void_when_over(key);
        let patched = self.store.patch(key, &patch, quota).await?;
        Ok(if patched.is_some() { Reply::Done } else { Reply::Absent })
    }

    async fn remove(&self, key: &EntryKey, version: Option<Version>) -> Result<Reply<'static>, Error> {
        let _void = self.void_when_over(key);
        let deleted = self.store.delete(key, Some(&still(version)), self.tombstone_ttl(key.namespace())).await?;
        Ok(if deleted.existed { Reply::Done } else { Reply::Absent })
    }
}

/// Whether a read is answered with this entry, so that it exists for operations that read and write.
fn is_shown(entry: &Entry) -> bool {
    entry.is_answerable() && !entry.is_known_absent()
}

/// The version by which preconditions know this entry; `None` if it is no present entry for them. An entry that is shown
/// is present.
fn version_for_preconditions(entry: &Entry) -> Option<Version> {
    entry.extra.is_present().then_some(entry.version)
}

/// The write with the end of its freshness and its grace.
fn with_lifetime(write: Write, lifetime: Lifetime, present: Option<&Entry>, policy: &Policy) -> Write {
    match (lifetime, present) {
        (Lifetime::Keep, Some(entry)) => with_ends_of(entry, write),
        (Lifetime::For(ttl), _) => completed(Write { ttl: Some(ttl), ..write }, policy),
        (Lifetime::Default | Lifetime::Keep, _) => completed(write, policy),
    }
}

/// The write such that its entry is fresh, and goes, when `entry` would be. If the freshness of `entry` is over, that of
/// the new entry is over at once, because its value may depend on the stale one.
fn with_ends_of(entry: &Entry, write: Write) -> Write {
    let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    let left_of = |grace: Duration| grace.saturating_sub(entry.overdue.unwrap_or_default());
    Write {
        ttl: entry.expires_in.and_then(|left| Ttl::from_millis(millis(left))),
        stale_while_revalidate: entry.extra.own_grace().map(left_of),
        ..write
    }
}

/// The precondition that the entry is still the one with this version, or that there is still none.
fn still(version: Option<Version>) -> Preconditions {
    match version {
        Some(version) => {
            Preconditions { if_match: Some(EtagList::Listed(vec![version])), ..Preconditions::default() }
        }
        None => Preconditions { if_none_match: Some(EtagList::Any), ..Preconditions::default() },
    }
}
