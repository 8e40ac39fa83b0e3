//! Newest wins by the source's own count: `source_version` in writes and deletions, and the tombstones of deletions.

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::answer::Answer;
use crate::support::both_stores::on_every_server;
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::random::Random;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::walk::agreed;

on_every_server! {
    a_change_happens_only_if_its_version_is_not_older,
    an_entry_shows_its_source_version,
    a_known_absence_has_a_source_version,
    versions_are_compared_exactly,
    anything_but_a_whole_number_is_refused,
    a_tombstone_ends_after_its_time,
    a_flush_leaves_the_versions_of_its_entries,
    expiry_ends_the_guard,
    eviction_under_a_quota_ends_the_guard,
    lease_preconditions_and_version_must_all_hold,
    any_sequence_of_changes_is_as_in_the_model,
    writes_that_overtake_each_other_leave_the_newest_state,
}

/// What is under the key before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Unversioned,
    /// With source version 5.
    Versioned,
    /// Of source version 5.
    Tombstone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Put,
    Mset,
    Delete,
}

/// The answer to a change, with the code of an entry of an mset that was refused.
struct Changed {
    status: u16,
    code: Option<String>,
    etag: Option<String>,
}

impl Changed {
    fn of(answer: &Answer) -> Changed {
        let code = (answer.status >= 400).then(|| answer.json()["code"].as_str().expect("a code").to_owned());
        Changed { status: answer.status, code, etag: answer.header("etag").map(str::to_owned) }
    }

    fn is_outdated(&self) -> bool {
        self.code.as_deref() == Some("newer_version_exists")
    }
}

async fn put(cache: &Client, ns: &str, key: &str, value: &Value, version: Option<u64>) -> Answer {
    cache.put(ns, key, json!({"value": value, "source_version": version}).to_string()).await
}

async fn delete(cache: &Client, ns: &str, key: &str, version: Option<u64>) -> Answer {
    let query = version.map(|version| format!("?source_version={version}")).unwrap_or_default();
    cache.send(Method::DELETE, &(key_path(ns, key) + &query), &[], None).await
}

async fn change(cache: &Client, ns: &str, key: &str, change: Change, version: Option<u64>) -> Changed {
    let new = json!("new");
    match change {
        Change::Put => Changed::of(&put(cache, ns, key, &new, version).await),
        Change::Delete => Changed::of(&delete(cache, ns, key, version).await),
        Change::Mset => {
            let entries =
                json!([{"key": key, "value": new, "source_version": version}, {"key": "other", "value": 1}]);
            let answer = cache.mset(ns, &entries).await.expect(200).json();
            let code = answer["errors"][key].as_str().map(str::to_owned);
            assert_eq!(answer["stored"], if code.is_some() { 1 } else { 2 });
            Changed { status: 200, code, etag: None }
        }
    }
}

