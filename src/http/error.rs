//! Errors as clients see them: the only place where an error becomes a status and a code.
//!
//! Use [`Error`] in handlers; `cache::Error` and `model::Invalid` convert to it. A 5xx tells the client a code and no
//! internal details. The log has the details, once, see `failure_log`.

use axum::http::header::{ETAG, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::failure_log::Failure;
use crate::cache::{self, Reply};
use crate::database;
use crate::jobs;
use crate::model::{Invalid, Unmet};
use crate::store;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Job(#[from] jobs::Error),
    /// The body is not what the call expects; the text names the field or the position.
    #[error("{0}")]
    InvalidBody(String),
    #[error("{0}")]
    InvalidQuery(String),
    #[error("the body has more than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the body is too large for one value: a value may have at most {limit} bytes")]
    ValueTooLarge { limit: usize },
    #[error("the bodies of other requests use all the memory for request bodies")]
    TooManyBodies,
    #[error("other responses use all the memory for responses")]
    TooManyAnswers,
    #[error("the body could not be read to its end")]
    BrokenBody,
    #[error("the body did not arrive in time")]
    SlowBody,
    /// `may_write`: a write may have happened nevertheless.
    #[error("the request was not answered in time")]
    DeadlineExceeded { may_write: bool },
    #[error("unknown path: /docs lists all paths; write a `/` in a key as `%2F`")]
    NoSuchRoute,
    #[error("the path does not support this method; the `Allow` header lists the methods that it supports")]
    MethodNotAllowed,
    #[error("a page of another site made the browser send this request (see `sec-fetch-site` and `origin`)")]
    CrossSite,
    #[error("{0}")]
    InvalidHost(String),
    #[error(
        "{host:?} is not a host of this service: use localhost or an IP address, or add it to the setting `hosts`"
    )]
    Misdirected { host: String },
    #[error("`{header}` is not supported on this call, and nothing was changed: send the request without it")]
    UnsupportedCondition { header: &'static str },
    #[error("a panic ended the request")]
    Panic,
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Cache(invalid.into())
    }
}

/// Defines [`Code`] from the table below. A name is a `tt`, because utoipa does not see a `literal` in an attribute.
macro_rules! codes {
    ($($code:ident: $status:ident $name:tt $text:literal;)+) => {
        /// Why a request failed, for programs. A name never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
        #[schema(as = ErrorCode)]
        pub enum Code {
            $(#[serde(rename = $name)] $code,)+
        }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$code,)+];

            /// The code's status, name and text for people.
            pub fn description(self) -> Description {
                match self {
                    $(Self::$code => (StatusCode::$status, $name, $text),)+
                }
            }
        }
    };
}

// Every code with its status, its name and its text. The OpenAPI document is generated from this table.
codes! {
    InvalidNamespace: BAD_REQUEST "invalid_namespace" "Invalid namespace";
    InvalidKey: BAD_REQUEST "invalid_key" "Invalid key";
    InvalidTtl: BAD_REQUEST "invalid_ttl" "Invalid ttl";
    InvalidTag: BAD_REQUEST "invalid_tag" "Invalid tag";
    InvalidPattern: BAD_REQUEST "invalid_pattern" "Invalid pattern";
    InvalidPolicy: BAD_REQUEST "invalid_policy" "Invalid policy";
    InvalidPrecondition: BAD_REQUEST "invalid_precondition" "Invalid precondition";
    InvalidPosition: BAD_REQUEST "invalid_position" "Invalid position";
    InvalidCursor: BAD_REQUEST "invalid_cursor" "Invalid cursor";
    InvalidBody: BAD_REQUEST "invalid_body" "Invalid body";
    InvalidQuery: BAD_REQUEST "invalid_query" "Invalid query";
    ReservedKey: BAD_REQUEST "reserved_key" "Reserved key";
    ValueTooLarge: BAD_REQUEST "value_too_large" "Value too large";
    TooManyKeys: BAD_REQUEST "too_many_keys" "Too many keys";
    InvalidHost: BAD_REQUEST "invalid_host" "Invalid Host header";
    CrossSite: FORBIDDEN "cross_site" "Refused: sent by another site";
    KeyNotFound: NOT_FOUND "key_not_found" "Key not found";
    KnownAbsent: NOT_FOUND "known_absent" "Known absent";
    NamespaceNotFound: NOT_FOUND "namespace_not_found" "Namespace not found";
    JobNotFound: NOT_FOUND "job_not_found" "Job not found";
    NoSuchRoute: NOT_FOUND "no_such_route" "No such route";
    MethodNotAllowed: METHOD_NOT_ALLOWED "method_not_allowed" "Method not allowed on this route";
    RequestTimeout: REQUEST_TIMEOUT "request_timeout" "The request did not arrive in time";
    BodyTooLarge: PAYLOAD_TOO_LARGE "body_too_large" "Body too large";
    Misdirected: MISDIRECTED_REQUEST "misdirected_request" "Not a host of this service";
    LeaseLost: PRECONDITION_FAILED "lease_lost" "The lease is lost";
    NewerVersionExists: PRECONDITION_FAILED "newer_version_exists" "A newer version exists";
    PreconditionFailed: PRECONDITION_FAILED "precondition_failed" "Precondition failed";
    ForeignType: CONFLICT "foreign_type" "Another program wrote to a Redis key of this cache";
    Internal: INTERNAL_SERVER_ERROR "internal" "Internal error";
    NotImplemented: NOT_IMPLEMENTED "not_implemented" "Not supported";
    OutcomeUnknown: SERVICE_UNAVAILABLE "outcome_unknown" "It is unknown whether the write happened";
    Overloaded: SERVICE_UNAVAILABLE "overloaded" "Too many requests are under way";
    Timeout: SERVICE_UNAVAILABLE "timeout" "Not answered in time";
    MakingRoom: SERVICE_UNAVAILABLE "making_room" "Entries are being evicted to make room; try again";
    RingMismatch: SERVICE_UNAVAILABLE "ring_mismatch" "This instance uses different shards than the other instances";
    PositionLost: SERVICE_UNAVAILABLE "position_lost" "The shard has lost changes that this position includes";
    ShardUnavailable: SERVICE_UNAVAILABLE "shard_unavailable" "The key's shard is unavailable";
    DatabaseUnavailable: SERVICE_UNAVAILABLE "database_unavailable" "The database is unavailable";
    PoliciesUnknown: SERVICE_UNAVAILABLE "policies_unknown" "The namespace's policy is not known yet";
    NotInMemory: GATEWAY_TIMEOUT "not_in_memory" "Not in memory";
    StorageFull: INSUFFICIENT_STORAGE "storage_full" "Cache storage full";
}

