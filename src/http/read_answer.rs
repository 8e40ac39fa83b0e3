//! The response to a read of one entry: its headers and its body. The fast path and the router's handler both build
//! their responses with this file, so the responses are equal.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;

use super::error::{self, store_code};
use super::json::seconds_date;
use crate::cache::{AnsweredBy, Cache, L1SkipReason, Lookup};
use crate::clock::unix_millis;
use crate::model::{Details, Entry, EntryRef, Kind, SourceVersion, Tag, UnixMillis, Unmet};

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
    /// The term of the read that the entry does not meet, so that nothing was found.
    unmet: Option<Unmet>,
    trail: &'a AnsweredBy,
    /// How many seconds the found entry has left: 0 if it is stale; `None` if it never expires or nothing was found.
    pub ttl: Option<u64>,
}

impl<'a> ReadAnswer<'a> {
    pub fn new(cache: &'a Cache, found: Option<EntryRef<'a>>, trail: &'a AnsweredBy) -> Self {
        let is_stale = matches!(trail, AnsweredBy::Stale { .. });
        let ttl = if is_stale { Some(0) } else { found.and_then(ttl_remaining) };
        Self { cache, found, unmet: None, trail, ttl }
    }

    pub fn of(cache: &'a Cache, lookup: &'a Lookup) -> Self {
        let found = lookup.entry.as_ref().map(Entry::borrowed);
        Self { unmet: lookup.unmet, ..Self::new(cache, found, &lookup.trail) }
    }

    /// Writes the lines of the headers that a read adds to its response, the last one without its line end.
    /// `Content-Type` and `Content-Length` are not among them. Nearly all requests are hits of L1, so a hit is written
    /// in few and large pieces of constant length.
    pub fn put_headers(&self, out: &mut Vec<u8>) {
        let Some(entry) = self.found else { return self.put_miss(out) };
        if entry.is_known_absent() {
            return self.put_known_absent(out, entry);
        }
        let mut ttl = itoa::Buffer::new();
        let ttl = self.ttl.map(|seconds| ttl.format(seconds).as_bytes());
        match ttl {
            None => out.extend_from_slice(b"cache-control: no-cache\r\nx-cache-hit: true\r\netag: \""),
            Some(ttl) => {
                out.extend_from_slice(b"cache-control: no-cache\r\nx-cache-hit: true\r\nx-cache-ttl: ");
                out.extend_from_slice(ttl);
                out.extend_from_slice(b"\r\netag: \"");
            }
        }
        put_number(out, entry.version.0);
        // `Cache-Status` (RFC 9211) begins with the tier that is farthest from the client.
        match self.trail {
            AnsweredBy::L1 { .. } => out.extend_from_slice(b"\"\r\ncache-status: sidecache-l1; hit"),
            AnsweredBy::Embedded => out.extend_from_slice(b"\"\r\ncache-status: sidecache-embedded; hit"),
            AnsweredBy::Shard { .. } => out.extend_from_slice(b"\"\r\ncache-status: sidecache-shard; hit"),
            AnsweredBy::Stale { .. } => {
                out.push(b'"');
                return self.put_stale(out);
            }
        }
        self.put_rest_of_hit(out, entry, ttl);
    }

    /// Writes the headers of an entry that says that there is no such thing. It has no ETag, because it is no
    /// representation of anything.
    fn put_known_absent(&self, out: &mut Vec<u8>, entry: EntryRef<'_>) {
        let mut ttl = itoa::Buffer::new();
        let ttl = self.ttl.map(|seconds| ttl.format(seconds).as_bytes());
        out.extend_from_slice(b"cache-control: no-cache\r\nx-cache-hit: true");
        if let Some(ttl) = ttl {
            out.extend_from_slice(b"\r\nx-cache-ttl: ");
            out.extend_from_slice(ttl);
        }
        let tier = match self.trail {
            AnsweredBy::L1 { .. } => "l1",
            AnsweredBy::Embedded => "embedded",
            AnsweredBy::Shard { .. } => "shard",
            AnsweredBy::Stale { .. } => return self.put_stale(out),
        };
        put_text(out, format_args!("\r\ncache-status: sidecache-{tier}; hit"));
        self.put_rest_of_hit(out, entry, ttl);
    }

    /// Writes the part of `Cache-Status` behind the word `hit`.
    fn put_rest_of_hit(&self, out: &mut Vec<u8>, entry: EntryRef<'_>, ttl: Option<&[u8]>) {
        if let Some(overdue) = entry.overdue {
            put_text(out, format_args!("; ttl=-{}", whole_seconds(overdue)));
        } else if let Some(ttl) = ttl {
            out.extend_from_slice(b"; ttl=");
            out.extend_from_slice(ttl);
        }
        match *self.trail {
            AnsweredBy::L1 { staleness } => {
                out.extend_from_slice(b"; max-staleness-ms=");
                put_number(out, whole_millis(staleness));
            }
            AnsweredBy::Shard { .. } => self.put_skipped(out),
            AnsweredBy::Embedded | AnsweredBy::Stale { .. } => {}
        }
    }

