//! The command `namespaces`: shows policies and statistics, and creates, changes or deletes a policy.

use std::collections::{BTreeMap, BTreeSet};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ureq::http::Method;

use super::failure::{Exit, Failure};
use super::flush::{confirm, require_terminal};
use super::jobs;
use super::keys::partial;
use super::options::Confirmation;
use super::screen::Side::{Left, Right};
use super::screen::{Screen, bar};
use super::service::{Service, entry_path, policy_path, with_query};
use super::stats::Statistics;
use crate::number;

const PATH: &str = "/api/v1/namespaces";

/// How many fields of a policy the list of namespaces shows.
const LISTED_CELLS: usize = 4;

/// Show all namespaces with their policies and statistics, or change a policy
#[derive(Args)]
#[command(subcommand_value_name = "COMMAND")]
#[command(after_help = "\
Examples:
  sidecache namespaces
  sidecache namespaces set users --ttl 1h --max-size-mb 512
  sidecache namespaces get users --json
  sidecache namespaces delete users --yes")]
pub struct Namespaces {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show all namespaces (the default)
    List(List),
    /// Show the policy of a namespace
    Get {
        /// Namespace
        #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
        namespace: String,
    },
    Set(Set),
    /// Delete a policy and all entries of its namespace
    Delete {
        /// Namespace
        #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
        namespace: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Args)]
struct List {
    /// Show only the policies, without statistics
    #[arg(long)]
    no_stats: bool,
}

/// Create a policy, or change the given options of an existing one
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache namespaces set users --ttl 1h --max-size-mb 512 --eviction LFU

Options that are not given keep their value. In a new policy they get the service's defaults.")]
struct Set {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    #[command(flatten)]
    change: Change,
}

// The options of `set`, which are also the body of the request. Absent fields keep their value; in a new policy they
// get the service's default. Each option has the name of its field as an alias.
#[derive(Args, Serialize)]
struct Change {
    /// TTL of entries that are written without a TTL: 90 (seconds), 5m; 0: they never expire
    #[arg(long = "ttl", alias = "default-ttl", value_name = "TIME", value_parser = number::parse_seconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    default_ttl: Option<u64>,
    /// Quota in MiB; 0: no quota
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size_mb: Option<u64>,
    /// Which entries to evict when the quota is reached; NONE refuses writes instead
    #[arg(long = "eviction", alias = "eviction-policy", value_name = "POLICY")]
    #[arg(value_parser = ["LRU", "LFU", "FIFO", "TTL", "NONE"], ignore_case = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    eviction_policy: Option<String>,
    /// How long an expired copy may be served while its shard does not answer; 0: never
    #[arg(long, value_name = "TIME", value_parser = number::parse_seconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_if_error: Option<u64>,
    /// Shorten the TTL of each write at random by up to this part: 0.1; 0: never
    #[arg(long, value_name = "PART")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_jitter: Option<f64>,
    /// Refresh an entry after this part of its TTL: 0.8; 1: only after it expired
    #[arg(long, value_name = "PART")]
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_after: Option<f64>,
    /// How long an expired entry may be served while it is refreshed; 0: not at all
    #[arg(long, value_name = "TIME", value_parser = number::parse_seconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_while_revalidate: Option<u64>,
    /// How long the source version of a deleted entry is remembered
    #[arg(long, value_name = "TIME", value_parser = number::parse_seconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tombstone_ttl: Option<u64>,
}

#[derive(Deserialize)]
struct Listed {
    namespaces: Vec<Policy>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Policy {
    name: String,
    default_ttl: u64,
    max_size_mb: u64,
    eviction_policy: String,
    stale_if_error: u64,
    ttl_jitter: f64,
    refresh_after: f64,
    stale_while_revalidate: u64,
    tombstone_ttl: u64,
    created_at: String,
    updated_at: String,
}

/// A namespace with its statistics; `stats` is `None` if they were not requested or could not be read.
#[derive(Serialize)]
struct NamespaceWithStats {
    #[serde(flatten)]
    policy: Policy,
    stats: Option<Statistics>,
}

impl Namespaces {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let with_stats = !self.list.no_stats;
        match self.command {
            None => show_all(service, screen, with_stats),
            Some(Command::List(list)) => show_all(service, screen, with_stats && !list.no_stats),
            Some(Command::Get { namespace }) => get(service, screen, &namespace),
            Some(Command::Set(set)) => set.run(service, screen),
            Some(Command::Delete { namespace, confirmation }) => {
                delete(service, screen, &namespace, confirmation.yes)
            }
        }
    }
}

fn show_all(service: &Service, screen: &mut Screen, with_stats: bool) -> Result<(), Failure> {
    let Listed { namespaces } = service.fetch(PATH)?;
    let progress = bar("reading statistics", Some(namespaces.len() as u64), true);
    let mut known = Vec::with_capacity(namespaces.len());
    let (mut failed, mut missing) = (None, BTreeSet::new());
    for policy in namespaces {
        let mut stats = None;
        // After a failure, read no more statistics: the next requests would fail as well, each after its timeout.
        if with_stats && failed.is_none() {
            let path = with_query(&entry_path(&policy.name, "stats"), &[("partial", "true")]);
            match service.fetch::<Statistics>(&path) {
                Ok(answer) => {
                    missing.extend(answer.missing_shards.iter().cloned());
                    stats = Some(answer);
                }
                Err(failure) => failed = Some(failure),
            }
        }
        known.push(NamespaceWithStats { policy, stats });
        progress.inc(1);
    }
    progress.finish_and_clear();
    if screen.json {
        screen.document(&BTreeMap::from([("namespaces", known)]))?;
    } else {
        let mut columns =
            vec![("namespace", Left), ("ttl", Right), ("quota", Right), ("eviction", Left), ("stale", Right)];
        if with_stats {
            columns.extend([("keys", Right), ("memory", Right), ("hit rate", Right), ("evicted", Right)]);
        }
        let rows = known.iter().map(|known| row(known, with_stats)).collect();
        screen.table(&columns, rows)?;
    }
    match failed {
        Some(failure) => Err(failure),
        None => partial(&missing, "their entries are not counted"),
    }
}

