//! Writes responses as bytes, directly into the buffer that is sent. There is no header map in between, because the
//! map alone would cost more than the lookup of the entry.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::Response;
use axum::http::response::Parts;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Collected};
use httpdate::HttpDate;

use crate::cache::{AnsweredBy, Cache, Lookup};
use crate::clock::unix_millis_of_last_tick;
use crate::http::error;
use crate::http::memory::COUNTED_FROM;
use crate::http::read_answer::{BEFORE_VALUE, ReadAnswer, len_after_value, put_after_value, shown_value};
use crate::model::{Entry, EntryRef, Kind};

/// Space for a response without its value.
const HEAD_BYTES: usize = 512;

/// The last headers of a response.
#[derive(Clone, Copy, Debug)]
pub struct LastHeaders<'a> {
    pub request_id: &'a [u8],
    /// Header lines about the connection, and `Vary`, each behind its line break; may be empty.
    pub connection: &'a [u8],
}

/// The part of a response that is sent after the output buffer.
#[derive(Debug, Default)]
pub struct UnwrittenPart {
    /// A value that was not copied into the buffer.
    pub value: Bytes,
    /// The bytes after the value.
    pub after: Vec<u8>,
}

/// Writes the response of a read to `out`, except a large value and the bytes after it, which are returned: to send
/// one more piece costs less than to copy them. Such a value counts against the memory for responses.
pub fn put_lookup(out: &mut Vec<u8>, cache: &Cache, lookup: &Lookup, last: LastHeaders<'_>) -> UnwrittenPart {
    let found = lookup.entry.as_ref().map(Entry::borrowed);
    let mut rest = UnwrittenPart::default();
    match lookup.entry.as_ref().filter(|entry| entry.value.len() >= COUNTED_FROM) {
        None => put_read(out, cache, found, &lookup.trail, last),
        Some(entry) => {
            let answer = ReadAnswer::of(cache, lookup);
            rest.value = match entry.extra.kind {
                Kind::Bytes => Bytes::from(shown_value(&entry.borrowed()).into_owned()),
                Kind::Json | Kind::Absent => entry.value.clone(),
            };
            put_before_value(out, &answer, rest.value.len(), last);
            put_after_value(&mut rest.after, entry.borrowed(), answer.ttl, None);
        }
    }
    rest
}

/// Writes the whole response of a read to `out`.
pub fn put_read(
    out: &mut Vec<u8>,
    cache: &Cache,
    found: Option<EntryRef<'_>>,
    trail: &AnsweredBy,
    last: LastHeaders<'_>,
) {
    let answer = ReadAnswer::new(cache, found, trail);
    let entry = match found {
        None => return put_not_found(out, &answer, &error::key_not_found_body(), last),
        Some(entry) if entry.is_known_absent() => {
            return put_not_found(out, &answer, &error::known_absent_body(), last);
        }
        Some(entry) => entry,
    };
    let value = shown_value(&entry);
    out.reserve(HEAD_BYTES + value.len());
    put_before_value(out, &answer, value.len(), last);
    out.extend_from_slice(&value);
    put_after_value(out, entry, answer.ttl, None);
}

/// Writes a 404.
fn put_not_found(out: &mut Vec<u8>, answer: &ReadAnswer<'_>, body: &[u8], last: LastHeaders<'_>) {
    out.extend_from_slice(b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n");
    answer.put_headers(out);
    end_head(out, body.len(), last);
    out.extend_from_slice(body);
}

/// Writes everything before the value.
fn put_before_value(out: &mut Vec<u8>, answer: &ReadAnswer<'_>, value_len: usize, last: LastHeaders<'_>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n");
    answer.put_headers(out);
    end_head(out, BEFORE_VALUE.len() + value_len + len_after_value(answer.ttl), last);
    out.extend_from_slice(BEFORE_VALUE);
}

/// Writes any response to `out`.
pub fn put_response(out: &mut Vec<u8>, response: Response<Body>, last: LastHeaders<'_>) {
    let (Parts { status, headers, .. }, body) = response.into_parts();
    // The body is in memory, so this neither waits nor fails.
    let body = body.collect().now_or_never().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &headers {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    end_head(out, body.len(), last);
    out.extend_from_slice(&body);
}

/// Writes the headers that every response has, and ends the head. The last line before it has no line end.
fn end_head(out: &mut Vec<u8>, body_len: usize, last: LastHeaders<'_>) {
    out.extend_from_slice(b"\r\ncontent-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(body_len).as_bytes());
    out.extend_from_slice(b"\r\nx-request-id: ");
    out.extend_from_slice(last.request_id);
    out.extend_from_slice(last.connection);
    out.extend_from_slice(&DATE.with_borrow_mut(Date::line));
}

thread_local! {
    static DATE: RefCell<Date> =
        const { RefCell::new(Date { unix_seconds: None, line: *b"\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n" }) };
}

/// The `Date` header line, formatted once a second (RFC 9110, 6.6.1), between its line break and the end of the head.
struct Date {
    /// The date of `line`.
    unix_seconds: Option<u64>,
    line: [u8; 41],
}

impl Date {
    /// The place of the date in the line.
    const AT: usize = 8;

    /// The line of this second.
    fn line(&mut self) -> [u8; 41] {
        let now = unix_millis_of_last_tick().0 / 1000;
        if self.unix_seconds != Some(now) {
            self.unix_seconds = Some(now);
            let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(now));
            write!(&mut self.line[Self::AT..], "{date}").expect("every HTTP date has the same length");
        }
        self.line
    }
}
