//! Deleting all entries of a namespace, or those that a pattern or tag selects.

use super::observe::Begun;
use super::{Cache, Error};
use crate::access_log::Subject;
use crate::audit::Outcome;
use crate::clock::Moment;
use crate::model::{EntryKey, Key, Namespace, Operation, Origin, Selection};

impl Cache {
    /// Deletes what `selection` means and was written before; answers how many entries went.
    ///
    /// # Errors
    /// A shard failed; what could be deleted elsewhere was.
    pub async fn flush(&self, namespace: &Namespace, selection: &Selection, origin: &Origin) -> Result<u64, Error> {
        let mut note = self.audit.flush(namespace, selection, origin);
        let result = self.flush_selected(namespace, selection).await;
        note.ended(outcome(&result));
        result
    }

    /// The same without a row in the audit trail, for callers that see to it.
    pub(super) async fn flush_selected(&self, namespace: &Namespace, selection: &Selection) -> Result<u64, Error> {
        let started = Moment::now();
        let result = self.flush_all_shards(namespace, selection).await;
        let begun = Begun { namespace: namespace.as_str(), operation: Operation::Flush, at: started };
        self.observe(&begun, &result, || subject(namespace, selection));
        result
    }

    async fn flush_all_shards(&self, namespace: &Namespace, selection: &Selection) -> Result<u64, Error> {
        let on_deleted = |key: &str| {
            if let (Some(near), Ok(key)) = (&self.near, Key::parse(key)) {
                near.void(&EntryKey::new(namespace, &key));
            }
        };
        let result = self.store.flush(namespace, selection, &on_deleted).await;
        if let (Err(_), Some(near)) = (&result, &self.near) {
            // A step may have been carried out without telling which keys it took.
            near.void_namespace(namespace.as_str());
        }
        Ok(result?)
    }
}

/// What the audit trail says of a flush.
pub(super) fn outcome(result: &Result<u64, Error>) -> Outcome {
    match result {
        Ok(deleted) => Outcome::Complete { deleted: *deleted },
        Err(Error::PartlyFlushed { deleted, .. }) => Outcome::Partial { deleted: *deleted },
        Err(_) => Outcome::Partial { deleted: 0 },
    }
}

/// What the access log says of an operation on part of a namespace.
pub(super) fn subject(namespace: &Namespace, selection: &Selection) -> Subject {
    let selected = match selection {
        Selection::All => "*".to_owned(),
        Selection::Matching(pattern) => pattern.as_str().to_owned(),
        Selection::Tagged(tag) => format!("tag:{}", tag.as_str()),
    };
    Subject::Selection(namespace.clone(), selected)
}
