//! Quotas in real bytes, on both stores. An entry that does not fit evicts others by the namespace's policy, or is
//! refused as a whole. Other namespaces are not affected. `eviction` tests which entries go first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::random::Random;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, Store};
use crate::support::walk::{Books, ENTRY_OVERHEAD, agreed, books};

on_both_stores! {
    a_value_larger_than_the_quota_is_refused,
    a_full_namespace_without_eviction_refuses_writes_and_loses_nothing,
    a_batch_stores_what_fits_and_names_the_rest,
    a_lowered_quota_takes_effect_without_a_write,
    a_full_namespace_does_not_affect_its_neighbour,
    a_quota_of_0_is_no_limit,
    a_quota_counts_keys_tags_and_an_overhead_for_each_entry,
    eight_writers_never_exceed_the_quota_by_more_than_a_value_a_shard,
}

const MIB: u64 = 1 << 20;
const LARGEST: usize = 100 * 1024;

/// The number of shards that share a namespace's quota.
fn shard_count(service: &Service) -> u64 {
    match service.store() {
        Store::Embedded => 1,
        Store::Shards => 3,
    }
}

/// JSON text of this many bytes.
fn value(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

async fn with_policy(cache: &Client, max_size_mb: u64, eviction_policy: &str) -> String {
    let ns = namespace("quota");
    put_policy(cache, &ns, max_size_mb, eviction_policy).await;
    ns
}

async fn put_policy(cache: &Client, ns: &str, max_size_mb: u64, eviction_policy: &str) {
    let policy = json!({"max_size_mb": max_size_mb, "eviction_policy": eviction_policy}).to_string();
    let status = cache.put_policy(ns, policy).await.status;
    assert!([200, 201].contains(&status), "{status}");
}

async fn eight_writers_never_exceed_the_quota_by_more_than_a_value_a_shard(service: &Service) {
    let cache = service.client();
    let ns = with_policy(&cache, 1, "LRU").await;
    let most = MIB + shard_count(service) * (LARGEST as u64 + 2);
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (cache, ns) = (service.client(), ns.clone());
            tokio::spawn(async move {
                let mut random = Random::seeded(writer);
                for _ in 0..150 {
                    let key = format!("k{}", random.below(400));
                    let status = cache.set(&ns, &key, &value(random.between(2, LARGEST))).await.status;
                    assert!([200, 201].contains(&status), "{status}");
                }
            })
        })
        .collect();
    let sampler = {
        let (cache, ns, done) = (service.client(), ns.clone(), Arc::clone(&done));
        let mut shards: Vec<_> = match service.store() {
            Store::Embedded => Vec::new(),
            Store::Shards => crate::support::redis::shared().iter().map(Redis::connect).collect(),
        };
        tokio::spawn(async move {
            let (mut samples, mut highest) = (0, 0);
            while !done.load(Relaxed) {
                let said = Books::said(&cache, &ns).await;
                let within: Vec<u64> = shards.iter_mut().map(|shard| books(shard, &ns).bytes).collect();
                for bytes in &within {
                    let share = MIB / 3 + LARGEST as u64 + 2;
                    assert!(*bytes <= share, "a shard holds {bytes} bytes of a share of a third of a MiB");
                }
                for bytes in [said.bytes, within.iter().sum()] {
                    assert!(bytes <= most, "{bytes} bytes in a MiB");
                    highest = highest.max(bytes);
                }
                samples += 1;
            }
            (samples, highest)
        })
    };
    for writer in writers {
        writer.await.expect("the writer does not panic");
    }
    done.store(true, Relaxed);
    let (samples, highest) = sampler.await.expect("the sampler does not panic");
    assert!(samples > 20, "{samples} samples");
    assert!(highest > MIB / 2, "at most {highest} bytes were in use");
    eventually(SOON, async || {
        let books = Books::said(&cache, &ns).await;
        ensure!(books.bytes <= MIB && books.evictions > 0, "{books:?}");
        let listed = cache.all_keys(&ns).await;
        ensure!(listed.len() as u64 == books.keys, "{} listed, {books:?}", listed.len());
        Ok(())
    })
    .await;
    eprintln!("eight writers: {samples} samples, at most {highest} bytes of {MIB}");
}

