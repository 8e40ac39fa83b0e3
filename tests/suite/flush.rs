//! Flushing: all of a namespace, by glob, by tag, and nothing else.

use serde_json::{Value, json};

use crate::support::both_stores::on_both_stores;
use crate::support::client::namespace;
use crate::support::redis::Redis;
use crate::support::service::Service;

on_both_stores! {
    a_glob_takes_what_redis_would_match,
    a_flush_with_a_pattern_finds_all_of_many_keys,
    a_flush_leaves_other_namespaces_alone,
    a_flush_by_tag_takes_the_entries_that_have_it_now,
    a_flush_of_an_unknown_namespace_deletes_nothing,
    a_flushed_key_can_be_written_again,
    the_numbers_after_a_flush_are_exact,
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

/// The table above is not an opinion: Redis itself is asked.
#[test]
fn the_globs_match_what_redis_says() {
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

async fn a_glob_takes_what_redis_would_match(service: &Service) {
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
    // Names that a careless prefix or glob would take along.
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

async fn a_flush_by_tag_takes_the_entries_that_have_it_now(service: &Service) {
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

async fn the_numbers_after_a_flush_are_exact(service: &Service) {
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