/// Status, name and text for people.
pub type Description = (StatusCode, &'static str, &'static str);

impl Code {
    pub fn status(self) -> StatusCode {
        self.description().0
    }

    pub fn as_str(self) -> &'static str {
        self.description().1
    }

    /// The error text for people.
    pub fn text(self) -> &'static str {
        self.description().2
    }
}

/// The JSON of an error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Answer {
    /// For people.
    error: &'static str,
    /// For programs; a code never changes.
    code: Code,
    /// What was wrong with the request; absent if the request was not the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// How many entries a flush deleted before it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    deleted_count: Option<u64>,
    /// How many entries a flush with `mode=stale` marked before it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    marked_count: Option<u64>,
}

/// Within this time the service itself tries a shard again that failed or was overloaded, see `store::redis`.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

impl Error {
    /// Status, code and text for people.
    pub fn known(&self) -> Description {
        self.code().description()
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Cache(error) => cache_code(error),
            Self::Job(jobs::Error::NotFound) => Code::JobNotFound,
            Self::Job(jobs::Error::Database(_)) => Code::DatabaseUnavailable,
            Self::InvalidBody(_) | Self::BrokenBody => Code::InvalidBody,
            Self::InvalidQuery(_) => Code::InvalidQuery,
            Self::BodyTooLarge { .. } => Code::BodyTooLarge,
            Self::TooManyBodies | Self::TooManyAnswers => Code::Overloaded,
            Self::SlowBody => Code::RequestTimeout,
            Self::DeadlineExceeded { may_write: false } => Code::Timeout,
            Self::DeadlineExceeded { may_write: true } => Code::OutcomeUnknown,
            Self::NoSuchRoute => Code::NoSuchRoute,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::CrossSite => Code::CrossSite,
            Self::InvalidHost(_) => Code::InvalidHost,
            Self::Misdirected { .. } => Code::Misdirected,
            Self::UnsupportedCondition { .. } => Code::NotImplemented,
            Self::ValueTooLarge { .. } => Code::ValueTooLarge,
            Self::Panic => Code::Internal,
        }
    }
}

/// The code of an error of the cache.
pub fn cache_code(error: &cache::Error) -> Code {
    use cache::Error as E;
    match error {
        E::Invalid(invalid) => match invalid {
            Invalid::Namespace(_) => Code::InvalidNamespace,
            Invalid::Key(_) => Code::InvalidKey,
            Invalid::Ttl(_) => Code::InvalidTtl,
            Invalid::Tag(_) => Code::InvalidTag,
            Invalid::Pattern(_) => Code::InvalidPattern,
            Invalid::Policy(_) => Code::InvalidPolicy,
            Invalid::Precondition(_) => Code::InvalidPrecondition,
            Invalid::Position(_) => Code::InvalidPosition,
        },
        E::Entry { error, .. } => cache_code(error),
        E::ReservedKey => Code::ReservedKey,
        E::ValueTooLarge { .. } => Code::ValueTooLarge,
        E::TooManyKeys { .. } => Code::TooManyKeys,
        E::NoRoom => Code::Overloaded,
        E::InvalidCursor => Code::InvalidCursor,
        E::UnknownNamespace | E::TooManyNamespaces { .. } => Code::InvalidNamespace,
        E::NamespaceNotFound => Code::NamespaceNotFound,
        E::TooManyFlushes => Code::Overloaded,
        E::Panicked => Code::Internal,
        E::Store(error) | E::PartlyFlushed { error, .. } | E::PartlyMarked { error, .. } => store_code(error),
        E::Database(database::Error::OutcomeUnknown(_)) => Code::OutcomeUnknown,
        E::Database(_) => Code::DatabaseUnavailable,
        E::PoliciesUnknown => Code::PoliciesUnknown,
    }
}

