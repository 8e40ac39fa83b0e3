//! Parses just enough of a request's head to choose between the fast path and the router.
//!
//! Only a plain read or a small write of one entry is for the fast path. Everything else is for the router, including
//! every invalid request, so that error texts are in one place. The length of a request for the router must be
//! certain, by the same rules as in the router's HTTP server (hyper). Otherwise the router gets the rest of the
//! connection.

use std::mem::MaybeUninit;

use percent_encoding::percent_decode_str;

use super::field::Field;
use crate::http::accept::names_bytes;
use crate::http::change_guard;
use crate::http::hosts::Hosts;
use crate::http::lease;
use crate::model::KeyRef;
use crate::trace::TraceContext;

/// The longest head of a request, in bytes.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The most headers that a request for the fast path may have.
const MAX_HEADERS: usize = 48;

const ENTRY_PREFIX: &str = "/api/v1/cache/";

/// Whether the fast path or the router answers the request at the start of the bytes.
#[derive(Debug)]
pub enum Head<'b> {
    /// Unknown until more bytes arrive.
    Partial,
    /// The router. The request has `len` bytes, and some of them may not have arrived yet. `None` if its length is
    /// not certain.
    Router {
        len: Option<u64>,
    },
    Entry(EntryRequest<'b>),
}

/// A request for the fast path: a complete read or write of one entry.
#[derive(Debug)]
pub struct EntryRequest<'b> {
    pub key: KeyRef<'b>,
    /// The body of a PUT; `None` for a GET.
    pub body: Option<&'b [u8]>,
    /// The request id that the client sent.
    pub request_id: Option<&'b [u8]>,
    pub trace: Option<TraceContext>,
    /// Whether a GET asks for a lease on a missing entry.
    pub asks_for_lease: bool,
    /// The length in bytes, including the body.
    pub len: usize,
}

/// Parses the head at the start of `bytes`; `text` is a buffer for the key. A request whose host is not in `hosts`
/// goes to the router, which refuses it.
pub fn parse<'b>(bytes: &'b [u8], text: &'b mut String, hosts: &Hosts) -> Head<'b> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let head_len = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEADER_BYTES => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEADER_BYTES => return Head::Partial,
        _ => return Head::Router { len: None },
    };
    let mut is_plain = request.version == Some(1);
    let (mut body_len, mut request_id) = (None, None);
    // Several `traceparent` headers are ignored: it is not clear which one is right.
    let (mut traceparent, mut traceparents) = (None, 0);
    let (mut host, mut is_from_browser, mut prefer) = (None, false, None);
    for header in &*request.headers {
        match Field::of(header.name) {
            Field::Other => {}
            Field::Host => is_plain &= host.replace(header.value).is_none(),
            Field::RequestId => request_id = request_id.or(Some(header.value)),
            Field::TraceParent => (traceparent, traceparents) = (Some(header.value), traceparents + 1),
            Field::ContentLength => match (number(header.value), body_len) {
                (Some(len), None) => body_len = Some(len),
                _ => return Head::Router { len: None },
            },
            Field::Framing => return Head::Router { len: None },
            Field::Connection => is_plain &= header.value.eq_ignore_ascii_case(b"keep-alive"),
            Field::Site => {
                is_from_browser = true;
                is_plain &= change_guard::is_own(header.value);
            }
            Field::Browser => is_from_browser = true,
            Field::Accept => is_plain &= !names_bytes(header.value),
            Field::Prefer => is_plain &= prefer.replace(header.value).is_none(),
            Field::Meaning => is_plain = false,
        }
    }
    let router = Head::Router { len: (head_len as u64).checked_add(body_len.unwrap_or(0)) };
    if !is_plain || host.is_none_or(|host| hosts.admit(host, is_from_browser).is_err()) {
        return router;
    }
    let body = match (request.method, body_len) {
        (Some("GET"), None | Some(0)) => None,
        (Some("PUT"), Some(len)) if prefer.is_none() => {
            match usize::try_from(len).ok().and_then(|len| bytes[head_len..].get(..len)) {
                Some(body) => Some(body),
                None => return router,
            }
        }
        _ => return router,
    };
    let Some(key) = request.path.and_then(|path| entry_key(path, text)) else { return router };
    let len = head_len + body.map_or(0, <[u8]>::len);
    let trace = traceparent.filter(|_| traceparents == 1).and_then(TraceContext::parse);
    let asks_for_lease = prefer.is_some_and(lease::is_asked_for);
    Head::Entry(EntryRequest { key, body, request_id, trace, asks_for_lease, len })
}

