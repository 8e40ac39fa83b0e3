//! One test for each bug that a search for bugs has found. Each test fails without its fix, and its comment describes
//! the bug. Bugs that other files cover are not repeated here.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{INTERVAL, LATER, SOON, eventually};
use crate::support::process::{self, Process, Signal};
use crate::support::proxy::Proxy;
use crate::support::redis::{Connection, Redis};
use crate::support::service::{Service, Settings, Store, run, variable};
use crate::support::{ports, postgres, scratch, wire};

/// The default of `max_staleness_ms`.
const MAX_STALENESS: Duration = Duration::from_millis(1_000);

/// The bug: a reconnected subscriber invalidated its L1 when the connection was open, not when Redis had acknowledged
/// the subscription. (1) B's connection is open again, and B empties L1. (2) B reads v1 into L1. (3) A writes v2, and
/// the invalidation finds no subscriber. (4) Redis receives B's SUBSCRIBE. (5) The next watermark makes the copy of
/// v1 count as fresh, until it expires.
#[tokio::test]
async fn regression_a_subscribe_that_arrives_late_leaves_no_stale_copy() {
    const HELD: Duration = Duration::from_millis(1_500);
    let server = Redis::start();
    let proxy = Proxy::in_front_of(&server);
    let settings = Settings::on(std::slice::from_ref(&server));
    let a = Service::start(settings.clone());
    let b = Service::start(settings.set("redis_shards", format!("a={}", proxy.url())));
    let (one, other, ns) = (a.client(), b.client(), namespace("regression"));
    let keys: Vec<String> = (0..15).map(|number| format!("k{number}")).collect();
    for key in keys.iter().map(String::as_str).chain(["canary"]) {
        one.set(&ns, key, "1").await.expect(201);
    }
    in_memory(&other, &ns, "canary").await;

    proxy.hold("SUBSCRIBE");
    proxy.cut_all();
    eventually(LATER, async || {
        ensure!(proxy.held() > 0, "no SUBSCRIBE among {} connections", proxy.accepted());
        Ok(())
    })
    .await;
    let held = Instant::now();
    // The writes are spread over the whole time, since the moment at which B empties L1 is not known. B reads each
    // key only once: another read after the write would replace the copy.
    let mut acknowledged = Vec::new();
    for (number, key) in (1..).zip(&keys) {
        eventually(LATER, async || {
            let answer = other.get(&ns, key).await;
            ensure!(answer.status == 200, "{}", answer.text());
            assert_eq!(answer.value(), "1");
            Ok(())
        })
        .await;
        one.set(&ns, key, "2").await.expect(200);
        acknowledged.push(Instant::now());
        tokio::time::sleep_until((held + HELD * number / 15).into()).await;
    }
    proxy.release();

    in_memory(&other, &ns, "canary").await;
    let end = Instant::now() + 4 * MAX_STALENESS;
    while Instant::now() < end {
        for (key, acknowledged) in keys.iter().zip(&acknowledged) {
            if acknowledged.elapsed() > MAX_STALENESS {
                let answer = other.get(&ns, key).await.expect(200);
                let after = acknowledged.elapsed();
                assert_eq!(answer.value(), "2", "{key}, {after:?} after the write: {:?}", answer.headers);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
    in_memory(&other, &ns, &keys[0]).await;
}

/// The bug: a connection to a shard on which no answers came any more was used for ever. It was replaced only minutes
/// later, when the kernel gave up on it.
#[tokio::test]
async fn regression_a_half_open_data_connection_is_replaced() {
    let server = Redis::start();
    let proxy = Proxy::in_front_of(&server);
    let settings = Settings::on(std::slice::from_ref(&server))
        .set("redis_shards", format!("a={}", proxy.url()))
        .set("redis_timeout_ms", 100)
        .set("request_timeout_ms", 2_000);
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("regression"));
    eventually(SOON, async || written(&cache, &ns, "k", "1").await).await;
    let before = proxy.accepted();
    proxy.swallow_all();
    let failed = AtomicBool::new(false);
    eventually(SOON, async || {
        // Enough in a row that every connection is used.
        for _ in 0..20 {
            if let Err(error) = written(&cache, &ns, "k", "2").await {
                failed.store(true, Ordering::Relaxed);
                return Err(error.context(format!("{} new connections", proxy.accepted() - before)));
            }
        }
        Ok(())
    })
    .await;
    assert!(failed.load(Ordering::Relaxed), "no write failed on the swallowed connections");
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "2");
}

/// The bug: requests that had timed out stayed in the queue of the shard's connection, with their values, as long as
/// the shard hung.
#[tokio::test]
async fn regression_a_hung_shard_does_not_pile_up_memory() {
    const CLIENTS: usize = 16;
    const LIMIT_KB: u64 = 150 * 1_024;
    let server = Redis::start();
    let settings =
        Settings::on(std::slice::from_ref(&server)).set("redis_timeout_ms", 100).set("request_timeout_ms", 2_000);
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("regression"));
    let value = format!("\"{}\"", "x".repeat(200_000));
    let write_until = async |end: Option<Instant>| {
        let writers = (0..CLIENTS).map(async |number| {
            let key = format!("k{number}");
            // Limits the rate, in case the service fails immediately.
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                let _ = written(&cache, &ns, &key, &value).await;
                if end.is_none_or(|end| Instant::now() >= end) {
                    return;
                }
            }
        });
        futures_util::future::join_all(writers).await;
    };
    write_until(None).await;
    let before = resident_kb(service.folder());

    server.signal(Signal::Stop);
    let end = Instant::now() + Duration::from_secs(8);
    let highest = async {
        let mut highest = before;
        while Instant::now() < end {
            highest = highest.max(resident_kb(service.folder()));
            tokio::time::sleep(10 * INTERVAL).await;
        }
        highest
    };
    let ((), highest) = tokio::join!(write_until(Some(end)), highest);
    server.signal(Signal::Cont);
    assert!(highest < before + LIMIT_KB, "from {before} kB to {highest} kB");
    eventually(LATER, async || written(&cache, &ns, "k0", "1").await).await;
}

