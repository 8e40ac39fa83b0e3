//! The health of a shard, for people and for programs.

use fred::types::Value;

use super::reply;
use super::server_info::{field, role};
use super::shard::Shard;
use crate::store::{Finding, RING_MISMATCH, Role, Severity, ShardHealth};

impl Shard {
    /// Whether the shard is connected and passed its examination, so that its ring record can be settled.
    pub fn may_be_adopted(&self) -> bool {
        self.is_connected() && self.watch.is_passed()
    }

    /// The answer to `INFO`; `None` if the shard does not answer or does not allow `INFO`.
    pub async fn info(&self, section: &'static str) -> Option<String> {
        if !self.watch.has_info() {
            return None;
        }
        reply::text(self.read("INFO", vec![Value::from_static_str(section)]).await.ok()?).ok()
    }

    /// The health of the shard now.
    pub async fn health(&self) -> ShardHealth {
        let memory = self.info("memory").await;
        // Without the right to INFO, another command shows whether the shard answers.
        let is_answering = memory.is_some()
            || (!self.watch.has_info()
                && self.read("EXISTS", vec![Value::from_static_str("sidecache:ring")]).await.is_ok());
        let number = |name: &str| field(memory.as_deref()?, name)?.parse().ok();
        let configured = number("maxmemory").filter(|bytes| *bytes > 0);
        let mut findings = self.watch.findings();
        if let Some(reason) = self.last_error.last().filter(|_| !self.is_connected()) {
            let predicate = format!("cannot be reached: {reason}");
            findings.push(Finding::new("not_connected", Severity::Degraded, &self.name, &predicate));
        }
        if self.ring_state.is_mismatched() {
            let predicate = "is used by running instances with a different set of shards, so this instance serves \
                             nothing: correct redis_shards here, or set accept_ring_change = true to change the shards";
            findings.push(Finding::new(RING_MISMATCH, Severity::Refused, &self.name, predicate));
        }
        let is_used = self.ring_state.is_settled() && self.watch.admit().is_ok();
        ShardHealth {
            name: self.name.clone(),
            reachable: is_answering && is_used,
            used_bytes: number("used_memory").unwrap_or(0),
            limit_bytes: configured.or_else(|| number("total_system_memory")).unwrap_or(0),
            findings,
        }
    }

    /// The role of the shard's server in replication, if it is known.
    pub async fn role(&self) -> Option<Role> {
        match self.info("replication").await {
            Some(info) => field(&info, "role").and_then(role),
            // A replica gets no commands except from examinations, so the last examination knows its role.
            None if self.has_server() => self.watch.role(),
            None => None,
        }
    }
}
