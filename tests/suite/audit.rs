//! The audit trail: a row for every change of a policy, written in the same transaction as the change, and a row for
//! every flush, however it ended. On SQLite and on PostgreSQL.

use std::time::{Duration, SystemTime};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, cache_path, namespace};
use crate::support::database::{self, Database};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::postgres::{self, Postgres};
use crate::support::process::Signal;
use crate::support::redis::{self, Redis};
use crate::support::service::{Service, Settings};
use crate::support::wire;

const TABLE: &str = "cache_audit";

on_both_stores! {
    every_change_of_a_policy_leaves_its_row,
    every_flush_leaves_its_row,
    a_row_says_who_asked,
    header_values_in_rows_are_bounded_and_printable,
    refused_requests_leave_no_row,
    a_policy_that_a_write_created_is_recorded_as_the_old_one,
    pages_hold_every_row_once_while_rows_are_added,
    wrong_parameters_are_refused,
}

/// The rows of a namespace, the newest first, once there are `count` of them.
async fn trail(cache: &Client, ns: &str, count: usize) -> Vec<Value> {
    eventually(SOON, async || {
        let page = cache.audit(ns, &[("limit", "1000")]).await.expect(200).json();
        let rows = page["audit"].as_array().expect("a list of rows").clone();
        ensure!(rows.len() >= count, "{} rows of {count}", rows.len());
        assert_eq!(rows.len(), count, "{page}");
        assert_eq!(page["cursor"], Value::Null);
        Ok(rows)
    })
    .await
}

/// A row without its time and its request id, which are checked here.
#[track_caller]
fn checked(mut row: Value) -> Value {
    let fields = row.as_object_mut().expect("an object");
    let at = fields.remove("at").expect("a row has its time");
    let at = humantime::parse_rfc3339(at.as_str().expect("a time is text")).expect("RFC 3339 in UTC");
    let age = SystemTime::now().duration_since(at).expect("a time in the past");
    assert!(age < Duration::from_secs(300), "{age:?}");
    let id = fields.remove("request_id").expect("a row has its request");
    assert!(id.as_str().is_some_and(|id| !id.is_empty()), "{id}");
    row
}

/// A row about a request of the test client, with `fields` set.
fn row(action: &str, fields: Value) -> Value {
    let mut row = json!({
        "client": "127.0.0.1", "forwarded_for": null, "action": action, "before": null, "after": null,
        "pattern": null, "tag": null, "deleted_count": null, "complete": true,
    });
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    row.as_object_mut().expect("an object").extend(fields);
    row
}

fn policy(default_ttl: u64, max_size_mb: u64, eviction_policy: &str) -> Value {
    json!({
        "default_ttl": default_ttl, "max_size_mb": max_size_mb, "eviction_policy": eviction_policy,
        "stale_if_error": 0, "ttl_jitter": 0.0, "refresh_after": 1.0, "stale_while_revalidate": 0, "tombstone_ttl": 60,
    })
}

async fn every_change_of_a_policy_leaves_its_row(service: &Service) {
    let (cache, ns) = (service.client(), namespace("audit"));
    cache.audit(&ns, &[]).await.expect_json(200, &json!({"audit": [], "cursor": null}));
    cache.put_policy(&ns, policy(60, 5, "LFU").to_string()).await.expect(201);
    cache.put_policy(&ns, r#"{"default_ttl":7}"#).await.expect(200);
    let mut stale = policy(7, 0, "LRU");
    stale["stale_if_error"] = json!(30);
    stale["ttl_jitter"] = json!(0.1);
    stale["refresh_after"] = json!(0.8);
    stale["stale_while_revalidate"] = json!(20);
    stale["tombstone_ttl"] = json!(10);
    cache.put_policy(&ns, stale.to_string()).await.expect(200);
    cache.put_policy(&ns, r#"{"default_ttl":7}"#).await.expect(200);
    // Writing an identical policy leaves a row as well: somebody asked for the change.
    cache.put_policy(&ns, r#"{"default_ttl":7}"#).await.expect(200);
    cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}])).await;
    cache.delete_policy(&ns).await.expect_json(200, &json!({"success": true, "deleted_count": 2}));
    // The audit trail outlives the namespace.
    cache.policy(&ns).await.expect_error(404, "namespace_not_found");
    let rows: Vec<Value> = trail(&cache, &ns, 6).await.into_iter().map(checked).collect();
    let (first, second) = (policy(60, 5, "LFU"), policy(7, 0, "LRU"));
    assert_eq!(
        rows,
        [
            row("policy_deleted", json!({"before": second, "deleted_count": 2})),
            row("policy_replaced", json!({"before": second, "after": second})),
            row("policy_replaced", json!({"before": stale, "after": second})),
            row("policy_replaced", json!({"before": second, "after": stale})),
            row("policy_replaced", json!({"before": first, "after": second})),
            row("policy_created", json!({"after": first})),
        ]
    );
    // A policy that is created again counts as new.
    cache.put_policy(&ns, "{}").await.expect(201);
    assert_eq!(trail(&cache, &ns, 7).await[0]["action"], "policy_created");
}

