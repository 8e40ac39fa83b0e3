//! The request header `Cache-Control` (RFC 9111, 5.2), with the directives of a read.
//!
//! A list of directives is separated by commas; a directive has a name and perhaps an argument, which is a token or a
//! quoted string. Names do not depend on case. Several header lines are one list. If a directive occurs more than
//! once, the strictest argument counts. Unknown directives are ignored. A number that is too large becomes the
//! largest one. If an argument is not a number, the shard must answer: what cannot be read must not loosen anything
//! (RFC 9111, 4.2.1).

use std::borrow::Cow;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;

use crate::model::{MaxStale, ReadTerms};

/// The terms that the header of a read sets.
pub fn terms(headers: &HeaderMap) -> ReadTerms {
    let mut terms = ReadTerms::default();
    for line in headers.get_all(CACHE_CONTROL) {
        for (name, argument) in Directives(&String::from_utf8_lossy(line.as_bytes())) {
            narrow(&mut terms, name, argument.as_deref());
        }
    }
    terms
}

/// Adds one directive.
fn narrow(terms: &mut ReadTerms, name: &str, argument: Option<&str>) {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    let number = argument.and_then(number);
    let seconds = number.map(Duration::from_secs);
    if is("no-cache") {
        terms.no_cache = true;
    } else if is("only-if-cached") {
        terms.only_if_cached = true;
    } else if is("max-age") {
        terms.max_age = least(terms.max_age, seconds);
        terms.no_cache |= number.is_none();
    } else if is("min-fresh") {
        terms.min_fresh = terms.min_fresh.max(seconds);
        terms.no_cache |= number.is_none();
    } else if is("max-stale") {
        let most = if argument.is_none() { Some(MaxStale::Any) } else { seconds.map(MaxStale::AtMost) };
        terms.max_stale = least(terms.max_stale, most);
        terms.no_cache |= most.is_none();
    } else if is("max-staleness-ms") {
        terms.max_staleness = least(terms.max_staleness, number.map(Duration::from_millis));
        terms.no_cache |= number.is_none();
    }
}

/// The smaller one; `None` is larger than everything.
fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A whole number of decimal digits, at most [`u64::MAX`].
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The directives in the rest of a list: names, and arguments without quotes.
struct Directives<'t>(&'t str);

impl<'t> Iterator for Directives<'t> {
    type Item = (&'t str, Option<Cow<'t, str>>);

    fn next(&mut self) -> Option<Self::Item> {
        // Empty elements of a list are ignored (RFC 9110, 5.6.1.2).
        let text = self.0.trim_start_matches([',', ' ', '\t']);
        if text.is_empty() {
            return None;
        }
        let end = text.find([',', '=']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let (argument, rest) = match rest.strip_prefix('=') {
            None => (None, rest),
            Some(rest) => {
                let (argument, rest) = argument(rest.trim_start_matches([' ', '\t']));
                (Some(argument), rest)
            }
        };
        self.0 = rest;
        Some((name.trim_end_matches([' ', '\t']), argument))
    }
}

/// The argument at the start of `text`, and the text from the next comma on.
fn argument(text: &str) -> (Cow<'_, str>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
        return (token.trim_end_matches([' ', '\t']).into(), rest);
    };
    let (mut argument, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => {
                let behind = &quoted[at + 1..];
                return (argument.into(), &behind[behind.find(',').unwrap_or(behind.len())..]);
            }
            '\\' if !escaped => escaped = true,
            c => {
                argument.push(c);
                escaped = false;
            }
        }
    }
    // Without a closing quote, the rest of the line belongs to the argument.
    (argument.into(), "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn parsed(lines: &[&str]) -> ReadTerms {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        terms(&headers)
    }

    fn plain() -> ReadTerms {
        ReadTerms::default()
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn each_directive_sets_its_term() {
        let at_most = |seconds| Some(MaxStale::AtMost(Duration::from_secs(seconds)));
        for (line, expected) in [
            ("", plain()),
            ("no-cache", ReadTerms { no_cache: true, ..plain() }),
            ("only-if-cached", ReadTerms { only_if_cached: true, ..plain() }),
            ("max-age=60", ReadTerms { max_age: seconds(60), ..plain() }),
            ("min-fresh=5", ReadTerms { min_fresh: seconds(5), ..plain() }),
            ("max-stale", ReadTerms { max_stale: Some(MaxStale::Any), ..plain() }),
            ("max-stale=30", ReadTerms { max_stale: at_most(30), ..plain() }),
            ("max-staleness-ms=50", ReadTerms { max_staleness: Some(Duration::from_millis(50)), ..plain() }),
            ("no-store, no-transform, x=y, stale-if-error=60", plain()),
        ] {
            assert_eq!(parsed(&[line]), expected, "{line:?}");
        }
    }

    #[test]
    fn lists_are_read_as_the_standard_says() {
        let expected = ReadTerms { max_age: seconds(60), no_cache: true, ..plain() };
        for lines in [
            &["max-age=60, no-cache"][..],
            &["max-age=60,no-cache"],
            &["\tMAX-AGE=60 ,,  No-Cache , "],
            &["max-age=60", "no-cache"],
            &["max-age=\"60\", no-cache"],
            &["max-age=\"6\\0\",no-cache"],
            &["max-age = 60, no-cache=\"set-cookie, x\""],
            &["x=\"max-age=1, only-if-cached\", no-cache;y, max-age=60", "no-cache"],
        ] {
            assert_eq!(parsed(lines), expected, "{lines:?}");
        }
        assert_eq!(parsed(&["x=\"no-cache, max-age=1"]), plain(), "the quote is not closed");
        assert_eq!(parsed(&["no-caches, xno-cache, no cache"]), plain());
    }

    #[test]
    fn the_strictest_of_several_counts() {
        let terms = parsed(&["max-age=9, max-age=5, max-age=7, min-fresh=1, min-fresh=3", "min-fresh=2"]);
        assert_eq!(terms, ReadTerms { max_age: seconds(5), min_fresh: seconds(3), ..plain() });
        let terms = parsed(&["max-stale, max-stale=4, max-stale=6, max-staleness-ms=9, max-staleness-ms=8"]);
        let max_stale = Some(MaxStale::AtMost(Duration::from_secs(4)));
        assert_eq!(terms, ReadTerms { max_stale, max_staleness: Some(Duration::from_millis(8)), ..plain() });
    }

    #[test]
    fn numbers_saturate_and_what_is_no_number_asks_the_shard() {
        assert_eq!(parsed(&["max-age=99999999999999999999999"]).max_age, seconds(u64::MAX));
        let text = "max-staleness-ms=18446744073709551616";
        assert_eq!(parsed(&[text]).max_staleness, Some(Duration::from_millis(u64::MAX)));
        for line in
            ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "min-fresh=soon", "max-stale=\"\"", "max-age=1 2"]
        {
            assert_eq!(parsed(&[line]), ReadTerms { no_cache: true, ..plain() }, "{line}");
        }
        let terms = parsed(&["max-age=5, max-age=x"]);
        assert_eq!(terms, ReadTerms { max_age: seconds(5), no_cache: true, ..plain() });
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_to_their_end(line in prop::collection::vec(32u8..=255, 0..60)) {
            let line = line.into_iter().filter(|byte| *byte != 127).collect::<Vec<_>>();
            let mut headers = HeaderMap::new();
            headers.append(CACHE_CONTROL, HeaderValue::from_bytes(&line).unwrap());
            headers.append(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            prop_assert!(terms(&headers).no_cache);
        }
    }
}
