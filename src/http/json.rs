//! JSON in and out with values as the bytes they are.
//!
//! A value is taken from the request as the exact slice of it that is the JSON value, and written
//! into answers the same; it is checked to be JSON and never read into anything else.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::Error;
use crate::clock::unix_millis;
use crate::model::{Details, Entry, Tag, Tags, Ttl, Write};

/// Parses a body that must be one JSON object.
///
/// # Errors
/// [`Error::InvalidBody`] naming the field and the place.
pub fn object<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Error> {
    // A struct could be read from an array as well, by position; that is nobody's intention.
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
                let path = error.path().to_string();
                // A path of `.` is the body itself.
                let place = if path == "." { String::new() } else { format!("`{path}`: ") };
                Error::InvalidBody(format!("{place}{}", error.into_inner()))
            })?;
            deserializer.end().map_err(|error| Error::InvalidBody(error.to_string()))?;
            Ok(parsed)
        }
        Some(_) => Err(Error::InvalidBody("expected a JSON object".to_owned())),
        None => Err(Error::InvalidBody("the body is empty; expected a JSON object".to_owned())),
    }
}

/// What a write says, in a PUT or an entry of an mset.
#[derive(Debug)]
pub struct WriteFields<'b> {
    pub value: &'b RawValue,
    pub ttl: Option<&'b RawValue>,
    pub tags: Option<Vec<String>>,
}

impl WriteFields<'_> {
    /// The write, its value a slice of `body`.
    ///
    /// # Errors
    /// The TTL or a tag is invalid.
    pub fn parse(self, body: &Bytes) -> Result<Write, Error> {
        let ttl = self.ttl.map(|ttl| Ttl::parse_json(ttl.get())).transpose()?;
        let tags = Tags::parse(self.tags.unwrap_or_default())?;
        Ok(Write { value: body.slice_ref(self.value.get().as_bytes()), ttl, tags })
    }
}

/// Seconds left, rounded up, so that a living entry never shows 0.
pub fn ttl_remaining(entry: &Entry) -> Option<u64> {
    entry.expires_in.map(|left| u64::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
}

/// The part of the metadata that only `?metadata=full` shows.
#[derive(Serialize)]
struct FullMetadata<'t> {
    expires_at: Option<String>,
    last_accessed: String,
    access_count: u64,
    size_bytes: usize,
    version: u64,
    tags: Vec<&'t str>,
}

/// The body of a GET: `{"value": ..., "metadata": {...}}`.
pub fn entry(entry: &Entry, ttl_remaining: Option<u64>, details: Option<&Details>) -> Bytes {
    const FRAME: usize = 96;
    let mut body = BytesMut::with_capacity(entry.value.len() + FRAME);
    body.put_slice(br#"{"value":"#);
    body.put_slice(&entry.value);
    body.put_slice(br#","metadata":{"ttl_remaining":"#);
    match ttl_remaining {
        Some(seconds) => body.put_slice(itoa::Buffer::new().format(seconds).as_bytes()),
        None => body.put_slice(b"null"),
    }
    body.put_slice(br#","created_at":""#);
    body.put_slice(date(entry.created_at.0).as_bytes());
    body.put_u8(b'"');
    if let Some(details) = details {
        let full = FullMetadata {
            expires_at: entry.expires_in.map(|left| date(unix_millis().0.saturating_add(left.as_millis() as u64))),
            last_accessed: date(details.last_accessed.0),
            access_count: details.access_count,
            size_bytes: entry.value.len(),
            version: entry.version.0,
            tags: details.tags.iter().map(Tag::as_str).collect(),
        };
        let full = serde_json::to_vec(&full).expect("text and numbers are written as JSON");
        body.put_u8(b',');
        // Without its opening brace: these are further fields of the same object.
        body.put_slice(&full[1..]);
    } else {
        body.put_u8(b'}');
    }
    body.put_u8(b'}');
    body.freeze()
}

/// Unix milliseconds as RFC 3339 in UTC, to the second.
pub fn date(millis: u64) -> String {
    // The formatter ends with the year 9999; a stored number may be anything.
    const LAST_SECOND: u64 = 253_402_300_799;
    let seconds = std::time::Duration::from_secs((millis / 1000).min(LAST_SECOND));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + seconds).to_string()
}

/// Text as a JSON string, quotes included.
pub fn put_string(body: &mut BytesMut, text: &str) {
    serde_json::to_writer(body.writer(), text).expect("writing text to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{UnixMillis, Version};
    use std::time::Duration;

    #[test]
    fn an_entry_is_written_with_its_value_untouched() {
        let mut stored = Entry {
            value: Bytes::from_static(b"[1e400, 0.10]"),
            version: Version(1),
            created_at: UnixMillis(1_704_067_200_999),
            expires_in: Some(Duration::from_millis(59_001)),
        };
        let left = ttl_remaining(&stored);
        let expected =
            r#"{"value":[1e400, 0.10],"metadata":{"ttl_remaining":60,"created_at":"2024-01-01T00:00:00Z"}}"#;
        assert_eq!(entry(&stored, left, None), expected);
        stored.expires_in = None;
        assert_eq!(ttl_remaining(&stored), None);
    }

    #[test]
    fn dates_far_off_do_not_panic() {
        assert_eq!(date(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
