//! How much goes into one script.

use crate::model::Write;

/// Limits of one script, so that it never blocks a shard's other clients for long.
pub const KEYS_PER_SCRIPT: usize = 100;
pub const BYTES_PER_SCRIPT: usize = 1 << 20;

/// What an entry adds to the size of a script.
#[derive(Clone, Copy, Default)]
pub struct Load {
    /// About how many Redis keys it touches.
    pub keys: usize,
    pub bytes: usize,
}

impl Load {
    pub const READ: Self = Self { keys: 1, bytes: 0 };

    /// A write touches the value, the metadata and the index, and each tag.
    pub fn of(write: &Write) -> Self {
        Self { keys: 3 + write.tags.len(), bytes: write.value.len() }
    }
}
