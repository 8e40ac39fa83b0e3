//! The results of reads: the entry, which tier answered, and why L1 did not.

use std::time::Duration;

use super::won_lease::Lease;
use crate::clock::unix_millis;
use crate::model::{Candidate, Entry, ReadTerms, Unmet};
use crate::store::{self, ShardIndex};

/// An answered read.
#[derive(Debug)]
pub struct Lookup {
    /// `None` for a miss.
    pub entry: Option<Entry>,
    /// For a miss although there is an entry: the term of the read that the entry does not meet.
    pub unmet: Option<Unmet>,
    pub trail: AnsweredBy,
}

impl Lookup {
    pub fn hit(entry: Entry, trail: AnsweredBy) -> Self {
        Self { entry: Some(entry), unmet: None, trail }
    }

    /// The answer of the store to a read with these terms.
    pub fn of_store(found: Option<Entry>, terms: &ReadTerms, trail: AnsweredBy) -> Self {
        match answerable(found, terms) {
            Ok(entry) => Self { entry, unmet: None, trail },
            Err(unmet) => Self { entry: None, unmet: Some(unmet), trail },
        }
    }
}

/// The entry that the store found, if it may answer a read with these terms; else the term that it does not meet.
fn answerable(found: Option<Entry>, terms: &ReadTerms) -> Result<Option<Entry>, Unmet> {
    let found = found.filter(Entry::is_answerable);
    if let Some(entry) = &found {
        check(terms, entry, Duration::ZERO, Duration::ZERO)?;
    }
    Ok(found)
}

/// Whether an entry meets the terms of a read, see [`Candidate`]. `unproven` is the time since the end of its proof.
/// Its age is by the clocks of the shard and of this machine.
pub fn check(terms: &ReadTerms, entry: &Entry, unproven: Duration, staleness: Duration) -> Result<(), Unmet> {
    // Most reads have no terms.
    if terms.is_plain() {
        return Ok(());
    }
    let age = Duration::from_millis(unix_millis().0.saturating_sub(entry.created_at.0));
    let overdue = entry.overdue.unwrap_or_default().max(unproven);
    terms.check(&Candidate { age, left: entry.expires_in, overdue, staleness })
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
    /// Its copy does not meet a term of the read.
    Terms(Unmet),
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
    /// A miss, and whether this caller or another one has the lease on the key.
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
    pub(super) fn of(found: Option<Entry>, terms: &ReadTerms) -> Self {
        answerable(found, terms).unwrap_or_default().map_or(Self::Miss, Self::Hit)
    }

    pub(super) fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_) | Self::Stale(_))
    }

    /// Whether the entry is past the end of its freshness, while its shard works.
    pub(super) fn is_overdue(&self) -> bool {
        matches!(self, Self::Hit(entry) if entry.overdue.is_some())
    }

    /// Whether the entry says that the source has no such thing.
    pub fn is_known_absent(&self) -> bool {
        matches!(self, Self::Hit(entry) | Self::Stale(entry) if entry.is_known_absent())
    }

    /// The lease that the read got or was refused.
    pub(super) fn lease(&self) -> Option<&Lease> {
        if let Self::Leased(lease) = self { Some(lease) } else { None }
    }

    pub(super) fn is_miss(&self) -> bool {
        matches!(self, Self::Miss | Self::Leased(_))
    }
}
