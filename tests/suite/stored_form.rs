//! What the shards store, seen with another tool: the names and types are a contract with people who inspect Redis.

use std::time::{Duration, SystemTime};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::client::{Client, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::redis::{self, Connection, Reply};
use crate::support::service::Store;

/// A connection to each of the three shards.
fn shards() -> Vec<Connection> {
    redis::shared().iter().map(redis::Redis::connect).collect()
}

/// The shard that holds `key`; exactly one does.
fn shard_of<'a>(shards: &'a mut [Connection], ns: &str, key: &str) -> &'a mut Connection {
    let name = format!("cache:{ns}:{key}");
    let mut holding: Vec<&mut Connection> = shards
        .iter_mut()
        .filter_map(|shard| (shard.command(&["EXISTS", &name]).integer() == 1).then_some(shard))
        .collect();
    assert_eq!(holding.len(), 1, "{name} must be on exactly one shard");
    holding.remove(0)
}

/// The sum of a field of `cache_stats` over the shards.
fn sum(shards: &mut [Connection], ns: &str, field: &str) -> i64 {
    let values = shards.iter_mut().map(|shard| shard.command(&["HGET", &format!("cache_stats:{ns}"), field]));
    values.map(|value| if value == Reply::Bulk(None) { 0 } else { value.integer() }).sum()
}

/// Every Redis key with the namespace in its name, on all shards, except for the statistics.
fn left_over(shards: &mut [Connection], ns: &str) -> Vec<String> {
    let keys = shards.iter_mut().flat_map(|shard| shard.keys(&format!("*:{ns}*")));
    // `users-1` is not `users-10`.
    let is_of = |key: &str| key.split(':').nth(1) == Some(ns);
    keys.filter(|key| is_of(key) && *key != format!("cache_stats:{ns}")).collect()
}

/// How many keys each bucket of the index holds, without its marker.
fn buckets(shard: &mut Connection, ns: &str) -> Vec<i64> {
    let names = shard.keys(&format!("cache_index:{ns}:*"));
    names.iter().map(|name| shard.command(&["ZCARD", name]).integer() - 1).collect()
}

fn service_client() -> Client {
    Store::Shards.shared_service().client()
}

