//! C-05: ten thousand connections, or as many as the limit on file descriptors allows; and slow clients among others.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::answer::Answer;
use crate::support::client::{key_path, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::metric::Metrics;
use crate::support::service::{Service, Settings};
use crate::support::wire;

/// The number of connections of this test, and the smallest number with which the test makes sense.
const WANTED: usize = 10_000;
const LEAST: usize = 1_000;

/// Descriptors left for the other tests of this process, and for the other files of the service.
const OTHERS: u64 = 2_000;

/// How many connections are opened, or requests sent, at a time.
const AT_A_TIME: usize = 200;

/// The memory in bytes that a connection may use in the service after one request. Generous, because it was measured
/// on only one machine.
const BYTES_A_CONNECTION: u64 = 40 * 1024;

/// Raises the soft limit on descriptors to the hard limit. Returns how many connections the limit allows.
fn possible() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    let possible = limit.maximum.unwrap_or(u64::MAX).saturating_sub(OTHERS);
    let possible = usize::try_from(possible).unwrap_or(WANTED).min(WANTED);
    eprintln!("{possible} connections; the hard limit is {:?} descriptors", limit.maximum);
    assert!(
        possible >= LEAST,
        "a hard limit of {:?} descriptors is too low for this test: raise `ulimit -Hn`",
        limit.maximum
    );
    possible
}

/// Runs all tasks, [`AT_A_TIME`] at a time.
async fn all<T>(tasks: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    stream::iter(tasks).buffer_unordered(AT_A_TIME).collect().await
}

async fn connected(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("the kernel takes the connection")
}

/// Opens connections and sends one request on each, so that they are open and idle.
async fn held(address: SocketAddr, count: usize, request: &str) -> Vec<TcpStream> {
    all((0..count).map(async |_| {
        let mut stream = connected(address).await;
        served(&mut stream, request).await;
        stream
    }))
    .await
}

async fn served(stream: &mut TcpStream, request: &str) {
    assert_eq!(wire::ask(stream, request).await.expect(200).value(), "\"kept\"");
}

