//! The access log as clients read it: newest first, filtered, page by page. On SQLite and on PostgreSQL.

use std::time::{Duration, SystemTime};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, namespace};
use crate::support::database::{self, Database};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::postgres::{self, Postgres};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, Store};

on_both_stores! {
    operations_are_shown_the_newest_first,
    since_and_operation_filter_lines,
    regression_a_row_has_the_outcome_of_its_operation,
    errors_name_the_wrong_parameter,
}

/// One page: its lines, and the cursor of the next page.
async fn page(cache: &Client, ns: &str, query: &[(&str, &str)]) -> (Vec<Value>, Option<String>) {
    let page = cache.logs(ns, query).await.expect(200).json();
    let lines = page["logs"].as_array().expect("a list of lines").clone();
    (lines, page["cursor"].as_str().map(str::to_owned))
}

/// Every line that `query` selects, page by page.
async fn all(cache: &Client, ns: &str, query: &[(&str, &str)]) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut query = query.to_vec();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let (lines, next) = page(cache, ns, &query).await;
        found.extend(lines);
        match next {
            Some(next) => cursor = Some(next),
            None => return found,
        }
    }
}

/// All lines, once there are `count`.
async fn settled(cache: &Client, ns: &str, count: usize) -> Vec<Value> {
    eventually(SOON, async || {
        let lines = all(cache, ns, &[]).await;
        ensure!(lines.len() == count, "{} lines of {count}", lines.len());
        Ok(lines)
    })
    .await
}

fn time(line: &Value) -> SystemTime {
    humantime::parse_rfc3339(line["at"].as_str().expect("a time is text")).expect("RFC 3339 in UTC")
}

async fn operations_are_shown_the_newest_first(service: &Service) {
    let (cache, ns) = (service.client(), namespace("logs"));
    cache.logs(&ns, &[]).await.expect_json(200, &json!({"logs": [], "cursor": null}));
    cache.set(&ns, "user_1", "1").await.expect(201);
    cache.get(&ns, "user_1").await.expect(200);
    cache.get(&ns, "user_2").await.expect(404);
    cache.flush(&ns, &[]).await.expect(200);
    let lines = settled(&cache, &ns, 4).await;
    assert!(lines.iter().map(time).rev().is_sorted(), "{lines:?}");
    for line in &lines {
        let age = SystemTime::now().duration_since(time(line)).expect("a time in the past");
        assert!(age < Duration::from_secs(300), "{line}");
        assert!(line["latency_ms"].as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "{line}");
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(13), "{line}");
    }
    let shown = |line: &Value| json!([line["operation"], line["key_pattern"], line["hit"]]);
    let mut shown: Vec<String> = lines.iter().map(|line| shown(line).to_string()).collect();
    // Operations within the same millisecond have no defined order.
    shown.sort();
    let expected = [
        r#"["flush","*",null]"#,
        r#"["get","user_*",false]"#,
        r#"["get","user_*",true]"#,
        r#"["set","user_*",null]"#,
    ];
    assert_eq!(shown, expected);
}

/// `[operation, hit, outcome, status, error_code, tier]` of each line, sorted.
fn endings(lines: &[Value]) -> Vec<String> {
    let fields = ["operation", "hit", "outcome", "status", "error_code", "tier"];
    let mut shown: Vec<String> =
        lines.iter().map(|line| json!(fields.map(|field| line[field].clone())).to_string()).collect();
    shown.sort();
    shown
}

