//! Preconditions of reads and changes: `If-Match` and `If-None-Match`, as headers and in the entries of an mset.

use std::time::Duration;

use futures_util::future::join_all;
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

/// What is under the key before the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Entry,
    Expired,
    /// Past its TTL, but answered while somebody refreshes it.
    InGrace,
    /// Its freshness was ended.
    Marked,
    KnownAbsent,
    /// Nothing, and somebody has the lease.
    Leased,
}

impl Before {
    const ALL: [Self; 7] =
        [Self::Nothing, Self::Entry, Self::Expired, Self::InGrace, Self::Marked, Self::KnownAbsent, Self::Leased];

    /// Whether there is an entry that preconditions are about.
    fn exists(self) -> bool {
        matches!(self, Self::Entry | Self::InGrace | Self::Marked)
    }
}

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Put,
    Patch,
    Delete,
    /// Ends the freshness of the entry.
    Mark,
    Mset,
}

impl Change {
    const ALL: [Self; 5] = [Self::Put, Self::Patch, Self::Delete, Self::Mark, Self::Mset];
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

async fn mark(cache: &Client, ns: &str, key: &str, headers: &[(&str, &str)]) -> Answer {
    cache.send(Method::DELETE, &format!("{}?mode=stale", key_path(ns, key)), headers, None).await
}

async fn change(cache: &Client, method: &Method, ns: &str, key: &str, headers: &[(&str, &str)]) -> Answer {
    let body = (*method == Method::PUT).then(|| br#"{"value": "new"}"#.to_vec());
    cache.send(method.clone(), &key_path(ns, key), headers, body).await
}

/// One case: a key, what is under it, and a change with its preconditions.
struct Case {
    key: String,
    before: Before,
    change: Change,
    if_match: Option<Named>,
    if_none_match: Option<Named>,
    /// The ETag of the entry, or one that no entry has.
    present: String,
    /// The token of the lease.
    lease: Option<String>,
}

impl Case {
    fn all() -> Vec<Self> {
        let named = || [None].into_iter().chain(Named::ALL.map(Some));
        let mut all = Vec::new();
        for before in Before::ALL {
            for change in Change::ALL {
                for if_match in named() {
                    for if_none_match in named() {
                        let key = format!("{before:?}-{change:?}-{}", all.len());
                        let present = "\"1732190400000000\"".to_owned();
                        all.push(Self { key, before, change, if_match, if_none_match, present, lease: None });
                    }
                }
            }
        }
        // `stale_mark` tests marks of known absences.
        all.retain(|case| (case.before, case.change) != (Before::KnownAbsent, Change::Mark));
        all
    }

    /// Brings about what is under the key.
    async fn prepare(&mut self, cache: &Client, ns: &str) {
        let body = match self.before {
            Before::Nothing => return,
            Before::Entry => json!({"value": "old"}),
            Before::Expired => json!({"value": "old", "ttl": 1}),
            Before::InGrace => json!({"value": "old", "ttl": 1, "stale_while_revalidate": 600}),
            Before::Marked => json!({"value": "old", "ttl": 600, "stale_while_revalidate": 600}),
            Before::KnownAbsent => json!({"absent": true}),
            Before::Leased => {
                let asked = cache.get_with(ns, &self.key, &[("prefer", "lease=60")]).await.expect(404);
                // Without the right to INFO, no lease is given.
                let given = asked.header("cache-lease").and_then(|lease| lease.split('"').nth(1));
                self.lease = given.map(str::to_owned);
                return;
            }
        };
        let stored = cache.put(ns, &self.key, body.to_string()).await.expect(201);
        if self.before.exists() {
            self.present = etag(&stored);
        }
        if self.before == Before::Marked {
            mark(cache, ns, &self.key, &[]).await.expect(200);
        }
    }

    fn is_met(&self) -> bool {
        let exists = self.before.exists();
        self.if_match.is_none_or(|named| exists && named.has_strong())
            && !self.if_none_match.is_some_and(|named| exists && named.has_weak())
    }

    async fn send(&self, cache: &Client, ns: &str) -> Answer {
        let conditions = [("if-match", self.if_match), ("if-none-match", self.if_none_match)];
        let texts: Vec<(&str, String)> =
            conditions.iter().filter_map(|(name, named)| Some((*name, (*named)?.text(&self.present)))).collect();
        let headers: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, &**text)).collect();
        match self.change {
            Change::Put => change(cache, &Method::PUT, ns, &self.key, &headers).await,
            Change::Mark => mark(cache, ns, &self.key, &headers).await,
            Change::Delete => change(cache, &Method::DELETE, ns, &self.key, &headers).await,
            Change::Patch => cache.patch_with(ns, &self.key, &headers, &json!({"ttl": 600, "tags": ["new"]})).await,
            Change::Mset => {
                let mut entry = json!({"key": self.key, "value": "new"});
                for (name, text) in texts {
                    entry[name.replace('-', "_")] = json!(text);
                }
                cache.mset(ns, &json!([entry])).await
            }
        }
    }

