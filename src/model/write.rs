//! A write: what it stores under a key, and under which preconditions.

use std::time::Duration;

use bytes::Bytes;

use super::extra::{Extra, Kind};
use super::precondition::Preconditions;
use super::tag::Tags;
use super::ttl::Ttl;

/// What a write stores under a key.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Stored byte for byte: valid JSON, unless the kind is `Bytes`.
    pub value: Bytes,
    pub kind: Kind,
    pub ttl: Option<Ttl>,
    /// How long the entry is answered after its TTL, while somebody refreshes it; `None`: as the policy says.
    pub stale_while_revalidate: Option<Duration>,
    pub tags: Tags,
    /// Boxed because most writes have none.
    pub preconditions: Option<Box<Preconditions>>,
}

impl Write {
    pub fn fills_lease(&self) -> bool {
        self.preconditions.as_ref().is_some_and(|preconditions| preconditions.lease.is_some())
    }

    /// What the entry has besides value and times.
    pub fn extra(&self) -> Extra {
        Extra::of_write(self.kind, self.stale_while_revalidate)
    }
}
