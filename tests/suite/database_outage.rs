//! A PostgreSQL that is stopped in the middle of its work, or gone: no call of the cache waits for it,
//! what is lost is counted, and what was queued arrives once.

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

/// No call may take longer while the database is away. A call that waited for it would take
/// [`DATABASE_TIMEOUT`]; the rest is for a loaded machine.
const QUICKLY: Duration = Duration::from_secs(2);
const DATABASE_TIMEOUT: Duration = Duration::from_secs(6);

const ROUNDS: i64 = 100;
/// Operations of a round, one of them a flush.
const OPERATIONS: i64 = 7;

/// Every verb of the cache, in a namespace of its own that the database has not heard of.
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

/// [`ROUNDS`] of them in five namespaces, and the time they took.
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

/// Rounds before, while `away` keeps the database away (it answers how long they took), and after;
/// nothing is unaccounted for.
async fn nothing_waits_and_nothing_is_unaccounted_for(
    mut server: Postgres,
    away: impl AsyncFnOnce(&mut Postgres, &Client, &str) -> Duration,
) {
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
    let meanwhile = away(&mut server, &cache, &format!("{ns}-away")).await;
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
        ensure!(rows == written, "{rows} rows, {written} counted: none twice, none missing");

        let (written, dropped) = (whole("sidecache_audit_written_total"), whole("sidecache_audit_dropped_total"));
        ensure!((written, dropped) == (flushes, 0), "{written} flushes written, {dropped} dropped of {flushes}");
        let rows = database.count("cache_audit").await?;
        ensure!(rows == flushes, "{rows} rows of {flushes} flushes: none twice, none missing");
        Ok(())
    })
    .await;
    // The trail can be read, and the namespaces that were written meanwhile are known.
    let trail = cache.audit(&format!("{ns}-away-0"), &[("limit", "1000")]).await.expect(200).json();
    assert_eq!(trail["audit"].as_array().map(Vec::len), Some(ROUNDS as usize / 5), "{trail}");
}

#[tokio::test]
async fn a_postgres_that_is_stopped_changes_no_call_and_loses_nothing_uncounted() {
    let stopped = async |server: &mut Postgres, cache: &Client, ns: &str| {
        // In the middle of statements: what was sent to it is carried out when it goes on, also where
        // its answer is no longer waited for.
        let paused = server.pause();
        let took = rounds(cache, ns).await;
        disconnected(cache).await;
        drop(paused);
        took
    };
    nothing_waits_and_nothing_is_unaccounted_for(Postgres::start(), stopped).await;
}

#[tokio::test]
async fn a_postgres_that_is_killed_changes_no_call_and_loses_nothing_uncounted() {
    let killed = async |server: &mut Postgres, cache: &Client, ns: &str| {
        server.kill();
        let took = rounds(cache, ns).await;
        disconnected(cache).await;
        server.run();
        took
    };
    nothing_waits_and_nothing_is_unaccounted_for(Postgres::start(), killed).await;
}

#[tokio::test]
async fn rows_whose_commit_was_not_answered_are_there_once() {
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

    // Every commit from here on is carried out, and nobody hears of it.
    proxy.mute("COMMIT");
    for _ in 0..ROUNDS {
        round(&cache, &ns).await;
    }
    // More connections than the pool has, each silent for ever.
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

/// C-08: the load goes on throughout, and only what needs the database says that it is away.
#[tokio::test]
async fn under_load_a_postgres_that_is_killed_fails_no_call_of_the_cache_and_all_admin_writes() {
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
        // The cause stands first, wherever the outage is told.
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
        // More than the queue of the access log holds.
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
