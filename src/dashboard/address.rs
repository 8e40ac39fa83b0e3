//! The addresses of the pages: how they are built, and how they are parsed.
//!
//! ```text
//! /dashboard                                    the overview
//! /dashboard/namespaces/{ns}                    a namespace; its actions are below it, for instance `/flush`
//! /dashboard/namespaces/{ns}/keys/{key}         an entry; `/delete` and `/ttl` below it change it
//! /dashboard/namespaces/{ns}/key?key={key}      an entry whose key a user typed, or whose key cannot be in a path
//! /dashboard/jobs/{id}                          a job; `/cancel` below it cancels the job
//! ```

use axum::http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::http::{self, Error};
use crate::jobs::Id;
use crate::model::{EntryKey, Key, Namespace};

pub const OVERVIEW: &str = "/dashboard";

/// The page of a namespace.
pub fn namespace(name: &str) -> String {
    format!("{OVERVIEW}/namespaces/{}", escaped(name))
}

/// The page of an entry.
pub fn entry(name: &str, key: &str) -> String {
    below_entry(name, key, "")
}

/// Where the form that deletes an entry is sent.
pub fn delete_entry(name: &str, key: &str) -> String {
    below_entry(name, key, "/delete")
}

/// Where the form that changes the TTL of an entry is sent.
pub fn entry_ttl(name: &str, key: &str) -> String {
    below_entry(name, key, "/ttl")
}

fn below_entry(name: &str, key: &str, below: &str) -> String {
    let namespace = namespace(name);
    match key {
        // Even if they are escaped, browsers treat these as the current and the parent folder.
        "." | ".." => with_query(&format!("{namespace}/key{below}"), [("key", key)]),
        _ => format!("{namespace}/keys/{}{below}", escaped(key)),
    }
}

/// The page of a job.
pub fn job(id: &Id) -> String {
    format!("{OVERVIEW}/jobs/{id}")
}

/// Adds the parameters that are not empty to a path.
pub fn with_query<V: AsRef<str>>(path: &str, parameters: impl IntoIterator<Item = (&'static str, V)>) -> String {
    let given = parameters.into_iter().filter(|(_, value)| !value.as_ref().is_empty());
    let query: Vec<_> = given.map(|(name, value)| format!("{name}={}", escaped(value.as_ref()))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// Percent-encodes all characters but the unreserved ones of RFC 3986 (2.3).
fn escaped(text: &str) -> String {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The positions in a path that is split at `/`: of `{ns}` or `{id}`, and of what follows them.
const NAME: usize = 3;
const BELOW_NAME: usize = 4;
const KEY: usize = 5;

/// # Errors
/// The path has no valid namespace.
pub fn namespace_of(uri: &Uri) -> Result<Namespace, Error> {
    Ok(http::namespace_in(uri.path(), NAME)?)
}

/// # Errors
/// The address has no valid namespace, or no valid key.
pub fn entry_of(uri: &Uri) -> Result<EntryKey, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct KeyQuery {
        key: String,
    }
    let namespace = namespace_of(uri)?;
    let key = match uri.path().split('/').nth(BELOW_NAME) {
        Some("keys") => http::key_in(uri.path(), KEY)?,
        _ => Key::parse(http::query::<KeyQuery>(uri)?.key)?,
    };
    Ok(EntryKey::new(&namespace, &key))
}

/// # Errors
/// The path has no valid id, so no job has it.
pub fn job_of(uri: &Uri) -> Result<Id, Error> {
    http::job_in(uri.path(), NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Code;
    use proptest::prelude::*;

    #[test]
    fn a_key_may_contain_characters_of_paths_and_queries() {
        let path = entry("users", "a/b?c=d#e %2F ü");
        assert_eq!(path, "/dashboard/namespaces/users/keys/a%2Fb%3Fc%3Dd%23e%20%252F%20%C3%BC");
        assert_eq!(entry("users", ".."), "/dashboard/namespaces/users/key?key=..");
    }

    #[test]
    fn a_key_that_cannot_be_in_a_path_goes_into_the_query() {
        assert_eq!(delete_entry("users", "."), "/dashboard/namespaces/users/key/delete?key=.");
        assert!(namespace_of(&Uri::from_static("/dashboard/namespaces/..")).is_err());
    }

    #[test]
    fn a_query_has_only_the_parameters_that_are_not_empty() {
        assert_eq!(with_query("/x", [("q", ""), ("sort", "")]), "/x");
        assert_eq!(with_query("/x", [("q", "a b"), ("sort", ""), ("order", "desc")]), "/x?q=a%20b&order=desc");
    }

    #[test]
    fn an_error_names_the_wrong_part_of_a_path() {
        for name in ["a%20b", "%ff"] {
            let uri = format!("/dashboard/namespaces/{name}").parse().unwrap();
            assert_eq!(namespace_of(&uri).unwrap_err().code(), Code::InvalidNamespace, "{uri}");
        }
        for below in ["keys/%ff", "keys/", "key?key=", "key?key=%01"] {
            let uri = format!("/dashboard/namespaces/a/{below}").parse().unwrap();
            assert_eq!(entry_of(&uri).unwrap_err().code(), Code::InvalidKey, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn an_address_leads_back_to_its_key(name in "[A-Za-z0-9_.-]{1,20}", text in "\\PC{1,40}|\\.{1,3}") {
            if !matches!(name.as_str(), "." | "..") && Key::parse(text.as_str()).is_ok() {
                let found = entry_of(&entry(&name, &text).parse().unwrap()).unwrap();
                prop_assert_eq!((found.namespace(), found.key()), (name.as_str(), text.as_str()));
            }
        }
    }
}
