//! HTTP over one keep-alive connection that waits for each answer, as a cache-aside program does. It costs little,
//! for tests that send a hundred thousand requests or a gigabyte.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;

use super::answer::Answer;
use super::client::{cache_path, key_path};
use super::service::Service;

/// The default timeout for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many entries [`fill`] puts into one mset.
pub const BATCH: usize = 1_000;

/// A connection to a service.
pub struct Line {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    head: Vec<u8>,
    body: Vec<u8>,
}

/// An answer in the buffers of the connection.
#[derive(Clone, Copy)]
pub struct Received<'l> {
    pub status: u16,
    head: &'l [u8],
    pub body: &'l [u8],
}

impl Received<'_> {
    /// A header by its lower-case name, as the service sends it.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = std::str::from_utf8(self.head).ok()?.split("\r\n");
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Line {
    pub fn open(address: SocketAddr) -> Line {
        Line::try_open(address, PATIENCE).expect("the service accepts connections")
    }

    /// Opens a connection on which every wait is limited to `patience`.
    ///
    /// # Errors
    /// Nothing listens at `address`.
    pub fn try_open(address: SocketAddr, patience: Duration) -> io::Result<Line> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let stream = BufReader::with_capacity(64 * 1024, stream);
        Ok(Line { stream, request: Vec::new(), head: Vec::new(), body: Vec::new() })
    }

    /// Sends a request that was written by [`request`].
    ///
    /// # Errors
    /// The connection was closed, or nothing could be sent within its `patience`. It cannot be used any more.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(request)
    }

    /// Waits for the answer to the request that was sent.
    ///
    /// # Errors
    /// The answer did not come in time, or is not valid HTTP. The connection cannot be used any more.
    pub fn receive(&mut self) -> io::Result<Received<'_>> {
        self.head.clear();
        let mut length = 0;
        loop {
            let start = self.head.len();
            if self.stream.read_until(b'\n', &mut self.head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = &self.head[start..];
            if line == b"\r\n" {
                break;
            }
            const LENGTH: &[u8] = b"content-length:";
            if line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH)) {
                length = number(&line[LENGTH.len()..]).ok_or(io::ErrorKind::InvalidData)?;
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        let status = self.head.split(|byte| *byte == b' ').nth(1).and_then(number);
        let status = status.and_then(|status| u16::try_from(status).ok()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Received { status, head: &self.head, body: &self.body })
    }

    /// Sends a request and waits for its answer. The headers are dropped.
    #[track_caller]
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let mut bytes = mem::take(&mut self.request);
        bytes.clear();
        write_request(&mut bytes, method, path, "", body);
        self.send(&bytes).expect("the service takes the request");
        self.request = bytes;
        let answer = self.receive().unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let body = Bytes::copy_from_slice(answer.body);
        Answer { status: answer.status, headers: HeaderMap::new(), body }
    }

    #[track_caller]
    pub fn get(&mut self, namespace: &str, key: &str) -> Answer {
        self.ask("GET", &key_path(namespace, key), "")
    }

    /// PUT of a value given as JSON text.
    #[track_caller]
    pub fn set(&mut self, namespace: &str, key: &str, value: &str) -> Answer {
        self.ask("PUT", &key_path(namespace, key), &format!("{{\"value\":{value}}}"))
    }

    /// mset of entries with different keys, each a JSON object. The test fails unless every one is stored.
    #[track_caller]
    pub fn mset(&mut self, namespace: &str, entries: impl IntoIterator<Item = String>) {
        let (mut body, mut count) = ("{\"entries\":[".to_owned(), 0);
        for entry in entries {
            body.push_str(if count == 0 { "" } else { "," });
            body.push_str(&entry);
            count += 1;
        }
        body.push_str("]}");
        let path = format!("{}/mset", cache_path(namespace));
        let answer = self.ask("POST", &path, &body).expect(200);
        assert_eq!(answer.text(), format!("{{\"success\":true,\"stored\":{count}}}"));
    }

    /// mget of these keys. Returns how many were found.
    #[track_caller]
    pub fn mget(&mut self, namespace: &str, keys: impl IntoIterator<Item = String>) -> u64 {
        let mut body = String::new();
        for key in keys {
            let comma = if body.is_empty() { "" } else { "," };
            write!(body, "{comma}\"{key}\"").expect("a String takes everything");
        }
        let path = format!("{}/mget", cache_path(namespace));
        self.ask("POST", &path, &format!("{{\"keys\":[{body}]}}")).expect(200).number("hits")
    }
}

/// The bytes of a request, for [`Line::send`]. `headers` are complete header lines.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_request(&mut bytes, method, path, headers, body);
    bytes
}

fn write_request(bytes: &mut Vec<u8>, method: &str, path: &str, headers: &str, body: &str) {
    let length = body.len();
    write!(bytes, "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .expect("a Vec takes everything");
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.trim().parse().ok()
}

/// Stores `entry(number)`, a JSON object, for every number, over two connections.
pub fn fill(service: &Service, namespace: &str, numbers: Range<usize>, entry: impl Fn(usize) -> String + Sync) {
    let half = numbers.start + numbers.len() / 2;
    thread::scope(|scope| {
        for part in [numbers.start..half, half..numbers.end] {
            let entry = &entry;
            scope.spawn(move || {
                let mut line = Line::open(service.address());
                let mut next = part.start;
                while next < part.end {
                    let end = part.end.min(next + BATCH);
                    line.mset(namespace, (next..end).map(entry));
                    next = end;
                }
            });
        }
    });
}
