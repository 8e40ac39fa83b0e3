//! Flushing a namespace: everything, by glob, or by tag; and nothing but the selected entries.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::both_stores::on_every_server;
use crate::support::client::namespace;
use crate::support::eventually::{SOON, eventually};
use crate::support::redis::Redis;
use crate::support::service::Service;

on_every_server! {
    a_glob_deletes_what_redis_would_match,
    a_flush_with_a_pattern_finds_all_of_many_keys,
    a_flush_leaves_other_namespaces_alone,
    a_flush_by_tag_deletes_entries_that_currently_have_the_tag,
    a_flush_of_an_unknown_namespace_deletes_nothing,
    a_flushed_key_can_be_written_again,
    the_stats_after_a_flush_are_exact,
    a_dry_run_counts_what_the_flush_then_deletes,
    a_dry_run_is_logged_only_as_one_listing,
    only_true_and_false_are_valid_for_dry_run,
}

const KEYS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "ab",
    "abc",
    "user_1",
    "user_22",
    "user_",
    "User_1",
    "my_user_1",
    "a*b",
    "a?b",
    "[x]",
    "a-c",
    "^",
    "]",
    "back\\slash",
    "a/b",
    "ünï",
    "user:1:name",
    "user:2:name",
    "user:1:mail",
];

const GLOBS: &[(&str, &[&str])] = &[
    ("user_*", &["user_1", "user_22", "user_"]),
    ("*user_*", &["user_1", "user_22", "user_", "my_user_1"]),
    ("user_?", &["user_1"]),
    ("user_??", &["user_22"]),
    ("?", &["a", "b", "c", "d", "^", "]"]),
    ("[abc]", &["a", "b", "c"]),
    ("[a-c]", &["a", "b", "c"]),
    ("[^a]", &["b", "c", "d", "^", "]"]),
    ("[^a-c]", &["d", "^", "]"]),
    ("[Uu]ser_1", &["user_1", "User_1"]),
    ("a\\*b", &["a*b"]),
    ("a\\?b", &["a?b"]),
    ("a[*?]b", &["a*b", "a?b"]),
    ("a*b", &["ab", "a*b", "a?b", "a/b"]),
    ("a?b", &["a*b", "a?b", "a/b"]),
    ("\\[x\\]", &["[x]"]),
    ("back\\\\*", &["back\\slash"]),
    ("user:*:name", &["user:1:name", "user:2:name"]),
    ("user:1:*", &["user:1:name", "user:1:mail"]),
    ("ünï", &["ünï"]),
    ("ü*", &["ünï"]),
    ("nothing*", &[]),
    ("user", &[]),
    ("**", KEYS),
    ("*", KEYS),
];

/// Checks the table above against Redis.
#[test]
fn the_table_of_globs_agrees_with_redis() {
    let redis = Redis::start();
    let mut connection = redis.connect();
    for key in KEYS {
        connection.command(&["SET", key, "1"]);
    }
    for (glob, matched) in GLOBS {
        let mut expected = matched.to_vec();
        expected.sort_unstable();
        assert_eq!(connection.keys(glob), expected, "{glob}");
    }
}

async fn a_glob_deletes_what_redis_would_match(service: &Service) {
    let cache = service.client();
    let entries: Vec<Value> = KEYS.iter().map(|key| json!({"key": key, "value": 1})).collect();
    for (glob, matched) in GLOBS {
        let ns = namespace("flush");
        cache.fill(&ns, &json!(entries)).await;
        let flushed = cache.flush(&ns, &[("pattern", glob)]).await;
        let mut kept: Vec<&str> = KEYS.iter().copied().filter(|key| !matched.contains(key)).collect();
        kept.sort_unstable();
        assert_eq!(cache.all_keys(&ns).await, kept, "after flushing {glob}");
        flushed.expect_json(200, &json!({"success": true, "deleted_count": matched.len()}));
        for key in *matched {
            cache.get(&ns, key).await.expect(404);
        }
    }
}

async fn a_flush_with_a_pattern_finds_all_of_many_keys(service: &Service) {
    let (cache, ns) = (service.client(), namespace("flush"));
    for thousand in 0..3 {
        let entries: Vec<Value> = (0..1_000)
            .map(|number| json!({"key": format!("{}_{thousand}_{number}", ["even", "odd"][number % 2]), "value": 1}))
            .collect();
        cache.fill(&ns, &json!(entries)).await;
    }
    let flushed = cache.flush(&ns, &[("pattern", "odd_*")]).await;
    flushed.expect_json(200, &json!({"success": true, "deleted_count": 1_500}));
    assert_eq!(cache.list(&ns, &[]).await.number("size"), 1_500);
    let flushed = cache.flush(&ns, &[]).await;
    flushed.expect_json(200, &json!({"success": true, "deleted_count": 1_500}));
    assert_eq!(cache.all_keys(&ns).await, Vec::<String>::new());
}

