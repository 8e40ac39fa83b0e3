//! The header `Cache-Position`: how far the shards had come after a change, and how far they must have come for a read.
//! `model::Positions` explains its form.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::model::{Invalid, Position, Positions};

const CACHE_POSITION: HeaderName = HeaderName::from_static("cache-position");

/// The positions that a read must not be older than. The lines of the header are one list (RFC 9110, 5.3).
///
/// # Errors
/// [`Invalid::Position`].
pub fn of(headers: &HeaderMap) -> Result<Positions, Invalid> {
    if !headers.contains_key(CACHE_POSITION) {
        return Ok(Positions::default());
    }
    let lines = headers.get_all(CACHE_POSITION).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    Positions::parse(&lines.collect::<Vec<_>>().join(","))
}

/// Adds the positions of a change to its response.
pub fn put(response: &mut Response, positions: &Positions) {
    if !positions.is_empty() {
        put_text(response, positions.to_string());
    }
}

/// Adds the position of a change on one shard to its response.
pub fn put_one(response: &mut Response, shard: &str, position: Position) {
    put_text(response, Positions::text_of(shard, position));
}

fn put_text(response: &mut Response, text: String) {
    let value = HeaderValue::try_from(text).expect("names of shards and numbers are a header value");
    response.headers_mut().insert(CACHE_POSITION, value);
}
