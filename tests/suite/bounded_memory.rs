//! The memory that a request may use beyond its own bytes: bodies crafted to grow when they are parsed, and records
//! that wait for the database. Measured as the memory of the process.

use reqwest::Method;

use crate::support::client::{cache_path, key_path, namespace};
use crate::support::service::{Service, Settings};

const MIB: usize = 1 << 20;

/// The largest body that the service accepts, minus room for the text around the repeated part.
const MOST: usize = 32 * MIB - 100;

/// The memory that any body may use beyond twice its own bytes.
const ALLOWANCE: usize = 4 * MIB;

/// A request body, and the expected status and error code.
struct Case {
    name: &'static str,
    method: Method,
    path: String,
    body: Vec<u8>,
    expected: (u16, &'static str),
}

fn repeated(start: &str, part: &str, end: &str, len: usize) -> Vec<u8> {
    let count = (len - start.len() - end.len()) / part.len();
    [start, &part.repeat(count), end].concat().into_bytes()
}

fn cases(ns: &str) -> Vec<Case> {
    let (space, key, policy) = (cache_path(ns), key_path(ns, "k"), format!("/api/v1/namespaces/{ns}"));
    let (many, invalid) = ((400, "too_many_keys"), (400, "invalid_body"));
    let mut cases = Vec::new();
    let mut add = |name, method: Method, path: &str, body, expected| {
        cases.push(Case { name, method, path: path.to_owned(), body, expected });
    };
    let batch = |call: &str| format!("{space}/{call}");
    for call in ["mget", "mdelete"] {
        let call = &batch(call);
        add(
            "empty keys",
            Method::POST,
            call,
            repeated(r#"{"keys":[""#, r#"",""#, r#""]}"#, MOST),
            if call.ends_with("mget") { many } else { (400, "invalid_key") },
        );
        add("short keys", Method::POST, call, repeated(r#"{"keys":["#, r#""a","#, r#""a"]}"#, MOST), many);
        add("one name of a field", Method::POST, call, repeated(r#"{""#, "k", r#"":[]}"#, MOST), invalid);
        add("an escaped name of a field", Method::POST, call, repeated(r#"{""#, r"\n", r#"":[]}"#, MOST), invalid);
        add("unknown fields", Method::POST, call, repeated("{", r#""a":1,"#, r#""b":1}"#, MOST), invalid);
        add("the same field", Method::POST, call, repeated("{", r#""keys":[],"#, r#""b":1}"#, MOST), invalid);
        add("open arrays", Method::POST, call, repeated(r#"{"keys":"#, "[", "", MOST), invalid);
    }
    let nested = |start: &str, end: &str, len: usize| {
        let depth = (len - start.len() - end.len()) / 2;
        [start, &"[".repeat(depth), &"]".repeat(depth), end].concat().into_bytes()
    };
    add("nested keys", Method::POST, &batch("mget"), nested(r#"{"keys":["#, "]}", MOST), invalid);
    add("one key", Method::POST, &batch("mget"), repeated(r#"{"keys":[""#, "k", r#""]}"#, MOST), (200, ""));
    add("one escaped key", Method::POST, &batch("mget"), repeated(r#"{"keys":[""#, r"\n", r#""]}"#, MOST), (200, ""));
    add("a thousand long keys", Method::POST, &batch("mget"), long_keys(30_000), (200, ""));
    add("a thousand escaped keys", Method::POST, &batch("mget"), long_keys(3_000), (200, ""));
    add(
        "one key to delete",
        Method::POST,
        &batch("mdelete"),
        repeated(r#"{"keys":[""#, r"\n", r#""]}"#, MOST),
        (400, "invalid_key"),
    );
    let mset = &batch("mset");
    add("empty entries", Method::POST, mset, repeated(r#"{"entries":["#, "{},", "{}]}", MOST), invalid);
    add(
        "entries",
        Method::POST,
        mset,
        repeated(r#"{"entries":["#, r#"{"key":"a","value":1},"#, r#"{"key":"a","value":1}]}"#, MOST),
        many,
    );
    add(
        "one entry with many tags",
        Method::POST,
        mset,
        repeated(r#"{"entries":[{"key":"a","value":1,"tags":["#, r#""a","#, r#""a"]}]}"#, MOST),
        (400, "invalid_tag"),
    );
    add(
        "one nested entry",
        Method::POST,
        mset,
        nested(r#"{"entries":[{"key":"a","value":"#, "}]}", MOST),
        (400, "value_too_large"),
    );
    add(
        "an escaped key of an entry",
        Method::POST,
        mset,
        repeated(r#"{"entries":[{"value":1,"key":""#, r"\n", r#""}]}"#, MOST),
        (400, "invalid_key"),
    );
    let put = 4 * MIB + 1000;
    add(
        "many tags",
        Method::PUT,
        &key,
        repeated(r#"{"value":1,"tags":["#, r#""","#, r#"""]}"#, put),
        (400, "invalid_tag"),
    );
    add(
        "the same tag",
        Method::PUT,
        &key,
        repeated(r#"{"value":1,"tags":["#, r#""a","#, r#""a"]}"#, put),
        (400, "invalid_tag"),
    );
    add(
        "one escaped tag",
        Method::PUT,
        &key,
        repeated(r#"{"value":1,"tags":[""#, r"\n", r#""]}"#, put),
        (400, "invalid_tag"),
    );
    add("a long TTL", Method::PUT, &key, repeated(r#"{"value":1,"ttl":"#, "1", "}", put), (400, "invalid_ttl"));
    add("open objects", Method::PUT, &key, repeated(r#"{"value":"#, r#"{"a":"#, "", put), invalid);
    add(
        "tags beyond a value",
        Method::PUT,
        &key,
        repeated(r#"{"value":1,"tags":["#, r#""a","#, r#""a"]}"#, MOST),
        (400, "value_too_large"),
    );
    add(
        "a policy",
        Method::PUT,
        &policy,
        repeated(r#"{"eviction_policy":""#, r"\n", r#""}"#, MOST),
        (413, "body_too_large"),
    );
    add("a body of a GET", Method::GET, &key, repeated("", " ", "", MOST), (413, "body_too_large"));
    add(
        "a form",
        Method::POST,
        "/dashboard/namespaces/n/flush",
        repeated("token=", "%20", "", MOST),
        (413, "body_too_large"),
    );
    cases
}

/// The body of an mget of a thousand keys, each a bit longer than `len` bytes and with an escape in it.
fn long_keys(len: usize) -> Vec<u8> {
    let keys: Vec<String> = (0..1000).map(|i| format!("\"{i}\\n{}\"", "k".repeat(len))).collect();
    format!("{{\"keys\":[{}]}}", keys.join(",")).into_bytes()
}

/// The bugs: 32 MiB of empty keys used 284 MB of memory, and a PUT with eight million tags used 458 MB and got a 201.
#[tokio::test]
async fn no_body_uses_much_more_memory_than_twice_its_bytes() {
    let mut wrong = Vec::new();
    for Case { name, method, path, body, expected: (status, code) } in cases("bounded") {
        // A new process for each body: memory that one body left free would hide the growth of the next.
        let service = Service::start(Settings::embedded());
        let cache = service.client();
        cache.set("bounded", "warm", "1").await.expect(201);
        cache.get("bounded", "warm").await.expect(200);
        let (before, len) = (service.resident_bytes(), body.len());
        service.forget_peak();
        let answer = cache.send(method, &path, &[], Some(body)).await;
        let grown = service.peak_bytes().saturating_sub(before) as usize;
        let told = answer.text().get(..200).unwrap_or(answer.text()).to_owned();
        assert_eq!(answer.status, status, "{name}: {told}");
        assert!(answer.text().contains(code), "{name}: {told}");
        eprintln!("{name} ({path}): {len} bytes cost {grown}, {:.2} times as many", grown as f64 / len as f64);
        if grown > 2 * len + ALLOWANCE {
            wrong.push(format!("{name} ({path}): {len} bytes cost {grown}"));
        }
        cache.get("bounded", "warm").await.expect(200);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The bug: the record of a batch held all its keys, so 65,536 records of a thousand long keys were 36 GB.
#[tokio::test]
async fn records_of_batches_that_wait_for_the_database_hold_no_keys() {
    const BATCHES: usize = 150;
    // No record is written for a day.
    let settings = Settings::embedded().set("access_log_flush_ms", 86_400_000).set("access_log_batch", 10_000);
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("bounded"));
    let body = |i: usize| {
        let keys: Vec<String> = (0..1000).map(|j| format!("\"{}-{i}-{j}\"", "k".repeat(480))).collect();
        format!("{{\"keys\":[{}]}}", keys.join(","))
    };
    // First a few requests, so that the memory that the allocator keeps for reuse does not count as growth.
    for i in 0..10 {
        cache.mget_raw(&ns, body(i)).await.expect(200);
    }
    let before = service.resident_bytes();
    let mut sent = 0;
    for i in 0..BATCHES {
        let body = body(i);
        sent += body.len() as u64;
        cache.mget_raw(&ns, body).await.expect(200);
    }
    let queued = cache.metrics().await.total("sidecache_access_log_queued_rows");
    assert!(queued >= BATCHES as f64, "{queued} rows wait");
    let grown = service.resident_bytes().saturating_sub(before);
    eprintln!("{BATCHES} records of {sent} bytes of keys: {grown} bytes more");
    assert!(grown < sent / 4, "{grown} bytes for {BATCHES} records of {sent} bytes");
}