async fn a_flush_leaves_other_namespaces_alone(service: &Service) {
    let (cache, ns) = (service.client(), namespace("flush"));
    // Names that a careless prefix or glob would match as well.
    let neighbours = [format!("{ns}x"), format!("{ns}.x"), format!("x{ns}"), ns.to_uppercase(), namespace("flush")];
    for ns in neighbours.iter().chain([&ns]) {
        let body = r#"{"value":1,"tags":["t"]}"#;
        cache.put(ns, "user_1", body).await.expect(201);
        cache.put(ns, "x", body).await.expect(201);
    }
    for query in [vec![("pattern", "user_*")], vec![("tag", "t")], vec![]] {
        cache.flush(&ns, &query).await.expect(200);
        for neighbour in &neighbours {
            assert_eq!(cache.list(neighbour, &[]).await.number("size"), 2, "{neighbour} after {query:?}");
            cache.get(neighbour, "user_1").await.expect(200);
        }
    }
}

async fn a_flush_by_tag_deletes_entries_that_currently_have_the_tag(service: &Service) {
    let (cache, ns) = (service.client(), namespace("flush"));
    let put = async |key: &str, tags: &str| cache.put(&ns, key, format!("{{\"value\":1,\"tags\":{tags}}}")).await;
    put("one", r#"["red"]"#).await.expect(201);
    put("two", r#"["red","blue"]"#).await.expect(201);
    put("three", r#"["blue"]"#).await.expect(201);
    put("retagged", r#"["red"]"#).await.expect(201);
    put("retagged", r#"["blue"]"#).await.expect(200);
    put("untagged", r#"["red"]"#).await.expect(201);
    cache.set(&ns, "untagged", "1").await.expect(200);
    put("deleted", r#"["red"]"#).await.expect(201);
    cache.delete(&ns, "deleted").await.expect(200);
    cache.set(&ns, "deleted", "1").await.expect(201);
    cache.fill(&ns, &json!([{"key": "batch", "value": 1, "tags": ["red"]}])).await;
    for key in ["one", "two", "three", "retagged", "untagged", "deleted", "batch"] {
        cache.get(&ns, key).await.expect(200);
    }
    let flushed = cache.flush(&ns, &[("tag", "red")]).await;
    flushed.expect_json(200, &json!({"success": true, "deleted_count": 3}));
    assert_eq!(cache.all_keys(&ns).await, ["deleted", "retagged", "three", "untagged"]);
    for key in ["one", "two", "batch"] {
        cache.get(&ns, key).await.expect(404);
    }
    for tag in ["red", "RED", "re", "*"] {
        assert_eq!(cache.flush(&ns, &[("tag", tag)]).await.expect(200).number("deleted_count"), 0, "{tag}");
    }
    assert_eq!(cache.flush(&ns, &[("tag", "blue")]).await.expect(200).number("deleted_count"), 2);
}

async fn a_flush_of_an_unknown_namespace_deletes_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("flush"));
    let nothing = json!({"success": true, "deleted_count": 0});
    for query in [vec![], vec![("pattern", "*")], vec![("tag", "t")]] {
        cache.flush(&ns, &query).await.expect_json(200, &nothing);
    }
    cache.policy(&ns).await.expect_error(404, "namespace_not_found");
}

async fn a_flushed_key_can_be_written_again(service: &Service) {
    let (cache, ns) = (service.client(), namespace("flush"));
    for round in 0..20 {
        cache.put(&ns, "k", format!("{{\"value\":{round},\"tags\":[\"t\"]}}")).await.expect(201);
        assert_eq!(cache.get(&ns, "k").await.expect(200).value(), round.to_string());
        let query: &[(&str, &str)] = [&[] as &[_], &[("pattern", "k*")], &[("tag", "t")]][round % 3];
        assert_eq!(cache.flush(&ns, query).await.expect(200).number("deleted_count"), 1);
        cache.get(&ns, "k").await.expect(404);
    }
}

async fn the_stats_after_a_flush_are_exact(service: &Service) {
    let (cache, ns) = (service.client(), namespace("flush"));
    let entries: Vec<Value> = (0..100)
        .map(|number| json!({"key": format!("k{number:02}"), "value": "x".repeat(number), "tags": [format!("t{}", number % 5)]}))
        .collect();
    let size = |number: usize| number + 2;
    let expect = async |numbers: &[usize]| {
        let stats = cache.stats(&ns).await.expect(200);
        let bytes: usize = numbers.iter().map(|number| size(*number)).sum();
        assert_eq!(stats.number("total_keys"), numbers.len() as u64);
        assert_eq!(stats.number("memory_used_bytes"), bytes as u64);
        assert_eq!(cache.list(&ns, &[]).await.number("size"), numbers.len() as u64);
    };
    let mut left: Vec<usize> = (0..100).collect();
    cache.fill(&ns, &json!(entries)).await;
    expect(&left).await;
    cache.flush(&ns, &[("pattern", "k?[05]")]).await.expect(200);
    left.retain(|number| number % 5 != 0);
    expect(&left).await;
    cache.flush(&ns, &[("tag", "t3")]).await.expect(200);
    left.retain(|number| number % 5 != 3);
    expect(&left).await;
    cache.flush(&ns, &[]).await.expect(200);
    expect(&[]).await;
}

async fn a_dry_run_counts_what_the_flush_then_deletes(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dry"));
    let nothing = json!({"success": true, "deleted_count": 0, "matched_count": 0});
    cache.flush(&ns, &[("dry_run", "true")]).await.expect_json(200, &nothing);
    for thousand in 0..3 {
        let entries: Vec<Value> = (0..1_000)
            .map(|number| {
                let (kind, tag) = (["even", "odd"][number % 2], format!("t{}", number % 10));
                json!({"key": format!("{kind}_{thousand}_{number}"), "value": 1, "tags": [tag]})
            })
            .collect();
        cache.fill(&ns, &json!(entries)).await;
    }
    for (query, matched) in
        [(vec![("pattern", "odd_*")], 1_500), (vec![("tag", "t0")], 300), (vec![], 1_200), (vec![], 0)]
    {
        let mut dry = query.clone();
        dry.push(("dry_run", "true"));
        let expected = json!({"success": true, "deleted_count": 0, "matched_count": matched});
        for _ in 0..2 {
            cache.flush(&ns, &dry).await.expect_json(200, &expected);
        }
        let mut wet = query.clone();
        wet.push(("dry_run", "false"));
        cache.flush(&ns, &wet).await.expect_json(200, &json!({"success": true, "deleted_count": matched}));
    }
}

async fn a_dry_run_is_logged_only_as_one_listing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dry"));
    cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}])).await;
    cache.flush(&ns, &[("pattern", "a"), ("dry_run", "true")]).await.expect(200);
    assert_eq!(cache.all_keys(&ns).await, ["a", "b"]);
    // Rows are written in the order of the flushes, so a row of the dry run would be here before this one.
    cache.flush(&ns, &[("pattern", "b")]).await.expect(200);
    let rows = eventually(SOON, async || {
        let page = cache.audit(&ns, &[]).await.expect(200).json();
        ensure!(page["audit"].as_array().is_some_and(|rows| !rows.is_empty()), "{page}");
        Ok(page["audit"].clone())
    })
    .await;
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    assert_eq!(rows[0]["pattern"], "b");
    let logged = eventually(SOON, async || {
        let page = cache.logs(&ns, &[("limit", "1000")]).await.expect(200).json();
        let rows = page["logs"].as_array().cloned().unwrap_or_default();
        let logged = |operation: &str, pattern: &str| {
            rows.iter().filter(|row| row["operation"] == operation && row["key_pattern"] == pattern).count()
        };
        ensure!(logged("flush", "b") == 1 && logged("list", "a") > 0, "{page}");
        Ok((logged("list", "a"), logged("flush", "a")))
    })
    .await;
    assert_eq!(logged, (1, 0), "lists and flushes of the dry run");
}

async fn only_true_and_false_are_valid_for_dry_run(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dry"));
    cache.set(&ns, "k", "1").await.expect(201);
    for wrong in ["", "yes", "1", "TRUE", "True", "true "] {
        let text = cache.flush(&ns, &[("dry_run", wrong)]).await.expect_error(400, "invalid_query");
        assert!(text.contains("dry_run"), "{text}");
    }
    for slip in ["dry-run", "dryrun", "dry_runs"] {
        cache.flush(&ns, &[(slip, "true")]).await.expect_error(400, "invalid_query");
    }
    let twice = [("dry_run", "true"), ("dry_run", "false")];
    cache.flush(&ns, &twice).await.expect_error(400, "invalid_query");
    let both = [("dry_run", "true"), ("pattern", "*"), ("tag", "t")];
    cache.flush(&ns, &both).await.expect_error(400, "invalid_query");
    cache.get(&ns, "k").await.expect(200);
}
