//! redis-benchmark: Redis without HTTP before it, bare or through twemproxy, for reference.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;

use super::{Latency, Traffic};
use crate::support::process::{self, Process, Signal};

/// Requests for each second that others are measured for: a guess of what a second is enough for.
const PER_SECOND: u64 = 80_000;

/// Longer than any run takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command, repeated.
#[derive(Clone)]
pub struct RedisBenchmark {
    pub port: u16,
    pub connections: usize,
    /// `__rand_int__` in it becomes one of as many numbers.
    pub command: Vec<String>,
    pub numbers: u64,
}

impl RedisBenchmark {
    /// # Errors
    /// It does not run, or a command was refused.
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

/// Two lines: names, and figures in quotes, of which the first is the command.
fn parse(text: &str, requests: u64) -> anyhow::Result<Traffic> {
    let (names, figures) = text.trim().rsplit_once('\n').context("no line of figures")?;
    let names = names.lines().last().context("no line of names")?;
    let fields = |line: &str| line.trim_matches('"').split("\",\"").map(str::to_owned).collect::<Vec<_>>();
    // The command may hold anything, so the figures are counted from the end.
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
