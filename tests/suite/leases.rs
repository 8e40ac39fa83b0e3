//! Leases: one caller loads a missing value, the others wait for it, and a value that is older than a change is never
//! stored.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::support::answer::Answer;
use crate::support::both_stores::{on_confined, on_every_release};
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::proxy::{Of, Proxy};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

on_every_release! {
    one_caller_gets_the_lease_and_its_value_is_stored,
    every_change_of_the_key_ends_its_lease,
    a_lease_ends_by_its_time_and_when_it_is_released,
    a_fill_that_is_sent_twice_is_answered_twice_and_stored_once,
    a_caller_that_waits_gets_the_value_as_soon_as_it_is_stored,
    a_caller_that_waits_gets_the_lease_that_was_given_up,
    an_mset_fills_leases,
    an_mget_gives_a_lease_on_each_missing_key,
    a_wrong_lease_of_an_mget_is_named,
    a_token_that_was_never_given_is_lost,
}

mod least_rights {
    super::on_confined!(without_the_right_to_read_the_run_id_no_lease_is_given);
}

/// Without INFO nobody can tell whether a lease was given by this server.
async fn without_the_right_to_read_the_run_id_no_lease_is_given(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease-none"));
    let answer = cache.get_with(&ns, "k", NO_WAIT).await.expect(404);
    assert_eq!((answer.header("cache-lease"), answer.header("vary")), (None, Some("prefer")));
    cache.set(&ns, "k", "1").await.expect(201);
    cache.get_with(&ns, "k", NO_WAIT).await.expect(200);
    let answer = cache.mget_or_lease(&ns, &["missing"], 10).await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.json()["results"]["missing"], json!({"value": null, "found": false}));
}

const NO_WAIT: &[(&str, &str)] = &[("prefer", "lease=10")];

/// Locked by tests that count the callers that wait: they share services.
static WAITING: Mutex<()> = Mutex::const_new(());

/// Returns when so many callers wait for values on the instance.
async fn until_waiting(cache: &Client, callers: u32) {
    eventually(SOON, async || {
        let waiting = cache.metrics().await.total("sidecache_lease_waiting");
        ensure!(waiting >= f64::from(callers), "{waiting} of {callers} callers wait");
        Ok(())
    })
    .await;
}

/// The state in `Cache-Lease`: `won` or `held`; empty if there is none.
fn state(answer: &Answer) -> &str {
    answer.header("cache-lease").and_then(|lease| lease.split(';').next()).unwrap_or_default()
}

/// The token of a lease that was won.
fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 404);
    let lease = answer.header("cache-lease").unwrap_or_default();
    let token = lease.strip_prefix("won;token=\"").and_then(|rest| rest.split('"').next());
    token.unwrap_or_else(|| panic!("not won: {lease}")).to_owned()
}

/// The ETag of a write that was done.
fn etag(answer: &Answer) -> String {
    answer.header("etag").expect("a write answers with the ETag").to_owned()
}

async fn win(cache: &Client, ns: &str, key: &str) -> String {
    token_of(&cache.get_with(ns, key, NO_WAIT).await)
}

async fn fill(cache: &Client, ns: &str, key: &str, token: &str, value: &str) -> Answer {
    let body = format!("{{\"value\":{value}}}").into_bytes();
    cache.send(Method::PUT, &key_path(ns, key), &[("cache-lease", token)], Some(body)).await
}

async fn one_caller_gets_the_lease_and_its_value_is_stored(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease"));
    let won = cache.get_with(&ns, "k", NO_WAIT).await.expect(404);
    assert_eq!(won.header("preference-applied"), Some("lease=10"));
    assert_eq!(won.header("cache-control"), Some("no-store"));
    assert_eq!(won.header("vary"), Some("prefer"));
    assert!(won.header("cache-lease").is_some_and(|lease| lease.ends_with(";ttl=10")));
    let token = token_of(&won);
    for _ in 0..3 {
        let held = cache.get_with(&ns, "k", NO_WAIT).await.expect(404);
        assert_eq!((state(&held), held.header("retry-after")), ("held", Some("1")));
    }
    assert_eq!(cache.get(&ns, "k").await.expect(404).header("cache-lease"), None, "nothing was asked for");
    fill(&cache, &ns, "k", &token, "1").await.expect(201);
    let hit = cache.get_with(&ns, "k", NO_WAIT).await.expect(200);
    assert_eq!(hit.header("cache-lease"), None, "a hit needs no lease");
    assert_eq!(cache.stats(&ns).await.number("total_keys"), 1);
}

