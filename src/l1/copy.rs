//! What L1 keeps of an entry: owned, and as it is looked at where it lies.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Moment;
use crate::model::{UnixMillis, Version};

/// A copy of an entry; or a mark, which has no value and is never served.
#[derive(Clone, Debug)]
pub struct Copy {
    /// JSON, and so never empty, but for a mark.
    pub value: Bytes,
    pub version: Version,
    pub created_at: UnixMillis,
    pub expires_at: Option<Moment>,
    /// For how long it is kept after that, see [`L1::get_stale`](super::L1::get_stale).
    pub stale_seconds: u32,
    pub stamp: Stamp,
}

/// Under which knowledge of which shard a copy was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub shard: u16,
    pub epoch: u64,
}

/// A [`Copy`] as it lies in L1, for as long as its stripe is locked.
#[derive(Clone, Copy, Debug)]
pub struct CopyRef<'c> {
    pub value: Value<'c>,
    pub version: Version,
    pub created_at: UnixMillis,
    pub expires_at: Option<Moment>,
    pub stale_seconds: u32,
    pub stamp: Stamp,
}

/// The value of a copy: small ones lie beside their key and are copied, large ones are shared.
#[derive(Clone, Copy, Debug)]
pub enum Value<'c> {
    /// At most [`Value::LARGEST_SMALL`] bytes.
    Small(&'c [u8]),
    Large(&'c Bytes),
}

impl<'c> Value<'c> {
    /// Copying so many bytes costs less than counting who shares them, and does not hold a lock for long.
    pub const LARGEST_SMALL: usize = 4096;

    pub fn as_bytes(self) -> &'c [u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }

    pub fn to_bytes(self) -> Bytes {
        match self {
            Self::Small(bytes) => Bytes::copy_from_slice(bytes),
            Self::Large(bytes) => bytes.clone(),
        }
    }
}

impl CopyRef<'_> {
    pub(super) fn is_mark(&self) -> bool {
        self.value.as_bytes().is_empty()
    }

    /// Whether nobody can want it any more.
    pub(super) fn is_over(&self, expires_at: Moment, now: Moment) -> bool {
        expires_at + Duration::from_secs(self.stale_seconds.into()) <= now
    }
}

impl Copy {
    /// What `copy` shows, to keep.
    pub fn of(copy: CopyRef<'_>) -> Self {
        Self {
            value: copy.value.to_bytes(),
            version: copy.version,
            created_at: copy.created_at,
            expires_at: copy.expires_at,
            stale_seconds: copy.stale_seconds,
            stamp: copy.stamp,
        }
    }

    /// Whether another copy or mark of the same entry is known to be newer.
    pub(super) fn is_older_than(&self, other: &CopyRef<'_>) -> bool {
        self.stamp.shard == other.stamp.shard && (self.stamp.epoch, self.version) < (other.stamp.epoch, other.version)
    }
}
