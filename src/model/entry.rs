//! An entry: a value and its metadata, and how many bytes it counts towards the quota of its namespace.

use std::time::Duration;

use bytes::Bytes;

use super::date::UnixMillis;
use super::extra::{Extra, Kind};
use super::part::Part;
use super::source_version::SourceVersion;
use super::tag::Tags;

/// The number of a write, issued by the owning shard: `max(previous + 1, shard time in µs)`.
///
/// The highest version wins. It is also the entry's `ETag`. It is less than 2^53, so a Lua number represents it
/// exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// A live entry, as a store returns it: it is fresh, or its grace is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<V = Bytes> {
    /// The bytes exactly as the client sent them: JSON, unless its kind is `Bytes`.
    pub value: V,
    pub version: Version,
    /// When this value was written.
    pub created_at: UnixMillis,
    /// How long it was still fresh when the store read it; `None` for an entry that never expires.
    pub expires_in: Option<Duration>,
    /// The time since the end of its freshness; `None` while it is fresh.
    pub overdue: Option<Duration>,
    pub extra: Extra,
}

/// A borrowed view of an [`Entry`].
pub type EntryRef<'e> = Entry<&'e [u8]>;

impl Entry {
    pub fn borrowed(&self) -> EntryRef<'_> {
        let Self { value, version, created_at, expires_in, overdue, extra } = self;
        EntryRef {
            value,
            version: *version,
            created_at: *created_at,
            expires_in: *expires_in,
            overdue: *overdue,
            extra: *extra,
        }
    }
}

impl<V> Entry<V> {
    /// The date at which its freshness ends or ended; `None` for never.
    pub fn expires_at(&self, now: UnixMillis) -> Option<UnixMillis> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Some(UnixMillis(match (self.expires_in?, self.overdue) {
            (left, None) => now.0.saturating_add(ms(left)),
            (_, Some(overdue)) => now.0.saturating_sub(ms(overdue)),
        }))
    }

    /// Whether it says that the source has no such thing. Then it is no present entry for preconditions.
    pub fn is_known_absent(&self) -> bool {
        self.extra.kind == Kind::Absent
    }

    /// The time until the entry should be refreshed, which is when the part `refresh_after` of its TTL is over: zero
    /// from then on, `None` if it never expires. `now` is the date by the clock of its shard.
    pub fn refresh_in(&self, refresh_after: Part, now: UnixMillis) -> Option<Duration> {
        let left = self.expires_in?;
        if self.overdue.is_some() || refresh_after == Part::ALL {
            return Some(left);
        }
        let age = now.0.saturating_sub(self.created_at.0);
        let ttl = age.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        Some(Duration::from_millis(refresh_after.of(ttl).saturating_sub(age)))
    }

    /// Whether a read may be answered with it while its shard works: it is fresh, or may be stale while somebody
    /// refreshes it.
    pub fn is_answerable(&self) -> bool {
        self.overdue.is_none_or(|overdue| overdue < self.extra.stale_while_revalidate())
    }
}

/// Metadata of an entry that ordinary reads do not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// The time of the last read that found it, or of its first write.
    pub last_accessed: UnixMillis,
    /// Number of reads that found it since it was created; overwriting the value does not reset it.
    pub access_count: u64,
    pub tags: Tags,
    /// The source's own count of the state that the value is; `None` if the write named none.
    pub source_version: Option<SourceVersion>,
}

/// The memory that an entry costs in addition to its value, key and tags, in bytes.
///
/// Measured as the growth of the process with 400,000 small entries in the embedded store: 335 bytes with LRU, 372
/// with a TTL, 385 with LFU. In Redis, a million entries of 1,000 bytes took about 400 bytes each in addition to the
/// value.
pub const ENTRY_OVERHEAD: u64 = 384;

/// The bytes that an entry counts towards a quota: its value, its key without the namespace, its tags in the stored
/// form (separated by line feeds), and [`ENTRY_OVERHEAD`].
pub fn charge(key_len: usize, tags_len: usize, value_len: usize) -> u64 {
    (key_len + tags_len + value_len) as u64 + ENTRY_OVERHEAD
}
