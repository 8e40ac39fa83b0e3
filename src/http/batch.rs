//! `POST /api/v1/cache/{ns}/mget`, `/mset` and `/mdelete`: many entries in one request.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::error::{Code, Error, store_code};
use super::extract::{NamespacePath, NoParameters, StrictQuery};
use super::json::{self, WriteFields};
use super::openapi::schema;
use super::reader::{self, Reader, Text};
use super::response_memory::{COUNTED_FROM, Pieces};
use super::state::SharedApp;
use crate::cache::{self, Fetched, MgetAnswer};
use crate::model::{EntryKey, Invalid, Key, Namespace, Write};
use crate::store;

/// The body of an mget.
// Only for the OpenAPI document: `mget_keys` parses the body.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the fields; the parser reads them one by one")]
pub struct MgetBody {
    /// A repeated key has one result.
    #[schema(schema_with = schema::keys)]
    keys: Vec<String>,
}

/// The keys in the body of an mget.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MgetKeys {
    pub valid: Vec<EntryKey>,
    /// Invalid keys, without duplicates.
    pub invalid: BTreeSet<String>,
    /// Texts that are too long for a key, without duplicates. Each one is the JSON string in the body.
    pub too_long: BTreeSet<Bytes>,
}

/// Parses the keys in the body of an mget, at most `most` keys.
///
/// # Errors
/// [`Error::InvalidBody`], or there are more than `most` keys.
pub fn mget_keys(namespace: &Namespace, body: &Bytes, most: usize) -> Result<MgetKeys, Error> {
    let mut parsed = MgetKeys::default();
    read_keys(body, most, |_, text| {
        match text {
            Text::Decoded(text) => match EntryKey::parse(namespace.as_str(), &text) {
                Ok(key) => parsed.valid.push(key),
                Err(_) => drop(parsed.invalid.insert(text.into_owned())),
            },
            Text::TooLong(json) => drop(parsed.too_long.insert(body.slice_ref(json.get().as_bytes()))),
        }
        Ok(())
    })?;
    Ok(parsed)
}

/// Reads the body `{"keys": [...]}` and calls `key` with the index and the text of each key. Stops after `most` keys.
///
/// # Errors
/// [`Error::InvalidBody`], there are more than `most` keys, or `key` returned an error.
fn read_keys(
    body: &Bytes,
    most: usize,
    mut key: impl FnMut(usize, Text<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut is_there = false;
    reader::object(body, &["keys"], |_, reader| {
        is_there = true;
        reader.array(|index, reader| {
            check_count(index, most)?;
            let text =
                reader.text(Key::MAX_LEN).map_err(|error| reader::within(&format!("`keys[{index}]`"), error))?;
            key(index, text)
        })
    })?;
    if is_there { Ok(()) } else { Err(reader::missing("keys")) }
}

/// Checks that the element with this index is within the limit of a batch.
fn check_count(index: usize, most: usize) -> Result<(), Error> {
    if index < most { Ok(()) } else { Err(cache::Error::TooManyKeys { limit: most }.into()) }
}

/// `mget`.
#[utoipa::path(
    post, path = "/api/v1/cache/{ns}/mget", operation_id = "mget", tag = "batches", summary = "Read many entries",
    description = "If a key is invalid or its shard fails, only that key has an error.",
    request_body(content = MgetBody, example = json!({"keys": ["user_1", "user_2"]})),
    responses((
        status = 200, body = ref("#/components/schemas/MgetAnswer"),
        description = "A result for every requested key. If a key is invalid or its shard fails, only that key has \
                       an error.",
    ))
)]
pub async fn mget(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    body: Bytes,
) -> Result<Response, Error> {
    let keys = mget_keys(&namespace, &body, app.cache.max_batch_keys())?;
    let room = app.bounds.room();
    let answer = app.cache.mget(&namespace, keys.valid, &|bytes| room.admits(bytes)).await?;
    let mut response = answer::raw_json(StatusCode::OK, mget_body(&answer, &keys.invalid, &keys.too_long));
    response.extensions_mut().insert(room);
    Ok(response)
}

