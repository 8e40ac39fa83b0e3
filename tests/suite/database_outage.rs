//! A PostgreSQL that is stopped in the middle of its work, or gone: no call of the cache waits for it,
//! what is lost is counted, and what was queued arrives once.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use crate::support::client::{Client, namespace};
use crate::support::database::Database;
use crate::support::eventually::{LATER, eventually};
use crate::support::postgres::Postgres;
use crate::support::service::{Service, Settings};

/// No call may take longer while the database is away. A call that waited for it would take
/// [`DATABASE_TIMEOUT`]; the rest is for a loaded machine.
const QUICKLY: Duration = Duration::from_secs(1);
const DATABASE_TIMEOUT: Duration = Duration::from_secs(4);

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

async fn disconnected(cache: &Client) {
    eventually(LATER, async || {
        let health = cache.health().await.expect(200).json();
        ensure!(health["database"]["state"] == "disconnected", "{health}");
        Ok(())
    })
    .await;
}

/// Rounds before, while `away` keeps the database away, and after; nothing is unaccounted for.
async fn nothing_waits_and_nothing_is_unaccounted_for(
    mut server: Postgres,
    away: impl AsyncFnOnce(&mut Postgres, &Client, &str),
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
    for number in 0..ROUNDS {
        round(&cache, &format!("{ns}-before-{}", number % 5)).await;
    }
    away(&mut server, &cache, &ns).await;
    eventually(LATER, async || {
        let health = cache.health().await.expect(200).json();
        ensure!(health["database"]["state"] == "connected", "{health}");
        Ok(())
    })
    .await;
    for number in 0..ROUNDS {
        round(&cache, &format!("{ns}-after-{}", number % 5)).await;
    }
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
        for number in 0..ROUNDS {
            round(cache, &format!("{ns}-away-{}", number % 5)).await;
        }
        disconnected(cache).await;
        drop(paused);
    };
    nothing_waits_and_nothing_is_unaccounted_for(Postgres::start(), stopped).await;
}

#[tokio::test]
async fn a_postgres_that_is_killed_changes_no_call_and_loses_nothing_uncounted() {
    let killed = async |server: &mut Postgres, cache: &Client, ns: &str| {
        server.kill();
        for number in 0..ROUNDS {
            round(cache, &format!("{ns}-away-{}", number % 5)).await;
        }
        disconnected(cache).await;
        server.run();
    };
    nothing_waits_and_nothing_is_unaccounted_for(Postgres::start(), killed).await;
}
