//! `PATCH` of an entry: a new TTL, new tags, and nothing else. `conditions` tests its preconditions, `exact_numbers`
//! compares the stats after very many of them with a model, `foreign_types` has names that hold another Redis type.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::acl;
use crate::support::answer::Answer;
use crate::support::both_stores::on_every_server;
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::redis::{self, Connection, Redis};
use crate::support::service::{Service, Settings, Store};
use crate::support::walk::agreed;

on_every_server! {
    the_ttl_becomes_shorter_longer_endless_and_finite_again,
    new_tags_replace_the_old_ones_and_keep_the_time_that_is_left,
    the_value_its_etag_and_its_reads_stay,
    an_entry_lives_exactly_as_long_as_the_last_change_says,
    what_does_not_exist_is_not_found_and_creates_nothing,
    a_wrong_body_changes_nothing,
    a_change_happens_only_if_its_preconditions_are_met,
    a_change_ends_no_lease,
    a_grace_follows_the_new_ttl_and_a_mark_is_never_lifted,
    tags_count_towards_the_quota,
    any_key_can_be_changed,
}

/// `max_staleness_ms` at its default.
const MAX_STALENESS: Duration = Duration::from_millis(1_000);

/// All metadata of an entry, read from its shard.
async fn metadata(cache: &Client, ns: &str, key: &str) -> Value {
    let answer = cache.fetch(&format!("{}?metadata=full", key_path(ns, key))).await.expect(200);
    answer.json()["metadata"].clone()
}

/// The seconds that an entry has left.
async fn ttl(cache: &Client, ns: &str, key: &str) -> Option<u64> {
    metadata(cache, ns, key).await["ttl_remaining"].as_u64()
}

fn changed(ttl: Option<u64>) -> Value {
    json!({"success": true, "ttl": ttl})
}

async fn tagged(cache: &Client, ns: &str, tag: &str) -> Value {
    cache.list(ns, &[("tag", tag)]).await.expect(200).json()["keys"].clone()
}

async fn the_ttl_becomes_shorter_longer_endless_and_finite_again(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch"));
    cache.set_for(&ns, "k", "1", 600).await.expect(201);
    for seconds in [Some(60), Some(6_000), None, Some(3_153_600_000), None, Some(30)] {
        cache.patch(&ns, "k", &json!({"ttl": seconds})).await.expect_json(200, &changed(seconds));
        let left = ttl(&cache, &ns, "k").await;
        match (seconds, left) {
            (Some(seconds), Some(left)) => assert!((seconds - 5..=seconds).contains(&left), "{left} of {seconds}"),
            _ => assert_eq!(seconds, left),
        }
        let read = cache.get_with(&ns, "k", &[("cache-control", "no-cache")]).await.expect(200);
        assert_eq!(read.header("x-cache-ttl").is_some(), seconds.is_some());
    }
    // Numbers as languages without whole numbers write them.
    let float = br#"{"ttl": 60.0}"#.to_vec();
    cache
        .send(reqwest::Method::PATCH, &key_path(&ns, "k"), &[], Some(float))
        .await
        .expect_json(200, &changed(Some(60)));
}