/// `{"results": {"key": {"value": ..., "found": true}}, "hits": 1, "misses": 0}`.
fn mget_body(answer: &MgetAnswer, invalid: &BTreeSet<String>, too_long: &BTreeSet<Bytes>) -> Body {
    const FRAME: usize = 64;
    let is_copied = |value: &Bytes| value.len() < COUNTED_FROM;
    let size = |(key, fetched): &(EntryKey, Fetched)| match fetched {
        Fetched::Hit(entry) | Fetched::Stale(entry) if is_copied(&entry.value) => {
            key.key().len() + entry.value.len() + FRAME
        }
        _ => key.key().len() + FRAME,
    };
    let invalid_size = (invalid.len() + too_long.len()) * FRAME + invalid.iter().map(String::len).sum::<usize>();
    let mut body = BytesMut::with_capacity(answer.results.iter().map(size).sum::<usize>() + invalid_size + FRAME);
    // Large values are sent without a copy.
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
    let mut is_first = answer.results.is_empty();
    let mut put_invalid = |body: &mut BytesMut, put_key: &mut dyn FnMut(&mut BytesMut)| {
        if !std::mem::take(&mut is_first) {
            body.put_u8(b',');
        }
        put_key(body);
        body.put_slice(br#":{"value":null,"found":false,"error":"#);
        json::put_string(body, Code::InvalidKey.as_str());
        body.put_u8(b'}');
    };
    for key in invalid {
        put_invalid(&mut body, &mut |body| json::put_string(body, key));
    }
    for key in too_long {
        put_invalid(&mut body, &mut |body| match is_copied(key) {
            true => body.put_slice(key),
            false => pieces.extend([body.split().freeze(), key.clone()]),
        });
    }
    let errors = answer.errors + (invalid.len() + too_long.len()) as u64;
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

/// The body of an mset.
// Only for the OpenAPI document: `mset_entries` parses the body.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the fields; the parser reads them one by one")]
pub struct MsetBody {
    #[schema(schema_with = schema::entries)]
    entries: Vec<MsetEntry>,
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the fields; the parser reads them one by one")]
pub struct MsetEntry {
    #[schema(schema_with = schema::writable_key)]
    key: String,
    /// Any JSON. A read returns the same bytes.
    #[schema(value_type = serde_json::Value)]
    value: Bytes,
    #[schema(schema_with = schema::ttl)]
    ttl: Option<u64>,
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
    /// For keys with the error `foreign_type`: the cause, and what to do.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<&'k str, String>,
}

/// Parses the entries in the body of an mset, at most `most` entries.
///
/// # Errors
/// [`Error::InvalidBody`], there are more than `most` entries, or a field is invalid. The error names the entry.
pub fn mset_entries(namespace: &Namespace, body: &Bytes, most: usize) -> Result<Vec<(EntryKey, Write)>, Error> {
    let mut entries = None;
    reader::object(body, &["entries"], |_, reader| {
        let entries = entries.insert(Vec::new());
        reader.array(|index, reader| {
            check_count(index, most)?;
            entries.push(mset_entry(namespace, reader, body).map_err(|error| at("entries", index, error))?);
            Ok(())
        })
    })?;
    entries.ok_or_else(|| reader::missing("entries"))
}

/// The description of an answer to an mset whose entries all failed.
const NOTHING_STORED: &str = "Nothing was stored, and `errors` has the reasons";

/// `mset`.
#[utoipa::path(
    post, path = "/api/v1/cache/{ns}/mset", operation_id = "mset", tag = "batches", summary = "Store many entries",
    description = "All entries are checked before the first one is stored. If a key is repeated, its last entry wins.",
    request_body(content = MsetBody, example = json!({"entries": [
        {"key": "user_1", "value": {"name": "Ada"}, "ttl": 3600},
        {"key": "user_2", "value": [1, 2], "tags": ["vip"]},
    ]})),
    responses(
        (status = 200, body = MsetAnswer,
         description = "All entries are stored, or only some of them (`success` is false)."),
        (status = 409, description = NOTHING_STORED, body = MsetAnswer),
        (status = 500, description = NOTHING_STORED, body = MsetAnswer),
        (status = 503, description = NOTHING_STORED, body = MsetAnswer),
        (status = 507, description = NOTHING_STORED, body = MsetAnswer),
    )
)]
pub async fn mset(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    body: Bytes,
) -> Result<Response, Error> {
    let writes = mset_entries(&namespace, &body, app.cache.max_batch_keys())?;
    let answer = app.cache.mset(&namespace, writes).await?;
    let status = match answer.failed.first() {
        Some((_, error)) if answer.stored == 0 => store_code(error).status(),
        _ => StatusCode::OK,
    };
    let (errors, details) = failures(&answer.failed);
    Ok(answer::json(status, &MsetAnswer { success: errors.is_empty(), stored: answer.stored, errors, details }))
}

/// The body of an mdelete.
// Only for the OpenAPI document: `mdelete_keys` parses the body.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the fields; the parser reads them one by one")]
pub struct MdeleteBody {
    /// A repeated key is deleted and counted once.
    #[schema(schema_with = schema::writable_keys)]
    keys: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub struct MdeleteAnswer<'k> {
    success: bool,
    /// How many entries were deleted. A key without an entry is not an error.
    deleted_count: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = schema::failed_keys)]
    errors: BTreeMap<&'k str, Code>,
    /// For keys with the error `foreign_type`: the cause, and what to do.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<&'k str, String>,
}

