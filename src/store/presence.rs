//! What processes on the same shards know about each other, and what a shard reports about itself.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Error, ShardHealth, ShardIndex};
use crate::model::Namespace;

/// How many processes on a shard use one version of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingCount {
    /// See [`super::Store::ring_version`].
    pub version: String,
    pub instances: u64,
}

/// A process that uses a shard.
#[derive(Clone, Debug)]
pub struct LivingInstance {
    pub id: String,
    /// Time since its last heartbeat, by the shard's clock.
    pub age: Duration,
    /// What the process says about itself, unchanged.
    pub line: Bytes,
}

/// The role of a shard's server in replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    /// A replica refuses writes.
    Replica,
}

/// The health of one shard, with details.
#[derive(Clone, Debug)]
pub struct Survey {
    pub health: ShardHealth,
    /// `None` if the server did not report it.
    pub role: Option<Role>,
    /// Entries by the stored totals; `None` if they were not counted in time.
    pub keys: Option<u64>,
}

/// The part of a store that shows other processes. Its data on the shards grows with the number of living processes,
/// and so does the total cost.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Records a heartbeat of the process `id` on `shard`, together with `line`, its description of itself. Returns
    /// how many living processes on the shard use each ring. A process lives if its last heartbeat is at most
    /// `living` old. Also works when the shard is out of memory.
    async fn beat(&self, shard: ShardIndex, id: &str, line: &str, living: Duration) -> Result<Vec<RingCount>, Error>;

    /// Removes the process `id` from `shard`.
    async fn leave(&self, shard: ShardIndex, id: &str) -> Result<(), Error>;

    /// The processes on each shard, in the order of the shards. The number per shard is bounded.
    async fn neighbours(&self, living: Duration) -> Vec<Result<Vec<LivingInstance>, Error>>;

    /// The health of each shard, within the shard's timeout. `namespaces` is the list of all namespaces. Entries are
    /// counted only if the list is given and not too long.
    async fn survey(&self, namespaces: Option<&[Namespace]>) -> Vec<Survey>;
}
