//! Shards with limited rights or other problems: what is reported, where and when, and what still works.

use std::slice;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::acl;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, run};

/// The findings about shard `a` by code and severity, and the whole answer of `/health`.
async fn findings(cache: &Client) -> (Vec<(String, String)>, Value) {
    let health = cache.health().await.json();
    let shard = health["shards"][0].clone();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let findings = shard["findings"].as_array().expect("a list").iter();
    (findings.map(|finding| (text(&finding["code"]), text(&finding["severity"]))).collect(), health)
}

/// Waits until `/health` has this status and exactly one finding, with this code and severity. Returns its text.
async fn reported(cache: &Client, status: &str, code: &str, severity: &str) -> String {
    eventually(LATER, async || {
        let (found, health) = findings(cache).await;
        ensure!(found == [(code.to_owned(), severity.to_owned())], "{health}");
        ensure!(health["status"] == status, "{health}");
        let text = health["shards"][0]["findings"][0]["text"].as_str().expect("a text").to_owned();
        ensure!(health["warnings"] == json!([text]), "{health}");
        Ok(text)
    })
    .await
}

/// Waits until `/health` reports no findings.
async fn is_healthy(cache: &Client) {
    eventually(LATER, async || {
        let (found, health) = findings(cache).await;
        ensure!(found.is_empty() && health["status"] == "healthy" && health["warnings"] == json!([]), "{health}");
        Ok(())
    })
    .await;
}

/// Checks that the finding is in the cluster answer, on the dashboard and in the log.
async fn is_reported_everywhere(service: &Service, code: &str, text: &str) {
    let cache = service.client();
    let cluster = cache.fetch("/api/v1/cluster").await.expect(200).json();
    assert_eq!(cluster["shards"][0]["findings"][0]["code"], code, "{cluster}");
    assert_eq!(cluster["warnings"], json!([text]));
    let capitalized = format!("S{}", &text[1..]);
    let escaped = capitalized.replace('&', "&amp;").replace('"', "&quot;").replace('>', "&gt;");
    eventually(LATER, async || {
        let page = cache.fetch("/dashboard").await.expect(200);
        ensure!(page.text().contains(&escaped), "{escaped}: {}", page.text());
        ensure!(!page.text().contains("data-status=\"healthy\""), "the dashboard shows healthy");
        Ok(())
    })
    .await;
    let log = service.log();
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains(code)).count();
    assert!(warned >= 1, "{log}");
}

