//! Redis servers, and a raw connection to look into them.
//!
//! The whole test process shares three servers, and each test uses its own namespaces. Tests that kill, stop or fill
//! a server start their own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{self, Process, Signal};
use super::release::Release;
use super::{ports, scratch};

/// A Redis server without persistence: after a restart it is empty.
pub struct Redis {
    port: u16,
    process: Option<Process>,
    folder: TempDir,
    options: Options,
}

/// CPU times of a thread since it started.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// On a CPU.
    pub ran: Duration,
    /// Ready to run, but waiting for a free CPU.
    pub waited: Duration,
}

/// How a test's own server differs from the shared ones.
#[derive(Clone, Debug)]
struct Options {
    release: Release,
    /// More words on the command line.
    arguments: Vec<String>,
    /// Whether the server gets a higher CPU priority than other processes.
    preferred: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { release: Release::chosen(), arguments: Vec::new(), preferred: false }
    }
}

/// The three shards of the shared services, in the order of their names `a`, `b`, `c`.
pub fn shared() -> &'static [Redis; 3] {
    static SHARED: OnceLock<[Redis; 3]> = OnceLock::new();
    SHARED.get_or_init(Redis::three)
}

impl Redis {
    /// Starts a server on a free port and waits until it answers.
    pub fn start() -> Redis {
        Redis::start_with(&Options::default())
    }

    fn start_with(options: &Options) -> Redis {
        for _ in 0..10 {
            let mut redis = Redis { options: options.clone(), ..Redis::reserved() };
            if redis.try_run() {
                return redis;
            }
        }
        panic!("redis-server found no free port in ten attempts");
    }

    /// Three servers with more words on their command lines, such as `--maxmemory`, `8mb`.
    pub fn three_with(arguments: &[&str]) -> [Redis; 3] {
        let options =
            Options { arguments: arguments.iter().map(|&word| word.to_owned()).collect(), ..Options::default() };
        [0; 3].map(|_| Redis::start_with(&options))
    }

    /// Three servers for measurements. They get a higher CPU priority where the kernel allows it. [`Redis::turns`]
    /// tells how long they still waited for a CPU.
    pub fn three_preferred() -> [Redis; 3] {
        let options = Options { preferred: true, ..Options::default() };
        [0; 3].map(|_| Redis::start_with(&options))
    }

    /// A server with more words on its command line.
    pub fn start_as(arguments: &[&str]) -> Redis {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Redis::start_with(&Options { arguments, ..Options::default() })
    }

    /// Replaces the additional words for the next start of the server.
    pub fn becomes(&mut self, arguments: &[&str]) {
        self.options.arguments = arguments.iter().map(|&word| word.to_owned()).collect();
    }

    /// Three servers of this release.
    pub fn three_of(release: Release) -> [Redis; 3] {
        let options = Options { release, ..Options::default() };
        [0; 3].map(|_| Redis::start_with(&options))
    }

    /// Three servers that belong to one test.
    pub fn three() -> [Redis; 3] {
        [Redis::start(), Redis::start(), Redis::start()]
    }

    /// A port. Nothing listens on it until [`Redis::run`].
    pub fn reserved() -> Redis {
        Redis { port: ports::free(), process: None, folder: scratch::folder("redis"), options: Options::default() }
    }

    /// Starts the server on its port, for the first time or again.
    pub fn run(&mut self) {
        assert!(self.try_run(), "redis-server does not start on port {}", self.port);
    }

    /// SIGKILL; the port is free afterwards.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the Redis runs");
        process.kill();
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("the Redis runs").signal(signal);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> Connection {
        let mut connection = Connection::open(self.port).expect("the Redis accepts connections");
        connection.command(&["CLIENT", "SETNAME", OBSERVER]);
        connection
    }

    /// The CPU times of the thread that executes the commands.
    pub fn turns(&self) -> Turns {
        let process = self.process.as_ref().expect("the Redis runs");
        let id = process.id();
        let path = format!("/proc/{id}/task/{id}/schedstat");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // Nanoseconds on a CPU, nanoseconds waiting for one, number of turns.
        let numbers: Vec<u64> = text.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let [ran, waited, _] = numbers.as_slice() else { panic!("{path} says {text:?}") };
        Turns { ran: Duration::from_nanos(*ran), waited: Duration::from_nanos(*waited) }
    }

