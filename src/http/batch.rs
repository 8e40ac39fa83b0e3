//! `POST /api/v1/cache/{ns}/mget`, `/mset` and `/mdelete`: many entries in one request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Code, Error, store_code};
use super::extract::{NamespacePath, NoParameters, StrictQuery};
use super::json::WriteFields;
use super::memory::{COUNTED_FROM, Pieces};
use super::openapi::schema;
use super::read_answer::shown_value;
use super::reader::{self, Reader, Text};
use super::state::SharedApp;
use super::{answer, cache_control, lease, positions};
use crate::cache::{self, Fetched, Lease, MgetAnswer};
use crate::model::{Entry, EntryKey, Invalid, Key, Kind, LeaseToken, Namespace, ReadTerms, Write};
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
    #[schema(schema_with = schema::lease)]
    lease: Option<u64>,
}

/// The keys in the body of an mget.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MgetKeys {
    pub valid: Vec<EntryKey>,
    /// Invalid keys, without duplicates.
    pub invalid: BTreeSet<String>,
    /// Texts that are too long for a key, without duplicates. Each one is the JSON string in the body.
    pub too_long: BTreeSet<Bytes>,
    /// The duration of the leases to get on keys without an entry.
    pub lease: Option<Duration>,
}

/// Parses the body of an mget, with at most `most` keys.
///
/// # Errors
/// [`Error::InvalidBody`], or there are more than `most` keys.
pub fn mget_keys(namespace: &Namespace, body: &Bytes, most: usize) -> Result<MgetKeys, Error> {
    let mut parsed = MgetKeys::default();
    let mut is_there = false;
    reader::object(body, &["keys", "lease"], |index, reader| {
        if index == 1 {
            parsed.lease = lease::duration(reader)?;
            return Ok(());
        }
        is_there = true;
        read_keys(reader, most, |_, text| {
            match text {
                Text::Decoded(text) => match EntryKey::parse(namespace.as_str(), &text) {
                    Ok(key) => parsed.valid.push(key),
                    Err(_) => drop(parsed.invalid.insert(text.into_owned())),
                },
                Text::TooLong(json) => drop(parsed.too_long.insert(body.slice_ref(json.get().as_bytes()))),
            }
            Ok(())
        })
    })?;
    if is_there { Ok(parsed) } else { Err(reader::missing("keys")) }
}

/// Reads the list `keys` and calls `key` with the index and the text of each key. Stops after `most` keys.
///
/// # Errors
/// [`Error::InvalidBody`], there are more than `most` keys, or `key` returned an error.
fn read_keys<'b>(
    reader: &mut Reader<'b>,
    most: usize,
    mut key: impl FnMut(usize, Text<'b>) -> Result<(), Error>,
) -> Result<(), Error> {
    reader.array(|index, reader| {
        check_count(index, most)?;
        let text = reader.text(Key::MAX_LEN).map_err(|error| reader::within(&format!("`keys[{index}]`"), error))?;
        key(index, text)
    })
}

/// Checks that the element with this index is within the limit of a batch.
fn check_count(index: usize, most: usize) -> Result<(), Error> {
    if index < most { Ok(()) } else { Err(cache::Error::TooManyKeys { limit: most }.into()) }
}

/// `mget`.
#[utoipa::path(
    post, path = "/api/v1/cache/{ns}/mget", operation_id = "mget", tag = "batches", summary = "Read many entries",
    description = "If a key is invalid or its shard fails, only that key has an error. With `lease`, the first client \
                   that misses a key gets the right to load it.",
    request_body(content = MgetBody, examples(
        ("keys" = (value = json!({"keys": ["user_1", "user_2"]}))),
        ("with leases" = (value = json!({"keys": ["user_1", "user_2"], "lease": 10}))),
    )),
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
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    let keys = mget_keys(&namespace, &body, app.cache.max_batch_keys())?;
    let room = app.bounds.room();
    let terms = ReadTerms { positions: positions::of(&headers)?, ..cache_control::terms(&headers) };
    let answer = app.cache.mget(&namespace, keys.valid, &terms, keys.lease, &|bytes| room.admits(bytes)).await?;
    let mut response = answer::raw_json(StatusCode::OK, mget_body(&answer, &keys.invalid, &keys.too_long));
    response.extensions_mut().insert(room);
    Ok(lease::complete_batch(response, answer.into_leases()))
}

