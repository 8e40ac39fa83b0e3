//! Start and end of the service: invalid settings, the precedence of settings, the output, and SIGTERM.
//!
//! For servers that are unavailable at the start see `outage.rs`.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::process::Signal;
use crate::support::scratch;
use crate::support::service::{Finished, Service, Settings, run, variable};
use crate::support::wire;

/// The name of every setting, from the file of defaults.
fn every_setting() -> Vec<String> {
    let defaults: toml::Table = include_str!("../../src/config/default.toml").parse().expect("the defaults are TOML");
    defaults.into_iter().map(|(name, _)| name).collect()
}

/// Expects that the run ends with status 2 and one line, and returns the line.
#[track_caller]
fn refused(settings: &Settings) -> String {
    let Finished { status, stdout, stderr } = run(settings);
    assert_eq!(status.code(), Some(2), "stdout:\n{stdout}\nstderr:\n{stderr}");
    assert_eq!(stdout, "", "stdout must be empty");
    let lines: Vec<&str> = stderr.lines().collect();
    let [line] = lines[..] else { panic!("one line expected:\n{stderr}") };
    assert!(line.starts_with("sidecache: "), "{line}");
    line.to_owned()
}

const WRONG: &[(&str, &str)] = &[
    ("listen", "nonsense"),
    ("listen", "127.0.0.1"),
    ("listen", "127.0.0.1:99999"),
    ("listen", "localhost:http"),
    ("advertise", "nonsense"),
    ("advertise", "cache-1:port"),
    ("hosts", "cache-1:8080"),
    ("public_url", "cache.example"),
    ("idle_timeout_ms", "75s"),
    ("resp_listen", "6378"),
    ("resp_databases", "users"),
    ("resp_databases", "0=a b"),
    ("redis_shards", "nonsense"),
    ("redis_shards", "redis://127.0.0.1:6379"),
    ("redis_shards", "a=http://127.0.0.1:6379"),
    ("redis_shards", "a=redis://127.0.0.1:port"),
    ("redis_shards", "a=redis://127.0.0.1:6379,b"),
    ("redis_shards", "=redis://127.0.0.1:6379"),
    ("redis_shards", "a=redis://127.0.0.1:6379,b=redis://127.0.0.1:6380,a=redis://127.0.0.1:6381"),
    ("database_url", "mysql://127.0.0.1/x"),
    ("database_url", "nonsense"),
    ("l1_max_mb", "100000000"),
    ("l1_max_mb", "-1"),
    ("l1_max_mb", "1.5"),
    ("l1_max_mb", "abc"),
    ("l1_max_mb", "64MB"),
    ("l1_max_mb", "18446744073709551616"),
    ("embedded_max_mb", "-5"),
    ("max_staleness_ms", "1s"),
    ("redis_timeout_ms", "0"),
    ("redis_connections", "0"),
    ("default_ttl", "-1"),
    ("default_eviction_policy", "MRU"),
    ("default_stale_if_error", "-1"),
    ("default_stale_if_error", "3153600001"),
    ("default_ttl_jitter", "0.6"),
    ("default_ttl_jitter", "nan"),
    ("default_refresh_after", "0"),
    ("default_refresh_after", "1.1"),
    ("default_stale_while_revalidate", "-1"),
    ("default_tombstone_ttl", "0"),
    ("auto_create_namespaces", "maybe"),
    ("max_value_bytes", "4 MiB"),
    ("max_bodies_mb", "0"),
    ("max_bodies_mb", "31"),
    ("max_answers_mb", "4"),
    ("max_batch_keys", "many"),
    ("request_timeout_ms", "-1"),
    ("access_log_sample_rate", "1.5"),
    ("access_log_sample_rate", "-0.1"),
    ("access_log_sample_rate", "nan"),
    ("access_log_queue", "x"),
    ("audit_queue", "0"),
    ("audit_retention_days", "-1"),
    ("log_format", "xml"),
    ("log", "warning"),
    ("log", "sidecache"),
    ("accept_ring_change", "perhaps"),
];

#[test]
fn an_invalid_value_stops_the_start_and_the_error_names_the_setting() {
    for (name, value) in WRONG {
        let line = refused(&Settings::none().set(name, value));
        assert!(line.starts_with(&format!("sidecache: {}: ", variable(name))), "{name}={value}: {line}");
    }
}

#[test]
fn an_error_names_the_flag_or_the_file_and_its_setting() {
    let line = refused(&Settings::none().argument("--l1-max-mb=abc"));
    assert!(line.starts_with("sidecache: --l1-max-mb: "), "{line}");
    let line = refused(&Settings::none().argument("--l1-max-mb").argument("100000000"));
    assert!(line.starts_with("sidecache: --l1-max-mb: "), "{line}");

    let folder = scratch::folder("config");
    for (text, name) in [
        ("l1_max_mb = \"abc\"\n", "l1_max_mb"),
        ("l1_max_mb = -1\n", "l1_max_mb"),
        ("l1_max_mb = 100000000\n", "l1_max_mb"),
        ("listen = \"127.0.0.1:0\"\naccess_log_sample_rate = 7\n", "access_log_sample_rate"),
        ("redis_shards = \"a=http://127.0.0.1\"\n", "redis_shards"),
    ] {
        let path = scratch::file(folder.path(), "sidecache.toml", text);
        let line = refused(&Settings::none().argument("--config").argument(path.display()));
        assert!(line.starts_with(&format!("sidecache: {}: {name}: ", path.display())), "{text}: {line}");
    }
}