async fn a_value_larger_than_the_quota_is_refused(service: &Service) {
    let cache = service.client();
    for policy in ["LRU", "LFU", "FIFO", "TTL", "NONE"] {
        let ns = with_policy(&cache, 1, policy).await;
        cache.set(&ns, "small", "1").await.expect(201);
        let too_large = value(MIB as usize + 1);
        cache.set(&ns, "large", &too_large).await.expect_error(400, "value_too_large");
        cache.set(&ns, "small", &too_large).await.expect_error(400, "value_too_large");
        // A batch is checked before any of its entries is stored.
        let entries = format!(r#"{{"entries":[{{"key":"a","value":1}},{{"key":"b","value":{too_large}}}]}}"#);
        cache.mset_raw(&ns, entries).await.expect_error(400, "value_too_large");
        assert_eq!(cache.all_keys(&ns).await, ["small"], "{policy}");
        assert_eq!(cache.get(&ns, "small").await.expect(200).value(), "1");
        let books = Books { keys: 1, bytes: 1, evictions: 0, expirations: 0 };
        assert_eq!(Books::said(&cache, &ns).await, books, "{policy}");
        // A value of exactly the quota is allowed. It then fills the namespace, or its shard, alone.
        cache.delete(&ns, "small").await.expect(200);
        cache.set(&ns, "large", &value(MIB as usize)).await.expect(201);
        assert_eq!(Books::said(&cache, &ns).await, Books { keys: 1, bytes: MIB, ..Books::default() }, "{policy}");
    }
}

/// Stores entries of 10,000 bytes until one is refused. Returns the keys of the stored ones.
async fn fill_up(cache: &Client, ns: &str) -> Vec<String> {
    let mut stored = Vec::new();
    for number in 0..200 {
        let key = format!("k{number}");
        let answer = cache.set(ns, &key, &value(10_000)).await;
        if answer.status == 507 {
            answer.expect_error(507, "storage_full");
            return stored;
        }
        answer.expect(201);
        stored.push(key);
    }
    panic!("{} entries of 10,000 bytes fit into a MiB", stored.len());
}

async fn a_full_namespace_without_eviction_refuses_writes_and_loses_nothing(service: &Service) {
    let cache = service.client();
    let ns = with_policy(&cache, 1, "NONE").await;
    let stored = fill_up(&cache, &ns).await;
    // One shard may be full before the others.
    assert!((60..=104).contains(&stored.len()), "{} entries", stored.len());
    let full = Books { keys: stored.len() as u64, bytes: stored.len() as u64 * 10_000, ..Books::default() };
    assert_eq!(Books::said(&cache, &ns).await, full);
    // A value that would fit only after an eviction is refused, and the old value stays.
    let victim = stored.last().expect("some were stored");
    cache.set(&ns, victim, &value(1_000_000)).await.expect_error(507, "storage_full");
    let kept = cache.get_with(&ns, victim, &[("cache-control", "no-cache")]).await.expect(200);
    assert_eq!(kept.value(), value(10_000));
    assert_eq!(Books::said(&cache, &ns).await, full);
    for key in &stored {
        cache.get(&ns, key).await.expect(200);
    }
    // A write of the same or a smaller size is allowed, and a smaller one makes room for other entries.
    cache.set(&ns, victim, &value(10_000)).await.expect(200);
    cache.set(&ns, victim, &value(100)).await.expect(200);
    cache.set(&ns, victim, &value(10_000)).await.expect(200);
    cache.delete(&ns, victim).await.expect(200);
    cache.set(&ns, victim, &value(10_000)).await.expect(201);
    assert_eq!(Books::said(&cache, &ns).await, full);
    let deleted = cache.flush(&ns, &[]).await.expect(200).number("deleted_count");
    assert_eq!(deleted, stored.len() as u64);
    assert_eq!(fill_up(&cache, &ns).await, stored, "there is as much room as before");
}

async fn a_batch_stores_what_fits_and_names_the_rest(service: &Service) {
    let cache = service.client();
    let ns = with_policy(&cache, 1, "NONE").await;
    let entries: Vec<Value> =
        (0..200).map(|number| json!({"key": format!("k{number}"), "value": "x".repeat(9_998)})).collect();
    let answer = cache.mset(&ns, &json!(entries)).await.expect(200).json();
    let errors = answer["errors"].as_object().expect("errors by key");
    let stored = answer["stored"].as_u64().expect("a number");
    assert_eq!(answer["success"], false);
    assert_eq!(stored + errors.len() as u64, 200);
    assert!(errors.values().all(|code| code == "storage_full"), "{errors:?}");
    assert!((80..=104).contains(&stored), "{stored} stored");
    let full = Books { keys: stored, bytes: stored * 10_000, ..Books::default() };
    assert_eq!(Books::said(&cache, &ns).await, full);
    let kept = cache.all_keys(&ns).await;
    assert!(kept.iter().all(|key| !errors.contains_key(key)), "{kept:?}");

    // Nothing fits any more: the whole batch is refused, and the old values stay.
    let entries: Vec<Value> =
        kept.iter().take(5).map(|key| json!({"key": key, "value": "y".repeat(900_000)})).collect();
    let answer = cache.mset(&ns, &json!(entries)).await.expect(507).json();
    assert_eq!((&answer["success"], &answer["stored"]), (&json!(false), &json!(0)), "{answer}");
    assert_eq!(answer["errors"].as_object().map(serde_json::Map::len), Some(5), "{answer}");
    for key in kept.iter().take(5) {
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), value(10_000));
    }
    assert_eq!(Books::said(&cache, &ns).await, full);
}

