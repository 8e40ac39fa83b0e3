//! `Cache-Control` of a read: how fresh the answer must be, and who may give it; and `max-staleness-ms` in
//! `Cache-Status`, which says how fresh an answer of L1 is.

use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::answer::Answer;
use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, cache_path, key_path, namespace};
use crate::support::eventually::{INTERVAL, LATER, SOON, eventually};
use crate::support::gate::Gate;
use crate::support::process::Signal;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, Store};

on_both_stores! {
    an_entry_older_than_max_age_is_a_miss,
    an_entry_with_less_time_left_than_min_fresh_is_a_miss,
    only_if_cached_is_answered_from_memory_alone,
    directives_that_cannot_be_met_or_read_are_never_looser,
    the_keys_of_an_mget_obey_the_directives_of_the_request,
    a_miss_because_of_a_directive_can_win_the_lease,
    an_entry_past_its_time_answers_only_who_accepts_that,
}

/// A text in every message that advances the watermark of an instance.
const READINGS: &str = "sidecache:watermark";

async fn ask(cache: &Client, ns: &str, key: &str, directives: &str) -> Answer {
    cache.get_with(ns, key, &[("cache-control", directives)]).await
}

async fn mget(cache: &Client, ns: &str, keys: &[&str], directives: &str) -> Value {
    let body = json!({ "keys": keys }).to_string().into_bytes();
    let path = format!("{}/mget", cache_path(ns));
    cache.send(Method::POST, &path, &[("cache-control", directives)], Some(body)).await.expect(200).json()
}

/// Reads until the instance answers from L1.
async fn in_memory(cache: &Client, ns: &str, key: &str) -> Answer {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await.expect(200);
        ensure!(answer.is_l1_hit(), "{:?}", answer.header("cache-status"));
        Ok(answer)
    })
    .await
}

/// Expects a miss because of this directive, which the headers and the body name.
#[track_caller]
fn unmet(answer: Answer, directive: &str) {
    unmet_as("request", answer, directive);
}

/// The same, with the reason that `Cache-Status` gives: `request`, or `stale` for an entry past its time.
#[track_caller]
fn unmet_as(reason: &str, answer: Answer, directive: &str) {
    let status = answer.header("cache-status").unwrap_or_default();
    let tier = status.split(", ").next().unwrap_or_default();
    assert!(tier.contains(&format!("; fwd={reason}; ")) && tier.ends_with(directive), "{status}");
    assert_eq!((answer.header("x-cache-hit"), answer.header("etag")), (Some("false"), None));
    let text = answer.expect_error(404, "key_not_found");
    assert!(text.contains(directive), "{text}");
}

/// Hits and misses of the namespace.
async fn counts(cache: &Client, ns: &str) -> (u64, u64) {
    let stats = cache.stats(ns).await.expect(200);
    (stats.number("hits"), stats.number("misses"))
}

async fn an_entry_older_than_max_age_is_a_miss(service: &Service) {
    let (cache, ns) = (service.client(), namespace("max-age"));
    cache.set_for(&ns, "k", "1", 1_000).await.expect(201);
    let mut young = 0;
    let aged = eventually(SOON, async || {
        let answer = ask(&cache, &ns, "k", "max-age=1").await;
        young += u64::from(answer.status == 200);
        ensure!(answer.status == 404, "{}", answer.status);
        Ok(answer)
    })
    .await;
    unmet(aged, "max-age");
    unmet(ask(&cache, &ns, "k", "max-age=0").await, "max-age");
    assert_eq!(ask(&cache, &ns, "k", "max-age=1000").await.expect(200).value(), "1");
    assert_eq!(ask(&cache, &ns, "k", "Max-Age=\"99999999999999999999999\"").await.expect(200).value(), "1");
    cache.get(&ns, "k").await.expect(200);
    // An answer to a HEAD, and one with the full metadata.
    let headers = [("cache-control", "max-age=1")];
    let head = cache.send(Method::HEAD, &key_path(&ns, "k"), &headers, None).await.expect(404);
    assert_eq!(head.header("x-cache-hit"), Some("false"));
    let path = format!("{}?metadata=full", key_path(&ns, "k"));
    unmet(cache.send(Method::GET, &path, &headers, None).await, "max-age");
    cache.send(Method::GET, &path, &[("cache-control", "max-age=1000")], None).await.expect(200);
    // A miss because of a directive counts as a miss, and every answered read counts once.
    assert_eq!(counts(&cache, &ns).await, (young + 4, 4));
    // A new value is young again.
    cache.set(&ns, "k", "2").await.expect(200);
    assert_eq!(ask(&cache, &ns, "k", "max-age=60").await.expect(200).value(), "2");
}

