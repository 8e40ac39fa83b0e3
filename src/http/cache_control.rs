//! The request header `Cache-Control` (RFC 9111, 5.2.1).

use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue};

use crate::model::ReadTerms;

/// The terms that the header of a read sets.
pub fn terms(headers: &HeaderMap) -> ReadTerms {
    let asks = |value: &HeaderValue| {
        let directives = value.to_str().unwrap_or_default().split(',').map(str::trim);
        directives.into_iter().any(|directive| directive.eq_ignore_ascii_case("no-cache"))
    };
    ReadTerms { no_cache: headers.get_all(CACHE_CONTROL).iter().any(asks) }
}
