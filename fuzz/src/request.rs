//! Bodies and queries: entries, keys, selections, cursors and dates. The first byte selects which one.

use std::collections::BTreeMap;

use axum::http::Uri;
use bytes::Bytes;
use serde_json::value::RawValue;
use sidecache::http::input::{mget_keys, mset_entries, patch_body, selection_of, set_body};
use sidecache::model::{EntryKey, Kind, Namespace, Pattern, Selection, Tag, TtlChange, UnixMillis, Write};
use sidecache::{access_log, audit, store};

use super::percent_encoded;

/// The maximum number of keys or entries in a batch.
const MOST: usize = 1000;

pub fn check(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let text = str::from_utf8(rest);
    let namespace = Namespace::parse("users").expect("a namespace");
    match (which, text) {
        (b'p', _) => put(rest),
        (b't', _) => patch(rest),
        (b'g', _) => mget(&namespace, rest),
        (b's', _) => mset(&namespace, rest),
        (b'q', Ok(text)) => query(text),
        (b'c', Ok(text)) => cursor(text),
        (b'd', Ok(text)) => date(text),
        _ => {}
    }
}

/// An accepted body must contain the value exactly as it is in the JSON, and writing it again must give the same
/// entry.
fn put(body: &[u8]) {
    let Ok(write) = set_body(&Bytes::copy_from_slice(body)) else { return };
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).expect("an accepted body is a JSON object");
    assert!(fields.keys().all(|name| ["value", "ttl", "tags", "absent"].contains(&&**name)), "{fields:?}");
    is_json(&write.value);
    assert_eq!(write.value, fields.get("value").map_or("null", |value| value.get()));
    assert_eq!(write.kind == Kind::Absent, !fields.contains_key("value"));
    is_same(&write, &set_body(&written(&write, None)).expect("it was accepted before"));
}

/// An accepted body has nothing but a TTL and tags, and changes something.
fn patch(body: &[u8]) {
    let Ok(patch) = patch_body(body) else { return };
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).expect("an accepted body is a JSON object");
    assert!(!fields.is_empty() && fields.keys().all(|name| ["ttl", "tags"].contains(&&**name)), "{fields:?}");
    assert_eq!(
        (patch.ttl != TtlChange::Keep, patch.tags.is_some()),
        (fields.contains_key("ttl"), fields.contains_key("tags"))
    );
}

fn mset(namespace: &Namespace, body: &[u8]) {
    let Ok(entries) = mset_entries(namespace, &Bytes::copy_from_slice(body), MOST) else { return };
    assert!(entries.len() <= MOST);
    for (key, write) in entries {
        assert_eq!(key.namespace(), "users");
        is_json(&write.value);
        let entry = written(&write, Some(key.key()));
        let body = [b"{\"entries\":[", &entry[..], b"]}"].concat();
        let again = mset_entries(namespace, &Bytes::from(body), MOST).expect("it was accepted before");
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].0, key);
        is_same(&write, &again[0].1);
    }
}

fn mget(namespace: &Namespace, body: &[u8]) {
    let Ok(keys) = mget_keys(namespace, &Bytes::copy_from_slice(body), MOST) else { return };
    let valid = keys.valid.iter().map(EntryKey::key);
    let string = |text| serde_json::to_string(text).expect("text is written as JSON");
    let mut texts: Vec<String> = valid.chain(keys.invalid.iter().map(String::as_str)).map(string).collect();
    texts.extend(keys.too_long.iter().map(|json| String::from_utf8(json.to_vec()).expect("JSON is UTF-8")));
    assert!(texts.len() <= MOST);
    let lease = keys.lease.map(|lease| format!(",\"lease\":{}", lease.as_secs())).unwrap_or_default();
    let body = format!("{{\"keys\":[{}]{lease}}}", texts.join(","));
    assert_eq!(mget_keys(namespace, &Bytes::from(body), MOST).expect("they were accepted before"), keys);
}

fn is_json(value: &[u8]) {
    let raw: &RawValue = serde_json::from_slice(value).expect("a value is JSON");
    assert_eq!(raw.get().as_bytes(), value, "a value has no surrounding space");
}

fn written(write: &Write, key: Option<&str>) -> Bytes {
    let string = |text: &str| serde_json::to_string(text).expect("text is written as JSON");
    let tags: Vec<String> = write.tags.iter().map(|tag| string(tag.as_str())).collect();
    let key = key.map(|key| format!("\"key\":{},", string(key))).unwrap_or_default();
    let ttl = write.ttl.map(|ttl| format!("\"ttl\":{},", ttl.as_seconds())).unwrap_or_default();
    let field = if write.kind == Kind::Absent { "absent" } else { "value" };
    let mut body = format!("{{{key}{ttl}\"tags\":[{}],\"{field}\":", tags.join(",")).into_bytes();
    body.extend_from_slice(if write.kind == Kind::Absent { b"true" } else { &write.value });
    body.push(b'}');
    body.into()
}

fn is_same(one: &Write, other: &Write) {
    assert_eq!((&one.value, one.kind, one.ttl, &one.tags), (&other.value, other.kind, other.ttl, &other.tags));
}

/// Uses the text as a query, as a pattern and as a tag.
fn query(text: &str) {
    if let Ok(uri) = Uri::try_from(format!("/api/v1/cache/users?{text}")) {
        // The result is a selection or an error, never a panic.
        let _ = selection_of(&uri);
    }
    let encoded = percent_encoded(text, |_| false);
    let ask = |name: &str| {
        let uri = Uri::try_from(format!("/api/v1/cache/users?{name}={encoded}")).ok()?;
        Some(selection_of(&uri).ok())
    };
    // A URI has at most 65,534 bytes.
    if let Some(selection) = ask("pattern") {
        assert_eq!(selection, Pattern::parse(text).ok().map(Selection::Matching));
    }
    if let Some(selection) = ask("tag") {
        assert_eq!(selection, Tag::parse(text).ok().map(Selection::Tagged));
    }
}

/// An accepted cursor must be the same after encoding and decoding it.
fn cursor(text: &str) {
    if let Some(cursor) = store::Cursor::decode(text) {
        assert_eq!(store::Cursor::decode(&cursor.encode()), Some(cursor));
    }
    if let Some(cursor) = audit::Cursor::decode(text) {
        assert_eq!(audit::Cursor::decode(&cursor.encode()), Some(cursor));
    }
    if let Some(cursor) = access_log::Cursor::decode(text) {
        assert_eq!(access_log::Cursor::decode(&cursor.encode()), Some(cursor));
    }
}

fn date(text: &str) {
    if let Some(date) = UnixMillis::parse_rfc3339(text) {
        let date = date.min(UnixMillis::LATEST_DATE);
        assert_eq!(UnixMillis::parse_rfc3339(&date.to_rfc3339_millis()), Some(date), "{text:?}");
    }
}
