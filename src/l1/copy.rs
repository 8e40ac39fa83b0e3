//! A copy of an entry in L1: the owned form, and a borrowed view of it.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Moment;
use crate::model::{EntryRef, Extra, Kind, UnixMillis, Version};

/// A copy of an entry, or a blank: an entry without a value, which is never served.
#[derive(Clone, Copy, Debug)]
pub struct Copy<V = Bytes> {
    /// JSON is never empty, so an empty value is a blank, unless the entry has the kind `Bytes`.
    pub value: V,
    pub version: Version,
    pub created_at: UnixMillis,
    /// The end of the entry's freshness.
    pub expires_at: Option<Moment>,
    /// How long the copy is kept after it expired, see [`L1::get_stale`](super::L1::get_stale).
    pub stale_seconds: u32,
    pub extra: Extra,
    pub stamp: Stamp,
}

/// The shard of a copy, and the shard's epoch when the copy was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub shard: u16,
    pub epoch: u64,
}

/// A view of a [`Copy`] inside L1, valid while its stripe is locked.
pub type CopyRef<'c> = Copy<Value<'c>>;

/// The value of a copy. Small values are stored next to their key and are copied; large values are shared.
#[derive(Clone, Copy, Debug)]
pub enum Value<'c> {
    /// At most [`Value::LARGEST_SMALL`] bytes.
    Small(&'c [u8]),
    Large(&'c Bytes),
}

impl<'c> Value<'c> {
    /// Copying this many bytes costs less than reference counting, and holds the lock only briefly.
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

impl<V> Copy<V> {
    /// The time since the end of its freshness; `None` while it is fresh.
    pub fn overdue(&self, now: Moment) -> Option<Duration> {
        self.expires_at.filter(|expires_at| *expires_at <= now).map(|expires_at| now.since(expires_at))
    }
}

impl<'c> CopyRef<'c> {
    pub(super) fn is_blank(&self) -> bool {
        self.value.as_bytes().is_empty() && self.extra.kind != Kind::Bytes
    }

    /// Whether the copy is too old even to be served stale.
    pub(super) fn is_over(&self, expires_at: Moment, now: Moment) -> bool {
        let kept = Duration::from_secs(self.stale_seconds.into()).max(self.extra.grace());
        expires_at + kept <= now
    }

    /// The entry with this value.
    pub fn entry(&self, value: &'c [u8], now: Moment) -> EntryRef<'c> {
        EntryRef {
            value,
            version: self.version,
            created_at: self.created_at,
            expires_in: self.expires_at.map(|expires_at| expires_at.since(now)),
            overdue: self.overdue(now),
            extra: self.extra,
        }
    }
}

impl Copy {
    /// An owned copy of `copy`.
    pub fn of(copy: CopyRef<'_>) -> Self {
        Self {
            value: copy.value.to_bytes(),
            version: copy.version,
            created_at: copy.created_at,
            expires_at: copy.expires_at,
            stale_seconds: copy.stale_seconds,
            extra: copy.extra,
            stamp: copy.stamp,
        }
    }

    /// Whether `other`, a copy or blank of the same entry, is known to be newer.
    pub(super) fn is_older_than(&self, other: &CopyRef<'_>) -> bool {
        self.stamp.shard == other.stamp.shard && (self.stamp.epoch, self.version) < (other.stamp.epoch, other.version)
    }
}
