//! Redis or the embedded store out of memory: everything except writes still works, and calls that free memory work
//! without any free memory.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::redis::{Connection, Redis};
use crate::support::service::{Service, Settings};
use crate::support::walk::agreed;

/// A service with one Redis of its own, and a connection to the Redis.
fn on_one_shard(settings: &[(&str, u64)]) -> (Redis, Connection, Service) {
    let server = Redis::start();
    let own = Settings::on(std::slice::from_ref(&server)).set("l1_max_mb", 0);
    let own = settings.iter().fold(own, |own, (name, value)| own.set(name, *value));
    let service = Service::start(own);
    let connection = server.connect();
    (server, connection, service)
}

/// From now on, Redis refuses every command that may need memory.
fn exhaust(connection: &mut Connection, policy: &str) {
    connection.command(&["CONFIG", "SET", "maxmemory-policy", policy]);
    connection.command(&["CONFIG", "SET", "maxmemory", "1"]);
}

/// The bug: before it deleted anything, the sweep wrote down when to sweep the bucket next. A Redis without memory
/// refused that write, and so every call that sweeps failed: stats and listings were 507. `metadata=full` was 507 as
/// well, because it wrote pending counts of reads first.
#[tokio::test]
async fn regression_a_redis_without_memory_answers_everything_but_writes() {
    let (_server, mut connection, service) = on_one_shard(&[("stats_flush_ms", 600_000)]);
    let (cache, ns) = (service.client(), namespace("memory"));
    // Two entries expire soon, and one of them is written again with a longer TTL: its bucket is swept too early.
    cache.set_for(&ns, "renewed", "1", 1).await.expect(201);
    cache.set_for(&ns, "long", "1", 600).await.expect(201);
    cache.set_for(&ns, "renewed", "1", 600).await.expect(200);
    cache.set_for(&ns, "short", "1", 2).await.expect(201);
    cache.get(&ns, "long").await.expect(200);
    exhaust(&mut connection, "noeviction");
    cache.set(&ns, "new", "1").await.expect_error(507, "storage_full");
    eventually(SOON, async || {
        let stats = cache.stats(&ns).await.expect(200);
        ensure!((stats.number("total_keys"), stats.number("expirations")) == (2, 1), "{}", stats.text());
        Ok(())
    })
    .await;
    assert_eq!(cache.all_keys(&ns).await, ["long", "renewed"]);
    let full = cache.fetch(&format!("{}?metadata=full", key_path(&ns, "long"))).await.expect(200).json();
    assert_eq!(full["metadata"]["access_count"], 1, "{full}");
    assert_eq!(cache.flush(&ns, &[]).await.expect(200).number("deleted_count"), 2);
}

/// The bug: the lock for the walk over evicted keys was taken by a write that a Redis without memory refuses,
/// although this walk frees the metadata of evicted entries.
#[tokio::test]
async fn regression_evicted_entries_are_cleaned_up_without_free_memory() {
    const KEYS: u64 = 3_000;
    let (_server, mut connection, service) = on_one_shard(&[]);
    let (cache, ns) = (service.client(), namespace("memory"));
    let entries = |from: u64| (from..from + 500).map(|n| json!({"key": format!("k{n}"), "value": n, "ttl": 10_000}));
    for from in (0..KEYS).step_by(500) {
        cache.fill(&ns, &json!(entries(from).collect::<Vec<Value>>())).await;
    }
    // Every value has a TTL, so Redis evicts all values, and still uses too much memory.
    exhaust(&mut connection, "volatile-lru");
    // Redis evicts bit by bit, and still accepts writes meanwhile.
    eventually(SOON, async || {
        let gone = connection.info("stats", "evicted_keys");
        ensure!(gone == KEYS, "{gone} evicted");
        Ok(())
    })
    .await;
    cache.set(&ns, "new", "1").await.expect_error(507, "storage_full");
    eventually(LATER, async || {
        let stats = cache.stats(&ns).await.expect(200);
        ensure!((stats.number("total_keys"), stats.number("evictions")) == (0, KEYS), "{}", stats.text());
        Ok(())
    })
    .await;
    assert!(connection.keys(&format!("cache_meta:{ns}:*")).is_empty());
}

