//! The request header `Accept`: whether a client wants the bytes of a value alone.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

const OCTET_STREAM: &[u8] = b"application/octet-stream";

/// Whether a client names `application/octet-stream`. A wildcard asks for nothing in particular.
pub fn wants_bytes(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| names_bytes(value.as_bytes()))
}

/// Whether the value of an `Accept` header names `application/octet-stream`.
pub fn names_bytes(value: &[u8]) -> bool {
    value.windows(OCTET_STREAM.len()).any(|part| part.eq_ignore_ascii_case(OCTET_STREAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_the_type_asks_for_bytes() {
        for (value, expected) in [
            ("application/octet-stream", true),
            ("application/json;q=0.5, Application/Octet-Stream", true),
            ("*/*", false),
            ("application/*", false),
            ("", false),
        ] {
            assert_eq!(names_bytes(value.as_bytes()), expected, "{value}");
        }
    }
}
