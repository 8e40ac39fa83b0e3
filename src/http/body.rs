//! Reads a request's body whole, within a bound.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::error::Error;

/// The most that is set aside for a body on its sender's word alone, in bytes.
const TRUSTED_LEN: usize = 1 << 20;

/// How long the rest of a body that is too large is read and thrown away: a connection closed on
/// a sender that is busy sending loses the answer.
const DISCARD: Duration = Duration::from_secs(1);

/// The request with its body in memory.
///
/// # Errors
/// The body is larger than `limit`, or broke off.
pub async fn read(request: Request, limit: usize) -> Result<Request, Error> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, mut body) = request.into_parts();
    let announced = body.size_hint().exact().and_then(|len| usize::try_from(len).ok());
    let mut kept = BytesMut::new();
    let mut too_large = announced.is_some_and(|len| len > limit);
    while !too_large {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame.map_err(|_| Error::BrokenBody)?.into_data() else { continue };
        if announced == Some(data.len()) {
            // All of it in one piece, as small bodies are: nothing to copy.
            return Ok(Request::from_parts(parts, Body::from(data)));
        }
        if kept.is_empty() {
            kept.reserve(announced.unwrap_or(data.len()).min(TRUSTED_LEN));
        }
        kept.extend_from_slice(&data);
        too_large = kept.len() > limit;
    }
    if too_large {
        drop(kept);
        let discarded = async { while let Some(Ok(_)) = body.frame().await {} };
        // Whether the end was reached in time or not, the answer is the same.
        let _ = tokio::time::timeout(DISCARD, discarded).await;
        return Err(Error::BodyTooLarge { limit });
    }
    Ok(Request::from_parts(parts, Body::from(kept.freeze())))
}
