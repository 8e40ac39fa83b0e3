//! redis-benchmark: Redis without HTTP, directly or through twemproxy, for reference.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;

use super::{Latency, Traffic};
use crate::support::process::{self, Process, Signal};

/// Requests per second of measuring time; redis-benchmark takes a number of requests, not a duration.
const PER_SECOND: u64 = 80_000;

/// Longer than any run.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command, repeated.
#[derive(Clone)]
pub struct RedisBenchmark {
    pub port: u16,
    pub connections: usize,
    /// redis-benchmark replaces `__rand_int__` by a number below `numbers`.
    pub command: Vec<String>,
    pub numbers: u64,
}

impl RedisBenchmark {
    /// # Errors
    /// It cannot run, or a command was refused.
    pub fn run(&self, seconds: u64) -> anyhow::Result<Traffic> {
        let requests = seconds * PER_SECOND;
        let program = process::program_named("redis-benchmark", "redis-tools");
        let mut command = process::dying_with_us(&program, Signal::Kill);
        command
            .args(["-p", &self.port.to_string(), "-c", &self.connections.to_string(), "-n", &requests.to_string()])
            .args(["-r", &self.numbers.to_string(), "-e", "--csv"])
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (said, complained) = super::output(Process::spawn(command, Signal::Kill), PATIENCE)?;
        parse(&said, requests).with_context(|| format!("redis-benchmark said:\n{said}{complained}"))
    }
}

/// Parses two lines: names, and quoted figures, the first of which is the command.
fn parse(text: &str, requests: u64) -> anyhow::Result<Traffic> {
    let (names, figures) = text.trim().rsplit_once('\n').context("no line of figures")?;
    let names = names.lines().last().context("no line of names")?;
    let fields = |line: &str| line.trim_matches('"').split("\",\"").map(str::to_owned).collect::<Vec<_>>();
    // The command may contain anything, so count the figures from the end.
    let (names, figures) = (fields(names), fields(figures));
    let figure = |wanted: &str| {
        let from_the_end = names.iter().rev().position(|name| name == wanted)?;
        figures.iter().rev().nth(from_the_end)?.parse::<f64>().ok()
    };
    let rate = figure("rps").filter(|rate| *rate > 0.0).context("no rate")?;
    Ok(Traffic {
        requests,
        elapsed: Duration::from_secs_f64(requests as f64 / rate),
        latency: Latency { p50_ms: figure("p50_latency_ms"), p99_ms: figure("p99_latency_ms"), p999_ms: None },
    })
}
