//! Forms that change something: that they come from a page of this browser, and that the user has confirmed the
//! change recently.
//!
//! Each form contains a token, which the browser also has in a cookie; another site cannot read either. The server
//! stores nothing, so a form of one instance is valid on all instances. The token is a second check, after
//! `http::is_same_site`. It is not enough alone: a cookie is valid for all ports of a host, so a server on another
//! port of this host can set it.
//!
//! A form that deletes something also contains the time at which it was rendered. If a browser restores a tab days
//! later, the form must not delete entries that were written in the meantime.
//!
//! The response to such a form redirects to a page that only shows the result, so reloading it deletes nothing. The
//! address of that page contains only the random name of the result. If it contained the result itself, anybody could
//! invent a link to a page that reports a deletion that never happened.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use axum::extract::Form;
use axum::extract::rejection::FormRejection;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use maud::{Markup, html};
use parking_lot::Mutex;

use super::problem::Problem;
use crate::clock::{unix_micros, unix_millis};
use crate::http::{self, Error};
use crate::model::{Namespace, Selection};

const COOKIE_NAME: &str = "sidecache_form";

/// Hexadecimal digits of a token.
const TOKEN_LEN: usize = 32;

/// How long a form is valid.
const GOOD_FOR_MS: u64 = 10 * 60 * 1000;

/// By how much the clocks of two instances may differ.
const SKEW_MS: u64 = 60 * 1000;

/// How many of the latest results are kept.
const MAX_RESULTS: usize = 512;

/// The body of a request that sends a form.
pub type PostedForm<F> = Result<Form<F>, FormRejection>;

/// The token in the browser's cookie, or a new one.
pub fn token(headers: &HeaderMap) -> String {
    tokens(headers).next().map_or_else(random_token, str::to_owned)
}

/// A text that nobody can guess.
fn random_token() -> String {
    // The hasher's keys come from the system's random numbers.
    let half = || RandomState::new().hash_one(unix_micros());
    format!("{:016x}{:016x}", half(), half())
}

/// Adds the cookie that the forms of a page need to its response.
pub fn with_cookie(mut response: Response, token: &str) -> Response {
    response.headers_mut().insert(SET_COOKIE, cookie(token));
    response
}

fn cookie(token: &str) -> HeaderValue {
    let cookie = format!("{COOKIE_NAME}={token}; Path=/dashboard; HttpOnly; SameSite=Strict");
    HeaderValue::try_from(cookie).expect("a token is hexadecimal")
}

/// The tokens among the cookies. There may be several cookies with this name, set for different paths. A cookie with
/// an invalid token must not hide one with a valid token.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let is_token = |text: &str| text.len() == TOKEN_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    pairs.filter(move |(name, value)| *name == COOKIE_NAME && is_token(value)).map(|(_, value)| value)
}

/// The fields of a form that was made for this browser. `token_of` takes the token from the fields.
///
/// # Errors
/// The body is no such form, or its token is not the one in the cookie.
pub fn accept<F>(form: PostedForm<F>, headers: &HeaderMap, token_of: fn(&F) -> &str) -> Result<F, Problem> {
    let Form(form) = form.map_err(|rejection| Error::InvalidBody(rejection.body_text()))?;
    if is_own(headers, token_of(&form)) { Ok(form) } else { Err(Problem::StrangeForm) }
}

/// The selection of a form. An empty field was not filled in, so it counts as absent.
///
/// # Errors
/// The pattern or the tag is invalid, or both are given.
pub fn selection(pattern: &str, tag: &str) -> Result<Selection, Error> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    http::selection(given(pattern), given(tag))
}

/// Whether a form with this token was made for this browser.
fn is_own(headers: &HeaderMap, token: &str) -> bool {
    // Compares all bytes, so that the duration does not show how many of them match.
    let is_same = |expected: &str| {
        expected.len() == token.len()
            && expected.bytes().zip(token.bytes()).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    };
    tokens(headers).any(is_same)
}

/// The form with which the user confirms a change. `fields` are its hidden fields, in addition to its token and time.
pub fn confirmation(token: &str, action: &str, fields: &[(&str, &str)], button: &str, cancel: &str) -> Markup {
    html! {
        form.actions #confirm method="post" action=(action) {
            input type="hidden" name="token" value=(token);
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            input type="hidden" name="issued" value=(unix_millis().0);
            button.danger type="submit" { (button) }
            a.button href=(cancel) { "Cancel" }
        }
    }
}

