//! `?metadata=full`: the full metadata of an entry, and how its reads are counted.

use anyhow::ensure;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::line::{self, BATCH, Line};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

on_both_stores! {
    a_full_answer_has_all_metadata_of_an_entry,
    gets_heads_and_mgets_count_and_misses_do_not,
    overwriting_keeps_the_count_and_moves_the_date,
    a_recreated_entry_starts_with_a_count_of_zero,
    regression_a_read_of_an_entry_that_is_due_counts_once,
    other_values_of_the_parameter_are_refused,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    value: serde_json::Value,
    metadata: Metadata,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    ttl_remaining: Option<u64>,
    created_at: String,
    expires_at: Option<String>,
    last_accessed: String,
    access_count: u64,
    size_bytes: u64,
    version: u64,
    tags: Vec<String>,
}

async fn ask(cache: &Client, ns: &str, key: &str) -> Answer {
    cache.send(Method::GET, &format!("{}?metadata=full", key_path(ns, key)), &[], None).await
}

async fn metadata(cache: &Client, ns: &str, key: &str) -> Metadata {
    ask(cache, ns, key).await.expect(200).parsed::<Full>().metadata
}

/// Reads the metadata until `expected` reads are counted. Reading the metadata is a read as well, so every attempt
/// that comes too early raises the expected number by one.
async fn counted(cache: &Client, ns: &str, key: &str, expected: u64) -> Metadata {
    let mut asked = 0;
    eventually(SOON, async || {
        let metadata = metadata(cache, ns, key).await;
        let wanted = expected + asked;
        asked += 1;
        ensure!(metadata.access_count <= wanted, "more than {wanted} reads: {metadata:?}");
        ensure!(metadata.access_count == wanted, "not {wanted} reads: {metadata:?}");
        Ok(metadata)
    })
    .await
}

/// Whether a date is RFC 3339 in UTC. Such dates compare as text if they have equally many digits.
fn is_utc(date: &str) -> bool {
    date.len() >= 20 && date.ends_with('Z') && date.as_bytes()[10] == b'T'
}

