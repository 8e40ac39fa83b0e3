//! `/api/v1/cache/{ns}/{key}`: one entry.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, WARNING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::NO_CACHE;
use super::error::{Error, key_not_found, store_code};
use super::extract::{EntryPath, NoParameters, StrictQuery};
use super::json::{self, WriteFields};
use super::openapi::schema;
use super::state::SharedApp;
use super::{answer, reader};
use crate::cache::{AnsweredBy, Cache, Consistency, L1SkipReason};
use crate::model::{Entry, EntryKey, EntryRef, Operation, Version, Write};
use crate::store::Outcome;

const X_CACHE_HIT: HeaderName = HeaderName::from_static("x-cache-hit");
const X_CACHE_TTL: HeaderName = HeaderName::from_static("x-cache-ttl");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The `Warning` of a stale answer (RFC 7234, 5.5.2). The header is obsolete, but clients still look for it.
const STALE_WARNING: &[u8] = b"111 sidecache \"Revalidation Failed\"";

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GetQuery {
    /// `full`: all metadata of the entry, read from its shard.
    #[param(schema_with = schema::full)]
    metadata: Option<String>,
}

/// `GET` and `HEAD`.
#[utoipa::path(
    get,
    path = "/api/v1/cache/{ns}/{key}",
    operation_id = "get_entry",
    tag = "entries",
    summary = "Read the entry",
    params(GetQuery),
    responses(
        (status = 200, description = "The entry.", body = ref("#/components/schemas/Entry")),
        (status = 304, description = "The client already has this version (`If-None-Match`)."),
    )
)]
pub async fn get(
    State(app): State<SharedApp>,
    method: Method,
    EntryPath(key): EntryPath,
    StrictQuery(query): StrictQuery<GetQuery>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let operation = if method == Method::HEAD { Operation::Head } else { Operation::Get };
    let (lookup, details) = match query.metadata.as_deref() {
        None => (app.cache.get(&key, consistency(&headers), operation).await?, None),
        Some("full") => app.cache.describe(&key, operation).await?,
        Some(other) => {
            return Err(Error::InvalidQuery(format!("`metadata` must be `full` or absent, not {other:?}")));
        }
    };
    let found = lookup.entry.as_ref().map(Entry::borrowed);
    let ttl = shown_ttl(found, &lookup.trail);
    let mut response = match &lookup.entry {
        None => key_not_found(),
        // No 304 for the full metadata: the ETag does not change with the access counts.
        Some(entry) if details.is_none() && matches(&headers, entry.version) => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Some(entry) => answer::raw_json(StatusCode::OK, json::entry(entry, ttl, details.as_ref())),
    };
    put_headers(&app.cache, found, &lookup.trail, ttl, |name, parts| {
        let value = HeaderValue::try_from(parts.concat()).expect("numbers and shard names are valid in headers");
        response.headers_mut().insert(name, value);
    });
    Ok(response)
}

/// How many seconds the found entry has left: 0 if it is stale; `None` if it never expires or nothing was found.
pub fn shown_ttl(found: Option<EntryRef<'_>>, trail: &AnsweredBy) -> Option<u64> {
    let is_stale = matches!(trail, AnsweredBy::Stale { .. });
    if is_stale { Some(0) } else { found.and_then(json::ttl_remaining) }
}

/// Calls `put` for each header that a read adds to its response, with the parts of its value. `Content-Type` and
/// `Content-Length` are not among them.
pub fn put_headers(
    cache: &Cache,
    found: Option<EntryRef<'_>>,
    trail: &AnsweredBy,
    ttl: Option<u64>,
    mut put: impl FnMut(HeaderName, &[&[u8]]),
) {
    let (mut ttl_text, mut version_text) = (itoa::Buffer::new(), itoa::Buffer::new());
    let ttl_text = ttl.map(|ttl| ttl_text.format(ttl).as_bytes());
    put(CACHE_CONTROL, &[NO_CACHE.as_bytes()]);
    put(X_CACHE_HIT, &[if found.is_some() { b"true" } else { b"false" }]);
    if let Some(entry) = found {
        if let Some(ttl) = ttl_text {
            put(X_CACHE_TTL, &[ttl]);
        }
        put(ETAG, &[b"\"", version_text.format(entry.version.0).as_bytes(), b"\""]);
        if matches!(trail, AnsweredBy::Stale { .. }) {
            put(WARNING, &[STALE_WARNING]);
        }
    }
    let outcome: [&[u8]; 2] = match (found, ttl_text) {
        (Some(_), Some(ttl)) => [b"hit; ttl=", ttl],
        (Some(_), None) => [b"hit", b""],
        (None, _) => [b"fwd=uri-miss", b""],
    };
    put_cache_status(cache, trail, outcome, |parts| put(CACHE_STATUS, parts));
}

/// The body of a `PUT` of an entry.
// Only for the OpenAPI document: `set_body` parses the body.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the fields; the parser reads them one by one")]
pub struct SetBody {
    /// Any JSON. A read returns the same bytes.
    #[schema(value_type = serde_json::Value)]
    value: Bytes,
    #[schema(schema_with = schema::ttl)]
    ttl: Option<u64>,
    #[schema(schema_with = schema::tags)]
    tags: Option<Vec<String>>,
}

/// Parses the body of a `PUT`. The value is a slice of the body.
///
/// # Errors
/// [`Error::InvalidBody`], or the TTL or a tag is invalid.
pub fn set_body(body: &Bytes) -> Result<Write, Error> {
    let mut fields = WriteFields::default();
    reader::object(body, &WriteFields::NAMES, |index, reader| fields.read(index, reader))?;
    fields.finish(body)
}

