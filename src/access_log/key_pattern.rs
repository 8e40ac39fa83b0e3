//! Turns keys into patterns, so that the access log has few patterns instead of many keys.
//!
//! `user_123` becomes `user_*`. The part that varies between keys is nearly always a number or an identifier with
//! digits.

/// The longest pattern kept, in characters.
const MAX_CHARS: usize = 128;

/// The pattern of a key. Each run of letters and digits that contains a digit becomes `*`; if the digits are only at
/// its end, the letters before them stay (`page12` becomes `page*`). A UUID becomes one `*`.
pub fn of(key: &str) -> String {
    let mut pattern = String::with_capacity(key.len());
    write(key, &mut pattern);
    pattern
}

/// Overwrites `pattern` with the pattern of a key.
fn write(key: &str, pattern: &mut String) {
    pattern.clear();
    let mut rest = key;
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = strip_uuid(rest) {
            pattern.push('*');
            rest = behind;
            continue;
        }
        if !first.is_alphanumeric() {
            pattern.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        push_word(pattern, word);
        rest = behind;
    }
    if let Some((cut, _)) = pattern.char_indices().nth(MAX_CHARS) {
        let (last, _) = pattern[..cut].char_indices().next_back().expect("there are characters before the cut");
        pattern.truncate(last);
        pattern.push('*');
    }
}

/// The pattern that all keys share; `*` if they differ.
pub fn shared<'k>(mut keys: impl Iterator<Item = &'k str>) -> String {
    let Some(first) = keys.next().map(of) else { return "*".to_owned() };
    let mut pattern = String::with_capacity(first.len());
    let mut is_first = |key| {
        write(key, &mut pattern);
        pattern == first
    };
    if keys.all(&mut is_first) { first } else { "*".to_owned() }
}

fn push_word(pattern: &mut String, word: &str) {
    match word.find(|c: char| c.is_numeric()) {
        None => pattern.push_str(word),
        Some(digits) => {
            if word[digits..].chars().all(char::is_numeric) {
                pattern.push_str(&word[..digits]);
            }
            pattern.push('*');
        }
    }
}

/// The rest of `text` after a UUID at its start (8-4-4-4-12 hexadecimal digits); `None` without one.
fn strip_uuid(text: &str) -> Option<&str> {
    const LEN: usize = 36;
    let candidate = text.get(..LEN)?;
    let is_uuid = candidate.bytes().enumerate().all(|(i, byte)| match i {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    let ends = !text[LEN..].starts_with(char::is_alphanumeric);
    (is_uuid && ends).then(|| &text[LEN..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_varies_becomes_a_star() {
        for (key, pattern) in [
            ("user_123", "user_*"),
            ("user", "user"),
            ("a:42:b", "a:*:b"),
            ("page12", "page*"),
            ("v2/items/7f3a", "v*/items/*"),
            ("550e8400-e29b-41d4-a716-446655440000", "*"),
            ("order-550e8400-e29b-41d4-a716-446655440000-x", "order-*-x"),
            ("größe_5", "größe_*"),
            ("12345", "*"),
            ("*", "*"),
        ] {
            assert_eq!(of(key), pattern, "{key}");
        }
    }

    #[test]
    fn a_batch_has_the_pattern_its_keys_share() {
        assert_eq!(shared(["user_1", "user_22"].into_iter()), "user_*");
        assert_eq!(shared(["user_1", "order_1"].into_iter()), "*");
        assert_eq!(shared(std::iter::empty()), "*");
        let long = "a".repeat(MAX_CHARS);
        assert_eq!(of(&long), long);
        assert_eq!(of(&(long.clone() + "b")), long[1..].to_owned() + "*");
    }

    proptest! {
        #[test]
        fn patterns_hold_no_digits_and_are_bounded(key in ".{1,300}") {
            let pattern = of(&key);
            prop_assert!(!pattern.chars().any(char::is_numeric), "{}", pattern);
            prop_assert!(pattern.chars().count() <= MAX_CHARS);
        }
    }
}