#[tokio::test]
async fn an_entry_is_a_string_a_hash_and_an_index_member() {
    let (cache, ns, mut shards) = (service_client(), namespace("stored"), shards());
    let before = SystemTime::now();
    cache.put(&ns, "user_1", r#"{"value": {"a": 0.10} ,"ttl":100,"tags":["red","b l:u/e"]}"#).await.expect(201);
    cache.set(&ns, "ever", "1").await.expect(201);
    let etag = cache.get(&ns, "user_1").await.header("etag").expect("an ETag").to_owned();

    let shard = shard_of(&mut shards, &ns, "user_1");
    let (value, meta) = (format!("cache:{ns}:user_1"), format!("cache_meta:{ns}:user_1"));
    let (index, stats) = (format!("cache_index:{ns}:0"), format!("cache_stats:{ns}"));
    for (name, kind) in [(&value, "string"), (&meta, "hash"), (&index, "zset"), (&stats, "hash")] {
        assert_eq!(shard.command(&["TYPE", name]).text(), kind, "{name}");
    }
    assert_eq!(shard.command(&["GET", &value]).text(), r#"{"a": 0.10}"#, "the bytes that went in");
    let left = shard.command(&["PTTL", &value]).integer();
    assert!((90_000..=100_000).contains(&left), "{value} expires in {left} ms");
    // The metadata may outlive the value, since the sweeper needs the size of an expired entry.
    let meta_left = shard.command(&["PTTL", &meta]).integer();
    assert!(meta_left == -1 || meta_left >= left - 10, "{meta} expires in {meta_left} ms");
    for field in ["created_at", "access_count", "last_accessed", "size_bytes", "version"] {
        assert_ne!(shard.command(&["HGET", &meta, field]), Reply::Bulk(None), "{field}");
    }
    assert_eq!(shard.command(&["HGET", &meta, "size_bytes"]).integer(), 11);
    assert_eq!(format!("\"{}\"", shard.command(&["HGET", &meta, "version"]).text()), etag, "the version is the ETag");

    let expiry: f64 = shard.command(&["ZSCORE", &index, "user_1"]).text().parse().expect("a score");
    let expected = before.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970") + Duration::from_secs(100);
    assert!((expiry / 1_000.0 - expected.as_secs_f64()).abs() < 10.0, "the score must be the expiry in ms: {expiry}");
    let expires_at = shard.command(&["HGET", &meta, "expires_at"]).integer();
    assert_eq!(expires_at as f64, expiry, "the metadata has the same expiry");
    assert_eq!(shard.command(&["PEXPIRETIME", &value]).integer(), expires_at, "the value has the same expiry");
    for tag in ["red", "b l:u/e"] {
        let name = format!("cache_tag:{ns}:{tag}");
        assert_eq!(shard.command(&["ZRANGE", &name, "0", "-1"]).sorted(), ["user_1"]);
    }
    // As an earlier version wrote it.
    shard.command(&["HDEL", &meta, "expires_at"]);
    let without_caches = [("cache-control", "no-cache")];
    let answer = cache.get_with(&ns, "user_1", &without_caches).await.expect(200);
    let left = answer.metadata().ttl_remaining.expect("the entry expires");
    assert!((90..=100).contains(&left), "{left} s");

    let shard = shard_of(&mut shards, &ns, "ever");
    assert_eq!(shard.command(&["ZSCORE", &format!("cache_index:{ns}:0"), "ever"]).text(), "inf");
    assert_eq!(shard.command(&["PTTL", &format!("cache:{ns}:ever")]).integer(), -1);
    assert_eq!(shard.command(&["HGET", &format!("cache_meta:{ns}:ever"), "expires_at"]).text(), "0");
    assert_eq!((sum(&mut shards, &ns, "total_keys"), sum(&mut shards, &ns, "total_bytes")), (2, 12));
}

#[tokio::test]
async fn overwriting_an_entry_updates_its_expiry_in_the_index() {
    let (cache, ns, mut shards) = (service_client(), namespace("stored"), shards());
    cache.set(&ns, "k", "1").await.expect(201);
    let shard = shard_of(&mut shards, &ns, "k");
    let (index, due) = (format!("cache_index:{ns}:0"), format!("cache_due:{ns}"));
    let score = |shard: &mut Connection| shard.command(&["ZSCORE", &index, "k"]).text();
    let noted = |shard: &mut Connection| shard.command(&["ZSCORE", &due, "0"]);
    assert_eq!(score(shard), "inf");
    for ttl in [100, 50, 200] {
        cache.set_for(&ns, "k", "1", ttl).await.expect(200);
        let expiry: f64 = score(shard).parse().expect("a score");
        let due: f64 = noted(shard).text().parse().expect("a score");
        assert!(due <= expiry, "a bucket must be due no later than its first expiry: {due} and {expiry}");
    }
    cache.set(&ns, "k", "1").await.expect(200);
    cache.set(&ns, "k", "2").await.expect(200);
    assert_eq!(score(shard), "inf");
    assert_eq!((sum(&mut shards, &ns, "total_keys"), sum(&mut shards, &ns, "total_bytes")), (1, 1));
}

#[tokio::test]
async fn keys_spread_over_all_three_shards() {
    let (cache, ns, mut shards) = (service_client(), namespace("stored"), shards());
    let entries: Vec<Value> =
        (0..900).map(|number| json!({"key": format!("user_{number}"), "value": number})).collect();
    cache.fill(&ns, &json!(entries)).await;
    let counts: Vec<i64> = shards.iter_mut().map(|shard| buckets(shard, &ns).iter().sum()).collect();
    assert_eq!(counts.iter().sum::<i64>(), 900);
    assert!(counts.iter().all(|count| (200..400).contains(count)), "{counts:?}");
    for (shard, count) in shards.iter_mut().zip(&counts) {
        assert_eq!(shard.keys(&format!("cache:{ns}:*")).len() as i64, *count);
        assert_eq!(shard.keys(&format!("cache_meta:{ns}:*")).len() as i64, *count);
        assert_eq!(shard.command(&["HGET", &format!("cache_stats:{ns}"), "total_keys"]).integer(), *count);
    }
    cache.flush(&ns, &[]).await.expect(200);
}

#[tokio::test]
async fn the_buckets_of_the_index_stay_small_while_the_namespace_grows_and_shrinks() {
    let (cache, ns, mut shards) = (service_client(), namespace("buckets"), shards());
    let entry = |number: usize| json!({"key": format!("user_{number}"), "value": 1, "ttl": 1000 + number});
    for first in (0..12_000).step_by(1000) {
        cache.fill(&ns, &(first..first + 1000).map(entry).collect()).await;
    }
    let mut keys = 12_000;
    for pattern in ["user_*[1-9]", "user_*[1-9]0", "user_*"] {
        for shard in &mut shards {
            let sizes = buckets(shard, &ns);
            let (count, most) = (sizes.len() as i64, sizes.iter().max().copied().unwrap_or(0));
            let on_shard: i64 = sizes.iter().sum();
            assert_eq!(shard.command(&["HGET", &format!("cache_stats:{ns}"), "total_keys"]).integer(), on_shard);
            // With more than 128 members Redis would use a skip list, which is three times as large.
            assert!(most <= 128 && on_shard <= 32 * count, "{on_shard} keys in {count} buckets, {most} in one");
            assert!(count <= on_shard / 2, "{on_shard} keys in {count} buckets");
            for name in shard.keys(&format!("cache_index:{ns}:*")) {
                assert_eq!(shard.command(&["OBJECT", "ENCODING", &name]).text(), "listpack");
            }
        }
        assert_eq!(cache.all_keys(&ns).await.len(), keys);
        let deleted = cache.flush(&ns, &[("pattern", pattern)]).await.expect(200).number("deleted_count") as usize;
        keys -= deleted;
        assert_eq!(cache.stats(&ns).await.number("total_keys") as usize, keys, "after {pattern}");
    }
    assert_eq!(keys, 0);
    nothing_is_left(&mut shards, &ns).await;
}

#[tokio::test]
async fn only_the_statistics_are_left_after_deletes_and_flushes() {
    let (cache, mut shards) = (service_client(), shards());
    let fill = async |ns: &str| {
        let entries: Vec<Value> = (0..60)
            .map(|number| match number % 3 {
                0 => {
                    json!({"key": format!("k{number}"), "value": "x".repeat(number), "ttl": 100, "tags": ["t", "u"]})
                }
                1 => json!({"key": format!("k{number}"), "value": number, "tags": ["t"]}),
                _ => json!({"key": format!("k{number}"), "value": number}),
            })
            .collect();
        cache.fill(ns, &json!(entries)).await;
        for number in (0..60).step_by(4) {
            cache.get(ns, &format!("k{number}")).await.expect(200);
        }
    };
    let ways: [&[(&str, &str)]; 3] = [&[], &[("pattern", "k*")], &[("pattern", "*")]];
    for query in ways {
        let ns = namespace("stored");
        fill(&ns).await;
        assert_eq!(cache.flush(&ns, query).await.expect(200).number("deleted_count"), 60);
        nothing_is_left(&mut shards, &ns).await;
    }
    let ns = namespace("stored");
    fill(&ns).await;
    for number in 0..60 {
        cache.delete(&ns, &format!("k{number}")).await.expect(200);
    }
    nothing_is_left(&mut shards, &ns).await;
}

/// Waits, because access counts are written later. They must not recreate the hash of a deleted entry.
async fn nothing_is_left(shards: &mut [Connection], ns: &str) {
    eventually(SOON, async || {
        let left = left_over(shards, ns);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    assert_eq!((sum(shards, ns, "total_keys"), sum(shards, ns, "total_bytes")), (0, 0));
}

#[tokio::test]
async fn late_access_counts_do_not_recreate_deleted_entries() {
    let (cache, ns, mut shards) = (service_client(), namespace("stored"), shards());
    cache.set(&ns, "witness", "1").await.expect(201);
    for round in 0..20 {
        let key = format!("k{round}");
        cache.set(&ns, &key, "1").await.expect(201);
        cache.get(&ns, &key).await.expect(200);
        cache.delete(&ns, &key).await.expect(200);
    }
    cache.get(&ns, "witness").await.expect(200);
    // Once the last read has been counted in Redis, the earlier ones have been as well.
    eventually(SOON, async || {
        let hits = sum(&mut shards, &ns, "hits");
        ensure!(hits == 21, "{hits} hits");
        Ok(())
    })
    .await;
    let mut left = left_over(&mut shards, &ns);
    left.sort();
    assert_eq!(
        left,
        ["cache:{ns}:witness", "cache_due:{ns}", "cache_index:{ns}:0", "cache_meta:{ns}:witness"]
            .map(|name| name.replace("{ns}", &ns))
    );
}

#[tokio::test]
async fn overwriting_with_another_size_keeps_the_totals_exact() {
    let (cache, ns, mut shards) = (service_client(), namespace("stored"), shards());
    for size in [10, 1_000, 1, 100_000, 2, 2] {
        cache.set(&ns, "k", &format!("\"{}\"", "x".repeat(size))).await;
        assert_eq!((sum(&mut shards, &ns, "total_keys"), sum(&mut shards, &ns, "total_bytes")), (1, size as i64 + 2));
        let shard = shard_of(&mut shards, &ns, "k");
        assert_eq!(shard.command(&["HGET", &format!("cache_meta:{ns}:k"), "size_bytes"]).integer(), size as i64 + 2);
        assert_eq!(shard.command(&["STRLEN", &format!("cache:{ns}:k")]).integer(), size as i64 + 2);
    }
}

#[tokio::test]
async fn overwriting_replaces_tags_and_ttl() {
    let (cache, ns, mut shards) = (service_client(), namespace("stored"), shards());
    cache.put(&ns, "k", r#"{"value":1,"ttl":100,"tags":["old","both"]}"#).await.expect(201);
    cache.put(&ns, "k", r#"{"value":1,"tags":["both","new"]}"#).await.expect(200);
    let shard = shard_of(&mut shards, &ns, "k");
    assert_eq!(shard.keys(&format!("cache_tag:{ns}:*")), ["both", "new"].map(|tag| format!("cache_tag:{ns}:{tag}")));
    for name in [format!("cache:{ns}:k"), format!("cache_meta:{ns}:k")] {
        assert_eq!(shard.command(&["PTTL", &name]).integer(), -1, "{name}");
    }
    assert_eq!(shard.command(&["ZSCORE", &format!("cache_index:{ns}:0"), "k"]).text(), "inf");
    cache.set(&ns, "k", "1").await.expect(200);
    assert_eq!(shard.keys(&format!("cache_tag:{ns}:*")), Vec::<String>::new());
}

#[tokio::test]
async fn expiry_keeps_the_totals_exact() {
    let (cache, ns, mut shards) = (service_client(), namespace("stored"), shards());
    let entries: Vec<Value> = (0..30)
        .map(|number| json!({"key": format!("short {number}"), "value": "xxxx", "ttl": 1, "tags": ["t"]}))
        .chain((0..3).map(|number| json!({"key": format!("ever {number}"), "value": "yy"})))
        .collect();
    cache.fill(&ns, &json!(entries)).await;
    // One entry is rewritten just when it expires or later. In either case it counts once.
    cache.set(&ns, "short 0", "1").await.expect(200);
    eventually(SOON, async || {
        let totals = (sum(&mut shards, &ns, "total_keys"), sum(&mut shards, &ns, "total_bytes"));
        ensure!(totals == (4, 13), "{totals:?}");
        Ok(())
    })
    .await;
    assert_eq!(sum(&mut shards, &ns, "expirations"), 29);
    let stats = cache.stats(&ns).await.expect(200);
    assert_eq!(
        (stats.number("total_keys"), stats.number("memory_used_bytes"), stats.number("expirations")),
        (4, 13, 29)
    );
    eventually(SOON, async || {
        let tags: Vec<String> = left_over(&mut shards, &ns).into_iter().filter(|key| key.contains("tag")).collect();
        ensure!(tags.is_empty(), "{tags:?}");
        Ok(())
    })
    .await;
    cache.flush(&ns, &[]).await.expect(200);
    nothing_is_left(&mut shards, &ns).await;
}