async fn a_lowered_quota_takes_effect_without_a_write(service: &Service) {
    let cache = service.client();
    let ns = with_policy(&cache, 3, "FIFO").await;
    let entries: Vec<Value> =
        (0..250).map(|number| json!({"key": format!("k{number}"), "value": "x".repeat(9_998)})).collect();
    cache.fill(&ns, &json!(entries)).await;
    let before = Books { keys: 250, bytes: 2_500_000, ..Books::default() };
    assert_eq!(Books::said(&cache, &ns).await, before);
    put_policy(&cache, &ns, 2, "NONE").await;
    put_policy(&cache, &ns, 1, "NONE").await;
    cache.set(&ns, "new", &value(100)).await.expect_error(507, "storage_full");
    assert_eq!(Books::said(&cache, &ns).await, before, "NONE evicts nothing");
    put_policy(&cache, &ns, 1, "FIFO").await;
    // The shards evict one after the other, so the sum may be low enough before the last of them has finished.
    let after = eventually(SOON, async || {
        let (books, keys) = (Books::said(&cache, &ns).await, cache.all_keys(&ns).await.len() as u64);
        ensure!(books.bytes <= MIB && keys == books.keys, "{books:?}, and {keys} keys are listed");
        Ok(books)
    })
    .await;
    assert_eq!((after.keys + after.evictions, after.bytes), (250, after.keys * 10_000));
    assert!(after.bytes > MIB * 8 / 10, "more was evicted than necessary: {after:?}");
}

async fn a_full_namespace_does_not_affect_its_neighbour(service: &Service) {
    let cache = service.client();
    let (full, neighbour) = (with_policy(&cache, 1, "LRU").await, with_policy(&cache, 1, "LRU").await);
    let entries: Vec<Value> =
        (0..50).map(|number| json!({"key": format!("k{number}"), "value": "x".repeat(9_998)})).collect();
    cache.fill(&neighbour, &json!(entries)).await;
    let entries: Vec<Value> =
        (0..1_000).map(|number| json!({"key": format!("k{number}"), "value": "x".repeat(9_998)})).collect();
    cache.fill(&full, &json!(entries)).await;
    let books = Books::said(&cache, &full).await;
    assert_eq!((books.keys + books.evictions, books.bytes), (1_000, books.keys * 10_000));
    assert!((MIB * 8 / 10..=MIB).contains(&books.bytes), "{books:?}");
    let untouched = Books { keys: 50, bytes: 500_000, ..Books::default() };
    assert_eq!(Books::said(&cache, &neighbour).await, untouched);
    assert_eq!(cache.all_keys(&neighbour).await.len(), 50);
}

