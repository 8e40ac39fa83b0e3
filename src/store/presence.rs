//! What processes on the same shards know about each other, what a shard reports about itself, and the problems that
//! a store finds with a shard.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Error, ShardIndex};
use crate::model::Namespace;

/// The health of one shard.
#[derive(Clone, Debug)]
pub struct ShardHealth {
    pub name: String,
    pub reachable: bool,
    /// Bytes in use; 0 when the shard did not answer.
    pub used_bytes: u64,
    /// The most bytes that it may use; 0 when it did not answer.
    pub limit_bytes: u64,
    /// Problems of the shard, the worst first.
    pub findings: Vec<Finding>,
}

impl ShardHealth {
    /// Whether the shard is reachable but must not be used.
    pub fn is_refused(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Refused)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Everything works, but an operator should know about it.
    Warning,
    /// Part of what the service promises does not hold on this shard.
    Degraded,
    /// The shard is not used.
    Refused,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Degraded => "degraded",
            Self::Refused => "refused",
        }
    }
}

/// The code of the finding that living instances use a different set of shards.
pub const RING_MISMATCH: &str = "ring_mismatch";

/// One problem of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable, for programs. The table of codes is in `docs/OPERATIONS.md`, "What it runs on".
    pub code: &'static str,
    pub severity: Severity,
    pub shard: String,
    /// A sentence for people: it begins with the shard and ends with what to do.
    pub text: String,
}

impl Finding {
    /// Whether the service counts as degraded because of this finding.
    pub fn degrades(&self) -> bool {
        self.severity >= Severity::Degraded
    }

    /// A finding about `shard`. `predicate` completes the sentence that begins with `shard a `.
    pub fn new(code: &'static str, severity: Severity, shard: &str, predicate: &str) -> Self {
        Self { code, severity, shard: shard.to_owned(), text: format!("shard {shard} {predicate}") }
    }
}

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
