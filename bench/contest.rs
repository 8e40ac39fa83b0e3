//! Contestants under the same load. They take turns, round by round, so that a temporary disturbance of the machine
//! affects all of them, and ratios compare runs that were next to each other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::bench::Bench;
use crate::load::{Latency, Load, Traffic};
use crate::meter::{Part, Watched};
use crate::support::line::{self, Line};
use crate::support::metric::Metrics;
use crate::support::process;
use crate::support::redis::Redis;
use crate::support::service::Service;

/// How long to wait until L1 answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server (or several that count as one) and its load.
pub struct Contestant<'s> {
    pub name: String,
    pub load: Load,
    pub watched: Vec<Watched>,
    /// Its sidecache instances: none of their operations may fail or miss.
    pub instances: Vec<&'s Service>,
    /// The Redis server behind a peer. The peer answers HTTP with success whatever Redis says, so this server's
    /// counters show failed commands and missing keys, of which there must be none.
    pub behind: Option<&'s Redis>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Sample {
    pub traffic: Traffic,
    /// CPU time for each part.
    pub cpu: Vec<(Part, Duration)>,
    pub resident: Vec<(Part, u64)>,
}

impl Sample {
    pub fn per_second(&self) -> f64 {
        self.traffic.per_second()
    }

    /// Microseconds of CPU per request; `None` if no such processes were watched.
    pub fn cpu_micros(&self, part: Part) -> Option<f64> {
        let (_, cpu) = self.cpu.iter().find(|(of, _)| *of == part)?;
        Some(cpu.as_secs_f64() * 1e6 / self.traffic.requests as f64)
    }

    /// Microseconds of CPU per request, server and Redis together.
    pub fn cpu_micros_with_redis(&self) -> Option<f64> {
        Some(self.cpu_micros(Part::Server)? + self.cpu_micros(Part::Redis).unwrap_or(0.0))
    }

    pub fn resident(&self, part: Part) -> Option<u64> {
        self.resident.iter().find(|(of, _)| *of == part).map(|(_, bytes)| *bytes)
    }
}

/// The runs of one contestant.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub samples: Vec<Sample>,
}

/// Median, minimum and maximum of some runs.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values.get(middle).copied()?
        } else {
            f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?)
        };
        Some(Spread { median, least: *values.first()?, most: *values.last()? })
    }
}

impl Series {
    pub fn empty(name: &str) -> Series {
        Series { name: name.to_owned(), samples: Vec::new() }
    }

    pub fn spread(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(figure).collect())
    }

    /// # Errors
    /// No run has this figure.
    pub fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> anyhow::Result<f64> {
        Ok(self.spread(figure).with_context(|| format!("{} has no such figure", self.name))?.median)
    }

    pub fn throughput(&self) -> anyhow::Result<f64> {
        self.median(|sample| Some(sample.per_second()))
    }

    pub fn latency(&self, figure: impl Fn(&Latency) -> Option<f64>) -> anyhow::Result<f64> {
        self.median(|sample| figure(&sample.traffic.latency))
    }

    /// The ratio of this figure to the other's, round by round.
    ///
    /// # Errors
    /// A run has no such figure.
    pub fn over(&self, other: &Series, figure: impl Fn(&Sample) -> Option<f64>) -> anyhow::Result<Spread> {
        let pairs = self.samples.iter().zip(&other.samples);
        let ratios = pairs.map(|(ours, theirs)| Some(figure(ours)? / figure(theirs)?)).collect::<Option<Vec<_>>>();
        let ratios = ratios.filter(|ratios| ratios.iter().all(|ratio| ratio.is_finite()));
        let why = || format!("{} and {} have no such figure in common", self.name, other.name);
        ratios.and_then(Spread::of).with_context(why)
    }
}

/// Runs `rounds` rounds. In each of them every contestant has one run of `seconds`.
///
/// # Errors
/// A request failed.
pub fn contest(
    bench: &Bench,
    rounds: usize,
    seconds: u64,
    contestants: &[Contestant<'_>],
) -> anyhow::Result<Vec<Series>> {
    let mut all: Vec<Series> = contestants.iter().map(|contestant| Series::empty(&contestant.name)).collect();
    for round in 1..=rounds {
        for (contestant, series) in contestants.iter().zip(&mut all) {
            bench.progress.now(&format!("round {round} of {rounds}: {}", contestant.name));
            series.samples.push(contestant.sample(seconds)?);
        }
    }
    for series in &all {
        bench.progress.series(series);
    }
    Ok(all)
}

impl Contestant<'_> {
    /// One run.
    ///
    /// # Errors
    /// A request failed.
    pub fn sample(&self, seconds: u64) -> anyhow::Result<Sample> {
        let measured = || -> anyhow::Result<Sample> {
            let failed: Vec<f64> = self.instances.iter().map(|instance| failures(instance)).collect();
            let complaints = self.behind.map(said_no);
            let before = self.watched.iter().map(Watched::cpu).collect::<anyhow::Result<Vec<_>>>()?;
            let traffic = self.load.run(seconds)?;
            let mut cpu = Vec::new();
            for (watched, before) in self.watched.iter().zip(before) {
                cpu.push((watched.part, watched.cpu()?.saturating_sub(before)));
            }
            for (instance, before) in self.instances.iter().zip(failed) {
                let more = failures(instance) - before;
                ensure!(more == 0.0, "{more} operations of sidecache missed, failed or were refused");
            }
            if let (Some(before), Some(redis)) = (complaints, self.behind) {
                let more = said_no(redis) - before;
                ensure!(more == 0, "Redis answered {more} commands with an error or with nothing");
            }
            let resident = self.watched.iter().map(|watched| (watched.part, watched.resident_bytes())).collect();
            Ok(Sample { traffic, cpu, resident })
        };
        measured().with_context(|| self.name.clone())
    }
}

/// The number of operations of an instance that missed, failed or were refused.
fn failures(instance: &Service) -> f64 {
    let answer = Line::open(instance.address()).ask("GET", "/metrics", "").expect(200);
    let metrics = Metrics::parse(answer.text());
    ["miss", "refused", "failed"]
        .map(|result| metrics.total_with("sidecache_requests_total", &[("result", result)]))
        .iter()
        .sum()
}

/// The number of commands that a server answered with an error, plus keys that it did not find.
fn said_no(redis: &Redis) -> u64 {
    let mut connection = redis.connect();
    connection.info("stats", "total_error_replies") + connection.info("stats", "keyspace_misses")
}

/// Checks which tier answers, so that a row measures what it claims. Waits a little for L1 to be filled and proven.
///
/// # Errors
/// Another tier keeps answering.
pub fn expect_tier(address: SocketAddr, path: &str, l1: bool) -> anyhow::Result<()> {
    let request = line::request("GET", path, "", "");
    let mut line = Line::open(address);
    let deadline = Instant::now() + PATIENCE;
    loop {
        line.send(&request)?;
        let answer = line.receive()?;
        ensure!(answer.status == 200, "{path} is answered with {}", answer.status);
        let status = answer.header("cache-status").context("an answer says which tier gave it")?;
        if status.contains("sidecache-l1; hit") == l1 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{path} is answered by another tier: {status}");
        std::thread::sleep(process::TICK);
    }
}