    /// Makes the change, and checks its answer and what is under the key then.
    async fn check(&self, cache: &Client, ns: &str) {
        let (exists, is_met) = (self.before.exists(), self.is_met());
        let Self { key, before, change, if_match, if_none_match, .. } = self;
        let case = format!("{change:?} over {before:?} with {if_match:?}, {if_none_match:?}");
        let answer = self.send(cache, ns).await;
        match (change, is_met) {
            (Change::Mset, true) => assert_eq!(answer.json(), json!({"success": true, "stored": 1}), "{case}"),
            (Change::Mset, false) => {
                let errors = json!({(key.as_str()): "precondition_failed"});
                assert_eq!(answer.json(), json!({"success": false, "stored": 0, "errors": errors}), "{case}");
            }
            (_, false) => {
                assert_eq!(answer.header("etag"), exists.then_some(&*self.present), "{case}");
                answer.expect_error(412, "precondition_failed");
            }
            (Change::Put, true) => assert_eq!(answer.status, if exists { 200 } else { 201 }, "{case}"),
            (Change::Patch | Change::Delete | Change::Mark, true) => {
                assert_eq!(answer.status, if exists { 200 } else { 404 }, "{case}");
            }
        }
        let expected = match (change, is_met) {
            (Change::Put | Change::Mset, true) => "new",
            (Change::Delete, true) => "key_not_found",
            // It has no time in which it may be stale.
            (Change::Mark, true) if *before == Before::Entry => "key_not_found",
            _ if exists => "old",
            _ if *before == Before::KnownAbsent => "known_absent",
            _ => "key_not_found",
        };
        let found = cache.get(ns, key).await;
        let field = if found.status == 200 { "value" } else { "code" };
        assert_eq!(found.json()[field], expected, "{case}");
        if let Some(token) = &self.lease {
            // A change ends the lease; a PATCH of nothing, and what is refused, change nothing.
            let is_ended = is_met && *change != Change::Patch;
            let body = br#"{"value": "filled"}"#.to_vec();
            let filled = cache.send(Method::PUT, &key_path(ns, key), &[("cache-lease", token)], Some(body)).await;
            assert_eq!(filled.status, if is_ended { 412 } else { 201 }, "{case}: {}", filled.text());
        }
    }
}

async fn a_change_happens_only_if_its_preconditions_are_met(service: &Service) {
    let (cache, ns) = (service.client(), namespace("conditions"));
    let mut cases = Case::all();
    // Those that must expire come first, so that the others are prepared meanwhile.
    cases.sort_by_key(|case| !matches!(case.before, Before::Expired | Before::InGrace));
    for some in cases.chunks_mut(32) {
        join_all(some.iter_mut().map(|case| case.prepare(&cache, &ns))).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for some in cases.chunks(32) {
        join_all(some.iter().map(|case| case.check(&cache, &ns))).await;
    }
    let changed = |case: &&Case| case.change == Change::Patch && case.before.exists() && case.is_met();
    let tagged = cache.list(&ns, &[("tag", "new"), ("limit", "1000")]).await.expect(200).json();
    assert_eq!(tagged["keys"].as_array().map(Vec::len), Some(cases.iter().filter(changed).count()));
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
    tokio::time::sleep(Duration::from_millis(1_100)).await;
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
    let answers = join_all(writers).await;
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
