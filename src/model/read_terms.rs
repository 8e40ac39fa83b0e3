//! The terms of a read: how fresh its answer must be, and who may give it.

/// The terms of one read. The default has no wishes: the settings and the policy of the namespace decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadTerms {
    /// The owning shard must answer: neither L1 nor a stale copy may.
    pub no_cache: bool,
}
