//! The real sidecache binary as a child process, and its settings.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;
use super::process::{self, Process, Signal};
use super::redis::{self, Redis};
use super::{postgres, scratch};

/// The limit for the service to start listening, and to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two stores. Every functional promise holds on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The in-process store with SQLite.
    Embedded,
    /// Three Redis shards with PostgreSQL.
    Shards,
}

impl Store {
    /// Settings for a test's own service, with its own database.
    pub fn settings(self) -> Settings {
        match self {
            Store::Embedded => Settings::embedded(),
            Store::Shards => Settings::shards(),
        }
    }

    /// The service that the tests of this process share. Each test uses its own namespaces.
    pub fn shared_service(self) -> &'static Service {
        static EMBEDDED: OnceLock<Service> = OnceLock::new();
        static SHARDS: OnceLock<Service> = OnceLock::new();
        let service = match self {
            Store::Embedded => &EMBEDDED,
            Store::Shards => &SHARDS,
        };
        service.get_or_init(|| Service::start(self.settings()))
    }
}

/// The settings that the binary is started with.
#[derive(Clone)]
pub struct Settings {
    store: Store,
    environment: BTreeMap<String, String>,
    arguments: Vec<String>,
    folder: Option<PathBuf>,
    descriptors: Option<u64>,
    hosts: Option<PathBuf>,
}

impl Settings {
    /// Only free ports, and otherwise the defaults.
    pub fn none() -> Settings {
        let none = Settings {
            store: Store::Embedded,
            environment: BTreeMap::new(),
            arguments: Vec::new(),
            folder: None,
            descriptors: None,
            hosts: None,
        };
        none.set("listen", "127.0.0.1:0").set("resp_listen", "127.0.0.1:0")
    }

    /// The embedded store, with SQLite at its default place in a new working folder.
    pub fn embedded() -> Settings {
        Settings::none().patient().lasting()
    }

    /// The three shared Redis servers and a new database in the shared PostgreSQL.
    pub fn shards() -> Settings {
        Settings::on(redis::shared())
    }

    /// These Redis servers and a new database in the shared PostgreSQL.
    pub fn on(servers: &[Redis]) -> Settings {
        let settings = Settings { store: Store::Shards, ..Settings::none() };
        settings
            .patient()
            .lasting()
            .set("redis_shards", redis::shards(servers))
            .set("database_url", postgres::shared().fresh_database())
    }

    /// Sets a setting, by its name in the TOML file, through the environment.
    pub fn set(self, name: &str, value: impl Display) -> Settings {
        self.variable(&variable(name), value)
    }

    /// Sets an environment variable that is not a setting.
    pub fn variable(mut self, name: &str, value: impl Display) -> Settings {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Resets a setting to its default.
    pub fn unset(mut self, name: &str) -> Settings {
        self.environment.remove(&variable(name));
        self
    }

    /// Adds a word to the command line.
    pub fn argument(mut self, word: impl Display) -> Settings {
        self.arguments.push(word.to_string());
        self
    }

    /// Sets the working folder, for a service that starts again on the files of an earlier run.
    pub fn folder(mut self, folder: &Path) -> Settings {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Sets a hard limit on file descriptors.
    pub fn descriptors(mut self, limit: u64) -> Settings {
        self.descriptors = Some(limit);
        self
    }

    /// Sets a file that the service sees as /etc/hosts. The file may be changed in place later.
    pub fn hosts(mut self, file: &Path) -> Settings {
        self.hosts = Some(file.to_owned());
        self
    }

    /// Long timeouts, so that a loaded machine does not fail tests that are not about timeouts.
    fn patient(self) -> Settings {
        self.set("redis_timeout_ms", 5_000).set("request_timeout_ms", 20_000).set("database_timeout_ms", 10_000)
    }

    /// Namespaces whose entries never expire and are never evicted, for tests that are not about the defaults.
    fn lasting(self) -> Settings {
        self.set("default_ttl", 0).set("default_max_size_mb", 0)
    }

    fn command(&self, folder: &Path) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_sidecache"));
        let mut command = match (self.descriptors, &self.hosts) {
            (None, None) => process::dying_with_us(program, Signal::Kill),
            (None, Some(hosts)) => process::with_hosts(hosts, program, Signal::Kill),
            (Some(limit), _) => {
                let prlimit = process::program_named("prlimit", "util-linux");
                let mut command = process::dying_with_us(&prlimit, Signal::Kill);
                command.arg(format!("--nofile={limit}:{limit}")).arg(program);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SIDECACHE_") {
                command.env_remove(name);
            }
        }
        command
            .args(&self.arguments)
            .envs(&self.environment)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// The environment variable of a setting.
pub fn variable(name: &str) -> String {
    format!("SIDECACHE_{}", name.to_uppercase())
}

/// A running service. It is killed when dropped. If its test fails, the log is printed.
pub struct Service {
    process: Process,
    address: SocketAddr,
    settings: Settings,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    folder: PathBuf,
    _own_folder: Option<TempDir>,
}

impl Service {
    /// Starts the binary and waits until it is healthy. The service listens before its shards and its database are
    /// connected.
    pub fn start(settings: Settings) -> Service {
        let mut service = Service::launch(settings);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match health(service.address) {
                Ok(answer) if answer.contains("\"healthy\"") => return service,
                seen => {
                    let ended = service.process.exited();
                    let log = text_of(&service.stderr);
                    assert!(
                        ended.is_none() && Instant::now() < deadline,
                        "sidecache did not become healthy (ended: {ended:?}): {seen:?}; its log:\n{log}"
                    );
                    thread::sleep(process::TICK);
                }
            }
        }
    }

    /// Starts the binary and waits only for the line with the address that it listens on.
    pub fn launch(settings: Settings) -> Service {
        let own_folder = settings.folder.is_none().then(|| scratch::folder("service"));
        let folder = match (&settings.folder, &own_folder) {
            (Some(folder), _) => folder.clone(),
            (None, own) => own.as_ref().expect("made when none was given").path().to_owned(),
        };
        let mut process = Process::spawn(settings.command(&folder), Signal::Kill);
        let child = process.child();
        let (lines, said) = mpsc::channel();
        // The line is on stdout, or in the log if the log is JSON.
        let stdout = gather(child.stdout.take().expect("stdout is piped"), lines.clone());
        let stderr = gather(child.stderr.take().expect("stderr is piped"), lines);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(address) = listening_address(&line) {
                        return Service {
                            process,
                            address,
                            settings,
                            stdout,
                            stderr,
                            folder,
                            _own_folder: own_folder,
                        };
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = process.wait(PATIENCE);
                    panic!("sidecache ended with {status:?} instead of listening; its log:\n{}", text_of(&stderr));
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("sidecache did not listen within {PATIENCE:?}; its log:\n{}", text_of(&stderr));
                }
            }
        }
    }

