//! The response to a read of one entry: its headers and its body. The fast path and the router's handler both build
//! their responses with this file, so the responses are equal.

use std::io::Write as _;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::Serialize;

use super::error::store_code;
use super::json::seconds_date;
use crate::cache::{AnsweredBy, Cache, L1SkipReason};
use crate::clock::unix_millis;
use crate::model::{Details, Entry, EntryRef, Tag, UnixMillis};

/// The bytes before the value in the body: `{"value": ..., "metadata": {...}}`.
pub const BEFORE_VALUE: &[u8] = br#"{"value":"#;

/// Space for the body without the value.
const FRAME_BYTES: usize = 96;

/// Space for the headers of nearly all reads.
const HEADERS_BYTES: usize = 256;

/// The result of a read, as clients see it.
pub struct ReadAnswer<'a> {
    cache: &'a Cache,
    found: Option<EntryRef<'a>>,
    trail: &'a AnsweredBy,
    /// How many seconds the found entry has left: 0 if it is stale; `None` if it never expires or nothing was found.
    pub ttl: Option<u64>,
}

impl<'a> ReadAnswer<'a> {
    pub fn new(cache: &'a Cache, found: Option<EntryRef<'a>>, trail: &'a AnsweredBy) -> Self {
        let is_stale = matches!(trail, AnsweredBy::Stale { .. });
        let ttl = if is_stale { Some(0) } else { found.and_then(ttl_remaining) };
        Self { cache, found, trail, ttl }
    }

    /// Writes the lines of the headers that a read adds to its response. `Content-Type` and `Content-Length` are not
    /// among them. Most requests are hits, so this uses few and large pieces.
    pub fn put_headers(&self, out: &mut Vec<u8>) {
        let (mut ttl, mut version) = (itoa::Buffer::new(), itoa::Buffer::new());
        let ttl = self.ttl.map(|seconds| ttl.format(seconds).as_bytes());
        match self.found {
            None => out.extend_from_slice(b"cache-control: no-cache\r\nx-cache-hit: false\r\n"),
            Some(entry) => {
                out.extend_from_slice(b"cache-control: no-cache\r\nx-cache-hit: true\r\n");
                if let Some(ttl) = ttl {
                    out.extend_from_slice(b"x-cache-ttl: ");
                    out.extend_from_slice(ttl);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"etag: \"");
                out.extend_from_slice(version.format(entry.version.0).as_bytes());
                out.extend_from_slice(b"\"\r\n");
            }
        }
        // `Cache-Status` (RFC 9211) begins with the tier that is farthest from the client.
        let tier: &[u8] = match self.trail {
            AnsweredBy::L1 => b"cache-status: sidecache-l1; ",
            AnsweredBy::Embedded => b"cache-status: sidecache-embedded; ",
            AnsweredBy::Shard { .. } => b"cache-status: sidecache-shard; ",
            AnsweredBy::Stale { .. } => return self.put_stale(out),
        };
        out.extend_from_slice(tier);
        match (self.found, ttl) {
            (None, _) => out.extend_from_slice(b"fwd=uri-miss"),
            (Some(_), None) => out.extend_from_slice(b"hit"),
            (Some(_), Some(ttl)) => {
                out.extend_from_slice(b"hit; ttl=");
                out.extend_from_slice(ttl);
            }
        }
        if let AnsweredBy::Shard { shard, skipped, collapsed } = *self.trail {
            let (why, reason) = match skipped {
                L1SkipReason::Miss => ("miss", ""),
                L1SkipReason::Request => ("request", ""),
                L1SkipReason::Void => ("stale", "; detail=lost-messages"),
                L1SkipReason::Unproven => ("stale", "; detail=unproven"),
                L1SkipReason::Off => ("bypass", ""),
            };
            let collapsed = if collapsed { "; collapsed" } else { "" };
            let name = detail(self.cache.shard_name(shard));
            put_text(out, format_args!("; {name}, sidecache-l1; fwd={why}{collapsed}{reason}"));
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes `Warning` (RFC 7234, 5.5.2: obsolete, but clients still look for it) and `Cache-Status` of a stale
    /// answer.
    fn put_stale(&self, out: &mut Vec<u8>) {
        let AnsweredBy::Stale { shard, ref error, overdue } = *self.trail else { return };
        // Rounded up to at least 1: a stale copy never shows `-0`.
        let overdue = overdue.as_millis().div_ceil(1000).max(1);
        let why = detail(&format!("{}/{}", self.cache.shard_name(shard), store_code(error).as_str()));
        put_text(
            out,
            format_args!(
                "warning: 111 sidecache \"Revalidation Failed\"\r\ncache-status: sidecache-shard; fwd=miss; {why}, \
                 sidecache-l1; hit; ttl=-{overdue}; detail=stale-if-error\r\n"
            ),
        );
    }

    /// Adds the headers of [`ReadAnswer::put_headers`] to `headers`.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        let mut lines = Vec::with_capacity(HEADERS_BYTES);
        self.put_headers(&mut lines);
        for line in String::from_utf8_lossy(&lines).split_terminator("\r\n") {
            let (name, value) = line.split_once(": ").expect("`put_headers` writes header lines");
            let name = HeaderName::try_from(name).expect("`put_headers` writes valid names");
            let value = HeaderValue::try_from(value).expect("numbers and shard names are valid in headers");
            headers.insert(name, value);
        }
    }
}

/// The parameter `detail` of `Cache-Status`.
fn detail(text: &str) -> String {
    // An RFC 8941 token begins with a letter; other text is written as a string.
    let quote = if text.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "\"" };
    format!("detail={quote}{text}{quote}")
}

