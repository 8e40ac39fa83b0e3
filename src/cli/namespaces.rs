//! The command `namespaces`: shows policies and statistics, and creates, changes or deletes a policy.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ureq::http::Method;

use super::entry::entries;
use super::failure::{Exit, Failure};
use super::flush::{confirm, require_terminal};
use super::jobs::{self, Job};
use super::keys::partial;
use super::options::{Flags as _, namespace, text, with_service_options, yes};
use super::screen::{Side, bar, spinner};
use super::service::{entry_path, policy_path, with_query};
use super::session::Session;
use super::stats::Stats;
use crate::number;

const PATH: &str = "/api/v1/namespaces";

pub fn command() -> Command {
    let policies_alone = || {
        Arg::new("no-stats")
            .long("no-stats")
            .action(ArgAction::SetTrue)
            .help("Show only the policies, without statistics")
    };
    let list = Command::new("list").about("Show all namespaces (the default)").arg(policies_alone());
    let get = Command::new("get").about("Show the policy of a namespace").arg(namespace());
    // Each option has the name of its policy field as an alias.
    let set = Command::new("set")
        .about("Create a policy, or change the given options of an existing one")
        .arg(namespace())
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .alias("default-ttl")
                .value_name("TIME")
                .value_parser(number::parse_seconds)
                .help("TTL of entries that are written without a TTL: 90 (seconds), 5m; 0: they never expire"),
        )
        .arg(
            Arg::new("max-size-mb")
                .long("max-size-mb")
                .value_name("MIB")
                .value_parser(value_parser!(u64))
                .help("Quota in MiB; 0: no quota"),
        )
        .arg(
            Arg::new("eviction")
                .long("eviction")
                .alias("eviction-policy")
                .value_name("POLICY")
                .value_parser(["LRU", "LFU", "FIFO", "TTL", "NONE"])
                .ignore_case(true)
                .help("Which entries to evict when the quota is reached; NONE refuses writes instead"),
        )
        .arg(
            Arg::new("stale-if-error")
                .long("stale-if-error")
                .value_name("TIME")
                .value_parser(number::parse_seconds)
                .help("How long an expired copy may be served while its shard does not answer; 0: never"),
        )
        .after_help(
            "Examples:\n  sidecache namespaces set users --ttl 1h --max-size-mb 512 --eviction LFU\n\nOptions that \
             are not given keep their value. In a new policy they get the service's defaults.",
        );
    let delete =
        Command::new("delete").about("Delete a policy and all entries of its namespace").arg(namespace()).arg(yes());
    let command = Command::new("namespaces")
        .about("Show all namespaces with their policies and statistics, or change a policy")
        .arg(policies_alone())
        .subcommand_value_name("COMMAND")
        .subcommands([list, get, set, delete].map(with_service_options))
        .after_help(
            "Examples:\n  sidecache namespaces\n  sidecache namespaces set users --ttl 1h --max-size-mb 512\n  \
             sidecache namespaces get users --json\n  sidecache namespaces delete users --yes",
        );
    with_service_options(command)
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
    created_at: String,
    updated_at: String,
}

/// A namespace with its statistics; `stats` is `None` if they were not requested or could not be read.
#[derive(Serialize)]
struct NamespaceWithStats {
    #[serde(flatten)]
    policy: Policy,
    stats: Option<Stats>,
}

#[derive(Serialize)]
struct KnownDocument {
    namespaces: Vec<NamespaceWithStats>,
}

pub fn run(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("get", matches)) => get(session, text(matches, "namespace")),
        Some(("set", matches)) => set(session, matches),
        Some(("delete", matches)) => delete(session, matches),
        Some((_, list)) => show_all(session, !(matches.get_flag("no-stats") || list.get_flag("no-stats"))),
        None => show_all(session, !matches.get_flag("no-stats")),
    }
}

