//! Where pages are: the paths to them, and what a path or a query means.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::http::Error;
use crate::model::{EntryKey, Invalid, Key, Namespace};

pub const OVERVIEW: &str = "/dashboard";

/// Everything but what RFC 3986 (2.3) leaves as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Where `{ns}` and `{key}` stand in the paths that have them, counted in `/`.
const NAMESPACE_SEGMENT: usize = 3;
const KEY_SEGMENT: usize = 5;

/// The namespace of the path.
pub struct NamespacePath(pub Namespace);

/// Namespace and key of the path.
pub struct EntryPath(pub EntryKey);

/// The query, every parameter known.
pub struct Parameters<Q>(pub Q);

pub fn namespace(name: &str) -> String {
    format!("{OVERVIEW}/namespaces/{}", escaped(name))
}

pub fn flush(name: &str) -> String {
    format!("{}/flush", namespace(name))
}

/// What became of a flush.
pub fn flushed(name: &str) -> String {
    format!("{}/flushed", namespace(name))
}

/// What became of a key that was to be deleted.
pub fn deleted(name: &str) -> String {
    format!("{}/deleted", namespace(name))
}

/// The page of a key. `.` and `..` have no path of their own: browsers take them for steps.
pub fn key(name: &str, key: &str) -> String {
    match key {
        "." | ".." => with_query(&format!("{}/key", namespace(name)), &[("key", key)]),
        _ => format!("{}/keys/{}", namespace(name), escaped(key)),
    }
}

pub fn delete(name: &str, key: &str) -> String {
    match key {
        "." | ".." => with_query(&format!("{}/key/delete", namespace(name)), &[("key", key)]),
        _ => format!("{}/keys/{}/delete", namespace(name), escaped(key)),
    }
}

/// A path with those parameters that are not empty.
pub fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<_> = given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

fn segment(path: &str, index: usize) -> Option<String> {
    let raw = path.split('/').nth(index).unwrap_or_default();
    percent_decode_str(raw).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn namespace_of(path: &str) -> Result<Namespace, Invalid> {
    let undecodable = || Invalid::Namespace("the namespace does not decode to UTF-8".to_owned());
    Namespace::parse(&segment(path, NAMESPACE_SEGMENT).ok_or_else(undecodable)?)
}

fn entry_of(path: &str) -> Result<EntryKey, Invalid> {
    let undecodable = || Invalid::Key("the key does not decode to UTF-8".to_owned());
    let key = Key::parse(segment(path, KEY_SEGMENT).ok_or_else(undecodable)?)?;
    Ok(EntryKey::new(&namespace_of(path)?, &key))
}

impl<S: Send + Sync> FromRequestParts<S> for NamespacePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self(namespace_of(parts.uri.path())?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for EntryPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self(entry_of(parts.uri.path())?))
    }
}

impl<S: Send + Sync, Q: DeserializeOwned> FromRequestParts<S> for Parameters<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<Q>::try_from_uri(&parts.uri);
        let query = query.map_err(|rejection| Error::InvalidQuery(rejection.body_text()))?;
        Ok(Self(query.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_may_hold_what_paths_are_made_of() {
        let path = key("users", "a/b?c=d#e %2F ü");
        assert_eq!(path, "/dashboard/namespaces/users/keys/a%2Fb%3Fc%3Dd%23e%20%252F%20%C3%BC");
        assert_eq!(key("users", ".."), "/dashboard/namespaces/users/key?key=..");
    }

    #[test]
    fn a_query_has_only_what_is_given() {
        assert_eq!(with_query("/x", &[("q", ""), ("sort", "")]), "/x");
        assert_eq!(with_query("/x", &[("q", "a b"), ("sort", ""), ("order", "desc")]), "/x?q=a%20b&order=desc");
    }

    #[test]
    fn what_is_wrong_in_a_path_is_named() {
        assert!(matches!(namespace_of("/dashboard/namespaces/a%20b"), Err(Invalid::Namespace(_))));
        assert!(matches!(namespace_of("/dashboard/namespaces/%ff"), Err(Invalid::Namespace(_))));
        assert!(matches!(entry_of("/dashboard/namespaces/a/keys/%ff"), Err(Invalid::Key(_))));
        assert!(matches!(entry_of("/dashboard/namespaces/a/keys/"), Err(Invalid::Key(_))));
    }

    proptest! {
        #[test]
        fn a_path_leads_back_to_its_key(name in "[A-Za-z0-9_.-]{1,20}", text in "\\PC{1,40}") {
            if !matches!(text.as_str(), "." | "..") {
                let found = entry_of(&key(&name, &text)).unwrap();
                prop_assert_eq!((found.namespace(), found.key()), (name.as_str(), text.as_str()));
            }
        }
    }
}