/// C-03. Clients write three times what fits into memory, while others read. After that, Redis may no longer evict.
#[tokio::test]
async fn a_full_redis_evicts_with_exact_stats_or_refuses_writes_and_still_answers_reads() {
    const KEYS: usize = 9_000;
    let servers = Redis::three_with(&["--maxmemory", "6mb", "--maxmemory-policy", "volatile-lru"]);
    let service = Service::start(Settings::on(&servers));
    let (cache, ns) = (service.client(), namespace("memory"));
    let value = format!("\"{}\"", "x".repeat(2_000));
    let done = AtomicBool::new(false);
    let writers = join_all((0..4).map(async |writer| {
        for number in (writer..KEYS).step_by(4) {
            cache.set_for(&ns, &format!("k{number}"), &value, 10_000).await.expect(201);
        }
        done.store(true, Ordering::SeqCst);
    }));
    let readers = join_all((0..4).map(async |reader| {
        let mut number = reader;
        while !done.load(Ordering::SeqCst) {
            let answer = cache.get(&ns, &format!("k{number}")).await;
            assert!([200, 404].contains(&answer.status), "{}", answer.text());
            number = (number + 7) % KEYS;
        }
    }));
    futures_util::join!(writers, readers);
    let evicted = || servers.iter().map(|server| server.connect().info("stats", "evicted_keys")).sum::<u64>();
    eventually(LATER, async || {
        let walk = agreed(&[&cache], &servers, &ns).await?;
        ensure!(walk.books.evictions == evicted(), "{:?}, and Redis evicted {}", walk.books, evicted());
        ensure!(walk.books.evictions + walk.books.keys == KEYS as u64, "{:?} of {KEYS}", walk.books);
        ensure!(walk.books.evictions > KEYS as u64 / 4, "{:?} of {KEYS}", walk.books);
        Ok(())
    })
    .await;

    for server in &servers {
        let mut connection = server.connect();
        connection.configure("maxmemory-policy", "noeviction");
        // Below the memory in use, so that every further write is refused.
        let used = connection.info("memory", "used_memory");
        connection.configure("maxmemory", &used.saturating_sub(1_000_000).to_string());
    }
    // With any other eviction policy, the service would evict older entries to make room.
    cache.put_policy(&ns, r#"{"default_ttl":0,"max_size_mb":0,"eviction_policy":"NONE"}"#).await.expect(200);
    // Redis may have evicted more until now.
    let before = eventually(LATER, async || {
        let walk = agreed(&[&cache], &servers, &ns).await?;
        ensure!(walk.books.evictions == evicted(), "{:?}, and Redis evicted {}", walk.books, evicted());
        Ok(walk.books.evictions)
    })
    .await;
    let kept = cache.all_keys(&ns).await;
    for number in 0..30 {
        let refused = cache.set_for(&ns, &format!("new{number}"), &value, 10_000).await;
        refused.expect_error(507, "storage_full");
    }
    for headers in [&[][..], &[("cache-control", "no-cache")]] {
        for key in kept.iter().take(100) {
            assert_eq!(cache.get_with(&ns, key, headers).await.expect(200).value(), value);
        }
    }
    let names: Vec<&str> = kept.iter().map(String::as_str).take(100).collect();
    assert_eq!(cache.mget(&ns, &names).await.number("hits"), 100);
    cache.delete(&ns, &kept[0]).await.expect(200);
    eventually(LATER, async || {
        let walk = agreed(&[&cache], &servers, &ns).await?;
        ensure!(walk.books.keys == kept.len() as u64 - 1, "{:?}", walk.books);
        ensure!(walk.books.evictions == before, "{:?}", walk.books);
        Ok(())
    })
    .await;
}

/// Overwrites the entry that expires next with a larger value, so that exactly one other entry must be evicted.
#[tokio::test]
async fn regression_the_second_to_expire_is_evicted_while_the_first_is_being_written() {
    let (_server, _connection, service) = on_one_shard(&[]);
    let (cache, ns) = (service.client(), namespace("memory"));
    cache.put_policy(&ns, r#"{"max_size_mb": 1, "eviction_policy": "TTL"}"#).await;
    let value = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
    for number in 0..100 {
        cache.set_for(&ns, &format!("k{number}"), &value(10_000), 1_000 + number).await.expect(201);
    }
    cache.set_for(&ns, "k0", &value(20_000), 1_000).await.expect(200);
    // The bug: the second entry of the same bucket was evicted, even if an entry in another bucket expires earlier.
    let keys = cache.all_keys(&ns).await;
    let gone: Vec<String> = (0..100).map(|n| format!("k{n}")).filter(|key| !keys.contains(key)).collect();
    assert_eq!(gone, ["k1"]);
}

/// Fills the embedded store until an entry is evicted.
async fn overfull(cache: &Client, ns: &str) -> u64 {
    let mut number = 0;
    while cache.stats(ns).await.number("evictions") == 0 {
        for _ in 0..100 {
            cache.set(ns, &format!("k{number}"), "\"0123456789\"").await.expect(201);
            number += 1;
        }
    }
    number
}

/// The bug: the entry that was just written had the fewest reads of all, so it was evicted immediately.
#[tokio::test]
async fn regression_a_full_embedded_store_keeps_the_entry_just_written() {
    let service = Service::start(Settings::embedded().set("embedded_max_mb", 1));
    let (cache, ns) = (service.client(), namespace("memory"));
    cache.put_policy(&ns, r#"{"eviction_policy": "LFU"}"#).await;
    overfull(&cache, &ns).await;
    for key in cache.all_keys(&ns).await {
        cache.get(&ns, &key).await.expect(200);
    }
    for number in 0..6 {
        let key = format!("new{number}");
        cache.set(&ns, &key, "1").await.expect(201);
        cache.get(&ns, &key).await.expect(200);
    }
}

/// The bug: a cursor beyond the last place wrapped around, and the listing started again.
#[tokio::test]
async fn regression_a_cursor_beyond_the_end_is_refused() {
    let (_server, _connection, service) = on_one_shard(&[]);
    let (cache, ns) = (service.client(), namespace("memory"));
    cache.set(&ns, "k", "1").await.expect(201);
    // "3\n18446744073709551615\n", and the first place after the last one.
    for cursor in ["MwoxODQ0Njc0NDA3MzcwOTU1MTYxNQo", "Mwo0Mjk0OTY3Mjk2Cg"] {
        cache.list(&ns, &[("cursor", cursor)]).await.expect_error(400, "invalid_cursor");
    }
}
