//! Answers of JSON.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

pub const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A cache in front of this service asks again each time: what is stored here changes at any moment.
pub const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// An answer of `status` with the JSON of `body`.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    raw_json(status, self::body(body))
}

/// The JSON of `body`.
pub fn body<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("answers are structs and maps with text keys")
}

/// An answer of `status` with a body that is JSON already.
pub fn raw_json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    response
}