/// The metrics, over an open connection.
async fn metrics(stream: &mut TcpStream) -> Metrics {
    Metrics::parse(wire::ask(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect(200).text())
}

async fn until_open(monitor: &mut TcpStream, count: usize) {
    eventually(LATER, async || {
        let open = metrics(monitor).await.total("sidecache_http_connections");
        ensure!(open == count as f64, "{open} connections are open, not {count}");
        Ok(())
    })
    .await;
}

/// Checks the answer on a connection beyond the maximum: it says so and closes the connection.
fn is_clean_refusal(answer: Answer) {
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("connection"), Some("close"));
    answer.expect_error(503, "overloaded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_are_held_or_refused_cleanly() {
    let most = possible();
    // Idle connections stay for the whole test.
    let settings = Settings::embedded().set("max_connections", most).set("header_timeout_ms", 120_000);
    let service = Service::start(settings);
    let (address, ns) = (service.address(), namespace("connections"));
    let mut monitor = connected(address).await;
    let body = r#"{"value":"kept"}"#;
    let path = key_path(&ns, "k");
    let put = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    wire::ask(&mut monitor, &put).await.expect(201);
    let get = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    until_open(&mut monitor, 1).await;

    let before = service.resident_bytes();
    let started = Instant::now();
    let mut inside = held(address, most - 1, &get).await;
    let first = service.resident_bytes();
    let each = first.saturating_sub(before) / most as u64;
    eprintln!("{most} connections answered once in {:?}, {each} bytes each", started.elapsed());
    assert!(each < BYTES_A_CONNECTION, "from {before} to {first} bytes for {most} connections");
    until_open(&mut monitor, most).await;

    // Connections beyond the maximum are refused, while the open ones are served.
    let beyond = all((0..AT_A_TIME).map(async |_| wire::ask(&mut connected(address).await, &get).await));
    let sample = inside.iter_mut().step_by(most / LEAST).map(|stream| served(stream, &get));
    let (beyond, _) = tokio::join!(beyond, all(sample));
    beyond.into_iter().for_each(is_clean_refusal);
    // A connection without a request is refused after a short wait.
    let started = Instant::now();
    let told = wire::read_to_end(&mut connected(address).await).await;
    assert!(told.starts_with("HTTP/1.1 503 ") && started.elapsed() >= Duration::from_millis(300), "{told:?}");
    // Many connections without a request do not delay others.
    let silent = all((0..2 * AT_A_TIME).map(async |_| connected(address).await)).await;
    let started = Instant::now();
    served(&mut inside[0], &get).await;
    let told = all(silent.into_iter().map(async |mut stream| wire::read_to_end(&mut stream).await)).await;
    let told = told.iter().filter(|text| text.starts_with("HTTP/1.1 503 ")).count();
    eprintln!("{told} of {} silent clients were refused, in {:?}", 2 * AT_A_TIME, started.elapsed());
    assert_eq!(told, 2 * AT_A_TIME);
    assert_eq!(
        metrics(&mut monitor).await.total("sidecache_http_connections_refused_total"),
        1.0 + 3.0 * AT_A_TIME as f64
    );

    let started = Instant::now();
    all(inside.iter_mut().map(|stream| served(stream, &get))).await;
    eprintln!("all of them answered once more in {:?}", started.elapsed());

    drop(inside);
    until_open(&mut monitor, 1).await;
    // The allocator keeps the freed memory for reuse: as many connections again need less new memory than if the
    // memory had leaked.
    let inside = held(address, most - 1, &get).await;
    let second = service.resident_bytes();
    eprintln!("{before} bytes before, {first} with all, {second} with as many again");
    assert!(second < first + (first - before) * 3 / 4 + (8 << 20), "{before}, {first}, {second} bytes");
    drop(inside);
    until_open(&mut monitor, 1).await;
    served(&mut connected(address).await, &get).await;
}

/// A slow client is cut off after the deadline; `SLACK` is generous extra time for a busy machine.
const HEADER_DEADLINE: Duration = Duration::from_millis(1_000);
const BODY_DEADLINE: Duration = Duration::from_millis(1_500);
const SLACK: Duration = Duration::from_secs(8);

/// Sends one byte after another until the service closes the connection. Returns the answer and the time it took.
async fn trickle(address: SocketAddr, head: &str) -> (String, Duration) {
    let stream = connected(address).await;
    let started = Instant::now();
    let (mut reader, mut writer) = stream.into_split();
    let head = head.to_owned();
    let sending = tokio::spawn(async move {
        writer.write_all(head.as_bytes()).await?;
        loop {
            writer.write_all(b"x").await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        #[expect(unreachable_code, reason = "the type of an endless task that may fail")]
        Ok::<(), std::io::Error>(())
    });
    let said = wire::read_to_end(&mut reader).await;
    let took = started.elapsed();
    sending.abort();
    (said, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_senders_are_cut_off_at_their_deadline_while_others_are_served() {
    const SLOW: usize = 200;
    let settings = Settings::embedded()
        .set("header_timeout_ms", HEADER_DEADLINE.as_millis())
        .set("request_timeout_ms", BODY_DEADLINE.as_millis());
    let service = Service::start(settings);
    let (address, ns) = (service.address(), namespace("connections"));
    let cache = service.client();
    cache.set(&ns, "k", "1").await.expect(201);
    let path = key_path(&ns, "k");
    let half_a_header = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-slow: ");
    let half_a_body =
        format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n{{\"value\":\"");

    let slow_headers = tokio::spawn({
        async move {
            stream::iter((0..SLOW).map(|_| trickle(address, &half_a_header)))
                .buffer_unordered(SLOW)
                .collect::<Vec<_>>()
                .await
        }
    });
    let slow_bodies = tokio::spawn({
        async move {
            stream::iter((0..SLOW).map(|_| trickle(address, &half_a_body)))
                .buffer_unordered(SLOW)
                .collect::<Vec<_>>()
                .await
        }
    });
    let (mut answered, mut longest) = (0, Duration::ZERO);
    while !slow_headers.is_finished() || !slow_bodies.is_finished() {
        let started = Instant::now();
        cache.get(&ns, "k").await.expect(200);
        (answered, longest) = (answered + 1, longest.max(started.elapsed()));
    }
    eprintln!("{answered} requests answered meanwhile, the slowest in {longest:?}");
    assert!(answered > 10 && longest < SLACK, "{answered}, {longest:?}");

    for (said, took) in slow_headers.await.expect("no client panics") {
        assert_eq!(said, "", "there is no request to answer");
        assert!(took >= HEADER_DEADLINE.mul_f32(0.9) && took < HEADER_DEADLINE + SLACK, "cut off after {took:?}");
    }
    for (said, took) in slow_bodies.await.expect("no client panics") {
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("\"request_timeout\""), "{said:?}");
        assert!(took >= BODY_DEADLINE.mul_f32(0.9) && took < BODY_DEADLINE + SLACK, "cut off after {took:?}");
    }
    let metrics = cache.metrics().await;
    assert_eq!(metrics.total("sidecache_http_connections_slow_total"), SLOW as f64);
    assert_eq!(metrics.total("sidecache_http_body_bytes"), 0.0);
    // No part of the slow bodies was stored.
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "1");
}

#[tokio::test]
async fn few_descriptors_reduce_the_connections_with_a_warning() {
    const DESCRIPTORS: u64 = 600;
    let service = Service::start(Settings::embedded().descriptors(DESCRIPTORS).set("header_timeout_ms", 60_000));
    let warning = eventually(LATER, async || {
        let log = service.log();
        let warning = log.lines().find(|line| line.contains("too few file descriptors")).context("no warning")?;
        Ok(serde_json::from_str::<serde_json::Value>(warning)?)
    })
    .await;
    let possible = warning["fields"]["connections"].as_u64().expect("the figure") as usize;
    assert!(possible > 100 && possible < DESCRIPTORS as usize, "{warning}");

    let request = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..possible {
        let mut stream = connected(service.address()).await;
        // The connection of the readiness poll may still be open.
        let answer = wire::ask(&mut stream, request).await;
        if answer.status == 200 {
            streams.push(stream);
        }
    }
    assert!(streams.len() + 2 >= possible, "{} of {possible}", streams.len());
    let mut extra = Vec::new();
    for _ in 0..3 {
        extra.push(connected(service.address()).await);
    }
    let mut refused = 0;
    for stream in &mut extra {
        let answer = wire::ask(stream, request).await;
        if answer.status != 200 {
            is_clean_refusal(answer);
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert!(!service.log().contains("cannot accept"), "{}", service.log());
}
