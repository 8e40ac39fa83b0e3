//! The operations of the cache and their results: the labels in metrics and access log.

/// An operation of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Get,
    Head,
    Set,
    Delete,
    Mget,
    Mset,
    Mdelete,
    Flush,
    List,
    Stats,
}

impl Operation {
    /// In the order of the discriminants.
    pub const ALL: [Self; 10] = [
        Self::Get,
        Self::Head,
        Self::Set,
        Self::Delete,
        Self::Mget,
        Self::Mset,
        Self::Mdelete,
        Self::Flush,
        Self::List,
        Self::Stats,
    ];

    /// The operation with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == name)
    }

    /// Whether it may change entries.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Set | Self::Delete | Self::Mset | Self::Mdelete | Self::Flush)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Mget => "mget",
            Self::Mset => "mset",
            Self::Mdelete => "mdelete",
            Self::Flush => "flush",
            Self::List => "list",
            Self::Stats => "stats",
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read found its key; a batch found all of its keys.
    Hit,
    Miss,
    /// An operation other than a read succeeded.
    Done,
    /// The request was invalid or not allowed.
    Refused,
    /// The store or the database failed.
    Failed,
}

impl Answer {
    /// In the order of the discriminants.
    pub const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Done, Self::Refused, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}
