//! Who else lives on the shards, and what each shard tells of itself.
//!
//! A beat is one script a shard and second and costs about the same however many instances there are; they are
//! listed only when somebody asks. Every instance is on every one of its shards: those with different
//! rings meet on any shard they share, and a dead shard hides nobody.
//!
//! Measured: a beat takes 13 us of Redis' time with one instance, and 25 us with a thousand.

use std::time::Duration;

use async_trait::async_trait;
use fred::types::{Resp3Frame as Frame, Value};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::Redis;
use super::belonging::Settled;
use super::reply::{self, Unexpected};
use super::scripts;
use super::shard::{Effect, Shard};
use crate::model::Namespace;
use crate::store::{Error, Neighbour, Presence, RingCount, ShardIndex, Store as _, Survey};

/// Instances of one shard that a listing shows at most.
const LISTED: usize = 1000;

/// Namespaces whose entries one script adds up, about half a millisecond of work, and for how many it is
/// done at all.
const NAMESPACES_PER_SCRIPT: usize = 500;
const MOST_NAMESPACES: usize = 10_000;

#[async_trait]
impl Presence for Redis {
    async fn beat(&self, shard: ShardIndex, id: &str, line: &str, living: Duration) -> Result<Vec<RingCount>, Error> {
        let living_ms = living.as_millis().to_string();
        let arguments = || [self.ring_version(), id, line, &living_ms].map(Value::from).to_vec();
        let shard = &self.shards[usize::from(shard)];
        shard.watch.admit()?;
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

    async fn neighbours(&self, living: Duration) -> Vec<Result<Vec<Neighbour>, Error>> {
        let numbers = [living.as_millis().to_string(), LISTED.to_string()];
        let arguments = || numbers.iter().map(|number| Value::from(number.as_str())).collect();
        let asked =
            self.shards.iter().map(|shard| shard.run_upkeep(&scripts::NEIGHBOURS, Effect::Read, arguments, listed));
        join_all(asked).await
    }

    async fn survey(&self, namespaces: Option<&[Namespace]>) -> Vec<Survey> {
        let namespaces = namespaces.filter(|namespaces| namespaces.len() <= MOST_NAMESPACES);
        join_all(self.shards.iter().map(|shard| async move {
            let keys = async {
                let counted = timeout(shard.timeout, shard.keys(namespaces?)).await;
                counted.ok()?.ok()
            };
            let (health, role, keys) = tokio::join!(shard.health(), shard.role(), keys);
            // Without a namespace there was nothing to ask it.
            let keys = keys.filter(|_| health.reachable);
            Survey { health, role, keys }
        }))
        .await
    }
}

/// For how long a beat counts where it is asked whether anybody lives with another ring; instances beat once a second.
const LIVING_MS: &str = "3000";

impl Shard {
    /// Lets others know that this instance lives with this ring, before its first beat.
    ///
    /// # Errors
    /// The shard takes no writes at present.
    pub async fn announce(&self, ring_version: &str, instance: &str) -> Result<(), Error> {
        let arguments = || vec![Value::from(ring_version), Value::from(instance)];
        self.run_upkeep(&scripts::ANNOUNCE, Effect::Write, arguments, reply::number).await.map(drop)
    }

    /// The rings that other instances live with; `None` where the shard does not tell.
    pub async fn living_rings(&self, instance: &str) -> Option<Vec<RingCount>> {
        let arguments = || vec![Value::from_static_str(LIVING_MS), Value::from(instance)];
        self.run_upkeep(&scripts::COUNT_RINGS, Effect::Read, arguments, rings).await.ok()
    }

    /// Entries that the books of these namespaces have.
    async fn keys(&self, namespaces: &[Namespace]) -> Result<u64, Error> {
        let mut sum = 0;
        for some in namespaces.chunks(NAMESPACES_PER_SCRIPT) {
            let arguments = |_: &Settled| some.iter().map(|namespace| Value::from(namespace.as_str())).collect();
            sum += self.ask(&scripts::COUNT_KEYS, Effect::Read, arguments, reply::count).await?;
        }
        Ok(sum)
    }
}

fn rings(frame: Frame) -> Result<Vec<RingCount>, Unexpected> {
    let mut fields = reply::array(frame)?.into_iter();
    let mut rings = Vec::with_capacity(fields.len() / 2);
    while let Some(version) = fields.next() {
        let instances = fields.next().ok_or("a number a ring")?;
        rings.push(RingCount { version: reply::text(version)?, instances: reply::count(instances)? });
    }
    Ok(rings)
}

fn listed(frame: Frame) -> Result<Vec<Neighbour>, Unexpected> {
    let mut fields = reply::array(frame)?.into_iter();
    let mut neighbours = Vec::with_capacity(fields.len() / 3);
    while let Some(id) = fields.next() {
        let (Some(age), Some(line)) = (fields.next(), fields.next()) else { return Err("three fields an instance") };
        neighbours.push(Neighbour {
            id: reply::text(id)?,
            age: Duration::from_millis(reply::count(age)?),
            line: reply::bytes(line)?,
        });
    }
    Ok(neighbours)
}
