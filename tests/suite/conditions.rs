//! Preconditions of reads and changes: `If-Match` and `If-None-Match`, as headers and in the entries of an mset.

use reqwest::Method;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::both_stores::on_every_server;
use crate::support::client::{Client, key_path, namespace};
use crate::support::service::Service;

on_every_server! {
    a_change_happens_only_if_its_preconditions_are_met,
    an_expired_or_deleted_entry_does_not_exist,
    an_entry_of_an_mset_is_refused_alone,
    preconditions_hold_beside_tags_quotas_and_other_writers,
    a_read_compares_the_present_entry,
}

/// What is under the key before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Entry,
    KnownAbsent,
}

/// The ETags that a header names.
#[derive(Clone, Copy, Debug)]
enum Named {
    Any,
    Present,
    /// In a list with others.
    PresentOfMany,
    PresentWeak,
    Other,
    Foreign,
}

impl Named {
    const ALL: [Self; 6] =
        [Self::Any, Self::Present, Self::PresentOfMany, Self::PresentWeak, Self::Other, Self::Foreign];

    fn text(self, present: &str) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Present => present.to_owned(),
            Self::PresentOfMany => format!("\"1\", {present} ,\"3\""),
            Self::PresentWeak => format!("W/{present}"),
            Self::Other => "\"1\", \"2\"".to_owned(),
            Self::Foreign => "\"33a64df5\", \"\"".to_owned(),
        }
    }

    /// Whether an entry that exists is among them, by strong comparison (RFC 9110, 8.8.3.2).
    fn has_strong(self) -> bool {
        matches!(self, Self::Any | Self::Present | Self::PresentOfMany)
    }

    fn has_weak(self) -> bool {
        self.has_strong() || matches!(self, Self::PresentWeak)
    }
}

/// The ETag of a write that was done.
fn etag(answer: &Answer) -> String {
    answer.header("etag").expect("a write answers with the ETag").to_owned()
}

