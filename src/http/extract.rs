//! Extractors: the parts of a request that handlers use, parsed.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::openapi::schema;
use super::request_id::X_REQUEST_ID;
use crate::jobs;
use crate::model::{EntryKey, Invalid, Key, Namespace, Origin, Pattern, Selection, Tag};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the peer: the client, or the last proxy. The server adds it to every request as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The namespace in the path.
pub struct NamespacePath(pub Namespace);

/// The namespace and the key in the path. `mget`, `mset` and `mdelete` are valid keys for all methods except POST.
pub struct EntryPath(pub EntryKey);

/// The job id in the path.
pub struct JobPath(pub jobs::Id);

/// Query parameters. An unknown parameter is an error, because a flush with a misspelled parameter would delete too
/// much.
pub struct StrictQuery<Q>(pub Q);

/// Who sent the request, for the audit trail.
pub struct RequestOrigin(pub Origin);

/// A query that must have no parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// `?pattern=` or `?tag=`, and `?dry_run=`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FlushQuery {
    /// Only entries whose key matches. Cannot be combined with `tag`.
    #[param(schema_with = schema::pattern)]
    pattern: Option<String>,
    /// Only entries that have this tag.
    #[param(schema_with = schema::tag)]
    tag: Option<String>,
    /// `true`: only count the entries, change nothing.
    #[param(schema_with = schema::dry_run)]
    dry_run: Option<String>,
    /// `stale`: end the freshness of the entries instead of deleting them.
    #[param(schema_with = schema::mode)]
    mode: Option<String>,
}

/// Whether a flush deletes, marks, or only counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    Delete,
    /// Ends the freshness of entries.
    MarkStale,
    /// Counts, and changes nothing. `is_mark`: what would be marked, not deleted.
    DryRun {
        is_mark: bool,
    },
}

impl FlushQuery {
    /// # Errors
    /// A parameter is invalid, or both `pattern` and `tag` are given.
    pub fn parse(self) -> Result<(Selection, FlushMode), Error> {
        let is_dry_run = flag("dry_run", self.dry_run.as_deref())?;
        let is_mark = is_stale_mode(self.mode.as_deref())?;
        let mode = match (is_dry_run, is_mark) {
            (true, is_mark) => FlushMode::DryRun { is_mark },
            (false, true) => FlushMode::MarkStale,
            (false, false) => FlushMode::Delete,
        };
        Ok((selection(self.pattern, self.tag)?, mode))
    }
}

/// Parses the parameter `mode` of a deletion: `stale` marks entries instead of deleting them.
///
/// # Errors
/// [`Error::InvalidQuery`].
pub fn is_stale_mode(mode: Option<&str>) -> Result<bool, Error> {
    match mode {
        None => Ok(false),
        Some("stale") => Ok(true),
        Some(other) => Err(Error::InvalidQuery(format!("`mode` must be `stale` or absent, not {other:?}"))),
    }
}

/// Whether the query of a flush contains `dry_run=true`, percent-encoded or not.
pub fn is_dry_run(query: Option<&str>) -> bool {
    let is = |text: &str, expected: &str| percent_decode_str(text).eq(expected.bytes());
    let mut pairs = query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('='));
    pairs.any(|(name, value)| is(name, "dry_run") && is(value, "true"))
}

/// Parses a query parameter that is true or false. If it is absent, it is false.
///
/// # Errors
/// [`Error::InvalidQuery`].
pub fn flag(name: &str, text: Option<&str>) -> Result<bool, Error> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Error::InvalidQuery(format!("`{name}` must be true or false, not {other:?}"))),
    }
}

/// The selection for a pattern or a tag.
///
/// # Errors
/// The pattern or the tag is invalid, or both are given.
pub fn selection(pattern: Option<String>, tag: Option<String>) -> Result<Selection, Error> {
    match (pattern, tag) {
        (None, None) => Ok(Selection::All),
        (Some(pattern), None) => Ok(Selection::Matching(Pattern::parse(pattern)?)),
        (None, Some(tag)) => Ok(Selection::Tagged(Tag::parse(tag)?)),
        (Some(_), Some(_)) => Err(Error::InvalidQuery("`pattern` and `tag` cannot be combined".to_owned())),
    }
}

