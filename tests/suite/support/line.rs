//! HTTP over one connection that stays open and waits for each answer: what a cache-aside program
//! does, at little cost, for the tests that send a hundred thousand requests or a gigabyte.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;

use super::answer::Answer;
use super::client::{cache_path, key_path};
use super::service::Service;

/// Everything is answered within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Entries of one mset.
pub const BATCH: usize = 1_000;

/// A connection to a service.
pub struct Line {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
}

impl Line {
    pub fn open(address: SocketAddr) -> Line {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the service accepts connections");
        stream.set_nodelay(true).expect("an open socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        Line { stream: BufReader::with_capacity(64 * 1024, stream), request: Vec::new() }
    }

    /// Sends a request and waits for its answer, of which the headers are not kept.
    #[track_caller]
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.request.clear();
        let length = body.len();
        write!(self.request, "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
            .expect("a Vec takes everything");
        self.stream.get_mut().write_all(&self.request).expect("the service takes the request");
        self.read_answer().unwrap_or_else(|| panic!("{method} {path}: the connection broke off"))
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

    /// mset of entries of different keys, each a JSON object; every one must be stored.
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

    /// mget of these keys; answers how many were found.
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

    fn read_answer(&mut self) -> Option<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).ok()?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(Answer { status, headers: HeaderMap::new(), body: Bytes::from(body) })
    }
}

/// Stores `entry(number)`, a JSON object, for every number, over as many connections as there are
/// CPUs to serve them.
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