/// The status and the code of a cache operation's result, for the access log.
pub fn status_of(reply: Reply<'_>) -> (u16, Option<&'static str>) {
    let failed = |status: StatusCode, code: Code| (status.as_u16(), Some(code.as_str()));
    match reply {
        Reply::Done => (StatusCode::OK.as_u16(), None),
        Reply::Created => (StatusCode::CREATED.as_u16(), None),
        Reply::Absent => failed(Code::KeyNotFound.status(), Code::KeyNotFound),
        Reply::KnownAbsent => failed(Code::KnownAbsent.status(), Code::KnownAbsent),
        Reply::InPart(error) => failed(StatusCode::OK, store_code(error)),
        Reply::Nothing(error) => failed(store_code(error).status(), store_code(error)),
        Reply::Failed(error) => failed(cache_code(error).status(), cache_code(error)),
    }
}

/// The code of a store error. Batch answers also use it, for each key that failed.
pub fn store_code(error: &store::Error) -> Code {
    match error {
        store::Error::Unavailable { .. } => Code::ShardUnavailable,
        store::Error::Timeout { .. } => Code::Timeout,
        store::Error::OutcomeUnknown { .. } => Code::OutcomeUnknown,
        store::Error::Overloaded { .. } => Code::Overloaded,
        store::Error::Full { .. } | store::Error::QuotaUsedUp => Code::StorageFull,
        store::Error::PreconditionFailed { .. } => Code::PreconditionFailed,
        store::Error::NewerVersionExists { .. } => Code::NewerVersionExists,
        store::Error::LeaseLost => Code::LeaseLost,
        store::Error::NotInMemory => Code::NotInMemory,
        store::Error::ForeignType { .. } => Code::ForeignType,
        store::Error::PositionLost { .. } => Code::PositionLost,
        store::Error::RingMismatch => Code::RingMismatch,
        store::Error::MakingRoom { .. } => Code::MakingRoom,
        store::Error::Protocol { .. } => Code::Internal,
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let code = self.code();
        let status = code.status();
        let is_clients = matches!(code, Code::StorageFull | Code::NotImplemented | Code::NotInMemory);
        let is_server_error = status.is_server_error() && !is_clients;
        let (deleted_count, marked_count) = match &self {
            Self::Cache(cache::Error::PartlyFlushed { deleted, .. }) => (Some(*deleted), None),
            Self::Cache(cache::Error::PartlyMarked { marked, .. }) => (None, Some(*marked)),
            _ => (None, None),
        };
        let detail = (!is_server_error).then(|| self.to_string());
        let mut response = answer::json(status, &Answer { detail, deleted_count, marked_count, ..Answer::of(code) });
        // Do not suggest a retry after a write that may have happened, nor with a position that is lost for ever.
        let is_retried = !matches!(code, Code::OutcomeUnknown | Code::PositionLost);
        if status == StatusCode::SERVICE_UNAVAILABLE && is_retried {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Self::Cache(cache::Error::Store(error)) = &self
            && let Some(present) = error.present()
        {
            response.headers_mut().insert(ETAG, answer::etag(present));
        }
        if is_server_error {
            response.extensions_mut().insert(Failure { code: code.as_str(), reason: self.to_string() });
        }
        response.extensions_mut().insert(code);
        response
    }
}

impl Answer {
    fn of(code: Code) -> Self {
        Self { error: code.text(), code, detail: None, deleted_count: None, marked_count: None }
    }
}

/// The response to a read or a deletion that found nothing.
pub fn key_not_found() -> Response {
    answer::json(StatusCode::NOT_FOUND, &Answer::of(Code::KeyNotFound))
}

/// The response to a read whose terms the present entry does not meet.
pub fn terms_not_met(unmet: Unmet) -> Response {
    let detail = Some(format!("the entry does not meet `{}` of the request's `Cache-Control`", unmet.as_str()));
    answer::json(StatusCode::NOT_FOUND, &Answer { detail, ..Answer::of(Code::KeyNotFound) })
}

/// The body of [`key_not_found`].
pub fn key_not_found_body() -> Vec<u8> {
    answer::body(&Answer::of(Code::KeyNotFound))
}

/// The body of the response to a read that found an entry which says that there is no such thing.
pub fn known_absent_body() -> Vec<u8> {
    answer::body(&Answer::of(Code::KnownAbsent))
}

pub async fn no_such_route() -> Error {
    Error::NoSuchRoute
}

pub async fn method_not_allowed() -> Error {
    Error::MethodNotAllowed
}

/// The response, as bytes, on a connection beyond the limit.
pub fn too_many_connections(request_id: &str) -> Vec<u8> {
    let answer = Answer { error: "Too many connections are open", ..Answer::of(Code::Overloaded) };
    let body = serde_json::to_string(&answer).expect("answers are structs with text");
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         retry-after: 1\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
