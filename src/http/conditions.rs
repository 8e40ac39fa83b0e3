//! Refuses changes with a condition such as `If-Match`, because conditional changes are not supported yet. If the
//! header were ignored, the client would overwrite a version that it has not seen.

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use axum::middleware::Next;
use axum::response::Response;

use super::error::Error;

/// Middleware around the API calls.
///
/// # Errors
/// [`Error::UnsupportedCondition`].
pub async fn refuse(request: Request, next: Next) -> Result<Response, Error> {
    match condition(request.headers()) {
        Some(header) if !request.method().is_safe() => Err(Error::UnsupportedCondition { header }),
        _ => Ok(next.run(request).await),
    }
}

/// The name of the first header that makes a change conditional.
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