    fn try_run(&mut self) -> bool {
        let program = self.options.release.program();
        let mut command = if self.options.preferred {
            // Without the permission for this, `nice` prints a message and runs the program anyway.
            let mut command = process::dying_with_us(&process::program_named("nice", "coreutils"), Signal::Kill);
            command.args(["-n", "-10"]).arg(program);
            command
        } else {
            process::dying_with_us(&program, Signal::Kill)
        };
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.options.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::spawn(command, Signal::Kill);
        let deadline = Instant::now() + Duration::from_secs(20);
        while process.exited().is_none() {
            if let Some(id) = answering_process(self.port) {
                // A server that refuses INFO was started without it, so it is ours.
                let ours = id.is_none_or(|id| id == process.id());
                self.process = ours.then_some(process);
                return ours;
            }
            assert!(Instant::now() < deadline, "redis-server on port {} does not answer", self.port);
            std::thread::sleep(process::TICK);
        }
        false
    }
}

/// The client name of the tests' own connections in Redis.
pub const OBSERVER: &str = "tests";

/// The setting `redis_shards` for these servers, named `a`, `b`, `c` and so on.
pub fn shards(servers: &[Redis]) -> String {
    let named: Vec<String> =
        ('a'..='z').zip(servers).map(|(name, server)| format!("{name}={}", server.url())).collect();
    named.join(",")
}

/// The process id of the Redis that answers on `port`, if one does. `Some(None)` if its `INFO` command is disabled.
fn answering_process(port: u16) -> Option<Option<u32>> {
    let info = Connection::open(port).ok()?.try_command(&["INFO", "server"]).ok()?;
    match info {
        Reply::Bulk(Some(text)) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            text.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok().map(Some)
        }
        Reply::Error(error) if error.contains("unknown command") => Some(None),
        _ => None,
    }
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
            other => other.text().parse().unwrap_or_else(|_| panic!("{other:?} is not a whole number")),
        }
    }

    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Reply::Simple(text) => text.clone(),
            Reply::Bulk(Some(bytes)) => String::from_utf8(bytes.clone()).expect("UTF-8"),
            other => panic!("{other:?} is not text"),
        }
    }

    #[track_caller]
    pub fn items(&self) -> &[Reply] {
        let Reply::Array(items) = self else { panic!("{self:?} is not an array") };
        items
    }

    /// The texts of an array.
    #[track_caller]
    pub fn texts(&self) -> Vec<String> {
        self.items().iter().map(Reply::text).collect()
    }

    /// The texts of an array, sorted.
    #[track_caller]
    pub fn sorted(&self) -> Vec<String> {
        let mut texts = self.texts();
        texts.sort();
        texts
    }
}

/// A command in the RESP2 format.
fn encoded(words: &[&str]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    request
}

/// A connection that sends a command and waits for its reply.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(port: u16) -> io::Result<Connection> {
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

    /// Sends many commands at once and waits for all replies; an error reply fails the test.
    #[track_caller]
    pub fn pipeline<'w>(&mut self, commands: impl IntoIterator<Item = Vec<&'w str>>) -> Vec<Reply> {
        /// Few enough that no socket buffer fills up before the replies are read.
        const AT_ONCE: usize = 500;
        let commands: Vec<Vec<&str>> = commands.into_iter().collect();
        let mut replies = Vec::with_capacity(commands.len());
        for some in commands.chunks(AT_ONCE) {
            let request: Vec<u8> = some.iter().flat_map(|words| encoded(words)).collect();
            self.stream.get_mut().write_all(&request).expect("the Redis takes commands");
            for words in some {
                match self.read_reply() {
                    Ok(Reply::Error(error)) => panic!("Redis answers {words:?} with {error}"),
                    Ok(reply) => replies.push(reply),
                    Err(error) => panic!("Redis does not answer {words:?}: {error}"),
                }
            }
        }
        replies
    }

    /// Every key that matches `pattern`, sorted. SCAN finds them in short steps that do not block other clients.
    pub fn scan(&mut self, pattern: &str) -> Vec<String> {
        let (mut keys, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let reply = self.command(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "1000"]);
            let Reply::Array(parts) = reply else { panic!("{reply:?} is not an answer to SCAN") };
            keys.extend(parts[1].texts());
            cursor = parts[0].text();
            if cursor == "0" {
                break;
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    /// A number in `INFO`, or 0 if the field is missing.
    pub fn info(&mut self, section: &str, field: &str) -> u64 {
        let text = self.command(&["INFO", section]).text();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map_or(0, |number| number.trim().parse().unwrap_or_else(|_| panic!("{field} is {number:?}")))
    }

    pub fn configure(&mut self, name: &str, value: &str) {
        self.command(&["CONFIG", "SET", name, value]);
    }

    pub fn try_command(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.stream.get_mut().write_all(&encoded(words))?;
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
