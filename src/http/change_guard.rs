//! Refuses changes that may not be what their client wants: those that a page of another site made the browser send,
//! and those with a precondition such as `If-Match` on a call that does not check it.
//!
//! Any page can make a browser send a `POST` of plain text to any address, and no call checks `Content-Type`. But the
//! browser tells the service which site the page is from. On connections that it trusts (loopback addresses and TLS)
//! it sends `Sec-Fetch-Site`, which no page can set (<https://www.w3.org/TR/fetch-metadata/>). On other connections
//! it sends `Origin` with every POST. Programs send neither header. The forms of the dashboard have an additional
//! check.

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::Response;

use super::conditions::ENTRY_PATHS;
use super::error::Error;
use super::hosts::Hosts;
use super::state::SharedApp;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether this value of `Sec-Fetch-Site` means a page of this service, or no page at all. `same-site` is not
/// accepted: it also means a service on another port of the same host.
pub fn is_own(site: &[u8]) -> bool {
    matches!(site, b"same-origin" | b"none")
}

/// Middleware around the API calls.
///
/// # Errors
/// [`Error::CrossSite`], [`Error::UnsupportedCondition`].
pub async fn refuse(State(app): State<SharedApp>, request: Request, next: Next) -> Result<Response, Error> {
    if !request.method().is_safe() {
        if !is_same_site(request.headers(), request.uri(), &app.hosts) {
            return Err(Error::CrossSite);
        }
        if let Some(header) = unsupported_condition(&request) {
            return Err(Error::UnsupportedCondition { header });
        }
    }
    Ok(next.run(request).await)
}

/// False if a page of another site made the browser send the request.
pub fn is_same_site(headers: &HeaderMap, uri: &Uri, hosts: &Hosts) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes).peekable();
    if sites.peek().is_some() {
        return sites.all(is_own);
    }
    headers.get_all(ORIGIN).iter().all(|origin| hosts.is_own_origin(origin.as_bytes(), headers, uri))
}

/// The name of the first header that makes a change conditional and that the call does not check. If the header were
/// ignored, the client would overwrite a state that it has not seen. `If-Unmodified-Since` is never supported: many
/// writes can happen within a second.
fn unsupported_condition(request: &Request) -> Option<&'static str> {
    let path = request.extensions().get::<MatchedPath>().and_then(|path| path.as_str().strip_prefix(ENTRY_PATHS));
    // Also the entries with the key `mget`, `mset` or `mdelete`.
    let is_checked = path.is_some_and(|rest| !rest.contains('/')) && request.method() != Method::POST;
    let headers = request.headers();
    if !is_checked && headers.contains_key(IF_MATCH) {
        Some("If-Match")
    } else if !is_checked && headers.contains_key(IF_NONE_MATCH) {
        Some("If-None-Match")
    } else if headers.contains_key(IF_UNMODIFIED_SINCE) {
        Some("If-Unmodified-Since")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::hosts::hosts_of_listener;

    fn accepts(pairs: &[(&'static str, &str)]) -> bool {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let hosts = hosts_of_listener("0.0.0.0".parse().unwrap());
        is_same_site(&pairs.collect(), &Uri::from_static("/dashboard"), &hosts)
    }

    #[test]
    fn sec_fetch_site_decides_if_it_is_present() {
        for (sites, expected) in [
            (&["same-origin"][..], true),
            (&["none"], true),
            (&["cross-site"], false),
            (&["same-site"], false),
            (&["Same-Origin"], false),
            (&[""], false),
            (&["none", "cross-site"], false),
        ] {
            let mut pairs: Vec<_> = sites.iter().map(|site| ("sec-fetch-site", *site)).collect();
            pairs.push(("host", "a:1"));
            assert_eq!(accepts(&pairs), expected, "{sites:?}");
        }
        let lies = [("sec-fetch-site", "cross-site"), ("origin", "http://a:1"), ("host", "a:1")];
        assert!(!accepts(&lies), "a good Origin does not help");
    }

    #[test]
    fn without_sec_fetch_site_the_origin_must_match_the_host() {
        assert!(accepts(&[("origin", "http://a:1"), ("host", "a:1")]));
        assert!(!accepts(&[("origin", "http://evil.example"), ("host", "a:1")]));
        assert!(!accepts(&[("origin", "http://a:1"), ("origin", "http://evil.example"), ("host", "a:1")]));
        assert!(!accepts(&[("origin", "http://a:1")]), "there is no host to compare with");
        assert!(accepts(&[("host", "a:1")]), "programs send no Origin");
    }
}
