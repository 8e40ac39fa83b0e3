//! Conditions on changes: no call honours them yet, so a request that has one is refused. A client that sends
//! `If-Match` relies on nothing being changed otherwise, and would overwrite what it has not seen.

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use axum::middleware::Next;
use axum::response::Response;

use super::error::Error;

/// Stands around the calls.
///
/// # Errors
/// [`Error::UnsupportedCondition`].
pub async fn refuse(request: Request, next: Next) -> Result<Response, Error> {
    match condition(request.headers()) {
        Some(header) if !request.method().is_safe() => Err(Error::UnsupportedCondition { header }),
        _ => Ok(next.run(request).await),
    }
}

/// The name of a header that makes a change depend on what is stored.
fn condition(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(IF_MATCH) {
        Some("If-Match")
    } else if headers.contains_key(IF_NONE_MATCH) {
        Some("If-None-Match")
    } else if headers.contains_key(IF_UNMODIFIED_SINCE) {
        Some("If-Unmodified-Since")
    } else {
        None
    }
}
