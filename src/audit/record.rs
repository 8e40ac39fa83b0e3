//! The record of a change.

use crate::clock::unix_millis;
use crate::model::{Namespace, Origin, Policy, Selection, UnixMillis};

/// One change: who changed what, and when.
#[derive(Clone, Debug)]
pub struct Record {
    pub namespace: Namespace,
    pub at: UnixMillis,
    pub origin: Origin,
    pub change: Change,
}

/// What was changed.
#[derive(Clone, Debug)]
pub enum Change {
    PolicyCreated {
        after: Policy,
    },
    PolicyReplaced {
        before: Policy,
        after: Policy,
    },
    /// The policy and all entries of the namespace were deleted.
    PolicyDeleted {
        before: Policy,
        deleted: u64,
    },
    Flush {
        selection: Selection,
        /// Whether the entries were marked stale instead of deleted.
        is_mark: bool,
        outcome: Outcome,
    },
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete {
        deleted: u64,
    },
    /// It failed before it was complete.
    Partial {
        deleted: u64,
    },
    /// It was cancelled before its end was known.
    Abandoned,
}

impl Record {
    /// A record with the current time.
    pub fn new(namespace: &Namespace, origin: &Origin, change: Change) -> Self {
        Self { namespace: namespace.clone(), at: unix_millis(), origin: origin.clone(), change }
    }
}
