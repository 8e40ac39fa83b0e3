//! The command `stats`: shows the statistics of a namespace, once or repeatedly.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::failure::{Exit, Failure};
use super::screen::{Screen, Side};
use super::service::{Answer, Service, entry_path};
use crate::number;

/// The shortest interval of `--watch`. More frequent requests would be a load for the service.
const SHORTEST: Duration = Duration::from_millis(100);

/// Show the statistics of a namespace
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache stats users
  sidecache stats users --watch 5
  sidecache stats users --json | jq .hit_rate")]
pub struct Stats {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Repeat until Ctrl-C, also after errors [default interval: 2]; with --json, one line each time
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = parse_interval)]
    watch: Option<Duration>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    let wrong = || format!("expected seconds, not {text:?} (put the namespace before --watch)");
    seconds.map(|seconds| Duration::from_secs_f64(seconds).max(SHORTEST)).ok_or_else(wrong)
}

/// The statistics of a namespace.
#[derive(Clone, Deserialize, Serialize)]
pub struct Statistics {
    pub hits: u64,
    pub misses: u64,
    pub hit_rate: f64,
    pub total_keys: u64,
    pub memory_used_bytes: u64,
    /// `None` if the service does not send it.
    #[serde(default)]
    pub memory_charged_bytes: Option<u64>,
    pub evictions: u64,
    pub expirations: u64,
    /// Shards whose entries are not counted; absent if all shards answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_shards: Vec<String>,
}

/// An answer with statistics, and when it came.
struct Reading {
    answer: Answer,
    stats: Statistics,
    at: Instant,
}

impl Stats {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let path = entry_path(&self.namespace, "stats");
        let read = || -> Result<Reading, Failure> {
            let answer = service.get(&path)?;
            let stats = answer.parse(service)?;
            Ok(Reading { answer, stats, at: Instant::now() })
        };
        let Some(interval) = self.watch else { return read()?.show(service, screen, None) };
        let mut last: Option<Reading> = None;
        let mut is_first = true;
        loop {
            let reading = read();
            let is_redrawn = screen.is_terminal && !screen.json;
            if is_redrawn {
                // Clears the terminal.
                screen.raw(b"\x1b[H\x1b[2J")?;
                let hint = screen.dim(&format!("every {}, Ctrl-C to stop", humantime::format_duration(interval)));
                screen.line(&format!("{} at {}   {hint}\n", self.namespace, service.url()))?;
            }
            match reading {
                Ok(reading) => {
                    reading.show(service, screen, last.as_ref())?;
                    last = Some(reading);
                }
                // The request itself is wrong: repeating it does not help.
                Err(failure) if is_first && matches!(failure.exit, Exit::Usage | Exit::Refused) => {
                    return Err(failure);
                }
                // Continue after any other error: the service may come back.
                Err(failure) => {
                    let line = failure.shown(screen.json).unwrap_or_default();
                    screen.line(&if screen.json { line } else { screen.warning(&line) })?;
                    last = None;
                }
            }
            if !(is_redrawn || screen.json) {
                screen.line("")?;
            }
            screen.flush()?;
            is_first = false;
            sleep(interval);
        }
    }
}

impl Reading {
    /// Shows the statistics, and what changed since the last reading.
    fn show(&self, service: &Service, screen: &mut Screen, last: Option<&Self>) -> Result<(), Failure> {
        if screen.json {
            return screen.document(&self.answer.parse::<&RawValue>(service)?);
        }
        let stats = &self.stats;
        let mut fields = vec![
            ("keys", number::count(stats.total_keys)),
            ("memory", number::bytes(stats.memory_used_bytes)),
            ("charged", stats.memory_charged_bytes.map_or_else(|| "?".to_owned(), number::bytes)),
            ("hits", number::count(stats.hits)),
            ("misses", number::count(stats.misses)),
            ("hit rate", number::column_percent(stats.hit_rate)),
            ("evictions", number::count(stats.evictions)),
            ("expirations", number::count(stats.expirations)),
        ];
        if let Some(last) = last {
            let seconds = self.at.duration_since(last.at).as_secs_f64().max(0.001);
            // The counts start at 0 again if the namespace was deleted between the two readings.
            let hits = stats.hits.saturating_sub(last.stats.hits);
            let reads = (stats.hits + stats.misses).saturating_sub(last.stats.hits + last.stats.misses);
            fields.push(("reads/s now", number::count((reads as f64 / seconds).round() as u64)));
            let rate = if reads == 0 { "-".to_owned() } else { number::column_percent(hits as f64 / reads as f64) };
            fields.push(("hit rate now", rate));
        }
        screen.fields(Side::Right, fields)
    }
}
