//! What processes on the same shards know of each other, and what a shard tells of itself.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Error, ShardHealth, ShardIndex};
use crate::model::Namespace;

/// How many processes live on a shard that look for keys in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingCount {
    /// See [`super::Store::ring_version`].
    pub version: String,
    pub instances: u64,
}

/// A process that lives on a shard.
#[derive(Clone, Debug)]
pub struct Neighbour {
    pub id: String,
    /// Time since its last beat, by the shard's clock.
    pub age: Duration,
    /// What it says of itself, as it said it.
    pub line: Bytes,
}

/// What a shard is to its replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    /// It refuses writes.
    Replica,
}

/// How one shard is doing, in detail.
#[derive(Clone, Debug)]
pub struct Survey {
    pub health: ShardHealth,
    /// `None` where it did not tell.
    pub role: Option<Role>,
    /// Entries in the books; `None` where they were not counted in time.
    pub keys: Option<u64>,
}

/// The part of a store that serves to see the others. What it keeps on the shards grows with the
/// number of processes that live, and so does what they cost together.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Notes on `shard` that the process `id` lives and what it says of itself; answers who lives there by
    /// ring, those counted whose last beat is at most `living` ago. Works without memory, too.
    async fn beat(&self, shard: ShardIndex, id: &str, line: &str, living: Duration) -> Result<Vec<RingCount>, Error>;

    /// Takes the process `id` back from `shard`.
    async fn leave(&self, shard: ShardIndex, id: &str) -> Result<(), Error>;

    /// Who lives on each shard, a bounded number each; in the order of the shards.
    async fn neighbours(&self, living: Duration) -> Vec<Result<Vec<Neighbour>, Error>>;

    /// How each shard is doing, within its deadline; entries are counted where `namespaces` are all there
    /// are, and not too many.
    async fn survey(&self, namespaces: Option<&[Namespace]>) -> Vec<Survey>;
}