async fn an_entry_with_less_time_left_than_min_fresh_is_a_miss(service: &Service) {
    let (cache, ns) = (service.client(), namespace("min-fresh"));
    cache.put_policy(&ns, json!({"default_ttl": 0}).to_string()).await.expect(201);
    cache.set_for(&ns, "mortal", "1", 100).await.expect(201);
    cache.set(&ns, "immortal", "2").await.expect(201);
    // Older than `max-age=0` allows.
    tokio::time::sleep(INTERVAL).await;
    for _ in 0..3 {
        ask(&cache, &ns, "mortal", "min-fresh=50").await.expect(200);
        unmet(ask(&cache, &ns, "mortal", "min-fresh=101").await, "min-fresh");
        ask(&cache, &ns, "immortal", "min-fresh=4000000000").await.expect(200);
        unmet(ask(&cache, &ns, "immortal", "min-fresh=1, max-age=0").await, "max-age");
    }
    ask(&cache, &ns, "absent", "min-fresh=1").await.expect_error(404, "key_not_found");
    assert_eq!(counts(&cache, &ns).await, (6, 7));
}

async fn only_if_cached_is_answered_from_memory_alone(service: &Service) {
    let (cache, ns) = (service.client(), namespace("only"));
    cache.set_for(&ns, "k", "1", 1_000).await.expect(201);
    if service.store() == Store::Embedded {
        // Everything is in memory.
        for directives in ["only-if-cached", "only-if-cached, no-cache"] {
            ask(&cache, &ns, "k", directives).await.expect(200);
            ask(&cache, &ns, "absent", directives).await.expect_error(404, "key_not_found");
        }
        unmet(ask(&cache, &ns, "k", "only-if-cached, min-fresh=5000").await, "min-fresh");
        assert_eq!(counts(&cache, &ns).await, (2, 3));
        return;
    }
    for key in ["k", "absent"] {
        ask(&cache, &ns, key, "only-if-cached").await.expect_error(504, "not_in_memory");
    }
    in_memory(&cache, &ns, "k").await;
    let before = counts(&cache, &ns).await;
    assert!(ask(&cache, &ns, "k", "only-if-cached").await.expect(200).is_l1_hit());
    assert!(ask(&cache, &ns, "k", "only-if-cached, max-age=1000, min-fresh=5").await.expect(200).is_l1_hit());
    // The copy does not meet the directives, and the shard may not be asked.
    for directives in
        ["only-if-cached, min-fresh=5000", "only-if-cached, no-cache", "only-if-cached, max-staleness-ms=0"]
    {
        ask(&cache, &ns, "k", directives).await.expect_error(504, "not_in_memory");
    }
    let headers = [("cache-control", "only-if-cached")];
    cache.send(Method::HEAD, &key_path(&ns, "absent"), &headers, None).await.expect(504);
    let path = format!("{}?metadata=full", key_path(&ns, "k"));
    cache.send(Method::GET, &path, &headers, None).await.expect_error(504, "not_in_memory");
    // A read that was not answered is neither a hit nor a miss.
    assert_eq!(counts(&cache, &ns).await, (before.0 + 2, before.1));
}

