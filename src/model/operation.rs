//! The operations of the cache and their results: the labels in metrics and access log.

use super::named::named;

named! {
    /// An operation of the cache.
    Operation {
        Get = "get",
        Head = "head",
        Set = "set",
        Patch = "patch",
        Delete = "delete",
        Mget = "mget",
        Mset = "mset",
        Mdelete = "mdelete",
        Flush = "flush",
        List = "list",
        Stats = "stats",
    }
}

impl Operation {
    /// Whether it may change entries.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Set | Self::Patch | Self::Delete | Self::Mset | Self::Mdelete | Self::Flush)
    }
}

named! {
    /// How an operation ended.
    Answer {
        /// A read found its key; a batch found all of its keys.
        Hit = "hit",
        Miss = "miss",
        /// An operation other than a read succeeded.
        Done = "done",
        /// The request was invalid or not allowed.
        Refused = "refused",
        /// The store or the database failed.
        Failed = "failed",
    }
}
