//! Errors as clients see them: the only place where an error becomes a status and a code.
//!
//! Use [`Error`] in handlers; `cache::Error` and `model::Invalid` turn into it. A 5xx tells a code
//! and no inside details; the log has the rest, once, see `failure_log`.

use std::any::Any;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answer;
use super::failure_log::Failure;
use crate::cache;
use crate::database;
use crate::metrics::Metrics;
use crate::model::Invalid;
use crate::store;

/// Whatever ends a request without what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The body is not what the call takes; the text names the field or the place.
    #[error("{0}")]
    InvalidBody(String),
    #[error("{0}")]
    InvalidQuery(String),
    #[error("the body has more than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the bodies of the requests under way leave no room for this one")]
    TooManyBodies,
    #[error("the body broke off")]
    BrokenBody,
    #[error("the body did not arrive in time")]
    SlowBody,
    /// A write may have happened all the same.
    #[error("the request was not answered in time")]
    DeadlineExceeded { may_write: bool },
    #[error("no such route")]
    NoSuchRoute,
    #[error("the route does not take this method")]
    MethodNotAllowed,
    #[error("a panic ended the request")]
    Panic,
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Cache(invalid.into())
    }
}

/// The JSON of an error.
#[derive(Serialize)]
struct Answer {
    /// For people.
    error: &'static str,
    /// For programs; never changes.
    code: &'static str,
    /// What exactly was wrong with the request; absent when the fault is not the client's.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Entries that a failed flush deleted all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_count: Option<u64>,
}

/// Status, code and text for people.
pub type Known = (StatusCode, &'static str, &'static str);

/// What is away or overloaded is asked for again within a second, see `store::redis`.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

const OUTCOME_UNKNOWN: Known =
    (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", "It is unknown whether the write happened");

const OVERLOADED: Known = (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests are under way");

impl Error {
    /// Status, code and text for people.
    pub fn known(&self) -> Known {
        match self {
            Self::Cache(error) => cache_error(error),
            Self::InvalidBody(_) | Self::BrokenBody => (StatusCode::BAD_REQUEST, "invalid_body", "Invalid body"),
            Self::InvalidQuery(_) => (StatusCode::BAD_REQUEST, "invalid_query", "Invalid query"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large"),
            Self::TooManyBodies => OVERLOADED,
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, "request_timeout", "The request did not arrive in time"),
            Self::DeadlineExceeded { may_write: false } => {
                (StatusCode::SERVICE_UNAVAILABLE, "timeout", "Not answered in time")
            }
            Self::DeadlineExceeded { may_write: true } => OUTCOME_UNKNOWN,
            Self::NoSuchRoute => (StatusCode::NOT_FOUND, "no_such_route", "No such route"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed on this route")
            }
            Self::Panic => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }
}

fn cache_error(error: &cache::Error) -> Known {
    use cache::Error as E;
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    match error {
        E::Invalid(invalid) => match invalid {
            Invalid::Namespace(_) => (BAD, "invalid_namespace", "Invalid namespace"),
            Invalid::Key(_) => (BAD, "invalid_key", "Invalid key"),
            Invalid::Ttl(_) => (BAD, "invalid_ttl", "Invalid ttl"),
            Invalid::Tag(_) => (BAD, "invalid_tag", "Invalid tag"),
            Invalid::Pattern(_) => (BAD, "invalid_pattern", "Invalid pattern"),
            Invalid::Policy(_) => (BAD, "invalid_policy", "Invalid policy"),
        },
        E::Entry { error, .. } => cache_error(error),
        E::ReservedKey => (BAD, "reserved_key", "Reserved key"),
        E::ValueTooLarge { .. } => (BAD, "value_too_large", "Value too large"),
        E::TooManyKeys { .. } => (BAD, "too_many_keys", "Too many keys"),
        E::InvalidCursor => (BAD, "invalid_cursor", "Invalid cursor"),
        E::UnknownNamespace | E::TooManyNamespaces { .. } => (BAD, "invalid_namespace", "Invalid namespace"),
        E::NamespaceNotFound => (StatusCode::NOT_FOUND, "namespace_not_found", "Namespace not found"),
        E::Store(error) | E::PartlyFlushed { error, .. } => store_error(error),
        E::Database(database::Error::OutcomeUnknown(_)) => OUTCOME_UNKNOWN,
        E::Database(_) | E::PoliciesNotLoaded => {
            (StatusCode::SERVICE_UNAVAILABLE, "database_unavailable", "The database is unavailable")
        }
    }
}

fn store_error(error: &store::Error) -> Known {
    const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    match error {
        store::Error::Unavailable { .. } => (UNAVAILABLE, "shard_unavailable", "The key's shard is unavailable"),
        store::Error::Timeout { .. } => (UNAVAILABLE, "timeout", "The key's shard did not answer in time"),
        store::Error::OutcomeUnknown { .. } => OUTCOME_UNKNOWN,
        store::Error::Overloaded { .. } => OVERLOADED,
        store::Error::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "storage_full", "Cache storage full"),
        store::Error::Protocol { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
    }
}

/// The stable code of a store's error, for answers that carry one a key.
pub fn store_code(error: &store::Error) -> &'static str {
    store_error(error).1
}

/// The status that a batch has when nothing of it worked.
pub fn store_status(error: &store::Error) -> StatusCode {
    store_error(error).0
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code, error) = self.known();
        let is_server_error = status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE;
        let deleted_count = match &self {
            Self::Cache(cache::Error::PartlyFlushed { deleted, .. }) => Some(*deleted),
            _ => None,
        };
        let detail = (!is_server_error).then(|| self.to_string());
        let mut response = answer::json(status, &Answer { error, code, detail, deleted_count });
        // Not after a write that may have happened: sending that again is not to be advised.
        if status == StatusCode::SERVICE_UNAVAILABLE && code != OUTCOME_UNKNOWN.1 {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if is_server_error {
            response.extensions_mut().insert(Failure { code, reason: self.to_string() });
        }
        response
    }
}

const KEY_NOT_FOUND: Answer =
    Answer { error: "Key not found", code: "key_not_found", detail: None, deleted_count: None };

/// The answer of a read that found nothing.
pub fn key_not_found() -> Response {
    answer::json(StatusCode::NOT_FOUND, &KEY_NOT_FOUND)
}

/// The body of that answer.
pub fn key_not_found_body() -> Vec<u8> {
    answer::body(&KEY_NOT_FOUND)
}

pub async fn no_such_route() -> Error {
    Error::NoSuchRoute
}

pub async fn method_not_allowed() -> Error {
    Error::MethodNotAllowed
}

/// The answer on a connection that is one too many, as it stands on the wire.
pub fn too_many_connections(request_id: &str) -> Vec<u8> {
    let answer =
        Answer { error: "Too many connections are open", code: OVERLOADED.1, detail: None, deleted_count: None };
    let body = serde_json::to_string(&answer).expect("answers are structs with text");
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         retry-after: 1\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A panic ends its own request with a 500 and no other.
pub fn panicked(panic: &(dyn Any + Send), metrics: &Metrics) -> Response {
    note_panic(panic, metrics);
    Error::Panic.into_response()
}

/// Logs and counts a panic.
pub fn note_panic(panic: &(dyn Any + Send), metrics: &Metrics) {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("of an unknown kind"), "a request panicked");
    metrics.panics.increment(1);
}
