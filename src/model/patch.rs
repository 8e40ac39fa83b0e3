//! A change of an entry that leaves its value and its version as they are: its TTL, its tags, or both.

use super::precondition::Preconditions;
use super::tag::Tags;
use super::ttl::Ttl;

/// What a change makes of the TTL of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlChange {
    #[default]
    Keep,
    /// The entry lives for this time from now on.
    To(Ttl),
    /// The entry never expires.
    Never,
}

/// A change of an entry that keeps its value.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    pub ttl: TtlChange,
    /// All tags of the entry after the change; `None` keeps the tags that it has.
    pub tags: Option<Tags>,
    pub preconditions: Option<Box<Preconditions>>,
}
