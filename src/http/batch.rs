//! `POST /api/v1/cache/{ns}/mget` and `/mset`: many entries in one request.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::error::{Code, Error, store_code};
use super::extract::{NamespacePath, NoParameters, StrictQuery};
use super::json::{self, WriteFields};
use super::openapi::{answers, params, schema};
use super::room::{COUNTED_FROM, Pieces};
use super::{SharedApp, answer};
use crate::cache::{self, Fetched, MgetAnswer};
use crate::model::{EntryKey, Key, Namespace, Write};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MgetBody {
    /// Repetitions count once.
    #[schema(schema_with = schema::keys)]
    keys: Vec<String>,
}

/// The keys that the body of an mget names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MgetKeys {
    pub valid: Vec<EntryKey>,
    /// Each once.
    pub invalid: BTreeSet<String>,
}

/// The keys that the body of an mget names, once `admit` has agreed to their number.
///
/// # Errors
/// [`Error::InvalidBody`], or what `admit` says.
pub fn mget_keys(
    namespace: &Namespace,
    body: &Bytes,
    admit: impl FnOnce(usize) -> Result<(), cache::Error>,
) -> Result<MgetKeys, Error> {
    let MgetBody { keys } = json::object(body)?;
    admit(keys.len())?;
    let mut parsed = MgetKeys::default();
    for text in keys {
        match EntryKey::parse(namespace.as_str(), &text) {
            Ok(key) => parsed.valid.push(key),
            Err(_) => drop(parsed.invalid.insert(text)),
        }
    }
    Ok(parsed)
}

/// `mget`.
#[utoipa::path(
    post, path = "/api/v1/cache/{ns}/mget", operation_id = "mget", tag = "batches", summary = "Read many entries",
    description = "An invalid key, or a shard that fails, costs its own keys only.",
    params(params::InNamespace),
    request_body(content = MgetBody, example = json!({"keys": ["user_1", "user_2"]})),
    responses(answers::Mget)
)]
pub async fn mget(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    body: Bytes,
) -> Result<Response, Error> {
    let MgetKeys { valid, invalid } = mget_keys(&namespace, &body, |keys| app.cache.check_batch(keys))?;
    let room = app.bounds.room();
    let answer = app.cache.mget(&namespace, valid, &|bytes| room.admits(bytes)).await?;
    let mut response = answer::raw_json(StatusCode::OK, mget_body(&answer, &invalid));
    response.extensions_mut().insert(room);
    Ok(response)
}

