//! What a store finds wrong with one of its shards, and what to do about it.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Everything works; something is worth knowing.
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

/// One thing that is wrong with one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable, for programs; the table is in `docs/OPERATIONS.md`, "What it runs on".
    pub code: &'static str,
    pub severity: Severity,
    pub shard: String,
    /// A sentence for people: begins with the shard, ends with what to do.
    pub text: String,
}

impl Finding {
    /// Whether it keeps the service from being healthy.
    pub fn degrades(&self) -> bool {
        self.severity >= Severity::Degraded
    }

    /// A finding about `shard`; `predicate` goes on after `shard a `.
    pub fn new(code: &'static str, severity: Severity, shard: &str, predicate: &str) -> Self {
        Self { code, severity, shard: shard.to_owned(), text: format!("shard {shard} {predicate}") }
    }
}
