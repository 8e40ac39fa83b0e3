//! One copy with its key in compact form: one cache line, and one allocation for key and value together.

use std::mem;

use bytes::Bytes;

use super::copy::{Copy, CopyRef, Stamp, Value};
use crate::clock::Moment;
use crate::model::{KeyRef, UnixMillis, Version};

/// The bytes of a copy in addition to key and value: this node (64), its place in the index (9 to 21) and the
/// allocator's overhead and rounding.
pub const OVERHEAD_BYTES: u64 = 104;

/// The additional bytes for a large value, which is a separate, shared allocation.
const SHARING_BYTES: u64 = 120;

/// Means `None`; 584 years after boot.
const NEVER: Moment = Moment::from_nanos(u64::MAX);

/// A copy with its key and its neighbours in the order of use.
#[repr(align(64))]
pub struct Node {
    contents: Contents,
    version: Version,
    created_at: UnixMillis,
    expires_at: Moment,
    epoch: u64,
    stale_seconds: u32,
    /// The neighbour that was used later and the neighbour that was used earlier; node numbers of [`super::lru`].
    pub newer: u32,
    pub older: u32,
    shard: u16,
    /// Length of the key's text in bytes.
    text_len: u16,
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
        let text_len = u16::try_from(text.len()).expect("namespace and key have at most 613 bytes");
        let contents = if copy.value.len() <= Value::LARGEST_SMALL {
            Contents::Small([text, &copy.value].concat().into())
        } else {
            Contents::Large(Box::new((text.into(), copy.value)))
        };
        Self {
            contents,
            version: copy.version,
            created_at: copy.created_at,
            expires_at: copy.expires_at.unwrap_or(NEVER),
            epoch: copy.stamp.epoch,
            stale_seconds: copy.stale_seconds,
            newer: nobody,
            older: nobody,
            shard: copy.stamp.shard,
            text_len,
        }
    }

    /// Replaces this copy by another copy of the same entry, with the same neighbours. Returns the old one.
    pub fn replace(&mut self, mut other: Self) -> Self {
        (other.newer, other.older) = (self.newer, self.older);
        mem::replace(self, other)
    }

    pub fn text_bytes(&self) -> &[u8] {
        match &self.contents {
            Contents::Small(bytes) => &bytes[..usize::from(self.text_len)],
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
                Contents::Small(bytes) => Value::Small(&bytes[usize::from(self.text_len)..]),
                Contents::Large(both) => Value::Large(&both.1),
            },
            version: self.version,
            created_at: self.created_at,
            expires_at: Some(self.expires_at).filter(|expires_at| *expires_at != NEVER),
            stale_seconds: self.stale_seconds,
            stamp: Stamp { shard: self.shard, epoch: self.epoch },
        }
    }

    /// The bytes that L1 counts for this node.
    pub fn cost(&self) -> u64 {
        cost(self.text_bytes().len(), self.copy().value.as_bytes().len())
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