/// The bug: a row had only `hit`, which was null both for a write and for a failed read.
async fn regression_a_row_has_the_outcome_of_its_operation(service: &Service) {
    let (cache, ns) = (service.client(), namespace("logs"));
    let tier = if service.store() == Store::Shards { "shard" } else { "embedded" };
    cache.set(&ns, "k", "1").await.expect(201);
    cache.set(&ns, "k", "2").await.expect(200);
    cache.get_with(&ns, "k", &[("cache-control", "no-cache")]).await.expect(200);
    cache.get(&ns, "absent").await.expect(404);
    cache.delete(&ns, "absent").await.expect(404);
    cache.delete(&ns, "k").await.expect(200);
    cache.set(&ns, "stats", "1").await.expect_error(400, "reserved_key");
    cache.mget(&ns, &["k", "absent"]).await.expect(200);
    cache.mset(&ns, &json!([{"key": "a", "value": 1}])).await.expect(200);
    cache.flush(&ns, &[]).await.expect(200);
    let lines = settled(&cache, &ns, 10).await;
    let expected = [
        json!(["delete", null, "done", 200, null, tier]),
        json!(["delete", null, "done", 404, "key_not_found", tier]),
        json!(["flush", null, "done", 200, null, tier]),
        json!(["get", false, "miss", 404, "key_not_found", tier]),
        json!(["get", true, "hit", 200, null, tier]),
        json!(["mget", false, "miss", 200, null, tier]),
        json!(["mset", null, "done", 200, null, tier]),
        json!(["set", null, "done", 200, null, tier]),
        json!(["set", null, "done", 201, null, tier]),
        json!(["set", null, "refused", 400, "reserved_key", null]),
    ];
    assert_eq!(endings(&lines), expected.map(|line| line.to_string()));
    let cluster = cache.fetch("/api/v1/cluster").await.expect(200).json();
    let here = cluster["instances"].as_array().and_then(|all| all.iter().find(|one| one["self"] == true));
    let here = here.map(|one| one["id"].clone()).expect("the instance that was asked");
    for line in &lines {
        assert_eq!((&line["client"], &line["instance"]), (&json!("127.0.0.1"), &here), "{line}");
    }
}

/// The same while a shard is down: the rows distinguish a failed read and a stale answer from other reads.
#[tokio::test]
async fn regression_rows_distinguish_failures_and_stale_answers() {
    let mut server = Redis::start();
    let settings =
        Settings::on(std::slice::from_ref(&server)).set("redis_timeout_ms", 500).set("access_log_flush_ms", 50);
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("logs"));
    cache.put_policy(&ns, r#"{"stale_if_error":600}"#).await.expect(201);
    cache.set(&ns, "k", "1").await.expect(201);
    eventually(LATER, async || {
        ensure!(cache.get(&ns, "k").await.is_l1_hit(), "not in L1 yet");
        Ok(())
    })
    .await;
    server.kill();
    eventually(LATER, async || {
        let answer = cache.get(&ns, "k").await.expect(200);
        ensure!(answer.header("warning").is_some(), "not stale yet");
        Ok(())
    })
    .await;
    eventually(LATER, async || {
        let answer = cache.get(&ns, "other").await;
        ensure!(answer.text().contains("shard_unavailable"), "{}", answer.text());
        Ok(())
    })
    .await;
    cache.mget(&ns, &["k", "other"]).await.expect(200);
    let expected = [
        json!(["get", true, "hit", 200, null, "l1"]),
        json!(["get", true, "stale", 200, null, "l1"]),
        json!(["get", null, "failed", 503, "shard_unavailable", "shard"]),
        json!(["mget", null, "failed", 200, "shard_unavailable", "shard"]),
    ];
    eventually(LATER, async || {
        let seen = endings(&all(&cache, &ns, &[]).await);
        for line in &expected {
            ensure!(seen.contains(&line.to_string()), "{line} in {seen:#?}");
        }
        Ok(())
    })
    .await;
}

async fn since_and_operation_filter_lines(service: &Service) {
    let (cache, ns) = (service.client(), namespace("logs"));
    for number in 0..5 {
        cache.get(&ns, &format!("k{number}")).await.expect(404);
        cache.delete(&ns, "k").await.expect(404);
    }
    let lines = settled(&cache, &ns, 10).await;
    for (operation, count) in [("get", 5), ("delete", 5), ("mget", 0)] {
        let found = all(&cache, &ns, &[("operation", operation), ("limit", "2")]).await;
        assert_eq!(found.len(), count, "{operation}");
        assert!(found.iter().all(|line| line["operation"] == operation), "{found:?}");
    }
    // `since` is inclusive, and may have any offset from UTC.
    let middle = lines[4]["at"].as_str().expect("a time");
    let expected = lines.iter().filter(|line| time(line) >= time(&lines[4])).count();
    assert_eq!(all(&cache, &ns, &[("since", middle)]).await.len(), expected);
    let local = humantime::format_rfc3339_millis(time(&lines[4]) + Duration::from_secs(5400)).to_string();
    assert_eq!(all(&cache, &ns, &[("since", &local.replace('Z', "+01:30"))]).await.len(), expected);
    assert_eq!(all(&cache, &ns, &[("since", "2099-01-01T00:00:00Z")]).await.len(), 0);
    assert_eq!(all(&cache, &ns, &[("since", "1970-01-01T00:00:00Z")]).await.len(), 10);
}

