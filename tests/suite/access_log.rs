//! The access log: one row per operation, in both databases. The queue in front of the database never delays a cache
//! call, and it counts the rows that it drops.

use std::time::{Duration, SystemTime};

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, PgConnection, Row, SqliteConnection};

use crate::support::client::{Client, key_path, namespace};
use crate::support::database::{self, Database};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::postgres::Postgres;
use crate::support::service::{Service, Settings};

const TABLE: &str = "cache_access_logs";

/// A row, without its latency and its time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LogRow {
    operation: String,
    key_pattern: String,
    hit: Option<bool>,
}

fn row(operation: &str, key_pattern: &str, hit: Option<bool>) -> LogRow {
    LogRow { operation: operation.into(), key_pattern: key_pattern.into(), hit }
}

/// The rows of a namespace, sorted, with their times and latencies checked against `since`.
async fn rows(database: &Database, ns: &str, since: SystemTime) -> anyhow::Result<Vec<LogRow>> {
    let mut found: Vec<(LogRow, f64, i64)> = match database {
        Database::Sqlite(_) => {
            let sql = "SELECT operation, key_pattern, hit, latency_ms, timestamp FROM cache_access_logs WHERE namespace = ?";
            let rows = sqlx::query(sql).bind(ns).fetch_all(&mut database.sqlite().await?).await?;
            let parsed = rows.iter().map(|row| {
                let log = LogRow { operation: row.try_get(0)?, key_pattern: row.try_get(1)?, hit: row.try_get(2)? };
                anyhow::Ok((log, row.try_get(3)?, row.try_get(4)?))
            });
            parsed.collect::<anyhow::Result<_>>()?
        }
        Database::Postgres(_) => {
            let sql = "SELECT operation, key_pattern, hit, latency_ms,
                       (extract(epoch FROM timestamp) * 1000)::bigint
                       FROM cache_access_logs WHERE namespace = $1";
            let rows = sqlx::query(sql).bind(ns).fetch_all(&mut database.postgres().await?).await?;
            let parsed = rows.iter().map(|row| {
                let log = LogRow { operation: row.try_get(0)?, key_pattern: row.try_get(1)?, hit: row.try_get(2)? };
                anyhow::Ok((log, row.try_get(3)?, row.try_get(4)?))
            });
            parsed.collect::<anyhow::Result<_>>()?
        }
    };
    let (since, now) = (unix_ms(since), unix_ms(SystemTime::now()));
    for (log, latency_ms, timestamp) in &found {
        assert!((0.0..60_000.0).contains(latency_ms), "{log:?} took {latency_ms} ms");
        assert!((since..=now).contains(timestamp), "{log:?} at {timestamp}, not in {since}..={now}");
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found.into_iter().map(|(log, _, _)| log).collect())
}

fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("the present fits")
}

/// The counts of written and of dropped rows.
async fn counted(cache: &Client) -> (u64, u64) {
    let metrics = cache.metrics().await;
    let whole = |name: &str| metrics.total(name) as u64;
    (whole("sidecache_access_log_written_total"), whole("sidecache_access_log_dropped_total"))
}

