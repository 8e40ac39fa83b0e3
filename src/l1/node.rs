//! One copy with its key in compact form: one cache line, and one allocation for key and value together.

use std::mem;
use std::time::Duration;

use bytes::Bytes;

use super::copy::{Copy, CopyRef, Stamp, Value};
use crate::clock::Moment;
use crate::model::{Extra, KeyRef, Kind, Mark, UnixMillis, Version};

/// The bytes of a copy in addition to key and value: this node (64), its place in the index (9 to 21) and the
/// allocator's overhead and rounding.
pub const OVERHEAD_BYTES: u64 = 104;

/// The additional bytes for a large value, which is a separate, shared allocation.
const SHARING_BYTES: u64 = 120;

/// Means `None`; 584 years after boot.
const NEVER: Moment = Moment::from_nanos(u64::MAX);

/// The bits of [`Node::text_len`] that are the length of the text, which is at most 613. The bits above are the kind
/// and the mark.
const LEN_MASK: u16 = 0x3ff;
const ABSENT: u16 = 0x400;
const MARKED: u16 = 0x800;
const IF_ERROR: u16 = 0x1000;
const BYTES: u16 = 0x2000;

/// A copy with its key and its neighbours in the order of use.
#[repr(align(64))]
pub struct Node {
    contents: Contents,
    version: Version,
    expires_at: Moment,
    /// The shard in the lowest 16 bits, and its epoch above them.
    stamp: u64,
    /// The date in ms, of which 48 bits are kept: until the year 10889.
    created_low: u32,
    created_high: u16,
    text_len: u16,
    /// At most 49 days: afterwards the shard is asked.
    grace_ms: u32,
    stale_seconds: u32,
    /// The neighbour that was used later and the neighbour that was used earlier; node numbers of [`super::lru`].
    pub newer: u32,
    pub older: u32,
}

/// Key and value.
enum Contents {
    /// The key's text, followed by the value.
    Small(Box<[u8]>),
    Large(Box<(Box<[u8]>, Bytes)>),
}

impl Node {
    /// A node without neighbours.
    pub fn new(key: KeyRef<'_>, copy: Copy, nobody: u32) -> Self {
        let text = key.text().as_bytes();
        assert!(text.len() <= usize::from(LEN_MASK), "namespace and key have at most 613 bytes");
        let contents = if copy.value.len() <= Value::LARGEST_SMALL {
            Contents::Small([text, &copy.value].concat().into())
        } else {
            Contents::Large(Box::new((text.into(), copy.value)))
        };
        Self {
            contents,
            version: copy.version,
            expires_at: copy.expires_at.unwrap_or(NEVER),
            stamp: copy.stamp.epoch << 16 | u64::from(copy.stamp.shard),
            created_low: copy.created_at.0 as u32,
            created_high: (copy.created_at.0 >> 32) as u16,
            text_len: text.len() as u16 | flags_of(copy.extra),
            grace_ms: u32::try_from(copy.extra.grace().as_millis()).unwrap_or(u32::MAX),
            stale_seconds: copy.stale_seconds,
            newer: nobody,
            older: nobody,
        }
    }

    /// Replaces this copy by another copy of the same entry, with the same neighbours. Returns the old one.
    pub fn replace(&mut self, mut other: Self) -> Self {
        (other.newer, other.older) = (self.newer, self.older);
        mem::replace(self, other)
    }

    pub fn text_bytes(&self) -> &[u8] {
        match &self.contents {
            Contents::Small(bytes) => &bytes[..usize::from(self.text_len & LEN_MASK)],
            Contents::Large(both) => &both.0,
        }
    }

    pub fn key(&self) -> KeyRef<'_> {
        KeyRef::of_text(self.text())
    }

    pub fn text(&self) -> &str {
        str::from_utf8(self.text_bytes()).expect("it was written from a key's text")
    }

    pub fn copy(&self) -> CopyRef<'_> {
        CopyRef {
            value: match &self.contents {
                Contents::Small(bytes) => Value::Small(&bytes[usize::from(self.text_len & LEN_MASK)..]),
                Contents::Large(both) => Value::Large(&both.1),
            },
            version: self.version,
            created_at: UnixMillis(u64::from(self.created_high) << 32 | u64::from(self.created_low)),
            expires_at: Some(self.expires_at).filter(|expires_at| *expires_at != NEVER),
            stale_seconds: self.stale_seconds,
            extra: self.extra(),
            stamp: Stamp { shard: self.stamp as u16, epoch: self.stamp >> 16 },
        }
    }

    fn extra(&self) -> Extra {
        if self.grace_ms == 0 && self.text_len <= LEN_MASK {
            return Extra::default();
        }
        let kind = match self.text_len & (ABSENT | BYTES) {
            0 => Kind::Json,
            ABSENT => Kind::Absent,
            _ => Kind::Bytes,
        };
        let mark = match self.text_len & (MARKED | IF_ERROR) {
            0 => Mark::Unmarked,
            MARKED => Mark::WhileRevalidating,
            _ => Mark::IfError,
        };
        Extra::new(kind, mark, Duration::from_millis(self.grace_ms.into()))
    }

    /// The bytes that L1 counts for this node.
    pub fn cost(&self) -> u64 {
        cost(self.text_bytes().len(), self.copy().value.as_bytes().len())
    }
}

/// Kind and mark as bits of [`Node::text_len`].
fn flags_of(extra: Extra) -> u16 {
    let kind = match extra.kind {
        Kind::Json => 0,
        Kind::Absent => ABSENT,
        Kind::Bytes => BYTES,
    };
    kind | match extra.mark {
        Mark::Unmarked => 0,
        Mark::WhileRevalidating => MARKED,
        Mark::IfError => MARKED | IF_ERROR,
    }
}

/// The bytes that L1 counts for a copy with these lengths of the key's text and of the value.
pub fn cost(text_len: usize, value_len: usize) -> u64 {
    let sharing = if value_len > Value::LARGEST_SMALL { SHARING_BYTES } else { 0 };
    (text_len + value_len) as u64 + OVERHEAD_BYTES + sharing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_one_cache_line() {
        assert_eq!((size_of::<Node>(), align_of::<Node>()), (64, 64));
    }
}
