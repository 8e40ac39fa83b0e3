//! A PostgreSQL that is stopped in the middle of its work, or killed: no cache call waits for it, dropped rows are
//! counted, and queued rows are written exactly once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::client::{Client, namespace};
use crate::support::database::Database;
use crate::support::eventually::{LATER, eventually};
use crate::support::postgres::{self, Postgres};
use crate::support::proxy::Proxy;
use crate::support::service::{Service, Settings};

/// No call may take longer while the database is down. A call that waited for the database would take
/// [`DATABASE_TIMEOUT`], which is far longer, so that a loaded machine does not fail the test.
const QUICKLY: Duration = Duration::from_secs(2);
const DATABASE_TIMEOUT: Duration = Duration::from_secs(6);

const ROUNDS: i64 = 100;
/// The number of operations in a round. One of them is a flush.
const OPERATIONS: i64 = 7;

/// Calls every verb of the cache once.
async fn round(cache: &Client, ns: &str) {
    for call in ["set", "get", "mset", "mget", "list", "delete", "flush"] {
        let started = Instant::now();
        match call {
            "set" => cache.set(ns, "k", "1").await.expect(201),
            "get" => cache.get(ns, "k").await.expect(200),
            "mset" => cache.mset(ns, &json!([{"key": "a", "value": 1}])).await.expect(200),
            "mget" => cache.mget(ns, &["a", "k"]).await.expect(200),
            "list" => cache.list(ns, &[]).await.expect(200),
            "delete" => cache.delete(ns, "k").await.expect(200),
            _ => cache.flush(ns, &[]).await.expect(200),
        };
        let took = started.elapsed();
        assert!(took < QUICKLY, "{call} took {took:?}");
    }
}

/// Runs [`ROUNDS`] rounds in five new namespaces. Returns the time they took.
async fn rounds(cache: &Client, ns: &str) -> Duration {
    let started = Instant::now();
    for number in 0..ROUNDS {
        round(cache, &format!("{ns}-{}", number % 5)).await;
    }
    started.elapsed()
}

async fn disconnected(cache: &Client) {
    eventually(LATER, async || {
        let health = cache.health().await.expect(200).json();
        ensure!(health["database"]["state"] == "disconnected", "{health}");
        Ok(())
    })
    .await;
}

/// Runs rounds before, during and after an outage of the database. `outage` causes the outage and returns how long
/// its rounds took. Checks that no call waited for the database, and that every row was written or counted.
async fn check_outage(mut server: Postgres, outage: impl AsyncFnOnce(&mut Postgres, &Client, &str) -> Duration) {
    let url = server.fresh_database();
    let settings = Settings::shards()
        .set("database_url", &url)
        .set("database_timeout_ms", DATABASE_TIMEOUT.as_millis())
        .set("access_log_queue", 100)
        .set("access_log_batch", 50)
        .set("access_log_flush_ms", 20);
    let service = Service::start(settings);
    let (cache, database, ns) = (service.client(), Database::Postgres(url), namespace("away"));
    let before = rounds(&cache, &format!("{ns}-before")).await;
    let meanwhile = outage(&mut server, &cache, &format!("{ns}-away")).await;
    assert!(meanwhile < 5 * before + QUICKLY, "{meanwhile:?} without the database, {before:?} with it");
    eventually(LATER, async || {
        let health = cache.health().await.expect(200).json();
        ensure!(health["database"]["state"] == "connected", "{health}");
        Ok(())
    })
    .await;
    rounds(&cache, &format!("{ns}-after")).await;
    let (operations, flushes) = (3 * ROUNDS * OPERATIONS, 3 * ROUNDS);
    eventually(LATER, async || {
        let metrics = cache.metrics().await;
        let whole = |name: &str| metrics.total(name) as i64;
        let (written, dropped) =
            (whole("sidecache_access_log_written_total"), whole("sidecache_access_log_dropped_total"));
        ensure!(written + dropped == operations, "{written} written, {dropped} dropped of {operations}");
        assert!(dropped > 0, "a queue of 100 cannot hold {}", ROUNDS * OPERATIONS);
        let rows = database.count("cache_access_logs").await?;
        ensure!(rows == written, "{rows} rows, {written} counted: a row is missing or doubled");

        let (written, dropped) = (whole("sidecache_audit_written_total"), whole("sidecache_audit_dropped_total"));
        ensure!((written, dropped) == (flushes, 0), "{written} flushes written, {dropped} dropped of {flushes}");
        let rows = database.count("cache_audit").await?;
        ensure!(rows == flushes, "{rows} rows of {flushes} flushes: a row is missing or doubled");
        Ok(())
    })
    .await;
    // The audit trail can be read, also of a namespace that was first written during the outage.
    let trail = cache.audit(&format!("{ns}-away-0"), &[("limit", "1000")]).await.expect(200).json();
    assert_eq!(trail["audit"].as_array().map(Vec::len), Some(ROUNDS as usize / 5), "{trail}");
}

#[tokio::test]
async fn a_stopped_postgres_delays_no_call_and_every_lost_row_is_counted() {
    let stopped = async |server: &mut Postgres, cache: &Client, ns: &str| {
        // PostgreSQL stops in the middle of statements. When it continues, it executes the statements that it
        // received, even if the service no longer waits for the answer.
        let paused = server.pause();
        let took = rounds(cache, ns).await;
        disconnected(cache).await;
        drop(paused);
        took
    };
    check_outage(Postgres::start(), stopped).await;
}

