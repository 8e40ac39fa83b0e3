//! The load generators: [`wrk`] for throughput, [`redis_benchmark`] for Redis without HTTP, and our own
//! ([`generator`]) for latencies at a fixed rate and for requests that can be sent only once.
//!
//! Any answer other than success ends the run with an error, because figures of failing servers are meaningless.

pub mod connection;
pub mod generator;
pub mod redis_benchmark;
pub mod request;
pub mod timer;
pub mod wrk;

use std::io::Read;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

pub use generator::{Arrivals, Generator};
pub use redis_benchmark::RedisBenchmark;
pub use request::Request;
pub use wrk::{Script, What, Wrk};

use crate::support::process::Process;

/// Keep-alive connections, unless a row says otherwise.
pub const CONNECTIONS: usize = 64;

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Traffic {
    pub requests: u64,
    pub elapsed: Duration,
    pub latency: Latency,
}

impl Traffic {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// Percentiles; `None` if the generator does not report them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
}

/// One of the loads.
#[derive(Clone)]
pub enum Load {
    Wrk(Wrk),
    RedisBenchmark(RedisBenchmark),
    /// An open loop with this rate.
    Open(Generator, f64),
    /// A closed loop that sends every request once.
    Once(Generator),
}

impl Load {
    /// # Errors
    /// A request was not answered with success.
    pub fn run(&self, seconds: u64) -> anyhow::Result<Traffic> {
        match self {
            Load::Wrk(wrk) => wrk.run(seconds),
            Load::RedisBenchmark(benchmark) => benchmark.run(seconds),
            Load::Open(generator, rate) => {
                let count = (rate * seconds as f64).round() as u64;
                generator.run(Arrivals::Open { rate: *rate, count })?.traffic()
            }
            Load::Once(generator) => {
                let count = generator.requests.len() as u64;
                generator.run(Arrivals::Closed { count })?.traffic()
            }
        }
    }
}

/// Waits for a program's end and returns its stdout and stderr.
fn output(mut program: Process, limit: Duration) -> anyhow::Result<(String, String)> {
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            // After a read error, show what was read before it.
            let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let child = program.child();
    let said = read(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let complained = read(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let status = program.wait(limit);
    program.end();
    let texts = [said, complained].map(|reader| reader.join().expect("a thread that reads does not panic"));
    let [said, complained] = texts;
    let status = status.with_context(|| format!("it does not end within {limit:?}:\n{said}{complained}"))?;
    ensure!(status.success(), "it ended with {status}:\n{said}{complained}");
    Ok((said, complained))
}
