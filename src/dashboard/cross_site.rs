//! Requests that another site made a browser send: refused before anything changes.
//!
//! A browser says itself where a request comes from (`Sec-Fetch-Site`); one that does not is told by the
//! `Origin` that it sends with every POST. On top of it each form carries what the browser also has in a
//! cookie, which another site cannot read: this needs no memory here, so a form of one instance is good on all of
//! them. Cookies know no ports: who serves another port of this host can set one, which is why a cookie alone
//! decides nothing.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::clock::unix_micros;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const COOKIE_NAME: &str = "sidecache_form";

/// Hexadecimal digits of a token.
const TOKEN_LEN: usize = 32;

/// What a form and a cookie have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The browser's own token, or a new one for it to keep.
    pub fn of(headers: &HeaderMap) -> Self {
        cookies(headers).next().unwrap_or_else(|| {
            // The hasher's keys come from the system's random numbers.
            let half = || RandomState::new().hash_one(unix_micros());
            Self(format!("{:016x}{:016x}", half(), half()))
        })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The header that gives it to the browser.
    pub fn set_cookie(&self) -> String {
        format!("{COOKIE_NAME}={}; Path=/dashboard; HttpOnly; SameSite=Strict", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let is_token = text.len() == TOKEN_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_token.then(|| Self(text.to_owned()))
    }
}

/// The tokens among the cookies. There may be several of the name, by other paths; what is none of ours must not
/// hide one that is.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = Token> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE_NAME).filter_map(|(_, value)| Token::parse(value))
}

/// Whether a page of this service made the browser send the request, or no page did.
pub fn is_same_site(headers: &HeaderMap, uri: &Uri) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    // The host is in the request line where that holds a whole URI.
    let host = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes));
    let scheme_end = origin.as_bytes().windows(3).position(|part| part == b"://");
    match (scheme_end, host) {
        (Some(end), Some(host)) => origin.as_bytes()[end + 3..].eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// Whether a form was one that this browser was given.
pub fn is_own_form(headers: &HeaderMap, token: &str) -> bool {
    // All of it is looked at, so that the time taken tells nothing.
    let is_same = |Token(expected): Token| {
        expected.len() == token.len()
            && expected.bytes().zip(token.bytes()).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    };
    cookies(headers).any(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn accepts(pairs: &[(&'static str, &str)]) -> bool {
        is_same_site(&headers(pairs), &Uri::from_static("/dashboard"))
    }

    #[test]
    fn what_the_browser_says_of_the_site_decides() {
        for (site, expected) in
            [("same-origin", true), ("none", true), ("cross-site", false), ("same-site", false), ("", false)]
        {
            assert_eq!(accepts(&[("sec-fetch-site", site), ("host", "a:1")]), expected, "{site}");
        }
        let lies = [("sec-fetch-site", "cross-site"), ("origin", "http://a:1"), ("host", "a:1")];
        assert!(!accepts(&lies), "an origin mends nothing");
    }

    #[test]
    fn without_it_the_origin_is_that_of_the_host() {
        for (origin, host, expected) in [
            ("http://a:1", "a:1", true),
            ("https://Cache.example", "cache.example", true),
            ("http://a:2", "a:1", false),
            ("http://a", "a:1", false),
            ("http://evil.example", "a:1", false),
            ("null", "a:1", false),
        ] {
            assert_eq!(accepts(&[("origin", origin), ("host", host)]), expected, "{origin} at {host}");
        }
        assert!(!accepts(&[("origin", "http://a:1")]), "a host that is not known is nobody's");
        assert!(accepts(&[("host", "a:1")]), "a program of its own has no origin");
    }

    #[test]
    fn a_form_goes_with_the_cookie_of_its_browser() {
        let token = Token::of(&headers(&[]));
        assert_ne!(token, Token::of(&headers(&[])));
        let cookies = format!("theme=dark; {COOKIE_NAME}={}", token.as_str());
        let browser = headers(&[("cookie", &cookies)]);
        assert_eq!(Token::of(&browser), token);
        assert!(is_own_form(&browser, token.as_str()));
        let hidden =
            headers(&[("cookie", &format!("{COOKIE_NAME}=x; {COOKIE_NAME}={}; {cookies}", "0".repeat(TOKEN_LEN)))]);
        assert!(is_own_form(&hidden, token.as_str()), "what another path set does not block forms");
        for wrong in ["", "0", &"0".repeat(TOKEN_LEN), &format!("{}0", token.as_str())] {
            assert!(!is_own_form(&browser, wrong), "{wrong:?}");
        }
        assert!(!is_own_form(&headers(&[]), token.as_str()));
        assert!(!is_own_form(&headers(&[("cookie", "sidecache_form=")]), ""));
    }

    #[test]
    fn the_cookie_is_not_for_scripts_nor_for_other_sites() {
        let cookie = Token::of(&headers(&[])).set_cookie();
        for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/dashboard"] {
            assert!(cookie.contains(part), "{cookie}");
        }
    }
}
