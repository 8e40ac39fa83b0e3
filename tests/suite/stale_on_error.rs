//! `stale_if_error`: while the owning shard cannot answer, L1 may answer for this many seconds past the bound and
//! past an entry's expiry, and marks such answers as stale. The tests kill and pause real servers.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{INTERVAL, LATER, SOON, eventually};
use crate::support::process::Signal;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// The default of `max_staleness_ms`.
const MAX_STALENESS: Duration = Duration::from_millis(1_000);

const AWAY: [&str; 2] = ["shard_unavailable", "timeout"];

fn settings(server: &Redis) -> Settings {
    Settings::on(std::slice::from_ref(server))
}

async fn allow(cache: &Client, ns: &str, seconds: u64) {
    let answer = cache.put_policy(ns, json!({ "stale_if_error": seconds }).to_string()).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
}

async fn in_memory(cache: &Client, ns: &str, key: &str) {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.is_l1_hit() && !is_stale(&answer), "{:?}", answer.header("cache-status"));
        Ok(())
    })
    .await;
}

/// Whether an answer is stale. Checks that either all stale markers are set or none.
#[track_caller]
fn is_stale(answer: &Answer) -> bool {
    let status = answer.header("cache-status").unwrap_or("");
    let Some(warning) = answer.header("warning") else {
        assert!(!status.contains("stale-if-error"), "{status}");
        return false;
    };
    assert_eq!(warning, "111 sidecache \"Revalidation Failed\"");
    assert_eq!((answer.header("x-cache-hit"), answer.header("x-cache-ttl")), (Some("true"), Some("0")));
    let l1 = status
        .strip_prefix("sidecache-shard; fwd=miss; detail=a/shard_unavailable, ")
        .or_else(|| status.strip_prefix("sidecache-shard; fwd=miss; detail=a/timeout, "));
    let l1 = l1.unwrap_or_else(|| panic!("the shard's failure must come first: {status}"));
    let ttl =
        l1.strip_prefix("sidecache-l1; hit; ttl=").and_then(|rest| rest.strip_suffix("; detail=stale-if-error"));
    let (ttl, _) = ttl.and_then(|ttl| ttl.split_once("; max-staleness-ms=")).unwrap_or_else(|| panic!("{status}"));
    let ttl: i64 = ttl.parse().expect("a whole number");
    assert!(answer.max_staleness_ms().is_some());
    assert!(ttl < 0, "a stale answer has a negative ttl: {status}");
    true
}

/// Reads until the answer is stale. Every answer before must be a 200.
async fn stale(cache: &Client, ns: &str, key: &str) -> Answer {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await.expect(200);
        ensure!(is_stale(&answer), "{:?}", answer.header("cache-status"));
        Ok(answer)
    })
    .await
}

async fn refused(cache: &Client, ns: &str, key: &str) {
    let answer = cache.get(ns, key).await;
    assert_eq!(answer.header("warning"), None);
    answer.expect_one_of_errors(503, &AWAY);
}

#[tokio::test]
async fn without_a_policy_that_allows_it_nothing_stale_is_answered() {
    let mut server = Redis::start();
    let service = Service::start(settings(&server));
    let (cache, ns) = (service.client(), namespace("stale"));
    cache.set(&ns, "k", "1").await.expect(201);
    in_memory(&cache, &ns, "k").await;
    server.kill();
    let killed = Instant::now();
    while killed.elapsed() < 2 * MAX_STALENESS {
        let started = Instant::now();
        let answer = cache.get(&ns, "k").await;
        assert!(!is_stale(&answer), "{:?}", answer.headers);
        if answer.status == 200 {
            assert!(started - killed <= MAX_STALENESS, "past the bound: {:?}", answer.headers);
        }
        tokio::time::sleep(INTERVAL).await;
    }
    refused(&cache, &ns, "k").await;
    let answer = cache.mget(&ns, &["k"]).await.expect(200).json();
    assert_eq!((&answer["hits"], &answer["errors"]), (&json!(0), &json!(1)), "{answer}");
    assert_eq!(cache.metrics().await.total("sidecache_stale_answers_total"), 0.0);
}

