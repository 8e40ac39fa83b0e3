//! The part of a namespace's quota that belongs to one shard.

/// How many bytes a namespace may use on a shard, and the policy by which it evicts entries beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuotaShare<'n> {
    pub namespace: &'n str,
    /// 0: no limit.
    pub limit_bytes: u64,
    pub policy: &'static str,
}
