//! Adds up the memory that the settings allow, and compares the sum with the available memory.

use super::memory::{Available, MIB};
use super::{Config, StoreConfig};

/// Memory of the process before the first request: the program, its threads, tables and connections to the database.
/// An estimate: the soak test began with 37 MiB resident, copies in L1 included.
const PROCESS_BYTES: u64 = 40 * MIB;

/// The maximum memory of one connection, without bodies and large answers: its buffers, and an answer just below the
/// size from which answers are counted.
const CONNECTION_BYTES: u64 = 30 << 10;

/// The maximum size of a shard's answer to a batch before it is counted, in addition to one value.
const SHARD_ANSWER_BYTES: u64 = MIB;

/// Generous estimates for a queued row of the access log, a queued row of the audit trail, and the log's queue.
const ACCESS_LOG_ROW_BYTES: u64 = 1 << 10;
const AUDIT_ROW_BYTES: u64 = 2 << 10;
const LOG_LINES_BYTES: u64 = 8 * MIB;

/// One namespace with its policy, counts and recent history.
const NAMESPACE_BYTES: u64 = 1 << 10;

/// The memory that the settings allow, part by part, and the memory that is available.
#[derive(Clone, Debug)]
pub struct MemoryNeed {
    /// The setting (or other part) and the maximum number of bytes that it may use.
    pub parts: Vec<(&'static str, u64)>,
    /// `None` if the system does not say.
    pub available: Option<Available>,
}

impl MemoryNeed {
    /// The maximum memory of a process with these settings. Everything with a bound is included; memory that the
    /// allocator keeps for reuse is not.
    pub fn of(config: &Config) -> Self {
        let store = match &config.store {
            StoreConfig::Embedded { max_bytes } => vec![("embedded_max_mb", *max_bytes)],
            StoreConfig::Redis(redis) => {
                let a_shard = SHARD_ANSWER_BYTES + config.limits.value_bytes as u64;
                vec![("l1_max_mb", config.l1.max_bytes), ("redis_shards", redis.shards.len() as u64 * a_shard)]
            }
        };
        let http = &config.http;
        let rest = [
            ("max_bodies_mb", http.max_bodies_bytes as u64),
            ("max_answers_mb", http.max_answers_bytes as u64),
            ("max_connections", http.max_connections as u64 * CONNECTION_BYTES),
            ("access_log_queue", config.access_log.journal.queue_rows as u64 * ACCESS_LOG_ROW_BYTES),
            ("audit_queue", config.audit.queue_rows as u64 * AUDIT_ROW_BYTES),
            ("max_namespaces", config.namespaces.max_namespaces as u64 * NAMESPACE_BYTES),
            ("the log's queue", LOG_LINES_BYTES),
            ("the process itself", PROCESS_BYTES),
        ];
        Self { parts: store.into_iter().chain(rest).collect(), available: Available::here() }
    }

    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// A warning if less memory is available than the settings allow.
    pub fn warning(&self) -> Option<String> {
        let Available { bytes, giver } = self.available.filter(|available| available.bytes < self.bytes())?;
        let mut parts: Vec<_> = self.parts.iter().filter(|(_, bytes)| *bytes >= MIB).collect();
        parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let parts: Vec<_> = parts.iter().map(|(name, bytes)| format!("{name} {} MiB", bytes / MIB)).collect();
        Some(format!(
            "the settings may take {} MiB of memory, but {giver} has only {} MiB, so the process may be killed. \
             Lower a setting or raise the limit ({})",
            self.bytes().div_ceil(MIB),
            bytes / MIB,
            parts.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available(giver: &'static str, mib: u64) -> Option<Available> {
        Some(Available { bytes: mib * MIB, giver })
    }

    #[test]
    fn a_warning_names_the_largest_part_first() {
        let need =
            |available| MemoryNeed { parts: vec![("small", 1), ("l1_max_mb", MIB), ("bodies", 9 * MIB)], available };
        assert_eq!(need(None).warning(), None);
        assert_eq!(need(available("the machine", 11)).warning(), None);
        let warning = need(available("the control group", 10)).warning().unwrap();
        assert!(
            warning.contains("may take 11 MiB") && warning.contains("the control group has only 10 MiB"),
            "{warning}"
        );
        assert!(warning.ends_with("(bodies 9 MiB, l1_max_mb 1 MiB)"), "{warning}");
    }
}
