//! The other instances on the shards, and what each shard reports about itself: its health, its role, its entries.
//!
//! A heartbeat is one script per shard and second, and it costs about the same however many instances there are.
//! Instances are listed only on request. Every instance sends heartbeats to each of its shards. So instances with
//! different rings see each other on any shard that they share, and a dead shard hides no instance.
//!
//! Measured: a beat takes 13 us of Redis' time with one instance, and 25 us with a thousand.

use std::time::Duration;

use async_trait::async_trait;
use fred::types::{Resp3Frame as Frame, Value};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::Redis;
use super::pressure::Reading;
use super::reply::{self, Unexpected};
use super::ring_state::SettledRecord;
use super::scripts;
use super::server_info::{field, role};
use super::shard::{Effect, Shard};
use crate::model::Namespace;
use crate::store::{
    Error, Finding, LivingInstance, Presence, RING_MISMATCH, RingCount, Role, Severity, ShardHealth, ShardIndex,
    Store as _, Survey,
};

/// The most instances per shard in a listing.
const LISTED: usize = 1000;

/// How many namespaces one script adds up, which takes about half a millisecond, and the most namespaces for which
/// entries are counted at all.
const NAMESPACES_PER_SCRIPT: usize = 500;
const MAX_NAMESPACES: usize = 10_000;

#[async_trait]
impl Presence for Redis {
    async fn beat(&self, shard: ShardIndex, id: &str, line: &str, living: Duration) -> Result<Vec<RingCount>, Error> {
        let living_ms = living.as_millis().to_string();
        let arguments = || [self.ring_version(), id, line, &living_ms].map(Value::from).to_vec();
        let shard = &self.shards[usize::from(shard)];
        shard.problems.admit()?;
        // An instance that serves nothing yet does not belong to the fleet.
        shard.admit()?;
        shard.run_upkeep(&scripts::BEAT, Effect::Write, arguments, rings).await
    }

    async fn leave(&self, shard: ShardIndex, id: &str) -> Result<(), Error> {
        let arguments = || [self.ring_version(), id].map(Value::from).to_vec();
        let gone = self.shards[usize::from(shard)]
            .run_upkeep(&scripts::LEAVE, Effect::Write, arguments, reply::number)
            .await;
        gone.map(drop)
    }

    async fn neighbours(&self, living: Duration) -> Vec<Result<Vec<LivingInstance>, Error>> {
        let numbers = [living.as_millis().to_string(), LISTED.to_string()];
        let arguments = || numbers.iter().map(|number| Value::from(number.as_str())).collect();
        let asked =
            self.shards.iter().map(|shard| shard.run_upkeep(&scripts::NEIGHBOURS, Effect::Read, arguments, listed));
        join_all(asked).await
    }

    async fn survey(&self, namespaces: Option<&[Namespace]>) -> Vec<Survey> {
        let namespaces = namespaces.filter(|namespaces| namespaces.len() <= MAX_NAMESPACES);
        join_all(self.shards.iter().map(|shard| async move {
            let keys = async {
                let counted = timeout(shard.common.timeout, shard.keys(namespaces?)).await;
                counted.ok()?.ok()
            };
            let (health, role, keys) = tokio::join!(shard.health(), shard.role(), keys);
            // With an empty list of namespaces nothing was asked, so the count does not show that the shard answers.
            let keys = keys.filter(|_| health.reachable);
            Survey { health, role, keys }
        }))
        .await
    }
}

/// How old a heartbeat may be when looking for instances with another ring. Instances send one per second.
const LIVING_MS: &str = "3000";

impl Shard {
    /// Whether the shard is connected and passed its examination, so that its ring record can be settled.
    pub fn may_be_adopted(&self) -> bool {
        self.is_connected() && self.problems.is_passed()
    }

