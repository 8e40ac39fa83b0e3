//! C-10: a shard is added or removed, and all instances restart with the new setting. No read returns an old value,
//! no more keys miss than have moved, and copies on shards that no longer own them are removed.
//!
//! Some tests block the cleaning, so that old copies stay on the shards. Reads must hide old copies even before they
//! are removed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::process::Signal;
use crate::support::redis::{Redis, Reply};
use crate::support::service::{Service, Settings};
use crate::support::walk::{Books, agreed};

const KEYS: usize = 4_000;

/// The servers, the settings, and the values that reads must return.
struct World {
    servers: [Redis; 4],
    settings: Settings,
    ns: String,
    round: usize,
    /// The latest value of each key.
    latest: BTreeMap<String, String>,
}

impl World {
    fn new() -> World {
        let servers = [Redis::start(), Redis::start(), Redis::start(), Redis::start()];
        let settings = Settings::on(&servers);
        World { servers, settings, ns: namespace("ring"), round: 0, latest: BTreeMap::new() }
    }

    /// Settings for shard names and server numbers such as `"a=0,b=1"`.
    fn settings(&self, ring: &str) -> Settings {
        let shards: Vec<String> = ring
            .split(',')
            .map(|shard| {
                let (name, server) = shard.split_once('=').expect("name=server");
                let server: usize = server.parse().expect("a number");
                format!("{name}={}", self.servers[server].url())
            })
            .collect();
        self.settings.clone().set("redis_shards", shards.join(","))
    }

    fn start(&self, ring: &str) -> (Service, Client) {
        let service = Service::start(self.settings(ring));
        let client = service.client();
        (service, client)
    }

    fn keys() -> BTreeSet<String> {
        (0..KEYS).map(|number| format!("user_{number}")).collect()
    }

    /// Writes keys with values that were never used before. Returns the refused keys.
    async fn write(&mut self, cache: &Client, keys: &BTreeSet<String>) -> BTreeSet<String> {
        self.round += 1;
        let mut refused = BTreeSet::new();
        let all: Vec<&String> = keys.iter().collect();
        for keys in all.chunks(1_000) {
            let value = |key: &String| format!("{key} in round {}", self.round);
            let entries: Value =
                keys.iter().map(|key| json!({"key": key, "value": value(key), "tags": ["all"]})).collect();
            let answer = cache.mset(&self.ns, &entries).await.json();
            for key in keys {
                match &answer["errors"][key] {
                    Value::Null => drop(self.latest.insert((*key).clone(), value(key))),
                    _ => drop(refused.insert((*key).clone())),
                }
            }
        }
        refused
    }

    /// Reads all keys and returns those that miss. A value that is found must be the latest.
    async fn misses(&self, cache: &Client) -> BTreeSet<String> {
        let mut missing = BTreeSet::new();
        let all: Vec<&str> = self.latest.keys().map(String::as_str).collect();
        for keys in all.chunks(1_000) {
            let answer = cache.mget(&self.ns, keys).await.expect(200).json();
            assert_eq!(answer.get("errors"), None, "{}", answer["errors"]);
            for key in keys {
                let result = &answer["results"][*key];
                match result["found"] == json!(true) {
                    true => assert_eq!(result["value"], json!(self.latest[*key]), "an old copy of {key}"),
                    false => drop(missing.insert((*key).to_owned())),
                }
            }
        }
        missing
    }

    /// Blocks the cleaning of all instances by holding its lease.
    fn hold_cleaning(&self) {
        for server in &self.servers {
            let lease = ["HSET", "sidecache:ring_walker", "name", "tests", "until_ms", "9000000000000000"];
            server.connect().command(&lease);
        }
    }

    fn release_cleaning(&self) {
        for server in &self.servers {
            server.connect().command(&["DEL", "sidecache:ring_walker"]);
        }
    }

    /// A field of the ring record of each of these servers.
    fn record(&self, field: &str, servers: std::ops::Range<usize>) -> Vec<String> {
        let get = |server: &Redis| match server.connect().command(&["HGET", "sidecache:ring", field]) {
            Reply::Bulk(None) => "none".to_owned(),
            value => value.text(),
        };
        self.servers[servers].iter().map(get).collect()
    }

    /// How many values all shards store.
    fn stored(&self) -> usize {
        let pattern = format!("cache:{}:*", self.ns);
        self.servers.iter().map(|server| server.connect().scan(&pattern).len()).sum()
    }

