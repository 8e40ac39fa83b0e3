//! The command `stats`: shows the statistics of a namespace, once or repeatedly.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::failure::{Exit, Failure};
use super::options::{namespace, text, with_service_options};
use super::screen::{Screen, Side};
use super::service::{Answer, entry_path};
use super::session::Session;
use crate::number;

/// The shortest interval of `--watch`. More frequent requests would be a load for the service.
const SHORTEST: Duration = Duration::from_millis(100);

pub fn command() -> Command {
    let watch = Arg::new("watch")
        .long("watch")
        .short('w')
        .value_name("SECONDS")
        .num_args(0..=1)
        .default_missing_value("2")
        .value_parser(parse_interval)
        .help("Repeat until Ctrl-C, also after errors [default interval: 2]; with --json, one line each time");
    let command =
        Command::new("stats").about("Show the statistics of a namespace").arg(namespace()).arg(watch).after_help(
            "Examples:\n  sidecache stats users\n  sidecache stats users --watch 5\n  \
             sidecache stats users --json | jq .hit_rate",
        );
    with_service_options(command)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    let wrong = || format!("expected seconds, not {text:?} (put the namespace before --watch)");
    seconds.map(|seconds| Duration::from_secs_f64(seconds).max(SHORTEST)).ok_or_else(wrong)
}

/// The statistics of a namespace.
#[derive(Clone, Deserialize, Serialize)]
pub struct Stats {
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

/// Statistics, and when they were read.
struct Reading {
    stats: Stats,
    at: Instant,
}

pub fn run(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let namespace = text(matches, "namespace");
    let path = entry_path(namespace, "stats");
    let Session { service, screen } = session;
    let Some(interval) = matches.get_one::<Duration>("watch").copied() else {
        let answer = service.get(&path)?;
        return if screen.json { document(screen, &answer) } else { show(screen, &answer.parse(service)?, None) };
    };
    let mut last: Option<Reading> = None;
    let mut is_first = true;
    loop {
        let taken = service.get(&path).and_then(|answer| {
            let stats = answer.parse(service)?;
            Ok((answer, Reading { stats, at: Instant::now() }))
        });
        let is_redrawn = screen.is_terminal && !screen.json;
        if is_redrawn {
            screen.clear()?;
            let hint = screen.dim(&format!("every {}, Ctrl-C to stop", humantime::format_duration(interval)));
            screen.line(&format!("{namespace} at {}   {hint}", service.url()))?;
            screen.line("")?;
        }
        match taken {
            Ok((answer, _)) if screen.json => document(screen, &answer)?,
            Ok((_, reading)) => {
                show(screen, &reading.stats, last.as_ref().map(|last| (last, reading.at)))?;
                last = Some(reading);
            }
            // The request itself is wrong: repeating it does not help.
            Err(failure) if is_first && matches!(failure.exit, Exit::Usage | Exit::Refused) => return Err(failure),
            // Continue after any other error: the service may come back.
            Err(failure) => {
                let line = failure.shown(screen.json).unwrap_or_default();
                let line = if screen.json { line } else { screen.warning(&line) };
                screen.line(&line)?;
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

/// Prints the service's JSON unchanged.
fn document(screen: &mut Screen, answer: &Answer) -> Result<(), Failure> {
    let parsed: Result<&RawValue, _> = serde_json::from_slice(&answer.body);
    let document =
        parsed.map_err(|error| Failure::new(Exit::Unreachable, format!("the response is not JSON: {error}")))?;
    screen.document(&document)
}

fn show(screen: &mut Screen, stats: &Stats, before: Option<(&Reading, Instant)>) -> Result<(), Failure> {
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
    if let Some((before, now)) = before {
        let seconds = now.duration_since(before.at).as_secs_f64().max(0.001);
        // The counts start at 0 again if the namespace was deleted between the two readings.
        let (hits, reads) = (
            stats.hits.saturating_sub(before.stats.hits),
            (stats.hits + stats.misses).saturating_sub(before.stats.hits + before.stats.misses),
        );
        fields.push(("reads/s now", number::count((reads as f64 / seconds).round() as u64)));
        let rate = if reads == 0 { "-".to_owned() } else { number::column_percent(hits as f64 / reads as f64) };
        fields.push(("hit rate now", rate));
    }
    screen.fields(Side::Right, fields)
}