#[tokio::test]
async fn a_killed_postgres_delays_no_call_and_every_lost_row_is_counted() {
    let killed = async |server: &mut Postgres, cache: &Client, ns: &str| {
        server.kill();
        let took = rounds(cache, ns).await;
        disconnected(cache).await;
        server.run();
        took
    };
    check_outage(Postgres::start(), killed).await;
}

#[tokio::test]
async fn rows_with_an_unanswered_commit_are_written_once() {
    const ROUNDS: i64 = 20;
    let url = postgres::shared().fresh_database();
    let proxy = Proxy::in_front_of_postgres(postgres::shared());
    let far = url.replace(&postgres::shared().address().to_string(), &proxy.address().to_string());
    let settings = Settings::shards().set("database_url", far).set("database_timeout_ms", 500);
    let service = Service::start(settings.set("access_log_flush_ms", 20));
    let (cache, database, ns) = (service.client(), Database::Postgres(url), namespace("unanswered"));
    round(&cache, &ns).await;
    let counted = async |table: &str, metric: &str, expected: i64| {
        eventually(LATER, async || {
            let written = cache.metrics().await.total(&format!("sidecache_{metric}_written_total")) as i64;
            let rows = database.count(table).await?;
            ensure!((written, rows) == (expected, expected), "{written} written, {rows} rows of {expected}");
            Ok(())
        })
        .await;
    };
    counted("cache_access_logs", "access_log", OPERATIONS).await;
    counted("cache_audit", "audit", 1).await;

    // From here on, PostgreSQL executes every commit, but its answer does not arrive.
    proxy.mute("COMMIT");
    for _ in 0..ROUNDS {
        round(&cache, &ns).await;
    }
    // More connections than the pool has, and none of them ever answers.
    eventually(LATER, async || {
        let muted = proxy.muted();
        ensure!(muted >= 8, "{muted} commits were not answered");
        Ok(())
    })
    .await;
    proxy.unmute();
    counted("cache_access_logs", "access_log", (ROUNDS + 1) * OPERATIONS).await;
    counted("cache_audit", "audit", ROUNDS + 1).await;
}

/// C-08: the load continues throughout, and only calls that need the database report the outage.
#[tokio::test]
async fn under_load_a_killed_postgres_fails_only_admin_writes() {
    const CLIENTS: usize = 8;
    let mut server = Postgres::start();
    let url = server.fresh_database();
    let settings = Settings::shards().set("database_url", &url).set("database_timeout_ms", 1_000);
    let service = Service::start(settings.set("access_log_queue", 1_000).set("access_log_flush_ms", 50));
    let (cache, database, ns) = (service.client(), Database::Postgres(url), namespace("killed"));
    cache.put_policy(&ns, r#"{"default_ttl":50}"#).await.expect(201);
    let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients = join_all((0..CLIENTS).map(async |client| {
        let own = format!("{ns}-{client}");
        while !is_over.load(Ordering::SeqCst) {
            round(&cache, &own).await;
            rounds.fetch_add(1, Ordering::SeqCst);
        }
    }));
    let more_rounds = async |count: u64| {
        let before = rounds.load(Ordering::SeqCst);
        eventually(LATER, async || {
            let since = rounds.load(Ordering::SeqCst) - before;
            ensure!(since >= count, "{since} rounds");
            Ok(())
        })
        .await;
    };
    let faults = async {
        more_rounds(20).await;
        server.kill();
        disconnected(&cache).await;
        // Wherever the outage is reported, the cause comes first.
        eventually(LATER, async || {
            let health = cache.health().await.expect(200).json();
            let error = health["database"]["error"].as_str().unwrap_or_default().to_owned();
            ensure!(error.starts_with("Connection refused"), "{health}");
            Ok(())
        })
        .await;
        for call in ["replace", "create", "delete"] {
            let started = Instant::now();
            let answer = match call {
                "replace" => cache.put_policy(&ns, r#"{"default_ttl":60}"#).await,
                "create" => cache.put_policy(&format!("{ns}-new"), r#"{"default_ttl":60}"#).await,
                _ => cache.delete_policy(&ns).await,
            };
            answer.expect_error(503, "database_unavailable");
            assert!(started.elapsed() < DATABASE_TIMEOUT, "{call} took {:?}", started.elapsed());
        }
        let log = service.log();
        let is_hidden = |line: &str| line.contains("pool timed out") && line.contains("WARN");
        assert!(log.contains("Connection refused") && !log.lines().any(is_hidden), "{log}");
        // Policies are read from memory.
        assert_eq!(cache.policy(&ns).await.expect(200).json()["default_ttl"], 50);
        // More operations than the queue of the access log holds.
        more_rounds(300).await;
        server.run();
        eventually(LATER, async || {
            let answer = cache.put_policy(&ns, r#"{"default_ttl":60}"#).await;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        })
        .await;
        more_rounds(20).await;
        is_over.store(true, Ordering::SeqCst);
    };
    futures_util::join!(clients, faults);
    let operations = rounds.load(Ordering::SeqCst) as i64 * OPERATIONS;
    eventually(LATER, async || {
        let metrics = cache.metrics().await;
        let whole = |name: &str| metrics.total(name) as i64;
        let (written, dropped) =
            (whole("sidecache_access_log_written_total"), whole("sidecache_access_log_dropped_total"));
        ensure!(written + dropped == operations, "{written} written, {dropped} dropped of {operations}");
        assert!(dropped > 0, "a queue of 1,000 cannot hold {}", 300 * OPERATIONS);
        let rows = database.count("cache_access_logs").await?;
        ensure!(rows == written, "{rows} rows, {written} counted");
        Ok(())
    })
    .await;
}