/// `{"results": {"key": {"value": ..., "found": true}}, "hits": 1, "misses": 0}`.
fn mget_body(answer: &MgetAnswer, invalid: &BTreeSet<String>, too_long: &BTreeSet<Bytes>) -> Body {
    const FRAME: usize = 64;
    const LEASE: usize = 40 + LeaseToken::LEN;
    let copied = |(key, fetched): &(EntryKey, Fetched)| match fetched {
        Fetched::Hit(Entry { value, .. }) | Fetched::Stale(Entry { value, .. }) if value.len() < COUNTED_FROM => {
            key.key().len() + value.len() + FRAME
        }
        Fetched::Leased(_) => key.key().len() + FRAME + LEASE,
        _ => key.key().len() + FRAME,
    };
    let invalid_size = (invalid.len() + too_long.len()) * FRAME + invalid.iter().map(String::len).sum::<usize>();
    let size = answer.results.iter().map(copied).sum::<usize>() + invalid_size + FRAME;
    let mut body = ResultsBody { text: BytesMut::with_capacity(size), pieces: Vec::new() };
    body.put(r#"{"results":{"#);
    for (key, fetched) in &answer.results {
        body.put_string(key.key());
        match fetched {
            Fetched::Hit(_) | Fetched::Stale(_) if fetched.is_known_absent() => {
                body.put(r#":{"value":null,"found":false,"known_absent":true"#);
                body.put(if matches!(fetched, Fetched::Stale(_)) { r#","stale":true},"# } else { "}," });
            }
            Fetched::Hit(entry) | Fetched::Stale(entry) => {
                body.put(r#":{"value":"#);
                match entry.extra.kind {
                    Kind::Bytes => body.put_json(&shown_value(&entry.borrowed()).into_owned().into()),
                    Kind::Json | Kind::Absent => body.put_json(&entry.value),
                }
                let is_stale = matches!(fetched, Fetched::Stale(_));
                body.put(if is_stale { r#","found":true,"stale":true},"# } else { r#","found":true},"# });
            }
            Fetched::Miss => body.put(r#":{"value":null,"found":false},"#),
            Fetched::Leased(Lease::Won(won)) => body.put(&format!(
                r#":{{"value":null,"found":false,"lease":{{"state":"won","token":"{}"}}}},"#,
                won.token().as_str()
            )),
            Fetched::Leased(Lease::Held { .. }) => {
                body.put(r#":{"value":null,"found":false,"lease":{"state":"held"}},"#);
            }
            Fetched::Failed(error) => {
                body.put_error(store_code(error), error.is_foreign().then(|| error.to_string()));
            }
        }
    }
    for key in invalid {
        body.put_string(key);
        body.put_error(Code::InvalidKey, None);
    }
    for key in too_long {
        body.put_json(key);
        body.put_error(Code::InvalidKey, None);
    }
    if body.text.ends_with(b",") {
        body.text.truncate(body.text.len() - 1);
    }
    body.put(&format!(r#"}},"hits":{},"misses":{}"#, answer.hits, answer.misses));
    let errors = answer.errors + (invalid.len() + too_long.len()) as u64;
    if errors > 0 {
        body.put(&format!(r#","errors":{errors}"#));
    }
    body.put("}");
    body.pieces.push(body.text.freeze());
    Pieces::body(body.pieces)
}

/// The body of an mget's response while it is written. Each result ends with a comma.
struct ResultsBody {
    text: BytesMut,
    /// The parts before `text`. Large values are sent without a copy.
    pieces: Vec<Bytes>,
}

impl ResultsBody {
    fn put(&mut self, text: &str) {
        self.text.put_slice(text.as_bytes());
    }

    /// Writes text as a JSON string with quotes.
    fn put_string(&mut self, text: &str) {
        serde_json::to_writer((&mut self.text).writer(), text).expect("writing text to memory does not fail");
    }

    fn put_json(&mut self, json: &Bytes) {
        if json.len() < COUNTED_FROM {
            self.text.put_slice(json);
        } else {
            self.pieces.extend([self.text.split().freeze(), json.clone()]);
        }
    }

    fn put_error(&mut self, code: Code, detail: Option<String>) {
        self.put(r#":{"value":null,"found":false,"error":"#);
        self.put_string(code.as_str());
        if let Some(detail) = detail {
            self.put(r#","detail":"#);
            self.put_string(&detail);
        }
        self.put("},");
    }
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
    #[schema(value_type = serde_json::Value, required = false)]
    value: Bytes,
    /// As in a PUT.
    #[schema(schema_with = schema::absent)]
    absent: Option<bool>,
    #[schema(schema_with = schema::ttl)]
    ttl: Option<u64>,
    #[schema(schema_with = schema::tags)]
    tags: Option<Vec<String>>,
    #[schema(schema_with = schema::source_version)]
    source_version: Option<u64>,
    #[schema(schema_with = schema::stale_while_revalidate)]
    stale_while_revalidate: Option<u64>,
    /// As the header `If-Match` of a PUT: `*` or ETags in quotes. An entry that is refused has the error
    /// `precondition_failed`.
    #[schema(schema_with = schema::etags)]
    if_match: Option<String>,
    /// As the header `If-None-Match` of a PUT.
    #[schema(schema_with = schema::etags)]
    if_none_match: Option<String>,
    /// The lease that this value fills, as the header `Cache-Lease` of a PUT.
    lease: Option<String>,
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
    // An entry whose preconditions are not met is an answer, not a failure.
    let status = match answer.failed.iter().find(|(_, error)| !error.is_precondition()) {
        Some((_, error)) if answer.stored == 0 => store_code(error).status(),
        _ => StatusCode::OK,
    };
    let (errors, details) = failures(&answer.failed);
    let body = MsetAnswer { success: errors.is_empty(), stored: answer.stored, errors, details };
    let mut response = answer::json(status, &body);
    positions::put(&mut response, &answer.positions);
    Ok(response)
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
    let mut keys = None;
    reader::object(body, &["keys"], |_, reader| {
        let keys = keys.insert(Vec::new());
        read_keys(reader, most, |index, text| {
            keys.push(entry_key(namespace, &text).map_err(|invalid| at("keys", index, invalid.into()))?);
            Ok(())
        })
    })?;
    keys.ok_or_else(|| reader::missing("keys"))
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
    let body = MdeleteAnswer { success, deleted_count: answer.deleted, errors, details };
    let mut response = answer::json(status, &body);
    positions::put(&mut response, &answer.positions);
    Ok(response)
}

/// The code of each key that failed, and the texts for those keys whose error is `foreign_type`.
fn failures(failed: &[(EntryKey, store::Error)]) -> (BTreeMap<&str, Code>, BTreeMap<&str, String>) {
    let foreign = failed.iter().filter(|(_, error)| error.is_foreign());
    let details = foreign.map(|(key, error)| (key.key(), error.to_string())).collect();
    (failed.iter().map(|(key, error)| (key.key(), store_code(error))).collect(), details)
}

fn mset_entry<'b>(namespace: &Namespace, reader: &mut Reader<'b>, body: &Bytes) -> Result<(EntryKey, Write), Error> {
    const KEY: usize = WriteFields::NAMES_IN_BATCH.len();
    const NAMES: [&str; KEY + 1] = {
        let mut names = ["key"; KEY + 1];
        let (fields, _) = names.split_at_mut(KEY);
        fields.copy_from_slice(&WriteFields::NAMES_IN_BATCH);
        names
    };
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