/// The bug: a quota counted only values, so a namespace with a quota of 1 MiB could use a hundred MiB of memory.
async fn a_quota_counts_keys_tags_and_an_overhead_for_each_entry(service: &Service) {
    let cache = service.client();
    let ns = with_policy(&cache, 1, "LRU").await;
    let charged = async || cache.stats(&ns).await.expect(200).number("memory_charged_bytes");
    let key = |number: usize| format!("{number:0500}");
    let entry = |number| json!({"key": key(number), "value": 1, "tags": ["é".repeat(50), "b"]});
    // The key, both tags with the line feed between them, the value, and the overhead.
    let each = 500 + 100 + 1 + 1 + 1 + ENTRY_OVERHEAD;
    cache.fill(&ns, &json!([entry(0), entry(1)])).await;
    assert_eq!(charged().await, 2 * each);
    cache.set(&ns, &key(1), "[1,2]").await.expect(200);
    assert_eq!(charged().await, each + 500 + 5 + ENTRY_OVERHEAD, "the entry has no tags any more");
    cache.delete(&ns, &key(1)).await.expect(200);
    assert_eq!(charged().await, each);
    for batch in 0..5 {
        let entries: Vec<Value> = (0..500).map(|number| entry(2 + batch * 500 + number)).collect();
        cache.fill(&ns, &json!(entries)).await;
        assert!(charged().await <= MIB);
    }
    let books = Books::said(&cache, &ns).await;
    // Each shard may have room left for less than one entry.
    assert!((MIB / each - 3..=MIB / each).contains(&books.keys), "{books:?}");
    assert_eq!((books.bytes, books.keys + books.evictions), (books.keys, 2_501));
    assert_eq!(charged().await, books.keys * each);
    cache.flush(&ns, &[]).await.expect(200);
    assert_eq!(charged().await, 0);
}

async fn a_quota_of_0_is_no_limit(service: &Service) {
    let cache = service.client();
    let ns = with_policy(&cache, 0, "NONE").await;
    let entries: Vec<Value> =
        (0..500).map(|number| json!({"key": format!("k{number}"), "value": "x".repeat(9_998)})).collect();
    cache.fill(&ns, &json!(entries)).await;
    assert_eq!(Books::said(&cache, &ns).await, Books { keys: 500, bytes: 5_000_000, ..Books::default() });
    cache.flush(&ns, &[]).await.expect(200);
}

#[tokio::test]
async fn expired_entries_of_the_embedded_store_make_room_first_and_count_as_expired() {
    expired_entries_make_room_first(Store::Embedded).await;
}

#[tokio::test]
async fn expired_entries_on_shards_make_room_first_and_count_as_expired() {
    expired_entries_make_room_first(Store::Shards).await;
}

