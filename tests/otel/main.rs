//! The spans that a collector receives: the real binary with the feature `otel`, and a collector in this file that
//! accepts OTLP as JSON over HTTP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

#[expect(dead_code, reason = "modules of tests/suite, of which these tests need only a part")]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use self::support::client::{Client, cache_path, key_path};
use self::support::redis::Redis;
use self::support::service::{Service, Settings};

/// How long a span may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT_ID: &str = "b7ad6b7169203331";

/// Accepts exports on a free port of the loopback address, for as long as the test process lives.
struct Collector {
    address: SocketAddr,
    exports: Receiver<Value>,
}

impl Collector {
    fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let (sender, exports) = mpsc::channel();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let sender = sender.clone();
                thread::spawn(move || serve(connection.expect("a connection"), &sender));
            }
        });
        Collector { address, exports }
    }

    /// The next `count` spans, with the resource that sent them.
    fn spans(&self, count: usize) -> Vec<(Value, Value)> {
        let deadline = Instant::now() + PATIENCE;
        let mut spans = Vec::new();
        while spans.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let export = self.exports.recv_timeout(left);
            let export = export.unwrap_or_else(|_| panic!("{} spans of {count} came: {spans:?}", spans.len()));
            for resource in list(&export["resourceSpans"]) {
                let scopes = list(&resource["scopeSpans"]).iter();
                let new = scopes
                    .flat_map(|scope| list(&scope["spans"]))
                    .map(|span| (span.clone(), resource["resource"].clone()));
                spans.extend(new);
            }
        }
        spans
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Answers requests on one connection, each a POST of an export.
fn serve(connection: TcpStream, exports: &Sender<Value>) {
    let mut reader = BufReader::new(connection);
    loop {
        let (mut length, mut line) = (0, String::new());
        let mut first = None;
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
            first.get_or_insert_with(|| line.clone());
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().expect("a length is a number");
            }
            line.clear();
        }
        let Some(first) = first else { return };
        assert!(first.starts_with("POST /v1/traces "), "{first}");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the whole body comes");
        // The receiver is gone when the test has ended.
        let _ = exports.send(serde_json::from_slice(&body).expect("an export is JSON"));
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The value of an attribute of a span or a resource.
fn attribute<'v>(owner: &'v Value, name: &str) -> Option<&'v str> {
    list(&owner["attributes"]).iter().find(|attribute| attribute["key"] == name)?["value"]["stringValue"].as_str()
}

/// The numbers of spans that were exported, were dropped, and are queued.
async fn counted(cache: &Client) -> [u64; 3] {
    let metrics = cache.metrics().await;
    ["sidecache_spans_exported_total", "sidecache_spans_dropped_total", "sidecache_spans_queued"]
        .map(|name| metrics.total(name) as u64)
}

fn exporting(settings: Settings, collector: &Collector) -> Settings {
    settings
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address))
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
        .variable("OTEL_BSP_SCHEDULE_DELAY", 100)
}

