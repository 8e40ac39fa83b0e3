//! Shards that are killed, restarted, slow to reach or busy, and a Sentinel group that loses its primary: what
//! clients see, how soon the service recovers, and that nothing piles up meanwhile.
//!
//! Each test causes one fault of the list C-01 to C-09; its comment names the fault. C-03 is in `full_memory.rs`,
//! C-05 in `connections.rs`, C-08 in `database_outage.rs`, C-09 in `nginx.rs`.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{INTERVAL, LATER, eventually};
use crate::support::history::Lost;
use crate::support::load::{Load, Misses, Plan};
use crate::support::process;
use crate::support::proxy::{Of, Proxy};
use crate::support::redis::Redis;
use crate::support::sentinel::{self, Group};
use crate::support::service::{Service, Settings};

/// `max_staleness_ms` at its default.
const BOUND: Duration = Duration::from_millis(1_000);

/// An answer waits for a shard for at most 250 ms by default; the rest is for a loaded machine.
const QUICKLY: Duration = Duration::from_secs(2);

/// The error codes of a call whose shard does not answer, if the call has changed nothing.
const UNAVAILABLE: [&str; 3] = ["shard_unavailable", "timeout", "overloaded"];

/// The error codes of a write whose shard does not answer. With the last one, the write may have happened.
const UNAVAILABLE_OR_UNKNOWN: [&str; 4] = ["shard_unavailable", "timeout", "overloaded", "outcome_unknown"];

/// The timeouts of a service that sets none.
fn default_timeouts(settings: Settings) -> Settings {
    settings.unset("redis_timeout_ms").unset("request_timeout_ms")
}

/// Stores `count` keys. Returns them by the name of their shard.
async fn keys_by_shard(cache: &Client, ns: &str, count: usize) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for number in 0..count {
        let key = format!("k{number}");
        cache.set(ns, &key, "1").await.expect(201);
        keys.entry(shard_of(cache, ns, &key).await).or_default().push(key);
    }
    keys
}

async fn shard_of(cache: &Client, ns: &str, key: &str) -> String {
    let answer = cache.get_with(ns, key, &[("cache-control", "no-cache")]).await.expect(200);
    let status = answer.header("cache-status").expect("every answer has a Cache-Status");
    let (_, rest) = status.split_once("detail=").unwrap_or_else(|| panic!("no shard in {status:?}"));
    rest.split([',', ';']).next().unwrap_or(rest).to_owned()
}

/// Reads until L1 answers.
async fn warmed(cache: &Client, ns: &str, key: &str) {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.status == 200 && answer.is_l1_hit(), "{} {:?}", answer.status, answer.header("cache-status"));
        Ok(())
    })
    .await;
}

/// Waits for an answer, and checks that it comes quickly.
async fn quick(what: &str, call: impl Future<Output = Answer>) -> Answer {
    let started = Instant::now();
    let answer = call.await;
    let took = started.elapsed();
    assert!(took < QUICKLY, "{what} took {took:?}");
    answer
}

const NO_CACHE: &[(&str, &str)] = &[("cache-control", "no-cache")];