async fn new_tags_replace_the_old_ones_and_keep_the_time_that_is_left(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-tags"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":600,"tags":["red","blue"]}"#).await.expect(201);
    cache.put(&ns, "other", r#"{"value":1,"tags":["red"]}"#).await.expect(201);
    let answer = cache.patch(&ns, "k", &json!({"tags": ["blue", "green"]})).await.expect(200);
    assert!((595..=600).contains(&answer.number("ttl")), "{}", answer.text());
    for (tag, keys) in [("red", json!(["other"])), ("blue", json!(["k"])), ("green", json!(["k"]))] {
        assert_eq!(tagged(&cache, &ns, tag).await, keys, "{tag}");
    }
    assert_eq!(metadata(&cache, &ns, "k").await["tags"], json!(["blue", "green"]));
    // A change of the TTL keeps the tags.
    cache.patch(&ns, "k", &json!({"ttl": 60})).await.expect(200);
    assert_eq!(tagged(&cache, &ns, "green").await, json!(["k"]));
    cache.patch(&ns, "k", &json!({"tags": ["green"], "ttl": 30})).await.expect_json(200, &changed(Some(30)));
    assert_eq!(tagged(&cache, &ns, "green").await, json!(["k"]));
    cache.patch(&ns, "k", &json!({"tags": []})).await.expect(200);
    assert_eq!(metadata(&cache, &ns, "k").await["tags"], json!([]));
    assert_eq!(tagged(&cache, &ns, "green").await, json!([]));
    // The most tags, and a flush by one of them.
    let many: Vec<String> = (0..32).map(|number| format!("{number:02}-{}", "t".repeat(125))).collect();
    cache.patch(&ns, "k", &json!({"tags": many})).await.expect(200);
    assert_eq!(tagged(&cache, &ns, &many[31]).await, json!(["k"]));
    assert_eq!(cache.flush(&ns, &[("tag", &many[7])]).await.expect(200).number("deleted_count"), 1);
    cache.get(&ns, "k").await.expect(404);
    assert_eq!(cache.stats(&ns).await.number("total_keys"), 1);
}

async fn the_value_its_etag_and_its_reads_stay(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-value"));
    let value = "{\"a\": 1.10,\n \"b\": \"\\u00e9\"}";
    let etag = cache.set(&ns, "k", value).await.expect(201).header("etag").expect("an ETag").to_owned();
    for _ in 0..3 {
        cache.get(&ns, "k").await.expect(200);
    }
    let before = metadata(&cache, &ns, "k").await;
    let (stats, answer) = (cache.stats(&ns).await, cache.patch(&ns, "k", &json!({"ttl": 60, "tags": ["a"]})).await);
    assert_eq!(answer.expect(200).header("etag"), Some(&*etag));
    let read = cache.get(&ns, "k").await.expect(200);
    assert_eq!((read.value(), read.header("etag")), (value, Some(&*etag)));
    cache.get_with(&ns, "k", &[("if-none-match", &etag)]).await.expect(304);
    let after = metadata(&cache, &ns, "k").await;
    for field in ["created_at", "size_bytes", "version"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // The entry exists as before, so its reads are counted on.
    let reads = |metadata: &Value| metadata["access_count"].as_u64();
    eventually(SOON, async || {
        let metadata = metadata(&cache, &ns, "k").await;
        ensure!(reads(&metadata) > reads(&before), "{metadata}, before {before}");
        Ok(())
    })
    .await;
    let now = cache.stats(&ns).await;
    for field in ["total_keys", "memory_used_bytes", "evictions", "expirations"] {
        assert_eq!(now.number(field), stats.number(field), "{field}");
    }
    // One tag of one byte.
    assert_eq!(now.number("memory_charged_bytes"), stats.number("memory_charged_bytes") + 1);
}

async fn an_entry_lives_exactly_as_long_as_the_last_change_says(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-expiry"));
    let (value, long) = ("1", 600);
    for key in ["shortened", "twice"] {
        cache.set_for(&ns, key, value, long).await.expect(201);
    }
    cache.set(&ns, "was endless", value).await.expect(201);
    for key in ["lengthened", "made endless"] {
        cache.set_for(&ns, key, value, 1).await.expect(201);
    }
    cache.patch(&ns, "lengthened", &json!({"ttl": long})).await.expect(200);
    cache.patch(&ns, "made endless", &json!({"ttl": null})).await.expect(200);
    for key in ["shortened", "was endless", "twice"] {
        cache.patch(&ns, key, &json!({"ttl": 1, "tags": ["t"]})).await.expect(200);
    }
    cache.patch(&ns, "twice", &json!({"ttl": 2})).await.expect(200);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for (key, status) in [("shortened", 404), ("was endless", 404), ("twice", 200)] {
        cache.get(&ns, key).await.expect(status);
    }
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    for (key, status) in [("twice", 404), ("lengthened", 200), ("made endless", 200)] {
        cache.get(&ns, key).await.expect(status);
    }
    cache.patch(&ns, "shortened", &json!({"ttl": null})).await.expect_error(404, "key_not_found");
    eventually(SOON, async || {
        let stats = cache.stats(&ns).await.expect(200);
        let numbers = ["total_keys", "memory_used_bytes", "expirations", "evictions"].map(|name| stats.number(name));
        ensure!(numbers == [2, 2, 3, 0], "{numbers:?}");
        Ok(())
    })
    .await;
    assert_eq!(tagged(&cache, &ns, "t").await, json!([]));
    agreed_on_shared_shards(service, &ns).await;
}

/// Compares the stats with a walk if the service uses the shared servers.
async fn agreed_on_shared_shards(service: &Service, ns: &str) {
    if service.store() == Store::Embedded {
        return;
    }
    let servers = redis::shared();
    let has_it = |server: &Redis| !server.connect().keys(&format!("cache_stats:{ns}")).is_empty();
    if servers.iter().any(has_it) {
        let cache = service.client();
        eventually(SOON, async || agreed(&[&cache], servers, ns).await.map(drop)).await;
    }
}

async fn what_does_not_exist_is_not_found_and_creates_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-absent"));
    for body in [json!({"ttl": 60}), json!({"ttl": null, "tags": ["a"]})] {
        cache.patch(&ns, "k", &body).await.expect_error(404, "key_not_found");
    }
    cache.get(&ns, "k").await.expect(404);
    let policies = cache.policies().await.expect(200);
    assert!(!policies.text().contains(&format!("\"{ns}\"")), "a PATCH creates no namespace");
    cache.set(&ns, "k", "1").await.expect(201);
    cache.delete(&ns, "k").await.expect(200);
    cache.patch(&ns, "k", &json!({"ttl": 60})).await.expect_error(404, "key_not_found");
    assert_eq!(cache.stats(&ns).await.number("total_keys"), 0);
    // The key of the statistics is reserved.
    cache.patch(&ns, "stats", &json!({"ttl": 60})).await.expect_error(400, "reserved_key");
}