/// The bug: the access log stored patterns unchanged, and PostgreSQL accepts no text with a NUL. The batch with that
/// row failed, with the rows of all other requests.
#[tokio::test]
async fn regression_a_pattern_with_a_control_character_is_refused() {
    let url = postgres::shared().fresh_database();
    let service = Service::start(Settings::shards().set("database_url", &url).set("access_log_flush_ms", 50));
    let (cache, ns) = (service.client(), namespace("regression"));
    cache.set(&ns, "k", "1").await.expect(201);
    for pattern in ["\0", "user\0*", "*\n", "\u{7f}*"] {
        cache.list(&ns, &[("pattern", pattern)]).await.expect_error(400, "invalid_pattern");
        cache.flush(&ns, &[("pattern", pattern)]).await.expect_error(400, "invalid_pattern");
    }
    cache.get(&ns, "k").await.expect(200);
    eventually(LATER, async || {
        let mut database = PgConnection::connect(&url).await?;
        let sql = "SELECT count(*) FROM cache_access_logs WHERE namespace = $1 AND operation = 'get'";
        let rows: i64 = sqlx::query_scalar(sql).bind(&ns).fetch_one(&mut database).await?;
        ensure!(rows == 1, "{rows} rows");
        Ok(())
    })
    .await;
    assert_eq!(cache.metrics().await.total("sidecache_access_log_dropped_total"), 0.0);
}

