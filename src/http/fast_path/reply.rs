//! Writes responses as bytes, directly into the buffer that is sent. There is no header map in between, because the
//! map alone would cost more than the lookup of the entry.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderName, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected};
use httpdate::HttpDate;

use crate::cache::{AnsweredBy, Cache, Lookup};
use crate::clock::unix_millis_of_last_tick;
use crate::http::answer::APPLICATION_JSON;
use crate::http::entry::{put_headers, shown_ttl};
use crate::http::request_id::X_REQUEST_ID;
use crate::http::response_memory::COUNTED_FROM;
use crate::http::{error, json};
use crate::model::{Entry, EntryRef};

/// Values of at most this many bytes are copied: this costs less than sending one more piece. Larger values are sent
/// without a copy, and count against the memory for responses.
const COPIED_BYTES: usize = COUNTED_FROM - 1;

/// Space for a response without its value.
const HEAD_BYTES: usize = 512;

/// The first bytes of every response of [`put_hit`].
const HIT: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-cache\r\nx-cache-hit: true\r\n";

/// Where an entry was found without waiting.
#[derive(Clone, Copy, Debug)]
pub enum Tier {
    L1,
    Embedded,
}

/// What happens to the connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterResponse {
    Stay,
    Close,
}

/// The last headers of a response.
#[derive(Clone, Copy, Debug)]
pub struct LastHeaders<'a> {
    pub request_id: &'a [u8],
    /// The `Keep-Alive` header line; may be empty.
    pub keep_alive: &'a [u8],
    pub then: AfterResponse,
}

/// The part of a response that is sent after the output buffer.
#[derive(Debug, Default)]
pub struct UnwrittenPart {
    /// A value that was not copied into the buffer.
    pub value: Bytes,
    /// The bytes after the value.
    pub after: Vec<u8>,
}

/// Writes the response of a read to `out`. Returns a large value and the bytes after it instead of copying them.
pub fn put_lookup(out: &mut Vec<u8>, cache: &Cache, lookup: &Lookup, ending: LastHeaders<'_>) -> UnwrittenPart {
    let found = lookup.entry.as_ref();
    match found.filter(|entry| entry.value.len() > COPIED_BYTES) {
        None => {
            put_read(out, cache, found.map(Entry::borrowed), &lookup.trail, ending);
            UnwrittenPart::default()
        }
        Some(entry) => {
            let mut after = Vec::new();
            let head = (cache, entry.borrowed(), &lookup.trail, ending);
            put_before_value(out, head, &mut after);
            UnwrittenPart { value: entry.value.clone(), after }
        }
    }
}

/// Writes the whole response of a read to `out`.
pub fn put_read(
    out: &mut Vec<u8>,
    cache: &Cache,
    found: Option<EntryRef<'_>>,
    trail: &AnsweredBy,
    ending: LastHeaders<'_>,
) {
    let Some(entry) = found else {
        put_status(out, StatusCode::NOT_FOUND);
        put_header(out, "content-type", &[APPLICATION_JSON.as_bytes()]);
        put_headers(cache, None, trail, None, |name, parts| put_header(out, name.as_str(), parts));
        let body = error::key_not_found_body();
        end_head(out, body.len(), ending);
        return out.extend_from_slice(&body);
    };
    AFTER_VALUE.with_borrow_mut(|after| {
        put_before_value(out, (cache, entry, trail, ending), after);
        out.extend_from_slice(entry.value);
        out.extend_from_slice(after);
    });
}

