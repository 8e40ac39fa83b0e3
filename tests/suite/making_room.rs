//! A quota is lowered far below the size of a namespace while many clients write to it. One job makes room, with
//! pauses, and other namespaces are not affected.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::walk::{agreed, all_books};

const ENTRIES: usize = 60_000;
const WRITERS: usize = 64;
const QUOTA_MB: u64 = 1;

/// Includes the quotes.
const SIZE: usize = 100;

fn value() -> String {
    "x".repeat(SIZE - 2)
}

/// A service on one shard with the default timeouts, and a namespace with 6 MB of entries.
async fn full_of_small_entries() -> (Redis, Service, Client, String) {
    let server = Redis::start();
    let settings = Settings::on(std::slice::from_ref(&server))
        .set("redis_timeout_ms", 250)
        .set("request_timeout_ms", 5_000)
        .set("l1_max_mb", 0);
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("room"));
    cache.put_policy(&ns, r#"{"max_size_mb":100,"eviction_policy":"LRU"}"#).await.expect(201);
    let numbers: Vec<usize> = (0..ENTRIES).collect();
    for some in numbers.chunks(1_000) {
        let entries = some.iter().map(|number| json!({"key": format!("k{number}"), "value": value()})).collect();
        eventually(LATER, async || {
            let answer = cache.mset(&ns, &entries).await;
            ensure!(answer.status == 200 && answer.number("stored") == 1_000, "{}", answer.text());
            Ok(())
        })
        .await;
    }
    (server, service, cache, ns)
}

fn median_and_p99(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// The bug: every writer made room for itself. The shard did nothing else, all 64 writes got a 503, and the breaker
/// opened for all clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_one_of_64_writers_makes_room_after_a_quota_is_lowered() {
    let (server, service, cache, ns) = full_of_small_entries().await;
    let (other, quiet) = (service.client(), namespace("quiet"));
    other.set(&quiet, "k", "1").await.expect(201);
    let mut alone = Vec::new();
    for _ in 0..500 {
        let started = Instant::now();
        other.get(&quiet, "k").await.expect(200);
        alone.push(started.elapsed());
    }

    cache.put_policy(&ns, json!({"max_size_mb": QUOTA_MB, "eviction_policy": "LRU"}).to_string()).await.expect(200);
    let started = Instant::now();
    let body = format!("\"{}\"", value());
    let writes = join_all((0..WRITERS).map(async |number| {
        let started = Instant::now();
        (cache.set(&ns, &format!("new{number}"), &body).await, started.elapsed())
    }));
    let done = std::sync::atomic::AtomicBool::new(false);
    let writing = async {
        let answers = writes.await;
        let took = started.elapsed();
        // Until the namespace is within its quota. The sweeper continues by itself.
        eventually(LATER, async || {
            let books = all_books(std::slice::from_ref(&server), &ns);
            ensure!(books.bytes <= QUOTA_MB << 20, "{books:?}");
            Ok(())
        })
        .await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (answers, took, started.elapsed())
    };
    let watching = async {
        let (mut times, mut worst) = (Vec::new(), 0.0_f64);
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let started = Instant::now();
            let answer =
                if times.len() % 2 == 0 { other.get(&quiet, "k").await } else { other.set(&quiet, "k", "1").await };
            times.push(started.elapsed());
            assert_eq!(answer.status, 200, "another namespace: {}", answer.text());
            if times.len() % 20 == 0 {
                worst = worst.max(other.metrics().await.total("sidecache_shard_breaker_open"));
            }
        }
        (times, worst)
    };
    let ((answers, took, within), (times, breaker)) = tokio::join!(writing, watching);

    let mut refused = 0;
    for (answer, after) in &answers {
        match answer.status {
            200 | 201 => {}
            _ => {
                assert_eq!(answer.header("retry-after"), Some("1"), "after {after:?}: {}", answer.text());
                answer.clone().expect_error(503, "making_room");
                refused += 1;
            }
        }
    }
    let (before, during) = (median_and_p99(alone), median_and_p99(times));
    println!(
        "{WRITERS} writes took {took:?}, {refused} of them refused with making_room; within the quota after {within:?}; \
         another namespace: median and p99 {during:?}, and {before:?} before"
    );
    assert!(breaker < 0.1, "the breaker was open: {breaker}");
    assert!(cache.metrics().await.total("sidecache_shard_breaker_openings_total") < 0.1, "the breaker opened");

    // A refused write succeeds soon.
    for number in 0..WRITERS {
        eventually(LATER, async || {
            let answer = cache.set(&ns, &format!("new{number}"), &body).await;
            ensure!([200, 201].contains(&answer.status), "{}", answer.text());
            Ok(())
        })
        .await;
    }
    let walk = eventually(LATER, async || agreed(&[&cache], std::slice::from_ref(&server), &ns).await).await;
    assert!(walk.bytes() <= QUOTA_MB << 20, "{} bytes", walk.bytes());
    let young = (0..WRITERS).filter(|number| walk.sizes.contains_key(&format!("new{number}"))).count();
    assert_eq!(young, WRITERS, "the entries just written are the last that an LRU evicts");
}

/// A batch needs room for many entries at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_into_a_namespace_far_above_its_quota_succeeds_after_retries() {
    let (server, _service, cache, ns) = full_of_small_entries().await;
    cache.put_policy(&ns, json!({"max_size_mb": QUOTA_MB, "eviction_policy": "LRU"}).to_string()).await.expect(200);
    let entries = (0..1_000).map(|number| json!({"key": format!("new{number}"), "value": value()})).collect();
    let started = Instant::now();
    let mut asked = 0;
    eventually(LATER, async || {
        asked += 1;
        let answer = cache.mset(&ns, &entries).await;
        let body = answer.json();
        if answer.status == 200 && body["errors"].is_null() {
            return Ok(());
        }
        assert!([200, 503].contains(&answer.status), "{}", answer.text());
        let errors = body["errors"].as_object().cloned().unwrap_or_default();
        assert!(errors.values().all(|code| code == "making_room"), "{}", answer.text());
        anyhow::bail!("{} entries are refused", errors.len())
    })
    .await;
    println!("stored after {:?} and {asked} calls", started.elapsed());
    eventually(LATER, async || {
        let walk = agreed(&[&cache], std::slice::from_ref(&server), &ns).await?;
        ensure!(walk.bytes() <= QUOTA_MB << 20, "{} bytes", walk.bytes());
        Ok(())
    })
    .await;
    assert!(cache.metrics().await.total("sidecache_shard_breaker_openings_total") < 0.1, "the breaker opened");
}