async fn a_wrong_body_changes_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-wrong"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":600,"tags":["a"]}"#).await.expect(201);
    let before = metadata(&cache, &ns, "k").await;
    let long: Vec<String> = (0..33).map(|number| number.to_string()).collect();
    for (body, code, named) in [
        (json!({}), "invalid_body", "changes nothing"),
        (json!({"value": 2}), "invalid_body", "value"),
        (json!({"ttl": 60, "tll": 1}), "invalid_body", "tll"),
        (json!({"ttl": 0}), "invalid_ttl", "ttl"),
        (json!({"ttl": -1, "tags": []}), "invalid_ttl", "ttl"),
        (json!({"ttl": 1.5}), "invalid_ttl", "ttl"),
        (json!({"ttl": 3_153_600_001_u64}), "invalid_ttl", "ttl"),
        (json!({"ttl": "60"}), "invalid_ttl", "ttl"),
        (json!({"tags": "a"}), "invalid_body", "tags"),
        (json!({"tags": null}), "invalid_body", "tags"),
        (json!({"ttl": 60, "tags": [""]}), "invalid_tag", ""),
        (json!({"tags": ["a\nb"]}), "invalid_tag", ""),
        (json!({"tags": long}), "invalid_tag", "32"),
        (json!([]), "invalid_body", "object"),
    ] {
        let detail = cache.patch(&ns, "k", &body).await.expect_error(400, code);
        assert!(detail.contains(named), "{body}: {detail}");
    }
    let send = async |path: &str, body: &str| {
        cache.send(reqwest::Method::PATCH, path, &[], Some(body.as_bytes().to_vec())).await
    };
    send(&key_path(&ns, "k"), "").await.expect_error(400, "invalid_body");
    send(&key_path(&ns, "k"), "{\"ttl\":1").await.expect_error(400, "invalid_body");
    send(&format!("{}?ttl=5", key_path(&ns, "k")), "{\"ttl\":1}").await.expect_error(400, "invalid_query");
    send("/api/v1/cache/a%20b/k", "{\"ttl\":1}").await.expect_error(400, "invalid_namespace");
    send(&key_path(&ns, "k"), &format!("{{\"tags\":[\"{}\"]}}", "x".repeat(70_000))).await.expect(413);
    let headers = [("sec-fetch-site", "cross-site")];
    cache.patch_with(&ns, "k", &headers, &json!({"ttl": 1})).await.expect_error(403, "cross_site");
    let after = metadata(&cache, &ns, "k").await;
    for field in ["version", "tags", "created_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(after["ttl_remaining"].as_u64() > Some(500), "{after}");
    // No call checks the type of its body.
    for kind in ["text/plain", "application/merge-patch+json"] {
        cache.patch_with(&ns, "k", &[("content-type", kind)], &json!({"ttl": 60})).await.expect(200);
    }
}

