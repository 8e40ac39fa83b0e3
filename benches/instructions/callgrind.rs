//! A program under callgrind, which is asked for its counts while it runs.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program under callgrind; killed in the end.
pub struct Program {
    child: Child,
    /// Where callgrind writes, with a number behind it.
    counts: PathBuf,
    dumps: u32,
}

impl Program {
    /// Starts `program`, with what `complete` adds to its command.
    pub fn start(program: impl AsRef<OsStr>, counts: PathBuf, complete: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
        // What valgrind says itself goes where it is seen only if something is wrong.
        command.arg(format!("--log-file={}", log(&counts).display()));
        command.arg(program).stdin(Stdio::null()).stdout(Stdio::null());
        complete(&mut command);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("valgrind does not start ({error}); `tests/install-tools.sh valgrind valgrind` installs it")
        });
        Self { child, counts, dumps: 0 }
    }

    /// Whether it goes on, as who waits for it wants to know.
    pub fn assert_runs(&mut self) {
        let ended = self.child.try_wait().expect("the program can be waited for");
        assert!(ended.is_none(), "it ended at once, see above or {}", log(&self.counts).display());
    }

    /// Answers the instructions executed since it was asked last, or since the start.
    pub fn count(&mut self) -> u64 {
        let id = self.child.id();
        let asked = Command::new("vgdb").arg(format!("--pid={id}")).arg("dump").output();
        let asked = asked.expect("vgdb comes with valgrind");
        self.dumps += 1;
        let path = PathBuf::from(format!("{}.{}", self.counts.display(), self.dumps));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; vgdb says {}", path.display(), String::from_utf8_lossy(&asked.stderr))
        });
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        total.and_then(|total| total.trim().parse().ok()).expect("callgrind writes the total")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log(counts: &Path) -> PathBuf {
    let mut path = counts.as_os_str().to_owned();
    path.push(".log");
    path.into()
}

pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    socket.expect("loopback has a free port").port()
}