    /// Waits until these servers hold no old copies any more, and then walks over them.
    async fn cleaned(&self, cache: &Client, servers: std::ops::Range<usize>) {
        eventually(LATER, async || {
            let clean = self.record("clean", servers.clone());
            ensure!(clean.iter().all(|clean| clean == "1"), "clean: {clean:?}");
            Ok(())
        })
        .await;
        let walk = agreed(&[cache], &self.servers[servers], &self.ns).await.expect("a walk that agrees");
        let missing = self.misses(cache).await;
        let found: BTreeSet<String> = self.latest.keys().filter(|key| !missing.contains(*key)).cloned().collect();
        assert_eq!(
            walk.sizes.keys().cloned().collect::<BTreeSet<_>>(),
            found,
            "the shards store exactly the keys that reads find"
        );
    }
}

fn share(keys: &BTreeSet<String>) -> f64 {
    keys.len() as f64 / KEYS as f64
}

const THREE: &str = "a=0,b=1,c=2";
const FOUR: &str = "a=0,b=1,c=2,d=3";

/// What a test does with the cleaning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cleaning {
    /// It runs at any time, and ends with the instances.
    Left,
    Held,
    /// The ring changes only after the cleaning is done.
    Awaited,
}

/// A fourth shard is added and removed, twice. Keys move away and back both times.
async fn a_shard_comes_and_goes(cleaning: Cleaning) {
    let mut world = World::new();
    let (service, cache) = world.start(THREE);
    assert_eq!(world.write(&cache, &World::keys()).await.len(), 0);
    service.stop();
    if cleaning == Cleaning::Held {
        world.hold_cleaning();
    }
    let mut moved = None;
    for (round, (ring, servers)) in [(FOUR, 0..4), (THREE, 0..3), (FOUR, 0..4), (THREE, 0..3)].into_iter().enumerate()
    {
        let (service, cache) = world.start(ring);
        if cleaning == Cleaning::Held && round > 0 {
            assert!(world.stored() > KEYS, "there are no old copies to hide");
        }
        let missing = world.misses(&cache).await;
        assert!((0.18..=0.32).contains(&share(&missing)), "{} of the keys miss", share(&missing));
        assert_eq!(moved.get_or_insert(missing.clone()), &missing, "other keys moved than before");
        if cleaning == Cleaning::Awaited {
            world.cleaned(&cache, servers.clone()).await;
            let removed = cache.metrics().await.total("sidecache_moved_entries_removed_total");
            // A key that moved to the fourth shard left a copy on its old shard. After it moved back, the copy is on
            // the fourth shard, which cannot be reached until it is added again and the same keys move to it once
            // more.
            let copies = [1, 0, 2, 0][round];
            assert_eq!(removed as usize, copies * missing.len());
        }
        // Some keys one by one, the others in batches.
        let some: Vec<&String> = missing.iter().take(40).collect();
        for (number, key) in some.into_iter().enumerate() {
            match number % 4 {
                0 => drop(cache.get(&world.ns, key).await.expect(404)),
                1 => drop(cache.delete(&world.ns, key).await.expect(404)),
                2 => {
                    let value = format!("{key} alone in round {round}");
                    cache.set(&world.ns, key, &json!(value).to_string()).await.expect(201);
                    world.latest.insert(key.clone(), value);
                }
                _ => {
                    let path = format!("{}?metadata=full", crate::support::client::key_path(&world.ns, key));
                    cache.fetch(&path).await.expect(404);
                }
            }
        }
        let missing = world.misses(&cache).await;
        assert_eq!(world.write(&cache, &missing).await.len(), 0);
        assert_eq!(world.misses(&cache).await.len(), 0);
        service.stop();
    }
    world.release_cleaning();
    let (_service, cache) = world.start(THREE);
    world.cleaned(&cache, 0..3).await;
    assert_eq!(world.misses(&cache).await.len(), 0, "a restart with the same ring has misses");
    assert_eq!(world.record("generation", 0..4), ["5", "5", "5", "4"]);
    for until in world.record("past", 0..3).iter().flat_map(|past| past.lines()) {
        assert_eq!(until.split(' ').nth(1), Some("0"), "{until}: the shard still has old copies");
    }
}

#[tokio::test]
async fn a_changed_ring_shows_no_old_copy() {
    a_shard_comes_and_goes(Cleaning::Left).await;
}

#[tokio::test]
async fn a_changed_ring_shows_no_old_copy_while_cleaning_is_blocked() {
    a_shard_comes_and_goes(Cleaning::Held).await;
}

#[tokio::test]
async fn copies_left_behind_are_removed() {
    a_shard_comes_and_goes(Cleaning::Awaited).await;
}

