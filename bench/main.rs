//! `make bench`: measures sidecache and its alternatives on one machine in one run.
//!
//! ```text
//! make bench                          all rows in less than 15 minutes; writes bench/RESULTS.md
//! make bench BENCH_ARGS=--quick       the same in less than 2 minutes: shorter runs, fewer keys
//! make bench BENCH_ARGS=--large       10,000,000 keys in the row about growth; needs 15 GB of memory
//! make bench BENCH_ARGS='--only hit,put'   only these rows; prints the results and writes no file
//! ```
//!
//! A row ([`rows`]) starts real servers on free ports and stops them at its end. Its contestants take turns under the
//! same load, round by round ([`contest`]); ratios compare runs that were next to each other. Throughput is measured
//! with wrk, latencies with an open loop ([`load`]). CPU and memory are the kernel's figures for the servers'
//! processes ([`meter`]). [`targets`] defines the targets, and [`report`] writes the results. A missed target is only
//! reported; a row that cannot be measured, or in which a request did not succeed, makes the bench exit with an
//! error.
//!
//! Not here: benchmarks of single parts without a server (see `benches/`).

mod bench;
mod contest;
mod load;
mod machine;
mod meter;
mod peers;
mod report;
mod rows;
#[expect(dead_code, reason = "the bench uses only a part of the tests' support code")]
mod support;
mod targets;

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::bench::{Bench, Pace, Progress};
use crate::report::Row;
use crate::rows::Definition;

/// The default of `--out`.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/RESULTS.md");

fn main() -> anyhow::Result<ExitCode> {
    let arguments = arguments();
    let only = arguments.get_one::<String>("only");
    let chosen = chosen(only.map(String::as_str))?;
    raise_descriptors();
    let (quick, large) = (arguments.get_flag("quick"), arguments.get_flag("large"));
    let pace = if quick { Pace::quick() } else { Pace::full(large) };
    let bench = Bench { pace, progress: Progress::new(chosen.len()) };
    let rows: Vec<Row> = chosen.into_iter().map(|definition| measured(&bench, definition)).collect();
    bench.progress.end();

    let given = if quick {
        " with `--quick`"
    } else if large {
        " with `--large`"
    } else {
        ""
    };
    let head = machine::head(given, &format!("{} s", bench.progress.elapsed().as_secs()));
    let text = report::markdown(&head, &rows);
    let out = arguments.get_one::<String>("out").map(String::as_str).or(only.is_none().then_some(RESULTS));
    let shown = match out {
        Some(path) => {
            fs::write(path, &text).with_context(|| path.to_owned())?;
            let mut shown = String::new();
            report::targets(&mut shown, &rows);
            format!("{shown}\nThe complete results are in {path}.\n")
        }
        None => text,
    };
    std::io::stdout().write_all(shown.as_bytes())?;
    let failed: Vec<&str> = rows.iter().filter(|row| row.result.is_err()).map(|row| row.title).collect();
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("not measured: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn arguments() -> ArgMatches {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("bench")
        .about("Measures sidecache and its alternatives")
        .arg(flag("quick").help("Shorter runs and fewer keys: less than 2 minutes"))
        .arg(flag("large").help("10,000,000 keys in the row about growth").conflicts_with("quick"))
        .arg(Arg::new("only").long("only").value_name("ROWS").help("Only these rows, separated by commas"))
        .arg(Arg::new("out").long("out").value_name("FILE").help("File for the results"))
        .arg(flag("bench").hide(true).help("Set by `cargo bench`"))
        .get_matches()
}

fn chosen(only: Option<&str>) -> anyhow::Result<Vec<&'static Definition>> {
    let Some(only) = only else { return Ok(rows::ALL.iter().collect()) };
    let row = |id: &str| match rows::ALL.iter().find(|row| row.id == id) {
        Some(row) => Ok(row),
        None => bail!("there is no row {id:?}; there are {}", rows::ALL.each_ref().map(|row| row.id).join(", ")),
    };
    only.split(',').map(row).collect()
}

/// A row that fails is reported; the other rows still run.
fn measured(bench: &Bench, definition: &Definition) -> Row {
    bench.progress.row(definition.title);
    let result = catch_unwind(AssertUnwindSafe(|| (definition.run)(bench)));
    let result = match result {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        // The panic's message is already on stderr.
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic".to_owned())),
    };
    if let Err(error) = &result {
        bench.progress.line(&format!("        NOT MEASURED: {error}"));
    }
    bench.progress.done();
    Row { title: definition.title, about: definition.about, result }
}

/// Raises the limit on file descriptors as far as possible, for the servers and loads that are started here.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // If this fails, the row with very many connections reports it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