#[tokio::test]
async fn every_operation_is_a_span_of_its_callers_trace() {
    let collector = Collector::start();
    let service = Service::start(exporting(Settings::embedded(), &collector));
    let cache = service.client();
    let parent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    let headers = [("traceparent", parent.as_str()), ("x-request-id", "mine")];
    let body = br#"{"value": 1}"#.to_vec();
    cache.send(Method::PUT, &key_path("n", "k"), &headers, Some(body)).await.expect(201);
    cache.send(Method::GET, &key_path("n", "k"), &headers, None).await.expect(200);
    cache.send(Method::GET, &key_path("n", "absent"), &headers, None).await.expect(404);
    cache.send(Method::DELETE, &cache_path("n"), &headers, None).await.expect(200);
    let mut seen = Vec::new();
    for (span, resource) in collector.spans(4) {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE_ID.into(), &PARENT_ID.into()), "{span}");
        assert_eq!(attribute(&span, "sidecache.request_id"), Some("mine"), "{span}");
        assert_eq!(attribute(&span, "sidecache.namespace"), Some("n"), "{span}");
        assert_eq!(attribute(&resource, "service.name"), Some("sidecache"), "{resource}");
        let nanos = |name: &str| -> u64 { span[name].as_str().and_then(|text| text.parse().ok()).expect("a time") };
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span}");
        seen.push(format!(
            "{} {}",
            span["name"].as_str().unwrap_or("?"),
            attribute(&span, "sidecache.result").unwrap_or("?")
        ));
    }
    seen.sort();
    assert_eq!(seen, ["cache flush done", "cache get hit", "cache get miss", "cache set done"]);
    // The collector's answer may still be on its way.
    let deadline = Instant::now() + PATIENCE;
    while counted(&cache).await != [4, 0, 0] {
        assert!(Instant::now() < deadline, "{:?}", counted(&cache).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_request_without_a_trace_starts_one_and_an_unsampled_trace_exports_nothing() {
    let collector = Collector::start();
    let service =
        Service::start(exporting(Settings::embedded(), &collector).variable("OTEL_SERVICE_NAME", "shop-cache"));
    let cache = service.client();
    let unsampled = format!("00-{TRACE_ID}-{PARENT_ID}-00");
    cache.get_with("n", "unsampled", &[("traceparent", &unsampled)]).await.expect(404);
    cache.get("n", "k").await.expect(404);
    let spans = collector.spans(1);
    let (span, resource) = &spans[0];
    assert_ne!(span["traceId"], TRACE_ID, "{span}");
    assert!(span["parentSpanId"].as_str().is_none_or(str::is_empty), "{span}");
    assert_eq!(attribute(resource, "service.name"), Some("shop-cache"), "{resource}");
    // The span of the unsampled request would have come first.
    assert_eq!(spans.len(), 1, "{spans:?}");
}

#[tokio::test]
async fn a_failed_operation_is_marked_and_the_last_spans_are_exported_at_shutdown() {
    let collector = Collector::start();
    let servers = [Redis::start()];
    let settings = Settings::on(&servers).set("redis_timeout_ms", 300);
    let settings = exporting(settings, &collector).variable("OTEL_BSP_SCHEDULE_DELAY", 60_000);
    let service = Service::start(settings);
    let [mut server] = servers;
    server.kill();
    service.client().get("n", "k").await.expect(503);
    assert!(service.stop().success());
    let (span, _) = collector.spans(1).remove(0);
    assert_eq!(
        (attribute(&span, "sidecache.result"), &span["status"]["code"]),
        (Some("failed"), &2.into()),
        "{span}"
    );
}

#[tokio::test]
async fn a_silent_collector_delays_neither_requests_nor_the_shutdown() {
    // The kernel accepts the connections, and nothing reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = silent.local_addr().expect("it has an address");
    let settings = exporting(Settings::embedded(), &Collector { address, exports: mpsc::channel().1 });
    let service = Service::start(settings.variable("OTEL_BSP_MAX_QUEUE_SIZE", 64));
    let cache = service.client();
    cache.set("n", "k", "1").await.expect(201);
    let begun = Instant::now();
    for _ in 0..3_000 {
        cache.get("n", "k").await.expect(200);
    }
    // Far more spans than the queue holds, and far faster than the timeout of one export (10 s).
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(counted(&cache).await, [0, 3_001 - 64, 64]);
    let begun = Instant::now();
    assert!(service.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn unsupported_export_settings_are_logged_and_the_service_runs_without_spans() {
    for (name, value, said) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318", "TLS is not supported"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/json"),
    ] {
        let settings = Settings::embedded().variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        let service = Service::start(settings.variable(name, value));
        service.client().get("n", "k").await.expect(404);
        let log = service.log();
        assert!(log.contains("no spans are exported") && log.contains(said) && log.contains(name), "{log}");
    }
}
