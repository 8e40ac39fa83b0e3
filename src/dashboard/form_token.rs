//! A token against requests from other sites. Each form contains the token, and the browser also has it in a cookie,
//! which another site cannot read. The server stores nothing, so a form of one instance is valid on all instances.
//!
//! The token is a second check, after `http::is_same_site`. The token alone is not enough: a cookie is valid for all
//! ports of a host, so a server on another port of this host can set it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use axum::http::HeaderMap;
use axum::http::header::COOKIE;

use crate::clock::unix_micros;

const COOKIE_NAME: &str = "sidecache_form";

/// Hexadecimal digits of a token.
const TOKEN_LEN: usize = 32;

/// The token in a form and in the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in the browser's cookie, or a new one.
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

    /// The value of `set-cookie` that stores the token in the browser.
    pub fn set_cookie(&self) -> String {
        format!("{COOKIE_NAME}={}; Path=/dashboard; HttpOnly; SameSite=Strict", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let is_token = text.len() == TOKEN_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_token.then(|| Self(text.to_owned()))
    }
}

/// The tokens among the cookies. There may be several cookies with this name, set for different paths. A cookie with
/// an invalid token must not hide one with a valid token.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = Token> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE_NAME).filter_map(|(_, value)| Token::parse(value))
}

/// Whether the form was made for this browser: its token is in a cookie.
pub fn is_own_form(headers: &HeaderMap, token: &str) -> bool {
    // Compares all bytes, so that the duration does not show how many of them match.
    let is_same = |Token(expected): Token| {
        expected.len() == token.len()
            && expected.bytes().zip(token.bytes()).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    };
    cookies(headers).any(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_form_is_valid_only_with_the_cookie_of_its_browser() {
        let token = Token::of(&headers(&[]));
        assert_ne!(token, Token::of(&headers(&[])));
        let cookies = format!("theme=dark; {COOKIE_NAME}={}", token.as_str());
        let browser = headers(&[("cookie", &cookies)]);
        assert_eq!(Token::of(&browser), token);
        assert!(is_own_form(&browser, token.as_str()));
        let hidden =
            headers(&[("cookie", &format!("{COOKIE_NAME}=x; {COOKIE_NAME}={}; {cookies}", "0".repeat(TOKEN_LEN)))]);
        assert!(is_own_form(&hidden, token.as_str()), "a cookie of another path does not block forms");
        for wrong in ["", "0", &"0".repeat(TOKEN_LEN), &format!("{}0", token.as_str())] {
            assert!(!is_own_form(&browser, wrong), "{wrong:?}");
        }
        assert!(!is_own_form(&headers(&[]), token.as_str()));
        assert!(!is_own_form(&headers(&[("cookie", "sidecache_form=")]), ""));
    }

    #[test]
    fn scripts_and_other_sites_cannot_use_the_cookie() {
        let cookie = Token::of(&headers(&[])).set_cookie();
        for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/dashboard"] {
            assert!(cookie.contains(part), "{cookie}");
        }
    }
}
