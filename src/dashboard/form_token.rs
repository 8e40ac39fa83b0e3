//! What each form carries and the browser also has in a cookie, which another site cannot read: this needs no memory
//! here, so a form of one instance is good on all of them. It stands on top of what `http::is_same_site` looks at.
//! Cookies know no ports: who serves another port of this host can set one, which is why a cookie alone decides nothing.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use axum::http::HeaderMap;
use axum::http::header::COOKIE;

use crate::clock::unix_micros;

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
    use axum::http::HeaderName;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
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
