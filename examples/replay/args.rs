//! Parses the command line into what the other files need. All defaults are here.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::ensure;
use clap::builder::RangedU64ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use reqwest::Url;

use crate::record::Record;
use crate::source::Location;
use crate::zipf::{self, Zipf};

/// The parsed arguments.
pub struct Args {
    /// Where the service listens.
    pub url: Url,
    pub input: Input,
    /// Replay only this many records.
    pub limit: Option<usize>,
    pub source: Location,
    /// Prefix of each namespace, so that a run starts cold.
    pub namespace_prefix: String,
    /// Length of every value, as JSON text.
    pub value_bytes: usize,
    /// Print the report as one JSON object.
    pub json: bool,
}

/// Where the records come from.
pub enum Input {
    /// An .xz file of big-endian 32-bit records.
    Trace(PathBuf),
    /// This many draws from a zipf distribution of keys.
    Zipf { records: usize, distribution: Zipf, seed: u64 },
}

impl Args {
    /// Parses the process's arguments. On an error it prints the error and exits with status 2.
    pub fn from_command_line() -> Self {
        let mut command = command();
        let mut matches = command.get_matches_mut();
        Self::from_matches(&mut matches)
    }

    fn from_matches(matches: &mut ArgMatches) -> Self {
        let input = match matches.remove_one("trace") {
            Some(path) => Input::Trace(path),
            None => Input::Zipf {
                records: defaulted(matches, "records"),
                distribution: Zipf::new(defaulted(matches, "distinct"), defaulted(matches, "skew")),
                seed: defaulted(matches, "seed"),
            },
        };
        Self {
            url: defaulted(matches, "url"),
            input,
            limit: matches.remove_one("limit"),
            source: matches.remove_one("source").unwrap_or(Location::Temporary),
            namespace_prefix: matches.remove_one("namespace-prefix").unwrap_or_else(unused_prefix),
            value_bytes: defaulted(matches, "value-bytes"),
            json: matches.get_flag("json"),
        }
    }
}

fn defaulted<T: Clone + Send + Sync + 'static>(matches: &mut ArgMatches, name: &str) -> T {
    matches.remove_one(name).expect("the argument has a default value")
}

fn command() -> Command {
    let generated = |name: &'static str, value: &'static str, default: &'static str| {
        option(name, value)
            .default_value(default)
            .conflicts_with("trace")
            .help_heading("Generated workload (zipf), used when no trace is given")
    };
    Command::new("replay")
        .about("Replays cache accesses against a running sidecache, as a cache-aside client")
        .arg(
            option("url", "URL")
                .default_value("http://127.0.0.1:8080")
                .value_parser(parse_url)
                .help("Where the service listens"),
        )
        .arg(
            option("trace", "PATH")
                .value_parser(value_parser!(PathBuf))
                .help("An .xz file of big-endian 32-bit records: bits 27-31 type, 10-26 id, 0-9 index"),
        )
        .arg(
            option("limit", "N")
                .value_parser(RangedU64ValueParser::<usize>::new().range(1..))
                .help("Replay the first N records only"),
        )
        .arg(
            option("source", "URL")
                .value_parser(Location::parse)
                .help("The source of truth: sqlite:PATH or postgres://... [default: a temporary SQLite file]"),
        )
        .arg(
            option("namespace-prefix", "PREFIX")
                .value_parser(parse_prefix)
                .help("Prefix of each namespace `type_<n>` [default: a new one for each run, to start cold]"),
        )
        .arg(
            option("value-bytes", "N")
                .default_value("1000")
                .value_parser(RangedU64ValueParser::<usize>::new().range(Record::MIN_VALUE_BYTES as u64..=64 << 20))
                .help("Length of each value, in bytes of JSON"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the report as one JSON object"))
        .arg(
            generated("records", "N", "100000")
                .value_parser(RangedU64ValueParser::<usize>::new().range(1..))
                .help("Number of accesses"),
        )
        .arg(
            generated("distinct", "N", "10000")
                .value_parser(value_parser!(u32).range(1..=i64::from(zipf::MAX_DISTINCT)))
                .help("Number of keys to draw from"),
        )
        .arg(
            generated("skew", "S", "1.0")
                .allow_negative_numbers(true)
                .value_parser(parse_skew)
                .help("Exponent: the key of rank r is drawn in proportion to 1 / r^S"),
        )
        .arg(
            generated("seed", "S", "1")
                .value_parser(value_parser!(u64))
                .help("Seed: the same seed gives the same accesses"),
        )
}

fn option(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

fn parse_url(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text)?;
    ensure!(url.scheme() == "http", "only http:// is supported: this example is built without TLS");
    Ok(url)
}

/// Parses a prefix. It must leave room for `type_31` within the 100 characters of a namespace.
fn parse_prefix(text: &str) -> anyhow::Result<String> {
    ensure!(text.len() <= 93, "at most 93 characters");
    ensure!(
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)),
        "only letters, digits, `_`, `.` and `-`"
    );
    Ok(text.to_owned())
}

fn parse_skew(text: &str) -> anyhow::Result<f64> {
    let skew: f64 = text.parse()?;
    ensure!((0.0..=10.0).contains(&skew), "must be from 0 (uniform) to 10");
    Ok(skew)
}

/// A prefix that no earlier run has used: the time in milliseconds and the process id (for runs that start at the
/// same time).
fn unused_prefix() -> String {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("replay_{}_{}_", since_epoch.as_millis(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn zipf_options_make_no_sense_with_a_trace() {
        let wrong = ["replay", "--trace", "x.xz", "--seed", "2"];
        assert!(command().try_get_matches_from(wrong).is_err());
        assert!(command().try_get_matches_from(["replay", "--trace", "x.xz"]).is_ok());
    }

    #[test]
    fn a_prefix_that_is_no_namespace_is_refused() {
        for wrong in ["a/b", "a b", "ü", &"x".repeat(94)] {
            assert!(parse_prefix(wrong).is_err(), "{wrong}");
        }
        assert!(parse_prefix(&unused_prefix()).is_ok());
    }
}
