//! A write: what it stores under a key, and under which preconditions.

use bytes::Bytes;

use super::precondition::Preconditions;
use super::tag::Tags;
use super::ttl::Ttl;

/// What a write stores under a key.
#[derive(Clone, Debug)]
pub struct Write {
    /// Valid JSON, stored byte for byte.
    pub value: Bytes,
    pub ttl: Option<Ttl>,
    pub tags: Tags,
    /// Boxed because most writes have none.
    pub preconditions: Option<Box<Preconditions>>,
}

impl Write {
    pub fn fills_lease(&self) -> bool {
        self.preconditions.as_ref().is_some_and(|preconditions| preconditions.lease.is_some())
    }
}