async fn a_change_happens_only_if_its_preconditions_are_met(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-conditions"));
    let change =
        async |headers: &[(&str, &str)], ttl: u64| cache.patch_with(&ns, "k", headers, &json!({"ttl": ttl})).await;
    change(&[("if-match", "*")], 60).await.expect_error(412, "precondition_failed");
    change(&[("if-none-match", "*")], 60).await.expect_error(404, "key_not_found");
    let stored = cache.set_for(&ns, "k", "1", 600).await.expect(201);
    let etag = stored.header("etag").expect("an ETag").to_owned();
    for (header, value) in [("if-match", "\"1\""), ("if-none-match", "*"), ("if-none-match", &*etag)] {
        let refused = change(&[(header, value)], 60).await;
        assert_eq!(refused.header("etag"), Some(&*etag));
        refused.expect_error(412, "precondition_failed");
    }
    assert!(ttl(&cache, &ns, "k").await > Some(500));
    change(&[("if-match", &etag), ("if-none-match", "\"1\"")], 60).await.expect_json(200, &changed(Some(60)));
    // The ETag names the value, so a change of the TTL in between does not matter.
    change(&[("if-match", &etag)], 30).await.expect_json(200, &changed(Some(30)));
    change(&[("if-match", "17")], 60).await.expect_error(400, "invalid_precondition");
    let since = [("if-unmodified-since", "Sat, 29 Oct 1994 19:43:31 GMT")];
    change(&since, 60).await.expect_error(501, "not_implemented");
    cache.set(&ns, "k", "2").await.expect(200);
    change(&[("if-match", &etag)], 60).await.expect_error(412, "precondition_failed");
}

async fn a_change_ends_no_lease(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-lease"));
    let asked = cache.get_with(&ns, "k", &[("prefer", "lease=30")]).await.expect(404);
    // Without the right to INFO, no lease is given.
    let Some(lease) = asked.header("cache-lease") else { return };
    let token = lease.split('"').nth(1).expect("a token in quotes");
    cache.patch(&ns, "k", &json!({"ttl": 60})).await.expect(404);
    let body = br#"{"value":1}"#.to_vec();
    let filled = cache.send(reqwest::Method::PUT, &key_path(&ns, "k"), &[("cache-lease", token)], Some(body)).await;
    filled.expect(201);
}

