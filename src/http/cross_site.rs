//! Requests that a page of another site made a browser send: refused where they may change something.
//!
//! A browser asks nobody before it sends a `POST` of plain text to wherever a page says, and no call looks at
//! `Content-Type`. But it tells where the page is from, in a header that no page can set
//! (<https://www.w3.org/TR/fetch-metadata/>), wherever it trusts the connection: on loopback addresses, and with
//! TLS. Programs send no such header. The pages of this service have a stricter check of their own.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::error::Error;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether this value of `Sec-Fetch-Site` tells of a page of this service, or of none. Another port of the same
/// host is `same-site`, and strange.
pub fn is_own(site: &[u8]) -> bool {
    matches!(site, b"same-origin" | b"none")
}

/// Stands around the calls.
///
/// # Errors
/// [`Error::CrossSite`].
pub async fn refuse(request: Request, next: Next) -> Result<Response, Error> {
    if !request.method().is_safe() && is_strange(request.headers()) {
        return Err(Error::CrossSite);
    }
    Ok(next.run(request).await)
}

fn is_strange(headers: &HeaderMap) -> bool {
    !headers.get_all(SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes).all(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_calls_its_own_is_not_strange() {
        for (sites, expected) in [
            (&[][..], false),
            (&["same-origin"], false),
            (&["none"], false),
            (&["cross-site"], true),
            (&["same-site"], true),
            (&["Same-Origin"], true),
            (&[""], true),
            (&["none", "cross-site"], true),
        ] {
            let headers = sites.iter().map(|site| (SEC_FETCH_SITE, HeaderValue::from_static(site))).collect();
            assert_eq!(is_strange(&headers), expected, "{sites:?}");
        }
    }
}