/// Performs a change of each kind, and reads what was written.
async fn works(cache: &Client, ns: &str) {
    cache.put(ns, "k", r#"{"value": 1, "tags": ["t"], "ttl": 600}"#).await.expect(201);
    cache.set(ns, "never", "2").await.expect(201);
    assert_eq!(cache.mget(ns, &["k", "never", "absent"]).await.number("hits"), 2);
    cache.delete(ns, "never").await.expect(200);
    assert_eq!(cache.all_keys(ns).await, ["k"]);
    assert_eq!(cache.stats(ns).await.expect(200).number("total_keys"), 1);
    assert_eq!(cache.flush(ns, &[("tag", "t")]).await.expect(200).number("deleted_count"), 1);
}

#[tokio::test]
async fn the_documented_least_rights_are_sufficient() {
    let server = Redis::start();
    acl::create_least(&server);
    let service = Service::start(acl::settings(slice::from_ref(&server), "sidecache", "password"));
    let (cache, ns) = (service.client(), namespace("preflight"));
    is_healthy(&cache).await;
    works(&cache, &ns).await;
    cache.set(&ns, "k", "1").await.expect(201);
    eventually(LATER, async || {
        ensure!(cache.get(&ns, "k").await.expect(200).is_l1_hit(), "not answered from L1");
        Ok(())
    })
    .await;
    let operations = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md"));
    assert!(operations.expect("the document").lines().any(|line| line == acl::LEAST), "{}", acl::LEAST);
}

/// The bug: PUT and DELETE were executed but answered with 500, and health was healthy.
#[tokio::test]
async fn regression_a_user_without_channels_is_refused_before_the_first_write() {
    let server = Redis::start();
    acl::create(&server, &["~*", "resetchannels", "+@all"]);
    let service = Service::launch(acl::settings(slice::from_ref(&server), "shop", "secret"));
    let (cache, ns) = (service.client(), namespace("preflight"));
    let text = reported(&cache, "unhealthy", "forbidden_channels", "refused").await;
    assert!(text.ends_with("ACL SETUSER shop &sidecache:*"), "{text}");
    let (_, health) = findings(&cache).await;
    assert_eq!(health["shards"][0]["state"], "refused");
    is_reported_everywhere(&service, "forbidden_channels", &text).await;
    cache.set(&ns, "k", "1").await.expect_error(503, "shard_unavailable");
    cache.delete(&ns, "k").await.expect_error(503, "shard_unavailable");
    cache.get(&ns, "k").await.expect_error(503, "shard_unavailable");
    assert!(server.connect().keys("*").is_empty(), "nothing was written");

    server.connect().command(&["ACL", "SETUSER", "shop", "&sidecache:*"]);
    is_healthy(&cache).await;
    works(&cache, &ns).await;
    assert!(service.log().contains("resolved: shard a forbids"), "{}", service.log());
}

#[tokio::test]
async fn a_right_that_is_revoked_while_the_service_runs_is_noticed() {
    let server = Redis::start();
    acl::create(&server, &["~*", "&*", "+@all"]);
    let service = Service::start(acl::settings(slice::from_ref(&server), "shop", "secret"));
    let (cache, ns) = (service.client(), namespace("preflight"));
    works(&cache, &ns).await;
    server.connect().command(&["ACL", "SETUSER", "shop", "resetkeys", "~cache:*", "~cache_meta:*", "~sidecache:*"]);
    let text = reported(&cache, "unhealthy", "forbidden_keys", "refused").await;
    assert!(
        text.ends_with("ACL SETUSER shop ~cache_due:* ~cache_index:* ~cache_stats:* ~cache_tag:* ~cache_tags:*"),
        "{text}"
    );
    server.connect().command(&["ACL", "SETUSER", "shop", "allkeys", "-hset", "-zadd"]);
    let text = reported(&cache, "unhealthy", "forbidden_command", "refused").await;
    assert!(text.ends_with("ACL SETUSER shop +hset +zadd"), "{text}");
    server.connect().command(&["ACL", "SETUSER", "shop", "+@all"]);
    is_healthy(&cache).await;
    works(&cache, &ns).await;
}

/// The bug: everything was a 503 for ever, and the reason was in the log only at level `debug`.
#[tokio::test]
async fn regression_a_user_without_dangerous_commands_works_with_a_warning() {
    let server = Redis::start();
    acl::create(&server, &["~*", "&*", "+@all", "-@dangerous"]);
    let service = Service::start(acl::settings(slice::from_ref(&server), "shop", "secret"));
    let (cache, ns) = (service.client(), namespace("preflight"));
    let text = reported(&cache, "healthy", "forbidden_command", "warning").await;
    assert!(text.ends_with("ACL SETUSER shop +info"), "{text}");
    works(&cache, &ns).await;
    let cluster = cache.fetch("/api/v1/cluster").await.expect(200).json();
    assert_eq!(cluster["shards"][0]["role"], "primary", "{cluster}");
}

#[tokio::test]
async fn a_user_without_subscribe_works_without_l1() {
    let server = Redis::start();
    acl::create(&server, &["~*", "&*", "+@all", "-subscribe"]);
    let service = Service::launch(acl::settings(slice::from_ref(&server), "shop", "secret"));
    let (cache, ns) = (service.client(), namespace("preflight"));
    let text = reported(&cache, "degraded", "forbidden_command", "degraded").await;
    assert!(text.ends_with("ACL SETUSER shop +subscribe"), "{text}");
    works(&cache, &ns).await;
}

/// The bug: without KEYS and INFO everything was a 503 for ever.
#[tokio::test]
async fn regression_a_server_without_keys_and_info_works() {
    let server = Redis::start_as(&["--rename-command", "KEYS", "", "--rename-command", "INFO", ""]);
    let service = Service::start(Settings::on(slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("preflight"));
    let text = reported(&cache, "healthy", "unknown_command", "warning").await;
    assert!(text.contains("does not know INFO"), "{text}");
    works(&cache, &ns).await;
}

#[tokio::test]
async fn a_node_of_a_redis_cluster_is_refused() {
    let server = Redis::start_as(&["--cluster-enabled", "yes"]);
    let service = Service::launch(Settings::on(slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("preflight"));
    let text = reported(&cache, "unhealthy", "cluster_node", "refused").await;
    assert!(text.starts_with("shard a is a node of a Redis Cluster"), "{text}");
    is_reported_everywhere(&service, "cluster_node", &text).await;
    cache.set(&ns, "k", "1").await.expect_error(503, "shard_unavailable");
}

#[tokio::test]
async fn a_policy_that_evicts_any_key_works_but_is_degraded() {
    let server = Redis::start_as(&["--maxmemory-policy", "allkeys-lru"]);
    let service = Service::launch(Settings::on(slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("preflight"));
    let text = reported(&cache, "degraded", "evicts_bookkeeping", "degraded").await;
    assert!(text.ends_with("CONFIG SET maxmemory-policy volatile-lru"), "{text}");
    is_reported_everywhere(&service, "evicts_bookkeeping", &text).await;
    works(&cache, &ns).await;
    server.connect().configure("maxmemory-policy", "volatile-lru");
    is_healthy(&cache).await;
}

/// Starts a service on a working shard, begins a fault, checks how it is reported, and ends the fault.
async fn a_fault_is_reported_while_it_lasts(code: &str, begin: impl Fn(&Redis), end: impl Fn(&Redis)) {
    let server = Redis::start();
    let service = Service::start(Settings::on(slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("preflight"));
    works(&cache, &ns).await;
    begin(&server);
    let text = reported(&cache, "degraded", code, "degraded").await;
    is_reported_everywhere(&service, code, &text).await;
    cache.set(&ns, "k", "1").await.expect_error(503, "shard_unavailable");
    assert!(cache.metrics().await.total("sidecache_shard_degraded") > 0.5);
    end(&server);
    is_healthy(&cache).await;
    works(&cache, &ns).await;
}

/// The bug: every write was a 503, but health was healthy without a warning.
#[tokio::test]
async fn regression_a_server_that_cannot_save_is_degraded_while_it_refuses_writes() {
    let begin = |server: &Redis| {
        let mut connection = server.connect();
        connection.configure("save", "3600 1");
        let folder = connection.command(&["CONFIG", "GET", "dir"]).texts()[1].clone();
        std::fs::remove_dir_all(folder).expect("the server's own folder");
        connection.command(&["BGSAVE"]);
    };
    let end = |server: &Redis| server.connect().configure("save", "");
    a_fault_is_reported_while_it_lasts("cannot_save", begin, end).await;
}

/// The bug: every write was a 503, but health was healthy without a warning.
#[tokio::test]
async fn regression_a_primary_without_replicas_is_degraded_while_it_refuses_writes() {
    let begin = |server: &Redis| server.connect().configure("min-replicas-to-write", "1");
    let end = |server: &Redis| server.connect().configure("min-replicas-to-write", "0");
    a_fault_is_reported_while_it_lasts("no_replicas", begin, end).await;
}

#[tokio::test]
async fn a_primary_that_accepts_writes_without_replicas_gets_a_warning() {
    let [primary, replica] = [(); 2].map(|()| Redis::start());
    replica.connect().command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    eventually(LATER, async || {
        ensure!(primary.connect().info("replication", "connected_slaves") == 1, "no replica yet");
        Ok(())
    })
    .await;
    let service = Service::start(Settings::on(slice::from_ref(&primary)));
    let cache = service.client();
    let text = reported(&cache, "healthy", "unguarded_failover", "warning").await;
    assert!(text.contains("CONFIG SET min-replicas-to-write 1"), "{text}");
    primary.connect().configure("min-replicas-to-write", "1");
    is_healthy(&cache).await;
}

#[tokio::test]
async fn a_shard_that_is_a_replica_is_degraded_until_it_is_a_primary() {
    let primary = Redis::start();
    let (server, service) = {
        let server = Redis::start();
        let service = Service::start(Settings::on(slice::from_ref(&server)));
        (server, service)
    };
    let cache = service.client();
    server.connect().command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    let text = eventually(LATER, async || {
        let (found, health) = findings(&cache).await;
        ensure!(found.contains(&("replica".to_owned(), "degraded".to_owned())), "{health}");
        Ok(health["warnings"].to_string())
    })
    .await;
    assert!(text.contains("shard a is a replica and refuses writes"), "{text}");
    server.connect().command(&["REPLICAOF", "NO", "ONE"]);
    is_healthy(&cache).await;
}

/// The bug: writes were a 507, but health was healthy without a warning.
#[tokio::test]
async fn regression_a_full_shard_is_degraded_and_names_its_largest_namespaces() {
    let server = Redis::start_as(&["--maxmemory", "12mb", "--maxmemory-policy", "noeviction"]);
    let service = Service::start(Settings::on(slice::from_ref(&server)));
    let (cache, large, small) = (service.client(), namespace("large"), namespace("small"));
    for ns in [&large, &small] {
        cache.put_policy(ns, r#"{"default_ttl": 0, "max_size_mb": 0, "eviction_policy": "NONE"}"#).await.expect(201);
    }
    let value = format!("\"{}\"", "x".repeat(20_000));
    cache.set(&small, "k", &value).await.expect(201);
    let mut written = 0;
    eventually(LATER, async || {
        loop {
            written += 1;
            match cache.set(&large, &format!("k{written}"), &value).await.status {
                201 => {}
                status => break ensure!(status == 507, "{status}"),
            }
        }
        let (found, health) = findings(&cache).await;
        ensure!(health["status"] == "degraded", "{health}");
        ensure!(found.iter().any(|(code, _)| code == "out_of_memory"), "{health}");
        let warning = health["warnings"][0].as_str().expect("a text");
        let (_, holders) = warning.split_once("the largest namespaces are ").unwrap_or_default();
        ensure!(holders.starts_with(&large) && holders.contains(&small), "{warning}");
        let metrics = cache.metrics().await;
        let used = metrics.total("sidecache_shard_memory_used_bytes");
        ensure!(used > 0.8 * metrics.total("sidecache_shard_memory_limit_bytes"), "{used}");
        ensure!(metrics.total("sidecache_shard_out_of_memory_total") > 0.5, "not counted");
        Ok(())
    })
    .await;
    assert!(service.log().contains("out_of_memory"), "{}", service.log());
}

#[tokio::test]
async fn a_shard_that_evicts_new_entries_is_degraded() {
    let server = Redis::start_as(&["--maxmemory", "8mb", "--maxmemory-policy", "volatile-lru"]);
    let service = Service::start(Settings::on(slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("young"));
    let value = format!("\"{}\"", "x".repeat(20_000));
    let mut written = 0;
    eventually(LATER, async || {
        for _ in 0..20 {
            written += 1;
            cache.set_for(&ns, &format!("k{written}"), &value, 600).await;
        }
        let (found, health) = findings(&cache).await;
        ensure!(health["status"] == "degraded", "{health}");
        ensure!(found.iter().any(|(code, _)| code == "evicts_young"), "{health}");
        ensure!(health["warnings"][0].as_str().is_some_and(|text| text.contains(&ns)), "{health}");
        Ok(())
    })
    .await;
}

#[test]
fn check_config_reports_what_does_not_work_on_a_shard() {
    let servers = [Redis::start(), Redis::start_as(&["--maxmemory-policy", "allkeys-lru"])];
    let check = |settings: Settings| run(&settings.argument("check-config").argument("--connect"));
    let warned = check(Settings::on(&servers));
    assert!(warned.status.success(), "{}{}", warned.stdout, warned.stderr);
    assert!(warned.stdout.contains("shard a: connected to Redis "), "{}", warned.stdout);
    assert!(warned.stdout.contains("degraded: shard b may evict any key"), "{}", warned.stdout);

    acl::create(&servers[0], &["~*", "resetchannels", "+@all"]);
    let settings = acl::settings(&servers[..1], "shop", "secret");
    let refused = check(settings.clone());
    assert_eq!(refused.status.code(), Some(3), "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stdout.contains("ACL SETUSER shop &sidecache:*"), "{}", refused.stdout);
    assert!(refused.stderr.contains("not usable: shard a"), "{}", refused.stderr);
    let json = check(settings.argument("--json"));
    let document: Value = serde_json::from_str(&json.stdout).expect("a document");
    assert_eq!(document["connections"][0]["findings"][0]["code"], "forbidden_channels", "{document}");
    assert!(servers[0].connect().keys("*").is_empty(), "the check left no keys behind");
}