/// C-01.
#[tokio::test]
async fn a_killed_shard_fails_only_its_own_keys_and_l1_answers_up_to_the_bound() {
    let mut servers = Redis::three();
    let service = Service::start(default_timeouts(Settings::on(&servers)));
    let (cache, ns) = (service.client(), namespace("chaos"));
    let keys = keys_by_shard(&cache, &ns, 30).await;
    let warm = &keys["a"][0];
    for key in keys.values().flatten() {
        warmed(&cache, &ns, key).await;
    }
    servers[0].kill();
    let killed = Instant::now();
    let (mut from_memory, mut refused, mut written) = (0, 0, 0_u64);
    while killed.elapsed() < BOUND * 2 {
        let asked = killed.elapsed();
        let answer = quick("a read of a lost key", cache.get(&ns, warm)).await;
        if answer.status == 200 {
            assert!(
                answer.is_l1_hit() && asked <= BOUND,
                "a hit {asked:?} after its shard was killed: {:?}",
                answer.headers
            );
            from_memory += 1;
        } else {
            answer.expect_one_of_errors(503, &UNAVAILABLE);
            refused += 1;
        }
        let cold = &keys["a"][1];
        quick("a read of a lost shard", cache.get_with(&ns, cold, NO_CACHE))
            .await
            .expect_one_of_errors(503, &UNAVAILABLE);
        quick("a write of a lost key", cache.set(&ns, cold, "2"))
            .await
            .expect_one_of_errors(503, &UNAVAILABLE_OR_UNKNOWN);
        quick("a delete of a lost key", cache.delete(&ns, cold))
            .await
            .expect_one_of_errors(503, &UNAVAILABLE_OR_UNKNOWN);
        written += 1;
        for shard in ["b", "c"] {
            let key = &keys[shard][0];
            quick("another shard's write", cache.set(&ns, key, &written.to_string())).await.expect(200);
            for headers in [&[][..], NO_CACHE] {
                let answer = quick("another shard's read", cache.get_with(&ns, key, headers)).await.expect(200);
                assert_eq!(answer.value(), written.to_string());
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
    assert!(from_memory > 0 && refused > 0, "{from_memory} reads from memory, {refused} refused");
    let health = cache.health().await.expect(200).json();
    assert_eq!((&health["status"], &health["redis"]), (&json!("degraded"), &json!("degraded")), "{health}");
    cache.fetch("/readyz").await.expect(200);
}

/// C-02. The contract allows 2 s for the printed figure, on an otherwise idle machine.
#[tokio::test]
async fn a_restarted_shard_is_in_use_again_at_once_with_scripts_and_subscriptions() {
    let mut server = Redis::start();
    let settings = default_timeouts(Settings::on(std::slice::from_ref(&server)));
    let services = [Service::start(settings.clone()), Service::start(settings)];
    let caches = services.each_ref().map(Service::client);
    let ns = namespace("chaos");
    caches[0].set(&ns, "k", "\"old\"").await.expect(201);
    for cache in &caches {
        warmed(cache, &ns, "k").await;
    }
    server.kill();
    // Long enough for the pause between two attempts to grow to its maximum.
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(3) {
        for cache in &caches {
            quick("a write", cache.set(&ns, "k", "\"lost\""))
                .await
                .expect_one_of_errors(503, &UNAVAILABLE_OR_UNKNOWN);
        }
        tokio::time::sleep(INTERVAL).await;
    }
    server.run();
    let back = Instant::now();
    for (number, cache) in caches.iter().enumerate() {
        let key = format!("new{number}");
        eventually(Duration::from_secs(5), async || {
            let answer = cache.set(&ns, &key, "1").await;
            ensure!(answer.status == 201, "{}", answer.text());
            Ok(())
        })
        .await;
        eprintln!("instance {number} writes again {:.0?} after its shard was back", back.elapsed());
        cache.get(&ns, "k").await.expect_error(404, "key_not_found");
    }
    for (one, other) in [(&caches[0], &caches[1]), (&caches[1], &caches[0])] {
        let key = "both";
        one.set(&ns, key, "1").await;
        warmed(one, &ns, key).await;
        warmed(other, &ns, key).await;
        one.set(&ns, key, "2").await.expect(200);
        eventually(BOUND, async || {
            let answer = other.get(&ns, key).await.expect(200);
            ensure!(answer.value() == "2", "{}", answer.text());
            Ok(())
        })
        .await;
    }
    eprintln!("both instances keep copies and receive invalidations again after {:.0?}", back.elapsed());
    // Calls every script: the restarted server has none of them cached.
    let cache = &caches[0];
    cache.put(&ns, "tagged", r#"{"value":1,"ttl":600,"tags":["red"]}"#).await.expect(201);
    cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 2}])).await;
    assert_eq!(cache.mget(&ns, &["a", "b", "absent"]).await.number("hits"), 2);
    assert_eq!(cache.all_keys(&ns).await, ["a", "b", "both", "new0", "new1", "tagged"]);
    assert_eq!(cache.flush(&ns, &[("tag", "red")]).await.expect(200).number("deleted_count"), 1);
    cache.delete(&ns, "a").await.expect(200);
    assert_eq!(cache.stats(&ns).await.expect(200).number("total_keys"), 4);
}