/// `{"results": {"key": {"value": ..., "found": true}}, "hits": 1, "misses": 0}`.
fn mget_body(answer: &MgetAnswer, invalid: &BTreeSet<String>) -> Body {
    const FRAME: usize = 48;
    let is_copied = |value: &Bytes| value.len() < COUNTED_FROM;
    let size = |(key, fetched): &(EntryKey, Fetched)| match fetched {
        Fetched::Hit(entry) | Fetched::Stale(entry) if is_copied(&entry.value) => {
            key.key().len() + entry.value.len() + FRAME
        }
        _ => key.key().len() + FRAME,
    };
    let mut body = BytesMut::with_capacity(answer.results.iter().map(size).sum::<usize>() + FRAME);
    // Large values are sent from where they lie.
    let mut pieces = Vec::new();
    body.put_slice(br#"{"results":{"#);
    for (i, (key, fetched)) in answer.results.iter().enumerate() {
        if i > 0 {
            body.put_u8(b',');
        }
        json::put_string(&mut body, key.key());
        match fetched {
            Fetched::Hit(entry) | Fetched::Stale(entry) => {
                body.put_slice(br#":{"value":"#);
                if is_copied(&entry.value) {
                    body.put_slice(&entry.value);
                } else {
                    pieces.extend([body.split().freeze(), entry.value.clone()]);
                }
                let is_stale = matches!(fetched, Fetched::Stale(_));
                body.put_slice(if is_stale { br#","found":true,"stale":true}"# } else { br#","found":true}"# });
            }
            Fetched::Miss => body.put_slice(br#":{"value":null,"found":false}"#),
            Fetched::Failed(error) => {
                body.put_slice(br#":{"value":null,"found":false,"error":"#);
                json::put_string(&mut body, store_code(error).as_str());
                if error.is_foreign() {
                    body.put_slice(br#","detail":"#);
                    json::put_string(&mut body, &error.to_string());
                }
                body.put_u8(b'}');
            }
        }
    }
    for (i, key) in invalid.iter().enumerate() {
        if i > 0 || !answer.results.is_empty() {
            body.put_u8(b',');
        }
        json::put_string(&mut body, key);
        body.put_slice(br#":{"value":null,"found":false,"error":"#);
        json::put_string(&mut body, Code::InvalidKey.as_str());
        body.put_u8(b'}');
    }
    let errors = answer.errors + invalid.len() as u64;
    let mut number = itoa::Buffer::new();
    body.put_slice(br#"},"hits":"#);
    body.put_slice(number.format(answer.hits).as_bytes());
    body.put_slice(br#","misses":"#);
    body.put_slice(number.format(answer.misses).as_bytes());
    if errors > 0 {
        body.put_slice(br#","errors":"#);
        body.put_slice(number.format(errors).as_bytes());
    }
    body.put_u8(b'}');
    pieces.push(body.freeze());
    Pieces::body(pieces)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MsetBody<'b> {
    #[serde(borrow)]
    #[schema(schema_with = schema::entries)]
    entries: Vec<&'b RawValue>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MsetEntry<'b> {
    #[schema(schema_with = schema::written_key)]
    key: String,
    /// Any JSON; it comes back byte for byte.
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value)]
    value: &'b RawValue,
    #[serde(borrow, default)]
    #[schema(schema_with = schema::ttl)]
    ttl: Option<&'b RawValue>,
    #[serde(default)]
    #[schema(schema_with = schema::tags)]
    tags: Option<Vec<String>>,
}

#[derive(Serialize, ToSchema)]
pub struct MsetAnswer<'k> {
    success: bool,
    stored: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = schema::failed_keys)]
    errors: BTreeMap<&'k str, Code>,
    /// What exactly stands in the way of an entry, where that is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<&'k str, String>,
}

/// The entries that the body of an mset holds, once `admit` has agreed to their number.
///
/// # Errors
/// [`Error::InvalidBody`], what `admit` says, or a field is invalid; it names the entry.
pub fn mset_entries(
    namespace: &Namespace,
    body: &Bytes,
    admit: impl FnOnce(usize) -> Result<(), cache::Error>,
) -> Result<Vec<(EntryKey, Write)>, Error> {
    let MsetBody { entries } = json::object(body)?;
    admit(entries.len())?;
    let parse = |(index, entry)| mset_entry(namespace, entry, body).map_err(|error| at(index, error));
    entries.into_iter().enumerate().map(parse).collect()
}

/// `mset`.
#[utoipa::path(
    post, path = "/api/v1/cache/{ns}/mset", operation_id = "mset", tag = "batches", summary = "Store many entries",
    description = "Everything is checked before anything is stored; of entries with the same key the last wins.",
    params(params::InNamespace),
    request_body(content = MsetBody, example = json!({"entries": [
        {"key": "user_1", "value": {"name": "Ada"}, "ttl": 3600},
        {"key": "user_2", "value": [1, 2], "tags": ["vip"]},
    ]})),
    responses(answers::Mset)
)]
pub async fn mset(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    body: Bytes,
) -> Result<Response, Error> {
    let writes = mset_entries(&namespace, &body, |entries| app.cache.check_batch(entries))?;
    let answer = app.cache.mset(&namespace, writes).await?;
    let errors: BTreeMap<_, _> = answer.failed.iter().map(|(key, error)| (key.key(), store_code(error))).collect();
    let status = match answer.failed.first() {
        Some((_, error)) if answer.stored == 0 => store_code(error).status(),
        _ => StatusCode::OK,
    };
    let foreign = answer.failed.iter().filter(|(_, error)| error.is_foreign());
    let details = foreign.map(|(key, error)| (key.key(), error.to_string())).collect();
    Ok(answer::json(status, &MsetAnswer { success: errors.is_empty(), stored: answer.stored, errors, details }))
}

fn mset_entry(namespace: &Namespace, entry: &RawValue, body: &Bytes) -> Result<(EntryKey, Write), Error> {
    let MsetEntry { key, value, ttl, tags } = json::object(entry.get().as_bytes())?;
    let key = EntryKey::new(namespace, &Key::parse(key)?);
    Ok((key, WriteFields { value, ttl, tags }.parse(body)?))
}

/// Names the entry that an error is about.
fn at(index: usize, error: Error) -> Error {
    match error {
        Error::Cache(error) => Error::Cache(cache::Error::Entry { index, error: Box::new(error) }),
        Error::InvalidBody(reason) => Error::InvalidBody(format!("entries[{index}]: {reason}")),
        other => other,
    }
}
