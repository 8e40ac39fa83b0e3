//! A client of the Redis door on a raw socket: it sends any bytes, and parses every reply.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::PATIENCE;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Verbatim(String),
    Null,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// The text of a bulk, simple or verbatim string.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Reply::Simple(text) | Reply::Verbatim(text) => text.clone(),
            Reply::Bulk(bytes) => String::from_utf8(bytes.clone()).expect("the reply is text"),
            other => panic!("a text expected, not {other:?}"),
        }
    }

    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self {
            Reply::Integer(number) => *number,
            other => panic!("an integer expected, not {other:?}"),
        }
    }

    #[track_caller]
    pub fn error(&self) -> &str {
        match self {
            Reply::Error(text) => text,
            other => panic!("an error expected, not {other:?}"),
        }
    }

    #[track_caller]
    pub fn array(&self) -> &[Reply] {
        match self {
            Reply::Array(elements) => elements,
            other => panic!("an array expected, not {other:?}"),
        }
    }

    /// A map by its keys; in RESP2 it is an array.
    #[track_caller]
    pub fn map(&self) -> BTreeMap<String, Reply> {
        match self {
            Reply::Map(pairs) => pairs.iter().map(|(key, value)| (key.text(), value.clone())).collect(),
            Reply::Array(elements) => elements.chunks(2).map(|pair| (pair[0].text(), pair[1].clone())).collect(),
            other => panic!("a map expected, not {other:?}"),
        }
    }
}

pub fn bulk(bytes: impl AsRef<[u8]>) -> Reply {
    Reply::Bulk(bytes.as_ref().to_vec())
}

pub fn ok() -> Reply {
    Reply::Simple("OK".to_owned())
}

/// The bytes of a command.
pub fn command(arguments: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A connection.
pub struct Connection {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).await.expect("the service accepts connections of Redis clients");
        Connection { stream, read: Vec::new() }
    }

    /// A connection in this namespace.
    pub async fn to(address: SocketAddr, namespace: &str) -> Connection {
        let mut connection = Connection::open(address).await;
        assert_eq!(connection.call(&["AUTH", namespace, "anything"]).await, ok());
        connection
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the service takes the bytes");
    }

    /// Sends a command and returns its reply.
    pub async fn call(&mut self, arguments: &[impl AsRef<[u8]>]) -> Reply {
        self.send(&command(arguments)).await;
        self.reply().await
    }

    /// The next reply.
    pub async fn reply(&mut self) -> Reply {
        timeout(PATIENCE, self.read_reply()).await.expect("a reply in time")
    }

    /// Whether nothing arrives within this time.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        self.read.is_empty() && timeout(time, self.stream.read_u8()).await.is_err()
    }

    /// Everything until the service closes the connection.
    pub async fn rest(mut self) -> Vec<u8> {
        // What came before a reset is kept.
        let _ =
            timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await.expect("the connection ends in time");
        self.read
    }

    async fn read_reply(&mut self) -> Reply {
        loop {
            if let Some((reply, length)) = parse(&self.read) {
                self.read.drain(..length);
                return reply;
            }
            let mut chunk = vec![0; 64 * 1024];
            let length = self.stream.read(&mut chunk).await.expect("an open connection");
            assert!(length > 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.read));
            self.read.extend_from_slice(&chunk[..length]);
        }
    }
}

/// The reply at the start of the bytes, and its length; `None` if it is not complete.
fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = String::from_utf8_lossy(&bytes[1..end]).into_owned();
    let after = end + 2;
    let number = || line.parse::<i64>().expect("a number");
    match bytes[0] {
        b'+' => Some((Reply::Simple(line), after)),
        b'-' => Some((Reply::Error(line), after)),
        b':' => Some((Reply::Integer(number()), after)),
        b'_' => Some((Reply::Null, after)),
        b'$' | b'=' if number() >= 0 => {
            let length = number() as usize;
            let content = bytes.get(after..after + length + 2)?;
            assert!(content.ends_with(b"\r\n"), "a string ends where its length says");
            let content = &content[..length];
            let reply = match bytes[0] {
                b'=' => Reply::Verbatim(String::from_utf8_lossy(&content[4..]).into_owned()),
                _ => bulk(content),
            };
            Some((reply, after + length + 2))
        }
        b'$' => Some((Reply::Null, after)),
        b'*' | b'~' if number() >= 0 => {
            let (mut elements, mut at) = (Vec::new(), after);
            for _ in 0..number() {
                let (element, length) = parse(&bytes[at..])?;
                elements.push(element);
                at += length;
            }
            Some((Reply::Array(elements), at))
        }
        b'*' => Some((Reply::Null, after)),
        b'%' => {
            let (mut pairs, mut at) = (Vec::new(), after);
            for _ in 0..number() {
                let (key, length) = parse(&bytes[at..])?;
                at += length;
                let (value, length) = parse(&bytes[at..])?;
                at += length;
                pairs.push((key, value));
            }
            Some((Reply::Map(pairs), at))
        }
        mark => panic!("an unknown reply {:?}: {line}", char::from(mark)),
    }
}
