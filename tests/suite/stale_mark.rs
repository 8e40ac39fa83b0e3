//! Soft deletion: `mode=stale` ends the freshness of entries. They are answered while somebody refreshes them, or while
//! their shard is down, and deleted if neither is allowed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::both_stores::{on_confined, on_every_release};
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::redis::{self, Redis};
use crate::support::service::{Service, Settings, Store};
use crate::support::walk::{Books, agreed};

on_every_release! {
    a_marked_entry_is_answered_as_stale_and_refreshed_by_one,
    a_marked_entry_goes_when_its_window_is_over,
    an_entry_without_a_window_is_deleted,
    a_mark_by_selection_marks_what_it_selects,
    a_mark_ends_the_lease_of_its_key,
    a_mark_obeys_preconditions,
    other_modes_are_refused,
    regression_one_caller_loads_what_is_kept_for_errors_and_the_others_wait,
    regression_a_grace_of_zero_overrules_the_policy,
}

mod least_rights {
    // Without INFO no lease is given, see `leases.rs`.
    super::on_confined!(a_marked_entry_goes_when_its_window_is_over);
    super::on_confined!(an_entry_without_a_window_is_deleted);
    super::on_confined!(a_mark_by_selection_marks_what_it_selects);
    super::on_confined!(a_mark_obeys_preconditions);
}

const LEASE: &[(&str, &str)] = &[("prefer", "lease=10")];

async fn mark(cache: &Client, ns: &str, key: &str, headers: &[(&str, &str)]) -> Answer {
    cache.send(Method::DELETE, &format!("{}?mode=stale", key_path(ns, key)), headers, None).await
}

fn token_of(answer: &Answer) -> Option<String> {
    let lease = answer.header("cache-lease")?.strip_prefix("won;token=\"")?;
    Some(lease.split('"').next().expect("text before a quote").to_owned())
}

/// A read that must be answered with the marked entry.
async fn stale(cache: &Client, ns: &str, key: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = cache.get_with(ns, key, headers).await.expect(200);
    assert_eq!(answer.header("x-cache-ttl"), Some("0"));
    assert!(
        answer.header("cache-status").is_some_and(|status| status.contains("hit; ttl=-")),
        "{:?}",
        answer.headers
    );
    answer
}

