//! The conditions of the measurement: the machine, the versions of the programs, the commit.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::report::counted;
use crate::support::process::program_named;

/// The beginning of the report.
pub fn head(arguments: &str, took: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name");
    let memory = field("/proc/meminfo", "MemTotal");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let programs = [
        ("nginx", "nginx-light", "-v"),
        ("redis-server", "redis-server", "--version"),
        ("nutcracker", "nutcracker", "--version"),
        ("postgres", "postgresql", "--version"),
        ("wrk", "wrk", "--version"),
    ]
    .map(|(name, package, flag)| format!("- {}", said(&program_named(name, package), &[flag])));
    // webdis has no flag that shows its version.
    let webdis = said(Path::new("dpkg-query"), &["-W", "-f", "${Package} ${Version}", "webdis"]);
    format!(
        "# Results\n\n\
         Written by `make bench`{arguments} ({took}). `bench/main.rs` describes the method; in short:\n\n\
         - Servers and load generators run on one machine, share its cores and use loopback. Contestants take\n  \
         turns, round by round. Ratios compare runs that were next to each other. A figure is the median of the\n  \
         rounds, with minimum and maximum.\n\
         - **CPU per request** is (user + system seconds of a server's processes during a run) / requests\n  \
         answered. It is the cost of a sidecar, and steadier than throughput. The CPU of Redis is shown\n  \
         separately. The kernel counts in ticks of 10 ms.\n\
         - Throughput is measured with wrk, {} threads and {} keep-alive connections unless stated otherwise. wrk\n  \
         is a closed loop, so its latencies say little. Latencies in an open loop count from the moment at\n  \
         which the request was due.\n\
         - sidecache runs with its defaults (L1 of 64 MiB), but without an access log, because its peers write\n  \
         none either. Where a row says `logged`, every operation is written to the database. Rows name their\n  \
         other settings. Values are JSON strings of {} bytes; the answer to a GET also contains the metadata.\n\
         - A row fails if any request fails, misses or is refused.\n\n\
         ## Machine\n\n\
         - {cores} cores, {model}, {memory} of memory, Linux {}, load average {} at the end\n\
         - sidecache {} at {}\n{}\n- {webdis}\n",
        crate::load::wrk::THREADS,
        crate::load::CONNECTIONS,
        counted(crate::load::request::VALUE_BYTES as f64),
        kernel.trim(),
        load.split(' ').next().unwrap_or("unknown"),
        env!("CARGO_PKG_VERSION"),
        commit(),
        programs.join("\n"),
    )
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

/// The first line that a program prints, on stdout or stderr.
fn said(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return format!("{}: unknown", program.display());
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn commit() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let commit = said(Path::new("git"), &["-C", root, "rev-parse", "--short=12", "HEAD"]);
    let changed =
        Command::new("git").args(["-C", root, "diff", "--quiet", "HEAD", "--", "src", "Cargo.lock"]).status();
    let changed = if changed.is_ok_and(|status| !status.success()) { " with changes" } else { "" };
    format!("{commit}{changed}, profile `{}`", profile())
}

/// The folder below `target` that contains the binary.
fn profile() -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_sidecache"));
    let folder = binary.parent().and_then(Path::file_name);
    folder.map_or("unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}