async fn directives_that_cannot_be_met_or_read_are_never_looser(service: &Service) {
    let (cache, ns) = (service.client(), namespace("malformed"));
    let is_remote = service.store() == Store::Shards;
    cache.set_for(&ns, "k", "1", 1_000).await.expect(201);
    if is_remote {
        in_memory(&cache, &ns, "k").await;
    }
    // What is not a number asks the shard, as `no-cache` does.
    for directives in ["max-age=soon", "max-age", "min-fresh=-1", "max-stale=1.5", "max-staleness-ms=", "no-cache"] {
        let answer = ask(&cache, &ns, "k", directives).await.expect(200);
        assert!(!answer.is_l1_hit(), "{directives}: {:?}", answer.headers);
    }
    // The strictest of several counts, also across lines.
    let lines = [("cache-control", "max-age=1000, min-fresh=1"), ("cache-control", "min-fresh=5000")];
    unmet(cache.get_with(&ns, "k", &lines).await, "min-fresh");
    // Unknown directives, and names inside of a quoted text, mean nothing.
    if is_remote {
        in_memory(&cache, &ns, "k").await;
    }
    let answer = ask(&cache, &ns, "k", "no-store, x=\"no-cache, only-if-cached\", y").await.expect(200);
    assert_eq!(answer.is_l1_hit(), is_remote, "{:?}", answer.headers);
}

async fn the_keys_of_an_mget_obey_the_directives_of_the_request(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mget-directives"));
    cache.set_for(&ns, "short", "1", 100).await.expect(201);
    cache.set_for(&ns, "long", "2", 1_000).await.expect(201);
    let keys = ["short", "long", "absent"];
    let answer = mget(&cache, &ns, &keys, "min-fresh=500").await;
    assert_eq!((&answer["hits"], &answer["misses"], &answer["errors"]), (&json!(1), &json!(2), &Value::Null));
    assert_eq!(answer["results"]["short"], json!({"value": null, "found": false}));
    assert_eq!(answer["results"]["long"], json!({"value": 2, "found": true}));
    eventually(SOON, async || {
        let answer = mget(&cache, &ns, &keys, "max-age=0").await;
        ensure!(answer["misses"] == 3, "{answer}");
        Ok(())
    })
    .await;
    let answer = mget(&cache, &ns, &keys, "no-cache").await;
    assert_eq!((&answer["hits"], &answer["misses"]), (&json!(2), &json!(1)));
    if service.store() == Store::Embedded {
        let answer = mget(&cache, &ns, &keys, "only-if-cached").await;
        assert_eq!((&answer["hits"], &answer["misses"], &answer["errors"]), (&json!(2), &json!(1), &Value::Null));
        return;
    }
    cache.set_for(&ns, "short", "3", 100).await.expect(200);
    in_memory(&cache, &ns, "long").await;
    let before = counts(&cache, &ns).await;
    let answer = mget(&cache, &ns, &keys, "only-if-cached").await;
    assert_eq!(
        (&answer["hits"], &answer["misses"], &answer["errors"]),
        (&json!(1), &json!(0), &json!(2)),
        "{answer}"
    );
    assert_eq!(answer["results"]["absent"], json!({"value": null, "found": false, "error": "not_in_memory"}));
    assert_eq!(counts(&cache, &ns).await, (before.0 + 1, before.1));
    // Only copies with a recent proof.
    let read = async || cache.metrics().await.total("sidecache_shard_reads_total");
    let before = read().await;
    mget(&cache, &ns, &["long"], "max-staleness-ms=0").await;
    assert!(read().await > before, "the shard was not asked");
}

async fn a_miss_because_of_a_directive_can_win_the_lease(service: &Service) {
    let (cache, ns) = (service.client(), namespace("leased-directives"));
    cache.set_for(&ns, "k", "1", 100).await.expect(201);
    let old = cache.get(&ns, "k").await.expect(200);
    let lasting = |more| [("cache-control", "min-fresh=500"), ("prefer", more)];
    let won = cache.get_with(&ns, "k", &lasting("lease=10")).await;
    let lease = won.header("cache-lease").unwrap_or_default().to_owned();
    unmet(won, "min-fresh");
    let token = lease.strip_prefix("won;token=\"").and_then(|rest| rest.split('"').next());
    let token = token.unwrap_or_else(|| panic!("not won: {lease}"));
    // Who has no such wish still reads the entry; others with the wish wait.
    let same = cache.get_with(&ns, "k", &[("prefer", "lease=10")]).await.expect(200);
    assert_eq!((same.value(), same.header("etag")), ("1", old.header("etag")));
    for _ in 0..3 {
        let held = cache.get_with(&ns, "k", &lasting("lease=10")).await;
        assert!(held.header("cache-lease").is_some_and(|lease| lease.starts_with("held")), "{:?}", held.headers);
        unmet(held, "min-fresh");
    }
    let waiting = async { cache.get_with(&ns, "k", &lasting("lease=10, wait=4")).await };
    let filling = async {
        tokio::time::sleep(INTERVAL).await;
        let body = br#"{"value":2,"ttl":1000}"#.to_vec();
        cache.send(Method::PUT, &key_path(&ns, "k"), &[("cache-lease", token)], Some(body)).await.expect(200);
    };
    let (woken, ()) = tokio::join!(waiting, filling);
    assert_eq!(woken.expect(200).value(), "2");
    cache.get_with(&ns, "k", &lasting("lease=10")).await.expect(200);
    // A change ends such a lease, too.
    let won =
        cache.get_with(&ns, "k", &[("cache-control", "min-fresh=5000"), ("prefer", "lease=10")]).await.expect(404);
    let lease = won.header("cache-lease").unwrap_or_default();
    let token = lease.strip_prefix("won;token=\"").and_then(|rest| rest.split('"').next()).expect("won");
    cache.set_for(&ns, "k", "3", 100).await.expect(200);
    let body = br#"{"value":4}"#.to_vec();
    let late = cache.send(Method::PUT, &key_path(&ns, "k"), &[("cache-lease", token)], Some(body)).await;
    late.expect_error(412, "lease_lost");
}

