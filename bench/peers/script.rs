//! The script call of a write, as a sidecache instance sends it, for webdis to send the same.
//!
//! It is recorded with MONITOR during a PUT, not assembled here, so the comparison always uses what the instance
//! really sends.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::load::request::{key, value};
use crate::support::line::Line;
use crate::support::redis::Redis;
use crate::support::service::Service;

/// A key and a value that occur in no other command.
const KEY: &str = "overheard-key";
const VALUE: &str = "\"overheard-value\"";

/// The words of a command, in which key and value can be replaced.
pub struct Script(Vec<String>);

impl Script {
    /// Records a PUT of `service` to `namespace` on its only shard.
    ///
    /// # Errors
    /// No script was called with key and value as separate words.
    pub fn overheard(service: &Service, redis: &Redis, namespace: &str) -> anyhow::Result<Script> {
        let mut line = Line::open(service.address());
        // The first write creates the namespace and loads the script.
        line.set(namespace, KEY, VALUE).expect(201);
        let mut monitor = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port()))?;
        monitor.set_read_timeout(Some(Duration::from_secs(10)))?;
        monitor.write_all(b"MONITOR\r\n")?;
        let mut lines = BufReader::new(monitor).lines();
        lines.next().context("MONITOR is answered")??;
        line.set(namespace, KEY, VALUE).expect(200);
        for line in lines {
            let line = line.context("a script is called with key and value")?;
            let words = words(&line);
            let names_all = [KEY, VALUE].iter().all(|wanted| words.iter().any(|word| word == wanted));
            if words.first().is_some_and(|name| name.eq_ignore_ascii_case("evalsha")) && names_all {
                return Ok(Script(words));
            }
        }
        bail!("MONITOR ended")
    }

    /// The command for another key and a value of `bytes` bytes.
    pub fn command(&self, number: usize, bytes: usize) -> Vec<String> {
        let (key, value) = (key(number), value(bytes));
        let replaced = |word: &String| match word.as_str() {
            KEY => key.clone(),
            VALUE => value.clone(),
            _ => word.clone(),
        };
        self.0.iter().map(replaced).collect()
    }
}

/// Parses a line of MONITOR, `+<time> [<database> <client>] "word" "word"`, in which quotes and backslashes are
/// escaped. Words with unprintable bytes stay in the escaped form.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some((_, word)) = rest.split_once('"') {
        let (mut text, mut escaped, mut end) = (String::new(), false, word.len());
        for (at, letter) in word.char_indices() {
            match letter {
                '\\' if !escaped => escaped = true,
                '"' if !escaped => {
                    end = at + 1;
                    break;
                }
                _ => {
                    text.push(letter);
                    escaped = false;
                }
            }
        }
        words.push(text);
        rest = &word[end..];
    }
    words
}
