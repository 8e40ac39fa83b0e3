//! Keys as bytes, for protocols whose keys may be any bytes, such as Redis' protocol.
//!
//! A key is text. Bytes that are a valid key are that key. All other bytes (not UTF-8, control characters, nothing at
//! all, the reserved key), and those that begin with `%:`, become a key in *percent form*: `%:`, and then every byte
//! except letters, digits, `-`, `.`, `_` and `~` as `%` and two hexadecimal digits in upper case. Each key is the key
//! of exactly one sequence of bytes, so a text that begins with `%:` is a key only if it is the percent form of bytes
//! that need it.

use std::borrow::Cow;
use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

use super::invalid::{Invalid, check};

/// The longest key, in bytes.
pub(super) const MAX_KEY_BYTES: usize = 512;

/// The only valid key that cannot be written: its path belongs to the namespace's stats.
pub const RESERVED_KEY: &str = "stats";

const PERCENT_FORM: &str = "%:";

/// Checks that `text` is a key.
///
/// # Errors
/// [`Invalid::Key`] says what is wrong.
pub(super) fn check_key(text: &str) -> Result<(), Invalid> {
    check("key", text, MAX_KEY_BYTES).map_err(Invalid::Key)?;
    if text.starts_with(PERCENT_FORM) && !is_percent_form(text) {
        return Err(Invalid::Key(
            "a key that begins with `%:` must be the percent form of bytes that are not a key themselves".to_owned(),
        ));
    }
    Ok(())
}

/// Appends the key of these bytes to `text`.
///
/// # Errors
/// [`Invalid::Key`] if the key is too long.
pub(super) fn push_key(bytes: &[u8], text: &mut String) -> Result<(), Invalid> {
    if let Some(key) = plain(bytes) {
        text.push_str(key);
        return Ok(());
    }
    let start = text.len();
    push_percent_form(bytes, text);
    check("key", &text[start..], MAX_KEY_BYTES).map_err(Invalid::Key)
}

/// The bytes that a valid key stands for.
pub fn key_bytes(key: &str) -> Cow<'_, [u8]> {
    match key.strip_prefix(PERCENT_FORM) {
        Some(encoded) => percent_decode_str(encoded).into(),
        None => Cow::Borrowed(key.as_bytes()),
    }
}

/// The key that these bytes are without any encoding; `None` if they need the percent form.
fn plain(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_plain = text != RESERVED_KEY && !text.starts_with(PERCENT_FORM) && check_key(text).is_ok();
    is_plain.then_some(text)
}

fn is_percent_form(text: &str) -> bool {
    let bytes = key_bytes(text);
    let mut canonical = String::with_capacity(text.len());
    push_percent_form(&bytes, &mut canonical);
    canonical == text && plain(&bytes).is_none()
}

fn push_percent_form(bytes: &[u8], text: &mut String) {
    text.push_str(PERCENT_FORM);
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(*byte)),
            byte => write!(text, "%{byte:02X}").expect("a String takes everything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key_of(bytes: &[u8]) -> Result<String, Invalid> {
        let mut text = "before".to_owned();
        push_key(bytes, &mut text)?;
        Ok(text.split_off("before".len()))
    }

    #[test]
    fn bytes_that_are_no_key_get_the_percent_form() {
        for (bytes, key) in [
            (b"user:1".as_slice(), "user:1"),
            ("ü b".as_bytes(), "ü b"),
            (b"stats", "%:stats"),
            (b"", "%:"),
            (b"a\nb", "%:a%0Ab"),
            (b"\xff~_.-", "%:%FF~_.-"),
            (b"%:x", "%:%25%3Ax"),
            (b"%", "%"),
            ("\u{85}".as_bytes(), "%:%C2%85"),
        ] {
            assert_eq!(key_of(bytes).as_deref(), Ok(key));
            assert_eq!(&*key_bytes(key), bytes);
            assert!(check_key(key).is_ok(), "{key}");
        }
    }

    #[test]
    fn only_the_canonical_percent_form_is_a_key() {
        for text in ["%:a", "%:user%3A1", "%:a%0ab", "%:%", "%:%0", "%:%zz", "%:a\u{fc}", "%:%73tats", "%:%2E%00"] {
            assert!(matches!(check_key(text), Err(Invalid::Key(_))), "{text}");
        }
    }

    #[test]
    fn the_limit_counts_the_stored_form() {
        assert!(key_of(&[b'k'; 512]).is_ok() && key_of(&[0; 170]).is_ok());
        assert!(key_of(&[b'k'; 513]).is_err() && key_of(&[0; 171]).is_err());
    }

    fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
        let tricky = prop::collection::vec(prop::sample::select(b"%:25AFafstats\x00\xc3\xbc ".as_slice()), 0..12);
        prop_oneof![tricky, prop::collection::vec(any::<u8>(), 0..12)]
    }

    proptest! {
        #[test]
        fn every_key_is_a_valid_key_and_gives_its_bytes_back(bytes in some_bytes()) {
            let key = key_of(&bytes).unwrap();
            prop_assert!(check_key(&key).is_ok() && key != RESERVED_KEY);
            prop_assert_eq!(&*key_bytes(&key), &bytes[..]);
        }

        #[test]
        fn a_text_is_the_key_of_one_sequence_of_bytes(text in r"(%:)?[%:0-9A-Fa-fstü\x00]{0,8}") {
            if check_key(&text).is_ok() && text != RESERVED_KEY {
                prop_assert_eq!(key_of(&key_bytes(&text)).unwrap(), text);
            }
        }
    }
}