#[tokio::test]
async fn a_copy_is_served_as_stale_past_the_bound_and_past_its_expiry() {
    let mut server = Redis::start();
    let service = Service::start(settings(&server));
    let (cache, ns) = (service.client(), namespace("stale"));
    allow(&cache, &ns, 600).await;
    cache.set(&ns, "lasting", "1.0").await.expect(201);
    in_memory(&cache, &ns, "lasting").await;
    cache.set_for(&ns, "expiring", "\"short\"", 4).await.expect(201);
    let written = Instant::now();
    in_memory(&cache, &ns, "expiring").await;
    let etag = cache.get(&ns, "lasting").await.header("etag").expect("an ETag").to_owned();
    server.kill();

    let answer = stale(&cache, &ns, "lasting").await;
    assert_eq!((answer.value(), answer.metadata().ttl_remaining), ("1.0", Some(0)));
    assert_eq!(answer.header("etag"), Some(etag.as_str()));
    // Expired, while reads kept looking for it.
    eventually(LATER, async || {
        let answer = cache.get(&ns, "expiring").await.expect(200);
        ensure!(written.elapsed() > Duration::from_secs(4), "not yet");
        assert!(is_stale(&answer) && answer.value() == "\"short\"", "{:?}", answer.headers);
        Ok(())
    })
    .await;

    let before = cache.metrics().await;
    let head = cache.head(&ns, "expiring").await.expect(200);
    assert!(is_stale(&head) && head.body.is_empty());
    let same = cache.get_with(&ns, "lasting", &[("if-none-match", &etag)]).await.expect(304);
    assert!(is_stale(&same));
    let answer = cache.mget(&ns, &["lasting", "expiring", "absent"]).await.expect(200).json();
    assert_eq!((&answer["hits"], &answer["misses"], &answer["errors"]), (&json!(2), &json!(0), &json!(1)));
    let results = &answer["results"];
    assert_eq!(results["lasting"], json!({"value": 1.0, "found": true, "stale": true}));
    assert_eq!(results["expiring"], json!({"value": "short", "found": true, "stale": true}));
    assert_eq!(results["absent"]["found"], false);
    let after = cache.metrics().await;
    for name in ["sidecache_stale_answers_total", "sidecache_l1_hits_total"] {
        assert_eq!(after.total(name) - before.total(name), 4.0, "{name}");
    }

    // A request for the shard's own answer gets an error, and so do misses and writes.
    for answer in [
        cache.get_with(&ns, "lasting", &[("cache-control", "no-cache")]).await,
        cache.fetch(&format!("{}?metadata=full", key_path(&ns, "lasting"))).await,
        cache.get(&ns, "absent").await,
    ] {
        assert!(!is_stale(&answer));
        answer.expect_one_of_errors(503, &AWAY);
    }
    cache.set(&ns, "other", "1").await.expect_one_of_errors(503, &["shard_unavailable", "outcome_unknown"]);

    // The shard is back and empty. Its answers replace the stale copies, which do not come back.
    server.run();
    eventually(LATER, async || {
        let answer = cache.get(&ns, "lasting").await;
        ensure!(answer.status == 404, "{}", answer.status);
        Ok(())
    })
    .await;
    for _ in 0..20 {
        cache.get(&ns, "lasting").await.expect(404);
    }
    cache.set(&ns, "expiring", "2").await.expect(201);
    in_memory(&cache, &ns, "expiring").await;
    server.kill();
    assert_eq!(stale(&cache, &ns, "expiring").await.value(), "2");
    refused(&cache, &ns, "lasting").await;
}

