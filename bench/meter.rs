//! CPU time and memory of the servers, as the kernel counts them.
//!
//! CPU per request is (user + system seconds of a server's processes during a run) / requests answered. It
//! says what a server costs the programs beside it, and is steady where throughput is not: on a machine
//! whose cores are shared, time that others took is not in it.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use crate::support::process;

/// Processes that are counted together.
#[derive(Clone, Debug)]
pub struct Watched {
    pub part: Part,
    /// Each with its children.
    pub processes: Vec<u32>,
}

/// What the processes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The server that is compared.
    Server,
    Redis,
    PostgreSql,
}

impl Watched {
    pub fn server(processes: impl IntoIterator<Item = u32>) -> Watched {
        Watched { part: Part::Server, processes: processes.into_iter().collect() }
    }

    /// CPU time so far, that of children which have ended included.
    ///
    /// # Errors
    /// A process has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0;
        for process in &self.processes {
            ticks += numbers(*process).with_context(|| format!("process {process} has ended"))?.iter().sum::<u64>();
            // A child that ends now is counted with its parent the next time.
            ticks += process::children(*process)
                .into_iter()
                .filter_map(|child| numbers(child).ok())
                .map(|numbers| numbers.iter().sum::<u64>())
                .sum::<u64>();
        }
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Resident memory; pages that processes share are counted in each.
    pub fn resident_bytes(&self) -> u64 {
        let with_children = self.processes.iter().flat_map(|id| [*id].into_iter().chain(process::children(*id)));
        with_children.map(resident_bytes).sum()
    }
}

/// User, system, and both of the children that have ended, in ticks.
fn numbers(process: u32) -> anyhow::Result<[u64; 4]> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The fields behind the name, which may hold anything; the first of them is the third of proc(5).
    let (_, behind) = stat.rsplit_once(") ").context("a stat line has a name")?;
    let numbers = behind.split(' ').skip(11).take(4).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    numbers.try_into().ok().context("a stat line has all its fields")
}

fn resident_bytes(process: u32) -> u64 {
    kib(&format!("/proc/{process}/status"), "VmRSS:") * 1024
}

/// What the machine has left, in bytes.
pub fn memory_available() -> u64 {
    kib("/proc/meminfo", "MemAvailable:") * 1024
}

/// A line of the kernel's that ends in kB; 0 where there is none.
fn kib(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