/// The sweeper does not run, so the writes themselves find the expired entries.
async fn expired_entries_make_room_first(store: Store) {
    let service = Service::start(store.settings().set("sweep_interval_ms", 600_000));
    let cache = service.client();
    let ns = with_policy(&cache, 1, "LRU").await;
    let batch = |name: &str, count: usize, ttl: Option<u64>| -> Value {
        let entry = |number| json!({"key": format!("{name}{number}"), "value": "x".repeat(998)});
        let with_ttl = |mut entry: Value| {
            if let Some(ttl) = ttl {
                entry["ttl"] = json!(ttl);
            }
            entry
        };
        (0..count).map(entry).map(with_ttl).collect()
    };
    cache.fill(&ns, &batch("stays", 200, None)).await;
    cache.fill(&ns, &batch("goes", 400, Some(2))).await;
    // The witness is in another namespace. It was written last and expires last.
    let witness = namespace("quota");
    cache.set_for(&witness, "k", "1", 2).await.expect(201);
    eventually(SOON, async || {
        let status = cache.head(&witness, "k").await.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await;
    // The expired entries are newer than the ones that stay. By recency alone, the wrong ones would be evicted.
    cache.fill(&ns, &batch("new", 400, None)).await;
    let books = Books::said(&cache, &ns).await;
    assert_eq!(books, Books { keys: 600, bytes: 600_000, evictions: 0, expirations: 400 });
    let kept = cache.all_keys(&ns).await;
    assert_eq!(kept.iter().filter(|key| key.starts_with("stays")).count(), 200);
}

#[tokio::test]
async fn a_value_larger_than_a_shards_share_evicts_the_rest_of_the_shard() {
    let servers = Redis::three();
    let service = Service::start(Settings::on(&servers));
    let cache = service.client();
    let ns = with_policy(&cache, 1, "LRU").await;
    let entries: Vec<Value> =
        (0..90).map(|number| json!({"key": format!("k{number}"), "value": "x".repeat(9_998)})).collect();
    cache.fill(&ns, &json!(entries)).await;
    let before = Books::said(&cache, &ns).await;
    cache.set(&ns, "large", &value(600_000)).await.expect(201);
    assert_eq!(cache.get(&ns, "large").await.expect(200).value(), value(600_000));
    let walk = eventually(SOON, async || agreed(&[&cache], &servers, &ns).await).await;
    let evicted = walk.books.evictions - before.evictions;
    assert!((10..60).contains(&evicted), "more than one shard was emptied: {:?}", walk.books);
    let alone = servers.iter().map(|server| books(&mut server.connect(), &ns)).any(|books| books.keys == 1);
    assert!(alone, "{:?}", walk.books);

    // Without eviction there is room only in an empty namespace.
    put_policy(&cache, &ns, 1, "NONE").await;
    let refused = ["one", "two", "three"].map(|key| format!("{key} large"));
    cache.flush(&ns, &[]).await.expect(200);
    for key in &refused {
        let small: Vec<Value> = (0..30).map(|number| json!({"key": format!("s{number}"), "value": 1})).collect();
        cache.fill(&ns, &json!(small)).await;
        cache.set(&ns, key, &value(600_000)).await.expect_error(507, "storage_full");
        cache.flush(&ns, &[]).await.expect(200);
        cache.set(&ns, key, &value(600_000)).await.expect(201);
        cache.flush(&ns, &[]).await.expect(200);
    }
}

#[tokio::test]
async fn a_quota_holds_on_every_instance_and_evictions_invalidate_l1() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let (one, other) = (Service::start(settings.clone()), Service::start(settings));
    let (cache, second) = (one.client(), other.client());
    let ns = with_policy(&cache, 1, "FIFO").await;
    // Far fewer than fit, however unevenly they are distributed over the shards.
    let entries: Vec<Value> = (0..45)
        .map(|number| json!({"key": format!("old{number}"), "value": "x".repeat(9_998), "tags": ["old", "all"]}))
        .collect();
    cache.fill(&ns, &json!(entries)).await;
    for number in 0..45 {
        let key = format!("old{number}");
        eventually(SOON, async || {
            let answer = second.get(&ns, &key).await.expect(200);
            ensure!(answer.is_l1_hit(), "{:?}", answer.headers);
            Ok(())
        })
        .await;
    }
    let entries: Vec<Value> = (0..150)
        .map(|number| json!({"key": format!("new{number}"), "value": "x".repeat(9_998), "tags": ["all"]}))
        .collect();
    cache.fill(&ns, &json!(entries)).await;
    // The oldest entries have been evicted from the shards, and within a second from every L1.
    let walk = eventually(SOON, async || agreed(&[&cache, &second], &servers, &ns).await).await;
    let gone: Vec<String> = (0..45).map(|n| format!("old{n}")).filter(|key| !walk.sizes.contains_key(key)).collect();
    assert!(gone.len() >= 35, "{} of 45 are gone", gone.len());
    assert_eq!(walk.books.keys + walk.books.evictions, 195);
    for key in &gone {
        eventually(std::time::Duration::from_secs(1), async || {
            let status = second.get(&ns, key).await.status;
            ensure!(status == 404, "{key}: {status}");
            Ok(())
        })
        .await;
    }
    let old = walk.sizes.keys().filter(|key| key.starts_with("old")).count();
    assert_eq!(walk.tags.get("old").map_or(0, std::collections::BTreeSet::len), old);
    assert_eq!(walk.tags["all"].len(), walk.sizes.len());

    // The other instance applies the same limit after it has loaded the policy, and evicts as well.
    eventually(SOON, async || {
        let answer = second.policy(&ns).await;
        ensure!(answer.status == 200 && answer.number("max_size_mb") == 1, "{}", answer.text());
        Ok(())
    })
    .await;
    let entries: Vec<Value> =
        (0..100).map(|number| json!({"key": format!("other{number}"), "value": "x".repeat(9_998)})).collect();
    second.fill(&ns, &json!(entries)).await;
    let walk = eventually(SOON, async || agreed(&[&cache, &second], &servers, &ns).await).await;
    assert!(walk.bytes() <= MIB, "{:?}", walk.books);
    assert_eq!(walk.books.keys + walk.books.evictions, 295);
}

#[tokio::test]
async fn a_redis_without_memory_is_a_507_and_stored_entries_stay() {
    let servers = Redis::three_with(&["--maxmemory", "5mb", "--maxmemory-policy", "noeviction"]);
    let service = Service::start(Settings::on(&servers).set("l1_max_mb", 0));
    let (cache, ns) = (service.client(), namespace("oom"));
    // With any other policy, older entries would make room.
    cache.put_policy(&ns, r#"{"default_ttl":0,"max_size_mb":0,"eviction_policy":"NONE"}"#).await.expect(201);
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    for number in 0..2_000 {
        let key = format!("k{number}");
        let answer = cache.set(&ns, &key, &value(20_000)).await;
        if answer.status == 507 {
            answer.expect_error(507, "storage_full");
            refused.push(key);
        } else {
            answer.expect(201);
            stored.push(key);
        }
        if refused.len() == 100 {
            break;
        }
    }
    assert_eq!(refused.len(), 100, "{} entries of 20,000 bytes fit into 15 MiB", stored.len());
    let entries: Vec<Value> = refused.iter().map(|key| json!({"key": key, "value": "x".repeat(20_000)})).collect();
    let answer = cache.mset(&ns, &json!(entries)).await;
    let said = answer.json();
    let left_out = said["errors"].as_object().expect("errors by key");
    assert!(left_out.values().all(|code| code == "storage_full"), "{said}");
    assert!(left_out.len() > 50, "{} of 100 did not fit", left_out.len());
    let stored_now = said["stored"].as_u64().expect("a number");
    assert_eq!(stored_now + left_out.len() as u64, 100);
    assert_eq!(answer.status, if stored_now == 0 { 507 } else { 200 }, "{said}");

    // Everything that was stored is still there, and what frees memory is allowed.
    for key in &stored {
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), value(20_000), "{key}");
    }
    let exact = eventually(SOON, async || agreed(&[&cache], &servers, &ns).await).await;
    assert_eq!(exact.books.keys, stored.len() as u64 + stored_now);
    // A refused value leaves the old one in place. Redis' memory use varies by more than one value, so some of these
    // writes may succeed.
    let mut kept = 0;
    for key in &stored[..50] {
        let status = cache.set(&ns, key, &value(20_001)).await.status;
        assert!([200, 507].contains(&status), "{status}");
        kept += usize::from(status == 507);
        let expected = if status == 507 { value(20_000) } else { value(20_001) };
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), expected, "after a {status}");
    }
    assert!(kept > 10, "{kept} of 50 refused");
    for key in &stored[..100] {
        cache.delete(&ns, key).await.expect(200);
    }
    eventually(LATER, async || {
        let status = cache.set(&ns, &stored[0], &value(20_000)).await.status;
        ensure!([200, 201].contains(&status), "{status}");
        Ok(())
    })
    .await;
    let walk = eventually(SOON, async || agreed(&[&cache], &servers, &ns).await).await;
    assert_eq!(walk.books.keys, exact.books.keys - 99);
    let deleted = cache.flush(&ns, &[]).await.expect(200).number("deleted_count");
    assert_eq!(deleted, walk.books.keys);
    let walk = eventually(SOON, async || agreed(&[&cache], &servers, &ns).await).await;
    assert_eq!((walk.books.keys, walk.names), (0, Vec::new()));
}
