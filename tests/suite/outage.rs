//! Unavailable servers: at the start, or one of three shards. The service starts, reports the outage, serves what it
//! can, answers everything else quickly with an error, and recovers as soon as the servers are back.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::postgres::Postgres;
use crate::support::redis::{self, Redis};
use crate::support::scratch;
use crate::support::service::{Service, Settings, Store};

/// The limit for a call while a server is unavailable. Timeouts are 250 ms, the rest is for a loaded machine.
const QUICKLY: Duration = Duration::from_secs(2);

async fn healthy(cache: &Client) {
    eventually(LATER, async || {
        let health = cache.health().await;
        ensure!(health.status == 200 && health.json()["status"] == "healthy", "{}", health.text());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn health_reports_every_part() {
    for store in [Store::Embedded, Store::Shards] {
        let service = Service::start(store.settings());
        let cache = service.client();
        healthy(&cache).await;
        let health = cache.health().await.expect(200).json();
        let memory = health["memory_usage"].as_str().and_then(|usage| usage.strip_suffix('%')?.parse::<f64>().ok());
        assert!(memory.is_some_and(|percent| (0.0..=100.0).contains(&percent)), "{health}");
        assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
        assert!(health["uptime_seconds"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{health}");
        assert_eq!(health["database"]["state"], "connected");
        let shards = health["shards"].as_array().expect("a list of shards");
        match store {
            Store::Embedded => {
                assert_eq!((&health["store"], &health["redis"]), (&json!("embedded"), &json!("not_configured")));
                assert_eq!(health["database"]["kind"], "sqlite");
            }
            Store::Shards => {
                assert_eq!((&health["store"], &health["redis"]), (&json!("redis"), &json!("connected")));
                assert_eq!(health["database"]["kind"], "postgres");
                let mut names: Vec<&str> = shards.iter().filter_map(|shard| shard["name"].as_str()).collect();
                names.sort_unstable();
                assert_eq!(names, ["a", "b", "c"]);
                assert!(shards.iter().all(|shard| shard["state"] == "connected"), "{health}");
            }
        }
        cache.fetch("/livez").await.expect_json(200, &json!({"status": "alive"}));
        cache.fetch("/readyz").await.expect_json(200, &json!({"status": "ready"}));
    }
}

#[tokio::test]
async fn without_redis_the_service_starts_unhealthy_and_recovers_with_redis() {
    let mut server = Redis::reserved();
    let settings = Settings::on(std::slice::from_ref(&server)).unset("redis_timeout_ms").unset("request_timeout_ms");
    let service = Service::launch(settings);
    let (cache, ns) = (service.client(), namespace("outage"));
    let health = cache.health().await.expect(503).json();
    assert_eq!((&health["status"], &health["redis"]), (&json!("unhealthy"), &json!("disconnected")), "{health}");
    assert_eq!(health["shards"][0]["state"], "disconnected", "{health}");
    cache.fetch("/livez").await.expect_json(200, &json!({"status": "alive"}));
    let not_ready = cache.fetch("/readyz").await.expect(503).json();
    // The reason may still be that the policies have not been read.
    assert_eq!(not_ready["status"], "not_ready", "{not_ready}");

    for call in ["get", "put", "delete", "mset", "mget"] {
        let started = Instant::now();
        match call {
            "get" => drop(cache.get(&ns, "k").await.expect_error(503, "shard_unavailable")),
            "put" => drop(cache.set(&ns, "k", "1").await.expect_error(503, "shard_unavailable")),
            "delete" => drop(cache.delete(&ns, "k").await.expect_error(503, "shard_unavailable")),
            "mset" => {
                let entries = json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}]);
                let answer = cache.mset(&ns, &entries).await.expect(503).json();
                assert_eq!((&answer["success"], &answer["stored"]), (&json!(false), &json!(0)), "{answer}");
                assert_eq!(answer["errors"].as_object().map(serde_json::Map::len), Some(2), "{answer}");
            }
            _ => {
                let answer = cache.mget(&ns, &["a", "b"]).await.expect(200).json();
                assert_eq!(
                    (&answer["hits"], &answer["misses"], &answer["errors"]),
                    (&json!(0), &json!(0), &json!(2))
                );
            }
        }
        assert!(started.elapsed() < QUICKLY, "{call} took {:?}", started.elapsed());
    }

    server.run();
    healthy(&cache).await;
    cache.fetch("/readyz").await.expect_json(200, &json!({"status": "ready"}));
    cache.set(&ns, "k", "1").await.expect(201);
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "1");
    eventually(LATER, async || {
        let answer = cache.get(&ns, "k").await.expect(200);
        ensure!(answer.is_l1_hit(), "{:?}", answer.header("cache-status"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_dead_shard_affects_only_its_own_keys() {
    let [a, b, _] = redis::shared();
    let mut dead = Redis::reserved();
    let shards = format!("a={},b={},c={}", a.url(), b.url(), dead.url());
    let settings = Settings::shards().set("redis_shards", shards).unset("redis_timeout_ms");
    let service = Service::launch(settings);
    let (cache, ns) = (service.client(), namespace("outage"));
    // The service may need a moment to connect to the living shards.
    eventually(LATER, async || {
        let answer = cache.health().await;
        ensure!(answer.status == 200, "{}", answer.text());
        let health = answer.json();
        ensure!(health["status"] == "degraded" && health["redis"] == "degraded", "{health}");
        let connected = |name: &str| {
            let shards = health["shards"].as_array().expect("a list of shards");
            shards.iter().any(|shard| shard["name"] == name && shard["state"] == "connected")
        };
        ensure!(connected("a") && connected("b") && !connected("c"), "{health}");
        Ok(())
    })
    .await;
    cache.fetch("/readyz").await.expect(200);

    let keys: Vec<String> = (0..60).map(|number| format!("k{number}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (mut alive, mut lost) = (Vec::new(), Vec::new());
    for key in &names {
        let started = Instant::now();
        let answer = cache.set(&ns, key, "1").await;
        assert!(started.elapsed() < QUICKLY, "{key} took {:?}", started.elapsed());
        match answer.status {
            201 => alive.push(*key),
            _ => {
                answer.expect_error(503, "shard_unavailable");
                lost.push(*key);
            }
        }
    }
    assert!(alive.len() > 20 && lost.len() > 5, "{} alive, {} lost", alive.len(), lost.len());

    let started = Instant::now();
    let answer = cache.mget(&ns, &names).await.expect(200).json();
    assert!(started.elapsed() < QUICKLY, "mget took {:?}", started.elapsed());
    assert_eq!(answer["hits"], alive.len());
    assert_eq!((&answer["misses"], &answer["errors"]), (&json!(0), &json!(lost.len())));
    for key in &alive {
        assert_eq!(answer["results"][*key], json!({"value": 1, "found": true}));
        cache.get(&ns, key).await.expect(200);
    }
    for key in &lost {
        let found = &answer["results"][*key];
        assert_eq!(*found, json!({"value": null, "found": false, "error": "shard_unavailable"}));
        cache.get(&ns, key).await.expect_error(503, "shard_unavailable");
    }

    let entries = |keys: &[&str]| -> Value { keys.iter().map(|key| json!({"key": key, "value": 2})).collect() };
    let answer = cache.mset(&ns, &entries(&names)).await.expect(200).json();
    assert_eq!((&answer["success"], &answer["stored"]), (&json!(false), &json!(alive.len())), "{answer}");
    let errors = answer["errors"].as_object().expect("errors by key");
    let mut failed: Vec<&str> = errors.keys().map(String::as_str).collect();
    failed.sort_unstable();
    let mut expected = lost.clone();
    expected.sort_unstable();
    assert_eq!(failed, expected);
    let answer = cache.mset(&ns, &entries(&lost)).await.expect(503).json();
    assert_eq!((&answer["success"], &answer["stored"]), (&json!(false), &json!(0)), "{answer}");
    let answer = cache.mset(&ns, &entries(&alive)).await;
    answer.expect_json(200, &json!({"success": true, "stored": alive.len()}));

    // A flush that could not reach a shard must not report success.
    let flushed = cache.flush(&ns, &[("pattern", "none*")]).await;
    assert!(flushed.status == 503 || flushed.json()["success"] == false, "{}", flushed.text());

    dead.run();
    healthy(&cache).await;
    for key in &lost {
        cache.set(&ns, key, "3").await.expect(201);
    }
    assert_eq!(cache.mget(&ns, &names).await.number("hits"), 60);
    cache.flush(&ns, &[]).await.expect(200);
}

/// The quotas and TTLs of namespaces are in the database. Until they were read, the service refuses writes.
#[tokio::test]
async fn regression_writes_are_refused_until_the_policies_were_read() {
    let mut server = Postgres::start();
    let url = server.fresh_database();
    let settings = || Settings::shards().set("database_url", &url).unset("database_timeout_ms");
    let ns = namespace("outage");
    let first = Service::start(settings());
    first.client().put_policy(&ns, r#"{"default_ttl":5,"max_size_mb":1}"#).await.expect(201);
    first.stop();
    server.kill();

    let service = Service::launch(settings());
    let cache = service.client();
    eventually(LATER, async || {
        let answer = cache.health().await;
        ensure!(answer.status == 200, "{}", answer.text());
        let health = answer.json();
        ensure!(health["status"] == "degraded" && health["redis"] == "connected", "{health}");
        let database = &health["database"];
        ensure!(database["state"] == "disconnected" && database["policies_known"] == false, "{health}");
        let error = database["error"].as_str().unwrap_or_default();
        ensure!(error.starts_with("Connection refused") && error.contains("127.0.0.1:"), "{health}");
        ensure!(health["warnings"].to_string().contains("writes are refused"), "{health}");
        Ok(())
    })
    .await;
    let reason = json!({"status": "not_ready", "reason": "policies_unknown"});
    cache.fetch("/readyz").await.expect_json(503, &reason);
    for name in [&ns, "new"] {
        cache.set(name, "k", "1").await.expect_error(503, "policies_unknown");
        cache.set_for(name, "k", "1", 60).await.expect_error(503, "policies_unknown");
        cache.mset(name, &json!([{"key": "k", "value": 1}])).await.expect_error(503, "policies_unknown");
        cache.policy(name).await.expect_error(503, "policies_unknown");
        cache.get(name, "k").await.expect(404);
    }
    cache.policies().await.expect_error(503, "policies_unknown");
    let page = cache.fetch(&format!("/dashboard/namespaces/{ns}")).await.expect(200);
    assert!(page.text().contains("policy of this namespace is not known"), "{}", page.text());
    let started = Instant::now();
    cache.put_policy(&ns, r#"{"default_ttl":5}"#).await.expect_error(503, "database_unavailable");
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    let log = service.log();
    assert!(log.contains("the postgres database") && log.contains("Connection refused"), "{log}");
    assert!(!log.contains("pool timed out"), "{log}");

    server.run();
    healthy(&cache).await;
    cache.fetch("/readyz").await.expect_json(200, &json!({"status": "ready"}));
    cache.set(&ns, "k", "1").await.expect(201);
    let ttl = cache.get(&ns, "k").await.expect(200).json()["metadata"]["ttl_remaining"].as_u64();
    assert!(ttl.is_some_and(|ttl| ttl <= 5), "{ttl:?}");
    assert_eq!(cache.policy(&ns).await.expect(200).json()["max_size_mb"], 1);
    cache.set("new", "k", "1").await.expect(201);
}

/// The policies of a SQLite file are loaded before the first request is answered.
#[tokio::test]
async fn policies_in_sqlite_are_known_to_the_first_request() {
    let folder = scratch::folder("file");
    let settings = || Settings::embedded().folder(folder.path());
    let first = Service::start(settings());
    first.client().put_policy("kept", r#"{"default_ttl":5}"#).await.expect(201);
    first.stop();
    let second = Service::launch(settings());
    let cache = second.client();
    cache.set("kept", "k", "1").await.expect(201);
    let ttl = cache.get("kept", "k").await.expect(200).json()["metadata"]["ttl_remaining"].as_u64();
    assert!(ttl.is_some_and(|ttl| ttl <= 5), "{ttl:?}");
}
