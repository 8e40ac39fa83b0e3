//! What every row receives: the length of the runs, and the progress display.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::contest::Series;
use crate::meter::Part;

pub struct Bench {
    pub pace: Pace,
    pub progress: Progress,
}

/// The length of the runs and the amount of stored data.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub quick: bool,
    /// For runs that are compared with a peer.
    pub rounds: usize,
    pub seconds: u64,
    /// For all other runs.
    pub other_rounds: usize,
    pub other_seconds: u64,
    /// For the row about connections: opening ten thousand takes time.
    pub connections_seconds: u64,
    /// Keys in the row about growth, with Redis and with the embedded store.
    pub keys: usize,
    pub embedded_keys: usize,
    /// Entries in the row about memory.
    pub small_entries: usize,
}

impl Pace {
    pub fn full(large: bool) -> Pace {
        Pace {
            quick: false,
            rounds: 5,
            seconds: 3,
            other_rounds: 3,
            other_seconds: 2,
            connections_seconds: 4,
            keys: if large { 10_000_000 } else { 1_000_000 },
            embedded_keys: 1_000_000,
            small_entries: 1_000_000,
        }
    }

    pub fn quick() -> Pace {
        Pace {
            quick: true,
            rounds: 2,
            seconds: 1,
            other_rounds: 1,
            other_seconds: 1,
            connections_seconds: 2,
            keys: 100_000,
            embedded_keys: 100_000,
            small_entries: 200_000,
        }
    }
}

/// Shows the progress: a bar on a terminal, lines elsewhere.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    begun: Instant,
}

impl Progress {
    pub fn new(rows: usize) -> Progress {
        let bar = ProgressBar::new(rows as u64);
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {bar:20} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar, terminal: std::io::stderr().is_terminal(), begun: Instant::now() }
    }

    pub fn row(&self, title: &str) {
        self.line(&format!("{:>4} s  {title}", self.begun.elapsed().as_secs()));
    }

    pub fn done(&self) {
        self.bar.inc(1);
    }

    pub fn now(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    pub fn line(&self, text: &str) {
        if self.terminal {
            self.bar.println(text);
        } else {
            eprintln!("{text}");
        }
    }

    pub fn series(&self, series: &Series) {
        let median =
            |figure: Option<f64>, unit: &str| figure.map_or(String::new(), |figure| format!(" {figure:.2} {unit}"));
        let cpu = |part| series.spread(|sample| sample.cpu_micros(part)).map(|spread| spread.median);
        self.line(&format!(
            "        {}:{}{}{}",
            series.name,
            median(series.throughput().ok(), "/s"),
            median(cpu(Part::Server), "us"),
            median(cpu(Part::Redis), "us of Redis")
        ));
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}