fn row(NamespaceWithStats { policy, stats }: &NamespaceWithStats, with_stats: bool) -> Vec<String> {
    let mut row = vec![policy.name.clone()];
    row.extend(policy_cells(policy).into_iter().take(LISTED_CELLS).map(|(_, value)| value));
    let Some(stats) = stats else {
        row.extend(vec!["?".to_owned(); if with_stats { 4 } else { 0 }]);
        return row;
    };
    // If a shard did not answer, the number is a lower bound.
    let partial = if stats.missing_shards.is_empty() { "" } else { " (partial)" };
    let reads = stats.hits + stats.misses;
    row.push(format!("{}{partial}", number::count(stats.total_keys)));
    row.push(format!("{}{partial}", number::bytes(stats.memory_used_bytes)));
    row.push(if reads == 0 { "-".to_owned() } else { number::column_percent(stats.hit_rate) });
    row.push(number::count(stats.evictions));
    row
}

/// The name and the value of each field. The list of namespaces has room for the first [`LISTED_CELLS`].
fn policy_cells(policy: &Policy) -> [(&'static str, String); 8] {
    let or = |number: u64, none: &str, shown: String| if number == 0 { none.to_owned() } else { shown };
    let off = || "off".to_owned();
    [
        ("ttl", or(policy.default_ttl, "never", number::seconds(policy.default_ttl))),
        ("quota", or(policy.max_size_mb, "none", format!("{} MiB", number::count(policy.max_size_mb)))),
        ("eviction", policy.eviction_policy.clone()),
        ("stale if error", or(policy.stale_if_error, "off", number::seconds(policy.stale_if_error))),
        ("ttl jitter", if policy.ttl_jitter == 0.0 { off() } else { number::percent(policy.ttl_jitter) }),
        ("refresh after", if policy.refresh_after == 1.0 { off() } else { number::percent(policy.refresh_after) }),
        (
            "stale while revalidate",
            or(policy.stale_while_revalidate, "off", number::seconds(policy.stale_while_revalidate)),
        ),
        ("tombstone ttl", number::seconds(policy.tombstone_ttl)),
    ]
}

fn get(service: &Service, screen: &mut Screen, namespace: &str) -> Result<(), Failure> {
    let answer = service.get(&policy_path(namespace))?;
    if screen.json {
        return screen.document(&answer.parse::<&RawValue>(service)?);
    }
    let policy: Policy = answer.parse(service)?;
    let times = [("created at", policy.created_at.clone()), ("updated at", policy.updated_at.clone())];
    screen.fields(Left, policy_cells(&policy).into_iter().chain(times).collect())
}

impl Set {
    fn run(mut self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let path = policy_path(&self.namespace);
        self.change.eviction_policy = self.change.eviction_policy.map(|policy| policy.to_uppercase());
        let body = serde_json::to_vec(&self.change).map_err(std::io::Error::from)?;
        let (answer, done) = match service.send(&Method::PATCH, &path, &[], body.clone()) {
            Ok(answer) => (answer, "changed"),
            Err(failure) if failure.is("namespace_not_found") => {
                (service.send(&Method::PUT, &path, &[], body)?, "created")
            }
            Err(failure) => return Err(failure),
        };
        if screen.json {
            return screen.document(&answer.parse::<&RawValue>(service)?);
        }
        let policy: Policy = answer.parse(service)?;
        screen.line(done)?;
        screen.fields(Left, policy_cells(&policy).into())
    }
}

#[derive(Serialize)]
struct DeletedDocument<'a> {
    namespace: &'a str,
    deleted: bool,
    deleted_count: u64,
}

fn delete(service: &Service, screen: &mut Screen, namespace: &str, is_confirmed: bool) -> Result<(), Failure> {
    if !is_confirmed {
        require_terminal(&format!("first see what it holds with `sidecache stats {namespace}`"))?;
        let stats: Statistics = service.fetch(&entry_path(namespace, "stats"))?;
        let held = number::of(stats.total_keys, "entry", "entries");
        confirm(&format!("Delete the namespace {namespace} with {held}?"))?;
    }
    let deleted_count = jobs::delete(service, &policy_path(namespace)).map_err(|failure| {
        if !failure.is("namespace_not_found") {
            return failure;
        }
        let text = format!("{namespace} has no policy; to delete only entries, use `sidecache flush`");
        Failure::new(Exit::NotFound, text).with_code("namespace_not_found")
    })?;
    let line = format!("deleted {namespace} with {}", number::of(deleted_count, "entry", "entries"));
    screen.result(&DeletedDocument { namespace, deleted: true, deleted_count }, &line)
}
