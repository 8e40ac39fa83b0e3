//! A child process that dies with the tests: when its owner is dropped, and when the test process
//! itself goes away, however it goes.
//!
//! The second half is the kernel's parent-death signal, set by `setpriv --pdeathsig`. It fires when
//! the *thread* that spawned the child ends, and the threads of libtest end with each test, so every
//! child is spawned by one thread that never ends.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How often a wait for a process or a port looks again.
pub const TICK: Duration = Duration::from_millis(5);

/// The signals the tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Cont,
    Int,
    Kill,
    Quit,
    Stop,
    Term,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Cont => "CONT",
            Signal::Int => "INT",
            Signal::Kill => "KILL",
            Signal::Quit => "QUIT",
            Signal::Stop => "STOP",
            Signal::Term => "TERM",
        }
    }
}

/// A running child, ended when dropped.
pub struct Process {
    child: Child,
    end: Signal,
}

impl Process {
    /// Starts `command` (see [`dying_with_us`]); `end` is the signal that ends it on drop. Servers with
    /// children of their own want one they can act on, so that these go with them.
    pub fn spawn(command: Command, end: Signal) -> Process {
        let shown = format!("{command:?}");
        match spawn_from_the_lasting_thread(command) {
            Ok(child) => Process { child, end },
            Err(error) => panic!("{shown} does not start: {error}"),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal; a process that is stopped stands still when this returns.
    pub fn signal(&self, signal: Signal) {
        self::signal(&[self.id()], signal);
        if signal == Signal::Stop {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !stands_still(self.id()) {
                assert!(Instant::now() < deadline, "process {} does not stop", self.id());
                thread::sleep(TICK);
            }
        }
    }

    /// The exit status, or `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Waits for the end of the process for at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(TICK);
        }
    }

    /// Ends the process with its own signal, then with SIGKILL, and reaps it.
    pub fn end(&mut self) {
        if self.exited().is_some() {
            return;
        }
        if self.end != Signal::Kill {
            self.signal(self.end);
            if self.wait(Duration::from_secs(10)).is_some() {
                return;
            }
        }
        self.kill();
    }

    /// SIGKILL, and reap: afterwards the process is gone and its ports are free.
    pub fn kill(&mut self) {
        // An error means that it has exited by itself in the meantime.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Signals processes that the tests started.
pub fn signal(processes: &[u32], signal: Signal) {
    // The shell's own `kill`: /bin/kill is not on every machine, and std has only SIGKILL.
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$@\"", signal.name()])
        .args(processes.iter().map(u32::to_string))
        .status()
        .expect("sh is on every Debian machine");
    assert!(status.success(), "SIG{} to processes {processes:?} failed", signal.name());
}

/// Whether every thread of a process is stopped.
fn stands_still(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("the process is there");
    let mut stats = threads.map(|thread| {
        let path = thread.expect("the process is there").path().join("stat");
        std::fs::read_to_string(path).unwrap_or_default()
    });
    // The state stands behind the name, which may hold anything.
    stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, behind)| behind.starts_with('T')))
}

/// The processes that `parent` started and that still run.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc can be read");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        // The fields behind the name, which may hold anything: state, then the parent.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
        behind.split(' ').nth(1).and_then(|id| id.parse().ok()) == Some(parent)
    };
    ids.filter(is_child).collect()
}

/// A command for `program` that receives `signal` when the test process dies.
pub fn dying_with_us(program: &Path, signal: Signal) -> Command {
    dying_with_us_as(None, program, signal)
}

/// The same, run as another user and that user's group.
pub fn dying_with_us_as(user: Option<&str>, program: &Path, signal: Signal) -> Command {
    let mut command = Command::new(program_named("setpriv", "util-linux"));
    command.arg("--pdeathsig").arg(signal.name());
    if let Some(user) = user {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// The same, with a file in place of /etc/hosts, in a view of the file system that is the command's own.
pub fn with_hosts(hosts: &Path, program: &Path, signal: Signal) -> Command {
    let mut command = Command::new(program_named("unshare", "util-linux"));
    if !is_root() {
        command.arg("--map-root-user");
    }
    // The signal is set last, as the kernel forgets it where rights change.
    let script = "mount --bind \"$0\" /etc/hosts && exec setpriv --pdeathsig \"$@\"";
    command.args(["--mount", "--", "sh", "-c", script]).arg(hosts).args([signal.name(), "--"]).arg(program);
    command
}

/// The path of an installed program. Looks into the folders Debian keeps off the PATH, too.
///
/// Panics with the line that installs it when it is missing.
pub fn program_named(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut found: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
        found.sort();
        found.reverse();
        folders.extend(found);
    }
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is missing; install it: apt-get install {package}"))
}

/// Whether the tests run as root, which some servers refuse.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0
}

struct Order {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for mut order in inbox {
                // Whoever asked may have panicked; then the child is dropped by the channel.
                let _ = order.reply.send(order.command.spawn());
            }
        })
        .expect("a thread can be started");
    orders
});

fn spawn_from_the_lasting_thread(command: Command) -> io::Result<Child> {
    let (reply, answer) = mpsc::channel();
    SPAWNER.send(Order { command, reply }).expect("the spawner thread never ends");
    answer.recv().expect("the spawner answers every order")
}