#[derive(Serialize, ToSchema)]
pub struct SetAnswer<'k> {
    success: bool,
    key: &'k str,
    created: bool,
}

/// `PUT`.
#[utoipa::path(
    put, path = "/api/v1/cache/{ns}/{key}", operation_id = "put_entry", tag = "entries", summary = "Store the entry",
    request_body(content = SetBody, examples(
        ("everything" = (value = json!({"value": {"name": "Ada"}, "ttl": 3600, "tags": ["vip"]}))),
        ("null is a value" = (value = json!({"value": null}))),
    )),
    responses(
        (status = 200, description = "The entry was replaced.", body = SetAnswer),
        (status = 201, description = "The entry is new.", body = SetAnswer),
    )
)]
pub async fn put(
    State(app): State<SharedApp>,
    EntryPath(key): EntryPath,
    _: StrictQuery<NoParameters>,
    body: Bytes,
) -> Result<Response, Error> {
    store(&app.cache, &key, &body).await
}

/// Stores the entry that the body of a `PUT` describes.
///
/// # Errors
/// The body is invalid, or the cache refused or failed.
pub async fn store(cache: &Cache, key: &EntryKey, body: &Bytes) -> Result<Response, Error> {
    let stored = cache.set(key, set_body(body)?).await?;
    let created = stored.outcome == Outcome::Created;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer::json(status, &SetAnswer { success: true, key: key.key(), created });
    response.headers_mut().insert(ETAG, etag(stored.version));
    Ok(response)
}

#[derive(Serialize, ToSchema)]
pub struct DeleteAnswer {
    success: bool,
    deleted: bool,
}

/// `DELETE`.
#[utoipa::path(
    delete,
    path = "/api/v1/cache/{ns}/{key}",
    operation_id = "delete_entry",
    tag = "entries",
    summary = "Delete the entry",
    responses((status = 200, description = "The entry is deleted.", body = DeleteAnswer))
)]
pub async fn delete(
    State(app): State<SharedApp>,
    EntryPath(key): EntryPath,
    _: StrictQuery<NoParameters>,
) -> Result<Response, Error> {
    if app.cache.delete(&key).await? {
        Ok(answer::json(StatusCode::OK, &DeleteAnswer { success: true, deleted: true }))
    } else {
        Ok(key_not_found())
    }
}

/// `Cache-Control: no-cache` makes the shard answer (RFC 9111, 5.2.1.4).
fn consistency(headers: &HeaderMap) -> Consistency {
    let asks = |value: &HeaderValue| {
        let directives = value.to_str().unwrap_or_default().split(',').map(str::trim);
        directives.into_iter().any(|directive| directive.eq_ignore_ascii_case("no-cache"))
    };
    if headers.get_all(CACHE_CONTROL).iter().any(asks) { Consistency::Shard } else { Consistency::Bounded }
}

fn etag(version: Version) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", version.0)).expect("digits in quotes are a header value")
}

/// Whether the client already has this version (RFC 9110, 13.1.2: weak comparison; `*` matches any version).
fn matches(headers: &HeaderMap, version: Version) -> bool {
    let Some(asked) = headers.get_all(IF_NONE_MATCH).iter().next().map(|_| etag(version)) else { return false };
    let is_etag = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == asked.as_bytes();
    let has = |value: &HeaderValue| value.to_str().unwrap_or_default().split(',').map(str::trim).any(is_etag);
    headers.get_all(IF_NONE_MATCH).iter().any(has)
}

/// Builds `Cache-Status` (RFC 9211), which begins with the tier that is farthest from the client. `first` and `rest`
/// are the two parts of the outcome.
fn put_cache_status(cache: &Cache, trail: &AnsweredBy, [first, rest]: [&[u8]; 2], put: impl FnOnce(&[&[u8]])) {
    match *trail {
        AnsweredBy::Embedded => put(&[b"sidecache-embedded; ", first, rest]),
        AnsweredBy::L1 => put(&[b"sidecache-l1; ", first, rest]),
        AnsweredBy::Stale { shard, ref error, overdue } => {
            // Rounded up to at least 1: a stale copy never shows `-0`.
            let overdue = overdue.as_millis().div_ceil(1000).max(1);
            let why = detail(&format!("{}/{}", cache.shard_name(shard), store_code(error).as_str()));
            let text =
                format!("sidecache-shard; fwd=miss; {why}, sidecache-l1; hit; ttl=-{overdue}; detail=stale-if-error");
            put(&[text.as_bytes()]);
        }
        AnsweredBy::Shard { shard, skipped, collapsed } => {
            let (why, reason) = match skipped {
                L1SkipReason::Miss => ("miss", ""),
                L1SkipReason::Request => ("request", ""),
                L1SkipReason::Void => ("stale", "; detail=lost-messages"),
                L1SkipReason::Unproven => ("stale", "; detail=unproven"),
                L1SkipReason::Off => ("bypass", ""),
            };
            let collapsed = if collapsed { "; collapsed" } else { "" };
            let name = detail(cache.shard_name(shard));
            let text = format!("; {name}, sidecache-l1; fwd={why}{collapsed}{reason}");
            put(&[b"sidecache-shard; ", first, rest, text.as_bytes()]);
        }
    }
}

/// The parameter `detail` of `Cache-Status`.
fn detail(text: &str) -> String {
    // An RFC 8941 token begins with a letter; other text is written as a string.
    let quote = if text.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "\"" };
    format!("detail={quote}{text}{quote}")
}