/// C-04, with a delay below the timeout.
#[tokio::test]
async fn a_shard_with_100_ms_latency_is_slow_and_never_wrong() {
    const FAR: Duration = Duration::from_millis(100);
    const CLIENTS: usize = 16;
    let server = Redis::start();
    let proxy = Proxy::in_front_of(&server);
    let shards = format!("a={}", proxy.url());
    let settings = Settings::on(std::slice::from_ref(&server)).set("redis_shards", shards);
    let service = Service::start(settings.set("redis_timeout_ms", 500));
    let (cache, ns) = (service.client(), namespace("chaos"));
    cache.set(&ns, "first", "1").await.expect(201);
    proxy.delay(Of::All, FAR, FAR);
    let clients = (0..CLIENTS).map(async |client: usize| {
        let key = format!("k{client}");
        for round in 0..3 {
            let started = Instant::now();
            let value = format!("\"{client} {round}\"");
            cache.set(&ns, &key, &value).await.expect(201);
            assert!(started.elapsed() >= FAR * 2, "a write took only {:?}", started.elapsed());
            let read = cache.get_with(&ns, &key, NO_CACHE).await.expect(200);
            assert_eq!(read.value(), value);
            assert_eq!(cache.get(&ns, &key).await.expect(200).value(), value);
            let many = cache.mget(&ns, &[&key, "absent"]).await.expect(200).json();
            assert_eq!((&many["hits"], &many["misses"]), (&json!(1), &json!(1)), "{many}");
            cache.delete(&ns, &key).await.expect(200);
            cache.get(&ns, &key).await.expect(404);
        }
    });
    join_all(clients).await;
    proxy.delay(Of::All, Duration::ZERO, Duration::ZERO);
}

/// C-04, with a delay above the timeout.
#[tokio::test]
async fn a_shard_with_too_much_latency_times_out_and_nothing_piles_up() {
    const FAR: Duration = Duration::from_secs(2);
    const CLIENTS: usize = 64;
    let server = Redis::start();
    let proxy = Proxy::in_front_of(&server);
    let shards = format!("a={}", proxy.url());
    let settings = Settings::on(std::slice::from_ref(&server)).set("redis_shards", shards);
    let service = Service::start(settings.set("redis_timeout_ms", 500));
    let (cache, ns) = (service.client(), namespace("chaos"));
    cache.set(&ns, "k", "1").await.expect(201);
    // Measures the memory after the service has seen as many clients.
    join_all((0..CLIENTS).map(|_| cache.get_with(&ns, "k", NO_CACHE))).await;
    let before = resident_bytes(&service);
    proxy.delay(Of::All, FAR, FAR);
    let began = Instant::now();
    let mut seen = Vec::new();
    let clients = (0..CLIENTS).map(async |client: usize| {
        let mut refused = 0;
        while began.elapsed() < Duration::from_secs(5) {
            let answer = if client.is_multiple_of(4) {
                quick("a write", cache.set(&ns, &format!("k{client}"), "1")).await
            } else {
                quick("a read", cache.get_with(&ns, "k", NO_CACHE)).await
            };
            if answer.status == 503 {
                answer.expect_one_of_errors(503, &UNAVAILABLE_OR_UNKNOWN);
                refused += 1;
                // An open breaker refuses at once; without a pause, nearly all calls would be such refusals.
                tokio::time::sleep(INTERVAL).await;
            } else {
                // This answer was already on its way when the delay began.
                assert!(began.elapsed() < FAR, "an answer came despite the delay: {}", answer.text());
            }
        }
        refused
    });
    let look = async {
        while began.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            seen.push(resident_bytes(&service));
        }
    };
    let (refused, ()) = futures_util::join!(join_all(clients), look);
    let refused: u64 = refused.into_iter().sum();
    let most = seen.iter().copied().max().expect("the memory was measured");
    eprintln!("{refused} calls refused; resident memory {} MiB before, {} MiB at most", before >> 20, most >> 20);
    assert!(refused > CLIENTS as u64, "{refused} calls were refused");
    assert!(most < before + (32 << 20), "resident memory grew from {before} to {most} bytes: {seen:?}");
    let open = cache.metrics().await.total("sidecache_http_connections");
    assert!(open <= (CLIENTS * 2 + 2) as f64, "{open} connections of {CLIENTS} clients");
    proxy.delay(Of::All, Duration::ZERO, Duration::ZERO);
    let near = Instant::now();
    eventually(LATER, async || {
        let (wrote, read) = (cache.set(&ns, "k", "2").await, cache.get_with(&ns, "k", NO_CACHE).await);
        ensure!(wrote.status == 200 && read.status == 200, "{} {}", wrote.text(), read.text());
        ensure!(read.value() == "2", "{}", read.text());
        Ok(())
    })
    .await;
    eprintln!("in use again {:.0?} after the delay ended", near.elapsed());
}

/// The resident memory of the service.
fn resident_bytes(service: &Service) -> u64 {
    let path = format!("/proc/{}/status", service.id());
    let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes << 10
}