/// The bug: the timeout of a request ended with its handler. An answer that the client did not read kept its
/// connection and its memory without a limit.
#[tokio::test]
async fn regression_an_unread_answer_does_not_hold_its_connection() {
    let settings = Settings::embedded().set("redis_timeout_ms", 250).set("request_timeout_ms", 500);
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("regression"));
    let value = format!("\"{}\"", "x".repeat(4_000_000));
    eventually(SOON, async || written(&cache, &ns, "k", &value).await).await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        sockets.push(socket.connect(service.address()).await.expect("the service accepts connections"));
    }
    connections(&cache, |open| open >= 8.0).await;
    // Three requests on each connection, since one answer alone might fit into the buffers of the kernel.
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", key_path(&ns, "k")).repeat(3);
    for socket in &mut sockets {
        socket.write_all(request.as_bytes()).await.expect("the requests are taken");
    }
    // This request's own connection, and perhaps another that its client keeps open.
    connections(&cache, |open| open <= 2.0).await;
    drop(sockets);
}

/// The bug: when the request timed out before the shard answered, a PUT got `timeout`, as if nothing had been sent to
/// the shard. But the value may have been stored.
#[tokio::test]
async fn regression_a_put_that_times_out_says_outcome_unknown() {
    let server = Redis::start();
    let settings = |redis_ms: u64, request_ms: u64| {
        let settings = Settings::on(std::slice::from_ref(&server));
        settings.set("redis_timeout_ms", redis_ms).set("request_timeout_ms", request_ms)
    };
    let tight = Service::start(settings(400, 500));
    // A body that arrives half a second late leaves the shard less time than `redis_timeout_ms`.
    let late = Service::start(settings(1_900, 2_000));
    let (cache, ns) = (tight.client(), namespace("regression"));
    eventually(SOON, async || written(&cache, &ns, "k", "1").await).await;
    eventually(SOON, async || written(&late.client(), &ns, "k", "1").await).await;

    let mut stream = TcpStream::connect(late.address()).await.expect("the service accepts connections");
    let path = key_path(&ns, "k");
    let head = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 11\r\n\r\n{{\"value\"");
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.signal(Signal::Stop);
    stream.write_all(b":2}").await.expect("the rest is taken");
    let puts = (0..8).map(|number| cache.set(&ns, if number % 2 == 0 { "k" } else { "l" }, "2"));
    let (from_late, from_tight) = tokio::join!(wire::read_answer(&mut stream), futures_util::future::join_all(puts));
    from_late.expect_error(503, "outcome_unknown");
    for answer in from_tight {
        answer.expect_error(503, "outcome_unknown");
    }
    // Once the shard is known to be unavailable, nothing is sent to it any more.
    for _ in 0..4 {
        cache.set(&ns, "k", "3").await.expect_one_of_errors(503, &["outcome_unknown", "shard_unavailable"]);
    }
    server.signal(Signal::Cont);
    eventually(LATER, async || written(&cache, &ns, "k", "4").await).await;
}

/// The bug: a `redis_timeout_ms` that was not below `request_timeout_ms` was accepted but had no effect: with every
/// slow shard the request ended with `timeout`.
#[test]
fn regression_a_redis_timeout_not_below_the_request_timeout_is_refused() {
    for redis_ms in [500, 501] {
        let settings = Settings::none()
            .set("redis_shards", "a=redis://127.0.0.1:1")
            .set("redis_timeout_ms", redis_ms)
            .set("request_timeout_ms", 500);
        let ended = run(&settings);
        assert_eq!(ended.status.code(), Some(2), "{redis_ms}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(&variable("redis_timeout_ms")), "{}", ended.stderr);
    }
}

/// The bug: the namespace calls ignored their query. `DELETE /api/v1/namespaces/n?pattern=a` was meant for the
/// matching entries, but deleted the namespace with all its entries.
#[tokio::test]
async fn regression_a_namespace_call_with_an_unknown_parameter_is_refused() {
    for store in [Store::Embedded, Store::Shards] {
        let service = store.shared_service();
        let _log = service.log_on_failure();
        let (cache, ns) = (service.client(), namespace("regression"));
        cache.put_policy(&ns, r#"{"default_ttl":1000}"#).await.expect(201);
        cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 2}])).await;
        let path = format!("/api/v1/namespaces/{ns}?pattern=a");
        for (method, body) in [(Method::DELETE, None), (Method::GET, None), (Method::PUT, Some(b"{}".to_vec()))] {
            cache.send(method, &path, &[], body).await.expect_error(400, "invalid_query");
        }
        assert_eq!(cache.policy(&ns).await.expect(200).number("default_ttl"), 1_000);
        assert_eq!(cache.all_keys(&ns).await, ["a", "b"]);
        assert_eq!(cache.get(&ns, "b").await.expect(200).value(), "2");
    }
}