#[tokio::test]
async fn stale_answers_end_after_the_configured_seconds() {
    const SECONDS: u64 = 4;
    let mut server = Redis::start();
    let service = Service::start(settings(&server));
    let (cache, ns) = (service.client(), namespace("stale"));
    allow(&cache, &ns, SECONDS).await;
    cache.set(&ns, "lasting", "1").await.expect(201);
    in_memory(&cache, &ns, "lasting").await;
    cache.set_for(&ns, "expiring", "1", 2).await.expect(201);
    let expired = Instant::now() + Duration::from_secs(2);
    in_memory(&cache, &ns, "expiring").await;
    server.kill();
    let killed = Instant::now();
    let ends = [("lasting", killed + MAX_STALENESS), ("expiring", expired.min(killed + MAX_STALENESS))]
        .map(|(key, fresh_until)| (key, fresh_until + Duration::from_secs(SECONDS)));
    let mut seen = 0;
    while Instant::now() < ends[0].1 + MAX_STALENESS {
        for (key, end) in ends {
            let started = Instant::now();
            let answer = cache.get(&ns, key).await;
            if is_stale(&answer) {
                seen += 1;
                assert!(started <= end, "{key}: {:?} too late: {:?}", started - end, answer.headers);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
    assert!(seen > 0, "nothing stale was answered at all");
    refused(&cache, &ns, "lasting").await;
    refused(&cache, &ns, "expiring").await;
}

#[tokio::test]
async fn an_invalidated_copy_is_not_served_as_stale() {
    let mut server = Redis::start();
    let shared = settings(&server);
    let (a, b) = (Service::start(shared.clone()), Service::start(shared));
    let (one, other, ns) = (a.client(), b.client(), namespace("stale"));
    allow(&other, &ns, 600).await;
    let keys = ["deleted there", "written there", "flushed there", "deleted here", "written here", "tried", "kept"];
    for key in keys {
        one.set(&ns, key, "1").await.expect(201);
        in_memory(&other, &ns, key).await;
    }
    let received = async || other.metrics().await.total("sidecache_invalidations_received_total");
    let before = received().await;
    one.delete(&ns, "deleted there").await.expect(200);
    one.set(&ns, "written there", "2").await.expect(200);
    one.flush(&ns, &[("pattern", "flushed*")]).await.expect(200);
    other.delete(&ns, "deleted here").await.expect(200);
    other.set(&ns, "written here", "2").await.expect(200);
    eventually(SOON, async || {
        let more = received().await - before;
        ensure!(more >= 5.0, "{more} invalidations received");
        Ok(())
    })
    .await;
    server.kill();
    stale(&other, &ns, "kept").await;
    stale(&other, &ns, "tried").await;
    // Even a failed write invalidates the copy, since the value may have changed.
    other.set(&ns, "tried", "2").await.expect_one_of_errors(503, &["shard_unavailable", "outcome_unknown"]);
    for key in keys {
        if key != "kept" {
            refused(&other, &ns, key).await;
        }
    }
    assert!(is_stale(&other.get(&ns, "kept").await.expect(200)));
    // When it is switched off, stale answers end at once. The policy is in the database, which works.
    allow(&other, &ns, 0).await;
    refused(&other, &ns, "kept").await;
}

#[tokio::test]
async fn a_copy_invalidated_by_lost_messages_may_be_served_as_stale() {
    let mut server = Redis::start();
    let service = Service::start(settings(&server));
    let (cache, ns) = (service.client(), namespace("stale"));
    allow(&cache, &ns, 600).await;
    for key in ["k", "canary"] {
        cache.set(&ns, key, "1").await.expect(201);
        in_memory(&cache, &ns, key).await;
    }
    let losses = async || cache.metrics().await.total("sidecache_subscription_losses_total");
    let before = losses().await;
    server.connect().command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually(LATER, async || {
        let more = losses().await - before;
        ensure!(more >= 1.0, "{more} losses");
        Ok(())
    })
    .await;
    // A copy made after the loss counts as fresh again. The other copy is older, and no read asks for it.
    in_memory(&cache, &ns, "canary").await;
    server.kill();
    stale(&cache, &ns, "k").await;
    stale(&cache, &ns, "canary").await;
}

#[tokio::test]
async fn copies_of_a_silent_shard_are_served_as_stale_until_it_answers() {
    let server = Redis::start();
    let service = Service::start(settings(&server).set("redis_timeout_ms", 1_000));
    let (cache, ns) = (service.client(), namespace("stale"));
    allow(&cache, &ns, 600).await;
    eventually(LATER, async || {
        let status = cache.set(&ns, "k", "1").await.status;
        ensure!([200, 201].contains(&status), "{status}");
        Ok(())
    })
    .await;
    in_memory(&cache, &ns, "k").await;
    server.signal(Signal::Stop);
    stale(&cache, &ns, "k").await;
    server.signal(Signal::Cont);
    in_memory(&cache, &ns, "k").await;
    assert!(!is_stale(&cache.get(&ns, "k").await.expect(200)));
}