async fn a_full_answer_has_all_metadata_of_an_entry(service: &Service) {
    let (cache, ns) = (service.client(), namespace("metadata"));
    let put = cache.put(&ns, "k", r#"{"value":{"a": 0.10},"ttl":3600,"tags":["b","a"]}"#).await.expect(201);
    let etag = put.header("etag").expect("an ETag").to_owned();
    let answer = ask(&cache, &ns, "k").await.expect(200);
    assert_eq!(answer.header("x-cache-hit"), Some("true"));
    assert_eq!(answer.header("etag"), Some(etag.as_str()));
    assert!(!answer.is_l1_hit(), "{:?}", answer.headers);
    assert!(answer.text().contains(r#"{"a": 0.10}"#), "the bytes that went in: {}", answer.text());
    let full: Full = answer.parsed();
    assert_eq!(full.value, json!({"a": 0.10}));
    let of = full.metadata;
    assert!(of.ttl_remaining.is_some_and(|left| (3_590..=3_600).contains(&left)), "{of:?}");
    assert_eq!((of.access_count, of.size_bytes, format!("\"{}\"", of.version)), (0, 11, etag));
    assert_eq!(of.tags.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "{of:?}");
    assert!(of.tags.contains(&"a".to_owned()) && of.tags.contains(&"b".to_owned()), "{of:?}");
    assert_eq!(of.last_accessed, of.created_at, "no read so far");
    let expires_at = of.expires_at.clone().expect("it expires");
    assert!(is_utc(&of.created_at) && is_utc(&expires_at) && expires_at > of.created_at, "{of:?}");

    cache.set(&ns, "ever", "null").await.expect(201);
    let of = metadata(&cache, &ns, "ever").await;
    assert_eq!((of.ttl_remaining, of.expires_at, of.size_bytes, of.tags.len()), (None, None, 4, 0));
    ask(&cache, &ns, "absent").await.expect_error(404, "key_not_found");
    let path = format!("{}?metadata=full", key_path(&ns, "k"));
    let head = cache.send(Method::HEAD, &path, &[], None).await.expect(200);
    assert!(head.body.is_empty());
    // The counts change, but the ETag does not.
    let etag = head.header("etag").expect("an ETag");
    cache.send(Method::GET, &path, &[("if-none-match", etag)], None).await.expect(200);
    let short = cache.get(&ns, "k").await.expect(200);
    assert_eq!(short.metadata().created_at, metadata(&cache, &ns, "k").await.created_at);
}

async fn gets_heads_and_mgets_count_and_misses_do_not(service: &Service) {
    let (cache, ns) = (service.client(), namespace("metadata"));
    cache.get(&ns, "k").await.expect(404);
    cache.set(&ns, "k", "1").await.expect(201);
    cache.set(&ns, "other", "1").await.expect(201);
    for _ in 0..3 {
        cache.get(&ns, "k").await.expect(200);
    }
    for _ in 0..2 {
        cache.head(&ns, "k").await.expect(200);
    }
    cache.get_with(&ns, "k", &[("cache-control", "no-cache")]).await.expect(200);
    cache.mget(&ns, &["k", "absent", "other"]).await.expect(200);
    // An instance always includes its own reads; a read of the metadata counts from the next read on.
    let first = metadata(&cache, &ns, "k").await;
    assert_eq!(first.access_count, 7, "{first:?}");
    assert!(first.last_accessed >= first.created_at, "{first:?}");
    let second = metadata(&cache, &ns, "k").await;
    assert_eq!(second.access_count, 8, "{second:?}");
    assert!(second.last_accessed >= first.last_accessed, "{first:?}, {second:?}");
    assert_eq!(metadata(&cache, &ns, "other").await.access_count, 1);
    // Reads of the metadata are reads, and count as hits.
    eventually(SOON, async || {
        let stats = cache.stats(&ns).await.expect(200);
        ensure!((stats.number("hits"), stats.number("misses")) == (11, 2), "{}", stats.text());
        Ok(())
    })
    .await;
}

/// The bug: the embedded store counted a read with `Prefer: lease` on the fast path, which refused it, and again on the
/// router.
async fn regression_a_read_of_an_entry_that_is_due_counts_once(service: &Service) {
    let (cache, ns) = (service.client(), namespace("metadata"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":600,"stale_while_revalidate":60}"#).await.expect(201);
    let path = format!("{}?mode=stale", key_path(&ns, "k"));
    cache.send(Method::DELETE, &path, &[], None).await.expect(200);
    cache.get_with(&ns, "k", &[("prefer", "lease=10")]).await.expect(200);
    counted(&cache, &ns, "k", 1).await;
}

async fn overwriting_keeps_the_count_and_moves_the_date(service: &Service) {
    let (cache, ns) = (service.client(), namespace("metadata"));
    cache.put(&ns, "k", r#"{"value":"first","tags":["t"]}"#).await.expect(201);
    cache.get(&ns, "k").await.expect(200);
    let before = counted(&cache, &ns, "k", 1).await;
    // Dates are less precise than the version, which counts microseconds.
    eventually(SOON, async || {
        cache.set(&ns, "k", "\"the second\"").await.expect(200);
        let after = metadata(&cache, &ns, "k").await;
        ensure!(after.created_at > before.created_at, "{before:?}, {after:?}");
        Ok(())
    })
    .await;
    let after = metadata(&cache, &ns, "k").await;
    assert!(after.version > before.version && after.access_count >= before.access_count + 2, "{before:?}, {after:?}");
    assert_eq!((after.size_bytes, after.tags.len()), (12, 0));
}

async fn a_recreated_entry_starts_with_a_count_of_zero(service: &Service) {
    let (cache, ns) = (service.client(), namespace("metadata"));
    let read_twice = async |key: &str| {
        cache.get(&ns, key).await.expect(200);
        cache.get(&ns, key).await.expect(200);
    };
    let starts_again = async |key: &str| {
        cache.set(&ns, key, "1").await.expect(201);
        let of = metadata(&cache, &ns, key).await;
        assert_eq!((of.access_count, &of.last_accessed), (0, &of.created_at), "{key}: {of:?}");
    };
    for key in ["deleted", "flushed"] {
        cache.set(&ns, key, "1").await.expect(201);
        read_twice(key).await;
    }
    cache.set_for(&ns, "expired", "1", 1).await.expect(201);
    read_twice("expired").await;
    // Reads of the old entry that wait to be written must not count for the new entry.
    cache.delete(&ns, "deleted").await.expect(200);
    starts_again("deleted").await;
    cache.flush(&ns, &[("pattern", "flushed")]).await.expect(200);
    starts_again("flushed").await;
    eventually(SOON, async || {
        let status = cache.head(&ns, "expired").await.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await;
    starts_again("expired").await;
    // They must not count after they have been written either.
    eventually(SOON, async || {
        let hits = cache.stats(&ns).await.expect(200).number("hits");
        ensure!(hits >= 9, "{hits} hits");
        Ok(())
    })
    .await;
    for key in ["deleted", "flushed", "expired"] {
        assert_eq!(metadata(&cache, &ns, key).await.access_count, 1, "{key}");
    }
}

async fn other_values_of_the_parameter_are_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("metadata"));
    cache.set(&ns, "k", "1").await.expect(201);
    for query in
        ["metadata=", "metadata=FULL", "metadata=1", "metadata=full&metadata=full", "metadata=full&x=1", "x=1"]
    {
        let path = format!("{}?{query}", key_path(&ns, "k"));
        cache.send(Method::GET, &path, &[], None).await.expect_error(400, "invalid_query");
        cache.send(Method::HEAD, &path, &[], None).await.expect(400);
    }
    for method in [Method::PUT, Method::DELETE] {
        let path = format!("{}?metadata=full", key_path(&ns, "k"));
        cache.send(method, &path, &[], Some(br#"{"value":1}"#.to_vec())).await.expect_error(400, "invalid_query");
    }
    assert_eq!(metadata(&cache, &ns, "k").await.access_count, 0);
}

#[tokio::test]
async fn reads_from_l1_and_through_other_instances_count_as_well() {
    let settings = Settings::shards();
    let (one, other) = (Service::start(settings.clone()), Service::start(settings));
    let (first, second, ns) = (one.client(), other.client(), namespace("metadata"));
    first.set(&ns, "k", "1").await.expect(201);
    let mut reads = 0;
    let mut from_l1 = 0;
    for client in [&first, &second] {
        eventually(SOON, async || {
            let answer = client.get(&ns, "k").await.expect(200);
            reads += 1;
            ensure!(answer.is_l1_hit(), "{:?}", answer.headers);
            Ok(())
        })
        .await;
        for _ in 0..50 {
            from_l1 += u64::from(client.get(&ns, "k").await.expect(200).is_l1_hit());
            reads += 1;
        }
        client.mget(&ns, &["k"]).await.expect(200);
        client.head(&ns, "k").await.expect(200);
        reads += 2;
    }
    assert!(from_l1 >= 90, "{from_l1} of 100 came from L1");
    counted(&first, &ns, "k", reads).await;
    // The count on the shard follows within the interval of the batches.
    let name = format!("cache_meta:{ns}:k");
    let mut shards: Vec<_> = crate::support::redis::shared().iter().map(Redis::connect).collect();
    let owner = shards.iter_mut().position(|shard| shard.command(&["EXISTS", &name]).integer() == 1);
    let shard = &mut shards[owner.expect("one of them has it")];
    let total = metadata(&second, &ns, "k").await.access_count + 1;
    eventually(SOON, async || {
        let count = shard.command(&["HGET", &name, "access_count"]).integer().unsigned_abs();
        ensure!(count >= total, "{count} of {total}");
        let last: u64 = shard.command(&["HGET", &name, "last_accessed"]).integer().unsigned_abs();
        let created: u64 = shard.command(&["HGET", &name, "created_at"]).integer().unsigned_abs();
        ensure!(last >= created, "last read at {last}, written at {created}");
        Ok(())
    })
    .await;
}

/// The memory of a process, in bytes.
fn resident(id: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib * 1_024
}

#[tokio::test]
async fn reads_of_very_many_keys_take_bounded_memory() {
    const KEYS: usize = 200_000;
    const MOST: u64 = 64 << 20;
    let servers = Redis::three();
    // The counts are not written to the shards for a long time, unless there are too many.
    let settings = Settings::on(&servers).set("stats_flush_ms", 600_000).set("l1_max_mb", 1);
    let service = Service::start(settings);
    let ns = namespace("metadata");
    let name = |number: usize| format!("key number {number:07} of a namespace with very many of them");
    line::fill(&service, &ns, 0..KEYS, |number| format!(r#"{{"key":"{}","value":1}}"#, name(number)));
    let mut line = Line::open(service.address());
    let mut round = |numbers: std::ops::Range<usize>| -> u64 {
        let parts = numbers.step_by(BATCH);
        parts.map(|start| line.mget(&ns, (start..start + BATCH).map(name))).sum()
    };
    // Lets buffers and pools grow to their usual size.
    assert_eq!(round(0..10_000), 10_000);
    let before = resident(service.id());
    assert_eq!(round(0..KEYS), KEYS as u64);
    let hits = resident(service.id());
    assert_eq!(round(KEYS..2 * KEYS), 0);
    let misses = resident(service.id());
    eprintln!(
        "reads of {KEYS} keys: {} KiB more; then of {KEYS} absent keys: {} KiB more",
        hits.saturating_sub(before) >> 10,
        misses.saturating_sub(hits) >> 10
    );
    assert!(misses.saturating_sub(before) <= MOST, "{before} bytes before, {misses} after");
    let stats = service.client().stats(&ns).await.expect(200);
    assert_eq!(stats.number("total_keys"), KEYS as u64);
}