#[tokio::test]
async fn listings_and_flushes_ignore_old_copies_before_they_are_removed() {
    let mut world = World::new();
    let (service, cache) = world.start(THREE);
    world.write(&cache, &World::keys()).await;
    service.stop();
    world.hold_cleaning();
    for ring in [FOUR, THREE] {
        let (service, cache) = world.start(ring);
        let missing = world.misses(&cache).await;
        let visible: Vec<String> = world.latest.keys().filter(|key| !missing.contains(*key)).cloned().collect();
        assert_eq!(cache.all_keys(&world.ns).await, visible);
        world.write(&cache, &missing).await;
        service.stop();
    }
    // Now three shards hold keys that came back but were never read there.
    let (service, cache) = world.start(FOUR);
    let before: BTreeSet<String> = cache.all_keys(&world.ns).await.into_iter().collect();
    let missing = world.misses(&cache).await;
    assert!(before.is_disjoint(&missing) && before.len() + missing.len() == KEYS);
    for (query, digits) in [(("pattern", "user_*[05]"), "05"), (("tag", "all"), "1234678")] {
        let flushed = cache.flush(&world.ns, &[query]).await.expect(200).number("deleted_count");
        let meant = before
            .iter()
            .filter(|key| key.ends_with(|digit| digits.contains(digit) || digit == '9' && digits.len() > 2));
        assert_eq!(flushed as usize, meant.count(), "{query:?}");
    }
    assert_eq!(world.misses(&cache).await.len(), KEYS);
    assert_eq!(
        Books::said(&cache, &world.ns).await.keys,
        0,
        "a flush also removes the old copies, without counting them"
    );
    service.stop();
}

