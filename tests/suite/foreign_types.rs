//! A foreign type under one of the service's Redis keys: somebody wrote a list where the service stores another type.
//! A request that needs the key is refused with an error that names it, all other requests are answered, and a delete
//! or a flush repairs the key.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::answer::Answer;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{INTERVAL, LATER, SOON, eventually};
use crate::support::redis::{Connection, Redis, Reply};
use crate::support::service::{Service, Settings};
use crate::support::walk::agreed;

/// `max_staleness_ms` at its default.
const MAX_STALENESS: Duration = Duration::from_millis(1_000);

/// Puts a list under this name. The service itself stores no lists.
fn make_foreign(connection: &mut Connection, name: &str) {
    connection.command(&["DEL", name]);
    connection.command(&["LPUSH", name, "x"]);
}

fn type_of(connection: &mut Connection, name: &str) -> String {
    connection.command(&["TYPE", name]).text()
}

/// Two instances on one shard.
struct World {
    server: Redis,
    a: Service,
    b: Service,
}

impl World {
    fn start() -> World {
        let server = Redis::start();
        let settings = Settings::on(std::slice::from_ref(&server)).set("namespace_refresh_ms", 200);
        let (a, b) = (Service::start(settings.clone()), Service::start(settings));
        World { server, a, b }
    }

    /// The totals of the namespace as stored on the shard, keys and bytes. Stored totals may be negative.
    fn raw_books(&self, ns: &str) -> (i64, i64) {
        let mut shard = self.server.connect();
        let name = format!("cache_stats:{ns}");
        if type_of(&mut shard, &name) != "hash" {
            return (0, 0);
        }
        let reply = shard.command(&["HMGET", &name, "total_keys", "total_bytes"]);
        let number = |field: &Reply| if *field == Reply::Bulk(None) { 0 } else { field.integer() };
        let [keys, bytes] = reply.items() else { panic!("{reply:?} has two fields") };
        (number(keys), number(bytes))
    }

    /// Waits until both instances agree with a walk over the shard and its totals.
    async fn agree(&self, ns: &str) {
        let (one, other) = (self.a.client(), self.b.client());
        eventually(LATER, async || agreed(&[&one, &other], std::slice::from_ref(&self.server), ns).await.map(drop))
            .await;
    }

    /// Waits for the bound, then compares the answers of each instance with the values on the shard.
    async fn expect_nothing_stale(&self, ns: &str, keys: &[String]) {
        tokio::time::sleep(MAX_STALENESS).await;
        let mut shard = self.server.connect();
        for key in keys {
            let name = format!("cache:{ns}:{key}");
            if type_of(&mut shard, &name) == "list" {
                continue;
            }
            let stored = match shard.command(&["GET", &name]) {
                Reply::Bulk(None) => None,
                value => Some(value.text()),
            };
            for service in [&self.a, &self.b] {
                let answer = service.client().get(ns, key).await;
                match answer.status {
                    200 => assert_eq!(Some(answer.value()), stored.as_deref(), "{key}: {:?}", answer.headers),
                    404 => assert_eq!(stored, None, "{key} is stored: {:?}", answer.headers),
                    // The metadata of the key has a foreign type.
                    _ => drop(answer.expect_error(409, "foreign_type")),
                }
            }
        }
    }
}

/// Reads until the instance answers from L1.
async fn in_memory(cache: &Client, ns: &str, key: &str) {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.status == 200 && answer.is_l1_hit(), "{} {:?}", answer.status, answer.headers);
        Ok(())
    })
    .await;
}

/// Checks that the answer has one of these statuses, or is the error that names the key and its foreign type.
#[track_caller]
fn done_or_foreign(what: &str, answer: Answer, statuses: &[u16], name: &str) {
    if statuses.contains(&answer.status) {
        return;
    }
    let text = answer.expect_error(409, "foreign_type");
    assert!(text.contains(name) && text.contains("list"), "{what}: {name} and its type are not named: {text}");
}