async fn every_change_of_the_key_ends_its_lease(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease-ends"));
    cache.set(&ns, "other", "1").await.expect(201);
    let changes = ["set", "tagged", "mset", "delete", "mdelete", "flush", "flush by pattern", "flush by tag"];
    for (number, change) in changes.into_iter().enumerate() {
        let key = format!("k{number}");
        let token = win(&cache, &ns, &key).await;
        match change {
            "set" => drop(cache.set(&ns, &key, "\"changed\"").await.expect(201)),
            "tagged" => drop(cache.put(&ns, &key, r#"{"value":"changed","tags":["a"]}"#).await.expect(201)),
            "mset" => cache.fill(&ns, &json!([{"key": key, "value": "changed"}])).await,
            "delete" => drop(cache.delete(&ns, &key).await.expect(404)),
            "mdelete" => drop(cache.mdelete(&ns, json!({"keys": [key]}).to_string()).await.expect(200)),
            "flush" => drop(cache.flush(&ns, &[]).await.expect(200)),
            "flush by pattern" => drop(cache.flush(&ns, &[("pattern", "nothing*")]).await.expect(200)),
            _ => drop(cache.flush(&ns, &[("tag", "nothing")]).await.expect(200)),
        }
        fill(&cache, &ns, &key, &token, "\"old\"").await.expect_error(412, "lease_lost");
        let found = cache.get_with(&ns, &key, &[("cache-control", "no-cache")]).await;
        let expected = if matches!(change, "set" | "tagged" | "mset") { 200 } else { 404 };
        assert_eq!(found.status, expected, "{change}");
        if expected == 200 {
            assert_eq!(found.json()["value"], "changed", "{change}");
        }
    }
    // A change of another key ends nothing.
    let token = win(&cache, &ns, "mine").await;
    cache.set(&ns, "theirs", "1").await.expect(201);
    cache.delete(&ns, "theirs").await.expect(200);
    fill(&cache, &ns, "mine", &token, "1").await.expect(201);
}

async fn a_lease_ends_by_its_time_and_when_it_is_released(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease-time"));
    let old = token_of(&cache.get_with(&ns, "k", &[("prefer", "lease=1")]).await);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let new = win(&cache, &ns, "k").await;
    assert_ne!(old, new);
    fill(&cache, &ns, "k", &old, "1").await.expect_error(412, "lease_lost");
    let path = format!("{}/lease", key_path(&ns, "k"));
    let release = async |token: &str| cache.send(Method::DELETE, &path, &[("cache-lease", token)], None).await;
    release(&old).await.expect_error(412, "lease_lost");
    release(&new).await.expect_json(200, &json!({"success": true, "released": true}));
    release(&new).await.expect_error(412, "lease_lost");
    fill(&cache, &ns, "k", &new, "1").await.expect_error(412, "lease_lost");
    win(&cache, &ns, "k").await;
}

async fn a_fill_that_is_sent_twice_is_answered_twice_and_stored_once(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease-twice"));
    let token = win(&cache, &ns, "k").await;
    let first = etag(&fill(&cache, &ns, "k", &token, "1").await.expect(201));
    // A proxy sends it again.
    assert_eq!(etag(&fill(&cache, &ns, "k", &token, "1").await.expect(201)), first);
    assert_eq!(etag(&cache.get(&ns, "k").await), first);
    cache.delete(&ns, "k").await.expect(200);
    fill(&cache, &ns, "k", &token, "1").await.expect_error(412, "lease_lost");
    cache.get(&ns, "k").await.expect(404);
    // The lease is free again.
    win(&cache, &ns, "k").await;
}

async fn a_caller_that_waits_gets_the_value_as_soon_as_it_is_stored(service: &Service) {
    let _alone = WAITING.lock().await;
    let (cache, ns) = (service.client(), namespace("lease-wait"));
    let token = win(&cache, &ns, "k").await;
    let waiting = join_all((0..20).map(|_| cache.get_with(&ns, "k", &[("prefer", "lease=10, wait=4")])));
    let filled = async {
        until_waiting(&cache, 20).await;
        let filled = Instant::now();
        fill(&cache, &ns, "k", &token, "\"loaded\"").await.expect(201);
        filled
    };
    let (answers, filled) = tokio::join!(waiting, filled);
    let waited = filled.elapsed();
    for answer in answers {
        assert_eq!(answer.expect(200).json()["value"], "loaded");
    }
    assert!(waited < Duration::from_secs(2), "they were woken, and did not wait for the end: {waited:?}");
}

async fn a_caller_that_waits_gets_the_lease_that_was_given_up(service: &Service) {
    let _alone = WAITING.lock().await;
    let (cache, ns) = (service.client(), namespace("lease-given-up"));
    let token = win(&cache, &ns, "k").await;
    let waiting = join_all((0..5).map(|_| cache.get_with(&ns, "k", &[("prefer", "lease=10, wait=2")])));
    let released = async {
        until_waiting(&cache, 5).await;
        let path = format!("{}/lease", key_path(&ns, "k"));
        cache.send(Method::DELETE, &path, &[("cache-lease", &token)], None).await.expect(200);
    };
    let (answers, ()) = tokio::join!(waiting, released);
    let won = answers.iter().filter(|answer| state(answer) == "won").count();
    assert_eq!((won, answers.len()), (1, 5));
}

async fn an_mset_fills_leases(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease-mset"));
    let (a, b) = (win(&cache, &ns, "a").await, win(&cache, &ns, "b").await);
    cache.delete(&ns, "b").await.expect(404);
    let entries = json!([
        {"key": "a", "value": 1, "lease": a},
        {"key": "b", "value": 1, "lease": b},
        {"key": "c", "value": 1, "lease": "unknown"},
    ]);
    let answer = json!({"success": false, "stored": 1, "errors": {"b": "lease_lost", "c": "lease_lost"}});
    cache.mset(&ns, &entries).await.expect_json(200, &answer);
    cache.get(&ns, "a").await.expect(200);
    cache.get(&ns, "b").await.expect(404);
}

async fn an_mget_gives_a_lease_on_each_missing_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease-mget"));
    cache.set(&ns, "there", "1").await.expect(201);
    let other = win(&cache, &ns, "held").await;
    let keys = ["there", "held", "missing", "missing"];
    let answer = cache.mget_or_lease(&ns, &keys, 10).await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "it has a token");
    let mut body = answer.json();
    let token = body["results"]["missing"]["lease"]["token"].take();
    let found = json!({"value": 1, "found": true});
    let missing = |lease| json!({"value": null, "found": false, "lease": lease});
    let held = missing(json!({"state": "held"}));
    let expected = json!({"there": found, "held": held, "missing": missing(json!({"state": "won", "token": null}))});
    assert_eq!(body, json!({"results": expected, "hits": 1, "misses": 2}));
    // A lease is given once, also to reads of one key.
    let again = cache.mget_or_lease(&ns, &keys, 10).await.expect(200);
    assert_eq!(again.header("cache-control"), Some("no-store"));
    assert_eq!(again.json()["results"], json!({"there": found, "held": held, "missing": held}));
    assert_eq!(state(&cache.get_with(&ns, "missing", NO_WAIT).await), "held");
    let entries = json!([
        {"key": "missing", "value": 2, "lease": token},
        {"key": "held", "value": 2, "lease": other},
    ]);
    cache.fill(&ns, &entries).await;
    let hits = cache.mget_or_lease(&ns, &keys, 10).await.expect(200);
    assert_eq!(hits.header("cache-control"), Some("no-cache"));
    assert_eq!(hits.number("hits"), 3);
}