#[tokio::test]
async fn instances_that_start_at_the_same_time_agree_on_the_ring() {
    let mut world = World::new();
    let (service, cache) = world.start(THREE);
    world.write(&cache, &World::keys()).await;
    service.stop();
    let services = [0; 4].map(|_| Service::launch(world.settings(FOUR)));
    let mut missing = Vec::new();
    for service in &services {
        let cache = service.client();
        eventually(LATER, async || {
            let health = cache.health().await.json();
            ensure!(health["status"] == "healthy", "{health}");
            Ok(())
        })
        .await;
        missing.push(world.misses(&cache).await);
    }
    assert!(missing.windows(2).all(|pair| pair[0] == pair[1]), "the instances miss different keys");
    assert!(share(&missing[0]) <= 0.32);
    assert_eq!(world.record("generation", 0..4), ["2", "2", "2", "2"]);
    world.cleaned(&services[3].client(), 0..4).await;
    let clients = services.each_ref().map(Service::client);
    world.write(&clients[0], &World::keys()).await;
    for cache in &clients {
        eventually(LATER, async || {
            ensure!(world.misses(cache).await.is_empty(), "some keys still miss");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_write_stays_while_other_instances_do_not_know_that_cleaning_is_done() {
    let mut world = World::new();
    for ring in [THREE, FOUR] {
        let (service, cache) = world.start(ring);
        world.write(&cache, &World::keys()).await;
        service.stop();
        world.hold_cleaning();
    }
    let services = [0; 2].map(|_| Service::start(world.settings(THREE).set("l1_max_mb", 0)));
    let clients = services.each_ref().map(Service::client);
    let moved: Vec<String> = world.misses(&clients[0]).await.into_iter().collect();
    world.release_cleaning();
    eventually(LATER, async || {
        let clean = world.record("clean", 0..3);
        ensure!(clean.iter().all(|clean| clean == "1"), "clean: {clean:?}");
        Ok(())
    })
    .await;
    // One of the instances has done the cleaning. The other hears of it later.
    for (number, key) in moved.iter().enumerate() {
        let (writer, reader) = (&clients[number % 2], &clients[(number + 1) % 2]);
        writer.set(&world.ns, key, "1").await.expect(201);
        assert_eq!(reader.get(&world.ns, key).await.expect(200).value(), "1", "{key}");
    }
}

#[tokio::test]
async fn the_order_of_the_shards_in_the_setting_does_not_matter() {
    let mut world = World::new();
    let (service, cache) = world.start(THREE);
    world.write(&cache, &World::keys()).await;
    service.stop();
    for ring in [THREE, "c=2,a=0,b=1", THREE] {
        let (mut service, cache) = world.start(ring);
        assert_eq!(world.misses(&cache).await.len(), 0);
        assert_eq!(world.record("generation", 0..4), ["1", "1", "1", "none"]);
        assert_eq!(world.record("clean", 0..3), ["1", "1", "1"]);
        service.kill();
    }
}

#[tokio::test]
async fn a_shard_that_was_down_while_the_ring_changed_shows_no_old_copy() {
    let mut world = World::new();
    let (service, cache) = world.start(THREE);
    world.write(&cache, &World::keys()).await;
    let first = world.latest.clone();
    service.stop();

    world.servers[2].signal(Signal::Stop);
    let others_answer = async |cache: &Client, others: usize| {
        eventually(LATER, async || {
            let health = cache.health().await.json();
            let shards = health["shards"].as_array().expect("a list of shards");
            let connected = shards.iter().filter(|shard| shard["state"] == "connected").count();
            ensure!(connected == others, "{health}");
            Ok(())
        })
        .await;
    };
    let away = |ring: &str| Service::launch(world.settings(ring).set("redis_timeout_ms", 1_000));
    let service = away(FOUR);
    let cache = service.client();
    others_answer(&cache, 3).await;
    let refused = world.write(&cache, &World::keys()).await;
    assert!(
        (0.15..0.35).contains(&share(&refused)),
        "{} of the keys belong to the shard that is down",
        share(&refused)
    );
    service.stop();

    let service = Service::launch(world.settings(THREE).set("redis_timeout_ms", 1_000));
    let cache = service.client();
    others_answer(&cache, 2).await;
    world.servers[2].signal(Signal::Cont);
    others_answer(&cache, 3).await;
    let missing = world.misses(&cache).await;
    assert!(refused.is_disjoint(&missing), "keys that stayed on the shard miss");
    assert!(refused.iter().all(|key| world.latest[key] == first[key]));
    assert!((0.18..=0.32).contains(&share(&missing)), "{} of the keys moved and miss", share(&missing));
    world.cleaned(&cache, 0..3).await;
}

#[tokio::test]
async fn a_shard_with_another_name_or_address_shows_no_old_copy() {
    let mut world = World::new();
    world.hold_cleaning();
    let rings = [
        THREE,
        "a=0,y=1,c=2",
        THREE,
        // Two servers swap their names. What they store now belongs to the other name.
        "a=1,b=0,c=2",
        THREE,
        "d=3,a=0",
        "d=3,c=2",
        "b=1,c=2",
        THREE,
    ];
    for ring in rings {
        let (service, cache) = world.start(ring);
        let missing = world.misses(&cache).await;
        assert!(share(&missing) < 1.0 || ring == THREE, "all keys miss");
        world.write(&cache, &World::keys()).await;
        assert_eq!(world.misses(&cache).await.len(), 0);
        service.stop();
    }
    world.release_cleaning();
    let (_service, cache) = world.start(THREE);
    world.cleaned(&cache, 0..3).await;
}

#[tokio::test]
async fn entries_on_shards_without_a_record_are_removed() {
    let mut world = World::new();
    let (service, cache) = world.start(THREE);
    world.write(&cache, &World::keys()).await;
    service.stop();
    // As an earlier version left the shards. Keys of other programs stay.
    for server in &world.servers {
        let mut server = server.connect();
        server.command(&["DEL", "sidecache:ring"]);
        server.command(&["SET", "cached_by_somebody_else", "1"]);
    }
    let (_service, cache) = world.start(FOUR);
    assert_eq!(world.misses(&cache).await.len(), World::keys().len());
    assert_eq!(world.stored(), 0);
    for server in &world.servers {
        assert_eq!(server.connect().command(&["GET", "cached_by_somebody_else"]).text(), "1");
    }
    assert_eq!(world.record("generation", 0..4), ["1", "1", "1", "1"]);
}

#[tokio::test]
async fn a_shard_that_restarted_empty_gets_its_record_again() {
    let mut world = World::new();
    let (service, cache) = world.start(THREE);
    service.stop();
    drop(cache);
    let (service, cache) = world.start(FOUR);
    world.servers[1].kill();
    world.servers[1].run();
    eventually(LATER, async || {
        let generations = world.record("generation", 0..4);
        ensure!(generations == ["2", "2", "2", "2"], "{generations:?}");
        Ok(())
    })
    .await;
    eventually(LATER, async || {
        let refused = world.write(&cache, &World::keys()).await.len();
        ensure!(refused == 0, "{refused} writes were refused");
        Ok(())
    })
    .await;
    service.stop();
    let (_service, cache) = world.start(FOUR);
    assert_eq!(world.misses(&cache).await.len(), 0);
}