#[tokio::test]
async fn every_operation_leaves_its_row() {
    const ID: &str = "0b5e7c6a-9f3d-4c1e-8b2a-6d4f0e1c2b3a";
    for (service, database) in database::both(|settings| settings.set("access_log_flush_ms", 50)) {
        let since = SystemTime::now() - Duration::from_secs(1);
        let (cache, ns) = (service.client(), namespace("log"));
        cache.set(&ns, "user_123", "1").await.expect(201);
        cache.set(&ns, "user_7", "1").await.expect(201);
        cache.set(&ns, "plain", "1").await.expect(201);
        cache.set(&ns, "a:42:b", "1").await.expect(201);
        cache.set(&ns, ID, "1").await.expect(201);
        cache.get(&ns, "user_123").await.expect(200);
        cache.get(&ns, "user_9").await.expect(404);
        cache.get(&ns, &format!("session:{ID}:x")).await.expect(404);
        cache.head(&ns, "user_123").await.expect(200);
        cache.head(&ns, "absent").await.expect(404);
        cache.mget(&ns, &["user_123", "user_7"]).await.expect(200);
        cache.mget(&ns, &["user_123", "user_9"]).await.expect(200);
        cache.mget(&ns, &["user_123", "plain"]).await.expect(200);
        cache.fill(&ns, &json!([{"key": "order_1", "value": 1}, {"key": "order_2", "value": 1}])).await;
        cache.fill(&ns, &json!([{"key": "x", "value": 1}, {"key": "y", "value": 1}])).await;
        cache.delete(&ns, "user_7").await.expect(200);
        cache.delete(&ns, "user_7").await.expect(404);
        cache.flush(&ns, &[("pattern", "order_*")]).await.expect(200);
        cache.flush(&ns, &[]).await.expect(200);
        cache.list(&ns, &[]).await.expect(200);
        cache.stats(&ns).await.expect(200);
        let mut expected = vec![
            row("set", "user_*", None),
            row("set", "user_*", None),
            row("set", "plain", None),
            row("set", "a:*:b", None),
            row("set", "*", None),
            row("get", "user_*", Some(true)),
            row("get", "user_*", Some(false)),
            row("get", "session:*:x", Some(false)),
            row("head", "user_*", Some(true)),
            row("head", "absent", Some(false)),
            row("mget", "user_*", Some(true)),
            row("mget", "user_*", Some(false)),
            row("mget", "*", Some(true)),
            row("mset", "order_*", None),
            row("mset", "*", None),
            row("delete", "user_*", None),
            row("delete", "user_*", None),
            row("flush", "order_*", None),
            row("flush", "*", None),
            row("list", "*", None),
            row("stats", "*", None),
        ];
        expected.sort();
        eventually(SOON, async || {
            let rows = rows(&database, &ns, since).await?;
            ensure!(rows.len() == expected.len(), "{} rows of {}", rows.len(), expected.len());
            assert_eq!(rows, expected);
            Ok(())
        })
        .await;
        eventually(SOON, async || {
            let (written, dropped) = counted(&cache).await;
            ensure!((written, dropped) == (21, 0), "{written} written, {dropped} dropped");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn reads_and_writes_with_leases_are_logged_as_such() {
    let service = Service::start(Settings::none().set("access_log_flush_ms", 50));
    let (cache, ns, asks) = (service.client(), namespace("log-lease"), [("prefer", "lease=10")]);
    let won = cache.get_with(&ns, "k", &asks).await.expect(404);
    cache.get_with(&ns, "k", &asks).await.expect(404);
    let lease = won.header("cache-lease").expect("a lease");
    let token = lease.split('"').nth(1).expect("a token in quotes");
    let fill = async || {
        let body = Some(br#"{"value":1}"#.to_vec());
        cache.send(Method::PUT, &key_path(&ns, "k"), &[("cache-lease", token)], body).await
    };
    fill().await.expect(201);
    cache.get_with(&ns, "k", &asks).await.expect(200);
    cache.delete(&ns, "k").await.expect(200);
    fill().await.expect_error(412, "lease_lost");
    let expected = json!([
        ["set", "refused", 412, "lease_lost"],
        ["delete", "done", 200, null],
        ["get", "hit", 200, null],
        ["set", "filled", 201, null],
        ["get", "held", 404, "key_not_found"],
        ["get", "won", 404, "key_not_found"],
    ]);
    eventually(SOON, async || {
        let page = cache.logs(&ns, &[]).await.expect(200).json();
        let rows = page["logs"].as_array().expect("rows");
        let shown =
            rows.iter().map(|row| json!([row["operation"], row["outcome"], row["status"], row["error_code"]]));
        let shown = json!(shown.collect::<Vec<_>>());
        ensure!(shown == expected, "{shown}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn columns_have_their_types() {
    for (service, database) in database::both(|settings| settings.set("access_log_flush_ms", 50)) {
        let cache = service.client();
        cache.set("types", "k", "1").await.expect(201);
        cache.get("types", "k").await.expect(200);
        eventually(SOON, async || {
            let count = database.count(TABLE).await?;
            ensure!(count == 2, "{count} rows");
            Ok(())
        })
        .await;
        match &database {
            Database::Sqlite(_) => {
                let sql = "SELECT typeof(id), typeof(namespace), typeof(key_pattern), typeof(operation), typeof(hit),
                           typeof(latency_ms), typeof(timestamp) FROM cache_access_logs WHERE operation = 'get'";
                let mut connection = database.sqlite().await.expect("the file");
                let row = sqlx::query(sql).fetch_one(&mut connection).await.expect("the row");
                let types: Vec<String> = (0..7).map(|column| row.get(column)).collect();
                assert_eq!(types, ["integer", "text", "text", "text", "integer", "real", "integer"]);
            }
            Database::Postgres(_) => {
                let sql = "SELECT column_name::text, data_type::text FROM information_schema.columns
                           WHERE table_name = 'cache_access_logs' ORDER BY ordinal_position";
                let mut connection = database.postgres().await.expect("the database");
                let rows: Vec<(String, String)> =
                    sqlx::query_as(sql).fetch_all(&mut connection).await.expect("the columns");
                for (name, kind) in [
                    ("hit", "boolean"),
                    ("latency_ms", "double precision"),
                    ("timestamp", "timestamp with time zone"),
                    ("id", "bigint"),
                ] {
                    assert!(rows.contains(&(name.to_owned(), kind.to_owned())), "{name} {kind}: {rows:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_service_that_stops_writes_what_is_queued() {
    // The next flush is a minute away: only the drain at the stop can have written the rows.
    for (service, database) in database::both(|settings| settings.set("access_log_flush_ms", 60_000)) {
        let cache = service.client();
        for number in 0..250 {
            cache.get("drained", &format!("k{number}")).await.expect(404);
        }
        assert!(service.stop().success());
        assert_eq!(database.count(TABLE).await.expect("the table"), 250);
    }
}

#[tokio::test]
async fn a_sample_rate_of_0_writes_no_rows_and_of_a_half_about_half() {
    for (rate, expected) in [(0.0, 0..=0), (0.5, 800..=1_200)] {
        for (service, database) in database::both(|settings| settings.set("access_log_sample_rate", rate)) {
            let cache = service.client();
            for number in 0..2_000 {
                cache.get("sampled", &format!("k{}", number % 10)).await.expect(404);
            }
            let (_, dropped) = counted(&cache).await;
            assert_eq!(dropped, 0, "an operation that is not sampled does not count as dropped");
            assert!(service.stop().success());
            let count = database.count(TABLE).await.expect("the table");
            assert!(expected.contains(&count), "{count} rows of 2,000 at a rate of {rate}");
        }
    }
}

#[tokio::test]
async fn a_full_queue_drops_rows_and_counts_them() {
    let mut server = Postgres::start();
    let url = server.fresh_database();
    let settings = Settings::shards()
        .set("database_url", &url)
        .set("access_log_queue", 4)
        .set("access_log_batch", 2)
        .set("access_log_flush_ms", 20);
    let service = Service::start(settings);
    let (cache, database) = (service.client(), Database::Postgres(url));
    cache.get("full", "k").await.expect(404);
    eventually(SOON, async || {
        let (written, _) = counted(&cache).await;
        ensure!(written == 1, "{written} written");
        Ok(())
    })
    .await;
    server.kill();
    for number in 0..200 {
        cache.get("full", &format!("k{number}")).await.expect(404);
    }
    eventually(SOON, async || {
        let (_, dropped) = counted(&cache).await;
        ensure!(dropped >= 150, "a queue of 4 and a batch of 2 hold 6 rows, but only {dropped} of 200 were dropped");
        Ok(())
    })
    .await;
    server.run();
    eventually(LATER, async || {
        let (written, dropped) = counted(&cache).await;
        ensure!(written + dropped == 201, "{written} written, {dropped} dropped");
        let count = database.count(TABLE).await?;
        ensure!(count == written as i64, "{count} rows, {written} counted");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn cache_calls_go_on_without_postgres_and_rows_arrive_when_it_is_back() {
    let mut server = Postgres::start();
    let url = server.fresh_database();
    let settings =
        Settings::shards().set("database_url", &url).set("access_log_flush_ms", 20).unset("database_timeout_ms");
    let service = Service::start(settings);
    let (cache, ns, database) = (service.client(), namespace("log"), Database::Postgres(url));
    cache.set(&ns, "k", "1").await.expect(201);
    eventually(SOON, async || {
        let count = database.count(TABLE).await?;
        ensure!(count == 1, "{count} rows");
        Ok(())
    })
    .await;
    server.kill();
    let started = SystemTime::now();
    for number in 0..100 {
        // Some of the namespaces are not in the database yet: there is no SQL on the request path.
        cache.set(&format!("{ns}-{}", number % 5), &format!("k{number}"), "1").await.expect(201);
        cache.get(&ns, "k").await.expect(200);
    }
    let took = started.elapsed().expect("a clock that goes forward");
    assert!(took < Duration::from_secs(10), "200 calls without PostgreSQL took {took:?}");
    eventually(SOON, async || {
        let health = cache.health().await.expect(200).json();
        ensure!(health["status"] == "degraded" && health["database"]["state"] == "disconnected", "{health}");
        Ok(())
    })
    .await;

    server.run();
    eventually(LATER, async || {
        let health = cache.health().await.expect(200).json();
        ensure!(health["status"] == "healthy" && health["database"]["state"] == "connected", "{health}");
        Ok(())
    })
    .await;
    cache.get(&ns, "k").await.expect(200);
    eventually(LATER, async || {
        let (written, dropped) = counted(&cache).await;
        ensure!(written + dropped == 202, "{written} written, {dropped} dropped");
        let count = database.count(TABLE).await?;
        ensure!(count == written as i64, "{count} rows, {written} counted: a row is missing or doubled");
        ensure!(count > 100, "rows queued during the outage must be written: {count} rows");
        Ok(())
    })
    .await;
    // The namespaces that were created during the outage are stored by now.
    eventually(LATER, async || {
        let status = cache.policy(&format!("{ns}-4")).await.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await;
}

/// Locks the access log, so that nobody can write a row until the lock is released. Uses its own connection.
async fn lock(database: &Database) -> Lock {
    match database {
        Database::Sqlite(_) => {
            let mut connection = database.sqlite().await.expect("the file");
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.expect("the lock");
            Lock::Sqlite(connection)
        }
        Database::Postgres(_) => {
            let mut connection = database.postgres().await.expect("the server");
            let sql = "BEGIN; LOCK TABLE cache_access_logs IN ACCESS EXCLUSIVE MODE";
            sqlx::raw_sql(sql).execute(&mut connection).await.expect("the lock");
            Lock::Postgres(connection)
        }
    }
}

enum Lock {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Lock {
    async fn release(self) {
        let closed = match self {
            Lock::Sqlite(connection) => connection.close().await,
            Lock::Postgres(connection) => connection.close().await,
        };
        closed.expect("closing the connection releases the lock");
    }
}

#[tokio::test]
async fn every_operation_of_a_burst_is_written_or_counted_as_dropped() {
    const CLIENTS: i64 = 8;
    const CALLS: i64 = 500;
    const QUEUE: i64 = 100;
    const BATCH: i64 = 40;
    let settings = |settings: Settings| {
        let settings = settings.set("access_log_queue", QUEUE).set("access_log_batch", BATCH);
        settings.set("access_log_flush_ms", 20)
    };
    for (service, database) in database::both(settings) {
        let ns = namespace("burst");
        let cache = service.client();
        let burst = async || {
            let calls = (0..CLIENTS).map(async |client| {
                for number in 0..CALLS {
                    let answer = cache.get(&ns, &format!("k{client}-{number}")).await;
                    answer.expect(404);
                }
            });
            futures_util::future::join_all(calls).await;
        };
        // First at full speed; then while no row can be written, so that most rows find the queue full.
        burst().await;
        let locked = lock(&database).await;
        let (_, before) = counted(&cache).await;
        burst().await;
        let (_, dropped) = counted(&cache).await;
        let least = (CLIENTS * CALLS - 2 * (QUEUE + BATCH)) as u64;
        assert!(dropped - before >= least, "{} dropped, but at least {least} had no room", dropped - before);
        locked.release().await;
        let operations = 2 * CLIENTS * CALLS;
        eventually(LATER, async || {
            let metrics = cache.metrics().await;
            assert_eq!(metrics.total_with("sidecache_requests_total", &[("operation", "get")]) as i64, operations);
            let (written, dropped) = counted(&cache).await;
            ensure!((written + dropped) as i64 == operations, "{written} written, {dropped} dropped");
            let rows = database.count(TABLE).await?;
            ensure!(rows == written as i64, "{rows} rows, {written} counted");
            let queued = metrics.total("sidecache_access_log_queued_rows");
            ensure!(queued == 0.0, "{queued} queued");
            Ok(())
        })
        .await;
    }
}