async fn an_entry_past_its_time_answers_only_who_accepts_that(service: &Service) {
    let (cache, ns) = (service.client(), namespace("past-its-time"));
    let body = json!({"value": 1, "ttl": 1, "stale_while_revalidate": 600}).to_string();
    cache.put(&ns, "k", body).await.expect(201);
    // Past its time for more than a second.
    eventually(SOON, async || {
        let status = ask(&cache, &ns, "k", "max-stale=1").await.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await;
    for directives in ["", "max-stale", "max-stale=500", "max-age=1000, max-stale", "no-transform"] {
        let answer = ask(&cache, &ns, "k", directives).await.expect(200);
        assert_eq!(answer.header("x-cache-ttl"), Some("0"), "{directives}");
    }
    for (directives, reason, directive) in [
        ("max-stale=1", "stale", "max-stale"),
        ("max-stale=0, max-age=1000", "stale", "max-stale"),
        ("no-cache", "stale", "no-cache"),
        ("no-cache, max-stale", "stale", "no-cache"),
        ("max-age=1000", "request", "max-age"),
        ("min-fresh=0, max-stale", "request", "min-fresh"),
    ] {
        unmet_as(reason, ask(&cache, &ns, "k", directives).await, directive);
        assert_eq!(mget(&cache, &ns, &["k"], directives).await["misses"], 1, "{directives}");
    }
    // The miss can win the lease, and its value is fresh again.
    let headers = [("cache-control", "no-cache"), ("prefer", "lease=10")];
    let won = cache.get_with(&ns, "k", &headers).await;
    assert!(won.header("cache-lease").is_some_and(|lease| lease.starts_with("won")), "{:?}", won.headers);
    unmet_as("stale", won, "no-cache");
}

/// An instance on one shard, and a gate that can hold back the proofs of the shard. The bound is long, so that L1 still
/// answers while they are held back.
fn gated(redis: &Redis, max_staleness_ms: u64) -> (Gate, Service) {
    let gate = Gate::in_front_of(redis);
    let settings = Settings::on(std::slice::from_ref(redis))
        .set("redis_shards", format!("a={}", gate.url()))
        .set("max_staleness_ms", max_staleness_ms);
    let service = Service::start(settings);
    (gate, service)
}

#[tokio::test]
async fn the_stated_staleness_is_the_age_of_the_last_proof() {
    let redis = Redis::start();
    let (gate, service) = gated(&redis, 4_000);
    let (cache, ns) = (service.client(), namespace("stated"));
    cache.set(&ns, "k", "1").await.expect(201);
    // A proof was made before this moment, and not longer ago than the answer says.
    let asked = Instant::now();
    let answer = in_memory(&cache, &ns, "k").await;
    let stated = Duration::from_millis(answer.max_staleness_ms().expect("an answer of L1"));
    let proven_at_least = asked.checked_sub(stated).expect("the machine runs for some time");
    gate.hold(READINGS);
    let held = eventually(SOON, async || {
        ensure!(gate.held() > 0, "no proof was held back yet");
        Ok(Instant::now())
    })
    .await;
    let mut most = 0;
    for read in 0.. {
        let asked = Instant::now();
        // In turn through the fast path and through the router.
        let directives: &[_] = if read % 2 == 0 { &[] } else { &[("cache-control", "no-transform")] };
        let answer = cache.get_with(&ns, "k", directives).await.expect(200);
        let answered = Instant::now();
        let Some(stated) = answer.max_staleness_ms().map(Duration::from_millis) else { break };
        most = stated.as_millis();
        // The last proof came before `held` and after `proven_at_least`. One millisecond is rounded up.
        assert!(
            stated >= asked.saturating_duration_since(held),
            "{stated:?} {:?} after the last proof",
            asked - held
        );
        let longest = answered - proven_at_least + Duration::from_millis(1);
        assert!(stated <= longest, "{stated:?}, but the proof is at most {longest:?} old");
        tokio::time::sleep(INTERVAL).await;
    }
    assert!((2_000..=4_000).contains(&most), "L1 answered until {most} ms");
    gate.release(READINGS);
}

#[tokio::test]
async fn a_read_may_ask_for_a_tighter_bound_than_the_settings() {
    let redis = Redis::start();
    let (gate, service) = gated(&redis, 6_000);
    let (cache, ns) = (service.client(), namespace("tighter"));
    for key in ["k", "other"] {
        cache.set(&ns, key, "1").await.expect(201);
        in_memory(&cache, &ns, key).await;
    }
    gate.hold(READINGS);
    eventually(SOON, async || {
        let stated = cache.get(&ns, "k").await.expect(200).max_staleness_ms();
        ensure!(stated.is_none_or(|stated| stated > 700), "{stated:?}");
        Ok(())
    })
    .await;
    let answer = ask(&cache, &ns, "k", "max-staleness-ms=500").await.expect(200);
    let status = answer.header("cache-status").unwrap_or_default();
    assert!(status.starts_with("sidecache-shard; hit"), "{status}");
    assert!(status.ends_with(", sidecache-l1; fwd=request; detail=max-staleness-ms"), "{status}");
    assert!(ask(&cache, &ns, "k", "max-staleness-ms=60000").await.expect(200).is_l1_hit());
    ask(&cache, &ns, "k", "max-staleness-ms=500, only-if-cached").await.expect_error(504, "not_in_memory");
    // A larger number than the setting does not loosen it.
    eventually(LATER, async || {
        let answer = ask(&cache, &ns, "other", "max-staleness-ms=60000").await.expect(200);
        ensure!(!answer.is_l1_hit(), "{:?}", answer.header("cache-status"));
        Ok(())
    })
    .await;
    gate.release(READINGS);
    // `0` is never met: every read asks the shard.
    in_memory(&cache, &ns, "k").await;
    for _ in 0..3 {
        assert!(!ask(&cache, &ns, "k", "max-staleness-ms=0").await.expect(200).is_l1_hit());
    }
}

/// The value of an answer as a number; 0 for a miss.
fn number(answer: &Answer) -> u64 {
    if answer.status == 404 { 0 } else { answer.value().parse().expect("the values are numbers") }
}

#[tokio::test]
async fn no_answer_misses_a_write_that_is_older_than_it_states() {
    let (a, b) = {
        let settings = Settings::shards();
        (Service::start(settings.clone()), Service::start(settings))
    };
    let (writer, reader, ns) = (a.client(), b.client(), namespace("true"));
    writer.set(&ns, "k", "1").await.expect(201);
    in_memory(&reader, &ns, "k").await;
    // When each write was acknowledged; the value is the index plus 1.
    let mut acknowledged = vec![Instant::now()];
    let (mut from_l1, mut old) = (0, 0);
    for round in 0..40 {
        // While the reader is stopped it learns nothing, and it must not answer as if it had been awake.
        let is_stopped = round % 8 == 7;
        if is_stopped {
            b.signal(Signal::Stop);
        }
        writer.set(&ns, "k", &(acknowledged.len() + 1).to_string()).await.expect(200);
        acknowledged.push(Instant::now());
        if is_stopped {
            tokio::time::sleep(Duration::from_millis(300)).await;
            b.signal(Signal::Cont);
        }
        for read in 0..20 {
            let directives: &[_] = if read % 2 == 0 { &[] } else { &[("cache-control", "max-staleness-ms=100")] };
            let asked = Instant::now();
            let answer = reader.get_with(&ns, "k", directives).await.expect(200);
            let stated = answer.max_staleness_ms();
            assert!(directives.is_empty() || stated.is_none_or(|stated| stated <= 100), "{stated:?}");
            from_l1 += u64::from(stated.is_some());
            let Some(replaced) = acknowledged.get(number(&answer) as usize) else { continue };
            old += 1;
            let behind = asked.saturating_duration_since(*replaced);
            let stated = Duration::from_millis(stated.unwrap_or(0));
            assert!(behind <= stated, "the answer was replaced {behind:?} before, {:?}", answer.headers);
        }
    }
    assert!(from_l1 > 50, "only {from_l1} answers of L1, {old} of them were replaced");
}

#[tokio::test]
async fn stale_answers_obey_the_directives() {
    let mut server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("stale-directives"));
    cache.put_policy(&ns, json!({"stale_if_error": 600}).to_string()).await.expect(201);
    cache.set_for(&ns, "k", "1", 1_000).await.expect(201);
    in_memory(&cache, &ns, "k").await;
    server.kill();
    // Until the copy has been stale for more than a second.
    eventually(LATER, async || {
        let answer = cache.get(&ns, "k").await.expect(200);
        let status = answer.header("cache-status").unwrap_or_default();
        ensure!(answer.header("warning").is_some() && !status.contains("ttl=-1;"), "{status}");
        assert!(answer.max_staleness_ms().is_some_and(|stated| stated > 1_000), "{status}");
        Ok(())
    })
    .await;
    for directives in [
        "max-stale",
        "max-stale=60",
        "max-age=1000, max-stale",
        "max-staleness-ms=100000",
        "no-transform",
        "max-stale=600",
    ] {
        let answer = ask(&cache, &ns, "k", directives).await.expect(200);
        assert!(answer.header("warning").is_some(), "{directives}: {:?}", answer.headers);
    }
    for directives in [
        "max-stale=1",
        "max-stale=0",
        "no-cache",
        "no-cache, max-stale",
        "max-age=1000",
        "max-age=0, max-stale",
        "min-fresh=0",
        "min-fresh=1, max-stale",
        "max-staleness-ms=1000",
    ] {
        let answer = ask(&cache, &ns, "k", directives).await;
        assert_eq!(answer.header("warning"), None, "{directives}");
        answer.expect_one_of_errors(503, &["shard_unavailable", "timeout"]);
    }
    ask(&cache, &ns, "k", "only-if-cached, max-stale").await.expect_error(504, "not_in_memory");
    let stale = json!({"value": 1, "found": true, "stale": true});
    assert_eq!(mget(&cache, &ns, &["k"], "max-stale=60").await["results"]["k"], stale);
    let refused = mget(&cache, &ns, &["k"], "max-stale=0").await;
    assert_eq!((&refused["hits"], &refused["errors"]), (&json!(0), &json!(1)), "{refused}");
}

#[tokio::test]
async fn a_silent_shard_is_not_asked_for_what_memory_has() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)).set("max_staleness_ms", 10_000));
    let (cache, ns) = (service.client(), namespace("silent"));
    cache.set_for(&ns, "k", "1", 1_000).await.expect(201);
    in_memory(&cache, &ns, "k").await;
    server.signal(Signal::Stop);
    let asked = Instant::now();
    assert!(ask(&cache, &ns, "k", "only-if-cached").await.expect(200).is_l1_hit());
    ask(&cache, &ns, "absent", "only-if-cached").await.expect_error(504, "not_in_memory");
    assert!(asked.elapsed() < Duration::from_secs(1), "a silent shard was waited for: {:?}", asked.elapsed());
    // A tighter bound cannot be proven now.
    ask(&cache, &ns, "k", "max-staleness-ms=0").await.expect_one_of_errors(503, &["shard_unavailable", "timeout"]);
    server.signal(Signal::Cont);
    let errors = cache.metrics().await.total("sidecache_http_errors_total");
    assert!(errors >= 2.0, "{errors}");
}