async fn every_flush_leaves_its_row(service: &Service) {
    let (cache, ns, other) = (service.client(), namespace("audit"), namespace("audit"));
    let entries = json!([
        {"key": "user_1", "value": 1}, {"key": "user_2", "value": 1}, {"key": "x", "value": 1, "tags": ["größe"]},
        {"key": "y", "value": 1},
    ]);
    cache.fill(&ns, &entries).await;
    cache.flush(&ns, &[("pattern", "user_*")]).await.expect(200);
    trail(&cache, &ns, 1).await;
    cache.flush(&ns, &[("tag", "größe")]).await.expect(200);
    trail(&cache, &ns, 2).await;
    cache.flush(&ns, &[]).await.expect(200);
    trail(&cache, &ns, 3).await;
    cache.flush(&ns, &[]).await.expect(200);
    let rows: Vec<Value> = trail(&cache, &ns, 4).await.into_iter().map(checked).collect();
    assert_eq!(
        rows,
        [
            row("flush", json!({"deleted_count": 0})),
            row("flush", json!({"deleted_count": 1})),
            row("flush", json!({"deleted_count": 1, "tag": "größe"})),
            row("flush", json!({"deleted_count": 2, "pattern": "user_*"})),
        ]
    );
    // A flush of a namespace that was never written leaves a row too, and only for that namespace.
    cache.flush(&other, &[]).await.expect(200);
    assert_eq!(checked(trail(&cache, &other, 1).await.remove(0)), row("flush", json!({"deleted_count": 0})));
}

async fn a_row_says_who_asked(service: &Service) {
    let (cache, ns) = (service.client(), namespace("audit"));
    let headers = [("x-forwarded-for", "203.0.113.7, 10.0.0.1"), ("x-request-id", "deploy-17")];
    let path = format!("/api/v1/namespaces/{ns}");
    cache.send(Method::PUT, &path, &headers, Some(b"{}".to_vec())).await.expect(201);
    cache.send(Method::DELETE, &cache_path(&ns), &headers, None).await.expect(200);
    cache.send(Method::DELETE, &path, &headers, None).await.expect(200);
    for row in trail(&cache, &ns, 3).await {
        assert_eq!(row["client"], "127.0.0.1", "the address of the connection, not the one that a header claims");
        assert_eq!(row["forwarded_for"], "203.0.113.7, 10.0.0.1");
        assert_eq!(row["request_id"], "deploy-17");
    }
    // A request without an id gets one, which is in its answer and in the row.
    let answer = cache.flush(&ns, &[]).await;
    let row = trail(&cache, &ns, 4).await.into_iter().find(|row| row["forwarded_for"].is_null());
    assert_eq!(row.expect("the last flush")["request_id"].as_str(), answer.header("x-request-id"));
}

async fn header_values_in_rows_are_bounded_and_printable(service: &Service) {
    let (cache, ns) = (service.client(), namespace("audit"));
    let (long, id) = (format!("{}, 10.0.0.1", "1.2.3.4, ".repeat(300)), "i".repeat(3000));
    // On a plain socket, to send bytes that are not text and the same header twice.
    let head = format!(
        "DELETE {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-forwarded-for: {long}\r\n\
         x-forwarded-for: \tevil\u{9b}31m\r\nx-request-id: {id}\r\n\r\n",
        cache_path(&ns)
    );
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    stream.write_all(head.as_bytes()).await.expect("the service takes the request");
    wire::read_answer(&mut stream).await.expect(200);
    let row = trail(&cache, &ns, 1).await.remove(0);
    let forwarded_for = row["forwarded_for"].as_str().expect("a claim");
    assert!(forwarded_for.len() <= 512 && forwarded_for.starts_with("..."), "{forwarded_for}");
    assert!(forwarded_for.ends_with("10.0.0.1, evil31m"), "the nearest proxy is at the end: {forwarded_for}");
    assert!(!forwarded_for.contains(char::is_control), "{forwarded_for:?}");
    let id = row["request_id"].as_str().expect("an id");
    assert!((100..=128).contains(&id.len()), "{id}");
}

