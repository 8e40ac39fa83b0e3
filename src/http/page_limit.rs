//! The query parameter `limit`: how many rows a page of a listing has.

use super::error::Error;

/// Rows per page if the request has no `limit`.
pub const DEFAULT_LIMIT: usize = 100;

/// The most rows per page.
pub const MAX_LIMIT: usize = 1000;

/// The description of a page.
pub const PAGE: &str = "A page. Pass `cursor` to get the next page; it is null on the last page.";

/// Parses `?limit=`.
///
/// # Errors
/// Not a number, or out of range.
pub fn limit(text: Option<&str>) -> Result<usize, Error> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    let wrong = || Error::InvalidQuery(format!("`limit` must be a whole number from 1 to {MAX_LIMIT}, not {text:?}"));
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(wrong)
}