#[test]
fn two_shards_with_the_same_name_are_an_error() {
    let line = refused(&Settings::none().set("redis_shards", "first=redis://127.0.0.1:1,first=redis://127.0.0.1:2"));
    assert!(line.contains("SIDECACHE_REDIS_SHARDS") && line.contains("first"), "{line}");
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    for (name, value) in [
        ("redis_shards", "a=redis://:hunter2secret@127.0.0.1:port"),
        ("redis_shards", "a=http://user:hunter2secret@127.0.0.1:1"),
        ("database_url", "mysql://user:hunter2secret@127.0.0.1/x"),
    ] {
        let line = refused(&Settings::none().set(name, value));
        assert!(!line.contains("hunter2secret"), "{line}");
    }
}

#[test]
fn an_error_for_an_unknown_setting_suggests_a_similar_one() {
    let line = refused(&Settings::none().set("l1_maxmb", 1));
    assert_eq!(line, "sidecache: SIDECACHE_L1_MAXMB: unknown setting, did you mean SIDECACHE_L1_MAX_MB?");
    let line = refused(&Settings::none().set("redis_shard", "a=redis://127.0.0.1:1"));
    assert_eq!(line, "sidecache: SIDECACHE_REDIS_SHARD: unknown setting, did you mean SIDECACHE_REDIS_SHARDS?");
    // No setting is similar to this one.
    let line = refused(&Settings::none().set("zzzzzzzzzzzzzzzz", 1));
    assert!(line.starts_with("sidecache: SIDECACHE_ZZZZZZZZZZZZZZZZ: unknown setting"), "{line}");

    for (argument, said) in
        [("--l1-maxmb=1", ["'--l1-maxmb'", "'--l1-max-mb'"]), ("surplus", ["'surplus'", "--help"])]
    {
        let Finished { status, stdout, stderr } = run(&Settings::none().argument(argument));
        assert_eq!((status.code(), stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.starts_with("error: ") && said.iter().all(|said| stderr.contains(said)), "{stderr}");
    }

    let folder = scratch::folder("config");
    let path = scratch::file(folder.path(), "sidecache.toml", "l1_maxmb = 1\n");
    let line = refused(&Settings::none().argument("--config").argument(path.display()));
    assert!(line.contains(&path.display().to_string()) && line.contains("l1_maxmb"), "{line}");
    assert!(line.contains("l1_max_mb"), "{line}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = scratch::folder("config");
    let absent = folder.path().join("absent.toml");
    let broken = scratch::file(folder.path(), "broken.toml", "listen = \n[[[\n");
    for path in [absent, broken] {
        let by_flag = refused(&Settings::none().argument("--config").argument(path.display()));
        assert!(by_flag.contains(&path.display().to_string()), "{by_flag}");
        let by_environment = refused(&Settings::none().set("config", path.display()));
        assert!(by_environment.contains(&path.display().to_string()), "{by_environment}");
    }
}

#[test]
fn a_port_in_use_stops_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let Finished { status, stdout, stderr } = run(&Settings::embedded().set("listen", &address));
    assert!(matches!(status.code(), Some(1 | 2)), "{status}");
    assert!(!stdout.contains("listens on"), "{stdout}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.contains(&address) || last.contains("SIDECACHE_LISTEN"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test]
async fn settings_come_from_defaults_then_the_file_then_the_environment_then_flags() {
    let folder = scratch::folder("config");
    let path = scratch::file(folder.path(), "sidecache.toml", "max_batch_keys = 5\n");
    let by_default = Settings::embedded();
    let by_file = by_default.clone().argument("--config").argument(path.display());
    let by_named_file = by_default.clone().set("config", path.display());
    let by_environment = by_file.clone().set("max_batch_keys", 7);
    let by_flag = by_environment.clone().argument("--max-batch-keys=3");
    let by_flag_alone = by_default.clone().argument("--max-batch-keys").argument("4");
    for (settings, limit) in
        [(by_default, 1_000), (by_file, 5), (by_named_file, 5), (by_environment, 7), (by_flag, 3), (by_flag_alone, 4)]
    {
        let service = Service::start(settings);
        let cache = service.client();
        let keys: Vec<String> = (0..=limit).map(|number| format!("k{number}")).collect();
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        cache.mget("limits", &names[..limit]).await.expect(200);
        cache.mget("limits", &names).await.expect_error(400, "too_many_keys");
    }
}

#[tokio::test]
async fn limits_are_settings() {
    let settings = Settings::embedded().set("max_value_bytes", 10).set("max_body_bytes", 2_000);
    let service = Service::start(settings);
    let cache = service.client();
    cache.set("limits", "k", "\"12345678\"").await.expect(201);
    cache.set("limits", "k", "\"123456789\"").await.expect_error(400, "value_too_large");
    let answer = cache.put("limits", "k", format!("{}{{\"value\":1}}", " ".repeat(2_000))).await;
    answer.expect_error(413, "body_too_large");
}

#[test]
fn help_mentions_every_setting() {
    let Finished { status, stdout, stderr } = run(&Settings::none().argument("--help"));
    assert!(status.success(), "{stderr}");
    for name in every_setting().into_iter().chain(["config".to_owned()]) {
        let flag = format!("--{}", name.replace('_', "-"));
        assert!(stdout.contains(&flag), "{flag} is not in the help:\n{stdout}");
    }
}

#[test]
fn every_setting_has_a_variable() {
    // The value is invalid, so the run ends. An unknown name would be reported instead of the value.
    for name in every_setting() {
        let wrong = run(&Settings::none().set(&name, "\u{1}"));
        assert!(!wrong.stderr.contains("unknown setting"), "{name}: {}", wrong.stderr);
    }
}

#[test]
fn version_prints_the_version_of_the_package() {
    let Finished { status, stdout, stderr } = run(&Settings::none().argument("--version"));
    assert!(status.success(), "{stderr}");
    assert_eq!(stdout.trim_end(), concat!("sidecache ", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn the_start_prints_the_address_and_commands_to_try() {
    let service = Service::start(Settings::embedded().set("log_format", "text"));
    let address = service.address();
    service.client().fetch("/livez").await.expect(200);
    // A thread reads stdout line by line, and may not have read all lines yet.
    let stdout = eventually(SOON, async || {
        let stdout = service.stdout();
        ensure!(stdout.lines().count() >= 4, "{stdout}");
        Ok(stdout)
    })
    .await;
    let lines: Vec<&str> = stdout.lines().collect();
    let version = env!("CARGO_PKG_VERSION");
    let greeting = format!("sidecache {version} listens on http://{address} (embedded store, database sqlite)");
    assert_eq!(lines.first(), Some(&greeting.as_str()));
    let curls: Vec<&&str> = lines.iter().filter(|line| line.trim_start().starts_with("curl ")).collect();
    assert_eq!(curls.len(), 2, "{stdout}");
    assert!(curls.iter().all(|line| line.contains(&format!("http://{address}/api/v1/cache/"))), "{stdout}");
    assert!(service.folder().join("data/sidecache.db").is_file(), "the database is not at its default place");
}

#[tokio::test]
async fn with_a_json_log_stdout_is_empty_and_every_line_is_json() {
    let service = Service::start(Settings::embedded().set("log_format", "json").set("listen", "0.0.0.0:0"));
    let greeting = format!("listens on http://{} (embedded store", service.address());
    assert_eq!(service.stdout(), "");
    let log = service.log();
    assert!(log.contains(&greeting), "{log}");
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn an_error_for_invalid_toml_names_the_file_line_and_column() {
    let folder = scratch::folder("toml");
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "workers = 2\nlog = warn\n").expect("it is written");
    let refused = refused(&Settings::none().set("config", path.display()));
    assert!(refused.contains(&format!("{}:2:7: ", path.display())), "{refused}");
}

#[tokio::test]
async fn sigterm_and_sigint_end_the_service_with_success() {
    for settings in [Settings::embedded(), Settings::shards()] {
        for signal in [Signal::Term, Signal::Int] {
            let mut service = Service::start(settings.clone());
            // The service does not wait for an idle connection.
            service.client().fetch("/livez").await.expect(200);
            let cache = service.client();
            cache.fetch("/livez").await.expect(200);
            service.signal(signal);
            let status = service.ended();
            assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
        }
    }
}

#[tokio::test]
async fn running_requests_finish_after_sigterm() {
    let mut service = Service::start(Settings::embedded());
    let path = key_path(&namespace("drain"), "k");
    let body = r#"{"value":"written while draining"}"#;
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    // The interim answer proves that the request has begun.
    let mut interim = [0; 25];
    tokio::time::timeout(wire::PATIENCE, tokio::io::AsyncReadExt::read_exact(&mut stream, &mut interim))
        .await
        .expect("an interim answer in time")
        .expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    service.signal(Signal::Term);
    // The service has received the signal when it refuses new connections.
    let refused = eventually(Duration::from_secs(10), async || {
        anyhow::ensure!(TcpStream::connect(service.address()).await.is_err(), "still accepting");
        Ok(())
    });
    refused.await;
    stream.write_all(body.as_bytes()).await.expect("the body is taken");
    wire::read_answer(&mut stream).await.expect(201);
    assert_eq!(service.ended().code(), Some(0));
}
