//! Namespace policies: create, replace, read, delete; their effect on writes; how running instances learn of changes.
//! On SQLite and on PostgreSQL.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::answer::Answer;
use crate::support::both_stores::{on_both_stores, on_own_services};
use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::postgres;
use crate::support::redis::Redis;
use crate::support::scratch;
use crate::support::service::{Service, Settings};

mod shared {
    use super::*;
    on_both_stores! {
        a_policy_is_created_replaced_read_and_deleted,
        all_policies_are_listed_by_name,
        a_wrong_policy_is_refused_and_changes_nothing,
        the_default_ttl_applies_to_writes_without_one,
        a_namespace_appears_with_its_first_write,
        deleting_a_namespace_flushes_it,
        a_patch_changes_only_the_fields_that_it_names,
        a_wrong_patch_is_refused_and_changes_nothing,
        concurrent_patches_are_all_kept,
    }
}

mod own {
    use super::*;
    on_own_services! {
        without_auto_creation_only_configured_namespaces_are_written,
        defaults_of_the_service_apply_to_new_namespaces,
        a_new_namespace_has_a_ttl_of_an_hour_a_quota_of_100_mb_and_lru,
        an_existing_namespace_keeps_its_policy_when_defaults_change,
        a_change_through_one_instance_is_applied_by_the_other,
        policies_survive_a_restart,
    }
}

/// A policy without its times. The times are checked here.
#[track_caller]
fn policy(answer: Answer, status: u16) -> Value {
    let answer = answer.expect(status);
    let mut policy = answer.json();
    let fields = policy.as_object_mut().expect("an object");
    for time in ["created_at", "updated_at"] {
        let time = fields.remove(time).expect("a policy has its times");
        let time = time.as_str().expect("a time is text").to_owned();
        humantime::parse_rfc3339(&time).expect("RFC 3339 in UTC");
    }
    policy
}

fn object(name: &str, default_ttl: u64, max_size_mb: u64, eviction_policy: &str) -> Value {
    json!({
        "name": name, "default_ttl": default_ttl, "max_size_mb": max_size_mb, "eviction_policy": eviction_policy,
        "stale_if_error": 0, "ttl_jitter": 0.0, "refresh_after": 1.0, "stale_while_revalidate": 0, "tombstone_ttl": 60,
    })
}

async fn remaining(cache: &Client, ns: &str, key: &str) -> Option<u64> {
    cache.get(ns, key).await.expect(200).metadata().ttl_remaining
}