async fn change(cache: &Client, method: &Method, ns: &str, key: &str, headers: &[(&str, &str)]) -> Answer {
    let body = (*method == Method::PUT).then(|| br#"{"value": "new"}"#.to_vec());
    cache.send(method.clone(), &key_path(ns, key), headers, body).await
}

async fn a_change_happens_only_if_its_preconditions_are_met(service: &Service) {
    let (cache, ns) = (service.client(), namespace("conditions"));
    for method in [Method::PUT, Method::DELETE] {
        for before in [Before::Nothing, Before::Entry, Before::KnownAbsent] {
            for (number, if_match) in [None].into_iter().chain(Named::ALL.map(Some)).enumerate() {
                for (other, if_none_match) in [None].into_iter().chain(Named::ALL.map(Some)).enumerate() {
                    let key = format!("{method}-{before:?}-{number}-{other}");
                    let mut present = "\"1732190400000000\"".to_owned();
                    if before == Before::Entry {
                        present = etag(&cache.set(&ns, &key, "\"old\"").await.expect(201));
                    }
                    if before == Before::KnownAbsent {
                        cache.put(&ns, &key, r#"{"absent": true}"#).await.expect(201);
                    }
                    let (m, n) =
                        (if_match.map(|named| named.text(&present)), if_none_match.map(|n| n.text(&present)));
                    let headers: Vec<(&str, &str)> = [("if-match", &m), ("if-none-match", &n)]
                        .into_iter()
                        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
                        .collect();
                    let exists = before == Before::Entry;
                    let is_met = if_match.is_none_or(|named| exists && named.has_strong())
                        && !if_none_match.is_some_and(|named| exists && named.has_weak());
                    let answer = change(&cache, &method, &ns, &key, &headers).await;
                    let found = cache.get_with(&ns, &key, &[("cache-control", "no-cache")]).await;
                    let is_known_absent = found.status == 404 && found.json()["code"] == "known_absent";
                    let case = format!("{method} over {before:?} with {headers:?}");
                    if !is_met {
                        assert_eq!(answer.header("etag"), exists.then_some(&*present), "{case}");
                        answer.expect_error(412, "precondition_failed");
                        assert_eq!(found.status, if exists { 200 } else { 404 }, "{case}");
                        assert_eq!(is_known_absent, before == Before::KnownAbsent, "{case}");
                        if exists {
                            assert_eq!(found.json()["value"], "old", "{case}");
                        }
                    } else if method == Method::PUT {
                        assert_eq!(answer.status, if exists { 200 } else { 201 }, "{case}");
                        assert_eq!(found.json()["value"], "new", "{case}");
                    } else {
                        assert_eq!(answer.status, if exists { 200 } else { 404 }, "{case}");
                        assert!(found.status == 404 && !is_known_absent, "{case}");
                    }
                }
            }
        }
    }
    for wrong in ["17", "\"17", "*, \"17\"", "\"17\" \"18\""] {
        for header in ["if-match", "if-none-match"] {
            let answer = change(&cache, &Method::PUT, &ns, "wrong", &[(header, wrong)]).await;
            let detail = answer.expect_error(400, "invalid_precondition");
            assert!(detail.to_lowercase().contains(header), "{detail}");
        }
    }
    cache.get(&ns, "wrong").await.expect(404);
}

async fn an_expired_or_deleted_entry_does_not_exist(service: &Service) {
    let (cache, ns) = (service.client(), namespace("conditions-gone"));
    cache.set_for(&ns, "expired", "1", 1).await.expect(201);
    let deleted = etag(&cache.set(&ns, "deleted", "1").await.expect(201));
    cache.delete(&ns, "deleted").await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    for key in ["expired", "deleted"] {
        change(&cache, &Method::PUT, &ns, key, &[("if-match", "*")]).await.expect(412);
        change(&cache, &Method::DELETE, &ns, key, &[("if-match", &deleted)]).await.expect(412);
        change(&cache, &Method::PUT, &ns, key, &[("if-none-match", "*")]).await.expect(201);
        change(&cache, &Method::PUT, &ns, key, &[("if-none-match", "*")]).await.expect(412);
    }
    assert_eq!(cache.stats(&ns).await.number("total_keys"), 2);
}

async fn an_entry_of_an_mset_is_refused_alone(service: &Service) {
    let (cache, ns) = (service.client(), namespace("conditions-mset"));
    let present = etag(&cache.set(&ns, "a", "\"old\"").await.expect(201));
    let entries = json!([
        {"key": "a", "value": "new", "if_match": present},
        {"key": "b", "value": "new", "if_match": "*"},
        {"key": "c", "value": "new", "if_none_match": "*"},
        {"key": "d", "value": "new", "if_match": null},
    ]);
    let refused = json!({"success": false, "stored": 3, "errors": {"b": "precondition_failed"}});
    cache.mset(&ns, &entries).await.expect_json(200, &refused);
    cache.get(&ns, "b").await.expect(404);
    assert_eq!(cache.get(&ns, "a").await.json()["value"], "new");
    // Nothing was stored, but no shard failed.
    let refused = json!({"success": false, "stored": 0, "errors": {"c": "precondition_failed"}});
    cache.mset(&ns, &json!([{"key": "c", "value": 2, "if_none_match": "*"}])).await.expect_json(200, &refused);
    let wrong = cache.mset(&ns, &json!([{"key": "c", "value": 2, "if_match": "17"}])).await;
    let detail = wrong.expect_error(400, "invalid_precondition");
    assert!(detail.contains("entries[0]") && detail.contains("if_match"), "{detail}");
}

async fn preconditions_hold_beside_tags_quotas_and_other_writers(service: &Service) {
    let (cache, ns) = (service.client(), namespace("conditions-tags"));
    let path = key_path(&ns, "k");
    let put = |tag: &str, headers: Vec<(&'static str, String)>| {
        let body = json!({"value": tag, "tags": [tag]}).to_string().into_bytes();
        let (cache, path) = (cache.clone(), path.clone());
        async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            cache.send(Method::PUT, &path, &headers, Some(body)).await
        }
    };
    let first = put("a", vec![("if-none-match", "*".to_owned())]).await.expect(201);
    let first = etag(&first);
    put("b", vec![("if-none-match", "*".to_owned())]).await.expect(412);
    let second = etag(&put("b", vec![("if-match", first.clone())]).await.expect(200));
    put("c", vec![("if-match", first)]).await.expect_error(412, "precondition_failed");
    // The tag of the refused write is nowhere.
    assert_eq!(cache.list(&ns, &[("tag", "c")]).await.expect(200).json()["keys"], json!([]));
    assert_eq!(cache.list(&ns, &[("tag", "b")]).await.expect(200).json()["keys"], json!(["k"]));
    // Of many writers that saw the same entry, one wins.
    let writers = (0..20).map(|_| put("d", vec![("if-match", second.clone())]));
    let answers = futures_util::future::join_all(writers).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 19, "{statuses:?}");
}

async fn a_read_compares_the_present_entry(service: &Service) {
    let (cache, ns) = (service.client(), namespace("conditions-read"));
    let present = etag(&cache.set(&ns, "k", "1").await.expect(201));
    for (header, value, status) in [
        ("if-match", &*present, 200),
        ("if-match", "*", 200),
        ("if-match", "\"1\"", 412),
        ("if-none-match", &present, 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"1\"", 200),
    ] {
        cache.get_with(&ns, "k", &[(header, value)]).await.expect(status);
    }
    cache.get_with(&ns, "missing", &[("if-match", "*")]).await.expect_error(412, "precondition_failed");
    cache.get_with(&ns, "missing", &[("if-none-match", "*")]).await.expect(404);
}
