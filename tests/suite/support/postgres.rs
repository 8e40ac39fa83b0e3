//! PostgreSQL servers. The whole test process shares one server, with a new database for each service. Tests that
//! stop the server start their own.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{self, Process, Signal};
use super::{ports, scratch};

/// The unprivileged user of Debian's package; PostgreSQL refuses to run as root.
const USER: &str = "postgres";
const PACKAGE: &str = "postgresql";

pub struct Postgres {
    port: u16,
    process: Option<Process>,
    folder: TempDir,
    /// More settings, as `name=value`.
    settings: Vec<String>,
}

/// The server for all tests that do not disturb it.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(Postgres::start)
}

impl Postgres {
    /// Creates a cluster, starts its server on a free port and waits until it answers.
    pub fn start() -> Postgres {
        let mut postgres = Postgres::reserved();
        for _ in 0..10 {
            if postgres.try_run() {
                return postgres;
            }
            postgres.port = ports::free();
        }
        panic!("postgres found no free port in ten attempts; its log: {}", postgres.log());
    }

    /// Starts a server with more settings, as `name=value`, and with copies of files that only it can read. `{}` in a
    /// setting stands for their folder.
    pub fn start_with(files: &[(&str, &Path)], settings: &[&str]) -> Postgres {
        let mut postgres = Postgres::reserved();
        for (name, path) in files {
            let copy = postgres.folder.path().join(name);
            std::fs::copy(path, &copy).expect("a file can be copied");
            std::fs::set_permissions(&copy, Permissions::from_mode(0o600)).expect("our own file");
            if let Some(user) = other_user() {
                let (uid, gid) = ids(user);
                chown(&copy, Some(uid), Some(gid)).expect("root can change the owner");
            }
        }
        let folder = postgres.folder.path().display().to_string();
        postgres.settings = settings.iter().map(|setting| setting.replace("{}", &folder)).collect();
        postgres.run();
        postgres
    }

    /// A cluster and a port. Nothing listens until [`Postgres::run`].
    pub fn reserved() -> Postgres {
        let folder = scratch::folder("postgres");
        if let Some(user) = other_user() {
            let (uid, gid) = ids(user);
            chown(folder.path(), Some(uid), Some(gid)).expect("root can change the owner");
        }
        let initdb = process::program_named("initdb", PACKAGE);
        let made = process::dying_with_us_as(other_user(), &initdb, Signal::Kill)
            .args(["-N", "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(folder.path().join("data"))
            .current_dir("/")
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        Postgres { port: ports::free(), process: None, folder, settings: Vec::new() }
    }

    /// Starts the server on its port, for the first time or again.
    pub fn run(&mut self) {
        assert!(self.try_run(), "postgres does not start on port {}: {}", self.port, self.log());
    }

    /// A crash: connections are cut and nothing is cleaned up. (SIGKILL would leave the child processes running.)
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("PostgreSQL runs");
        process.signal(Signal::Quit);
        if process.wait(Duration::from_secs(20)).is_none() {
            process.kill();
        }
    }

    /// Pauses the server and all its child processes with SIGSTOP, until the guard is dropped.
    pub fn pause(&self) -> Paused {
        let server = self.process.as_ref().expect("PostgreSQL runs").id();
        // The server first, so that it starts no more children.
        process::signal(&[server], Signal::Stop);
        let mut processes = process::children(server);
        process::signal(&processes, Signal::Stop);
        processes.push(server);
        Paused(processes)
    }

    /// The URL of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Creates an empty database and returns its URL.
    pub fn fresh_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("sidecache_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.psql(&format!("CREATE DATABASE {name}")).unwrap_or_else(|error| panic!("CREATE DATABASE: {error}"));
        self.url(&name)
    }

    fn try_run(&mut self) -> bool {
        let program = process::program_named("postgres", PACKAGE);
        let log = std::fs::File::create(self.log_path()).expect("a log file can be made");
        let mut command = process::dying_with_us_as(other_user(), &program, Signal::Quit);
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1,::1",
            "fsync=off",
            "full_page_writes=off",
            "max_connections=300",
            "shared_buffers=32MB",
            "dynamic_shared_memory_type=mmap",
        ] {
            command.arg("-c").arg(setting);
        }
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        command
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.folder.path().display()))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SIGQUIT is PostgreSQL's immediate shutdown. It also ends the child processes and frees the shared memory.
        let mut process = Process::spawn(command, Signal::Quit);
        let deadline = Instant::now() + Duration::from_secs(30);
        while process.exited().is_none() {
            match self.psql("SHOW data_directory") {
                Ok(answer) if Path::new(answer.trim()) == self.data() => {
                    self.process = Some(process);
                    return true;
                }
                Ok(_) => return false,
                Err(_) => std::thread::sleep(process::TICK),
            }
            assert!(Instant::now() < deadline, "postgres on port {} does not answer: {}", self.port, self.log());
        }
        false
    }

    /// Executes SQL as the superuser, in the database `postgres`.
    pub fn psql(&self, sql: &str) -> Result<String, String> {
        let output = Command::new(process::program_named("psql", "postgresql-client"))
            .args(["-X", "-A", "-t", "-d", &self.url("postgres"), "-c", sql])
            .env("PGCONNECT_TIMEOUT", "5")
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

/// See [`Postgres::pause`].
pub struct Paused(Vec<u32>);

impl Drop for Paused {
    fn drop(&mut self) {
        process::signal(&self.0, Signal::Cont);
    }
}

pub(super) fn other_user() -> Option<&'static str> {
    process::is_root().then_some(USER)
}

/// The uid and gid of a user, read from /etc/passwd because std has no function for it.
pub(super) fn ids(user: &str) -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(user))
        .unwrap_or_else(|| panic!("there is no user {user}; install it: apt-get install {PACKAGE}"));
    let mut fields = line.split(':').skip(2).map(|field| field.parse().expect("a number in /etc/passwd"));
    let (uid, gid) = (fields.next(), fields.next());
    uid.zip(gid).expect("passwd lines have a uid and a gid")
}
