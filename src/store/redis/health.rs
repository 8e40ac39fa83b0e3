//! How a shard is doing, for people and their programs.

use fred::types::Value;

use super::reply;
use super::server_info::{field, role};
use super::shard::Shard;
use crate::store::{Finding, Role, Severity, ShardHealth};

impl Shard {
    /// Whether the shard is there and may be used, so that its record can be settled.
    pub fn may_be_adopted(&self) -> bool {
        self.is_connected() && self.watch.is_passed()
    }

    /// An answer of `INFO`; `None` where it is not answered, or not allowed.
    pub async fn info(&self, section: &'static str) -> Option<String> {
        if !self.watch.has_info() {
            return None;
        }
        reply::text(self.read("INFO", vec![Value::from_static_str(section)]).await.ok()?).ok()
    }

    /// How the shard is doing, asked now.
    pub async fn health(&self) -> ShardHealth {
        let memory = self.info("memory").await;
        // Where INFO is forbidden something else tells whether it is there.
        let is_answering = memory.is_some()
            || (!self.watch.has_info()
                && self.read("EXISTS", vec![Value::from_static_str("sidecache:ring")]).await.is_ok());
        let number = |name: &str| field(memory.as_deref()?, name)?.parse().ok();
        let configured = number("maxmemory").filter(|bytes| *bytes > 0);
        let mut findings = self.watch.findings();
        if let Some(reason) = self.trouble.last().filter(|_| !self.is_connected()) {
            let predicate = format!("cannot be connected to: {reason}");
            findings.push(Finding::new("not_connected", Severity::Degraded, &self.name, &predicate));
        }
        let is_used = self.belonging.is_settled() && self.watch.admit().is_ok();
        ShardHealth {
            name: self.name.clone(),
            reachable: is_answering && is_used,
            used_bytes: number("used_memory").unwrap_or(0),
            limit_bytes: configured.or_else(|| number("total_system_memory")).unwrap_or(0),
            findings,
        }
    }

    /// What the shard is to its replication, as far as it is known.
    pub async fn role(&self) -> Option<Role> {
        match self.info("replication").await {
            Some(info) => field(&info, "role").and_then(role),
            // A replica is given no commands but by an examination.
            None if self.has_server() => self.watch.role(),
            None => None,
        }
    }
}