/// The bug: a batch stopped at the first error of Redis. All three entries were stored, but the answer was a 500, the
/// totals counted one entry, no invalidation was sent, and other instances kept the old value for ever.
#[tokio::test]
async fn regression_a_batch_with_a_foreign_tag_stores_the_other_entries() {
    let world = World::start();
    let (one, other, ns) = (world.a.client(), world.b.client(), namespace("foreign"));
    one.set(&ns, "k1", "0").await.expect(201);
    in_memory(&other, &ns, "k1").await;
    let tag = format!("cache_tag:{ns}:bad");
    world.server.connect().command(&["LPUSH", &tag, "x"]);

    let entries =
        json!([{"key": "k1", "value": 1}, {"key": "k2", "value": 2, "tags": ["bad"]}, {"key": "k3", "value": 3}]);
    let answer = one.mset(&ns, &entries).await.expect(200).json();
    assert_eq!(answer["errors"], json!({"k2": "foreign_type"}), "{answer}");
    assert_eq!((&answer["success"], &answer["stored"]), (&json!(false), &json!(2)), "{answer}");
    let detail = answer["details"]["k2"].as_str().unwrap_or_default();
    assert!(detail.contains(&tag) && detail.contains("list"), "{answer}");
    eventually(MAX_STALENESS, async || {
        let answer = other.get(&ns, "k1").await.expect(200);
        ensure!(answer.value() == "1", "{}, from L1: {}", answer.value(), answer.is_l1_hit());
        Ok(())
    })
    .await;
    assert_eq!(one.get(&ns, "k3").await.expect(200).value(), "3");
    one.get(&ns, "k2").await.expect_error(404, "key_not_found");
    assert_eq!(one.stats(&ns).await.expect(200).number("total_keys"), 2);
    assert_eq!(world.raw_books(&ns), (2, 2));

    let text = one.put(&ns, "k2", r#"{"value":2,"tags":["bad"]}"#).await.expect_error(409, "foreign_type");
    assert!(text.contains(&tag) && text.contains("list"), "the error names the key and its type: {text}");
    for key in ["k2", "k1", "k3", "k2"] {
        let answer = one.delete(&ns, key).await;
        assert_eq!(answer.status, if key == "k2" { 404 } else { 200 }, "{key}: {}", answer.text());
    }
    assert_eq!(world.raw_books(&ns), (0, 0));

    one.flush(&ns, &[("tag", "bad")]).await.expect(200);
    one.put(&ns, "k2", r#"{"value":2,"tags":["bad"]}"#).await.expect(201);
    assert_eq!(one.flush(&ns, &[("tag", "bad")]).await.expect(200).number("deleted_count"), 1);
    one.get(&ns, "k2").await.expect(404);
    world.agree(&ns).await;
}

/// The bug: an entry could be neither replaced nor deleted if the key of one of its old tags had a foreign type.
#[tokio::test]
async fn regression_an_entry_with_a_foreign_old_tag_can_be_replaced_and_deleted() {
    let world = World::start();
    let (cache, ns) = (world.a.client(), namespace("foreign"));
    for key in ["replaced", "deleted", "kept"] {
        cache.put(&ns, key, r#"{"value":1,"tags":["bad"]}"#).await.expect(201);
    }
    let tag = format!("cache_tag:{ns}:bad");
    make_foreign(&mut world.server.connect(), &tag);
    let replaced = cache.set(&ns, "replaced", "2").await;
    done_or_foreign("PUT", replaced, &[200], &tag);
    cache.delete(&ns, "deleted").await.expect(200);
    assert_eq!(cache.get(&ns, "kept").await.expect(200).value(), "1");
    let (keys, bytes) = world.raw_books(&ns);
    assert_eq!((keys, bytes), (2, 2));
    cache.flush(&ns, &[("tag", "bad")]).await.expect(200);
    cache.flush(&ns, &[]).await.expect(200);
    world.agree(&ns).await;
    assert_eq!(cache.stats(&ns).await.expect(200).number("total_keys"), 0);
}

/// The kinds of Redis keys of a namespace. The test gives each kind a foreign type, one after the other.
const KINDS: [&str; 6] = ["cache", "cache_meta", "cache_stats", "cache_index", "cache_due", "cache_tag"];

/// The Redis keys of this kind in a namespace. For values and metadata, only the key of `k0`.
fn names(connection: &mut Connection, kind: &str, ns: &str) -> Vec<String> {
    match kind {
        "cache" | "cache_meta" => vec![format!("{kind}:{ns}:k0")],
        _ => connection.scan(&format!("{kind}:{ns}*")),
    }
}

/// The bug: a request that met the foreign type was half done and answered with 500. If other requests shared its
/// script, they were answered with 500 too. Only redis-cli could repair the key.
#[tokio::test]
async fn regression_a_foreign_type_under_any_name_is_refused_and_a_flush_repairs_it() {
    let world = World::start();
    for kind in KINDS {
        check_foreign_type_of(&world, kind).await;
    }
}

async fn check_foreign_type_of(world: &World, kind: &str) {
    let (one, other, ns) = (world.a.client(), world.b.client(), namespace(&format!("foreign-{kind}")));
    let keys: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    let entry = |key: &String, value: u32| json!({"key": key, "value": value, "ttl": 600, "tags": ["t"]});
    one.fill(&ns, &keys.iter().map(|key| entry(key, 1)).collect()).await;
    for key in &keys {
        in_memory(&other, &ns, key).await;
    }
    let mut shard = world.server.connect();
    let foreign = names(&mut shard, kind, &ns);
    assert!(!foreign.is_empty(), "{ns} has no {kind}");
    for name in &foreign {
        make_foreign(&mut shard, name);
    }
    // If there are several foreign keys of a kind, the error may name any of them.
    let named = format!("{kind}:{ns}");

    // Each request is refused, or done completely without the foreign key; never half done.
    done_or_foreign("PUT k0", one.set_for(&ns, "k0", "2", 600).await, &[200, 201], &named);
    done_or_foreign("PUT new", one.put(&ns, "new", r#"{"value":2,"ttl":600,"tags":["t"]}"#).await, &[201], &named);
    done_or_foreign("DELETE k9", one.delete(&ns, "k9").await, &[200], &named);
    let change = json!({"ttl": 500, "tags": ["t", "u"]});
    done_or_foreign("PATCH k0", one.patch(&ns, "k0", &change).await, &[200, 404], &named);
    done_or_foreign("PATCH k8", one.patch(&ns, "k8", &change).await, &[200], &named);
    done_or_foreign("PATCH absent", one.patch(&ns, "absent", &change).await, &[404], &named);
    let entries: Value = keys[..3].iter().map(|key| entry(key, 3)).collect();
    let batch = one.mset(&ns, &entries).await;
    assert!([200, 409].contains(&batch.status), "{kind}: mset {}", batch.text());
    let errors = batch.json()["errors"].as_object().cloned().unwrap_or_default();
    assert!(errors.values().all(|code| code == "foreign_type"), "{kind}: mset {}", batch.text());
    let own = ["cache", "cache_meta"].contains(&kind);
    assert!(!own || errors.keys().all(|key| key == "k0"), "{kind}: the others are stored: {}", batch.text());

    let answer = one.mget(&ns, &all[..9]).await.expect(200).json();
    for key in &all[..9] {
        let result = &answer["results"][*key];
        match result["error"] {
            Value::Null => assert!(own || result["found"] == true, "{kind}: {key} is {result}"),
            _ => assert_eq!((own, *key, &result["error"]), (true, "k0", &json!("foreign_type")), "{kind}"),
        }
    }
    for answer in join_all(all[..9].iter().map(|key| one.get(&ns, key))).await {
        done_or_foreign("GET", answer, if own { &[200, 404] } else { &[200] }, &named);
    }
    done_or_foreign("stats", one.stats(&ns).await, &[200], &named);
    done_or_foreign("listing", one.list(&ns, &[]).await, &[200], &named);
    let books = world.raw_books(&ns);
    assert!(books.0 >= 0 && books.1 >= 0, "{kind}: {books:?}");
    world.expect_nothing_stale(&ns, &keys).await;

    if own {
        // Deleting the entry is enough to repair the key.
        let deleted = one.delete(&ns, "k0").await;
        assert!([200, 404].contains(&deleted.status), "{kind}: {}", deleted.text());
        one.set(&ns, "k0", "4").await.expect(201);
        assert_eq!(one.get(&ns, "k0").await.expect(200).value(), "4");
    }
    if kind == "cache_tag" {
        one.flush(&ns, &[("tag", "t")]).await.expect(200);
        let stored = one.put(&ns, "k1", r#"{"value":4,"tags":["t"]}"#).await;
        assert!([200, 201].contains(&stored.status), "{kind}: {}", stored.text());
    }
    one.flush(&ns, &[]).await.expect(200);
    for name in &foreign {
        assert_ne!(type_of(&mut shard, name), "list", "{name} still has the foreign type");
    }
    for cache in [&one, &other] {
        eventually(MAX_STALENESS, async || {
            let answer = cache.mget(&ns, &all).await.expect(200).json();
            ensure!(answer["hits"] == 0, "{kind}: after the flush {answer}");
            Ok(())
        })
        .await;
    }
    one.fill(&ns, &keys.iter().map(|key| entry(key, 5)).collect()).await;
    assert_eq!(one.mget(&ns, &all).await.expect(200).json()["hits"], 10, "{kind}");
    world.agree(&ns).await;
    assert_eq!(one.flush(&ns, &[("tag", "t")]).await.expect(200).number("deleted_count"), 10, "{kind}");
    world.agree(&ns).await;
}

/// The bug: concurrent requests share a script, and one foreign value among them failed all of them.
#[tokio::test]
async fn regression_requests_that_share_a_script_with_a_foreign_one_are_answered() {
    let server = Redis::start();
    // Without L1, every read goes to the shard.
    let service = Service::start(Settings::on(std::slice::from_ref(&server)).set("l1_max_mb", 0).set("workers", 1));
    let (cache, ns) = (service.client(), namespace("foreign"));
    let keys: Vec<String> = (0..64).map(|number| format!("k{number}")).collect();
    cache.fill(&ns, &keys.iter().map(|key| json!({"key": key, "value": 1})).collect()).await;
    let mut shard = server.connect();
    for kind in ["cache", "cache_meta"] {
        let name = format!("{kind}:{ns}:k31");
        for round in 0..20 {
            make_foreign(&mut shard, &name);
            let answers = join_all(keys.iter().map(|key| cache.get(&ns, key))).await;
            for (key, answer) in keys.iter().zip(answers) {
                match key.as_str() {
                    "k31" => done_or_foreign("GET", answer, &[404], &name),
                    _ => assert_eq!(answer.expect(200).value().parse::<u32>().ok(), Some(round + 1), "{key}"),
                }
            }
            let value = (round + 2).to_string();
            let answers = join_all(keys.iter().map(|key| cache.set(&ns, key, &value))).await;
            for (key, answer) in keys.iter().zip(answers) {
                match key.as_str() {
                    "k31" => done_or_foreign("PUT", answer, &[200, 201], &name),
                    _ => drop(answer.expect(200)),
                }
            }
        }
        cache.delete(&ns, "k31").await;
        cache.fill(&ns, &keys.iter().map(|key| json!({"key": key, "value": 1})).collect()).await;
        eventually(SOON, async || agreed(&[&cache], std::slice::from_ref(&server), &ns).await.map(drop)).await;
    }
}

/// The Redis keys that belong to the fleet, not to a namespace. The service rewrites them by itself.
const FLEET_KEYS: [&str; 7] = [
    "sidecache:ring",
    "sidecache:fence",
    "sidecache:instances",
    "sidecache:heartbeats",
    "sidecache:walked",
    "sidecache:walker",
    "sidecache:ring_walker",
];

/// The bug: a foreign type under one of these names prevented a new instance from becoming ready, hid living
/// instances from each other, or stopped the removal of moved entries, for ever.
#[tokio::test]
async fn regression_foreign_types_under_the_names_of_the_fleet_are_repaired() {
    for name in FLEET_KEYS {
        let servers = [Redis::start(), Redis::start()];
        let settings = Settings::on(&servers);
        let only_a = format!("a={}", servers[0].url());
        let (cache_settings, ns) = (settings.clone().set("redis_shards", &only_a), namespace("foreign"));
        let a = Service::start(cache_settings.clone());
        let one = a.client();
        one.fill(&ns, &(0..200).map(|number| json!({"key": format!("k{number}"), "value": 1})).collect()).await;
        make_foreign(&mut servers[0].connect(), name);

        // A second instance becomes healthy, both serve requests, and each knows the other.
        let b = Service::start(cache_settings);
        let other = b.client();
        eventually(LATER, async || {
            for (number, cache) in [&one, &other].into_iter().enumerate() {
                let key = format!("after {number}");
                let stored = cache.set(&ns, &key, "2").await;
                ensure!([200, 201].contains(&stored.status), "{name}: {}", stored.text());
                let read = cache.get(&ns, &key).await;
                ensure!(read.status == 200 && read.value() == "2", "{name}: {}", read.text());
                let health = cache.health().await.json();
                ensure!(health["status"] == "healthy", "{name}: {health}");
                let cluster = cache.fetch("/api/v1/cluster").await.expect(200).json();
                let known = cluster["instances"].as_array().map_or(0, Vec::len);
                ensure!(known == 2, "{name}: {known} instances are known: {cluster}");
            }
            Ok(())
        })
        .await;
        assert_eq!(b.stop().code(), Some(0));
        assert_eq!(a.stop().code(), Some(0));

        // One shard more: the entries that moved are removed from their old shard.
        let c = Service::start(settings);
        eventually(LATER, async || {
            for server in &servers {
                let clean = server.connect().command(&["HGET", "sidecache:ring", "clean"]);
                ensure!(clean == Reply::Bulk(Some(b"1".to_vec())), "{name}: clean is {clean:?}");
            }
            Ok(())
        })
        .await;
        let moved = c.client().metrics().await.total("sidecache_moved_entries_removed_total");
        // Without its record, the contents of a shard are unknown, so it is emptied. The fence belongs to the record.
        let is_emptied = ["sidecache:ring", "sidecache:fence"].contains(&name);
        assert!(is_emptied || moved > 0.0, "{name}: nothing moved");
    }
}

/// The bug: the walk that looks for evicted keys met the foreign type and never ran again, so the totals still
/// counted keys that were gone.
#[tokio::test]
async fn regression_foreign_types_under_the_names_of_the_walk_do_not_stop_it() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)).set("l1_max_mb", 0));
    let (cache, ns) = (service.client(), namespace("foreign"));
    let value = "x".repeat(10_000);
    let mut shard = server.connect();
    for name in ["sidecache:walked", "sidecache:walker"] {
        make_foreign(&mut shard, name);
        for some in 0..4 {
            let entry = |number| json!({"key": format!("k{some}-{number}"), "value": value, "ttl": 3_600});
            cache.fill(&ns, &(0..100).map(entry).collect()).await;
        }
        let before = shard.info("stats", "evicted_keys");
        let used = shard.info("memory", "used_memory");
        shard.configure("maxmemory-policy", "volatile-lru");
        shard.configure("maxmemory", &(used - 1_000_000).to_string());
        let started = Instant::now();
        while shard.info("stats", "evicted_keys") == before {
            assert!(started.elapsed() < LATER, "nothing is evicted");
            // Redis evicts only while it processes commands.
            shard.command(&["PING"]);
            tokio::time::sleep(INTERVAL).await;
        }
        shard.configure("maxmemory", "0");
        eventually(LATER, async || {
            agreed(&[&cache], std::slice::from_ref(&server), &ns).await.map(drop).context(name)
        })
        .await;
        assert!(cache.stats(&ns).await.expect(200).number("evictions") > 0);
    }
}