async fn a_marked_entry_is_answered_as_stale_and_refreshed_by_one(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark"));
    let stored = cache.put(&ns, "k", r#"{"value":1,"ttl":600,"stale_while_revalidate":60}"#).await.expect(201);
    cache.get(&ns, "k").await.expect(200);
    mark(&cache, &ns, "k", &[]).await.expect_json(200, &json!({"success": true, "marked_count": 1}));
    let found = stale(&cache, &ns, "k", &[]).await;
    assert_eq!((found.value(), found.header("etag")), ("1", stored.header("etag")), "value and version stay");
    cache.get_with(&ns, "k", &[("cache-control", "no-cache")]).await.expect(404);
    let token = token_of(&stale(&cache, &ns, "k", LEASE).await).expect("one refreshes");
    assert_eq!(token_of(&stale(&cache, &ns, "k", LEASE).await), None);
    let fill = [("cache-lease", token.as_str())];
    cache.send(Method::PUT, &key_path(&ns, "k"), &fill, Some(b"{\"value\":2}".to_vec())).await.expect(200);
    let found = cache.get(&ns, "k").await.expect(200);
    assert_eq!(found.value(), "2");
    assert_ne!(found.header("x-cache-ttl"), Some("0"), "a write lifts the mark");
}

async fn a_marked_entry_goes_when_its_window_is_over(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark-window"));
    cache.put_policy(&ns, r#"{"stale_while_revalidate":2}"#).await.expect(201);
    // The window of the policy, an entry that never expires, and one that would go sooner anyway.
    cache.set(&ns, "policy", "1").await.expect(201);
    cache.put_policy(&ns, r#"{"stale_while_revalidate":0,"default_ttl":0}"#).await.expect(200);
    cache.put(&ns, "ever", r#"{"value":1,"stale_while_revalidate":2}"#).await.expect(201);
    cache.put(&ns, "soon", r#"{"value":1,"ttl":1,"stale_while_revalidate":60}"#).await.expect(201);
    for key in ["policy", "ever", "soon"] {
        mark(&cache, &ns, key, &[]).await.expect(200);
        stale(&cache, &ns, key, &[]).await;
        // Once more changes nothing.
        mark(&cache, &ns, key, &[]).await.expect(200);
    }
    assert_eq!(Books::said(&cache, &ns).await, Books { keys: 3, bytes: 3, evictions: 0, expirations: 0 });
    eventually(SOON, async || {
        let said = Books::said(&cache, &ns).await;
        ensure!(said == Books { keys: 1, bytes: 1, evictions: 0, expirations: 2 }, "{said:?}");
        Ok(())
    })
    .await;
    cache.get(&ns, "policy").await.expect(404);
    cache.get(&ns, "ever").await.expect(404);
    stale(&cache, &ns, "soon", &[]).await;
}

async fn an_entry_without_a_window_is_deleted(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark-deletes"));
    cache.set(&ns, "k", "1").await.expect(201);
    mark(&cache, &ns, "k", &[]).await.expect(200);
    cache.get(&ns, "k").await.expect(404);
    mark(&cache, &ns, "k", &[]).await.expect_error(404, "key_not_found");
    assert_eq!(Books::said(&cache, &ns).await, Books { keys: 0, bytes: 0, evictions: 0, expirations: 0 });
}

async fn a_mark_by_selection_marks_what_it_selects(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark-selects"));
    let entry = |key: &str, tags: &[&str]| json!({"key": key, "value": 1, "ttl": 600, "stale_while_revalidate": 60, "tags": tags});
    let entries = json!([entry("a1", &["x"]), entry("a2", &[]), entry("b1", &["x"]), entry("b2", &[])]);
    cache.fill(&ns, &entries).await;
    let marked = |count: u64| json!({"success": true, "marked_count": count});
    let fresh = async |expected: &[&str]| {
        for key in ["a1", "a2", "b1", "b2"] {
            let answer = cache.get(&ns, key).await.expect(200);
            assert_eq!(answer.header("x-cache-ttl") != Some("0"), expected.contains(&key), "{key}");
        }
    };
    cache.flush(&ns, &[("pattern", "a*"), ("mode", "stale")]).await.expect_json(200, &marked(2));
    fresh(&["b1", "b2"]).await;
    cache.flush(&ns, &[("tag", "x"), ("mode", "stale")]).await.expect_json(200, &marked(2));
    fresh(&["b2"]).await;
    cache.flush(&ns, &[("mode", "stale")]).await.expect_json(200, &marked(4));
    fresh(&[]).await;
    let counted = cache.flush(&ns, &[("dry_run", "true"), ("mode", "stale")]).await.expect(200);
    assert_eq!(counted.number("matched_count"), 4);
    eventually(LATER, async || {
        let trail = cache.audit(&ns, &[]).await.expect(200).json();
        let rows = trail["audit"].as_array().expect("a list of changes");
        let marks = rows.iter().filter(|row| row["action"] == "mark_stale").count();
        ensure!(marks == 3, "{trail}");
        Ok(())
    })
    .await;
    assert_eq!(cache.flush(&ns, &[]).await.expect(200).number("deleted_count"), 4);
}

async fn a_mark_ends_the_lease_of_its_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark-lease"));
    let fill = async |token: &str| {
        let lease = [("cache-lease", token)];
        cache.send(Method::PUT, &key_path(&ns, "k"), &lease, Some(b"{\"value\":\"old\"}".to_vec())).await
    };
    let miss = cache.get_with(&ns, "k", LEASE).await.expect(404);
    let token = token_of(&miss).expect("the lease");
    mark(&cache, &ns, "k", &[]).await.expect(404);
    fill(&token).await.expect_error(412, "lease_lost");
    let token = token_of(&cache.get_with(&ns, "k", LEASE).await.expect(404)).expect("the lease");
    cache.flush(&ns, &[("pattern", "nothing*"), ("mode", "stale")]).await.expect(200);
    fill(&token).await.expect_error(412, "lease_lost");
    cache.put(&ns, "k", r#"{"value":1,"ttl":600,"stale_while_revalidate":60}"#).await.expect(201);
    mark(&cache, &ns, "k", &[]).await.expect(200);
    let token = token_of(&stale(&cache, &ns, "k", LEASE).await).expect("the lease");
    mark(&cache, &ns, "k", &[]).await.expect(200);
    fill(&token).await.expect_error(412, "lease_lost");
    eventually(SOON, async || {
        let answer = stale(&cache, &ns, "k", LEASE).await;
        token_of(&answer).ok_or_else(|| anyhow::anyhow!("{:?}", answer.headers))
    })
    .await;
}

async fn a_mark_obeys_preconditions(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark-conditions"));
    let stored = cache.put(&ns, "k", r#"{"value":1,"ttl":600,"stale_while_revalidate":60}"#).await.expect(201);
    mark(&cache, &ns, "k", &[("if-match", "\"1\"")]).await.expect_error(412, "precondition_failed");
    assert_ne!(cache.get(&ns, "k").await.expect(200).header("x-cache-ttl"), Some("0"), "nothing changed");
    mark(&cache, &ns, "k", &[("if-match", stored.header("etag").expect("an ETag"))]).await.expect(200);
    stale(&cache, &ns, "k", &[]).await;
    mark(&cache, &ns, "missing", &[("if-match", "*")]).await.expect_error(412, "precondition_failed");
}

async fn other_modes_are_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark-modes"));
    cache.set(&ns, "k", "1").await.expect(201);
    cache.flush(&ns, &[("mode", "soft")]).await.expect_error(400, "invalid_query");
    for query in ["mode=soft", "mode=stale&source_version=1"] {
        let path = format!("{}?{query}", key_path(&ns, "k"));
        cache.send(Method::DELETE, &path, &[], None).await.expect_error(400, "invalid_query");
    }
    cache.get(&ns, "k").await.expect(200);
}

/// The bug: only the first reader got an answer about the lease. The others got a plain 404 at once, and an mget never got
/// a lease.
async fn regression_one_caller_loads_what_is_kept_for_errors_and_the_others_wait(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark-m0"));
    cache.put_policy(&ns, r#"{"stale_if_error":60}"#).await.expect(201);
    for key in ["k", "many"] {
        cache.put(&ns, key, r#"{"value":"old","ttl":600}"#).await.expect(201);
        mark(&cache, &ns, key, &[]).await.expect(200);
    }
    let token = token_of(&cache.get_with(&ns, "k", LEASE).await.expect(404)).expect("the lease");
    let held = cache.get_with(&ns, "k", LEASE).await.expect(404);
    assert_eq!(held.header("retry-after"), Some("1"));
    assert!(held.header("cache-lease").is_some_and(|lease| lease.starts_with("held")), "{:?}", held.headers);
    let began = Instant::now();
    let held = cache.get_with(&ns, "k", &[("prefer", "lease=10, wait=1")]).await.expect(404);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert!(held.header("cache-lease").is_some_and(|lease| lease.starts_with("held")), "{:?}", held.headers);
    let waits = tokio::spawn({
        let (cache, ns) = (cache.clone(), ns.clone());
        async move { cache.get_with(&ns, "k", &[("prefer", "lease=10, wait=20")]).await }
    });
    let fill = [("cache-lease", token.as_str())];
    cache.send(Method::PUT, &key_path(&ns, "k"), &fill, Some(b"{\"value\":\"new\"}".to_vec())).await.expect(201);
    assert_eq!(waits.await.expect("it is answered").expect(200).value(), "\"new\"");
    for state in ["won", "held"] {
        let answer = cache.mget_or_lease(&ns, &["many"], 10).await.expect(200).json();
        assert_eq!(answer["results"]["many"]["lease"]["state"], state, "{answer}");
        assert_eq!(answer["results"]["many"]["found"], false);
    }
}

/// The bug: a mark used the window of the policy although the write had asked for none.
async fn regression_a_grace_of_zero_overrules_the_policy(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mark-zero"));
    cache.put_policy(&ns, r#"{"stale_while_revalidate":60}"#).await.expect(201);
    cache.put(&ns, "none", r#"{"value":1,"ttl":600,"stale_while_revalidate":0}"#).await.expect(201);
    cache.put(&ns, "policy", r#"{"value":1,"ttl":600}"#).await.expect(201);
    cache.patch(&ns, "none", &json!({"ttl": 700})).await.expect(200);
    assert_ne!(cache.get(&ns, "none").await.expect(200).header("x-cache-ttl"), Some("0"));
    cache.flush(&ns, &[("mode", "stale")]).await.expect_json(200, &json!({"success": true, "marked_count": 2}));
    cache.get(&ns, "none").await.expect(404);
    stale(&cache, &ns, "policy", &[]).await;
    assert_eq!(Books::said(&cache, &ns).await, Books { keys: 1, bytes: 1, evictions: 0, expirations: 0 });
}

/// The bug: only plain reads noticed that Redis had evicted an entry.
#[tokio::test]
async fn regression_leased_reads_and_marks_notice_evicted_entries() {
    let servers = Redis::three();
    let service = Service::start(Settings::on(&servers).set("l1_max_mb", 0));
    let cache = service.client();
    for change in ["get", "mget", "mark", "mark all", "mark a tag"] {
        let ns = namespace("mark-evicted");
        let entry =
            |key: &str| json!({"key": key, "value": 1, "ttl": 600, "stale_while_revalidate": 60, "tags": ["t"]});
        cache.fill(&ns, &json!([entry("gone"), entry("stays")])).await;
        // For the service, UNLINK looks like an eviction.
        let name = format!("cache:{ns}:gone");
        let dropped: i64 = servers.iter().map(|s| s.connect().command(&["UNLINK", &name]).integer()).sum();
        assert_eq!(dropped, 1);
        match change {
            "get" => drop(cache.get_with(&ns, "gone", LEASE).await.expect(404)),
            "mget" => drop(cache.mget_or_lease(&ns, &["gone", "stays"], 5).await.expect(200)),
            "mark" => drop(mark(&cache, &ns, "gone", &[]).await.expect(404)),
            "mark all" => assert_eq!(cache.flush(&ns, &[("mode", "stale")]).await.number("marked_count"), 1),
            _ => {
                let marked = cache.flush(&ns, &[("mode", "stale"), ("tag", "t")]).await;
                assert_eq!(marked.number("marked_count"), 1);
            }
        }
        let books = eventually(SOON, async || Ok(agreed(&[&cache], &servers, &ns).await?.books)).await;
        assert_eq!(books, Books { keys: 1, bytes: 1, evictions: 1, expirations: 0 }, "{change}");
    }
}

#[tokio::test]
async fn the_books_agree_with_the_shards_while_entries_are_marked() {
    let (service, servers) = (Store::Shards.shared_service(), redis::shared());
    let (cache, ns) = (service.client(), namespace("mark-books"));
    let entry = |number: usize| match number % 3 {
        0 => json!({"key": format!("k{number}"), "value": "0123456789", "ttl": 600, "stale_while_revalidate": 2}),
        1 => {
            json!({"key": format!("k{number}"), "value": "0123456789", "stale_while_revalidate": 600, "tags": ["t"]})
        }
        _ => json!({"key": format!("k{number}"), "value": "0123456789", "ttl": 600, "tags": ["t"]}),
    };
    cache.fill(&ns, &json!((0..300).map(entry).collect::<Vec<_>>())).await;
    let marked = cache.flush(&ns, &[("mode", "stale")]).await.expect(200);
    assert_eq!(marked.number("marked_count"), 300);
    // A third had no window.
    let walk = agreed(&[&cache], servers, &ns).await.expect("everything agrees");
    assert_eq!((walk.books.keys, walk.books.expirations), (200, 0));
    eventually(SOON, async || {
        let walk = agreed(&[&cache], servers, &ns).await?;
        ensure!((walk.books.keys, walk.books.expirations) == (100, 100), "{:?}", walk.books);
        Ok(())
    })
    .await;
    cache.flush(&ns, &[]).await.expect(200);
    let walk = agreed(&[&cache], servers, &ns).await.expect("everything agrees");
    assert_eq!((walk.books.keys, walk.books.bytes, walk.names), (0, 0, Vec::new()));
}

#[tokio::test]
async fn other_instances_see_a_mark_and_serve_it_in_place_of_errors_only() {
    let mut servers = [Redis::start()];
    let settings = Settings::on(&servers);
    let (one, other) = (Service::start(settings.clone()), Service::start(settings));
    let (here, there, ns) = (one.client(), other.client(), namespace("mark-error"));
    here.put_policy(&ns, r#"{"stale_if_error":60}"#).await.expect(201);
    eventually(SOON, async || {
        let policy = there.policy(&ns).await;
        ensure!(policy.status == 200, "{policy:?}");
        Ok(())
    })
    .await;
    here.put(&ns, "k", r#"{"value":1,"ttl":600}"#).await.expect(201);
    there.get(&ns, "k").await.expect(200);
    mark(&here, &ns, "k", &[]).await.expect(200);
    // The other instance has a copy until the message arrives; then it finds the mark on the shard.
    eventually(SOON, async || {
        let status = there.get(&ns, "k").await.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await;
    let stored = here
        .send(Method::PUT, &key_path(&ns, "k2"), &[("if-none-match", "*")], Some(b"{\"value\":1}".to_vec()))
        .await
        .expect(201);
    // The message of the mark may arrive after the other instance has found the mark, and then removes its copy.
    let position = stored.header("cache-position").expect("a position").to_owned();
    eventually(SOON, async || {
        let answer = there.get_with(&ns, "k2", &[("cache-position", &position)]).await.expect(200);
        ensure!(answer.is_l1_hit(), "{:?}", answer.headers);
        Ok(())
    })
    .await;
    there.get(&ns, "k").await.expect(404);
    servers[0].kill();
    eventually(LATER, async || {
        let answer = there.get(&ns, "k").await;
        ensure!(answer.status == 200, "{}", answer.status);
        assert!(answer.header("cache-status").is_some_and(|status| status.contains("stale-if-error")));
        Ok(())
    })
    .await;
}
