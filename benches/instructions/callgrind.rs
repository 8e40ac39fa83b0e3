//! A program under callgrind, whose counts can be read while it runs.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program under callgrind; killed when dropped.
pub struct Program {
    child: Child,
    /// callgrind's output files: this path plus a number.
    counts: PathBuf,
    dumps: u32,
}

impl Program {
    /// Starts `program`; `complete` adds arguments to its command.
    pub fn start(program: impl AsRef<OsStr>, counts: PathBuf, complete: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
        // valgrind's own messages go to a file, for use if something goes wrong.
        command.arg(format!("--log-file={}", log(&counts).display()));
        command.arg(program).stdin(Stdio::null()).stdout(Stdio::null());
        complete(&mut command);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("valgrind does not start ({error}); `tests/install-tools.sh valgrind valgrind` installs it")
        });
        Self { child, counts, dumps: 0 }
    }

    /// Panics if the program has ended.
    pub fn assert_runs(&mut self) {
        let ended = self.child.try_wait().expect("the program can be waited for");
        assert!(ended.is_none(), "it ended at once, see above or {}", log(&self.counts).display());
    }

    /// Returns the number of instructions executed since the last call, or since the start.
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
        // Fails only if the program has already ended.
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
