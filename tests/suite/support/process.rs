//! Child processes that end with the tests: when their owner is dropped, and when the test process ends for any
//! reason.
//!
//! For the second, `setpriv --pdeathsig` sets the kernel's parent-death signal. The kernel sends it when the *thread*
//! that spawned the child ends. The threads of libtest end with each test, so one thread that never ends spawns all
//! children.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The interval at which waits for a process or a port check again.
pub const TICK: Duration = Duration::from_millis(5);

/// The signals that the tests send.
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
    /// Starts `command`, which [`dying_with_us`] made. On drop the process gets the signal `end`. A server with child
    /// processes needs a signal it can handle, so that it ends its children as well.
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

    /// The child, for access to its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal. After SIGSTOP it returns when all threads of the process are stopped.
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

    /// The exit status, or `None` while the process runs.
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

    /// Sends the signal that was set for the end, then SIGKILL if the process still runs, and reaps it.
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

    /// SIGKILL, and reaps the process. Afterwards its ports are free.
    pub fn kill(&mut self) {
        // An error means that the process has exited in the meantime.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a signal to processes that the tests started.
pub fn signal(processes: &[u32], signal: Signal) {
    // Uses the shell's builtin `kill`: not every machine has /bin/kill, and std supports only SIGKILL.
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
    // The state follows the name. The name may contain any character.
    stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, behind)| behind.starts_with('T')))
}

/// The running child processes of `parent`.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc can be read");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        // The fields after the name, which may contain any character: the state, then the parent.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
        behind.split(' ').nth(1).and_then(|id| id.parse().ok()) == Some(parent)
    };
    ids.filter(is_child).collect()
}

/// A command for `program` that gets `signal` when the test process dies.
pub fn dying_with_us(program: &Path, signal: Signal) -> Command {
    dying_with_us_as(None, program, signal)
}

/// Like [`dying_with_us`], but as another user and with that user's group.
pub fn dying_with_us_as(user: Option<&str>, program: &Path, signal: Signal) -> Command {
    let mut command = Command::new(program_named("setpriv", "util-linux"));
    command.arg("--pdeathsig").arg(signal.name());
    if let Some(user) = user {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Like [`dying_with_us`], but the command sees `hosts` in place of /etc/hosts, in its own mount namespace.
pub fn with_hosts(hosts: &Path, program: &Path, signal: Signal) -> Command {
    let mut command = Command::new(program_named("unshare", "util-linux"));
    if !is_root() {
        command.arg("--map-root-user");
    }
    // The signal is set last, since the kernel clears it when privileges change.
    let script = "mount --bind \"$0\" /etc/hosts && exec setpriv --pdeathsig \"$@\"";
    command.args(["--mount", "--", "sh", "-c", script]).arg(hosts).args([signal.name(), "--"]).arg(program);
    command
}

/// The path of an installed program. Also searches the folders that Debian does not put on the PATH.
///
/// If the program is missing, it panics with the command that installs it.
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

/// Whether the tests run as root. Some servers refuse to run as root.
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
                // If the caller has panicked, the channel drops the child.
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