/// Writes the response of a read that found `entry` in `tier`. The response has the same headers and body as that of
/// [`put_read`], but is written in fewer and larger pieces, because most requests are such hits.
pub fn put_hit(out: &mut Vec<u8>, entry: EntryRef<'_>, tier: Tier, ending: LastHeaders<'_>) {
    let (mut ttl, mut version, mut length) = (itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new());
    let ttl = json::ttl_remaining(entry).map(|seconds| ttl.format(seconds).as_bytes());
    AFTER_VALUE.with_borrow_mut(|after| {
        after.clear();
        json::put_after_value(after, entry, json::ttl_remaining(entry), None);
        let length = length.format(json::BEFORE_VALUE.len() + entry.value.len() + after.len());
        out.reserve(HEAD_BYTES + entry.value.len());
        out.extend_from_slice(HIT);
        if let Some(ttl) = ttl {
            out.extend_from_slice(b"x-cache-ttl: ");
            out.extend_from_slice(ttl);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"etag: \"");
        out.extend_from_slice(version.format(entry.version.0).as_bytes());
        match tier {
            Tier::L1 => out.extend_from_slice(b"\"\r\ncache-status: sidecache-l1; hit"),
            Tier::Embedded => out.extend_from_slice(b"\"\r\ncache-status: sidecache-embedded; hit"),
        }
        if let Some(ttl) = ttl {
            out.extend_from_slice(b"; ttl=");
            out.extend_from_slice(ttl);
        }
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(length.as_bytes());
        out.extend_from_slice(b"\r\nx-request-id: ");
        out.extend_from_slice(ending.request_id);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(ending.keep_alive);
        DATE.with_borrow_mut(|date| date.put(out));
        out.extend_from_slice(b"\r\n{\"value\":");
        out.extend_from_slice(entry.value);
        out.extend_from_slice(after);
    });
}

/// Writes the part before the value to `out`, and the part after the value to `after`.
fn put_before_value(
    out: &mut Vec<u8>,
    (cache, entry, trail, ending): (&Cache, EntryRef<'_>, &AnsweredBy, LastHeaders<'_>),
    after: &mut Vec<u8>,
) {
    let ttl = shown_ttl(Some(entry), trail);
    after.clear();
    json::put_after_value(after, entry, ttl, None);
    put_status(out, StatusCode::OK);
    put_header(out, "content-type", &[APPLICATION_JSON.as_bytes()]);
    put_headers(cache, Some(entry), trail, ttl, |name, parts| put_header(out, name.as_str(), parts));
    end_head(out, json::BEFORE_VALUE.len() + entry.value.len() + after.len(), ending);
    out.extend_from_slice(json::BEFORE_VALUE);
}

/// Writes any response to `out`.
pub async fn put_response(out: &mut Vec<u8>, response: Response<Body>, ending: LastHeaders<'_>) {
    let (Parts { status, headers, .. }, body) = response.into_parts();
    // The body is in memory, so this neither waits nor fails.
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    put_status(out, status);
    for (name, value) in &headers {
        put_header(out, name.as_str(), &[value.as_bytes()]);
    }
    end_head(out, body.len(), ending);
    out.extend_from_slice(&body);
}

fn put_status(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn put_header(out: &mut Vec<u8>, name: &str, parts: &[&[u8]]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the headers that every response has, and ends the head.
fn end_head(out: &mut Vec<u8>, body_len: usize, ending: LastHeaders<'_>) {
    match ending.then {
        AfterResponse::Close => put_header(out, "connection", &[b"close"]),
        AfterResponse::Stay => out.extend_from_slice(ending.keep_alive),
    }
    put_header(out, "content-length", &[itoa::Buffer::new().format(body_len).as_bytes()]);
    const REQUEST_ID: HeaderName = X_REQUEST_ID;
    put_header(out, REQUEST_ID.as_str(), &[ending.request_id]);
    DATE.with_borrow_mut(|date| date.put(out));
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    static AFTER_VALUE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static DATE: RefCell<Date> = const { RefCell::new(Date { unix_seconds: 0, line: Vec::new() }) };
}

/// The `Date` header line, formatted once a second (RFC 9110, 6.6.1).
struct Date {
    unix_seconds: u64,
    line: Vec<u8>,
}

impl Date {
    fn put(&mut self, out: &mut Vec<u8>) {
        let now = unix_millis_of_last_tick().0 / 1000;
        if now != self.unix_seconds || self.line.is_empty() {
            self.unix_seconds = now;
            self.line.clear();
            let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(now));
            write!(self.line, "date: {date}\r\n").expect("writing to memory does not fail");
        }
        out.extend_from_slice(&self.line);
    }
}
