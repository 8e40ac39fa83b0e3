//! Lists while a shard is unavailable: they contain the keys of the other shards and say that they are partial. Also:
//! how a shard's address is shown, and what the fleet view costs the shards.

use std::process::{Command, Output};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

fn sidecache(service: &Service, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecache"));
    command.args(words).env("SIDECACHE_URL", format!("http://{}", service.address()));
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn fill(cache: &Client, ns: &str) {
    let entries: Vec<Value> = (0..60).map(|number| json!({"key": format!("k{number}"), "value": 1})).collect();
    cache.fill(ns, &json!(entries)).await;
}

/// The bug: listings were a 503, the CLI showed `?` for the numbers of namespaces, and the dashboard showed none.
#[tokio::test]
async fn regression_with_a_shard_down_lists_show_the_keys_of_the_others() {
    let mut servers = Redis::three();
    let settings = Settings::on(&servers).set("redis_timeout_ms", 500);
    let service = Service::start(settings.clone());
    let (cache, ns) = (service.client(), namespace("partial"));
    fill(&cache, &ns).await;
    let whole = cache.list(&ns, &[]).await.expect(200).json();
    assert_eq!((&whole["size"], whole.get("partial"), whole.get("missing_shards")), (&json!(60), None, None));
    servers[1].kill();
    let page = eventually(LATER, async || {
        let page = cache.list(&ns, &[]).await;
        ensure!(page.status == 200, "{}", page.text());
        let page = page.json();
        ensure!(page["partial"] == true, "{page}");
        Ok(page)
    })
    .await;
    assert_eq!(page["missing_shards"], json!(["b"]));
    let keys = page["keys"].as_array().expect("a list").len();
    assert!(keys > 0 && keys < 60 && page["size"] == keys, "{page}");
    let narrowed = cache.list(&ns, &[("pattern", "k1*"), ("limit", "3")]).await.expect(200).json();
    assert_eq!((&narrowed["partial"], narrowed["keys"].as_array().map(Vec::len)), (&json!(true), Some(3)));
    // Stats and dry runs of flushes are complete, or an error.
    cache.stats(&ns).await.expect_one_of_errors(503, &["shard_unavailable", "timeout"]);
    cache.flush(&ns, &[("dry_run", "true")]).await.expect_one_of_errors(503, &["shard_unavailable", "timeout"]);
    let stats = cache.fetch(&format!("/api/v1/cache/{ns}/stats?partial=true")).await.expect(200).json();
    assert_eq!(
        (&stats["total_keys"], &stats["partial"], &stats["missing_shards"]),
        (&page["size"], &json!(true), &json!(["b"]))
    );
    cache.fetch(&format!("/api/v1/cache/{ns}/stats?partial=perhaps")).await.expect_error(400, "invalid_query");

    let listed = sidecache(&service, &["keys", &ns]);
    assert_eq!((listed.status.code(), text(&listed.stdout).lines().count()), (Some(5), keys));
    assert!(text(&listed.stderr).contains("partial: these shards do not answer: b"), "{}", text(&listed.stderr));
    let namespaces = sidecache(&service, &["namespaces"]);
    let shown = text(&namespaces.stdout);
    let line = shown.lines().find(|line| line.starts_with(&ns)).expect("a line of the namespace");
    assert!(line.contains(&format!("{keys} (partial)")) && !line.contains('?'), "{line}");
    assert_eq!(namespaces.status.code(), Some(5));

    let page = cache.fetch(&format!("/dashboard/namespaces/{ns}")).await.expect(200);
    assert!(page.text().contains("data-missing=\"b\"") && page.text().contains("partial: without shard b"));
    assert!(page.text().contains(&format!("data-size=\"{keys}\"")), "{}", page.text());
    // An instance that never reached the shard shows the numbers of the others.
    let late = Service::launch(settings);
    eventually(LATER, async || {
        let page = late.client().fetch("/dashboard").await.expect(200);
        let row = page.text().split(&format!("data-namespace=\"{ns}\"")).nth(1).unwrap_or_default().to_owned();
        let row = row.split("</tr>").next().unwrap_or_default();
        ensure!(row.contains(&format!("data-value=\"{keys}\">{keys} (partial)")), "{row}");
        Ok(())
    })
    .await;
    // With no shard left, the list is an error.
    servers[0].kill();
    servers[2].kill();
    eventually(LATER, async || {
        let page = cache.list(&ns, &[]).await;
        ensure!(page.status == 503, "{}", page.text());
        Ok(())
    })
    .await;
}

/// The bug: no output showed the address of a shard, so a mistyped address looked like a dead server.
#[tokio::test]
async fn regression_a_shards_address_is_shown_without_its_secrets() {
    let server = Redis::start();
    let url = format!("redis://user:hunter2secret@127.0.0.1:{}/0", server.port());
    let shown = format!("redis://127.0.0.1:{}/0", server.port());
    // The server has no such user. The address of an unusable shard is shown as well.
    let service =
        Service::launch(Settings::on(std::slice::from_ref(&server)).set("redis_shards", format!("a={url}")));
    let cache = service.client();
    let cluster = eventually(SOON, async || Ok(cache.fetch("/api/v1/cluster").await.expect(200).json())).await;
    assert_eq!(cluster["shards"][0]["address"], json!(shown));
    let page = cache.fetch("/dashboard").await.expect(200);
    assert!(page.text().contains(&shown), "{}", page.text());
    let table = sidecache(&service, &["cluster"]);
    assert!(text(&table.stdout).contains(&shown), "{}", text(&table.stdout));
    assert!(service.log().contains(&shown), "{}", service.log());
    for told in [cluster.to_string(), page.text().to_owned(), service.log()] {
        assert!(!told.contains("hunter2secret"), "{told}");
    }
    let embedded = Service::start(Settings::embedded());
    let cluster = embedded.client().fetch("/api/v1/cluster").await.expect(200).json();
    assert_eq!(cluster["shards"][0]["address"], Value::Null);
}

/// The bug: each request for the fleet ran several scripts on every shard.
#[tokio::test]
async fn regression_concurrent_requests_for_the_fleet_share_one_query() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)));
    let cache = service.client();
    let mut connection = server.connect();
    let mut calls = || connection.info("stats", "total_commands_processed");
    let (before, started) = (calls(), std::time::Instant::now());
    let asked = (0..200).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.fetch("/api/v1/cluster").await.expect(200).json() })
    });
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.expect("an answer")["shards"][0]["name"], "a");
    }
    let (called, halves) = (calls() - before, started.elapsed().as_millis() / 500 + 1);
    // Meanwhile the instance itself sends about ten commands a second.
    let most = u64::try_from(halves).expect("few") * 40;
    assert!(called <= most, "{called} commands in {halves} half seconds");
}
