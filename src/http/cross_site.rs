//! Requests that a page of another site made a browser send: refused where they may change something.
//!
//! A browser asks nobody before it sends a `POST` of plain text to wherever a page says, and no call looks at
//! `Content-Type`. But it tells where the page is from. Wherever it trusts the connection (on loopback addresses, and
//! with TLS) it says so in a header that no page can set (<https://www.w3.org/TR/fetch-metadata/>); elsewhere the
//! `Origin` says it, which every POST has. Programs send neither. The forms of the dashboard have a check of their
//! own on top.

use axum::extract::{Request, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::Response;

use super::SharedApp;
use super::error::Error;
use super::hosts::Hosts;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the names of headers begin with by which browsers describe a request.
const SITE_HEADERS: &str = "sec-fetch-";

/// Whether only browsers send a header of this name, in any case.
pub fn is_site_header(name: &str) -> bool {
    name.get(..SITE_HEADERS.len()).is_some_and(|start| start.eq_ignore_ascii_case(SITE_HEADERS))
}

/// Whether this value of `Sec-Fetch-Site` tells of a page of this service, or of no page. Another port of the same
/// host is `same-site`, and strange.
pub fn is_own(site: &[u8]) -> bool {
    matches!(site, b"same-origin" | b"none")
}

/// Stands around the calls.
///
/// # Errors
/// [`Error::CrossSite`].
pub async fn refuse(State(app): State<SharedApp>, request: Request, next: Next) -> Result<Response, Error> {
    if !request.method().is_safe() && !is_same_site(request.headers(), request.uri(), &app.hosts) {
        return Err(Error::CrossSite);
    }
    Ok(next.run(request).await)
}

/// Whether a page of this service made the browser send the request, or no page did.
pub fn is_same_site(headers: &HeaderMap, uri: &Uri, hosts: &Hosts) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes).peekable();
    if sites.peek().is_some() {
        return sites.all(is_own);
    }
    headers.get_all(ORIGIN).iter().all(|origin| hosts.is_own_origin(origin.as_bytes(), headers, uri))
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
    fn what_the_browser_says_of_the_site_decides() {
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
        assert!(!accepts(&lies), "an origin mends nothing");
    }

    #[test]
    fn without_it_the_origin_is_that_of_the_host() {
        assert!(accepts(&[("origin", "http://a:1"), ("host", "a:1")]));
        assert!(!accepts(&[("origin", "http://evil.example"), ("host", "a:1")]));
        assert!(!accepts(&[("origin", "http://a:1"), ("origin", "http://evil.example"), ("host", "a:1")]));
        assert!(!accepts(&[("origin", "http://a:1")]), "a host that is not known is nobody's");
        assert!(accepts(&[("host", "a:1")]), "a program of its own has no origin");
    }

    #[test]
    fn headers_of_browsers_are_told_by_their_names() {
        for name in ["sec-fetch-site", "Sec-Fetch-Mode", "sec-fetch-storage-access"] {
            assert!(is_site_header(name), "{name}");
        }
        assert!(!is_site_header("sec-fetch") && !is_site_header("sec-ch-ua") && !is_site_header("host"));
    }
}
