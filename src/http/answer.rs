//! JSON responses.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use crate::model::Version;

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
pub const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An HTTP cache in front of this service must revalidate each time, because entries can change at any moment.
pub const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// A response with this status and `body` as JSON.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    raw_json(status, self::body(body))
}

/// `body` as JSON.
pub fn body<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("response bodies are structs and maps with text keys")
}

/// A response with this status and a body that is already JSON.
pub fn raw_json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    response
}

/// A response with the bytes of a value.
pub fn bytes(value: Bytes) -> Response {
    let mut response = Response::new(value.into());
    response.headers_mut().insert(CONTENT_TYPE, OCTET_STREAM);
    response.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    response
}

/// The ETag of an entry: its version.
pub fn etag(version: Version) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", version.0)).expect("digits in quotes are a header value")
}
