//! The addresses of the pages: builds their paths and queries, and parses paths.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::jobs::Id;
use crate::model::{EntryKey, Invalid, Key, Namespace};

pub const OVERVIEW: &str = "/dashboard";

/// Characters to percent-encode: all but the unreserved ones of RFC 3986 (2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The positions of `{ns}` and `{key}` in a path that is split at `/`.
const NAMESPACE_SEGMENT: usize = 3;
const KEY_SEGMENT: usize = 5;

/// Whether the key cannot be part of a path: browsers treat `.` and `..` as the current and the parent folder, even
/// if they are escaped. The address of such a key has the key in its query.
fn is_step(key: &str) -> bool {
    matches!(key, "." | "..")
}

/// The path of a namespace's page, followed by `below`.
fn within(name: &str, below: &str) -> String {
    format!("{OVERVIEW}/namespaces/{}{below}", escaped(name))
}

pub fn namespace(name: &str) -> String {
    within(name, "")
}

pub fn flush(name: &str) -> String {
    within(name, "/flush")
}

/// The page that opens a key that a user typed.
pub fn find(name: &str) -> String {
    within(name, "/key")
}

/// The page with the result of a flush.
pub fn flushed(name: &str, result: &str) -> String {
    with_query(&within(name, "/flushed"), &[("result", result)])
}

/// The page of a job.
pub fn job(id: &Id) -> String {
    format!("{OVERVIEW}/jobs/{id}")
}

pub fn cancel(id: &Id) -> String {
    format!("{OVERVIEW}/jobs/{id}/cancel")
}

/// The page with the result of a deletion.
pub fn deleted(name: &str, result: &str) -> String {
    with_query(&within(name, "/deleted"), &[("result", result)])
}

/// The page of a key.
pub fn key(name: &str, key: &str) -> String {
    entry(name, key, "")
}

pub fn delete(name: &str, key: &str) -> String {
    entry(name, key, "/delete")
}

fn entry(name: &str, key: &str, below: &str) -> String {
    if is_step(key) {
        with_query(&within(name, &format!("/key{below}")), &[("key", key)])
    } else {
        within(name, &format!("/keys/{}{below}", escaped(key)))
    }
}

/// Adds the parameters that are not empty to a path, which may have a query already.
pub fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<_> = given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let separator = if path.contains('?') { '&' } else { '?' };
    if query.is_empty() { path.to_owned() } else { format!("{path}{separator}{}", query.join("&")) }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

fn segment(path: &str, index: usize) -> Option<String> {
    let raw = path.split('/').nth(index).unwrap_or_default();
    percent_decode_str(raw).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// # Errors
/// The path has no valid namespace.
pub fn namespace_of(path: &str) -> Result<Namespace, Invalid> {
    let undecodable = || Invalid::Namespace("the namespace in the path is not valid UTF-8".to_owned());
    Namespace::parse(&segment(path, NAMESPACE_SEGMENT).ok_or_else(undecodable)?)
}

/// # Errors
/// The path has no valid namespace, or no valid key.
pub fn entry_of(path: &str) -> Result<EntryKey, Invalid> {
    let undecodable = || Invalid::Key("the key in the path is not valid UTF-8".to_owned());
    let key = Key::parse(segment(path, KEY_SEGMENT).ok_or_else(undecodable)?)?;
    Ok(EntryKey::new(&namespace_of(path)?, &key))
}

/// The job id in a path; `None` if the path has no valid id.
pub fn job_of(path: &str) -> Option<Id> {
    segment(path, NAMESPACE_SEGMENT).and_then(|text| Id::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_may_contain_characters_of_paths_and_queries() {
        let path = key("users", "a/b?c=d#e %2F ü");
        assert_eq!(path, "/dashboard/namespaces/users/keys/a%2Fb%3Fc%3Dd%23e%20%252F%20%C3%BC");
        assert_eq!(key("users", ".."), "/dashboard/namespaces/users/key?key=..");
    }

    #[test]
    fn a_key_that_cannot_be_in_a_path_goes_into_the_query() {
        assert_eq!(delete("users", "."), "/dashboard/namespaces/users/key/delete?key=.");
        assert!(namespace_of("/dashboard/namespaces/..").is_err());
    }

    #[test]
    fn a_query_has_only_the_parameters_that_are_not_empty() {
        assert_eq!(with_query("/x", &[("q", ""), ("sort", "")]), "/x");
        assert_eq!(with_query("/x", &[("q", "a b"), ("sort", ""), ("order", "desc")]), "/x?q=a%20b&order=desc");
    }

    #[test]
    fn an_error_names_the_wrong_part_of_a_path() {
        assert!(matches!(namespace_of("/dashboard/namespaces/a%20b"), Err(Invalid::Namespace(_))));
        assert!(matches!(namespace_of("/dashboard/namespaces/%ff"), Err(Invalid::Namespace(_))));
        assert!(matches!(entry_of("/dashboard/namespaces/a/keys/%ff"), Err(Invalid::Key(_))));
        assert!(matches!(entry_of("/dashboard/namespaces/a/keys/"), Err(Invalid::Key(_))));
    }

    proptest! {
        #[test]
        fn a_path_leads_back_to_its_key(name in "[A-Za-z0-9_.-]{1,20}", text in "\\PC{1,40}") {
            if !is_step(&name) && !is_step(&text) {
                let found = entry_of(&key(&name, &text)).unwrap();
                prop_assert_eq!((found.namespace(), found.key()), (name.as_str(), text.as_str()));
            }
        }
    }
}
