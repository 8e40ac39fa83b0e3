//! The request header `Prefer` (RFC 7240).

use axum::http::{HeaderMap, HeaderName};

const PREFER: HeaderName = HeaderName::from_static("prefer");
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The value of the preference `name`, without quotes; empty if it has no value, `None` if it is not there. The first
/// one counts, and parameters are ignored.
pub fn preference<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    preference_in(values, name)
}

/// The same, of these values of the header.
pub fn preference_in<'v>(values: impl Iterator<Item = &'v str>, name: &str) -> Option<&'v str> {
    let preferences = values.flat_map(|value| value.split(','));
    preferences.map(|preference| preference.split(';').next().unwrap_or_default()).find_map(|preference| {
        let (found, value) = preference.split_once('=').unwrap_or((preference, ""));
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}