async fn refused_requests_leave_no_row(service: &Service) {
    let (cache, ns) = (service.client(), namespace("audit"));
    cache.put_policy(&ns, r#"{"eviction_policy":"MRU"}"#).await.expect(400);
    cache.put_policy(&ns, "{").await.expect(400);
    cache.delete_policy(&ns).await.expect_error(404, "namespace_not_found");
    cache.flush(&ns, &[("pattern", "a"), ("tag", "b")]).await.expect(400);
    cache.flush(&ns, &[("pattern", "")]).await.expect(400);
    // Rows of flushes come in the order of the flushes, so a row of the refused ones would be here by now.
    cache.flush(&ns, &[]).await.expect(200);
    assert_eq!(trail(&cache, &ns, 1).await[0]["action"], "flush");
}

async fn a_policy_that_a_write_created_is_recorded_as_the_old_one(service: &Service) {
    let cache = service.client();
    let (replaced, deleted) = (namespace("audit"), namespace("audit"));
    // Immediately after the write, so that the namespace may not be in the database yet.
    cache.set(&replaced, "k", "1").await.expect(201);
    cache.put_policy(&replaced, r#"{"default_ttl":7}"#).await.expect(200);
    cache.set(&deleted, "k", "1").await.expect(201);
    cache.delete_policy(&deleted).await.expect(200);
    let default = policy(0, 0, "LRU");
    let expected = row("policy_replaced", json!({"before": default, "after": policy(7, 0, "LRU")}));
    assert_eq!(checked(trail(&cache, &replaced, 1).await.remove(0)), expected);
    let expected = row("policy_deleted", json!({"before": default, "deleted_count": 1}));
    assert_eq!(checked(trail(&cache, &deleted, 1).await.remove(0)), expected);
}

async fn pages_hold_every_row_once_while_rows_are_added(service: &Service) {
    let (cache, ns) = (service.client(), namespace("audit"));
    for ttl in 0..10 {
        cache.put_policy(&ns, json!({"default_ttl": ttl}).to_string()).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let mut query = vec![("limit", "3")];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = cache.audit(&ns, &query).await.expect(200).json();
        let rows = page["audit"].as_array().expect("a list of rows");
        assert!((1..=3).contains(&rows.len()), "{page}");
        seen.extend(rows.iter().map(|row| row["after"]["default_ttl"].as_u64().expect("a ttl")));
        // Newer than all rows of the pages, so it is on no later page.
        cache.put_policy(&ns, r#"{"default_ttl":99}"#).await.expect(200);
        match page["cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(seen, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
}

async fn wrong_parameters_are_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("audit"));
    for limit in ["0", "1001", "-1", "x", ""] {
        let problem = cache.audit(&ns, &[("limit", limit)]).await.expect_error(400, "invalid_query");
        assert!(problem.contains("limit"), "{problem}");
    }
    let listing = {
        cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}])).await;
        let page = cache.list(&ns, &[("limit", "1")]).await.expect(200).json();
        page["cursor"].as_str().unwrap_or("MQ").to_owned()
    };
    for cursor in ["", "x", "!!!", "MQ", &listing] {
        cache.audit(&ns, &[("cursor", cursor)]).await.expect_error(400, "invalid_cursor");
    }
    cache.audit(&ns, &[("since", "2026-01-01T00:00:00Z")]).await.expect_error(400, "invalid_query");
    cache.audit("a b", &[]).await.expect_error(400, "invalid_namespace");
}

