//! Why a verb was not carried out. `http::error` gives each its status and code.

use crate::database;
use crate::model::Invalid;
use crate::namespaces::Refusal;
use crate::store;

/// An error of the cache, whatever protocol asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// An element of a batch is wrong, in the list that the caller calls so.
    #[error("{list}[{index}]: {error}")]
    Entry { list: &'static str, index: usize, error: Box<Error> },
    #[error("the key `stats` is reserved")]
    ReservedKey,
    #[error("the value has {size} bytes, at most {limit} are allowed")]
    ValueTooLarge { size: usize, limit: usize },
    #[error("a batch has at most {limit} keys, and this one has more")]
    TooManyKeys { limit: usize },
    /// Whoever asked has no room for the answer.
    #[error("the answers under way leave no room for this one")]
    NoRoom,
    #[error("the cursor is none that a listing gave")]
    InvalidCursor,
    /// A write to a namespace that does not exist and is not created.
    #[error("the namespace does not exist and is not created by a write")]
    UnknownNamespace,
    #[error(
        "the namespace's policy is not known: it could not be read from the database yet, or a later release wrote it"
    )]
    PoliciesUnknown,
    #[error("there are {limit} namespaces already, which is the most allowed")]
    TooManyNamespaces { limit: usize },
    #[error("the namespace has no policy of its own")]
    NamespaceNotFound,
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A flush that reached only part of the shards.
    #[error("{deleted} entries were deleted, then: {error}")]
    PartlyFlushed { deleted: u64, error: store::Error },
    #[error("as many flushes are under way as may be")]
    TooManyFlushes,
    #[error("a panic ended the flush")]
    Panicked,
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl Error {
    /// Whether the request was wrong, rather than something behind it broken.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Store(error) => error.is_refusal(),
            Self::PartlyFlushed { .. }
            | Self::TooManyFlushes
            | Self::Panicked
            | Self::Database(_)
            | Self::PoliciesUnknown
            | Self::NoRoom => false,
            _ => true,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::UnknownNamespace,
            Refusal::PolicyUnknown => Self::PoliciesUnknown,
            Refusal::TooMany { limit } => Self::TooManyNamespaces { limit },
        }
    }
}

impl From<store::FlushFailure> for Error {
    fn from(failure: store::FlushFailure) -> Self {
        match failure.error {
            // No shard was asked.
            error @ store::Error::RingMismatch => Self::Store(error),
            error => Self::PartlyFlushed { deleted: failure.deleted, error },
        }
    }
}