async fn errors_name_the_wrong_parameter(service: &Service) {
    let (cache, ns) = (service.client(), namespace("logs"));
    for (name, value) in [
        ("since", "yesterday"),
        ("since", ""),
        ("since", "2026-01-01"),
        ("since", "2026-01-01T00:00:00"),
        ("since", "2026-01-01T25:00:00Z"),
        ("since", "1700000000"),
        ("operation", "GET"),
        ("operation", "put"),
        ("operation", ""),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "many"),
        ("untill", "2026-01-01T00:00:00Z"),
    ] {
        let problem = cache.logs(&ns, &[(name, value)]).await.expect_error(400, "invalid_query");
        assert!(problem.contains(name), "{name}={value}: {problem}");
    }
    cache.flush(&ns, &[]).await.expect(200);
    for cursor in ["", "x", "!!!", "MQ", "YXVkaXQxCjU"] {
        cache.logs(&ns, &[("cursor", cursor)]).await.expect_error(400, "invalid_cursor");
    }
    cache.logs("a b", &[]).await.expect_error(400, "invalid_namespace");
}

#[tokio::test]
async fn pages_hold_every_line_once_while_lines_are_added() {
    for (service, _database) in database::both(|settings| settings.set("access_log_flush_ms", 20)) {
        let (cache, ns) = (service.client(), namespace("logs"));
        for number in 0..50 {
            cache.get(&ns, &format!("before{}", number % 10)).await.expect(404);
        }
        settled(&cache, &ns, 50).await;
        let (mut seen, mut added, mut cursor) = (0, 0, None::<String>);
        loop {
            let mut query = vec![("limit", "7")];
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let (lines, next) = page(&cache, &ns, &query).await;
            assert!(lines.len() <= 7);
            seen += lines.iter().filter(|line| line["key_pattern"] == "before*").count();
            for _ in 0..5 {
                cache.delete(&ns, "added").await.expect(404);
                added += 1;
            }
            // Waits for the added lines, so that the next page is read from more lines than this one.
            eventually(SOON, async || {
                let found = all(&cache, &ns, &[("operation", "delete")]).await.len();
                ensure!(found == added, "{found} lines of {added}");
                Ok(())
            })
            .await;
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, 50, "each line once");
    }
}

/// SQL that inserts lines of a namespace, a millisecond apart and at whole milliseconds like the service's own lines:
/// `(sqlite, postgres)`.
fn insert(ns: &str, operation: &str, count: usize, hours_ago: u32) -> (String, String) {
    let columns = "(namespace, key_pattern, operation, hit, latency_ms, timestamp)";
    let sqlite = format!(
        "WITH RECURSIVE line (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM line WHERE n < {count})
         INSERT INTO cache_access_logs {columns}
         SELECT '{ns}', '*', '{operation}', NULL, 0.1, (unixepoch() - {hours_ago} * 3600) * 1000 - n FROM line"
    );
    let postgres = format!(
        "INSERT INTO cache_access_logs {columns}
         SELECT '{ns}', '*', '{operation}', NULL, 0.1,
         date_trunc('second', now()) - interval '{hours_ago} hours' - n * interval '1 millisecond' FROM generate_series(1, {count}) AS n"
    );
    (sqlite, postgres)
}