/// C-06.
#[tokio::test]
async fn a_busy_shard_times_out_only_for_its_own_keys() {
    let servers = Redis::three_with(&["--enable-debug-command", "local"]);
    let service = Service::start(default_timeouts(Settings::on(&servers)));
    let (cache, ns) = (service.client(), namespace("chaos"));
    let keys = keys_by_shard(&cache, &ns, 30).await;
    let round = async || {
        let mut took = Vec::new();
        for shard in ["b", "c"] {
            for key in &keys[shard] {
                let started = Instant::now();
                cache.get_with(&ns, key, NO_CACHE).await.expect(200);
                cache.set(&ns, key, "1").await.expect(200);
                took.push(started.elapsed());
            }
        }
        took
    };
    let median = |mut took: Vec<Duration>| {
        took.sort_unstable();
        took[took.len() / 2]
    };
    let mut quiet = Vec::new();
    while quiet.len() < 200 {
        quiet.extend(round().await);
    }
    let mut busy = servers[0].connect();
    let asleep = thread::spawn(move || busy.command(&["DEBUG", "SLEEP", "3"]));
    let lost = &keys["a"][0];
    eventually(LATER, async || {
        let answer = quick("a read of the busy shard", cache.get_with(&ns, lost, NO_CACHE)).await;
        ensure!(answer.status == 503, "{}", answer.text());
        Ok(())
    })
    .await;
    let (mut disturbed, mut timeouts) = (Vec::new(), 0);
    let hammer = async {
        while !asleep.is_finished() {
            let answer = quick("a read of the busy shard", cache.get_with(&ns, lost, NO_CACHE)).await;
            if answer.status == 503 {
                answer.expect_one_of_errors(503, &UNAVAILABLE);
                timeouts += 1;
            }
            let answer = quick("a write to the busy shard", cache.set(&ns, lost, "2")).await;
            if answer.status == 503 {
                answer.expect_one_of_errors(503, &UNAVAILABLE_OR_UNKNOWN);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let others = async {
        while !asleep.is_finished() {
            disturbed.extend(round().await);
        }
    };
    futures_util::join!(hammer, others);
    asleep.join().expect("the server woke up");
    assert!(timeouts > 1 && disturbed.len() >= 20, "{timeouts} timeouts, {} calls meanwhile", disturbed.len());
    let (quiet, disturbed) = (median(quiet), median(disturbed));
    eprintln!("read and write on the other shards: {quiet:?} without, {disturbed:?} with a busy shard");
    assert!(disturbed < quiet * 5 + Duration::from_millis(20), "{disturbed:?} instead of {quiet:?}");
    eventually(LATER, async || {
        let answer = cache.get_with(&ns, lost, NO_CACHE).await;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
    .await;
}

/// C-07. The contract allows 2 s after `down-after` for the printed figure, on an otherwise idle machine.
#[test]
fn after_a_sentinel_primary_dies_writes_continue_and_nothing_is_stale_or_lost() {
    const PLAN: Plan =
        Plan { bound: BOUND, readers_an_instance: 2, writers: 3, hot: 3, rare: 9, misses: Misses::Judged };
    let mut group = Group::start();
    let settings = Settings::none()
        .set("redis_shards", format!("a={}", group.url()))
        .set("request_timeout_ms", 2_000)
        .set("access_log_sample_rate", 0);
    let services = [Service::start(settings.clone()), Service::start(settings)];
    let load = Load::new(PLAN, &services.each_ref().map(Service::address));
    load.run(|| {
        thread::sleep(BOUND);
        load.checker.fault("primary killed");
        load.checker.begin_loss("a", Lost::Latest, Duration::from_millis(200));
        let primary = group.primary();
        group.kill(primary);
        let killed = Instant::now();
        let unanswered = load.checker.acknowledged();
        group.wait_for_primary(1 - primary);
        load.checker.end_loss("a");
        let elected = killed.elapsed();
        // The service does not decide when a new primary is elected. By now, all writes that the dead primary
        // acknowledged are counted.
        let deadline = elected + Duration::from_secs(10);
        while load.checker.acknowledged() <= unanswered + 8 {
            assert!(killed.elapsed() < deadline, "no write within {deadline:?}, elected after {elected:?}");
            thread::sleep(process::TICK);
        }
        eprintln!(
            "down-after is {:?}; a new primary was elected after {elected:.1?}, writes worked after {:.1?}",
            sentinel::DOWN_AFTER,
            killed.elapsed(),
        );
        thread::sleep(BOUND * 3);
    });
    eprintln!("{}", load.checker);
    assert_eq!(load.checker.violations(), 0, "see above");
}
