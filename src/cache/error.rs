//! Why an operation failed. `http::error` gives each error its status and code.

use crate::database;
use crate::model::Invalid;
use crate::namespaces::Refusal;
use crate::store::{self, Removal};

/// An error of the cache, the same for every protocol.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// An element of a batch is wrong; `list` is the name of the list in the request.
    #[error("{list}[{index}]: {error}")]
    Entry { list: &'static str, index: usize, error: Box<Error> },
    #[error("the key `stats` is reserved")]
    ReservedKey,
    #[error("the value has {size} bytes, at most {limit} are allowed")]
    ValueTooLarge { size: usize, limit: usize },
    #[error("a batch has at most {limit} keys, and this one has more")]
    TooManyKeys { limit: usize },
    /// The caller has no memory left for the answer.
    #[error("other answers use all the memory for answers; try again")]
    NoRoom,
    #[error("pass the `cursor` of the previous page unchanged")]
    InvalidCursor,
    /// A write to a namespace that does not exist, and `auto_create_namespaces` is off.
    #[error("the namespace does not exist, and writes do not create namespaces (`auto_create_namespaces` is off)")]
    UnknownNamespace,
    #[error(
        "the namespace's policy is unknown: the database could not be read yet, or a later release wrote the policy"
    )]
    PoliciesUnknown,
    #[error("there are already {limit} namespaces, which is the maximum (`max_namespaces`)")]
    TooManyNamespaces { limit: usize },
    #[error("no namespace of this name is configured")]
    NamespaceNotFound,
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A flush that failed on some shards.
    #[error("{deleted} entries were deleted before this error: {error}")]
    PartlyFlushed { deleted: u64, error: store::Error },
    /// A flush that marks entries as stale, and failed on some shards.
    #[error("{marked} entries were marked as stale before this error: {error}")]
    PartlyMarked { marked: u64, error: store::Error },
    #[error("too many flushes are running")]
    TooManyFlushes,
    #[error("the flush ended with a panic")]
    Panicked,
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl Error {
    /// Whether the request is at fault, not the service or a server behind it.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Store(error) => error.is_refusal(),
            Self::PartlyFlushed { .. }
            | Self::PartlyMarked { .. }
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

impl Error {
    /// The error of a flush that removed entries like this.
    pub(super) fn of_flush(failure: store::FlushFailure, removal: Removal) -> Self {
        let store::FlushFailure { deleted: done, error } = failure;
        match (error, removal.windows) {
            // No shard was asked.
            (error @ store::Error::RingMismatch, _) => Self::Store(error),
            (error, None) => Self::PartlyFlushed { deleted: done, error },
            (error, Some(_)) => Self::PartlyMarked { marked: done, error },
        }
    }
}
