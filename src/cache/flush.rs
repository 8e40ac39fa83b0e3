//! Deleting all entries of a namespace, or those that a pattern or tag selects.

use std::sync::Arc;

use super::observe::{Reply, StartedOperation};
use super::{Cache, Error};
use crate::access_log::Subject;
use crate::jobs::{Answer, Failure, Flush, Job, Kind, Patience, Refused};
use crate::model::{EntryKey, Key, Namespace, Operation, Origin, Positions, Selection};
use crate::store::{FlushProgress, Removal};

/// How a flush was answered.
#[derive(Debug)]
pub enum Flushed {
    /// It is finished. The positions of the shards include it; a shard that did not say its position is missing.
    Done { deleted: u64, positions: Positions },
    /// It continues as this job.
    Job(Box<Job>),
}

impl Cache {
    /// Deletes the selected entries that were written before this call. A flush that is not finished when `patience`
    /// ends continues as a job, even if the caller is gone. `failure` turns an error into the protocol's status and
    /// code.
    ///
    /// # Errors
    /// A shard failed; entries on other shards were deleted. Or too many flushes are running, and nothing was
    /// deleted.
    pub async fn flush(
        self: &Arc<Self>,
        flush: Flush,
        patience: Patience,
        failure: fn(&Error) -> Failure,
    ) -> Result<Flushed, Error> {
        let (cache, target) = (self.clone(), flush.clone());
        let work = |progress: Arc<FlushProgress>| async move {
            let Flush { kind, namespace, selection, origin } = &target;
            let removal = cache.removal(namespace.as_str(), *kind == Kind::MarkStale);
            let deleted = cache.flush_selected(namespace, selection, removal, &progress).await?;
            if *kind == Kind::DeleteNamespace && !progress.is_cancelled() {
                cache.remove_policy(namespace, deleted, origin).await?;
            }
            Ok(deleted)
        };
        match self.jobs.flush(flush, patience, failure, work).await {
            Ok(Answer::Ended(result)) => {
                Ok(Flushed::Done { deleted: result?, positions: self.present_positions().await })
            }
            Ok(Answer::Job(job)) => Ok(Flushed::Job(job)),
            Err(Refused::TooMany) => Err(Error::TooManyFlushes),
            Err(Refused::Panicked) => Err(Error::Panicked),
        }
    }

    /// Deletes the entries of a namespace and then its policy; like a flush, it may become a job.
    ///
    /// # Errors
    /// The namespace has no policy, or the store or the database failed.
    pub async fn delete_namespace(
        self: &Arc<Self>,
        namespace: &Namespace,
        origin: &Origin,
        patience: Patience,
        failure: fn(&Error) -> Failure,
    ) -> Result<Flushed, Error> {
        self.check_removable(namespace).await?;
        let (kind, selection) = (Kind::DeleteNamespace, Selection::All);
        let flush = Flush { kind, namespace: namespace.clone(), selection, origin: origin.clone() };
        self.flush(flush, patience, failure).await
    }

    /// Deletes or marks entries without a row in the audit trail; the caller writes that row.
    pub(super) async fn flush_selected(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        removal: Removal,
        progress: &FlushProgress,
    ) -> Result<u64, Error> {
        let begun = StartedOperation::now(namespace.as_str(), Operation::Flush);
        let on_deleted = |key: &str| {
            if let (Some(near), Ok(key)) = (&self.near, Key::parse(key)) {
                near.void(&EntryKey::new(namespace, &key));
            }
        };
        let result = self.store.flush(namespace, selection, &on_deleted, progress, removal).await;
        let result = result.map_err(|failure| Error::of_flush(failure, removal));
        // The flush ended all leases of the namespace.
        self.waiting.all_changed();
        if let (Err(_), Some(near)) = (&result, &self.near) {
            // A step may have deleted keys without reporting which.
            near.void_namespace(namespace.as_str());
        }
        self.observe(&begun, result.as_ref().map(|_| Reply::Done), || subject(namespace, selection));
        result
    }
}

/// The subject, for the access log, of an operation on part of a namespace.
pub(super) fn subject(namespace: &Namespace, selection: &Selection) -> Subject {
    let selected = match selection {
        Selection::All => "*".to_owned(),
        Selection::Matching(pattern) => pattern.as_str().to_owned(),
        Selection::Tagged(tag) => format!("tag:{}", tag.as_str()),
    };
    Subject::Selection(namespace.clone(), selected)
}