/// Parses a number that has only digits (RFC 9110, 8.6).
fn number(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The key of the entry that a path names; `None` if the path does not name an entry, or is invalid.
fn entry_key<'t>(path: &str, text: &'t mut String) -> Option<KeyRef<'t>> {
    let (namespace, key) = path.strip_prefix(ENTRY_PREFIX)?.split_once('/')?;
    // `stats` is the path of the statistics. A path with bytes that are not allowed is for the router, which may
    // refuse it.
    if key == "stats" || !namespace.bytes().chain(key.bytes()).all(|byte| PATH_BYTES[usize::from(byte)]) {
        return None;
    }
    let (namespace, key) = (percent_decode_str(namespace).decode_utf8(), percent_decode_str(key).decode_utf8());
    KeyRef::parse(&namespace.ok()?, &key.ok()?, text).ok()
}

/// The bytes that are allowed in a segment of a path (RFC 3986, 3.3).
const PATH_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(
            byte as u8,
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';'
                | b'=' | b':' | b'@' | b'%'
        );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::hosts::hosts_of_listener;

    /// How `text` is parsed: `get <key> <len>`, `put <key> <body> <len>`, `router <len>` or `partial`.
    fn read(text: &str) -> String {
        read_at("127.0.0.1", text)
    }

    /// Like [`read`], for a listener on this address.
    fn read_at(address: &str, text: &str) -> String {
        let hosts = hosts_of_listener(address.parse().unwrap());
        match parse(text.as_bytes(), &mut String::new(), &hosts) {
            Head::Partial => "partial".to_owned(),
            Head::Router { len } => format!("router {}", len.map_or("?".to_owned(), |len| len.to_string())),
            Head::Entry(EntryRequest { key, body: None, asks_for_lease: true, len, .. }) => {
                format!("lease {} {len}", key.text())
            }
            Head::Entry(EntryRequest { key, body: None, len, .. }) => format!("get {} {len}", key.text()),
            Head::Entry(EntryRequest { key, body: Some(body), len, .. }) => {
                format!("put {} {} {len}", key.text(), str::from_utf8(body).unwrap())
            }
        }
    }

    fn get(path: &str, headers: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")
    }

    #[test]
    fn plain_reads_and_complete_small_writes_of_entries_are_for_the_fast_path() {
        let request = get("/api/v1/cache/users/user_1", "accept: */*\r\nconnection: Keep-Alive\r\n");
        assert_eq!(read(&request), format!("get users:user_1 {}", request.len()));
        let request = get("/api/v1/cache/users/a%2Fb%20c", "");
        assert_eq!(read(&(request.clone() + "GET")), format!("get users:a/b c {}", request.len()));
        let request = "PUT /api/v1/cache/n/k HTTP/1.1\r\nhost: [::1]:80\r\ncontent-length: 3\r\n\r\n[1]";
        assert_eq!(read(request), format!("put n:k [1] {}", request.len()));
        for site in ["same-origin", "none"] {
            let request = get("/api/v1/cache/n/k", &format!("Sec-Fetch-Site: {site}\r\n"));
            assert_eq!(read(&request), format!("get n:k {}", request.len()), "{site}");
        }
        for (prefer, expected) in [("lease=10, wait=2", "lease"), ("wait=2", "get"), ("respond-async", "get")] {
            let request = get("/api/v1/cache/n/k", &format!("Prefer: {prefer}\r\n"));
            assert_eq!(read(&request), format!("{expected} n:k {}", request.len()), "{prefer}");
        }
        let request = get("/api/v1/cache/n/mget", "");
        assert_eq!(read(&request), format!("get n:mget {}", request.len()), "mget is an ordinary key for GET");
        let named = get("/api/v1/cache/n/k", "X-Request-ID: mine\r\nx-request-id: other\r\n");
        let mut text = String::new();
        let hosts = hosts_of_listener("127.0.0.1".parse().unwrap());
        let Head::Entry(request) = parse(named.as_bytes(), &mut text, &hosts) else { panic!("{named}") };
        assert_eq!(request.request_id, Some(&b"mine"[..]));
    }

    #[test]
    fn other_requests_are_for_the_router_and_their_length_is_known() {
        for (path, headers) in [
            ("/health", ""),
            ("/api/v1/cache/n", ""),
            ("/api/v1/cache/n/", ""),
            ("/api/v1/cache/n/stats", ""),
            ("/api/v1/cache/n/k/more", ""),
            ("/api/v1/cache/n/k?metadata=full", ""),
            ("/api/v1/cache/b%20d/k", ""),
            ("/api/v1/cache/n/%00", ""),
            ("/api/v1/cache/n/%ff", ""),
            ("/api/v1/cache/n/a\"b", ""),
            ("/api/v1/cache/n/k", "cache-control: no-cache\r\n"),
            ("/api/v1/cache/n/k", "prefer: lease=10\r\nprefer: wait=2\r\n"),
            ("/api/v1/cache/n/k", "If-None-Match: \"1\"\r\n"),
            ("/api/v1/cache/n/k", "Sec-Fetch-Site: cross-site\r\n"),
            ("/api/v1/cache/n/k", "sec-fetch-site: none\r\nsec-fetch-site: same-site\r\n"),
            ("/api/v1/cache/n/k", "if-match: \"1\"\r\n"),
            ("/api/v1/cache/n/k", "If-Unmodified-Since: Sat, 29 Oct 1994 19:43:31 GMT\r\n"),
            ("/api/v1/cache/n/k", "origin: http://localhost\r\n"),
            ("/api/v1/cache/n/k", "host: localhost\r\n"),
            ("/api/v1/cache/n/k", "connection: close\r\n"),
            ("/api/v1/cache/n/k", "connection: keep-alive, te\r\n"),
        ] {
            let request = get(path, headers);
            assert_eq!(read(&request), format!("router {}", request.len()), "{request}");
        }
        for (request, body) in [
            ("POST /api/v1/cache/n/mget HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n", 10),
            ("PUT /api/v1/cache/n/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n", 10),
            (
                "PUT /api/v1/cache/n/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n",
                10,
            ),
            ("PATCH /api/v1/cache/n/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{\"ttl\":1}", 0),
            ("GET /api/v1/cache/n/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n", 10),
            (
                "PUT /api/v1/cache/n/k HTTP/1.1\r\nhost: localhost\r\nprefer: lease=1\r\ncontent-length: 3\r\n\r\n[1]",
                0,
            ),
            ("HEAD /api/v1/cache/n/k HTTP/1.1\r\nhost: localhost\r\n\r\n", 0),
            ("GET /api/v1/cache/n/k HTTP/1.0\r\nhost: localhost\r\n\r\n", 0),
        ] {
            assert_eq!(read(request), format!("router {}", request.len() + body), "{request}");
        }
    }

    #[test]
    fn a_request_is_for_the_fast_path_only_if_its_host_is_accepted() {
        let with = |headers: &str| format!("GET /api/v1/cache/n/k HTTP/1.1\r\n{headers}\r\n");
        for (address, headers, is_taken) in [
            ("127.0.0.1", "Host: localhost:8080\r\n", true),
            ("127.0.0.1", "host: 127.0.0.1\r\n", true),
            ("127.0.0.1", "host: evil.example\r\n", false),
            ("127.0.0.1", "host: localhost\r\nhost: localhost\r\n", false),
            ("127.0.0.1", "", false),
            ("0.0.0.0", "host: sidecache:8080\r\n", true),
            ("0.0.0.0", "host: sidecache\r\nsec-fetch-mode: cors\r\n", false),
            ("0.0.0.0", "sec-fetch-site: same-origin\r\nhost: evil.example\r\n", false),
            ("0.0.0.0", "host: 10.0.0.1\r\nsec-fetch-site: same-origin\r\n", true),
            ("0.0.0.0", "host: a b\r\n", false),
        ] {
            let request = with(headers);
            let taken = if is_taken { "get n:k" } else { "router" };
            assert_eq!(read_at(address, &request), format!("{taken} {}", request.len()), "{request}");
        }
    }

    #[test]
    fn a_request_of_uncertain_length_leaves_the_connection_to_the_router() {
        for headers in [
            "transfer-encoding: chunked\r\n",
            "upgrade: websocket\r\n",
            "content-length: 1\r\ncontent-length: 1\r\n",
            "content-length: 1, 1\r\n",
            "content-length: +1\r\n",
            "content-length: \r\n",
            "content-length: 99999999999999999999\r\n",
            "no colon\r\n",
        ] {
            assert_eq!(read(&get("/api/v1/cache/n/k", headers)), "router ?", "{headers}");
        }
        assert_eq!(read("\u{1}\r\n\r\n"), "router ?");
        assert_eq!(read(&get("/", &"a: b\r\n".repeat(MAX_HEADERS))), "router ?");
    }

    #[test]
    fn a_head_is_incomplete_until_its_end_or_the_size_limit() {
        let request = get("/api/v1/cache/n/k", "accept: */*\r\n");
        for end in 0..request.len() {
            assert_eq!(read(&request[..end]), "partial", "{end}");
        }
        let long = get("/api/v1/cache/n/k", &format!("a: {}\r\n", "b".repeat(MAX_HEADER_BYTES)));
        assert_eq!(read(&long[..MAX_HEADER_BYTES - 1]), "partial");
        assert_eq!(read(&long[..MAX_HEADER_BYTES]), "router ?");
        assert_eq!(read(&long), "router ?");
    }
}