    /// Writes the headers of a miss.
    fn put_miss(&self, out: &mut Vec<u8>) {
        let tier = if matches!(self.trail, AnsweredBy::Shard { .. }) { "shard" } else { "embedded" };
        let why = match self.unmet {
            None => "uri-miss",
            Some(Unmet::NoCache | Unmet::MaxStale) => "stale",
            Some(Unmet::MaxAge | Unmet::MinFresh | Unmet::MaxStaleness | Unmet::Position) => "request",
        };
        put_text(
            out,
            format_args!(
                "cache-control: no-cache\r\nx-cache-hit: false\r\ncache-status: sidecache-{tier}; fwd={why}"
            ),
        );
        if let (AnsweredBy::Embedded, Some(unmet)) = (self.trail, self.unmet) {
            put_text(out, format_args!("; detail={}", unmet.as_str()));
        }
        self.put_skipped(out);
    }

    /// Writes the part of `Cache-Status` that names the shard and says why L1 did not answer.
    fn put_skipped(&self, out: &mut Vec<u8>) {
        let AnsweredBy::Shard { shard, skipped, collapsed } = *self.trail else { return };
        let (why, reason) = match skipped {
            L1SkipReason::Miss => ("miss", ""),
            L1SkipReason::Terms(Unmet::NoCache) => ("request", ""),
            L1SkipReason::Terms(Unmet::MaxAge) => ("request", "; detail=max-age"),
            L1SkipReason::Terms(Unmet::MinFresh) => ("request", "; detail=min-fresh"),
            L1SkipReason::Terms(Unmet::MaxStale) => ("request", "; detail=max-stale"),
            L1SkipReason::Terms(Unmet::MaxStaleness) => ("request", "; detail=max-staleness-ms"),
            L1SkipReason::Terms(Unmet::Position) => ("request", "; detail=position"),
            L1SkipReason::Void => ("stale", "; detail=lost-messages"),
            L1SkipReason::Unproven => ("stale", "; detail=unproven"),
            L1SkipReason::Off => ("bypass", ""),
        };
        let collapsed = if collapsed { "; collapsed" } else { "" };
        let name = self.cache.shard_name(shard);
        let name = match self.unmet {
            None => detail(name),
            Some(unmet) => detail(&format!("{name}/{}", unmet.as_str())),
        };
        put_text(out, format_args!("; {name}, sidecache-l1; fwd={why}{collapsed}{reason}"));
    }

