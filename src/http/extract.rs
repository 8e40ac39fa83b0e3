//! What handlers take from a request, parsed.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use crate::model::{EntryKey, Invalid, Key, Namespace, Pattern, Selection, Tag};

/// The namespace of the path.
pub struct NamespacePath(pub Namespace);

/// Namespace and key of the path. `mget` and `mset` are keys for the verbs that take one.
pub struct EntryPath(pub EntryKey);

/// Query parameters; one that is unknown is refused, as a slip in a flush would delete too much.
pub struct StrictQuery<Q>(pub Q);

/// A query without parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// `?pattern=` or `?tag=`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionQuery {
    pattern: Option<String>,
    tag: Option<String>,
}

/// The selection that a pattern or a tag makes.
///
/// # Errors
/// One of them is invalid, or both are given.
pub fn selection(pattern: Option<String>, tag: Option<String>) -> Result<Selection, Error> {
    match (pattern, tag) {
        (None, None) => Ok(Selection::All),
        (Some(pattern), None) => Ok(Selection::Matching(Pattern::parse(pattern)?)),
        (None, Some(tag)) => Ok(Selection::Tagged(Tag::parse(tag)?)),
        (Some(_), Some(_)) => Err(Error::InvalidQuery("`pattern` and `tag` cannot be combined".to_owned())),
    }
}

impl TryFrom<SelectionQuery> for Selection {
    type Error = Error;

    fn try_from(query: SelectionQuery) -> Result<Self, Error> {
        selection(query.pattern, query.tag)
    }
}

/// The decoded parameter `name` of the path.
async fn parameter<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<Option<String>, Error> {
    let parameters = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Error::InvalidPath(format!("the path does not decode: {}", rejection.body_text())))?;
    Ok(parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned()))
}

/// The namespace of the path; one that does not decode is no namespace.
async fn namespace<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Namespace, Error> {
    Ok(Namespace::parse(&parameter(parts, state, "ns").await?.unwrap_or_default())?)
}

impl<S: Send + Sync> FromRequestParts<S> for NamespacePath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        namespace(parts, state).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for EntryPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let namespace = namespace(parts, state).await?;
        let key = match parameter(parts, state, "key").await? {
            Some(key) => key,
            // A route of its own name: its last segment stands where the key would.
            None => parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned(),
        };
        Ok(Self(EntryKey::new(&namespace, &Key::parse(key)?)))
    }
}

impl<S: Send + Sync, Q: DeserializeOwned> FromRequestParts<S> for StrictQuery<Q> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        axum::extract::Query::<Q>::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| Error::InvalidQuery(rejection.body_text()))
    }
}

/// The keys of a batch in `namespace`; an error names the place.
///
/// # Errors
/// [`Invalid::Key`].
pub fn keys(namespace: &Namespace, keys: Vec<String>) -> Result<Vec<EntryKey>, Invalid> {
    let parse = |(index, key): (usize, String)| match Key::parse(key) {
        Ok(key) => Ok(EntryKey::new(namespace, &key)),
        Err(Invalid::Key(reason)) => Err(Invalid::Key(format!("keys[{index}]: {reason}"))),
        Err(other) => Err(other),
    };
    keys.into_iter().enumerate().map(parse).collect()
}
