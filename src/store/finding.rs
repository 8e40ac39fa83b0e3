//! Problems that a store finds with one of its shards, and what to do about them.

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
