//! What a change leaves behind.

use crate::clock::unix_millis;
use crate::model::{Namespace, Origin, Policy, Selection, UnixMillis};

/// One change: who, what, when.
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
    /// With all entries of the namespace.
    PolicyDeleted {
        before: Policy,
        deleted: u64,
    },
    Flush {
        selection: Selection,
        outcome: Outcome,
    },
}

/// What became of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete {
        deleted: u64,
    },
    /// It failed on the way.
    Partial {
        deleted: u64,
    },
    /// It was given up, its time being over.
    Abandoned,
}

impl Record {
    /// A record of now.
    pub fn new(namespace: &Namespace, origin: &Origin, change: Change) -> Self {
        Self { namespace: namespace.clone(), at: unix_millis(), origin: origin.clone(), change }
    }
}