    /// A new client. Each test needs its own, since a client belongs to the runtime of its test.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for Redis clients, from the log.
    pub fn redis_address(&self) -> SocketAddr {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("listening for Redis clients")).expect("a line in the log");
        let (_, rest) = line.split_once("127.0.0.1:").expect("an address in the line");
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        format!("127.0.0.1:{port}").parse().expect("an address")
    }

    pub fn store(&self) -> Store {
        self.settings.store
    }

    /// The working folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything that the service has written to stdout so far.
    pub fn stdout(&self) -> String {
        text_of(&self.stdout)
    }

    /// Everything that the service has written to its log so far.
    pub fn log(&self) -> String {
        text_of(&self.stderr)
    }

    /// The resident memory now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The highest resident memory since [`Service::forget_peak`], in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Resets the peak, see `clear_refs` in proc(5).
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5")
            .expect("the service is a child of this process");
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the service runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a process has memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends SIGTERM and returns the exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::Term);
        self.ended()
    }

    /// Waits until the service has ended after a signal.
    pub fn ended(&mut self) -> ExitStatus {
        self.process.wait(PATIENCE).unwrap_or_else(|| panic!("sidecache did not end within {PATIENCE:?}"))
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// A guard for a test on a shared service: if the test fails, the log is printed.
    pub fn log_on_failure(&self) -> LogOnFailure<'_> {
        LogOnFailure(self)
    }

    fn show_log(&self) {
        let log = text_of(&self.stderr);
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(60)..];
        eprintln!("--- sidecache at {} logged last:\n{}\n---", self.address, last.join("\n"));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_log();
        }
    }
}

/// See [`Service::log_on_failure`].
pub struct LogOnFailure<'a>(&'a Service);

impl Drop for LogOnFailure<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.show_log();
        }
    }
}

/// The result of a run that ended by itself.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary with settings with which it ends by itself.
#[track_caller]
pub fn run(settings: &Settings) -> Finished {
    let folder = scratch::folder("run");
    let place = settings.folder.clone().unwrap_or_else(|| folder.path().to_owned());
    let mut process = Process::spawn(settings.command(&place), Signal::Kill);
    let child = process.child();
    let (lines, end_of_stdout) = mpsc::channel();
    let stdout = gather(child.stdout.take().expect("stdout is piped"), lines);
    let (lines, end_of_stderr) = mpsc::channel();
    let stderr = gather(child.stderr.take().expect("stderr is piped"), lines);
    let Some(status) = process.wait(PATIENCE) else {
        panic!("sidecache should have ended by itself; stdout:\n{}\nstderr:\n{}", text_of(&stdout), text_of(&stderr));
    };
    // The process has ended, so both pipes and both channels end.
    end_of_stdout.iter().for_each(drop);
    end_of_stderr.iter().for_each(drop);
    Finished { status, stdout: text_of(&stdout), stderr: text_of(&stderr) }
}

/// The answer of `/health`, read without an async runtime.
fn health(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listens on http://")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn text_of(text: &Mutex<String>) -> String {
    text.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Collects all lines of a pipe, and passes them on as long as the receiver exists.
fn gather(pipe: impl Read + Send + 'static, lines: mpsc::Sender<String>) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let gathered = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            {
                let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                gathered.push_str(&line);
                gathered.push('\n');
            }
            // After the start the receiver is gone.
            let _ = lines.send(line);
        }
    });
    text
}
