//! How a store operation fails. Only `http::error` turns these into a status.

/// Names the shard so that logs can; clients see the kind alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was executed: the shard is not connected or refuses commands at present.
    #[error("shard {shard} is unavailable: {reason}")]
    Unavailable { shard: String, reason: String },
    /// No answer to a read in time.
    #[error("shard {shard} did not answer in time")]
    Timeout { shard: String },
    /// A write was sent and no answer came: it may or may not have happened.
    #[error("the outcome of a write on shard {shard} is unknown: {reason}")]
    OutcomeUnknown { shard: String, reason: String },
    /// Too many operations are under way on the shard; nothing was sent.
    #[error("shard {shard} has too many operations in flight")]
    Overloaded { shard: String },
    /// The store has no room for the value.
    #[error("shard {shard} is full")]
    Full { shard: String },
    /// The namespace holds as much as its policy allows, and the policy makes no room for the value.
    #[error("the namespace's quota is used up")]
    QuotaUsedUp,
    /// Something of another type stands under a Redis key of ours.
    #[error("on shard {shard} the key {name} is a {found} that sidecache did not write: {}", remedy(name))]
    ForeignType { shard: String, name: String, found: String },
    /// The living instances divide the keys among other shards, so this one must serve none.
    #[error("other instances divide the keys among other shards than this one")]
    RingMismatch,
    /// Room is being made for the namespace, and there is not enough yet.
    #[error("shard {shard} is making room")]
    MakingRoom { shard: String },
    /// The shard answered something this program does not understand.
    #[error("shard {shard} answered unexpectedly: {reason}")]
    Protocol { shard: String, reason: String },
}

/// How to remove what stands under this Redis key.
fn remedy(name: &str) -> &'static str {
    match name.split(':').next() {
        Some("cache" | "cache_meta") => "DELETE the entry, or flush the namespace, to remove it",
        _ => "flush the namespace to remove it",
    }
}

impl Error {
    /// Whether the shard could not answer, so that a copy may have to do: it is away, silent or has too
    /// much to do already.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. } | Self::Overloaded { .. })
    }

    /// The shard that failed, where it is one.
    pub fn shard(&self) -> Option<&str> {
        match self {
            Self::Unavailable { shard, .. }
            | Self::Timeout { shard }
            | Self::OutcomeUnknown { shard, .. }
            | Self::Overloaded { shard }
            | Self::Full { shard }
            | Self::ForeignType { shard, .. }
            | Self::MakingRoom { shard }
            | Self::Protocol { shard, .. } => Some(shard),
            Self::QuotaUsedUp | Self::RingMismatch => None,
        }
    }

    /// The names of the shards that failed, sorted.
    pub fn shards_of(failed: &[Self]) -> Vec<String> {
        let mut names: Vec<String> = failed.iter().filter_map(Self::shard).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether a key of another type, and not a fault of the shard, caused the error.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::ForeignType { .. })
    }

    /// Whether the namespace's policy says no, rather than something being broken.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::QuotaUsedUp)
    }

    /// The same for who reads: the upkeep that a read does on the way is done by the next one otherwise.
    pub fn of_a_read(self) -> Self {
        match self {
            Self::OutcomeUnknown { shard, .. } => Self::Timeout { shard },
            error => error,
        }
    }

    /// Whether a write that failed this way may have happened all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. } | Self::Protocol { .. })
    }
}
