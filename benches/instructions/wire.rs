//! One connection, used for one request after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::callgrind::Program;

/// How long any step may take under callgrind.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Connection {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

/// A GET. Each line of `headers` ends with a line break.
pub fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n")
}

/// A PUT. Each line of `headers` ends with a line break.
pub fn put(path: &str, body: &str, headers: &str) -> String {
    let len = body.len();
    format!("PUT {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len}\r\n{headers}\r\n{body}")
}

impl Connection {
    /// Connects to `program`, which may still be starting.
    pub fn open(program: &mut Program, port: u16) -> Self {
        let began = Instant::now();
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed() < PATIENCE, "nothing listens on port {port}: {error}"),
            }
            program.assert_runs();
            std::thread::sleep(Duration::from_millis(50));
        };
        stream.set_nodelay(true).expect("a connection has options");
        stream.set_read_timeout(Some(PATIENCE)).expect("a connection has a deadline");
        Self { stream: BufReader::with_capacity(1 << 16, stream), body: Vec::new() }
    }

    /// Waits until the service is ready.
    pub fn until_ready(&mut self) {
        let began = Instant::now();
        while !self.exchange(&get("/readyz", "")).starts_with("HTTP/1.1 200") {
            assert!(began.elapsed() < PATIENCE, "the service does not become ready");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a request, which must succeed. Returns the head of the answer.
    pub fn ask(&mut self, question: &str) -> String {
        let head = self.exchange(question);
        assert!(head.starts_with("HTTP/1.1 20"), "{head}{}", String::from_utf8_lossy(&self.body));
        head
    }

    /// Repeats a request until the head of the answer contains `what`: L1 must first be filled and proven.
    pub fn ask_until(&mut self, question: &str, what: &str) {
        let began = Instant::now();
        loop {
            let head = self.ask(question);
            if head.contains(what) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{question}never got {what:?}, but {head}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn exchange(&mut self, question: &str) -> String {
        self.stream.get_mut().write_all(question.as_bytes()).expect("the service reads");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.stream.read_line(&mut head).expect("the service answers");
            assert!(read > 0, "the connection was closed after {head:?}");
        }
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        self.body.resize(length.unwrap_or(0), 0);
        self.stream.read_exact(&mut self.body).expect("the body is complete");
        head
    }

    /// Sends a command that is not HTTP, and checks the first line of the answer.
    pub fn expect(&mut self, command: &[u8], line: &[u8]) {
        self.stream.get_mut().write_all(command).expect("the server reads");
        let mut answer = Vec::new();
        self.stream.read_until(b'\n', &mut answer).expect("the server answers");
        assert!(answer.starts_with(line), "{}", String::from_utf8_lossy(&answer));
    }
}
