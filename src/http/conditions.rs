//! The preconditions of a request for an entry: `If-Match` and `If-None-Match` (RFC 9110, 13), the lease that a write
//! fills, and the source version of a change. The store checks them in the same step as the change.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName};

use super::lease;
use crate::model::{EtagList, Invalid, Preconditions, SourceVersion};

/// The first part of the paths of entries, where preconditions are supported.
pub const ENTRY_PATHS: &str = "/api/v1/cache/{ns}/";

/// The preconditions of a read; `None` if no header sets one.
///
/// # Errors
/// [`Invalid::Precondition`] names the header that is wrong.
pub fn of(headers: &HeaderMap) -> Result<Option<Box<Preconditions>>, Invalid> {
    let if_match = list(headers, &IF_MATCH, "If-Match", EtagList::parse_strong)?;
    let if_none_match = list(headers, &IF_NONE_MATCH, "If-None-Match", EtagList::parse_weak)?;
    Ok(boxed(Preconditions { if_match, if_none_match, ..Preconditions::default() }))
}

/// The preconditions of a write, some of which may be in its body; `None` if it has no preconditions.
///
/// # Errors
/// [`Invalid::Precondition`] names the header that is wrong.
pub fn of_write(
    headers: &HeaderMap,
    in_body: Option<Box<Preconditions>>,
) -> Result<Option<Box<Preconditions>>, Invalid> {
    let source_version = in_body.and_then(|in_body| in_body.source_version);
    let preconditions = of(headers)?.map_or_else(Preconditions::default, |preconditions| *preconditions);
    Ok(boxed(Preconditions { lease: lease::token(headers), source_version, ..preconditions }))
}

/// The preconditions of a deletion; `None` if it has no preconditions.
///
/// # Errors
/// [`Invalid::Precondition`] names the header that is wrong.
pub fn of_deletion(
    headers: &HeaderMap,
    source_version: Option<SourceVersion>,
) -> Result<Option<Box<Preconditions>>, Invalid> {
    let preconditions = of(headers)?.map_or_else(Preconditions::default, |preconditions| *preconditions);
    Ok(boxed(Preconditions { source_version, ..preconditions }))
}

fn boxed(preconditions: Preconditions) -> Option<Box<Preconditions>> {
    (preconditions != Preconditions::default()).then(|| Box::new(preconditions))
}

/// The lines of one header as one list (RFC 9110, 5.3).
fn list(
    headers: &HeaderMap,
    header: &HeaderName,
    name: &str,
    parse: fn(&str) -> Result<EtagList, Invalid>,
) -> Result<Option<EtagList>, Invalid> {
    if !headers.contains_key(header) {
        return Ok(None);
    }
    let lines = headers.get_all(header).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let text = lines.collect::<Vec<_>>().join(",");
    parse(&text).map(Some).map_err(|invalid| Invalid::Precondition(format!("{name}: {invalid}")))
}
