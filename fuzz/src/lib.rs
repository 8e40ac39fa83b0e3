//! What must hold for any bytes from outside: one file a target, each with a `check` that panics where
//! it does not. The fuzz targets feed it with what libFuzzer makes up, and `tests/corpus.rs` of the
//! main crate, which includes this file, with the corpus kept beside it.

pub mod glob;
pub mod invalidation;
pub mod path;
pub mod request;
pub mod ring;
pub mod settings;

use std::fmt::Write as _;

/// A function that panics when a property does not hold for these bytes.
pub type Check = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Check); 6] = [
    ("glob", glob::check),
    ("invalidation", invalidation::check),
    ("path", path::check),
    ("request", request::check),
    ("ring", ring::check),
    ("settings", settings::check),
];

/// `text` with each byte percent-encoded that `is_plain` does not pass.
fn percent_encoded(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes everything");
        }
    }
    encoded
}

/// The unreserved characters of RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