async fn a_grace_follows_the_new_ttl_and_a_mark_is_never_lifted(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-stale"));
    let entry = |ttl: u64| json!({"value": 1, "ttl": ttl, "stale_while_revalidate": 600}).to_string();
    let left =
        async |key: &str| cache.get(&ns, key).await.expect(200).header("x-cache-ttl").expect("it expires").to_owned();
    let is_fresh = async |key: &str| cache.get_with(&ns, key, &[("cache-control", "no-cache")]).await.status == 200;
    cache.put(&ns, "grace", entry(1)).await.expect(201);
    for key in ["marked", "goes"] {
        cache.put(&ns, key, entry(600)).await.expect(201);
        let path = format!("{}?mode=stale", key_path(&ns, key));
        cache.send(reqwest::Method::DELETE, &path, &[], None).await.expect(200);
    }
    for body in [json!({"ttl": 6_000}), json!({"ttl": null}), json!({"tags": ["t"]})] {
        cache.patch(&ns, "marked", &body).await.expect_json(200, &changed(Some(0)));
        assert_eq!((left("marked").await.as_str(), is_fresh("marked").await), ("0", false), "{body}");
    }
    assert_eq!(tagged(&cache, &ns, "t").await, json!(["marked"]));
    cache.patch(&ns, "goes", &json!({"ttl": 1})).await.expect_json(200, &changed(Some(0)));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    cache.get(&ns, "goes").await.expect_error(404, "key_not_found");
    // Past its TTL, and answered all the same.
    assert_eq!((left("grace").await.as_str(), is_fresh("grace").await), ("0", false));
    cache.patch(&ns, "grace", &json!({"tags": ["t"]})).await.expect_json(200, &changed(Some(0)));
    cache.patch(&ns, "grace", &json!({"ttl": 1})).await.expect_json(200, &changed(Some(1)));
    assert!(is_fresh("grace").await);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(
        (left("grace").await.as_str(), is_fresh("grace").await),
        ("0", false),
        "its grace is as long as before"
    );
    // A known absence is no entry.
    cache.put(&ns, "absent", r#"{"absent": true}"#).await.expect(201);
    cache.patch(&ns, "absent", &json!({"ttl": 60})).await.expect_error(404, "key_not_found");
    cache.get(&ns, "absent").await.expect_error(404, "known_absent");
    eventually(SOON, async || {
        let stats = cache.stats(&ns).await.expect(200);
        let numbers = ["total_keys", "expirations"].map(|name| stats.number(name));
        ensure!(numbers == [3, 1], "{numbers:?}");
        Ok(())
    })
    .await;
    agreed_on_shared_shards(service, &ns).await;
}

async fn tags_count_towards_the_quota(service: &Service) {
    let cache = service.client();
    let many = |letter: &str| -> Vec<String> { (0..32).map(|n| format!("{n:02}{}", letter.repeat(100))).collect() };
    for policy in ["NONE", "LRU", "TTL"] {
        let ns = namespace("patch-quota");
        let body = json!({"max_size_mb": 1, "eviction_policy": policy, "default_ttl": 600});
        cache.put_policy(&ns, body.to_string()).await.expect(201);
        let value = format!("\"{}\"", "x".repeat(2_000));
        for number in 0..420 {
            let stored = cache.set(&ns, &format!("k{number}"), &value).await;
            assert!(stored.status == 201 || policy == "NONE" && stored.status == 507, "{}", stored.text());
        }
        let (mut full, mut done) = (0, 0);
        for number in 100..420 {
            let key = format!("k{number}");
            let answer = cache.patch(&ns, &key, &json!({"tags": many("a")})).await;
            match answer.status {
                200 => done += 1,
                507 if policy == "NONE" => {
                    answer.expect_error(507, "storage_full");
                    full += 1;
                    // The entry is as it was, and a change that needs no room is done.
                    if cache.get(&ns, &key).await.status == 200 {
                        assert_eq!(metadata(&cache, &ns, &key).await["tags"], json!([]));
                        cache.patch(&ns, &key, &json!({"ttl": 500, "tags": []})).await.expect(200);
                    }
                }
                _ => drop(answer.expect_error(404, "key_not_found")),
            }
        }
        let stats = cache.stats(&ns).await.expect(200);
        let charged = stats.number("memory_charged_bytes");
        assert!(charged <= 1 << 20, "{policy}: {charged} bytes are charged");
        assert!(done > 0 && (full > 0) == (policy == "NONE"), "{policy}: {done} done, {full} full");
        assert_eq!(stats.number("evictions") > 0, policy != "NONE", "{policy}");
        let listed = cache.all_keys(&ns).await.len() as u64;
        assert_eq!(listed, cache.stats(&ns).await.number("total_keys"), "{policy}");
        agreed_on_shared_shards(service, &ns).await;
    }
}

async fn any_key_can_be_changed(service: &Service) {
    let (cache, ns) = (service.client(), namespace("patch-keys"));
    for key in ["mget", "mset", "mdelete", "a/b", "ü x", "%2F", "lease", "/*[?"] {
        cache.set(&ns, key, "1").await.expect(201);
        cache.patch(&ns, key, &json!({"ttl": 60})).await.expect_json(200, &changed(Some(60)));
    }
}

/// Two instances on one shard, and a connection to it.
fn two() -> (Redis, Connection, Service, Service) {
    let server = Redis::start();
    let settings = Settings::on(std::slice::from_ref(&server)).set("namespace_refresh_ms", 200);
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let connection = server.connect();
    (server, connection, a, b)
}

/// Reads until the instance answers from L1.
async fn from_memory(cache: &Client, ns: &str, key: &str) -> Answer {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.status == 200 && answer.is_l1_hit(), "{} {:?}", answer.status, answer.headers);
        Ok(answer)
    })
    .await
}

