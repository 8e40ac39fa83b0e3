//! The functional cases F-14 and F-15: a value comes back as exactly the JSON bytes that were written, from the store
//! and from L1, in single calls and in batches.

use std::collections::HashMap;

use anyhow::ensure;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::support::both_stores::on_every_server;
use crate::support::client::namespace;
use crate::support::eventually::{SOON, eventually};
use crate::support::service::Service;

on_every_server! {
    f14_put_1_mb_value,
    f14_value_over_the_limit,
    f15_complex_json,
    f15_complex_json_in_batches,
    f15_deep_nesting,
}

async fn f14_put_1_mb_value(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f14"));
    let value = text_value(1_000_000);
    cache.set(&ns, "big", &value).await.expect(201);
    // The store answers first, then L1 may answer.
    for _ in 0..2 {
        assert!(cache.get(&ns, "big").await.expect(200).value() == value, "1 MB comes back byte for byte");
    }
    let head = cache.head(&ns, "big").await.expect(200);
    assert!(head.header("content-length").is_some_and(|length| length.parse::<usize>().is_ok_and(|n| n > 1_000_000)));
}

async fn f14_value_over_the_limit(service: &Service) {
    const LIMIT: usize = 4 * 1024 * 1024;
    let (cache, ns) = (service.client(), namespace("f14"));
    let largest = text_value(LIMIT);
    cache.set(&ns, "big", &largest).await.expect(201);
    assert!(cache.get(&ns, "big").await.expect(200).value() == largest, "4 MiB come back byte for byte");
    let over = text_value(LIMIT + 1);
    cache.set(&ns, "big", &over).await.expect_error(400, "value_too_large");
    assert!(cache.get(&ns, "big").await.expect(200).value() == largest, "the previous value stays");
    // Whitespace around the value is not part of it.
    cache.put(&ns, "big", format!("{{\"value\":  {largest}\n}}")).await.expect(200);
    let batch = format!(r#"{{"entries":[{{"key":"small","value":1}},{{"key":"big","value":{over}}}]}}"#);
    let problem = cache.mset_raw(&ns, batch).await.expect_error(400, "value_too_large");
    assert!(problem.contains("entries[1]"), "{problem}");
    cache.get(&ns, "small").await.expect_error(404, "key_not_found");
}

/// Values that would change if they were parsed and printed again.
const COMPLEX: &[&str] = &[
    "9223372036854775808",
    "9223372036854775809",
    "18446744073709551616",
    "123456789012345678901234567890.123456789012345678901234567890",
    "1e400",
    "-1e-400",
    "1E+2",
    "1e2",
    "100.0",
    "0.10",
    "-0",
    "-0.0",
    "5e-324",
    "0.1e1",
    "null",
    "true",
    "false",
    r#""""#,
    "[]",
    "{}",
    "[ ]",
    "{ }",
    r#"{"a":1,"a":2}"#,
    r#"{"a":1,"\u0061":2,"A":3}"#,
    r#"{"b":1,"a":2,"10":3,"9":4}"#,
    r#"{"":{"":[""]}}"#,
    r#""\u0041\/""#,
    r#""\/ / \\ \" \b \f \n \r \t""#,
    r#""\ud83d\ude00""#,
    r#""\uD83D\uDE00""#,
    r#""😀 e\u0301 é é""#,
    "\"\u{7f}\u{80}\u{2028}\u{2029}\u{feff}\"",
    r#""\u0000\u001f""#,
    r#""</script><!-- & -->""#,
    "{ \"a\" :\t1 ,\r\n\n \"b\":[ 1,2 , 3 ] }",
    r#"[1,1.0,1.00,1e0,"1"]"#,
    r#"{"value":{"value":1},"metadata":{"ttl_remaining":1},"ttl":5,"tags":["x"]}"#,
    r#"{"$serde_json::private::RawValue":"1"}"#,
    r#"{"$serde_json::private::Number":"1"}"#,
];

async fn f15_complex_json(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f15"));
    for (index, value) in COMPLEX.iter().enumerate() {
        let key = format!("k{index}");
        cache.set(&ns, &key, value).await.expect(201);
        // The store answers first, then L1 may answer.
        for _ in 0..2 {
            assert_eq!(cache.get(&ns, &key).await.expect(200).value(), *value);
        }
        // Whitespace around a value is not part of it.
        cache.put(&ns, &key, format!("\n{{ \"ttl\" : 60 ,\t\"value\" :\r\n {value} \t}}\n ")).await.expect(200);
        for _ in 0..2 {
            assert_eq!(cache.get(&ns, &key).await.expect(200).value(), *value);
        }
    }
    let total: usize = COMPLEX.iter().map(|value| value.len()).sum();
    eventually(SOON, async || {
        let bytes = cache.stats(&ns).await.number("memory_used_bytes");
        ensure!(bytes == total as u64, "{total} bytes expected, not {bytes}");
        Ok(())
    })
    .await;
}

#[derive(Deserialize)]
struct Batch {
    results: HashMap<String, Found>,
    hits: u64,
}

#[derive(Deserialize)]
struct Found {
    value: Box<RawValue>,
    found: bool,
}

async fn f15_complex_json_in_batches(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f15"));
    let keys: Vec<String> = (0..COMPLEX.len()).map(|index| format!("k{index}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let entries: Vec<String> =
        names.iter().zip(COMPLEX).map(|(key, value)| format!("{{\"value\": {value} ,\"key\":\"{key}\"}}")).collect();
    let stored = cache.mset_raw(&ns, format!("{{\"entries\":[{}]}}", entries.join(" , "))).await;
    stored.expect_json(200, &json!({"success": true, "stored": COMPLEX.len()}));
    for _ in 0..2 {
        let batch: Batch = cache.mget(&ns, &names).await.expect(200).parsed();
        assert_eq!(batch.hits, COMPLEX.len() as u64);
        for (key, value) in keys.iter().zip(COMPLEX) {
            assert!(batch.results[key].found);
            assert_eq!(batch.results[key].value.get(), *value);
        }
    }
    for (key, value) in keys.iter().zip(COMPLEX) {
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), *value);
    }
}

async fn f15_deep_nesting(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f15"));
    let lists = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(1_000), "}".repeat(1_000));
    for (key, value) in [("lists", &lists), ("objects", &objects)] {
        cache.set(&ns, key, value).await.expect(201);
        let batch = format!(r#"{{"entries":[{{"key":"{key}-in-a-batch","value":{value}}}]}}"#);
        cache.mset_raw(&ns, batch).await.expect(200);
        for key in [key.to_owned(), format!("{key}-in-a-batch")] {
            for _ in 0..2 {
                assert_eq!(cache.get(&ns, &key).await.expect(200).value(), *value);
            }
        }
    }
}

/// A JSON string of `length` bytes, including its quotes, with hardly any repetition.
fn text_value(length: usize) -> String {
    let mut text = String::with_capacity(length + 8);
    text.push('"');
    let mut number = 0_u64;
    while text.len() < length - 1 {
        number += 1;
        text.push_str(&format!("{:x}.", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    }
    text.truncate(length - 1);
    text.push('"');
    text
}