fn show_all(session: &mut Session, with_stats: bool) -> Result<(), Failure> {
    let Session { service, screen } = session;
    let Listed { namespaces } = service.fetch(PATH)?;
    let progress = bar("reading statistics", Some(namespaces.len() as u64), true);
    let mut known = Vec::with_capacity(namespaces.len());
    let (mut failed, mut missing) = (None, BTreeSet::new());
    for policy in namespaces {
        let stats = match (with_stats, &failed) {
            (true, None) => match service
                .fetch::<Stats>(&with_query(&entry_path(&policy.name, "stats"), &[("partial", "true")]))
            {
                Ok(stats) => {
                    missing.extend(stats.missing_shards.iter().cloned());
                    Some(stats)
                }
                // Read no more statistics: the next requests would fail as well, each after its timeout.
                Err(failure) => {
                    failed = Some(failure);
                    None
                }
            },
            _ => None,
        };
        known.push(NamespaceWithStats { policy, stats });
        progress.inc(1);
    }
    progress.finish_and_clear();
    if screen.json {
        screen.document(&KnownDocument { namespaces: known })?;
    } else {
        let right = |name| (name, Side::Right);
        let policy = [right("ttl"), right("quota"), ("eviction", Side::Left), right("stale")];
        let numbers = [right("keys"), right("memory"), right("hit rate"), right("evicted")];
        let mut columns = vec![("namespace", Side::Left)];
        columns.extend(policy);
        if with_stats {
            columns.extend(numbers);
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
    row.extend(policy_cells(policy).map(|(_, value)| value));
    if with_stats {
        let cell = |of: &dyn Fn(&Stats) -> String| stats.as_ref().map_or_else(|| "?".to_owned(), of);
        // If a shard did not answer, the number is a lower bound.
        let least = |stats: &Stats, shown: String| match stats.missing_shards.is_empty() {
            true => shown,
            false => format!("{shown} (partial)"),
        };
        row.push(cell(&|stats| least(stats, number::count(stats.total_keys))));
        row.push(cell(&|stats| least(stats, number::bytes(stats.memory_used_bytes))));
        row.push(cell(&|stats| match stats.hits + stats.misses {
            0 => "-".to_owned(),
            _ => number::column_percent(stats.hit_rate),
        }));
        row.push(cell(&|stats| number::count(stats.evictions)));
    }
    row
}

fn policy_cells(policy: &Policy) -> [(&'static str, String); 4] {
    let or = |number: u64, none: &str, shown: String| if number == 0 { none.to_owned() } else { shown };
    [
        ("ttl", or(policy.default_ttl, "never", number::seconds(policy.default_ttl))),
        ("quota", or(policy.max_size_mb, "none", format!("{} MiB", number::count(policy.max_size_mb)))),
        ("eviction", policy.eviction_policy.clone()),
        ("stale if error", or(policy.stale_if_error, "off", number::seconds(policy.stale_if_error))),
    ]
}

fn get(session: &mut Session, namespace: &str) -> Result<(), Failure> {
    let Session { service, screen } = session;
    let answer = service.get(&policy_path(namespace))?;
    if screen.json {
        return screen.document(&answer.parse::<&RawValue>(service)?);
    }
    let policy: Policy = answer.parse(service)?;
    let times = [("created at", policy.created_at.clone()), ("updated at", policy.updated_at.clone())];
    screen.fields(Side::Left, policy_cells(&policy).into_iter().chain(times).collect())
}

/// The body of a change. Absent fields keep their value. In a new policy they get the service's default.
#[derive(Default, Serialize)]
struct Change<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    default_ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size_mb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eviction_policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_if_error: Option<u64>,
}

fn set(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let Session { service, screen } = session;
    let path = policy_path(text(matches, "namespace"));
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let eviction = matches.get_one::<String>("eviction").map(|policy| policy.to_uppercase());
    let change = Change {
        default_ttl: number("ttl"),
        max_size_mb: number("max-size-mb"),
        eviction_policy: eviction.as_deref(),
        stale_if_error: number("stale-if-error"),
    };
    let body = serde_json::to_vec(&change).map_err(std::io::Error::from)?;
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
    screen.fields(Side::Left, policy_cells(&policy).into())
}

#[derive(Deserialize)]
struct Deleted {
    deleted_count: u64,
}

#[derive(Serialize)]
struct DeletedDocument<'a> {
    namespace: &'a str,
    deleted: bool,
    deleted_count: u64,
}

fn delete(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let Session { service, screen } = session;
    let namespace = text(matches, "namespace");
    if !matches.flag_or_false("yes") {
        require_terminal(&format!("first see what it holds with `sidecache stats {namespace}`"))?;
        let stats: Stats = service.fetch(&entry_path(namespace, "stats"))?;
        confirm(&format!("Delete the namespace {namespace} with {}?", entries(stats.total_keys)))?;
    }
    let bar = spinner("deleting");
    let answer = service.send(&Method::DELETE, &policy_path(namespace), &[], Vec::new());
    bar.finish_and_clear();
    let answer = answer.map_err(|failure| match failure.is("namespace_not_found") {
        true => Failure::new(
            Exit::NotFound,
            format!("{namespace} has no policy; to delete only entries, use `sidecache flush`"),
        )
        .with_code("namespace_not_found"),
        false => failure,
    })?;
    let deleted_count = if answer.is_accepted {
        // The deletion takes longer than the request timeout: it continues as a job.
        let job: Job = answer.parse(service)?;
        jobs::wait(service, &job.id)?.deleted()?
    } else {
        answer.parse::<Deleted>(service)?.deleted_count
    };
    if screen.json {
        return screen.document(&DeletedDocument { namespace, deleted: true, deleted_count });
    }
    screen.line(&format!("deleted {namespace} with {}", entries(deleted_count)))
}