#[tokio::test]
async fn no_instance_serves_a_copy_past_a_shortened_ttl() {
    let (_server, _, a, b) = two();
    let (one, other, ns) = (a.client(), b.client(), namespace("patch"));
    for long in [Some(600), None] {
        one.put(&ns, "k", json!({"value": 1, "ttl": long.unwrap_or(600)}).to_string()).await;
        one.patch(&ns, "k", &json!({"ttl": long})).await.expect(200);
        from_memory(&one, &ns, "k").await;
        from_memory(&other, &ns, "k").await;
        one.patch(&ns, "k", &json!({"ttl": 1})).await.expect(200);
        let acknowledged = Instant::now();
        let end = acknowledged + MAX_STALENESS * 2;
        while Instant::now() < end {
            for cache in [&one, &other] {
                let asked = Instant::now();
                let answer = cache.get(&ns, "k").await;
                let is_over = asked > acknowledged + MAX_STALENESS;
                assert!(answer.status == 404 || !is_over, "{:?} later: {:?}", asked - acknowledged, answer.headers);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn every_instance_learns_a_lengthened_ttl() {
    let (_server, _, a, b) = two();
    let (one, other, ns) = (a.client(), b.client(), namespace("patch"));
    one.set_for(&ns, "k", "1", 30).await.expect(201);
    for cache in [&one, &other] {
        from_memory(cache, &ns, "k").await;
    }
    for (seconds, least) in [(Some(600), Some(500)), (None, None), (Some(6_000), Some(5_000))] {
        one.patch(&ns, "k", &json!({"ttl": seconds})).await.expect(200);
        for cache in [&one, &other] {
            // As soon as the message has arrived, without a fault in far less than the bound.
            eventually(MAX_STALENESS, async || {
                let answer = cache.get(&ns, "k").await.expect(200);
                let left = answer.header("x-cache-ttl").map(|text| text.parse::<u64>().expect("seconds"));
                ensure!(left >= least && left.is_some() == least.is_some(), "{left:?} s are left");
                Ok(())
            })
            .await;
            let kept = from_memory(cache, &ns, "k").await;
            assert_eq!(kept.header("x-cache-ttl").is_some(), seconds.is_some(), "L1 has the new TTL");
        }
    }
}

/// The names of one part of the bookkeeping.
fn books_of(connection: &mut Connection, ns: &str, part: &str) -> Vec<String> {
    match part {
        "index" => connection.scan(&format!("cache_index:{ns}:*")),
        "tags" => vec![format!("cache_tag:{ns}:old"), format!("cache_tags:{ns}")],
        _ => vec![format!("{part}:{ns}")],
    }
}

#[tokio::test]
async fn a_change_amid_lost_bookkeeping_is_kept_and_counted() {
    let (server, mut connection, a, b) = two();
    let (one, other) = (a.client(), b.client());
    for part in ["cache_stats", "index", "cache_due", "tags"] {
        let ns = namespace("patch-lost");
        let entry = |number| json!({"key": format!("k{number}"), "value": number, "ttl": 600, "tags": ["old"]});
        one.fill(&ns, &(0..100).map(entry).collect()).await;
        let names = books_of(&mut connection, &ns, part);
        connection.pipeline(names.iter().map(|name| vec!["DEL", name]));
        one.patch(&ns, "k1", &json!({"ttl": null, "tags": ["new"]})).await.expect_json(200, &changed(None));
        one.patch(&ns, "k2", &json!({"ttl": 6_000})).await.expect_json(200, &changed(Some(6_000)));
        one.patch(&ns, "absent", &json!({"ttl": 6_000})).await.expect(404);
        // Other calls notice the loss, and the repair finds all entries again.
        one.flush(&ns, &[("tag", "nothing")]).await.expect(200);
        eventually(LATER, async || {
            let walk = agreed(&[&one, &other], std::slice::from_ref(&server), &ns).await?;
            ensure!(walk.sizes.len() == 100, "{part}: {} entries", walk.sizes.len());
            Ok(())
        })
        .await;
        assert_eq!(tagged(&other, &ns, "new").await, json!(["k1"]), "{part}");
        assert_eq!(ttl(&other, &ns, "k1").await, None, "{part}");
        assert!(ttl(&other, &ns, "k2").await > Some(5_000), "{part}");
        assert_eq!(one.flush(&ns, &[("tag", "old")]).await.expect(200).number("deleted_count"), 99, "{part}");
        assert_eq!(one.stats(&ns).await.number("total_keys"), 1, "{part}");
    }
}

#[tokio::test]
async fn without_the_right_to_change_ttls_everything_else_works() {
    let server = Redis::start();
    acl::create_least(&server);
    server.connect().command(&["ACL", "SETUSER", "sidecache", "-pexpireat", "-persist"]);
    let servers = std::slice::from_ref(&server);
    // The service is degraded, so do not wait until it is healthy.
    let service = Service::launch(acl::settings(servers, "sidecache", "password").set("l1_max_mb", 0));
    let (cache, ns) = (service.client(), namespace("patch-rights"));
    eventually(LATER, async || {
        let health = cache.health().await;
        let says =
            ["degraded", "a PATCH cannot change", "+persist +pexpireat"].map(|text| health.text().contains(text));
        ensure!(says == [true; 3], "{}", health.text());
        Ok(())
    })
    .await;
    cache.put(&ns, "k", r#"{"value":1,"ttl":600,"tags":["a"]}"#).await.expect(201);
    for body in [json!({"ttl": 5}), json!({"ttl": null, "tags": ["b"]})] {
        cache.patch(&ns, "k", &body).await.expect_error(500, "internal");
    }
    assert!(ttl(&cache, &ns, "k").await > Some(500), "nothing of a refused change is done");
    cache.patch(&ns, "k", &json!({"tags": ["c"]})).await.expect(200);
    assert_eq!(tagged(&cache, &ns, "c").await, json!(["k"]));
    assert_eq!(tagged(&cache, &ns, "b").await, json!([]));
    eventually(SOON, async || agreed(&[&cache], servers, &ns).await.map(drop)).await;
}

#[tokio::test]
async fn a_redis_without_memory_changes_what_needs_no_memory() {
    let (server, mut connection, a, _b) = two();
    let (cache, ns) = (a.client(), namespace("patch-memory"));
    cache.put_policy(&ns, json!({"eviction_policy": "NONE"}).to_string()).await.expect(201);
    cache.put(&ns, "k", r#"{"value":1,"ttl":600,"tags":["a","b"]}"#).await.expect(201);
    cache.set(&ns, "endless", "1").await.expect(201);
    connection.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    connection.command(&["CONFIG", "SET", "maxmemory", "1"]);
    cache.set(&ns, "new", "1").await.expect_error(507, "storage_full");
    for (key, body, ttl) in [
        ("k", json!({"ttl": 60}), Some(60)),
        ("k", json!({"ttl": 6_000, "tags": ["a"]}), Some(6_000)),
        ("k", json!({"ttl": null}), None),
        ("endless", json!({"ttl": 60}), Some(60)),
    ] {
        cache.patch(&ns, key, &body).await.expect_json(200, &changed(ttl));
    }
    cache.patch(&ns, "k", &json!({"ttl": 5, "tags": ["a", "longer"]})).await.expect_error(507, "storage_full");
    assert_eq!(ttl(&cache, &ns, "k").await, None, "nothing of a refused change is done");
    assert_eq!(tagged(&cache, &ns, "a").await, json!(["k"]));
    connection.command(&["CONFIG", "SET", "maxmemory", "0"]);
    cache.patch(&ns, "k", &json!({"tags": ["a", "longer"]})).await.expect(200);
    eventually(SOON, async || agreed(&[&cache], std::slice::from_ref(&server), &ns).await.map(drop)).await;
}