    /// Writes `Warning` (RFC 7234, 5.5.2: obsolete, but clients still look for it) and `Cache-Status` of a stale
    /// answer.
    fn put_stale(&self, out: &mut Vec<u8>) {
        let AnsweredBy::Stale { shard, ref error, overdue, staleness } = *self.trail else { return };
        let overdue = whole_seconds(overdue);
        let staleness = whole_millis(staleness);
        let why = detail(&format!("{}/{}", self.cache.shard_name(shard), store_code(error).as_str()));
        put_text(
            out,
            format_args!(
                "\r\nwarning: 111 sidecache \"Revalidation Failed\"\r\n\
                 cache-status: sidecache-shard; fwd=miss; {why}, \
                 sidecache-l1; hit; ttl=-{overdue}; max-staleness-ms={staleness}; detail=stale-if-error"
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

/// Milliseconds, rounded up.
fn whole_millis(time: Duration) -> u64 {
    // In nanoseconds, 64 bits are enough for 500 years, and cost less than the 128 bits of the library.
    let nanos = time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into());
    nanos.div_ceil(1_000_000)
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The time since the end of freshness in seconds, rounded up to at least 1: a stale copy never shows `-0`.
fn whole_seconds(overdue: Duration) -> u64 {
    whole_millis(overdue).div_ceil(1000).max(1)
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

/// Seconds left, rounded up, so that a fresh entry never shows 0.
pub fn ttl_remaining(entry: EntryRef<'_>) -> Option<u64> {
    if entry.overdue.is_some() {
        return Some(0);
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    source_version: Option<u64>,
}

const BEFORE_TTL: &[u8; 29] = br#","metadata":{"ttl_remaining":"#;
const NO_TTL: &[u8; 4] = b"null";
const AFTER_TTL: &[u8; 38] = br#","created_at":"0000-00-00T00:00:00Z"}}"#;
/// The place of the date in [`AFTER_TTL`].
const DATE_AT: usize = 15;
const DATE_LEN: usize = 20;

/// The number of bytes that [`put_after_value`] writes without details.
pub fn len_after_value(ttl: Option<u64>) -> usize {
    let digits = ttl.map_or(NO_TTL.len(), |seconds| seconds.checked_ilog10().unwrap_or(0) as usize + 1);
    BEFORE_TTL.len() + digits + AFTER_TTL.len()
}

/// Writes the bytes after the value in the body.
pub fn put_after_value(body: &mut Vec<u8>, entry: EntryRef<'_>, ttl: Option<u64>, details: Option<&Details>) {
    body.extend_from_slice(BEFORE_TTL);
    match ttl {
        Some(seconds) => put_number(body, seconds),
        None => body.extend_from_slice(NO_TTL),
    }
    let mut created = *AFTER_TTL;
    created[DATE_AT..DATE_AT + DATE_LEN].copy_from_slice(&seconds_date(entry.created_at.0));
    let Some(details) = details else { return body.extend_from_slice(&created) };
    body.extend_from_slice(&created[..DATE_AT + DATE_LEN]);
    let full = FullMetadata {
        expires_at: entry.expires_at(unix_millis()).map(UnixMillis::to_rfc3339),
        last_accessed: details.last_accessed.to_rfc3339(),
        access_count: details.access_count,
        size_bytes: entry.value.len(),
        version: entry.version.0,
        tags: details.tags.iter().map(Tag::as_str).collect(),
        source_version: details.source_version.map(SourceVersion::number),
    };
    let full = serde_json::to_vec(&full).expect("text and numbers can be written as JSON");
    body.extend_from_slice(br#"","#);
    // Without the opening brace: these fields continue the same object.
    body.extend_from_slice(&full[1..]);
    body.push(b'}');
}

/// What stands in a body after `"value":`. JSON is written as it is stored. Other bytes are a string in base64, and the
/// field `encoding` comes after them.
pub fn shown_value<'e>(entry: &EntryRef<'e>) -> Cow<'e, [u8]> {
    if entry.extra.kind != Kind::Bytes {
        return Cow::Borrowed(entry.value);
    }
    const AROUND: usize = 32;
    let mut shown = String::with_capacity(entry.value.len().div_ceil(3) * 4 + AROUND);
    shown.push('"');
    STANDARD.encode_string(entry.value, &mut shown);
    shown.push_str(r#"","encoding":"base64""#);
    Cow::Owned(shown.into_bytes())
}

/// The body as one buffer.
pub fn body(entry: &Entry, ttl: Option<u64>, details: Option<&Details>) -> Bytes {
    let borrowed = entry.borrowed();
    let value = shown_value(&borrowed);
    let mut body = Vec::with_capacity(value.len() + FRAME_BYTES);
    body.extend_from_slice(BEFORE_VALUE);
    body.extend_from_slice(&value);
    put_after_value(&mut body, entry.borrowed(), ttl, details);
    body.into()
}

/// The body for an entry that says that there is no such thing, as one buffer.
pub fn known_absent_body(entry: &Entry, ttl: Option<u64>, details: Option<&Details>) -> Bytes {
    let mut body = error::known_absent_body();
    if details.is_some() {
        // Without the closing brace: the metadata continues the same object.
        body.pop();
        put_after_value(&mut body, entry.borrowed(), ttl, details);
    }
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Extra, Mark, UnixMillis, Version};

    #[test]
    fn an_entry_is_written_with_its_value_unchanged() {
        let mut stored = Entry {
            value: Bytes::from_static(b"[1e400, 0.10]"),
            version: Version(1),
            created_at: UnixMillis(1_704_067_200_999),
            expires_in: Some(Duration::from_millis(59_001)),
            overdue: None,
            extra: Extra::default(),
        };
        let left = ttl_remaining(stored.borrowed());
        let expected =
            r#"{"value":[1e400, 0.10],"metadata":{"ttl_remaining":60,"created_at":"2024-01-01T00:00:00Z"}}"#;
        assert_eq!(body(&stored, left, None), expected);
        let bytes = Extra::new(Kind::Bytes, Mark::Unmarked, Duration::ZERO);
        let not_json = Entry { value: Bytes::from_static(b"\xff\0"), extra: bytes, ..stored.clone() };
        let expected = r#"{"value":"/wA=","encoding":"base64","metadata":{"ttl_remaining":60,"created_at":"2024-01-01T00:00:00Z"}}"#;
        assert_eq!(body(&not_json, left, None), expected);
        stored.expires_in = None;
        assert_eq!(ttl_remaining(stored.borrowed()), None);
        for ttl in [None, Some(0), Some(1), Some(9), Some(10), Some(99), Some(100), Some(3600), Some(u64::MAX)] {
            let mut after = Vec::new();
            put_after_value(&mut after, stored.borrowed(), ttl, None);
            assert_eq!(after.len(), len_after_value(ttl), "{ttl:?}");
        }
    }

    #[test]
    fn milliseconds_are_rounded_up() {
        for (nanos, millis) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (136_000_001, 137), (u64::MAX, 0)] {
            let expected = if nanos == u64::MAX { u64::MAX.div_ceil(1_000_000) } else { millis };
            assert_eq!(whole_millis(Duration::from_nanos(nanos)), expected, "{nanos}");
        }
    }
}