async fn a_policy_is_created_replaced_read_and_deleted(service: &Service) {
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.policy(&ns).await.expect_error(404, "namespace_not_found");
    cache.delete_policy(&ns).await.expect_error(404, "namespace_not_found");

    let first = object(&ns, 60, 5, "LFU");
    let body = json!({"default_ttl": 60, "max_size_mb": 5, "eviction_policy": "LFU"}).to_string();
    assert_eq!(policy(cache.put_policy(&ns, body).await, 201), first);
    assert_eq!(policy(cache.policy(&ns).await, 200), first);
    let created_at = cache.policy(&ns).await.json()["created_at"].clone();

    // A replacement does not merge: a field that it leaves out gets its default.
    let second = object(&ns, 7, 0, "LRU");
    assert_eq!(policy(cache.put_policy(&ns, r#"{"default_ttl":7}"#).await, 200), second);
    assert_eq!(policy(cache.policy(&ns).await, 200), second);
    assert_eq!(cache.policy(&ns).await.json()["created_at"], created_at);
    for seconds in [30, 0, 3_153_600_000_u64] {
        let body = json!({"stale_if_error": seconds}).to_string();
        let mut stale = object(&ns, 0, 0, "LRU");
        stale["stale_if_error"] = json!(seconds);
        assert_eq!(policy(cache.put_policy(&ns, body).await, 200), stale);
        assert_eq!(policy(cache.policy(&ns).await, 200), stale);
    }
    let parts = json!({"ttl_jitter": 0.1, "refresh_after": 0.75, "stale_while_revalidate": 30, "tombstone_ttl": 1});
    let limits = json!({"ttl_jitter": 0.5, "refresh_after": 0.001, "stale_while_revalidate": 3_153_600_000_u64});
    for fields in [parts, limits] {
        let mut expected = object(&ns, 0, 0, "LRU");
        expected.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        assert_eq!(policy(cache.put_policy(&ns, fields.to_string()).await, 200), expected);
        assert_eq!(policy(cache.policy(&ns).await, 200), expected);
    }
    for name in ["LRU", "LFU", "FIFO", "TTL", "NONE"] {
        let body = json!({"eviction_policy": name}).to_string();
        assert_eq!(policy(cache.put_policy(&ns, body).await, 200), object(&ns, 0, 0, name));
    }

    cache.delete_policy(&ns).await.expect_json(200, &json!({"success": true, "deleted_count": 0}));
    cache.policy(&ns).await.expect_error(404, "namespace_not_found");
    assert_eq!(policy(cache.put_policy(&ns, "{}").await, 201), object(&ns, 0, 0, "LRU"));
}

async fn a_patch_changes_only_the_fields_that_it_names(service: &Service) {
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.patch_policy(&ns, r#"{"max_size_mb":200}"#).await.expect_error(404, "namespace_not_found");
    cache.policy(&ns).await.expect_error(404, "namespace_not_found");
    cache.put_policy(&ns, r#"{"default_ttl":60,"max_size_mb":5,"eviction_policy":"LFU","stale_if_error":30}"#).await;
    let mut expected = cache.policy(&ns).await.expect(200).json();
    for (body, field, value) in [
        (r#"{"max_size_mb":200}"#, "max_size_mb", json!(200)),
        (r#"{"default_ttl":0}"#, "default_ttl", json!(0)),
        (r#"{"eviction_policy":"NONE"}"#, "eviction_policy", json!("NONE")),
        (r#"{"stale_if_error":7}"#, "stale_if_error", json!(7)),
        (r#"{"ttl_jitter":0.25}"#, "ttl_jitter", json!(0.25)),
        (r#"{"refresh_after":0.5}"#, "refresh_after", json!(0.5)),
        (r#"{"stale_while_revalidate":9}"#, "stale_while_revalidate", json!(9)),
        (r#"{"tombstone_ttl":5}"#, "tombstone_ttl", json!(5)),
        // As in a PUT, null means the default of the service.
        (r#"{"ttl_jitter":null}"#, "ttl_jitter", json!(0.0)),
        (r#"{"max_size_mb":null}"#, "max_size_mb", json!(0)),
    ] {
        let patched = cache.patch_policy(&ns, body).await.expect(200).json();
        expected[field] = value;
        expected["updated_at"] = patched["updated_at"].clone();
        assert_eq!(patched, expected, "{body}");
        assert_eq!(cache.policy(&ns).await.expect(200).json(), expected, "{body}");
    }
    let rows = cache.audit(&ns, &[]).await.expect(200).json();
    let latest = &rows["audit"][0];
    assert_eq!(latest["action"], "policy_replaced", "{rows}");
    assert_eq!((&latest["before"]["max_size_mb"], &latest["after"]["max_size_mb"]), (&json!(200), &json!(0)));
    assert_eq!((&latest["before"]["stale_if_error"], &latest["after"]["stale_if_error"]), (&json!(7), &json!(7)));
    assert_eq!(rows["audit"].as_array().map(Vec::len), Some(11));
    // A patch without fields changes nothing and is not in the audit trail.
    assert_eq!(cache.patch_policy(&ns, "{}").await.expect(200).json(), expected);
    assert_eq!(cache.audit(&ns, &[]).await.expect(200).json()["audit"].as_array().map(Vec::len), Some(11));
    // A namespace that a write has just created may not be in the database yet.
    let new = namespace("policy");
    cache.set(&new, "k", "1").await.expect(201);
    let patched = cache.patch_policy(&new, r#"{"default_ttl":5}"#).await.expect(200).json();
    assert_eq!((&patched["default_ttl"], &patched["eviction_policy"]), (&json!(5), &json!("LRU")));
}

async fn a_wrong_patch_is_refused_and_changes_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.put_policy(&ns, r#"{"default_ttl":60}"#).await.expect(201);
    let before = cache.policy(&ns).await.expect(200).json();
    for (body, code, named) in [
        (r#"{"max_size":1}"#, "invalid_body", "max_size"),
        (r#"{"name":"other"}"#, "invalid_body", "name"),
        (r#"{"default_ttl":5,"unknown":1}"#, "invalid_body", "unknown"),
        ("[]", "invalid_body", ""),
        ("", "invalid_body", ""),
        (r#"{"default_ttl":-1}"#, "invalid_policy", "default_ttl"),
        (r#"{"default_ttl":5,"eviction_policy":"MRU"}"#, "invalid_policy", "eviction_policy"),
    ] {
        let problem = cache.patch_policy(&ns, body).await.expect_error(400, code);
        assert!(problem.contains(named), "{body}: {problem}");
    }
    assert_eq!(cache.policy(&ns).await.expect(200).json(), before);
}

/// The bug: the command line read a policy, changed it and stored all of it. Of two concurrent changes one was lost.
async fn concurrent_patches_are_all_kept(service: &Service) {
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.put_policy(&ns, "{}").await.expect(201);
    for round in 1..6 {
        let (ttl, size, stale) = (
            format!("{{\"default_ttl\":{round}}}"),
            format!("{{\"max_size_mb\":{round}}}"),
            format!("{{\"stale_if_error\":{round}}}"),
        );
        let (one, two, three) =
            tokio::join!(cache.patch_policy(&ns, ttl), cache.patch_policy(&ns, size), cache.patch_policy(&ns, stale));
        for answer in [one, two, three] {
            answer.expect(200);
        }
        let policy = cache.policy(&ns).await.expect(200).json();
        for field in ["default_ttl", "max_size_mb", "stale_if_error"] {
            assert_eq!(policy[field], round, "{policy}");
        }
    }
}

async fn all_policies_are_listed_by_name(service: &Service) {
    let (cache, ns) = (service.client(), namespace("policy"));
    let names: Vec<String> = ["B", "a", "_", ".", "a.a", "10", "9"].iter().map(|end| format!("{ns}.{end}")).collect();
    for name in &names {
        cache.put_policy(name, r#"{"default_ttl":3}"#).await.expect(201);
    }
    let all = cache.policies().await.expect(200).json();
    let listed = all["namespaces"].as_array().expect("a list");
    let listed_names: Vec<&str> = listed.iter().map(|policy| policy["name"].as_str().expect("a name")).collect();
    assert!(listed_names.is_sorted(), "sorted by name: {listed_names:?}");
    for name in &names {
        let found = listed.iter().filter(|policy| policy["name"] == name.as_str()).count();
        assert_eq!(found, 1, "{name}");
    }
    let one = listed.iter().find(|policy| policy["name"] == names[0].as_str());
    assert_eq!(one, Some(&cache.policy(&names[0]).await.json()));
}

async fn a_wrong_policy_is_refused_and_changes_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.put_policy(&ns, r#"{"default_ttl":60}"#).await.expect(201);
    for (body, field) in [
        (r#"{"default_ttl":-1}"#, "default_ttl"),
        (r#"{"default_ttl":1.5}"#, "default_ttl"),
        (r#"{"default_ttl":"60"}"#, "default_ttl"),
        (r#"{"default_ttl":18446744073709551616}"#, "default_ttl"),
        (r#"{"max_size_mb":-1}"#, "max_size_mb"),
        (r#"{"max_size_mb":0.5}"#, "max_size_mb"),
        (r#"{"max_size_mb":"1"}"#, "max_size_mb"),
        (r#"{"eviction_policy":"MRU"}"#, "eviction_policy"),
        (r#"{"eviction_policy":""}"#, "eviction_policy"),
        (r#"{"eviction_policy":1}"#, "eviction_policy"),
        (r#"{"stale_if_error":-1}"#, "stale_if_error"),
        (r#"{"stale_if_error":1.5}"#, "stale_if_error"),
        (r#"{"stale_if_error":"60"}"#, "stale_if_error"),
        (r#"{"stale_if_error":3153600001}"#, "stale_if_error"),
        (r#"{"stale_if_error":true}"#, "stale_if_error"),
        (r#"{"ttl_jitter":0.51}"#, "`ttl_jitter` must be a number from 0 to 0.5, not 0.51"),
        (r#"{"ttl_jitter":-0.1}"#, "ttl_jitter"),
        (r#"{"ttl_jitter":"0.1"}"#, "`ttl_jitter` must be a number from 0 to 0.5, not \"0.1\""),
        (r#"{"ttl_jitter":1e400}"#, "ttl_jitter"),
        (r#"{"refresh_after":0}"#, "`refresh_after` must be a number from 0.001 to 1, not 0"),
        (r#"{"refresh_after":1.01}"#, "refresh_after"),
        (r#"{"refresh_after":true}"#, "refresh_after"),
        (r#"{"stale_while_revalidate":-1}"#, "stale_while_revalidate"),
        (r#"{"stale_while_revalidate":3153600001}"#, "stale_while_revalidate"),
        (r#"{"tombstone_ttl":0}"#, "`tombstone_ttl` must be 1 to 3153600000 seconds, not 0"),
        (r#"{"tombstone_ttl":1.5}"#, "tombstone_ttl"),
        (r#"{"default_tll":60}"#, "default_tll"),
        (r#"{"name":"x"}"#, "name"),
        ("", ""),
        ("[]", ""),
        ("{", ""),
    ] {
        for ns in [ns.clone(), namespace("policy")] {
            let answer = cache.put_policy(&ns, body).await;
            let problem = answer.expect_one_of_errors(400, &["invalid_policy", "invalid_body"]);
            assert!(problem.contains(field), "{body}: {problem}");
        }
    }
    let unknown = cache.put_policy(&ns, r#"{"eviction_policy":"MRU"}"#).await;
    let problem = unknown.expect_error(400, "invalid_policy");
    assert!(problem.contains("MRU"), "{problem}");
    cache.put_policy(&ns, r#"{"max_size_mb":-1}"#).await.expect_error(400, "invalid_policy");
    assert_eq!(policy(cache.policy(&ns).await, 200), object(&ns, 60, 0, "LRU"));
}

async fn the_default_ttl_applies_to_writes_without_one(service: &Service) {
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.put_policy(&ns, r#"{"default_ttl":500}"#).await.expect(201);
    cache.set(&ns, "put", "1").await.expect(201);
    cache.put(&ns, "null", r#"{"value":1,"ttl":null}"#).await.expect(201);
    cache.set_for(&ns, "own", "1", 50).await.expect(201);
    cache.fill(&ns, &json!([{"key": "mset", "value": 1}, {"key": "mset own", "value": 1, "ttl": 50}])).await;
    for (key, ttl) in [("put", 500), ("null", 500), ("own", 50), ("mset", 500), ("mset own", 50)] {
        let left = remaining(&cache, &ns, key).await.expect("a ttl");
        assert!((ttl - 10..=ttl).contains(&left), "{key}: {left}");
    }
    // The instance that received the change applies it at once, but only to new writes.
    cache.put_policy(&ns, r#"{"default_ttl":0}"#).await.expect(200);
    cache.set(&ns, "later", "1").await.expect(201);
    assert_eq!(remaining(&cache, &ns, "later").await, None);
    assert!(remaining(&cache, &ns, "put").await.is_some());
}

async fn a_namespace_appears_with_its_first_write(service: &Service) {
    let cache = service.client();
    let (put, mset, read) = (namespace("policy"), namespace("policy"), namespace("policy"));
    cache.set(&put, "k", "1").await.expect(201);
    cache.fill(&mset, &json!([{"key": "k", "value": 1}])).await;
    for ns in [&put, &mset] {
        eventually(SOON, async || {
            let answer = cache.policy(ns).await;
            ensure!(answer.status == 200, "{}", answer.status);
            assert_eq!(policy(answer, 200), object(ns, 0, 0, "LRU"));
            Ok(())
        })
        .await;
    }
    // A read creates no namespace.
    cache.get(&read, "k").await.expect_error(404, "key_not_found");
    cache.mget(&read, &["k"]).await.expect(200);
    cache.delete(&read, "k").await.expect_error(404, "key_not_found");
    cache.flush(&read, &[]).await.expect(200);
    assert_eq!(cache.list(&read, &[]).await.expect(200).number("size"), 0);
    let stats = cache.stats(&read).await.expect(200);
    assert_eq!((stats.number("total_keys"), stats.number("memory_used_bytes")), (0, 0));
    let later = namespace("policy");
    cache.set(&later, "k", "1").await.expect(201);
    eventually(SOON, async || {
        let status = cache.policy(&later).await.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await;
    cache.policy(&read).await.expect_error(404, "namespace_not_found");
}

async fn deleting_a_namespace_flushes_it(service: &Service) {
    let (cache, ns, other) = (service.client(), namespace("policy"), namespace("policy"));
    cache.put_policy(&ns, r#"{"default_ttl":60}"#).await.expect(201);
    for key in ["a", "b", "c"] {
        cache.set(&ns, key, "1").await.expect(201);
        cache.set(&other, key, "1").await.expect(201);
        cache.get(&ns, key).await.expect(200);
    }
    cache.delete_policy(&ns).await.expect_json(200, &json!({"success": true, "deleted_count": 3}));
    for key in ["a", "b", "c"] {
        cache.get(&ns, key).await.expect_error(404, "key_not_found");
        cache.get(&other, key).await.expect(200);
    }
    cache.policy(&ns).await.expect_error(404, "namespace_not_found");
    // Its next write creates it again with the defaults.
    cache.set(&ns, "a", "1").await.expect(201);
    assert_eq!(remaining(&cache, &ns, "a").await, None);
}

async fn without_auto_creation_only_configured_namespaces_are_written(settings: Settings) {
    let service = Service::start(settings.set("auto_create_namespaces", false));
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.set(&ns, "k", "1").await.expect_error(400, "invalid_namespace");
    cache.mset(&ns, &json!([{"key": "k", "value": 1}])).await.expect_error(400, "invalid_namespace");

    // Reads answer as for an empty namespace.
    let miss = cache.get(&ns, "k").await;
    assert_eq!(miss.header("x-cache-hit"), Some("false"));
    miss.expect_error(404, "key_not_found");
    cache.delete(&ns, "k").await.expect_error(404, "key_not_found");
    let nothing = json!({"results": {"k": {"value": null, "found": false}}, "hits": 0, "misses": 1});
    cache.mget(&ns, &["k"]).await.expect_json(200, &nothing);
    cache.list(&ns, &[]).await.expect_json(200, &json!({"size": 0, "keys": [], "cursor": null}));
    cache.flush(&ns, &[]).await.expect_json(200, &json!({"success": true, "deleted_count": 0}));
    assert_eq!(cache.stats(&ns).await.expect(200).number("total_keys"), 0);

    cache.put_policy(&ns, "{}").await.expect(201);
    cache.set(&ns, "k", "1").await.expect(201);
    cache.get(&ns, "k").await.expect(200);
    cache.delete_policy(&ns).await.expect(200);
    cache.set(&ns, "k", "1").await.expect_error(400, "invalid_namespace");
}

async fn defaults_of_the_service_apply_to_new_namespaces(settings: Settings) {
    let settings = settings
        .set("default_ttl", 300)
        .set("default_max_size_mb", 12)
        .set("default_eviction_policy", "FIFO")
        .set("default_stale_if_error", 45)
        .set("default_ttl_jitter", "0.02")
        .set("default_refresh_after", "0.8")
        .set("default_stale_while_revalidate", 15)
        .set("default_tombstone_ttl", 90);
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.set(&ns, "k", "1").await.expect(201);
    let left = remaining(&cache, &ns, "k").await.expect("a ttl");
    assert!((290..=300).contains(&left), "{left}");
    eventually(SOON, async || {
        let answer = cache.policy(&ns).await;
        ensure!(answer.status == 200, "{}", answer.status);
        let mut expected = object(&ns, 300, 12, "FIFO");
        expected["stale_if_error"] = json!(45);
        expected["ttl_jitter"] = json!(0.02);
        expected["refresh_after"] = json!(0.8);
        expected["stale_while_revalidate"] = json!(15);
        expected["tombstone_ttl"] = json!(90);
        assert_eq!(policy(answer, 200), expected);
        Ok(())
    })
    .await;
    let body = r#"{"default_ttl":0,"stale_if_error":0,"ttl_jitter":0,"refresh_after":1,"stale_while_revalidate":0,
        "tombstone_ttl":60}"#;
    let (put, name) = (cache.put_policy("of-defaults", body).await, "of-defaults");
    assert_eq!(policy(put, 201), object(name, 0, 12, "FIFO"));
}

async fn a_new_namespace_has_a_ttl_of_an_hour_a_quota_of_100_mb_and_lru(settings: Settings) {
    let service = Service::start(settings.unset("default_ttl").unset("default_max_size_mb"));
    let (cache, ns) = (service.client(), namespace("policy"));
    cache.set(&ns, "single", "1").await.expect(201);
    cache.fill(&ns, &json!([{"key": "batch", "value": 1}, {"key": "own", "value": 1, "ttl": 7_200}])).await;
    for (key, expected) in [("single", 3_590..=3_600), ("batch", 3_590..=3_600), ("own", 7_190..=7_200)] {
        let left = remaining(&cache, &ns, key).await.expect("a ttl");
        assert!(expected.contains(&left), "{key}: {left}");
    }
    eventually(SOON, async || {
        let answer = cache.policy(&ns).await;
        ensure!(answer.status == 200, "{}", answer.status);
        assert_eq!(policy(answer, 200), object(&ns, 3_600, 100, "LRU"));
        Ok(())
    })
    .await;
    // A PUT uses the same defaults for fields that it leaves out.
    let put = cache.put_policy("put", r#"{"eviction_policy":"LFU"}"#).await;
    assert_eq!(policy(put, 201), object("put", 3_600, 100, "LFU"));
}

async fn an_existing_namespace_keeps_its_policy_when_defaults_change(settings: Settings) {
    // Under earlier defaults, a namespace that a write created had neither a TTL nor a quota.
    let folder = scratch::folder("defaults");
    let (settings, ns) = (settings.folder(folder.path()), namespace("policy"));
    let before = Service::start(settings.clone());
    before.client().set(&ns, "k", "1").await.expect(201);
    assert!(before.stop().success());
    let after = Service::start(settings.unset("default_ttl").unset("default_max_size_mb"));
    let cache = after.client();
    assert_eq!(policy(cache.policy(&ns).await, 200), object(&ns, 0, 0, "LRU"));
    cache.set(&ns, "later", "1").await.expect(201);
    assert_eq!(remaining(&cache, &ns, "later").await, None);
}

async fn a_change_through_one_instance_is_applied_by_the_other(settings: Settings) {
    // Both instances use the same folder and so the same SQLite file. For PostgreSQL, the settings name the database.
    let folder = scratch::folder("two-instances");
    let settings = settings.folder(folder.path()).set("auto_create_namespaces", false);
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other, ns) = (a.client(), b.client(), namespace("policy"));
    other.set(&ns, "k", "1").await.expect_error(400, "invalid_namespace");
    one.put_policy(&ns, r#"{"default_ttl":500}"#).await.expect(201);
    eventually(SOON, async || {
        let status = other.set(&ns, "k", "1").await.status;
        ensure!([200, 201].contains(&status), "{status}");
        Ok(())
    })
    .await;
    assert!(remaining(&other, &ns, "k").await.is_some_and(|ttl| ttl > 400));

    one.put_policy(&ns, r#"{"default_ttl":20}"#).await.expect(200);
    eventually(SOON, async || {
        other.set(&ns, "k", "1").await.expect(200);
        let left = remaining(&other, &ns, "k").await;
        ensure!(left.is_some_and(|left| left <= 20), "{left:?}");
        Ok(())
    })
    .await;

    one.delete_policy(&ns).await.expect(200);
    eventually(SOON, async || {
        let answer = other.set(&ns, "k", "1").await;
        ensure!(answer.status == 400, "{}", answer.status);
        answer.expect_error(400, "invalid_namespace");
        Ok(())
    })
    .await;
    assert_eq!(policy_names(&one).await, Vec::<String>::new());
}

async fn policies_survive_a_restart(settings: Settings) {
    let folder = scratch::folder("restart");
    let settings = settings.folder(folder.path());
    let service = Service::start(settings.clone());
    let cache = service.client();
    let (made, implicit) = (namespace("policy"), namespace("policy"));
    let body = json!({"default_ttl": 9, "max_size_mb": 3, "eviction_policy": "TTL"}).to_string();
    cache.put_policy(&made, body).await.expect(201);
    cache.set(&implicit, "k", "1").await.expect(201);
    eventually(SOON, async || {
        let status = cache.policy(&implicit).await.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await;
    let before = cache.policies().await.expect(200).json();
    assert!(service.stop().success());

    let service = Service::start(settings);
    let cache = service.client();
    // The snapshot may be loaded shortly after the start.
    eventually(SOON, async || {
        let after = cache.policies().await.expect(200).json();
        ensure!(after == before, "{after}");
        Ok(())
    })
    .await;
    assert_eq!(policy(cache.policy(&made).await, 200), object(&made, 9, 3, "TTL"));
    cache.set(&made, "k", "1").await.expect(201);
    assert!(remaining(&cache, &made, "k").await.is_some_and(|ttl| ttl <= 9));
}

async fn policy_names(cache: &Client) -> Vec<String> {
    let all = cache.policies().await.expect(200).json();
    let names = all["namespaces"].as_array().expect("a list").iter();
    names.map(|policy| policy["name"].as_str().expect("a name").to_owned()).collect()
}

/// The bug: an instance that had not heard of the deletion wrote once more, and this entry stayed for ever.
#[tokio::test]
async fn regression_a_late_write_to_a_deleted_namespace_is_removed() {
    let server = Redis::start();
    let database = postgres::shared().fresh_database();
    let settings = Settings::on(std::slice::from_ref(&server)).set("database_url", &database);
    let deleting = Service::start(settings.clone().set("namespace_refresh_ms", 100));
    let ignorant = Service::start(settings.set("namespace_refresh_ms", 600_000));
    let ns = namespace("orphan");
    ignorant.client().put_policy(&ns, r#"{"default_ttl": 0}"#).await.expect(201);
    eventually(SOON, async || {
        ensure!(deleting.client().policy(&ns).await.status == 200, "the policy is not known yet");
        Ok(())
    })
    .await;
    deleting.client().delete_policy(&ns).await.expect(200);
    ignorant.client().set(&ns, "k", "1").await.expect(201);
    let left = || server.connect().scan(&format!("cache*:{ns}*"));
    assert!(!left().is_empty(), "the write did not reach the shard");
    eventually(LATER, async || {
        let left = left();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
}
