//! The runbook of docs/OPERATIONS.md: the tests run every command in it, and check that it changes only what it
//! names.

use std::process::{Command, Stdio};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::client::{Client, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::process;
use crate::support::redis::{self, Redis};
use crate::support::scratch;
use crate::support::service::{Service, Settings, variable};

/// The title of each section of the runbook, and the lines in its code blocks of one language.
fn sections(language: &str) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md")).expect("the file");
    let runbook = text.split_once("\n## Runbook\n").expect("the runbook is the last chapter").1;
    let fence = format!("```{language}\n");
    let section = |section: &str| {
        let blocks = section.split(&fence).skip(1).map(|block| block.split("```").next().unwrap_or_default());
        let lines = blocks.flat_map(str::lines).map(str::to_owned).collect();
        (section.lines().next().unwrap_or_default().to_owned(), lines)
    };
    runbook.split("\n### ").map(section).collect()
}

const POLICY: &str = r#"{"default_ttl":77,"max_size_mb":5,"eviction_policy":"NONE","stale_if_error":9,"ttl_jitter":0.1,
    "refresh_after":0.8,"stale_while_revalidate":8,"tombstone_ttl":7}"#;

const FIELDS: [&str; 8] = [
    "default_ttl",
    "max_size_mb",
    "eviction_policy",
    "stale_if_error",
    "ttl_jitter",
    "refresh_after",
    "stale_while_revalidate",
    "tombstone_ttl",
];

/// The policy fields that these commands name.
fn named(commands: &[String]) -> Vec<&'static str> {
    FIELDS.into_iter().filter(|field| commands.iter().any(|command| command.contains(field))).collect()
}

async fn policy(cache: &Client, ns: &str) -> Value {
    cache.policy(ns).await.expect(200).json()
}

/// The bug: the command in *Quota nearly full* changed the TTL, the eviction policy and `stale_if_error` together
/// with the quota.
#[tokio::test]
async fn regression_every_command_of_the_runbook_works_and_changes_only_what_it_names() {
    let server = Redis::start();
    let settings = Settings::on(std::slice::from_ref(&server)).set("access_log_flush_ms", 50);
    let service = Service::start(settings);
    let cache = service.client();
    let folder = scratch::folder("runbook");
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_sidecache")).parent().expect("a folder").display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let shards = redis::shards(std::slice::from_ref(&server));
    let mut count = 0;
    for (title, commands) in sections("sh") {
        let ns = namespace("runbook");
        cache.put_policy(&ns, POLICY).await.expect(201);
        cache.set(&ns, "old_1", "1").await.expect(201);
        let before = policy(&cache, &ns).await;
        for command in &commands {
            // A client whose connection a command can kill.
            let mut client = server.connect();
            let id = client.command(&["CLIENT", "ID"]).integer();
            let run = command
                .replace("INSTANCE:8080", &service.address().to_string())
                .replace("sport = :8080", &format!("sport = :{}", service.address().port()))
                .replace("-h SHARD", &format!("-h 127.0.0.1 -p {}", server.port()))
                .replace("CLIENT_ID", &id.to_string())
                .replace("NAME", &ns);
            let output = Command::new("bash")
                .args(["-o", "pipefail", "-c", &run])
                .current_dir(folder.path())
                .env("PATH", &path)
                // The same shards as the service has.
                .env(variable("redis_shards"), &shards)
                .stdin(Stdio::null())
                .output()
                .expect("bash runs");
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let is_refused = out.starts_with("ERR") || out.contains("(error)") || out.contains("\"error\":\"");
            assert!(output.status.success() && !is_refused, "{title}: {run}\n{}\n{out}\n{err}", output.status);
            count += 1;
        }
        let after = policy(&cache, &ns).await;
        for field in FIELDS {
            let is_named = named(&commands).contains(&field);
            assert_eq!(after[field] != before[field], is_named, "{title}: {field} of {before} is now {after}");
        }
    }
    assert!(count > 20, "only {count} commands were found");
}

#[test]
fn every_query_of_the_runbook_is_valid() {
    let queries: Vec<String> = sections("promql").into_iter().flat_map(|(_, lines)| lines).collect();
    assert!(queries.len() > 4, "{queries:?}");
    let rules: Vec<Value> =
        queries.iter().enumerate().map(|(n, expr)| json!({"record": format!("query_{n}"), "expr": expr})).collect();
    let folder = scratch::folder("queries");
    // JSON is valid YAML.
    let text = json!({"groups": [{"name": "runbook", "rules": rules}]}).to_string();
    let path = scratch::file(folder.path(), "rules.yml", &text);
    let output = Command::new(process::program_named("promtool", "prometheus"))
        .args(["check", "rules"])
        .arg(path)
        .output()
        .expect("promtool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// No test runs a command in the middle of a sentence.
#[test]
fn commands_of_the_runbook_are_in_code_blocks() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md")).expect("the file");
    let runbook = text.split_once("\n## Runbook\n").expect("the runbook is the last chapter").1;
    let outside = runbook.split("```").step_by(2).collect::<String>();
    for inline in outside.split('`').skip(1).step_by(2) {
        let begins = ["redis-cli", "curl ", "sidecache ", "ss ", "psql", "CONFIG SET", "CLIENT ", "SLOWLOG", "INFO "];
        assert!(!begins.iter().any(|word| inline.starts_with(word)), "`{inline}` must be in a code block");
        assert!(!inline.contains("rate(") && !inline.contains(" by ("), "`{inline}` must be in a code block");
    }
}

#[tokio::test]
async fn regression_the_share_of_connections_in_use_can_reach_the_alert() {
    // The bug: the alert fired at nine tenths of the file descriptors, but the limit on connections kept their use
    // below that.
    let service = Service::start(Settings::embedded().descriptors(500).set("max_connections", 16_384));
    let cache = service.client();
    let limit = cache.metrics().await.total("sidecache_http_connections_limit") as usize;
    assert!((10..500).contains(&limit), "{limit}");
    let open: Vec<_> =
        (0..limit - 2).map(|_| std::net::TcpStream::connect(service.address()).expect("a connection")).collect();
    eventually(SOON, async || {
        let metrics = cache.metrics().await;
        let used = metrics.total("sidecache_http_connections") / metrics.total("sidecache_http_connections_limit");
        ensure!(used > 0.9, "{used}");
        Ok(())
    })
    .await;
    drop(open);
}
