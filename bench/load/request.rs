//! The requests of the rows, as bytes: keys, values of a given size, and keys drawn by Zipf's law.

use crate::support::client::{cache_path, encoded};
use crate::support::line;
use crate::support::random::Random;

/// The size of a value, unless a row says otherwise.
pub const VALUE_BYTES: usize = 1_000;

/// A request, and the histogram for its latency.
#[derive(Clone)]
pub struct Request {
    pub bytes: Vec<u8>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

pub fn key(number: usize) -> String {
    format!("key:{number:08}")
}

/// A JSON string with this many bytes.
pub fn value(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)))
}

pub fn read(path: &str) -> Request {
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    Request { bytes, kind: Kind::Read }
}

fn write(method: &str, path: &str, body: &str) -> Request {
    Request { bytes: line::request(method, path, "", body), kind: Kind::Write }
}

fn path(namespace: &str, number: usize) -> String {
    format!("{}/{}", cache_path(namespace), encoded(&key(number)))
}

/// Requests to sidecache.
pub mod ours {
    use std::fmt::Write as _;

    use super::{Kind, Request, cache_path, key, path, value, write};

    pub fn path_of(namespace: &str, number: usize) -> String {
        path(namespace, number)
    }

    pub fn get(namespace: &str, number: usize) -> Request {
        super::read(&path(namespace, number))
    }

    pub fn put(namespace: &str, number: usize, bytes: usize) -> Request {
        write("PUT", &path(namespace, number), &format!("{{\"value\":{}}}", value(bytes)))
    }

    pub fn delete(namespace: &str, number: usize) -> Request {
        write("DELETE", &path(namespace, number), "")
    }

    pub fn mget(namespace: &str, numbers: impl IntoIterator<Item = usize>) -> Request {
        let keys: Vec<String> = numbers.into_iter().map(|number| format!("\"{}\"", key(number))).collect();
        let path = format!("{}/mget", cache_path(namespace));
        Request { kind: Kind::Read, ..write("POST", &path, &format!("{{\"keys\":[{}]}}", keys.join(","))) }
    }

    pub fn mset(namespace: &str, numbers: impl IntoIterator<Item = usize>, bytes: usize) -> Request {
        let (value, mut entries) = (value(bytes), String::new());
        for number in numbers {
            let comma = if entries.is_empty() { "" } else { "," };
            write!(entries, r#"{comma}{{"key":"{}","value":{value}}}"#, key(number))
                .expect("a String takes everything");
        }
        write("POST", &format!("{}/mset", cache_path(namespace)), &format!("{{\"entries\":[{entries}]}}"))
    }
}

/// Requests to webdis.
pub mod webdis {
    use super::{Request, encoded, key, write};

    pub fn get(number: usize) -> Request {
        super::read(&format!("/GET/{}", encoded(&key(number))))
    }

    pub fn set(number: usize, value: &str) -> Request {
        write("PUT", &format!("/SET/{}", encoded(&key(number))), value)
    }

    pub fn delete(number: usize) -> Request {
        write("POST", "/", &format!("DEL/{}", encoded(&key(number))))
    }

    pub fn mget(numbers: impl IntoIterator<Item = usize>) -> Request {
        let keys: Vec<String> = numbers.into_iter().map(|number| encoded(&key(number))).collect();
        super::read(&format!("/MGET/{}", keys.join("/")))
    }

    /// A command and its arguments; any of them may be empty.
    pub fn command(words: &[String]) -> Request {
        let words: Vec<String> = words.iter().map(|word| encoded(word)).collect();
        write("POST", "/", &words.join("/"))
    }
}

/// Draws keys by Zipf's law with exponent 1: the n-th most popular key is read 1/n as often as the first. Every run
/// draws the same keys.
pub struct Zipf {
    cumulated: Vec<f64>,
    random: Random,
}

impl Zipf {
    pub fn over(keys: usize) -> Zipf {
        let mut sum = 0.0;
        let next = |rank: usize| {
            sum += 1.0 / rank as f64;
            sum
        };
        Zipf { cumulated: (1..=keys).map(next).collect(), random: Random::seeded(1) }
    }

    pub fn draw(&mut self) -> usize {
        let even = (self.random.number() >> 11) as f64 / (1_u64 << 53) as f64;
        let point = even * self.cumulated.last().copied().unwrap_or_default();
        self.cumulated.partition_point(|sum| *sum < point).min(self.cumulated.len().saturating_sub(1))
    }
}
