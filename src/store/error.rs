//! The errors of store operations. Only `http::error` turns them into a status.

use crate::model::Version;

/// Errors name the shard for the logs; clients see only the kind of error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was executed: the shard is not connected, or it refuses commands at present.
    #[error("shard {shard} is unavailable: {reason}")]
    Unavailable { shard: String, reason: String },
    /// A read was not answered in time.
    #[error("shard {shard} did not answer in time")]
    Timeout { shard: String },
    /// A write was sent but not answered: it may or may not have happened.
    #[error("the outcome of a write on shard {shard} is unknown: {reason}")]
    OutcomeUnknown { shard: String, reason: String },
    /// Too many operations are in flight on the shard. Nothing was sent.
    #[error("shard {shard} has too many operations in flight")]
    Overloaded { shard: String },
    /// The store has no room for the value.
    #[error("shard {shard} is full")]
    Full { shard: String },
    /// The namespace's quota is used up, and its policy does not allow evicting entries to make room.
    #[error("the namespace's quota is used up")]
    QuotaUsedUp,
    /// A precondition of the write was not met, and nothing was changed. `present` is the version of the present entry.
    #[error("the precondition is not met: {}", shown(*present))]
    PreconditionFailed { present: Option<Version> },
    /// The entry, or the tombstone of a deleted one, has a larger source version than the change, and nothing was
    /// changed. `present` is the version of the present entry.
    #[error("a newer source version is known: {}", shown(*present))]
    NewerVersionExists { present: Option<Version> },
    /// The lease that a write names does not stand any more, and nothing was changed.
    #[error("the lease is lost: it has ended, or the key was changed after it was given")]
    LeaseLost,
    /// A read wanted an answer from memory alone, and the entry is not in memory. No shard was asked.
    #[error("the entry is not in this instance's memory, and `only-if-cached` does not allow asking its shard")]
    NotInMemory,
    /// One of sidecache's Redis keys holds a value of another type.
    #[error("on shard {shard} the key {name} is a {found} that sidecache did not write: {}", remedy(name))]
    ForeignType { shard: String, name: String, found: String },
    /// The shard lacks changes that the read must see: a failover or a restart lost them.
    #[error("shard {shard} does not have every change up to the position of the request")]
    PositionLost { shard: String },
    /// Living instances use a different set of shards, so this instance must not serve any shard.
    #[error("other instances use a different set of shards than this one")]
    RingMismatch,
    /// The shard is making room for the namespace, but there is not enough room yet.
    #[error("shard {shard} is making room")]
    MakingRoom { shard: String },
    /// The shard gave an answer that this program does not understand.
    #[error("unexpected answer of shard {shard}: {reason}")]
    Protocol { shard: String, reason: String },
}

/// The present entry, for an error about a precondition.
fn shown(present: Option<Version>) -> String {
    match present {
        Some(Version(version)) => format!("the ETag of the present entry is \"{version}\""),
        None => "there is no such entry".to_owned(),
    }
}

/// How to remove the foreign value under this Redis key.
fn remedy(name: &str) -> &'static str {
    match name.split(':').next() {
        Some("cache" | "cache_meta") => "DELETE the entry, or flush the namespace, to remove it",
        _ => "flush the namespace to remove it",
    }
}

impl Error {
    /// Whether the shard could not answer, so that a local copy may be used instead: the shard is unreachable, silent
    /// or overloaded.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. } | Self::Overloaded { .. })
    }

    /// The shard that failed, if the error belongs to one shard.
    pub fn shard(&self) -> Option<&str> {
        match self {
            Self::Unavailable { shard, .. }
            | Self::Timeout { shard }
            | Self::OutcomeUnknown { shard, .. }
            | Self::Overloaded { shard }
            | Self::Full { shard }
            | Self::ForeignType { shard, .. }
            | Self::PositionLost { shard }
            | Self::MakingRoom { shard }
            | Self::Protocol { shard, .. } => Some(shard),
            Self::QuotaUsedUp
            | Self::PreconditionFailed { .. }
            | Self::NewerVersionExists { .. }
            | Self::LeaseLost
            | Self::NotInMemory
            | Self::RingMismatch => None,
        }
    }

    /// The names of the shards that failed, sorted.
    pub fn shards_of(failed: &[Self]) -> Vec<String> {
        let mut names: Vec<String> = failed.iter().filter_map(Self::shard).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether the error was caused by a key of another type and not by a fault of the shard.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::ForeignType { .. })
    }

    /// Whether the namespace's policy, a precondition or the terms of a read refused the operation and nothing is
    /// broken.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::QuotaUsedUp | Self::NotInMemory) || self.is_precondition()
    }

    /// Whether a precondition of the change refused it: its ETags, its lease or its source version.
    pub fn is_precondition(&self) -> bool {
        matches!(self, Self::PreconditionFailed { .. } | Self::NewerVersionExists { .. } | Self::LeaseLost)
    }

    /// The version of the present entry, if a precondition refused the change of it.
    pub fn present(&self) -> Option<Version> {
        match self {
            Self::PreconditionFailed { present } | Self::NewerVersionExists { present } => *present,
            _ => None,
        }
    }

    /// The error as a read reports it. If the cleanup during a read has an unknown outcome, the next read repeats it.
    pub fn of_a_read(self) -> Self {
        match self {
            Self::OutcomeUnknown { shard, .. } => Self::Timeout { shard },
            error => error,
        }
    }

    /// Whether a write that failed with this error may have happened nevertheless.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. } | Self::Protocol { .. })
    }
}
