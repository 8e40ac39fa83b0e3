//! The path of a request: which paths decode to a namespace and a key, and to which.

use sidecache::http::input::entry_key;
use sidecache::model::{EntryKey, Key};

use super::{is_unreserved, percent_encoded};

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    agrees_with_the_definition(text);
    agrees_with_the_definition(&format!("/api/v1/cache/{text}"));
    every_key_survives_its_encoding(text);
}

fn agrees_with_the_definition(path: &str) {
    let segments: Vec<&str> = path.split('/').collect();
    let decoded = |index: usize| String::from_utf8(decoded(segments.get(index).copied().unwrap_or_default())).ok();
    let expected = decoded(4).zip(decoded(5)).filter(|(namespace, key)| is_namespace(namespace) && is_key(key));
    match (entry_key(path), expected) {
        (Err(_), None) => {}
        (Ok(found), Some((namespace, key))) => {
            assert_eq!((found.namespace(), found.key()), (&*namespace, &*key), "{path:?}");
            let same = EntryKey::parse(&namespace, &key).expect("both are valid");
            assert_eq!((&found, found.ring_hash()), (&same, same.ring_hash()), "{path:?}");
        }
        (found, expected) => panic!("{path:?} is {found:?} and should be {expected:?}"),
    }
}

/// Decodes `%XX`. Every other byte stands for itself, and so does a `%` without two hexadecimal digits after it.
fn decoded(segment: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), segment.as_bytes());
    while let Some((&first, behind)) = rest.split_first() {
        let hex = |at: usize| behind.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        rest = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                &behind[2..]
            }
            _ => {
                bytes.push(first);
                behind
            }
        };
    }
    bytes
}

fn is_namespace(text: &str) -> bool {
    let is_allowed = |letter| matches!(letter, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '.' | '-');
    (1..=100).contains(&text.len()) && text.chars().all(is_allowed)
}

fn is_key(text: &str) -> bool {
    let is_control = |letter| matches!(letter, '\0'..='\x1f' | '\x7f'..='\u{9f}');
    (1..=512).contains(&text.len())
        && !text.chars().any(is_control)
        && (!text.starts_with("%:") || is_percent_form(text))
}

/// Whether a key that begins with `%:` is the percent form of bytes that are not a key themselves.
fn is_percent_form(text: &str) -> bool {
    let bytes = decoded(&text[2..]);
    let is_plain = |text: &str| text != "stats" && !text.starts_with("%:") && is_key(text);
    let encoded: String = bytes
        .iter()
        .map(|byte| if is_unreserved(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    text[2..] == encoded && !str::from_utf8(&bytes).is_ok_and(is_plain)
}

fn every_key_survives_its_encoding(text: &str) {
    let key = Key::parse(text);
    assert_eq!(key.is_ok(), is_key(text), "{text:?}");
    let capitals = percent_encoded(text, |_| false);
    for encoded in [capitals.to_lowercase(), capitals, percent_encoded(text, is_unreserved)] {
        let found = entry_key(&format!("/api/v1/cache/users/{encoded}"));
        assert_eq!(found.is_ok(), key.is_ok(), "{text:?}");
        if let Ok(found) = found {
            assert_eq!(found.key(), text);
        }
    }
}
