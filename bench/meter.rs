//! CPU time and memory of the servers, as counted by the kernel.
//!
//! CPU per request is (user + system seconds of a server's processes during a run) / requests answered. It is what a
//! server costs the programs on the same machine, and it is steadier than throughput, because on a machine with
//! shared cores it does not include the time that other programs used.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use crate::support::process;

/// Processes whose figures are added up.
#[derive(Clone, Debug)]
pub struct Watched {
    pub part: Part,
    /// Each includes its children.
    pub processes: Vec<u32>,
}

/// The role of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The server that is measured.
    Server,
    Redis,
    PostgreSql,
}

impl Watched {
    pub fn server(processes: impl IntoIterator<Item = u32>) -> Watched {
        Watched { part: Part::Server, processes: processes.into_iter().collect() }
    }

    /// CPU time so far, including that of ended children.
    ///
    /// # Errors
    /// A process has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0;
        for process in &self.processes {
            ticks += numbers(*process).with_context(|| format!("process {process} has ended"))?.iter().sum::<u64>();
            // A child that ends just now is counted with its parent next time.
            ticks += process::children(*process)
                .into_iter()
                .filter_map(|child| numbers(child).ok())
                .map(|numbers| numbers.iter().sum::<u64>())
                .sum::<u64>();
        }
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Resident memory. Pages shared between processes are counted for each of them.
    pub fn resident_bytes(&self) -> u64 {
        let with_children = self.processes.iter().flat_map(|id| [*id].into_iter().chain(process::children(*id)));
        with_children.map(resident_bytes).sum()
    }
}

/// CPU time in ticks: user, system, and both for ended children.
fn numbers(process: u32) -> anyhow::Result<[u64; 4]> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The fields after the name (a name may contain anything); the first of them is field 3 in proc(5).
    let (_, behind) = stat.rsplit_once(") ").context("a stat line has a name")?;
    let numbers = behind.split(' ').skip(11).take(4).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    numbers.try_into().ok().context("a stat line has all its fields")
}

fn resident_bytes(process: u32) -> u64 {
    kib(&format!("/proc/{process}/status"), "VmRSS:") * 1024
}

/// The machine's available memory, in bytes.
pub fn memory_available() -> u64 {
    kib("/proc/meminfo", "MemAvailable:") * 1024
}

/// The number in a line of the kernel that ends in kB; 0 without such a line.
fn kib(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