    /// The answer to `INFO`; `None` if the shard does not answer or does not allow `INFO`.
    pub async fn info(&self, section: &'static str) -> Option<String> {
        if !self.problems.has_info() {
            return None;
        }
        self.read("INFO", vec![Value::from_static_str(section)], reply::text).await.ok()
    }

    /// The health of the shard now.
    pub async fn health(&self) -> ShardHealth {
        let memory = self.info("memory").await;
        // Without the right to INFO, another command shows whether the shard answers.
        let is_answering = memory.is_some()
            || (!self.problems.has_info()
                && self.read("EXISTS", vec![Value::from_static_str("sidecache:ring")], Ok).await.is_ok());
        let Reading { used_bytes, limit_bytes, .. } = Reading::parse(memory.as_deref().unwrap_or_default());
        let mut findings = self.problems.findings();
        if let Some(reason) = self.last_error.last().filter(|_| !self.is_connected()) {
            let predicate = format!("cannot be reached: {reason}");
            findings.push(Finding::new("not_connected", Severity::Degraded, &self.name, &predicate));
        }
        if self.ring_state.is_mismatched() {
            let predicate = "is used by running instances with a different set of shards, so this instance serves \
                             nothing: correct redis_shards here, or set accept_ring_change = true to change the shards";
            findings.push(Finding::new(RING_MISMATCH, Severity::Refused, &self.name, predicate));
        }
        let is_used = self.ring_state.is_settled() && self.problems.admit().is_ok();
        ShardHealth { name: self.name.clone(), reachable: is_answering && is_used, used_bytes, limit_bytes, findings }
    }

    /// The role of the shard's server in replication, if it is known.
    pub async fn role(&self) -> Option<Role> {
        match self.info("replication").await {
            Some(info) => field(&info, "role").and_then(role),
            // A replica gets no commands except from examinations, so the last examination knows its role.
            None if self.has_server() => self.problems.role(),
            None => None,
        }
    }

    /// Announces on the shard that this instance lives and uses this ring, before its first heartbeat.
    ///
    /// # Errors
    /// The shard accepts no writes at present.
    pub async fn announce(&self, ring_version: &str, instance: &str) -> Result<(), Error> {
        let arguments = || vec![Value::from(ring_version), Value::from(instance)];
        self.run_upkeep(&scripts::ANNOUNCE, Effect::Write, arguments, reply::number).await.map(drop)
    }

    /// The rings of the other living instances; `None` if the shard does not answer.
    pub async fn living_rings(&self, instance: &str) -> Option<Vec<RingCount>> {
        let arguments = || vec![Value::from_static_str(LIVING_MS), Value::from(instance)];
        self.run_upkeep(&scripts::COUNT_RINGS, Effect::Read, arguments, rings).await.ok()
    }

    /// The number of entries of these namespaces, by the stored totals.
    async fn keys(&self, namespaces: &[Namespace]) -> Result<u64, Error> {
        let mut sum = 0;
        for some in namespaces.chunks(NAMESPACES_PER_SCRIPT) {
            let arguments =
                |_: &SettledRecord| some.iter().map(|namespace| Value::from(namespace.as_str())).collect();
            sum += self.ask(&scripts::COUNT_KEYS, Effect::Read, arguments, reply::count).await?;
        }
        Ok(sum)
    }
}

fn rings(frame: Frame) -> Result<Vec<RingCount>, Unexpected> {
    let ring = |[version, instances]: [Frame; 2]| {
        Ok(RingCount { version: reply::text(version)?, instances: reply::count(instances)? })
    };
    reply::rows(frame)?.into_iter().map(ring).collect()
}

fn listed(frame: Frame) -> Result<Vec<LivingInstance>, Unexpected> {
    let instance = |[id, age, line]: [Frame; 3]| {
        let (id, line) = (reply::text(id)?, reply::bytes(line)?);
        Ok(LivingInstance { id, age: Duration::from_millis(reply::count(age)?), line })
    };
    reply::rows(frame)?.into_iter().map(instance).collect()
}