async fn a_wrong_lease_of_an_mget_is_named(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease-mget-wrong"));
    for lease in ["0", "61", "-1", "1.5", "1e1", "\"10\"", "true", "[]"] {
        let text = cache.mget_raw(&ns, format!(r#"{{"lease":{lease},"keys":["k"]}}"#)).await;
        let text = text.expect_error(400, "invalid_body");
        assert!(text.contains("`lease`"), "{lease}: {text}");
    }
    let plain = cache.mget_raw(&ns, r#"{"lease":null,"keys":["k"]}"#).await.expect(200);
    assert_eq!(plain.json()["results"]["k"], json!({"value": null, "found": false}));
    for lease in [1, 60] {
        let key = format!("k{lease}");
        let answer = cache.mget_or_lease(&ns, &[&key], lease).await.expect(200);
        assert_eq!(answer.json()["results"][&key]["lease"]["state"], "won");
    }
}

async fn a_token_that_was_never_given_is_lost(service: &Service) {
    let (cache, ns) = (service.client(), namespace("lease-token"));
    win(&cache, &ns, "k").await;
    for token in ["", "x", "0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF", "*"] {
        fill(&cache, &ns, "k", token, "1").await.expect_error(412, "lease_lost");
    }
    cache.get(&ns, "k").await.expect(404);
}

#[tokio::test]
async fn a_change_on_one_instance_ends_a_lease_of_another_and_wakes_its_callers() {
    let redis = [Redis::start()];
    let [one, two] = [(); 2].map(|()| Service::start(Settings::on(&redis)));
    let (first, second, ns) = (one.client(), two.client(), namespace("lease-fleet"));
    let token = win(&first, &ns, "k").await;
    assert_eq!(state(&second.get_with(&ns, "k", NO_WAIT).await), "held");
    let waiting = second.get_with(&ns, "k", &[("prefer", "lease=10, wait=4")]);
    let filled = async {
        until_waiting(&second, 1).await;
        fill(&first, &ns, "k", &token, "\"loaded\"").await.expect(201);
    };
    let started = Instant::now();
    let (answer, ()) = tokio::join!(waiting, filled);
    assert_eq!(answer.expect(200).json()["value"], "loaded");
    assert!(started.elapsed() < Duration::from_secs(3));
    first.delete(&ns, "k").await.expect(200);
    // The second instance may still have a copy within the staleness bound.
    let from_shard = [("prefer", "lease=10"), ("cache-control", "no-cache")];
    let token = token_of(&second.get_with(&ns, "k", &from_shard).await);
    first.delete(&ns, "k").await.expect(404);
    fill(&second, &ns, "k", &token, "1").await.expect_error(412, "lease_lost");
}

#[tokio::test]
async fn a_lease_does_not_outlive_the_books_or_the_server() {
    let mut redis = [Redis::start()];
    let service = Service::start(Settings::on(&redis));
    let (cache, ns) = (service.client(), namespace("lease-lost"));
    // The totals of the namespace are lost: nothing tells whether a flush ended the lease.
    let lost = win(&cache, &ns, "k").await;
    redis[0].connect().command(&["DEL", &format!("cache_stats:{ns}")]);
    fill(&cache, &ns, "k", &lost, "1").await.expect_error(412, "lease_lost");
    // A write after the loss still ends a lease.
    let lost = win(&cache, &ns, "second").await;
    redis[0].connect().command(&["DEL", &format!("cache_stats:{ns}")]);
    cache.set(&ns, "second", "2").await.expect(201);
    fill(&cache, &ns, "second", &lost, "1").await.expect_error(412, "lease_lost");
    // Even if the clock stepped back since, so that new leases have smaller numbers.
    let lost = win(&cache, &ns, "fourth").await;
    let name = format!("sidecache:lease:{ns}:fourth");
    let lease = redis[0].connect().command(&["GET", &name]).text();
    redis[0].connect().command(&["DEL", &format!("cache_stats:{ns}")]);
    redis[0].connect().command(&["SET", &name, &format!("9{lease}"), "PX", "10000"]);
    win(&cache, &ns, "fifth").await;
    fill(&cache, &ns, "fourth", &lost, "1").await.expect_error(412, "lease_lost");
    // Nothing of it is in the way of a new lease.
    let new = win(&cache, &ns, "fourth").await;
    fill(&cache, &ns, "fourth", &new, "1").await.expect(201);
    // Another server with a copy of the lease: the change that ended it may be missing there.
    let lost = win(&cache, &ns, "third").await;
    let name = format!("sidecache:lease:{ns}:third");
    let stats =
        redis[0].connect().command(&["HMGET", &format!("cache_stats:{ns}"), "lease_last", "lease_floor"]).texts();
    let lease = redis[0].connect().command(&["GET", &name]).text();
    redis[0].kill();
    redis[0].run();
    redis[0].connect().command(&["SET", &name, &lease, "PX", "10000"]);
    let (books, [last, floor]) = (format!("cache_stats:{ns}"), [&*stats[0], &*stats[1]]);
    redis[0].connect().command(&["HSET", &books, "lease_last", last, "lease_floor", floor]);
    eventually(SOON, async || {
        ensure!(cache.set(&ns, "probe", "1").await.status < 300, "the shard is not back");
        Ok(())
    })
    .await;
    fill(&cache, &ns, "third", &lost, "1").await.expect_error(412, "lease_lost");
}

#[tokio::test]
async fn a_fill_that_finds_no_room_leaves_its_lease() {
    let redis = [Redis::start()];
    let service = Service::start(Settings::on(&redis));
    let (cache, ns) = (service.client(), namespace("lease-full"));
    cache.put_policy(&ns, r#"{"max_size_mb": 1, "eviction_policy": "NONE"}"#).await;
    let value = format!("\"{}\"", "v".repeat(400_000));
    cache.set(&ns, "a", &value).await.expect(201);
    cache.set(&ns, "b", &value).await.expect(201);
    let token = win(&cache, &ns, "k").await;
    fill(&cache, &ns, "k", &token, &value).await.expect_error(507, "storage_full");
    assert_eq!(state(&cache.get_with(&ns, "k", NO_WAIT).await), "held");
    cache.delete(&ns, "a").await.expect(200);
    fill(&cache, &ns, "k", &token, &value).await.expect(201);
}

#[tokio::test]
async fn a_caller_that_is_gone_gives_its_lease_back() {
    let redis = [Redis::start()];
    let service = Service::start(Settings::on(&redis));
    let (cache, ns) = (service.client(), namespace("lease-gone"));
    let token = win(&cache, &ns, "k").await;
    // This caller waits for the lease and goes away.
    let waiting = send_unread(&service, &ns, &[("prefer", "lease=60, wait=4")]).await;
    until_waiting(&cache, 1).await;
    drop(waiting);
    let path = format!("{}/lease", key_path(&ns, "k"));
    cache.send(Method::DELETE, &path, &[("cache-lease", &token)], None).await.expect(200);
    until_given_back(&cache, &ns, 404).await;
}

/// The bug: the lease of a 304 counted as delivered before the 304 was written, because a 304 has no body.
#[tokio::test]
async fn regression_a_304_that_nobody_reads_gives_its_lease_back() {
    let redis = Redis::start();
    let proxy = Proxy::in_front_of(&redis);
    let service = Service::start(Settings::none().set("redis_shards", format!("a={}", proxy.url())));
    let (cache, ns) = (service.client(), namespace("lease-304"));
    let body = r#"{"value":1,"ttl":600,"stale_while_revalidate":60}"#;
    let known = etag(&cache.put(&ns, "k", body).await.expect(201));
    let path = format!("{}?mode=stale", key_path(&ns, "k"));
    cache.send(Method::DELETE, &path, &[], None).await.expect(200);
    cache.get(&ns, "k").await.expect(200);
    // The client goes away while the shard is asked for a lease of 60,000 ms.
    proxy.hold("$5\r\n60000\r\n");
    let asking = send_unread(&service, &ns, &[("prefer", "lease=60"), ("if-none-match", &known)]).await;
    eventually(SOON, async || {
        ensure!(proxy.held() > 0, "the shard is not asked");
        Ok(())
    })
    .await;
    drop(asking);
    proxy.release();
    until_given_back(&cache, &ns, 200).await;
}

/// Sends a GET of the entry `k` on a connection of its own.
async fn send_unread(service: &Service, ns: &str, headers: &[(&str, &str)]) -> TcpStream {
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n", key_path(ns, "k"));
    stream.write_all(request.as_bytes()).await.expect("the service reads");
    stream
}

/// Returns when the lease of a caller that was gone is given back, and the next caller gets it.
async fn until_given_back(cache: &Client, ns: &str, status: u16) {
    eventually(SOON, async || {
        let answer = cache.get_with(ns, "k", NO_WAIT).await.expect(status);
        ensure!(state(&answer) == "won", "the lease is still held");
        Ok(())
    })
    .await;
    let metrics = cache.metrics().await;
    assert_eq!(metrics.total_with("sidecache_leases_total", &[("outcome", "returned")]), 1.0);
}

/// The bug: the fill's message was lost with the subscription of the waiter's instance, and the waiter slept until the
/// end of the lease.
#[tokio::test]
async fn regression_a_lost_wake_up_costs_a_waiter_little() {
    let redis = Redis::start();
    let proxy = Proxy::in_front_of(&redis);
    let settings =
        |url: String| Settings::none().set("redis_shards", format!("a={url}")).set("request_timeout_ms", 25_000);
    let [deaf, other] = [proxy.url(), redis.url()].map(|url| Service::start(settings(url)));
    let (deaf, other, ns) = (deaf.client(), other.client(), namespace("lease-deaf"));
    let token = win(&other, &ns, "k").await;
    let waiting = deaf.get_with(&ns, "k", &[("prefer", "lease=60, wait=20")]);
    let filled = async {
        until_waiting(&deaf, 1).await;
        // The subscription is dead, and no new one succeeds.
        proxy.hold("SUBSCRIBE");
        proxy.swallow(Of::Subscribers);
        fill(&other, &ns, "k", &token, "1").await.expect(201);
        Instant::now()
    };
    let (answer, filled) = tokio::join!(waiting, filled);
    assert_eq!(answer.expect(200).value(), "1");
    let late = filled.elapsed();
    assert!(late < Duration::from_secs(8), "the waiter asked again only after {late:?}");
}

/// Without L1 every caller that wakes up needs an answer of the shard. They share one.
#[tokio::test]
async fn callers_that_wait_without_l1_share_an_answer_of_the_shard() {
    let service = Service::start(Settings::shards().set("l1_max_mb", 0));
    let (cache, ns) = (service.client(), namespace("lease-without-l1"));
    let token = win(&cache, &ns, "k").await;
    let waiting = join_all((0..20).map(|_| cache.get_with(&ns, "k", &[("prefer", "lease=10, wait=4")])));
    let filled = async {
        until_waiting(&cache, 20).await;
        let before = cache.metrics().await.total("sidecache_shard_reads_total");
        fill(&cache, &ns, "k", &token, "1").await.expect(201);
        before
    };
    let (answers, before) = tokio::join!(waiting, filled);
    let collapsed =
        |answer: &&Answer| answer.header("cache-status").is_some_and(|status| status.contains("collapsed"));
    let shared = answers.iter().filter(collapsed).count();
    for answer in &answers {
        assert_eq!(answer.status, 200);
    }
    let reads = cache.metrics().await.total("sidecache_shard_reads_total") - before;
    // The invalidation of the fill may wake them a second time.
    assert!(reads < 10.0 && shared >= 10, "{reads} reads of the shard for 20 callers, {shared} shared");
}
