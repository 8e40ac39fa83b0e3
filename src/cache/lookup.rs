//! The results of reads: the entry, which tier answered, and why L1 did not.

use std::time::Duration;

use super::won_lease::Lease;
use crate::model::Entry;
use crate::store::{self, ShardIndex};

/// An answered read.
#[derive(Debug)]
pub struct Lookup {
    /// `None` for a miss.
    pub entry: Option<Entry>,
    pub trail: AnsweredBy,
}

/// Which tier answered, and why L1 did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    Embedded,
    L1 {
        /// No acknowledged write older than this is missing from the answer. Counted from the arrival of the request.
        staleness: Duration,
    },
    /// L1 with a stale copy, because the shard failed with `error`.
    Stale {
        shard: ShardIndex,
        error: store::Error,
        /// Time since the copy could last be served as fresh.
        overdue: Duration,
        /// As for L1.
        staleness: Duration,
    },
    Shard {
        shard: ShardIndex,
        skipped: L1SkipReason,
        /// The read was shared with another request.
        collapsed: bool,
    },
}

/// Why L1 did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L1SkipReason {
    /// It had no copy.
    Miss,
    /// The request demanded an answer from the shard.
    Request,
    /// The copy was made before invalidation messages were lost.
    Void,
    /// There was no recent enough proof that the copy is still current.
    Unproven,
    /// There is no L1.
    Off,
}

/// One key of an mget.
#[derive(Debug)]
pub enum Fetched {
    Hit(Entry),
    /// A stale copy, because the key's shard failed.
    Stale(Entry),
    Miss,
    /// A miss, and who has the lease on the key.
    Leased(Lease),
    Failed(store::Error),
}

impl Fetched {
    /// Bytes of the value.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Hit(entry) | Self::Stale(entry) => entry.value.len(),
            Self::Miss | Self::Leased(_) | Self::Failed(_) => 0,
        }
    }

    /// The result of a read that the store answered.
    pub(super) fn of(found: Option<Entry>) -> Self {
        found.filter(Entry::is_answerable).map_or(Self::Miss, Self::Hit)
    }

    pub(super) fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_) | Self::Stale(_))
    }

    pub(super) fn is_miss(&self) -> bool {
        matches!(self, Self::Miss | Self::Leased(_))
    }
}