#[tokio::test]
async fn rare_operations_are_found_among_many_others() {
    for (service, database) in database::both(|settings| settings) {
        let cache = service.client();
        cache.get("rare", "k").await.expect(404);
        settled(&cache, "rare", 1).await;
        for (operation, count, hours_ago) in [("flush", 3, 1), ("get", 50_000, 2), ("flush", 4, 3)] {
            let (sqlite, postgres) = insert("rare", operation, count, hours_ago);
            database.execute(&sqlite, &postgres).await;
        }
        let (first, cursor) = page(&cache, "rare", &[("operation", "flush"), ("limit", "1000")]).await;
        assert_eq!(first.len(), 3, "the search stops before it takes long");
        assert!(cursor.is_some(), "the page says that there may be more");
        let found = all(&cache, "rare", &[("operation", "flush"), ("limit", "5")]).await;
        assert_eq!(found.len(), 7);
        assert!(found.iter().map(time).rev().is_sorted(), "{found:?}");
        assert_eq!(all(&cache, "rare", &[("operation", "get"), ("limit", "1000")]).await.len(), 50_001);
    }
}

#[tokio::test]
async fn postgres_uses_the_index_to_find_lines() {
    let url = postgres::shared().fresh_database();
    let service = Service::start(Settings::shards().set("database_url", &url));
    let (cache, database) = (service.client(), Database::Postgres(url));
    cache.get("index", "k").await.expect(404);
    settled(&cache, "index", 1).await;
    let (_, sql) = insert("index", "get", 60_000, 1);
    database.execute("", &sql).await;
    database.execute("", "ANALYZE cache_access_logs").await;
    let scans = async || {
        // PostgreSQL counts how often it scanned the table and how often it used the index.
        let all = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'cache_access_logs'";
        let index = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'cache_access_logs_namespace'";
        anyhow::Ok((database.number(all).await?, database.number(index).await?))
    };
    let (all_before, index_before) = scans().await.expect("the counts");
    // PostgreSQL considers a generic plan after five executions of a statement.
    for _ in 0..5 {
        for query in [&[][..], &[("operation", "flush")], &[("since", "2001-01-01T00:00:00Z"), ("limit", "1000")]] {
            page(&cache, "index", query).await;
        }
    }
    let (_, cursor) = page(&cache, "index", &[("limit", "1000")]).await;
    page(&cache, "index", &[("cursor", &cursor.expect("there are more"))]).await;
    eventually(LATER, async || {
        let (all, index) = scans().await?;
        ensure!(index - index_before >= 17, "the index was used {} times", index - index_before);
        assert_eq!(all, all_before, "the whole table was scanned");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn old_lines_are_deleted_unless_retention_is_off() {
    for (days, expected) in [(2, 11), (0, 6_011)] {
        for (settings, database) in database::both_settings() {
            // The first start creates the tables.
            assert!(Service::start(settings.clone()).stop().success());
            // More lines than one step deletes.
            for (count, hours_ago) in [(6_000, 72), (10, 24)] {
                let (sqlite, postgres) = insert("old", "get", count, hours_ago);
                database.execute(&sqlite, &postgres).await;
            }
            let service = Service::start(settings.set("access_log_retention_days", days));
            service.client().get("old", "k").await.expect(404);
            eventually(SOON, async || {
                let count = database.count("cache_access_logs").await?;
                ensure!(count == expected, "{count} rows kept at {days} days");
                Ok(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn without_the_database_logs_and_audit_trail_are_unavailable() {
    let mut server = Postgres::start();
    let settings = Settings::shards().set("database_url", server.fresh_database()).unset("database_timeout_ms");
    let service = Service::start(settings);
    let cache = service.client();
    cache.get("away", "k").await.expect(404);
    settled(&cache, "away", 1).await;
    server.kill();
    cache.logs("away", &[]).await.expect_error(503, "database_unavailable");
    cache.audit("away", &[]).await.expect_error(503, "database_unavailable");
    // An invalid request is still a 400.
    cache.logs("away", &[("operation", "x")]).await.expect_error(400, "invalid_query");
    server.run();
    eventually(LATER, async || {
        let status = cache.logs("away", &[]).await.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await;
}