/// Checks the time of a form that confirms a change. Any instance can check it.
///
/// # Errors
/// The form has no valid time, its time is too long ago, or it is in the future.
pub fn check_age(issued: Option<&str>) -> Result<(), Problem> {
    let wrong = || Error::InvalidBody("`issued` must be the time of the form, in milliseconds".to_owned());
    let issued: u64 = issued.and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    let now = unix_millis().0;
    let is_good = now.saturating_sub(issued) <= GOOD_FOR_MS && issued.saturating_sub(now) <= SKEW_MS;
    if is_good { Ok(()) } else { Err(Problem::OldForm) }
}

/// The result of a flush or of the deletion of a key.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub namespace: Namespace,
    /// The title of the page that shows it.
    pub title: String,
    /// The content of that page.
    pub main: Markup,
}

/// Results by name, the latest last.
#[derive(Default)]
pub struct Results(Mutex<VecDeque<(String, Outcome)>>);

impl Results {
    /// Keeps a result and returns its name for [`Results::find`].
    pub fn keep(&self, outcome: Outcome) -> String {
        let name = random_token();
        let mut kept = self.0.lock();
        if kept.len() == MAX_RESULTS {
            kept.pop_front();
        }
        kept.push_back((name.clone(), outcome));
        name
    }

    /// The result of that name. `None` if this instance has no such result in the namespace, or no longer keeps it.
    pub fn find(&self, name: &str, namespace: &Namespace) -> Option<Outcome> {
        let kept = self.0.lock();
        let (_, outcome) = kept.iter().rev().find(|(known, _)| known == name)?;
        (outcome.namespace == *namespace).then(|| outcome.clone())
    }
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
        let new = token(&headers(&[]));
        assert_ne!(new, token(&headers(&[])));
        let cookies = format!("theme=dark; {COOKIE_NAME}={new}");
        let browser = headers(&[("cookie", &cookies)]);
        assert_eq!(token(&browser), new);
        assert!(is_own(&browser, &new));
        let hidden =
            headers(&[("cookie", &format!("{COOKIE_NAME}=x; {COOKIE_NAME}={}; {cookies}", "0".repeat(TOKEN_LEN)))]);
        assert!(is_own(&hidden, &new), "a cookie of another path does not block forms");
        for wrong in ["", "0", &"0".repeat(TOKEN_LEN), &format!("{new}0")] {
            assert!(!is_own(&browser, wrong), "{wrong:?}");
        }
        assert!(!is_own(&headers(&[]), &new));
        assert!(!is_own(&headers(&[("cookie", "sidecache_form=")]), ""));
    }

    #[test]
    fn scripts_and_other_sites_cannot_use_the_cookie() {
        let cookie = cookie(&random_token());
        for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/dashboard"] {
            assert!(cookie.to_str().unwrap().contains(part), "{cookie:?}");
        }
    }

    #[test]
    fn a_form_is_valid_for_some_minutes() {
        let now = unix_millis().0;
        for issued in [now, now - GOOD_FOR_MS / 2, now + SKEW_MS / 2] {
            assert!(check_age(Some(&issued.to_string())).is_ok(), "{issued}");
        }
        for issued in [0, now - GOOD_FOR_MS - 1, now + 2 * SKEW_MS, u64::MAX] {
            assert!(matches!(check_age(Some(&issued.to_string())), Err(Problem::OldForm)), "{issued}");
        }
        assert!(matches!(check_age(None), Err(Problem::Http(Error::InvalidBody(_)))));
        assert!(matches!(check_age(Some("yesterday")), Err(Problem::Http(Error::InvalidBody(_)))));
    }

    #[test]
    fn only_the_latest_results_are_found_by_their_names() {
        let results = Results::default();
        let [namespace, other] = ["a", "b"].map(|name| Namespace::parse(name).unwrap());
        let outcome =
            |i: usize| Outcome { namespace: namespace.clone(), title: i.to_string(), main: Markup::default() };
        let names: Vec<String> = (0..=MAX_RESULTS).map(|i| results.keep(outcome(i))).collect();
        let found = |name: &str| results.find(name, &namespace).map(|outcome| outcome.title);
        assert_eq!(found(&names[MAX_RESULTS]), Some(MAX_RESULTS.to_string()));
        assert_eq!(found(&names[1]), Some("1".to_owned()));
        assert_eq!((found(&names[0]), found("")), (None, None));
        assert!(results.find(&names[MAX_RESULTS], &other).is_none(), "a result is not shown for another namespace");
    }
}
