//! Replays cache accesses against a running sidecache, as a cache-aside client does.
//!
//! For every record, in order and over one connection: GET the key; on a miss read the row from the source of truth
//! (a table in SQLite or PostgreSQL that this program has filled) and PUT it. At the end the program compares its own
//! counts of hits and misses with the service's `stats`.
//!
//! The records come from a trace (`--trace`) or from a seeded zipf workload; see `../README.md`.
//!
//! ```text
//! args ──> workload (trace | zipf) ──> record ──┬──> client ── GET, PUT, stats ──> sidecache
//!                                               └──> source ── SELECT ──> SQLite, PostgreSQL
//!                                                        report <── counts and times of both
//! ```

#![expect(clippy::print_stdout, reason = "it prints the report")]
mod args;
mod client;
mod record;
mod report;
mod source;
mod workload;
mod zipf;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use args::Args;
use client::{Client, Counts};
use record::Record;
use report::{Report, Times};
use source::Source;
use workload::Workload;

/// How long the service may take until its `stats` include the last reads: it counts in memory and writes the counts
/// once a second.
const STATS_SETTLE_LIMIT: Duration = Duration::from_secs(5);

const STATS_POLL_INTERVAL: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run(Args::from_command_line()).await.unwrap_or_else(|error| {
        eprintln!("replay: {error}");
        for cause in error.chain().skip(1) {
            eprintln!("  because: {cause}");
        }
        ExitCode::FAILURE
    })
}

/// # Errors
/// Any error that ends the replay early; the text says what to do.
async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let workload = Workload::load(&args.input, args.limit)?;
    let client = Client::new(&args.url, &args.namespace_prefix)?;
    client.check_health().await?;

    let mut source = Source::open(&args.source).await?;
    source.fill(workload.distinct(), args.value_bytes).await?;

    // With the namespace prefix of an earlier run the counts do not start at zero.
    let before = client.total_counts(workload.types()).await?;
    let replay = replay(&workload, &client, &mut source, args.value_bytes).await?;
    let service = settled_counts(&client, &workload, before, replay.counts).await?;

    let report = Report::new(&args.namespace_prefix, &workload, replay, service);
    if args.json {
        println!("{}", report.json()?);
    } else {
        print!("{report}");
    }
    if report.agrees() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "The service's stats differ from this client's counts. Did another client use namespaces \
         that begin with `{}`, or was the service restarted during the replay?",
        args.namespace_prefix
    );
    Ok(ExitCode::FAILURE)
}

/// The client's own results.
pub struct Replay {
    pub counts: Counts,
    /// Time of each read of the source.
    pub source_reads: Times,
    /// Time of each hit, from the request to the last byte of the answer.
    pub cache_reads: Times,
    pub elapsed: Duration,
}

/// Replays every record in order, one at a time.
///
/// # Errors
/// An answer that is neither a hit nor a miss, or a value that differs from the source's.
async fn replay(
    workload: &Workload,
    client: &Client,
    source: &mut Source,
    value_bytes: usize,
) -> anyhow::Result<Replay> {
    let mut counts = Counts::default();
    let mut source_reads = Times::default();
    let mut cache_reads = Times::default();
    let bar = progress_bar(workload.records().len());
    let started = Instant::now();
    for (position, &record) in workload.records().iter().enumerate() {
        let read = client.get(record).await?;
        if let Some(value) = read.value {
            counts.hits += 1;
            cache_reads.push(read.took);
            check(record, value.get(), value_bytes).context("the cache answered with a wrong value")?;
        } else {
            counts.misses += 1;
            let asked = Instant::now();
            let row = source.fetch(record).await?;
            source_reads.push(asked.elapsed());
            check(record, &row, value_bytes).context(
                "the source contains a wrong row: is another replay with a different --value-bytes using it?",
            )?;
            client.put(record, &row).await?;
        }
        bar.inc(1);
        if position.is_multiple_of(1024) {
            bar.set_message(format!("hit ratio {:.4}", counts.hit_ratio()));
        }
    }
    let elapsed = started.elapsed();
    bar.finish_and_clear();
    Ok(Replay { counts, source_reads, cache_reads, elapsed })
}

/// Compares received bytes with the value of the record.
fn check(record: Record, found: &str, value_bytes: usize) -> anyhow::Result<()> {
    let expected = record.value(value_bytes);
    if found == expected {
        return Ok(());
    }
    let same = expected.bytes().zip(found.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        let shown = same.saturating_sub(20)..text.len().min(same + 20);
        String::from_utf8_lossy(&text.as_bytes()[shown]).into_owned()
    };
    bail!(
        "{record} differs from byte {same} on: expected `{}`, found `{}` ({} and {} bytes in all)",
        around(&expected),
        around(found),
        expected.len(),
        found.len()
    )
}

/// Returns the service's counts since `before` as soon as they equal the client's or the time limit is over.
async fn settled_counts(
    client: &Client,
    workload: &Workload,
    before: Counts,
    expected: Counts,
) -> anyhow::Result<Counts> {
    let deadline = Instant::now() + STATS_SETTLE_LIMIT;
    loop {
        let counts = client.total_counts(workload.types()).await?.since(before);
        if counts == expected || Instant::now() >= deadline {
            return Ok(counts);
        }
        tokio::time::sleep(STATS_POLL_INTERVAL).await;
    }
}

/// A bar on stderr; indicatif draws it only on a terminal.
fn progress_bar(records: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {human_pos} of {human_len} records, {eta} left, {msg}")
        .expect("the template is a constant that parses");
    ProgressBar::new(records as u64).with_style(style)
}
