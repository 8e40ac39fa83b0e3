//! `/api/v1/cache/{ns}/{key}`: one entry.

use axum::extract::State;
use axum::http::header::ETAG;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::conditions;
use super::error::{Error, key_not_found, terms_not_met};
use super::extract::{EntryPath, NoParameters, StrictQuery, is_stale_mode};
use super::json::WriteFields;
use super::openapi::schema;
use super::read_answer::ReadAnswer;
use super::state::SharedApp;
use super::{accept, answer, cache_control, lease, positions, read_answer, reader};
use crate::cache::{self, Cache, LeasedLookup};
use crate::model::{EntryKey, Operation, ReadTerms, SourceVersion, Write};
use crate::store::{self, Deleted, Outcome};

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
        (
            status = 200, body = ref("#/components/schemas/Entry"),
            description = "The entry. If `Accept` names `application/octet-stream`, the body is only the bytes of the value.",
        ),
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
    let preconditions = conditions::of(&headers)?.unwrap_or_default();
    let asked = lease::request(&headers, app.bounds.longest_wait());
    let asked = asked.filter(|_| operation == Operation::Get && query.metadata.is_none());
    let terms = ReadTerms { positions: positions::of(&headers)?, ..cache_control::terms(&headers) };
    let mut given = None;
    let (lookup, details) = match query.metadata.as_deref() {
        None if let Some(asked) = asked => {
            let LeasedLookup { lookup, lease } = app.cache.get_or_lease(&key, &terms, asked).await?;
            given = lease;
            (lookup, None)
        }
        None => (app.cache.get(&key, &terms, operation).await?, None),
        Some("full") => app.cache.describe(&key, &terms, operation).await?,
        Some(other) => {
            return Err(Error::InvalidQuery(format!("`metadata` must be `full` or absent, not {other:?}")));
        }
    };
    let found = ReadAnswer::of(&app.cache, &lookup);
    let present = lookup.entry.as_ref().filter(|entry| !entry.is_known_absent()).map(|entry| entry.version);
    if preconditions.if_match.as_ref().is_some_and(|list| !present.is_some_and(|version| list.holds(version))) {
        return Err(cache::Error::from(store::Error::PreconditionFailed { present }).into());
    }
    let is_known = |version| preconditions.if_none_match.as_ref().is_some_and(|list| list.holds(version));
    let mut response = match &lookup.entry {
        None => lookup.unmet.map_or_else(key_not_found, terms_not_met),
        Some(entry) if entry.is_known_absent() => {
            let body = read_answer::known_absent_body(entry, found.ttl, details.as_ref());
            answer::raw_json(StatusCode::NOT_FOUND, body)
        }
        // No 304 for the full metadata: the ETag does not change with the access counts.
        Some(entry) if details.is_none() && is_known(entry.version) => StatusCode::NOT_MODIFIED.into_response(),
        Some(entry) if details.is_none() && accept::wants_bytes(&headers) => answer::bytes(entry.value.clone()),
        Some(entry) => answer::raw_json(StatusCode::OK, read_answer::body(entry, found.ttl, details.as_ref())),
    };
    found.add_headers(response.headers_mut());
    Ok(match asked {
        None => response,
        Some(asked) => lease::complete(response, asked, given),
    })
}

/// The body of a `PUT` of an entry.
// Only for the OpenAPI document: `set_body` parses the body.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the fields; the parser reads them one by one")]
pub struct SetBody {
    /// Any JSON. A read returns the same bytes.
    #[schema(value_type = serde_json::Value, required = false)]
    value: Bytes,
    /// True: there is no such thing in the source, so the entry has no value.
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
        ("there is no such thing" = (value = json!({"absent": true, "ttl": 60}))),
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
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    let write = set_body(&body)?;
    let preconditions = conditions::of_write(&headers, write.preconditions)?;
    store(&app.cache, &key, Write { preconditions, ..write }).await
}

/// Stores an entry.
///
/// # Errors
/// The cache refused or failed.
pub async fn store(cache: &Cache, key: &EntryKey, write: Write) -> Result<Response, Error> {
    let stored = cache.set(key, write).await?;
    let created = stored.outcome == Outcome::Created;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer::json(status, &SetAnswer { success: true, key: key.key(), created });
    response.headers_mut().insert(ETAG, answer::etag(stored.version));
    positions::put_one(&mut response, cache.shard_of(key), stored.position);
    Ok(response)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// The source's own count of this deletion. Later writes with a smaller count are refused: `newer_version_exists`.
    #[param(schema_with = schema::source_version_in_query)]
    source_version: Option<String>,
    /// `stale`: end the freshness of the entry instead of deleting it. Not with `source_version`.
    #[param(schema_with = schema::mode)]
    mode: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct DeleteAnswer {
    success: bool,
    /// Not with `mode=stale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    deleted: Option<bool>,
    /// Only with `mode=stale`: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    marked_count: Option<u64>,
}

/// `DELETE`.
#[utoipa::path(
    delete,
    path = "/api/v1/cache/{ns}/{key}",
    operation_id = "delete_entry",
    tag = "entries",
    summary = "Delete the entry",
    params(DeleteQuery),
    responses((status = 200, description = "The entry is deleted.", body = DeleteAnswer))
)]
pub async fn delete(
    State(app): State<SharedApp>,
    EntryPath(key): EntryPath,
    StrictQuery(query): StrictQuery<DeleteQuery>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let source_version = query.source_version.as_deref().map(SourceVersion::parse).transpose();
    let source_version = source_version.map_err(Error::InvalidQuery)?;
    if is_stale_mode(query.mode.as_deref())? {
        if source_version.is_some() {
            return Err(Error::InvalidQuery("`mode` and `source_version` cannot be combined".to_owned()));
        }
        let marked = app.cache.mark(&key, conditions::of(&headers)?.as_deref()).await?;
        let answer = DeleteAnswer { success: true, deleted: None, marked_count: Some(1) };
        return Ok(removed(&app.cache, &key, marked, &answer));
    }
    let preconditions = conditions::of_deletion(&headers, source_version)?;
    let deleted = app.cache.delete(&key, preconditions.as_deref()).await?;
    let answer = DeleteAnswer { success: true, deleted: Some(true), marked_count: None };
    Ok(removed(&app.cache, &key, deleted, &answer))
}

/// The response to a deletion or a mark; `answer` is its body if there was an entry.
fn removed(cache: &Cache, key: &EntryKey, deleted: Deleted, answer: &DeleteAnswer) -> Response {
    let mut response = if deleted.existed { answer::json(StatusCode::OK, answer) } else { key_not_found() };
    positions::put_one(&mut response, cache.shard_of(key), deleted.position);
    response
}
