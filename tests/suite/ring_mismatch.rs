//! An instance whose `redis_shards` does not match the running fleet. It stays unready and changes nothing, until a
//! setting tells it that the ring is to change.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{INTERVAL, LATER, eventually};
use crate::support::redis::{Redis, Reply};
use crate::support::service::{Service, Settings};

const KEYS: usize = 300;

/// Longer than it takes to adopt a ring and to clean up after it.
const OBSERVED_FOR: Duration = Duration::from_secs(4);

/// The three servers of a running fleet, and one more.
struct World {
    servers: [Redis; 4],
    settings: Settings,
    ns: String,
}

impl World {
    fn new() -> World {
        let servers = [Redis::start(), Redis::start(), Redis::start(), Redis::start()];
        World { settings: Settings::on(&servers), servers, ns: namespace("mismatch") }
    }

    /// Settings for shard names and server numbers such as `"a=0,b=1"`.
    fn settings(&self, ring: &str) -> Settings {
        let named = ring.split(',').map(|shard| {
            let (name, server) = shard.split_once('=').expect("name=server");
            format!("{name}={}", self.servers[server.parse::<usize>().expect("a number")].url())
        });
        self.settings.clone().set("redis_shards", named.collect::<Vec<String>>().join(","))
    }

    async fn fill(&self, cache: &Client) {
        let entries: Value = (0..KEYS).map(|number| json!({"key": format!("k{number}"), "value": number})).collect();
        cache.fill(&self.ns, &entries).await;
    }

    /// How many keys are found.
    async fn hits(&self, cache: &Client) -> u64 {
        let keys: Vec<String> = (0..KEYS).map(|number| format!("k{number}")).collect();
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        cache.mget(&self.ns, &names).await.expect(200).number("hits")
    }

    /// Everything on the fleet's shards that must not change.
    fn stored(&self) -> Vec<(Vec<String>, Reply)> {
        let one = |server: &Redis| {
            let mut shard = server.connect();
            let names = shard.scan(&format!("cache*:{}*", self.ns));
            (names, shard.command(&["HMGET", "sidecache:ring", "generation", "names", "shard", "past", "floor"]))
        };
        self.servers[..3].iter().map(one).collect()
    }
}

/// Checks that every call about entries is refused by an instance that does not match.
async fn refused(cache: &Client, ns: &str) {
    cache.get(ns, "k1").await.expect_error(503, "ring_mismatch");
    cache.set(ns, "k1", "9").await.expect_error(503, "ring_mismatch");
    cache.delete(ns, "k1").await.expect_error(503, "ring_mismatch");
    cache.flush(ns, &[]).await.expect_error(503, "ring_mismatch");
    cache.list(ns, &[]).await.expect_error(503, "ring_mismatch");
    cache.fetch(&format!("{}?metadata=full", key_path(ns, "k1"))).await.expect_error(503, "ring_mismatch");
    let answer = cache.mget(ns, &["k1", "k2"]).await.expect(200).json();
    for key in ["k1", "k2"] {
        assert_eq!(answer["results"][key]["error"], "ring_mismatch", "{answer}");
    }
    let answer = cache.mset(ns, &json!([{"key": "k1", "value": 9}])).await.expect(503).json();
    assert_eq!(answer["errors"]["k1"], "ring_mismatch", "{answer}");
    let ready = cache.fetch("/readyz").await.expect(503).json();
    assert_eq!(ready["reason"], "ring_mismatch", "{ready}");
    let health = cache.health().await.json();
    assert_ne!(health["status"], "healthy", "{health}");
    assert!(health.to_string().contains("correct redis_shards here, or set accept_ring_change = true"), "{health}");
}

/// The bug: the instance started and gave the shards a new ring, although another instance still used the old one. It
/// then removed entries from the shards that had "moved" in its view.
async fn stays_unready(ring: &str) {
    let world = World::new();
    let fleet = Service::start(world.settings("a=0,b=1,c=2"));
    let living = fleet.client();
    world.fill(&living).await;
    let before = world.stored();

    let wrong = Service::launch(world.settings(ring));
    let cache = wrong.client();
    // Until the instance has read the shards' records, it may answer that they are unavailable.
    eventually(LATER, async || {
        let answer = cache.get(&world.ns, "k1").await;
        ensure!(answer.status == 503 && answer.json()["code"] == "ring_mismatch", "{ring}: {}", answer.text());
        Ok(())
    })
    .await;
    let end = Instant::now() + OBSERVED_FOR;
    while Instant::now() < end {
        refused(&cache, &world.ns).await;
        assert_eq!(living.fetch("/readyz").await.status, 200);
        tokio::time::sleep(20 * INTERVAL).await;
    }
    assert_eq!(world.stored(), before, "{ring}: the shards were changed");
    assert_eq!(world.hits(&living).await, KEYS as u64);
    let health = living.health().await.json();
    assert_eq!(health["status"], "healthy", "the fleet was affected: {health}");
    let log = wrong.log();
    assert!(log.contains("accept_ring_change"), "{ring}: the log does not say what to do: {log}");
}

#[tokio::test]
async fn regression_a_mistyped_shard_name_keeps_an_instance_unready() {
    stays_unready("a=0,b=1,cc=2").await;
}

#[tokio::test]
async fn regression_a_missing_shard_keeps_an_instance_unready() {
    stays_unready("a=0,b=1").await;
}

#[tokio::test]
async fn regression_a_shard_too_many_keeps_an_instance_unready() {
    stays_unready("a=0,b=1,c=2,d=3").await;
}

#[tokio::test]
async fn regression_exchanged_addresses_keep_an_instance_unready() {
    stays_unready("a=1,b=0,c=2").await;
}

#[tokio::test]
async fn regression_a_changed_ring_beside_a_running_fleet_needs_accept_ring_change() {
    let world = World::new();
    let fleet = Service::start(world.settings("a=0,b=1,c=2"));
    world.fill(&fleet.client()).await;
    let refusing = Service::launch(world.settings("a=0,b=1,c=2,d=3"));
    eventually(LATER, async || {
        let answer = refusing.client().get(&world.ns, "k1").await;
        ensure!(answer.status == 503 && answer.json()["code"] == "ring_mismatch", "{}", answer.text());
        Ok(())
    })
    .await;
    assert_eq!(refusing.stop().code(), Some(0));
    let accepting = Service::start(world.settings("a=0,b=1,c=2,d=3").set("accept_ring_change", true));
    let cache = accepting.client();
    cache.fetch("/readyz").await.expect(200);
    world.fill(&cache).await;
    assert_eq!(world.hits(&cache).await, KEYS as u64);
}

#[tokio::test]
async fn a_changed_ring_is_accepted_when_no_other_instance_runs() {
    let world = World::new();
    let fleet = Service::start(world.settings("a=0,b=1,c=2"));
    world.fill(&fleet.client()).await;
    assert_eq!(fleet.stop().code(), Some(0));
    let changed = Service::start(world.settings("a=0,b=1,c=2,d=3"));
    assert!(world.hits(&changed.client()).await > KEYS as u64 / 2);
}

/// A killed instance cannot deregister. Its last heartbeat counts for some seconds, but not longer.
#[tokio::test]
async fn a_changed_ring_is_accepted_soon_after_the_only_instance_was_killed() {
    let world = World::new();
    let mut fleet = Service::start(world.settings("a=0,b=1,c=2"));
    world.fill(&fleet.client()).await;
    fleet.kill();
    let changed = Service::start(world.settings("a=0,b=1,c=2,d=3"));
    assert!(world.hits(&changed.client()).await > KEYS as u64 / 2);
}