/// The bug: the lines with the address were printed with `println!`, which panics when stdout cannot be written to.
/// Under a supervisor that closes stdout the service died at its start.
#[tokio::test]
async fn regression_a_service_whose_stdout_is_closed_starts() {
    let (reader, unread) = io::pipe().expect("a pipe");
    drop(reader);
    let full = File::options().write(true).open("/dev/full").expect("Linux has /dev/full");
    let outputs = [("a full disk", Stdio::from(full)), ("a broken pipe", unread.into()), ("closed", Stdio::null())];
    for (name, stdout) in outputs {
        let (folder, address) = (scratch::folder("service"), format!("127.0.0.1:{}", ports::free()));
        let mut command = process::dying_with_us(Path::new("/bin/sh"), Signal::Kill);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SIDECACHE_") {
                command.env_remove(variable);
            }
        }
        // `Command` cannot close a descriptor, but the shell can.
        command
            .args(["-c", if name == "closed" { "exec \"$0\" >&-" } else { "exec \"$0\"" }])
            .arg(env!("CARGO_BIN_EXE_sidecache"))
            .env(variable("listen"), &address)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null());
        let mut process = Process::spawn(command, Signal::Kill);
        let client = Client::new(address.parse().expect("an address"));
        eventually(LATER, async || {
            let ended = process.exited();
            assert!(ended.is_none(), "with {name} as stdout the service ended: {ended:?}");
            let answer = client.try_send(Method::GET, "/livez", &[], None).await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        })
        .await;
    }
}

/// The bug: SIGTERM closed the listener with the connections in its queue. It also closed connections whose first
/// request had not been read yet, as if they were idle. Those clients saw a reset.
#[tokio::test]
async fn regression_requests_sent_before_sigterm_are_answered() {
    for round in 0..3 {
        let mut service = Service::start(Settings::embedded());
        let (cache, ns) = (service.client(), namespace("regression"));
        cache.set(&ns, "k", "1").await.expect(201);
        let connect = async || TcpStream::connect(service.address()).await.expect("the service accepts connections");
        let mut streams = Vec::new();
        for _ in 0..16 {
            streams.push(connect().await);
        }
        connections(&cache, |open| open >= 16.0).await;
        // While the service is stopped, it reads and accepts nothing. When it continues, it finds the requests and
        // the signal at once, whatever the load of the machine.
        service.signal(Signal::Stop);
        for _ in 0..16 {
            streams.push(connect().await);
        }
        let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", key_path(&ns, "k"));
        for stream in &mut streams {
            stream.write_all(request.as_bytes()).await.expect("the kernel takes the request");
        }
        service.signal(Signal::Term);
        service.signal(Signal::Cont);
        for (number, stream) in streams.iter_mut().enumerate() {
            let answer = wire::read_answer(stream).await;
            assert_eq!(answer.status, 200, "request {number} of round {round}: {}", answer.text());
            assert_eq!(answer.value(), "1");
        }
        assert_eq!(service.ended().code(), Some(0), "round {round}");
    }
}

/// The bug: a service that had never read its namespaces answered as if there were none: 400 for a write to an
/// existing namespace, an empty list, 404.
#[tokio::test]
async fn regression_without_its_database_the_service_answers_policies_unknown() {
    let nobody = format!("postgres://postgres@127.0.0.1:{}/postgres", ports::free());
    let settings = Settings::shards()
        .set("database_url", nobody)
        .set("auto_create_namespaces", "false")
        .unset("database_timeout_ms");
    let service = Service::launch(settings);
    let cache = service.client();
    eventually(LATER, async || {
        let health = cache.health().await;
        ensure!(health.status == 200 && health.json()["redis"] == "connected", "{}", health.text());
        Ok(())
    })
    .await;
    cache.set("n", "k", "1").await.expect_error(503, "policies_unknown");
    cache.policies().await.expect_error(503, "policies_unknown");
    cache.policy("n").await.expect_error(503, "policies_unknown");
}

