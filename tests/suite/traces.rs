//! Request ids and W3C trace context: they reach the access log and the log, through the fast path and the router.
//! Another build exports spans, see tests/otel.

use std::collections::BTreeMap;

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::both_stores::on_both_stores;
use crate::support::client::{cache_path, key_path, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

on_both_stores! {
    every_line_of_the_access_log_names_its_request_and_trace,
    an_invalid_traceparent_is_ignored,
}

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

fn traceparent() -> String {
    format!("00-{TRACE_ID}-b7ad6b7169203331-01")
}

async fn every_line_of_the_access_log_names_its_request_and_trace(service: &Service) {
    let (cache, ns) = (service.client(), namespace("traces"));
    let (entry, all, parent) = (key_path(&ns, "k"), cache_path(&ns), traceparent());
    let set = br#"{"value": 1}"#.to_vec();
    let mset = json!({"entries": [{"key": "k", "value": 2}]}).to_string().into_bytes();
    let mget = json!({"keys": ["k"]}).to_string().into_bytes();
    let asked = [
        ("set", Method::PUT, entry.clone(), Some(set)),
        ("get", Method::GET, entry.clone(), None),
        ("get", Method::GET, entry.clone(), None),
        ("get", Method::GET, format!("{entry}?metadata=full"), None),
        ("head", Method::HEAD, entry.clone(), None),
        ("get", Method::GET, key_path(&ns, "absent"), None),
        ("mset", Method::POST, format!("{all}/mset"), Some(mset)),
        ("mget", Method::POST, format!("{all}/mget"), Some(mget)),
        ("list", Method::GET, all.clone(), None),
        ("stats", Method::GET, format!("{all}/stats"), None),
        ("delete", Method::DELETE, entry.clone(), None),
        ("flush", Method::DELETE, all.clone(), None),
    ];
    let mut expected = BTreeMap::new();
    for (i, (operation, method, path, body)) in asked.iter().enumerate() {
        let id = format!("mine-{i}");
        let headers = [("x-request-id", id.as_str()), ("traceparent", parent.as_str())];
        let answer = cache.send(method.clone(), path, &headers, body.clone()).await;
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "{method} {path}");
        expected.insert(id.clone(), (*operation, true));
        // A request without an id is logged with the id in its answer.
        let answer = cache.send(method.clone(), path, &[], body.clone()).await;
        let given = answer.header("x-request-id").expect("every answer has an id").to_owned();
        expected.insert(given, (*operation, false));
    }
    eventually(LATER, async || {
        let logs = cache.logs(&ns, &[("limit", "1000")]).await.expect(200).json();
        let lines = logs["logs"].as_array().expect("a list");
        ensure!(lines.len() == expected.len(), "{} lines of {}", lines.len(), expected.len());
        for line in lines {
            let id = line["request_id"].as_str().expect("a line has a request");
            let (operation, is_traced) =
                expected.get(id).unwrap_or_else(|| panic!("no request had the id {id}: {line}"));
            assert_eq!(line["operation"], *operation, "{line}");
            assert_eq!(line["trace_id"], if *is_traced { json!(TRACE_ID) } else { Value::Null }, "{line}");
        }
        Ok(())
    })
    .await;
}

async fn an_invalid_traceparent_is_ignored(service: &Service) {
    let (cache, ns) = (service.client(), namespace("traces"));
    let long = "x".repeat(300);
    for wrong in ["", "00-1-2-3", long.as_str()] {
        let headers = [("traceparent", wrong), ("x-request-id", long.as_str())];
        let answer = cache.get_with(&ns, "k", &headers).await.expect(404);
        assert_eq!(answer.header("x-request-id"), Some(long.as_str()), "the answer has the whole id");
    }
    cache.set(&ns, "k", "1").await.expect(201);
    eventually(LATER, async || {
        let logs = cache.logs(&ns, &[("operation", "get")]).await.expect(200).json();
        let lines = logs["logs"].as_array().expect("a list");
        ensure!(lines.len() == 3, "{} lines", lines.len());
        for line in lines {
            assert_eq!(line["trace_id"], Value::Null, "{line}");
            assert_eq!(line["request_id"], long[..128], "{line}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_failure_in_the_log_names_its_request_and_trace() {
    let servers = [Redis::start()];
    let service = Service::start(Settings::on(&servers).set("log_format", "json").set("redis_timeout_ms", 500));
    let [mut server] = servers;
    let cache = service.client();
    let parent = traceparent();
    server.kill();
    for (id, method) in [("read-1", Method::GET), ("head-1", Method::HEAD)] {
        let headers = [("x-request-id", id), ("traceparent", parent.as_str())];
        eventually(SOON, async || {
            // At most one line per second and code is logged, so this request may be logged only after a retry.
            let answer = cache.send(method.clone(), &key_path("n", "k"), &headers, None).await;
            ensure!(answer.status == 503, "{}", answer.status);
            let log = service.log();
            let line = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["fields"]["message"] == "request failed" && line["fields"]["request_id"] == id);
            let Some(line) = line else { anyhow::bail!("not logged yet") };
            assert_eq!(line["fields"]["trace_id"], TRACE_ID, "{line}");
            Ok(())
        })
        .await;
    }
}