async fn a_change_happens_only_if_its_version_is_not_older(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions"));
    for before in [Before::Nothing, Before::Unversioned, Before::Versioned, Before::Tombstone] {
        for what in [Change::Put, Change::Mset, Change::Delete] {
            for version in [None, Some(4), Some(5), Some(6)] {
                let (key, case) = (format!("{before:?}{what:?}{version:?}"), (before, what, version));
                let present = match before {
                    Before::Nothing => None,
                    Before::Unversioned => Some(cache.set(&ns, &key, "\"old\"").await.expect(201)),
                    Before::Versioned | Before::Tombstone => {
                        Some(put(&cache, &ns, &key, &json!("old"), Some(5)).await.expect(201))
                    }
                };
                let mut present = present.and_then(|answer| answer.header("etag").map(str::to_owned));
                if before == Before::Tombstone {
                    delete(&cache, &ns, &key, None).await.expect(200);
                    present = None;
                }
                let guard = matches!(before, Before::Versioned | Before::Tombstone).then_some(5);
                let is_outdated = version.is_some_and(|version| guard.is_some_and(|guard| version < guard));
                let answer = change(&cache, &ns, &key, what, version).await;
                let found = cache.get_with(&ns, &key, &[("cache-control", "no-cache")]).await;
                assert_eq!(answer.is_outdated(), is_outdated, "{case:?}");
                let left = if is_outdated {
                    assert_eq!(answer.status, if what == Change::Mset { 200 } else { 412 }, "{case:?}");
                    assert!(what == Change::Mset || answer.etag == present, "{case:?}");
                    assert_eq!(found.status, if present.is_some() { 200 } else { 404 }, "{case:?}");
                    guard
                } else if what == Change::Delete {
                    assert_eq!(answer.status, if present.is_some() { 200 } else { 404 }, "{case:?}");
                    assert_eq!(found.status, 404, "{case:?}");
                    version.or(guard)
                } else {
                    let created = if present.is_some() { 200 } else { 201 };
                    assert_eq!(answer.status, if what == Change::Mset { 200 } else { created }, "{case:?}");
                    assert_eq!(found.json()["value"], "new", "{case:?}");
                    version
                };
                // What is left guards the key against older versions, and only against these.
                if let Some(left) = left {
                    let older = put(&cache, &ns, &key, &json!("older"), Some(left - 1)).await;
                    older.expect_error(412, "newer_version_exists");
                    assert!(put(&cache, &ns, &key, &json!("same"), Some(left)).await.status < 300, "{case:?}");
                } else {
                    assert!(put(&cache, &ns, &key, &json!("any"), Some(0)).await.status < 300, "{case:?}");
                }
            }
        }
    }
    // An mdelete leaves the versions, too.
    put(&cache, &ns, "k", &json!(1), Some(5)).await.expect(201);
    cache.mdelete(&ns, r#"{"keys":["k"]}"#).await.expect(200);
    put(&cache, &ns, "k", &json!(1), Some(4)).await.expect_error(412, "newer_version_exists");
    // A write without a version clears the count.
    cache.set(&ns, "k", "1").await.expect(201);
    put(&cache, &ns, "k", &json!(1), Some(1)).await.expect(200);
}

async fn an_entry_shows_its_source_version(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-shown"));
    let shown = async || {
        let answer = cache.fetch(&format!("{}?metadata=full", key_path(&ns, "k"))).await.expect(200).json();
        answer["metadata"].get("source_version").cloned()
    };
    put(&cache, &ns, "k", &json!(1), Some(u64::MAX >> 1)).await.expect(201);
    assert_eq!(shown().await, Some(json!(u64::MAX >> 1)));
    put(&cache, &ns, "k", &json!(1), None).await.expect(200);
    assert_eq!(shown().await, None);
    put(&cache, &ns, "k", &json!(1), Some(0)).await.expect(200);
    assert_eq!(shown().await, Some(json!(0)));
}

async fn a_known_absence_has_a_source_version(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-absent"));
    cache.put(&ns, "k", r#"{"absent": true, "source_version": 5}"#).await.expect(201);
    let outdated = put(&cache, &ns, "k", &json!(1), Some(4)).await;
    assert_eq!(outdated.header("etag"), None, "it is no present entry");
    outdated.expect_error(412, "newer_version_exists");
    delete(&cache, &ns, "k", Some(4)).await.expect_error(412, "newer_version_exists");
    delete(&cache, &ns, "k", None).await.expect(404);
    put(&cache, &ns, "k", &json!(1), Some(4)).await.expect_error(412, "newer_version_exists");
    cache.put(&ns, "k", r#"{"absent": true, "source_version": 5}"#).await.expect(201);
    put(&cache, &ns, "k", &json!(1), Some(5)).await.expect(201);
}

async fn versions_are_compared_exactly(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-exact"));
    for (smaller, larger) in [
        (0, 1),
        (9, 10),
        (99, 100),
        (1 << 53, (1 << 53) + 1),
        ((1 << 53) + 1, (1 << 53) + 2),
        (999_999_999_999_999_999, 1_000_000_000_000_000_000),
        ((u64::MAX >> 1) - 1, u64::MAX >> 1),
    ] {
        let key = format!("{larger}");
        put(&cache, &ns, &key, &json!(1), Some(smaller)).await.expect(201);
        put(&cache, &ns, &key, &json!(2), Some(larger)).await.expect(200);
        put(&cache, &ns, &key, &json!(3), Some(smaller)).await.expect_error(412, "newer_version_exists");
        put(&cache, &ns, &key, &json!(4), Some(larger)).await.expect(200);
        delete(&cache, &ns, &key, Some(smaller)).await.expect_error(412, "newer_version_exists");
        delete(&cache, &ns, &key, Some(larger)).await.expect(200);
        delete(&cache, &ns, &key, Some(smaller)).await.expect_error(412, "newer_version_exists");
        put(&cache, &ns, &key, &json!(5), Some(smaller)).await.expect_error(412, "newer_version_exists");
        put(&cache, &ns, &key, &json!(6), Some(larger)).await.expect(201);
    }
}

async fn anything_but_a_whole_number_is_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-wrong"));
    for wrong in ["-1", "1.5", "1e3", "\"1\"", "true", "[]", "9223372036854775808", "99999999999999999999"] {
        let body = format!("{{\"value\": 1, \"source_version\": {wrong}}}");
        let detail = cache.put(&ns, "k", body).await.expect_error(400, "invalid_body");
        assert!(detail.contains("`source_version`"), "{detail}");
        let body = format!("{{\"entries\": [{{\"key\": \"k\", \"value\": 1, \"source_version\": {wrong}}}]}}");
        let detail = cache.mset_raw(&ns, body).await.expect_error(400, "invalid_body");
        assert!(detail.contains("entries[0]") && detail.contains("`source_version`"), "{detail}");
        let path = format!("{}?source_version={}", key_path(&ns, "k"), wrong.replace('"', "%22"));
        let detail = cache.send(Method::DELETE, &path, &[], None).await.expect_error(400, "invalid_query");
        assert!(detail.contains("`source_version`"), "{detail}");
    }
    cache.get(&ns, "k").await.expect(404);
    cache.put(&ns, "k", r#"{"value": 1, "source_version": null}"#).await.expect(201);
}

async fn a_tombstone_ends_after_its_time(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-end"));
    cache.put_policy(&ns, r#"{"tombstone_ttl": 1}"#).await.expect(201);
    for key in ["entry", "nothing"] {
        if key == "entry" {
            put(&cache, &ns, key, &json!(1), Some(5)).await.expect(201);
        }
        delete(&cache, &ns, key, Some(5)).await;
        put(&cache, &ns, key, &json!(1), Some(4)).await.expect_error(412, "newer_version_exists");
        eventually(SOON, async || {
            let answer = put(&cache, &ns, key, &json!(1), Some(4)).await;
            ensure!(answer.status == 201, "{answer:?}");
            Ok(())
        })
        .await;
    }
}

async fn a_flush_leaves_the_versions_of_its_entries(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-flush"));
    for query in [&[][..], &[("pattern", "k*")], &[("tag", "t")]] {
        let body = json!({"value": 1, "tags": ["t"], "source_version": 5}).to_string();
        cache.put(&ns, "k1", body.clone()).await;
        cache.put(&ns, "k2", json!({"value": 1, "tags": ["t"]}).to_string()).await.expect(201);
        cache.flush(&ns, query).await.expect(200);
        // A fill that is late: it was loaded before the flush.
        put(&cache, &ns, "k1", &json!("old"), Some(4)).await.expect_error(412, "newer_version_exists");
        put(&cache, &ns, "k2", &json!("old"), Some(4)).await.expect(201);
        cache.mdelete(&ns, r#"{"keys":["k1"]}"#).await.expect(200);
        cache.put(&ns, "k2", json!({"value": 1}).to_string()).await.expect(200);
        cache.mdelete(&ns, r#"{"keys":["k2"]}"#).await.expect(200);
    }
    // A namespace that is removed leaves nothing.
    cache.delete_policy(&ns).await.expect(200);
    put(&cache, &ns, "k1", &json!("old"), Some(1)).await.expect(201);
}

async fn expiry_ends_the_guard(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-expiry"));
    cache.put(&ns, "k", r#"{"value": 1, "source_version": 5, "ttl": 1}"#).await.expect(201);
    put(&cache, &ns, "k", &json!(2), Some(4)).await.expect_error(412, "newer_version_exists");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    delete(&cache, &ns, "k", None).await.expect(404);
    put(&cache, &ns, "k", &json!(2), Some(4)).await.expect(201);
}

async fn eviction_under_a_quota_ends_the_guard(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-quota"));
    cache.put_policy(&ns, r#"{"max_size_mb": 1}"#).await.expect(201);
    let large = json!("x".repeat(20_000));
    for i in 0..100 {
        put(&cache, &ns, &format!("k{i}"), &large, Some(5)).await.expect(201);
        if i % 3 == 0 {
            delete(&cache, &ns, &format!("k{i}"), None).await.expect(200);
        }
    }
    let stats = cache.stats(&ns).await;
    assert!(stats.number("memory_used_bytes") <= 1 << 20 && stats.number("evictions") > 0, "{stats:?}");
    assert_eq!(stats.number("total_keys"), cache.all_keys(&ns).await.len() as u64);
    let mut evicted = 0;
    for i in 0..100 {
        let key = format!("k{i}");
        let is_there = cache.get_with(&ns, &key, &[("cache-control", "no-cache")]).await.status == 200;
        let answer = put(&cache, &ns, &key, &json!("small"), Some(4)).await;
        if is_there || i % 3 == 0 {
            answer.expect_error(412, "newer_version_exists");
        } else {
            answer.expect(201);
            evicted += 1;
        }
    }
    assert!(evicted > 0);
}

async fn lease_preconditions_and_version_must_all_hold(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-all"));
    let path = key_path(&ns, "k");
    let send = async |headers: &[(&str, &str)], version: u64| {
        let body = json!({"value": version, "source_version": version}).to_string().into_bytes();
        cache.send(Method::PUT, &path, headers, Some(body)).await
    };
    let etag = send(&[("if-none-match", "*")], 5).await.expect(201).header("etag").expect("an ETag").to_owned();
    // The precondition is checked before the version.
    send(&[("if-match", "\"1\"")], 4).await.expect_error(412, "precondition_failed");
    let outdated = send(&[("if-match", &etag)], 4).await;
    assert_eq!(outdated.header("etag"), Some(&*etag));
    outdated.expect_error(412, "newer_version_exists");
    send(&[("if-match", &etag)], 6).await.expect(200);
    delete(&cache, &ns, "k", Some(7)).await.expect(200);

    let won = cache.get_with(&ns, "k", &[("prefer", "lease=10")]).await.expect(404);
    let lease = won.header("cache-lease").and_then(|lease| Some(lease.split('"').nth(1)?.to_owned()));
    // Without the right to read the server's run id no lease is given.
    if let Some(lease) = lease {
        let wrong = "0123456789abcdef0123456789abcdef";
        send(&[("cache-lease", wrong)], 6).await.expect_error(412, "lease_lost");
        // The holder loaded from a replica of its source that lags behind: it may load again and fill.
        send(&[("cache-lease", &lease)], 6).await.expect_error(412, "newer_version_exists");
        let etag = send(&[("cache-lease", &lease)], 8).await.expect(201).header("etag").map(str::to_owned);
        let again = send(&[("cache-lease", &lease)], 8).await.expect(201);
        assert_eq!(again.header("etag").map(str::to_owned), etag);
    }
}

/// What a key holds, according to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    /// Nothing, and perhaps a tombstone.
    Nothing(Option<u64>),
    Entry(Option<u64>),
}

impl Model {
    fn guard(self) -> Option<u64> {
        match self {
            Model::Nothing(version) | Model::Entry(version) => version,
        }
    }
}

async fn any_sequence_of_changes_is_as_in_the_model(service: &Service) {
    let (cache, ns) = (service.client(), namespace("versions-model"));
    let mut random = Random::new();
    let mut models = [Model::Nothing(None); 3];
    for step in 0..300 {
        let which = random.below(3);
        let (key, before) = (format!("k{which}"), models[which]);
        let version = (!random.one_in(3)).then(|| random.below(6) as u64);
        let is_outdated = version.is_some_and(|version| before.guard().is_some_and(|guard| version < guard));
        let what = match random.below(20) {
            0 => {
                cache.flush(&ns, &[]).await.expect(200);
                models = models.map(|model| Model::Nothing(model.guard()));
                continue;
            }
            1..8 => Change::Delete,
            8..11 => Change::Mset,
            _ => Change::Put,
        };
        let answer = change(&cache, &ns, &key, what, version).await;
        assert_eq!(answer.is_outdated(), is_outdated, "step {step}: {what:?} {version:?} over {before:?}");
        if !is_outdated {
            models[which] = match what {
                Change::Delete => Model::Nothing(version.or(before.guard())),
                Change::Put | Change::Mset => Model::Entry(version),
            };
        }
        let found = cache.get_with(&ns, &key, &[("cache-control", "no-cache")]).await;
        assert_eq!(found.status == 200, matches!(models[which], Model::Entry(_)), "step {step}");
    }
}

/// Two writers read a source that changes all the time, and each write to the cache may arrive late.
async fn writes_that_overtake_each_other_leave_the_newest_state(service: &Service) {
    const KEYS: usize = 20;
    const CHANGES: u64 = 24;
    let (cache, ns) = (service.client(), namespace("versions-race"));
    let mut random = Random::new();
    let mut deliveries = Vec::new();
    let mut is_deleted_last = Vec::new();
    for number in 0..KEYS {
        is_deleted_last.push(random.one_in(3));
        for version in 1..=CHANGES {
            let is_deletion = if version == CHANGES { is_deleted_last[number] } else { random.one_in(3) };
            // Sometimes a writer sends its change again because it got no answer.
            for _ in 0..if random.one_in(4) { 2 } else { 1 } {
                let late = Duration::from_millis(random.below(100) as u64);
                let (cache, ns, key) = (cache.clone(), ns.clone(), format!("k{number}"));
                deliveries.push(async move {
                    tokio::time::sleep(late).await;
                    let answer = match is_deletion {
                        true => delete(&cache, &ns, &key, Some(version)).await,
                        false => put(&cache, &ns, &key, &json!(version), Some(version)).await,
                    };
                    assert!(matches!(answer.status, 200 | 201 | 404 | 412), "{answer:?}");
                });
            }
        }
    }
    join_all(deliveries).await;
    for (number, is_deleted) in is_deleted_last.into_iter().enumerate() {
        let found = cache.get_with(&ns, &format!("k{number}"), &[("cache-control", "no-cache")]).await;
        if is_deleted {
            found.expect(404);
        } else {
            assert_eq!(found.expect(200).json()["value"], CHANGES, "k{number}");
        }
    }
}

/// The most tombstones of a namespace on a shard.
const MOST: usize = 16_384;

#[tokio::test]
async fn the_number_of_tombstones_in_the_embedded_store_is_bounded() {
    the_number_of_tombstones_is_bounded_and_losses_are_counted(Settings::embedded()).await;
}

#[tokio::test]
async fn the_number_of_tombstones_on_a_shard_is_bounded() {
    let server = Redis::start();
    the_number_of_tombstones_is_bounded_and_losses_are_counted(Settings::on(std::slice::from_ref(&server))).await;
}

async fn the_number_of_tombstones_is_bounded_and_losses_are_counted(settings: Settings) {
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("versions-bound"));
    let total = MOST + 500;
    let keys: Vec<String> = (0..total).map(|number| format!("k{number}")).collect();
    for some in keys.chunks(1_000) {
        let entries: Vec<Value> =
            some.iter().map(|key| json!({"key": key, "value": 1, "source_version": 5})).collect();
        cache.fill(&ns, &json!(entries)).await;
    }
    cache.flush(&ns, &[]).await.expect(200);
    assert_eq!(cache.metrics().await.total("sidecache_tombstones_dropped_total"), 500.0);
    let mut guarded = 0;
    for some in keys.chunks(1_000) {
        let entries: Vec<Value> =
            some.iter().map(|key| json!({"key": key, "value": 1, "source_version": 4})).collect();
        let answer = cache.mset(&ns, &json!(entries)).await.json();
        guarded += answer["errors"].as_object().map_or(0, serde_json::Map::len);
    }
    assert_eq!(guarded, MOST);
}

/// The Redis keys with tombstones, on all shards.
fn tombstones(servers: &[Redis], ns: &str) -> Vec<String> {
    let pattern = format!("sidecache:tombstones*:{ns}");
    servers.iter().flat_map(|server| server.connect().keys(&pattern)).collect()
}

#[tokio::test]
async fn the_sweep_removes_tombstones_and_a_removed_namespace_leaves_none() {
    let servers = Redis::three();
    let service = Service::start(Settings::on(&servers).set("sweep_interval_ms", 100));
    let (cache, ns) = (service.client(), namespace("versions-sweep"));
    cache.put_policy(&ns, r#"{"tombstone_ttl": 1}"#).await.expect(201);
    for i in 0..300 {
        delete(&cache, &ns, &format!("k{i}"), Some(5)).await.expect(404);
    }
    assert_eq!(tombstones(&servers, &ns).len(), 6);
    eventually(SOON, async || {
        let left = tombstones(&servers, &ns);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    cache.patch_policy(&ns, r#"{"tombstone_ttl": 60}"#).await.expect(200);
    delete(&cache, &ns, "k", Some(5)).await.expect(404);
    assert_eq!(tombstones(&servers, &ns).len(), 2);
    cache.delete_policy(&ns).await.expect(200);
    assert_eq!(tombstones(&servers, &ns), Vec::<String>::new());
    agreed(&[&cache], &servers, &ns).await.expect("the totals agree");
}

#[tokio::test]
async fn lost_totals_lose_no_version_and_lost_tombstones_are_counted() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)).set("sweep_interval_ms", 100));
    let (cache, ns) = (service.client(), namespace("versions-lost"));
    put(&cache, &ns, "entry", &json!(1), Some(5)).await.expect(201);
    delete(&cache, &ns, "deleted", Some(5)).await.expect(404);
    let mut shard = server.connect();
    shard.command(&["DEL", &format!("cache_stats:{ns}")]);
    for key in ["entry", "deleted"] {
        put(&cache, &ns, key, &json!(1), Some(4)).await.expect_error(412, "newer_version_exists");
    }
    cache.set(&ns, "other", "1").await.expect(201);
    eventually(LATER, async || agreed(&[&cache], std::slice::from_ref(&server), &ns).await).await;
    for key in ["entry", "deleted"] {
        put(&cache, &ns, key, &json!(1), Some(4)).await.expect_error(412, "newer_version_exists");
    }
    assert_eq!(cache.metrics().await.total("sidecache_tombstones_dropped_total"), 0.0);
    shard.command(&["DEL", &format!("sidecache:tombstones:{ns}")]);
    eventually(SOON, async || {
        let lost = cache.metrics().await.total("sidecache_tombstones_dropped_total");
        ensure!(lost == 1.0, "{lost}");
        Ok(())
    })
    .await;
}