/// Parses the keys in the body of an mdelete, at most `most` keys.
///
/// # Errors
/// [`Error::InvalidBody`], there are more than `most` keys, or a key is invalid. The error names the key.
pub fn mdelete_keys(namespace: &Namespace, body: &Bytes, most: usize) -> Result<Vec<EntryKey>, Error> {
    let mut keys = Vec::new();
    read_keys(body, most, |index, text| {
        keys.push(entry_key(namespace, &text).map_err(|invalid| at("keys", index, invalid.into()))?);
        Ok(())
    })?;
    Ok(keys)
}

/// The description of an answer to an mdelete whose keys all failed.
const NOTHING_DELETED: &str = "Nothing was deleted, and `errors` has the reasons";

/// `mdelete`.
#[utoipa::path(
    post, path = "/api/v1/cache/{ns}/mdelete", operation_id = "mdelete", tag = "batches", summary = "Delete many entries",
    description = "Also deletes entries whose key cannot be part of a path, such as `../a`. All keys are checked \
                   before the first entry is deleted.",
    request_body(content = MdeleteBody, example = json!({"keys": ["user_1", "../user_2"]})),
    responses(
        (status = 200, body = MdeleteAnswer,
         description = "All keys are deleted, or only some (`success` is false)."),
        (status = 409, description = NOTHING_DELETED, body = MdeleteAnswer),
        (status = 500, description = NOTHING_DELETED, body = MdeleteAnswer),
        (status = 503, description = NOTHING_DELETED, body = MdeleteAnswer),
    )
)]
pub async fn mdelete(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    body: Bytes,
) -> Result<Response, Error> {
    let keys = mdelete_keys(&namespace, &body, app.cache.max_batch_keys())?;
    let answer = app.cache.mdelete(&namespace, keys).await?;
    let status = match answer.failed.first() {
        Some((_, error)) if answer.deleted + answer.absent == 0 => store_code(error).status(),
        _ => StatusCode::OK,
    };
    let (errors, details) = failures(&answer.failed);
    let success = errors.is_empty();
    Ok(answer::json(status, &MdeleteAnswer { success, deleted_count: answer.deleted, errors, details }))
}

/// The code of each key that failed, and the texts for those keys whose error is `foreign_type`.
fn failures(failed: &[(EntryKey, store::Error)]) -> (BTreeMap<&str, Code>, BTreeMap<&str, String>) {
    let foreign = failed.iter().filter(|(_, error)| error.is_foreign());
    let details = foreign.map(|(key, error)| (key.key(), error.to_string())).collect();
    (failed.iter().map(|(key, error)| (key.key(), store_code(error))).collect(), details)
}

fn mset_entry<'b>(namespace: &Namespace, reader: &mut Reader<'b>, body: &Bytes) -> Result<(EntryKey, Write), Error> {
    const NAMES: [&str; 4] = ["value", "ttl", "tags", "key"];
    const KEY: usize = WriteFields::NAMES.len();
    let (mut key, mut fields) = (None, WriteFields::default());
    reader.object(&NAMES, |index, reader| {
        if index == KEY {
            key = Some(entry_key(namespace, &reader.text(Key::MAX_LEN)?)?);
            return Ok(());
        }
        fields.read(index, reader)
    })?;
    let key = key.ok_or_else(|| reader::missing(NAMES[KEY]))?;
    Ok((key, fields.finish(body)?))
}

/// Parses a text as a key.
fn entry_key(namespace: &Namespace, text: &Text<'_>) -> Result<EntryKey, Invalid> {
    match text {
        Text::Decoded(text) => EntryKey::parse(namespace.as_str(), text),
        Text::TooLong(_) => {
            Err(Invalid::Key(format!("a key must have 1 to {} bytes, this one has more", Key::MAX_LEN)))
        }
    }
}

/// Adds the list and the index of the wrong element to an error.
fn at(list: &'static str, index: usize, error: Error) -> Error {
    match error {
        Error::Cache(error) => Error::Cache(cache::Error::Entry { list, index, error: Box::new(error) }),
        Error::InvalidBody(reason) => Error::InvalidBody(format!("{list}[{index}]: {reason}")),
        other => other,
    }
}
