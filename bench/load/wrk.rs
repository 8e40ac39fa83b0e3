//! wrk (<https://github.com/wg/wrk>): as many requests as its connections get answered, for the peaks. Its
//! latencies are those of a closed loop: a server that stands still is asked nothing meanwhile.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::{Latency, Request, Traffic};
use crate::support::process::{self, Process, Signal};
use crate::support::scratch;

/// Threads of wrk, for everybody.
pub const THREADS: usize = 2;

/// Longer than wrk waits for its connections and its last answers.
const BEYOND: Duration = Duration::from_secs(30);

/// Requests in a file that wrk's script reads.
#[derive(Clone)]
pub struct Script {
    path: PathBuf,
    _folder: Arc<TempDir>,
}

impl Script {
    pub fn of(requests: &[Request]) -> anyhow::Result<Script> {
        let folder = scratch::folder("wrk");
        let path = folder.path().join("requests");
        let mut file = BufWriter::new(File::create(&path)?);
        for request in requests {
            writeln!(file, "{}", request.bytes.len())?;
            file.write_all(&request.bytes)?;
        }
        file.flush()?;
        Ok(Script { path, _folder: Arc::new(folder) })
    }
}

/// A load of wrk.
#[derive(Clone)]
pub struct Wrk {
    /// Its threads share these in turn.
    pub addresses: Vec<SocketAddr>,
    pub connections: usize,
    pub what: What,
}

#[derive(Clone)]
pub enum What {
    /// GET of one path.
    Path(String),
    Script(Script),
}

impl Wrk {
    /// # Errors
    /// wrk does not run, or a request was not answered with success.
    pub fn run(&self, seconds: u64) -> anyhow::Result<Traffic> {
        let first = self.addresses.first().context("somebody to send to")?;
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let mut command = process::dying_with_us(&process::program_named("wrk", "wrk"), Signal::Kill);
        command
            .args([format!("-t{THREADS}"), format!("-c{}", self.connections), format!("-d{seconds}s")])
            .args(["--timeout", "10s", "-s", concat!(env!("CARGO_MANIFEST_DIR"), "/bench/load/wrk.lua")])
            .env("BENCH_ADDRESSES", addresses.join(" "))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match &self.what {
            What::Path(path) => command.arg(format!("http://{first}{path}")).env_remove("BENCH_REQUESTS"),
            What::Script(script) => command.arg(format!("http://{first}/")).env("BENCH_REQUESTS", &script.path),
        };
        let (said, complained) =
            super::output(Process::spawn(command, Signal::Kill), Duration::from_secs(seconds) + BEYOND)?;
        parse(&said).with_context(|| format!("wrk said:\n{said}{complained}"))
    }
}

/// The line that the script writes at the end.
fn parse(text: &str) -> anyhow::Result<Traffic> {
    let line = text.lines().find_map(|line| line.strip_prefix("bench ")).context("no line of figures")?;
    let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let [requests, micros, p50, p99, p999, errors @ ..] = numbers.as_slice() else {
        bail!("too few figures");
    };
    ensure!(errors.len() == 5, "{} kinds of errors instead of five", errors.len());
    ensure!(
        errors.iter().all(|count| *count == 0),
        "errors (connect, read, write, status, timeout): {errors:?} of {requests} requests"
    );
    ensure!(*requests > 0 && *micros > 0, "nothing was answered");
    let ms = |micros: u64| Some(micros as f64 / 1e3);
    Ok(Traffic {
        requests: *requests,
        elapsed: Duration::from_micros(*micros),
        latency: Latency { p50_ms: ms(*p50), p99_ms: ms(*p99), p999_ms: ms(*p999) },
    })
}
