//! `make bench`: what sidecache costs, beside what people would pick instead, on one machine in one run.
//!
//! ```text
//! make bench                          all rows, under 15 minutes; writes bench/RESULTS.md
//! make bench BENCH_ARGS=--quick       the same in under 2 minutes: shorter runs, fewer keys
//! make bench BENCH_ARGS=--large       10,000,000 keys in the row about growth: 15 GB of memory
//! make bench BENCH_ARGS='--only hit,put'   these rows, printed and not written
//! ```
//!
//! A row ([`rows`]) starts real servers on free ports, which end with it, and lets its contestants meet the
//! same load one behind the other, round by round ([`contest`]); ratios are of runs that stood next to each
//! other. Peaks come from wrk, latencies from an open loop ([`load`]). CPU and memory are the kernel's
//! figures of the servers' processes ([`meter`]). [`targets`] holds what the figures are held against, and
//! [`report`] writes them down. A target that is missed is reported; a row that cannot be measured, or in
//! which anything but success was answered, ends the bench with an error.
//!
//! Not here: the costs of single parts, in which no server runs.

mod bench;
mod contest;
mod load;
mod machine;
mod meter;
mod peers;
mod report;
mod rows;
#[expect(dead_code, reason = "the bench needs a part of what the tests stand on")]
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

/// Where the results go, unless `--out` says otherwise.
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
            format!("{shown}\nAll of it is in {path}.\n")
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
        .about("Measures sidecache beside its peers")
        .arg(flag("quick").help("Shorter runs and fewer keys: less than 2 minutes"))
        .arg(flag("large").help("10,000,000 keys in the row about growth").conflicts_with("quick"))
        .arg(Arg::new("only").long("only").value_name("ROWS").help("Only these rows, separated by commas"))
        .arg(Arg::new("out").long("out").value_name("FILE").help("Where the results are written"))
        .arg(flag("bench").hide(true).help("Given by `cargo bench`"))
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

/// A row that fails is reported, and the others are measured all the same.
fn measured(bench: &Bench, definition: &Definition) -> Row {
    bench.progress.row(definition.title);
    let result = catch_unwind(AssertUnwindSafe(|| (definition.run)(bench)));
    let result = match result {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        // What the panic said stands on standard error already.
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

/// As many file descriptors as the machine allows, for the servers and loads that are started here.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Where it does not work, the row with very many connections says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