#[tokio::test]
async fn a_policy_does_not_change_if_its_row_cannot_be_written() {
    for (service, database) in database::both(|settings| settings) {
        let (cache, ns) = (service.client(), namespace("audit"));
        cache.put_policy(&ns, r#"{"default_ttl":1}"#).await.expect(201);
        // From here on the database refuses every audit row.
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON cache_audit BEGIN SELECT RAISE(ABORT, 'no'); END";
        database.execute(refuse, "ALTER TABLE cache_audit ADD CHECK (at < '2000-01-01') NOT VALID").await;
        cache.put_policy(&ns, r#"{"default_ttl":2}"#).await.expect_error(503, "database_unavailable");
        cache.put_policy("new", "{}").await.expect_error(503, "database_unavailable");
        cache.delete_policy(&ns).await.expect_error(503, "database_unavailable");
        let unchanged = "SELECT count(*) FROM cache_namespaces WHERE default_ttl = 1 AND name <> 'new'";
        assert_eq!(database.number(unchanged).await.expect("the table"), 1);
        assert_eq!(database.count("cache_namespaces").await.expect("the table"), 1);
        assert_eq!(cache.policy(&ns).await.expect(200).number("default_ttl"), 1);
        cache.policy("new").await.expect_error(404, "namespace_not_found");
        assert_eq!(database.count(TABLE).await.expect("the table"), 1);
    }
}

#[tokio::test]
async fn a_service_that_stops_writes_the_rows_of_its_flushes() {
    for (service, database) in database::both(|settings| settings) {
        let cache = service.client();
        let flushes: Vec<_> = (0..300).map(|_| cache.flush("drained", &[])).collect();
        for answer in futures_util::future::join_all(flushes).await {
            answer.expect(200);
        }
        assert!(service.stop().success());
        assert_eq!(database.count(TABLE).await.expect("the table"), 300);
    }
}

#[tokio::test]
async fn old_rows_are_deleted_unless_retention_is_off() {
    for (days, expected) in [(30, 2), (0, 3)] {
        for (settings, database) in database::both_settings() {
            // The first start creates the tables.
            let service = Service::start(settings.clone());
            service.client().flush("kept", &[]).await.expect(200);
            assert!(service.stop().success());
            let insert = |at: &str| {
                format!(
                    "INSERT INTO cache_audit (namespace, at, client, request_id, action, complete)
                     VALUES ('old', {at}, '127.0.0.1', 'r', 'flush', TRUE)"
                )
            };
            for age in [20, 40] {
                let sqlite = insert(&format!("(unixepoch() - {age} * 86400) * 1000"));
                database.execute(&sqlite, &insert(&format!("now() - interval '{age} days'"))).await;
            }
            let service = Service::start(settings.set("audit_retention_days", days));
            eventually(SOON, async || {
                let count = database.count(TABLE).await?;
                ensure!(count == expected, "{count} rows kept at {days} days");
                Ok(())
            })
            .await;
            let page = service.client().audit("old", &[]).await.expect(200).json();
            assert_eq!(page["audit"].as_array().map(Vec::len), Some(expected as usize - 1), "{page}");
        }
    }
}

#[tokio::test]
async fn a_flush_that_reached_only_part_of_the_shards_is_not_complete() {
    let [a, b, _] = redis::shared();
    let dead = Redis::reserved();
    let shards = format!("a={},b={},c={}", a.url(), b.url(), dead.url());
    let service = Service::launch(Settings::shards().set("redis_shards", shards).unset("redis_timeout_ms"));
    let (cache, ns) = (service.client(), namespace("audit"));
    let mut stored = 0;
    for number in 0..30 {
        stored += u64::from(cache.set(&ns, &format!("k{number}"), "1").await.status == 201);
    }
    assert!((1..30).contains(&stored), "{stored} of 30 on the living shards");
    let answer = cache.flush(&ns, &[]).await.expect(503);
    let expected = row("flush", json!({"deleted_count": answer.number("deleted_count"), "complete": false}));
    assert_eq!(answer.number("deleted_count"), stored);
    assert_eq!(checked(trail(&cache, &ns, 1).await.remove(0)), expected);

    // If the flush of a deletion fails, the policy stays. The row is that of an incomplete flush, as entries may be
    // gone.
    cache.put_policy(&ns, "{}").await.expect(200);
    cache.delete_policy(&ns).await.expect(503);
    let rows: Vec<Value> = trail(&cache, &ns, 3).await.into_iter().map(checked).collect();
    assert_eq!(rows[0], row("flush", json!({"deleted_count": 0, "complete": false})));
    cache.policy(&ns).await.expect(200);
}

#[tokio::test]
async fn a_flush_that_timed_out_leaves_its_row() {
    let server = Redis::start();
    let settings = Settings::on(std::slice::from_ref(&server));
    let service = Service::start(settings.set("redis_timeout_ms", 3_900).set("request_timeout_ms", 4_000));
    let (cache, ns) = (service.client(), namespace("audit"));
    cache.set(&ns, "k", "1").await.expect(201);
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    let head = format!("DELETE {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n", cache_path(&ns));
    stream.write_all(head.as_bytes()).await.expect("the service takes the request");
    server.signal(Signal::Stop);
    // The late body leaves the request less time than the shard's timeout: the flush continues as a job.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stream.write_all(b"x").await.expect("the service takes the body");
    wire::read_answer(&mut stream).await.expect(202);
    let rows = trail(&cache, &ns, 1).await;
    server.signal(Signal::Cont);
    let expected = row("flush", json!({"deleted_count": 0, "complete": false}));
    assert_eq!(rows.into_iter().map(checked).collect::<Vec<_>>(), [expected]);
}

#[tokio::test]
async fn a_queue_that_is_full_drops_rows_and_counts_them() {
    let mut server = Postgres::start();
    let url = server.fresh_database();
    let service = Service::start(Settings::shards().set("database_url", &url).set("audit_queue", 4));
    let (cache, database) = (service.client(), Database::Postgres(url));
    let counted = async || {
        let metrics = cache.metrics().await;
        let whole = |name: &str| metrics.total(name) as i64;
        (whole("sidecache_audit_written_total"), whole("sidecache_audit_dropped_total"))
    };
    cache.put_policy("full", "{}").await.expect(201);
    cache.flush("full", &[]).await.expect(200);
    eventually(SOON, async || {
        let (written, _) = counted().await;
        ensure!(written == 2, "{written} written, of policies and of flushes");
        Ok(())
    })
    .await;
    server.kill();
    for _ in 0..600 {
        cache.flush("full", &[]).await.expect(200);
    }
    let (_, dropped) = counted().await;
    assert!(dropped >= 90, "a queue of 4 and a batch of 500 hold 504 rows, but only {dropped} of 600 were dropped");
    cache.audit("full", &[]).await.expect_error(503, "database_unavailable");
    server.run();
    eventually(LATER, async || {
        let (written, dropped) = counted().await;
        ensure!(written + dropped == 602, "{written} written, {dropped} dropped");
        let count = database.count(TABLE).await?;
        ensure!(count == written, "{count} rows, {written} counted");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_row_that_the_database_refuses_costs_no_other_rows() {
    const FLUSHES: usize = 64;
    let url = postgres::shared().fresh_database();
    let service = Service::start(Settings::shards().set("database_url", &url));
    let (cache, database) = (service.client(), Database::Postgres(url));
    cache.flush("first", &[]).await.expect(200);
    trail(&cache, "first", 1).await;
    database.execute("", "ALTER TABLE cache_audit ADD CHECK (pattern <> 'poison')").await;
    // Nobody can write while the table is locked, so the rows of all flushes come in one or two batches.
    let mut lock = database.postgres().await.expect("the server");
    sqlx::raw_sql("BEGIN; LOCK TABLE cache_audit").execute(&mut lock).await.expect("the lock");
    let poison = |number: usize| [3, 4, 17, 40, 63].contains(&number);
    for number in 0..FLUSHES {
        let harmless = format!("p{number}");
        let pattern = if poison(number) { "poison" } else { &harmless };
        cache.flush("mixed", &[("pattern", pattern)]).await.expect(200);
    }
    lock.close().await.expect("closing the connection releases the lock");
    let rows = trail(&cache, "mixed", FLUSHES - 5).await;
    let patterns: Vec<&str> = rows.iter().rev().map(|row| row["pattern"].as_str().expect("a pattern")).collect();
    let expected: Vec<String> =
        (0..FLUSHES).filter(|number| !poison(*number)).map(|number| format!("p{number}")).collect();
    assert_eq!(patterns, expected, "each pattern once, in the order of the flushes");
    eventually(SOON, async || {
        let metrics = cache.metrics().await;
        let counted = |name: &str| metrics.total(name) as usize;
        let (written, dropped) = (counted("sidecache_audit_written_total"), counted("sidecache_audit_dropped_total"));
        ensure!((written, dropped) == (1 + FLUSHES - 5, 5), "{written} written, {dropped} dropped");
        Ok(())
    })
    .await;
}
