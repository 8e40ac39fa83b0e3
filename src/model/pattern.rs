//! Glob patterns for keys, with the same meaning as in Redis.
//!
//! `*` matches any bytes, `?` one byte, `[abc]` and `[a-c]` one byte of a set, `[^a]` one byte outside of a set; `\`
//! takes the next byte literally. Matching is by bytes, as in Redis (`stringmatchlen` in its util.c, described at
//! <https://redis.io/docs/latest/commands/keys/>). Every store uses this implementation, and a property test compares
//! it with Redis. One difference: the ends of a range are bytes from 0 to 255 here but `char` in Redis, so ranges
//! beyond ASCII differ if `char` is signed there.

use super::invalid::{Invalid, check};
use super::tag::Tag;

/// Selects entries of a namespace for a flush or a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    Matching(Pattern),
    Tagged(Tag),
}

impl Selection {
    /// Whether the selection includes a key. With a tag, the caller has already selected the keys by the tag.
    pub fn matches(&self, key: &str) -> bool {
        match self {
            Self::All | Self::Tagged(_) => true,
            Self::Matching(pattern) => pattern.matches(key),
        }
    }

    /// The pattern and the tag of the selection, at most one of them.
    pub fn pattern_and_tag(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::All => (None, None),
            Self::Matching(pattern) => (Some(pattern.as_str()), None),
            Self::Tagged(tag) => (None, Some(tag.as_str())),
        }
    }

    /// How many entries a bounded step may look at, at most `most`. Matching time grows with the lengths of pattern
    /// and key, so a long pattern gets smaller steps.
    pub fn step(&self, most: usize) -> usize {
        /// Patterns up to this length in bytes cost no more than the other work for an entry.
        const FREE: usize = 16;
        match self {
            Self::Matching(pattern) => (most * FREE / pattern.0.len().max(FREE)).max(4),
            Self::All | Self::Tagged(_) => most,
        }
    }
}

/// A glob pattern of 1 to [`Pattern::MAX_LEN`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The longest pattern in bytes: the longest key with every byte escaped.
    pub const MAX_LEN: usize = 1024;

    /// # Errors
    /// [`Invalid::Pattern`] if it is empty, too long or contains a control character, which no key contains.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        check("pattern", &text, Self::MAX_LEN).map_err(Invalid::Pattern)?;
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn matches(&self, key: &str) -> bool {
        glob(self.0.as_bytes(), key.as_bytes())
    }
}

/// Whether the pattern matches the text, both of any bytes.
///
/// Greedy matching that backtracks only to the last `*`: once a later `*` is reached, it no longer matters how much
/// the earlier ones matched.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to resume: after the last `*`, which then takes one more byte.
    let mut resume: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            resume = Some((p, t));
            continue;
        }
        if let Some(next) = one(pattern, p, text[t]) {
            (p, t) = (next, t + 1);
            continue;
        }
        let Some((after_star, given)) = resume else { return false };
        (p, t) = (after_star, given + 1);
        resume = Some((after_star, given + 1));
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The position after the element at `p`, if that element matches `byte`.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => set(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

/// Matches a `[...]` whose first byte after the bracket is at `p`. As in Redis, an unclosed set ends with the
/// pattern, and a range may be written backwards.
fn set(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut found = false;
    loop {
        let (low, high, len) = match pattern[p..] {
            [] => return (found != negated).then_some(p),
            [b']', ..] => return (found != negated).then_some(p + 1),
            [b'\\', escaped, ..] => (escaped, escaped, 2),
            [low, b'-', high, ..] => (low.min(high), low.max(high), 3),
            [literal, ..] => (literal, literal, 1),
        };
        found |= (low..=high).contains(&byte);
        p += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, key: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(key)
    }

    #[test]
    fn the_elements_mean_what_they_mean_in_redis() {
        for (pattern, key, expected) in [
            ("user_*", "user_1", true),
            ("user_*", "user_", true),
            ("user_*", "users", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*ab", "aab", true),
            ("[a", "a", true),
            ("a", "ab", false),
            ("ab", "a", false),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} on {key}");
        }
    }

    #[test]
    fn hostile_patterns_are_matched_in_few_steps() {
        let pattern = format!("{}b", "*a".repeat(500));
        assert!(!matches(&pattern, &"a".repeat(512)));
    }

    /// The definition of a match, written without regard to its cost.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.first() {
            None => text.is_empty(),
            Some(b'*') => (0..=text.len()).any(|taken| oracle(&pattern[1..], &text[taken..])),
            Some(_) => match text.first() {
                None => false,
                Some(&byte) => one(pattern, 0, byte).is_some_and(|next| oracle(&pattern[next..], &text[1..])),
            },
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_plain_definition(pattern in r"[ab*?\[\]^\\-]{1,8}", key in "[ab-]{0,8}") {
            prop_assert_eq!(glob(pattern.as_bytes(), key.as_bytes()), oracle(pattern.as_bytes(), key.as_bytes()));
        }
    }
}