/// The bug: one script read all keys of an mget on a shard, whatever the size of the values, and blocked every other
/// client of the shard.
#[tokio::test]
async fn regression_an_mget_of_large_values_does_not_block_the_shard() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)).set("l1_max_mb", 0));
    let (cache, ns) = (service.client(), namespace("regression"));
    let keys: Vec<String> = (10..70).map(|number| format!("k{number}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let filler = "x".repeat((1 << 20) - 5);
    for key in &names {
        cache.set(&ns, key, &format!("\"{key}{filler}\"")).await.expect(201);
    }
    let mut shard = server.connect();
    shard.command(&["CONFIG", "RESETSTAT"]);
    let answer = cache.mget(&ns, &names).await.expect(200).json();
    assert_eq!((&answer["hits"], &answer["misses"]), (&json!(60), &json!(0)));
    for key in &names {
        let value = answer["results"][*key]["value"].as_str().expect("a value");
        assert!(value.len() == (1 << 20) - 2 && value.starts_with(key), "{key}: {} bytes", value.len());
    }
    // The scripts are counted instead of timed: a script ends with the value that reaches 1 MiB, and each of these
    // values does.
    let scripts = script_calls(&mut shard);
    assert!(scripts >= 60, "60 values of 1 MiB were read by {scripts} scripts");
}

/// The bug: a request whose body stopped arriving got a 503 with `timeout`, as if it was the service's fault.
#[tokio::test]
async fn regression_a_slow_upload_is_a_408() {
    let settings = Settings::embedded().set("redis_timeout_ms", 250).set("request_timeout_ms", 500);
    let service = Service::start(settings);
    let path = key_path(&namespace("regression"), "k");
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    let half = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20\r\n\r\n{{\"value\":");
    let started = Instant::now();
    stream.write_all(half.as_bytes()).await.expect("half a request is taken");
    wire::read_answer(&mut stream).await.expect_error(408, "request_timeout");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(450) && took < SOON, "answered after {took:?}");
}

/// Sends a PUT, and succeeds if it stored the value.
async fn written(cache: &Client, ns: &str, key: &str, value: &str) -> anyhow::Result<()> {
    let answer = cache.set(ns, key, value).await;
    ensure!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.text());
    Ok(())
}

/// Reads until the instance answers from L1.
async fn in_memory(cache: &Client, ns: &str, key: &str) {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.status == 200 && answer.is_l1_hit(), "{} {:?}", answer.status, answer.header("cache-status"));
        Ok(())
    })
    .await;
}

/// Waits until the number of open HTTP connections satisfies `right`.
async fn connections(cache: &Client, right: impl Fn(f64) -> bool) {
    eventually(SOON, async || {
        let open = cache.metrics().await.total("sidecache_http_connections");
        ensure!(right(open), "{open} connections");
        Ok(())
    })
    .await;
}

/// The resident memory in kB of the process whose working folder is `folder`.
fn resident_kb(folder: &Path) -> u64 {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let ours = |process: &fs::DirEntry| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder);
    let found = processes.into_iter().find(ours).context("no process works there").expect("the service runs");
    let status = fs::read_to_string(found.path().join("status")).expect("the service runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    let number = line.trim().trim_end_matches(" kB").parse();
    number.unwrap_or_else(|_| panic!("VmRSS:{line} is not a number of kB"))
}

/// The number of scripts that Redis has run since its statistics were reset.
fn script_calls(shard: &mut Connection) -> u64 {
    let info = shard.command(&["INFO", "commandstats"]).text();
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls = line.and_then(|line| line.split(',').next());
    calls.expect("scripts were run").parse().expect("a number of calls")
}