fn put_text(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory does not fail");
}

/// Seconds left, rounded up, so that an entry that has not expired never shows 0.
pub fn ttl_remaining(entry: EntryRef<'_>) -> Option<u64> {
    entry.expires_in.map(|left| left.as_secs().saturating_add(u64::from(left.subsec_millis() > 0)).max(1))
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

/// Writes the bytes after the value in the body.
pub fn put_after_value(body: &mut Vec<u8>, entry: EntryRef<'_>, ttl: Option<u64>, details: Option<&Details>) {
    body.extend_from_slice(br#","metadata":{"ttl_remaining":"#);
    match ttl {
        Some(seconds) => body.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes()),
        None => body.extend_from_slice(b"null"),
    }
    body.extend_from_slice(br#","created_at":""#);
    body.extend_from_slice(&seconds_date(entry.created_at.0));
    let Some(details) = details else { return body.extend_from_slice(br#""}}"#) };
    let full = FullMetadata {
        expires_at: entry
            .expires_in
            .map(|left| UnixMillis(unix_millis().0.saturating_add(left.as_millis() as u64)).to_rfc3339()),
        last_accessed: details.last_accessed.to_rfc3339(),
        access_count: details.access_count,
        size_bytes: entry.value.len(),
        version: entry.version.0,
        tags: details.tags.iter().map(Tag::as_str).collect(),
    };
    let full = serde_json::to_vec(&full).expect("text and numbers can be written as JSON");
    body.extend_from_slice(br#"","#);
    // Without the opening brace: these fields continue the same object.
    body.extend_from_slice(&full[1..]);
    body.push(b'}');
}

/// The body as one buffer.
pub fn body(entry: &Entry, ttl: Option<u64>, details: Option<&Details>) -> Bytes {
    let mut body = Vec::with_capacity(entry.value.len() + FRAME_BYTES);
    body.extend_from_slice(BEFORE_VALUE);
    body.extend_from_slice(&entry.value);
    put_after_value(&mut body, entry.borrowed(), ttl, details);
    body.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{UnixMillis, Version};

    #[test]
    fn an_entry_is_written_with_its_value_unchanged() {
        let mut stored = Entry {
            value: Bytes::from_static(b"[1e400, 0.10]"),
            version: Version(1),
            created_at: UnixMillis(1_704_067_200_999),
            expires_in: Some(Duration::from_millis(59_001)),
        };
        let left = ttl_remaining(stored.borrowed());
        let expected =
            r#"{"value":[1e400, 0.10],"metadata":{"ttl_remaining":60,"created_at":"2024-01-01T00:00:00Z"}}"#;
        assert_eq!(body(&stored, left, None), expected);
        stored.expires_in = None;
        assert_eq!(ttl_remaining(stored.borrowed()), None);
    }
}
