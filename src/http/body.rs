//! Reads a request's body whole, within a bound.

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::error::Error;

/// The most that is set aside for a body on its sender's word alone, in bytes.
const TRUSTED_LEN: usize = 1 << 20;

/// The request with its body in memory.
///
/// # Errors
/// The body is larger than `limit`, or broke off. One that is too large is still read for as much
/// again, as a connection closed on a sender that is busy sending loses the answer.
pub async fn read(request: Request, limit: usize) -> Result<Request, Error> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, mut body) = request.into_parts();
    let announced = body.size_hint().exact().and_then(|len| usize::try_from(len).ok());
    let mut kept = BytesMut::new();
    let mut discarded = announced.filter(|len| *len > limit).map(|_| 0usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::BrokenBody)?.into_data() else { continue };
        if kept.is_empty() && discarded.is_none() && announced == Some(data.len()) {
            return Ok(Request::from_parts(parts, Body::from(data)));
        }
        match &mut discarded {
            Some(bytes) => *bytes += data.len(),
            None if kept.len() + data.len() > limit => {
                discarded = Some(kept.len() + data.len());
                kept = BytesMut::new();
            }
            None => {
                if kept.is_empty() {
                    kept.reserve(announced.unwrap_or(data.len()).min(TRUSTED_LEN));
                }
                kept.extend_from_slice(&data);
            }
        }
        if discarded.is_some_and(|bytes| bytes > 2 * limit) {
            break;
        }
    }
    match discarded {
        Some(_) => Err(Error::BodyTooLarge { limit }),
        None => Ok(Request::from_parts(parts, Body::from(Bytes::from(kept)))),
    }
}
