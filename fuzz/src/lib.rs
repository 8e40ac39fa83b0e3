//! Properties that must hold for any input from outside: one file for each target, each with a function `check` that
//! panics if a property is violated. The fuzz targets call it with inputs from libFuzzer. `tests/corpus.rs` of the
//! main crate includes this file and calls it with the stored corpus.

pub mod glob;
pub mod invalidation;
pub mod path;
pub mod request;
pub mod resp;
pub mod ring;
pub mod settings;

use std::fmt::Write as _;

/// A function that panics if these bytes violate a property.
pub type Check = fn(&[u8]);

/// Every target with its name, which is also the name of its corpus.
pub const TARGETS: [(&str, Check); 7] = [
    ("glob", glob::check),
    ("invalidation", invalidation::check),
    ("path", path::check),
    ("request", request::check),
    ("resp", resp::check),
    ("ring", ring::check),
    ("settings", settings::check),
];

/// Percent-encodes each byte of `text` for which `is_plain` is false.
fn percent_encoded(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    encoded
}

/// The unreserved characters of RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
