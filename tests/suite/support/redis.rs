//! Redis servers, and a look into them over a bare connection.
//!
//! Three are shared by the whole test process and told apart by namespaces; tests that kill, stop or
//! fill a server start their own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{self, Process, Signal};
use super::{ports, scratch};

/// A Redis server without persistence: whoever restarts it finds it empty.
pub struct Redis {
    port: u16,
    process: Option<Process>,
    folder: TempDir,
}

/// The three shards of the shared services, in the order of their names `a`, `b`, `c`.
pub fn shared() -> &'static [Redis; 3] {
    static SHARED: OnceLock<[Redis; 3]> = OnceLock::new();
    SHARED.get_or_init(Redis::three)
}

impl Redis {
    /// Starts a server on a free port and waits until it answers.
    pub fn start() -> Redis {
        for _ in 0..10 {
            let mut redis = Redis::reserved();
            if redis.try_run() {
                return redis;
            }
        }
        panic!("redis-server found no free port in ten attempts");
    }

    /// Three servers of one's own.
    pub fn three() -> [Redis; 3] {
        [Redis::start(), Redis::start(), Redis::start()]
    }

    /// A port on which nothing runs until [`Redis::run`].
    pub fn reserved() -> Redis {
        Redis { port: ports::free(), process: None, folder: scratch::folder("redis") }
    }

    /// Starts the server on its port, again or for the first time.
    pub fn run(&mut self) {
        assert!(self.try_run(), "redis-server does not start on port {}", self.port);
    }

    /// SIGKILL; the port is free afterwards.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a Redis that runs can be killed");
        process.kill();
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("the Redis runs").signal(signal);
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.port).expect("the Redis accepts connections")
    }

    fn try_run(&mut self) -> bool {
        let program = process::program_named("redis-server", "redis-server");
        let mut command = process::dying_with_us(&program, Signal::Kill);
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::spawn(command, Signal::Kill);
        let deadline = Instant::now() + Duration::from_secs(20);
        while process.exited().is_none() {
            if let Some(id) = answering_process(self.port) {
                let ours = id == process.id();
                self.process = ours.then_some(process);
                return ours;
            }
            assert!(Instant::now() < deadline, "redis-server on port {} does not answer", self.port);
            std::thread::sleep(process::TICK);
        }
        false
    }
}

/// The setting `redis_shards` for these servers, named `a`, `b`, `c` and so on.
pub fn shards(servers: &[Redis]) -> String {
    let named: Vec<String> =
        ('a'..='z').zip(servers).map(|(name, server)| format!("{name}={}", server.url())).collect();
    named.join(",")
}

/// The id of the Redis process that answers on `port`, if one does.
fn answering_process(port: u16) -> Option<u32> {
    let info = Connection::open(port).ok()?.try_command(&["INFO", "server"]).ok()?;
    let Reply::Bulk(Some(text)) = info else {
        return None;
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
}

/// A reply of the RESP2 protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

impl Reply {
    /// A whole number, from an integer or from text.
    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self {
            Reply::Integer(number) => *number,
            other => other.text().parse().unwrap_or_else(|_| panic!("{other:?} is no whole number")),
        }
    }

    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Reply::Simple(text) => text.clone(),
            Reply::Bulk(Some(bytes)) => String::from_utf8(bytes.clone()).expect("UTF-8"),
            other => panic!("{other:?} is no text"),
        }
    }

    /// The texts of an array, sorted.
    #[track_caller]
    pub fn sorted(&self) -> Vec<String> {
        let Reply::Array(items) = self else { panic!("{self:?} is no array") };
        let mut texts: Vec<String> = items.iter().map(Reply::text).collect();
        texts.sort();
        texts
    }
}

/// A connection that sends a command and waits for its reply.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(port: u16) -> io::Result<Connection> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends a command; an error reply fails the test.
    #[track_caller]
    pub fn command(&mut self, words: &[&str]) -> Reply {
        match self.try_command(words) {
            Ok(Reply::Error(error)) => panic!("Redis answers {words:?} with {error}"),
            Ok(reply) => reply,
            Err(error) => panic!("Redis does not answer {words:?}: {error}"),
        }
    }

    /// Every key that matches `pattern`, sorted.
    pub fn keys(&mut self, pattern: &str) -> Vec<String> {
        self.command(&["KEYS", pattern]).sorted()
    }

    fn try_command(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.stream.get_mut().write_all(&request)?;
        self.read_reply()
    }

    fn read_reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
        let number = || rest.parse::<i64>().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        match kind {
            "+" => Ok(Reply::Simple(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Integer(number()?)),
            "$" => {
                let Ok(length) = usize::try_from(number()?) else {
                    return Ok(Reply::Bulk(None));
                };
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Reply::Bulk(Some(bytes)))
            }
            "*" => {
                let count = number()?.max(0);
                (0..count).map(|_| self.read_reply()).collect::<io::Result<Vec<_>>>().map(Reply::Array)
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