/// The index of the path segment that holds `{ns}`, or `{id}` in the path of a job. `{key}` is the next segment.
const NAMESPACE_SEGMENT: usize = 4;
const KEY_SEGMENT: usize = 5;

/// A segment of the path, percent-decoded; `None` if it is not UTF-8.
fn segment(path: &str, index: usize) -> Option<Cow<'_, str>> {
    let raw = path.split('/').nth(index).unwrap_or_default();
    percent_decode_str(raw).decode_utf8().ok()
}

/// The namespace in a segment of a path that is still percent-encoded.
///
/// # Errors
/// [`Invalid::Namespace`].
pub fn namespace_in(path: &str, index: usize) -> Result<Namespace, Invalid> {
    let decoded = segment(path, index)
        .ok_or_else(|| Invalid::Namespace("the namespace is not valid UTF-8 after percent-decoding".to_owned()))?;
    Namespace::parse(&decoded)
}

/// The key in a segment of a path that is still percent-encoded.
///
/// # Errors
/// [`Invalid::Key`].
pub fn key_in(path: &str, index: usize) -> Result<Key, Invalid> {
    let decoded = segment(path, index)
        .ok_or_else(|| Invalid::Key("the key is not valid UTF-8 after percent-decoding".to_owned()))?;
    Key::parse(decoded)
}

/// The job id in a segment of a path.
///
/// # Errors
/// [`jobs::Error::NotFound`]: no job has such an id.
pub fn job_in(path: &str, index: usize) -> Result<jobs::Id, Error> {
    segment(path, index).and_then(|text| jobs::Id::parse(&text)).ok_or(Error::Job(jobs::Error::NotFound))
}

/// The namespace and the key of a path that is still percent-encoded.
///
/// # Errors
/// [`Invalid::Namespace`], or [`Invalid::Key`] if the namespace is valid.
pub fn entry_key(path: &str) -> Result<EntryKey, Invalid> {
    Ok(EntryKey::new(&namespace_in(path, NAMESPACE_SEGMENT)?, &key_in(path, KEY_SEGMENT)?))
}

impl<S: Send + Sync> FromRequestParts<S> for NamespacePath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        Ok(Self(namespace_in(parts.uri.path(), NAMESPACE_SEGMENT)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for EntryPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        Ok(Self(entry_key(parts.uri.path())?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        job_in(parts.uri.path(), NAMESPACE_SEGMENT).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestOrigin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let Peer(client) = parts.extensions.get().expect("the server adds the peer to every request");
        // Several headers with this name are one list (RFC 9110, 5.3).
        let claims: Vec<_> = parts.headers.get_all(X_FORWARDED_FOR).iter().map(|claim| text(claim)).collect();
        let forwarded_for = (!claims.is_empty()).then(|| claims.join(", "));
        let request_id = parts.headers.get(X_REQUEST_ID).map(text).unwrap_or_default();
        Ok(Self(Origin::new(*client, forwarded_for.as_deref(), &request_id)))
    }
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

impl<S: Send + Sync, Q: DeserializeOwned> FromRequestParts<S> for StrictQuery<Q> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        query(&parts.uri).map(Self)
    }
}

/// The parameters of a URI.
///
/// # Errors
/// [`Error::InvalidQuery`], which names the parameter.
pub fn query<Q: DeserializeOwned>(uri: &Uri) -> Result<Q, Error> {
    axum::extract::Query::<Q>::try_from_uri(uri)
        .map(|axum::extract::Query(query)| query)
        .map_err(|rejection| Error::InvalidQuery(rejection.body_text()))
}

/// The selection in the query of a URI.
///
/// # Errors
/// [`Error::InvalidQuery`], or the pattern or the tag is invalid.
pub fn selection_of(uri: &Uri) -> Result<Selection, Error> {
    query::<FlushQuery>(uri)?.parse().map(|(selection, _)| selection)
}
