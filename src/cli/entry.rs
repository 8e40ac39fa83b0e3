//! The commands `get`, `set` and `del`: read, store and delete an entry.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _, Read as _};

use clap::Args;
use clap::builder::{NonEmptyStringValueParser, RangedU64ValueParser};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;
use ureq::http::Method;

use super::failure::{Exit, Failure};
use super::lease::{GivenLease, LeaseOptions, lease_header};
use super::screen::Side::Left;
use super::screen::{Screen, message};
use super::service::{Service, entry_path, with_query};
use crate::number;

/// A reserved key: its path is the path of the namespace's statistics.
const STATISTICS: &str = "stats";

/// Print the value of an entry, byte for byte; exit code 1 if it does not exist
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache get users user_1
  sidecache get pages 'index.html?lang=de' --raw > page.html
  sidecache get users user_1 --metadata
  sidecache get rates today --max-age 5m
  sidecache get rates today --lease 10s --wait 2s")]
pub struct Get {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Key: any text; / and % need no escaping
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// Print a JSON string as plain text, without quotes and escapes
    #[arg(long)]
    raw: bool,
    /// Print the metadata instead of the value: TTL, tags, version, size, reads
    #[arg(long, conflicts_with_all = ["raw", "lease"])]
    metadata: bool,
    /// Read from the shard, not from the copy in the service's memory
    #[arg(long)]
    fresh: bool,
    /// Only an entry that was written at most this long ago: 90 (seconds), 5m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = number::parse_seconds)]
    max_age: Option<u64>,
    /// Only an entry that has at least this much time left
    #[arg(long, value_name = "TIME", value_parser = number::parse_seconds)]
    min_fresh: Option<u64>,
    /// Only an answer from which no write older than this many milliseconds is missing
    #[arg(long, value_name = "MS")]
    max_staleness_ms: Option<u64>,
    /// Read from the service's memory alone; exit code 1 if the entry is not there
    #[arg(long, conflicts_with = "fresh")]
    only_if_cached: bool,
    #[command(flatten)]
    lease: LeaseOptions,
}

// The aliases `put` and `delete` are for people who know the HTTP methods.

/// Store an entry
#[derive(Args)]
#[command(alias = "put")]
#[command(after_help = "\
Examples:
  sidecache set users user_1 '{\"name\": \"Ada\"}' --ttl 5m --tag staff
  sidecache set greetings de 'Guten Tag' --string
  sidecache set prices mug 12 --source-version 7
  sidecache set users user_9 --absent --ttl 1m
  sidecache set prices mug 12 --lease 8f14e45fceea167a5a36dedd4bea2543
  curl -s https://example.org/rates.json | sidecache set rates today")]
pub struct Set {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Key: any text; / and % need no escaping
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// The value as JSON; read from standard input if it is absent or -
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// The value is plain text: store it as a JSON string
    #[arg(long)]
    string: bool,
    /// Store that there is no such thing, instead of a value
    #[arg(long, conflicts_with_all = ["value", "string"])]
    absent: bool,
    /// Time to live: 90 (seconds), 5m, 1h30m [default: the namespace's default TTL]
    #[arg(long, value_name = "TIME", value_parser = number::parse_ttl)]
    ttl: Option<u64>,
    /// A tag, to flush the entry by; can be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// The token that `get --lease` printed: store the value only if nobody has changed the entry since
    #[arg(long, value_name = "TOKEN")]
    lease: Option<String>,
    /// The source's own count of this state: refused if the cache knows a newer one
    #[arg(long, value_name = "NUMBER", value_parser = source_version())]
    source_version: Option<u64>,
}

fn source_version() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(..=i64::MAX.unsigned_abs())
}

/// Delete entries, or mark them as stale; exit code 1 if one of them does not exist
#[derive(Args)]
#[command(alias = "delete")]
#[command(after_help = "\
Examples:
  sidecache del users user_1 user_2
  sidecache del prices mug --source-version 8
  sidecache del prices mug --stale

To delete many entries, use `sidecache flush`.")]
pub struct Del {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Keys: any text; / and % need no escaping
    #[arg(value_name = "KEY", required = true, value_parser = NonEmptyStringValueParser::new())]
    keys: Vec<String>,
    /// The source's own count of the deletion: older states are not stored again for a while
    #[arg(long, value_name = "NUMBER", value_parser = source_version())]
    source_version: Option<u64>,
    /// Mark the entries as stale instead of deleting them: they are answered while one client refreshes them
    #[arg(long, conflicts_with = "source_version")]
    stale: bool,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct Metadata {
    ttl_remaining: Option<u64>,
    created_at: String,
    expires_at: Option<String>,
    last_accessed: Option<String>,
    access_count: Option<u64>,
    size_bytes: Option<u64>,
    version: Option<u64>,
    #[serde(default)]
    tags: Vec<String>,
    source_version: Option<u64>,
}

#[derive(Serialize)]
struct EntryDocument<'a> {
    namespace: &'a str,
    key: &'a str,
    found: bool,
    // Absent if false, as in the results of `mget`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    known_absent: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<GivenLease>,
}

impl Get {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let Self { namespace, key, .. } = &self;
        if key == STATISTICS {
            return Err(Failure::usage(format!(
                "the key {STATISTICS} is reserved; to see the namespace's statistics, use `sidecache stats {namespace}`"
            )));
        }
        let query: &[(&str, &str)] = if self.metadata { &[("metadata", "full")] } else { &[] };
        let (directives, preference) = (self.directives(), self.lease.preference());
        let headers = [("cache-control", directives.as_str()), ("prefer", preference.as_str())];
        let headers: Vec<_> = headers.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let path = with_query(&entry_path(namespace, key), query);
        let absent_entry = EntryDocument {
            namespace,
            key,
            found: false,
            known_absent: false,
            stale: false,
            value: None,
            metadata: None,
            lease: None,
        };
        let answer = match service.send(&Method::GET, &path, &headers, Vec::new()) {
            Err(failure) if failure.is("key_not_found") || failure.is("known_absent") => {
                let known_absent = failure.is("known_absent");
                let lease = failure.lease.as_deref().and_then(GivenLease::parse);
                if screen.json {
                    screen.document(&EntryDocument { known_absent, lease, ..absent_entry })?;
                } else if let Some(lease) = &lease {
                    screen.line(lease.word())?;
                }
                // With directives there may be an entry: the answer says why it does not count.
                return Err(match directives.is_empty() {
                    _ if known_absent => known_to_be_absent(namespace, key),
                    true => absent(namespace, key),
                    false => failure,
                });
            }
            answer => answer?,
        };
        let Entry { value, metadata } = answer.parse(service)?;
        let lease = answer.lease.as_deref().and_then(GivenLease::parse);
        if screen.json {
            let (value, metadata) = (Some(value), Some(metadata));
            let stale = answer.is_stale;
            return screen.document(&EntryDocument { found: true, stale, value, metadata, lease, ..absent_entry });
        }
        if let Some(lease) = lease {
            message(&format!("sidecache: {}", lease.advice()));
        }
        if answer.is_stale {
            message(
                "sidecache: stale: the entry's shard does not answer; the value may have changed, expired or been \
                 deleted since",
            );
        }
        if self.metadata {
            let metadata: Metadata = serde_json::from_str(metadata.get())
                .map_err(|error| Failure::new(Exit::Unreachable, format!("the metadata cannot be read: {error}")))?;
            return screen.fields(Left, fields(metadata));
        }
        let string = self.raw.then(|| serde_json::from_str::<String>(value.get()).ok()).flatten();
        screen.raw(string.as_deref().unwrap_or(value.get()).as_bytes())?;
        // A terminal needs the end of the line; a file gets exactly the value's bytes.
        if screen.is_terminal { screen.line("") } else { Ok(()) }
    }
}

impl Get {
    /// The `Cache-Control` of the request; empty if no option asks for one.
    fn directives(&self) -> String {
        let numbers =
            [("max-age", self.max_age), ("min-fresh", self.min_fresh), ("max-staleness-ms", self.max_staleness_ms)];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some(format!("{name}={}", number?)));
        let words = [("no-cache", self.fresh), ("only-if-cached", self.only_if_cached)];
        let words = words.into_iter().filter(|(_, is_set)| *is_set).map(|(word, _)| word.to_owned());
        words.chain(numbers).collect::<Vec<_>>().join(", ")
    }
}

/// The failure of a command whose entry does not exist.
pub fn absent(namespace: &str, key: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("no entry {key:?} in {namespace}")).with_code("key_not_found")
}

fn known_to_be_absent(namespace: &str, key: &str) -> Failure {
    let text = format!("no entry {key:?} in {namespace}: known absent, the source has no such thing");
    Failure::new(Exit::NotFound, text).with_code("known_absent")
}

fn fields(metadata: Metadata) -> Vec<(&'static str, String)> {
    let ttl = metadata.ttl_remaining.map_or_else(|| "never expires".to_owned(), number::seconds);
    let known = [
        ("ttl remaining", Some(ttl)),
        ("expires at", metadata.expires_at),
        ("created at", Some(metadata.created_at)),
        ("last read", metadata.last_accessed),
        ("reads", metadata.access_count.map(number::count)),
        ("size", metadata.size_bytes.map(number::bytes)),
        ("version", metadata.version.map(|version| version.to_string())),
        ("source version", metadata.source_version.map(|version| version.to_string())),
        ("tags", (!metadata.tags.is_empty()).then(|| metadata.tags.join(", "))),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The body of a PUT.
#[derive(Serialize)]
struct NewEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    absent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    source_version: Option<u64>,
}

#[derive(Deserialize)]
struct Stored {
    created: bool,
}

#[derive(Serialize)]
struct StoredDocument<'a> {
    success: bool,
    namespace: &'a str,
    key: &'a str,
    created: bool,
    version: Option<u64>,
}

impl Set {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let value = if self.absent { None } else { Some(self.value_as_json()?) };
        let (value, absent) = (value.as_deref(), self.absent);
        let (ttl, tags, source_version) = (self.ttl, &*self.tags, self.source_version);
        let entry = NewEntry { value, absent, ttl, tags, source_version };
        let body = serde_json::to_vec(&entry).map_err(io::Error::from)?;
        let (namespace, key) = (&*self.namespace, &*self.key);
        let lease: Vec<_> = self.lease.iter().map(|token| lease_header(token)).collect();
        let answer = service.send(&Method::PUT, &entry_path(namespace, key), &lease, body)?;
        let Stored { created } = answer.parse(service)?;
        let version = answer.version();
        let document = StoredDocument { success: true, namespace, key, created, version };
        screen.result(&document, if created { "created" } else { "replaced" })
    }

    /// The value to store, as JSON without white space around it.
    fn value_as_json(&self) -> Result<Box<RawValue>, Failure> {
        let given = self.value.as_deref().filter(|value| *value != "-");
        let text = given.map_or_else(standard_input, |text| Ok(text.to_owned()))?;
        let text = if self.string { json!(text).to_string() } else { text };
        RawValue::from_string(text).map_err(|error| {
            let place = if given.is_some() { "VALUE" } else { "standard input" };
            Failure::usage(format!(
                "{place} is not valid JSON ({error}); to store text, use --string, or JSON quotes as in '\"text\"'"
            ))
        })
    }
}

fn standard_input() -> Result<String, Failure> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        message("sidecache: type the value, then press Ctrl-D on an empty line");
    }
    let mut bytes = Vec::new();
    let read = stdin.read_to_end(&mut bytes);
    read.map_err(|error| Failure::usage(format!("cannot read the value from standard input: {error}")))?;
    String::from_utf8(bytes).map_err(|_| Failure::usage("the value on standard input is not UTF-8"))
}

/// The result of `del` for one key.
#[derive(Serialize)]
struct Deleted {
    /// With `--stale`: whether the entry was marked.
    #[serde(skip_serializing_if = "Option::is_none")]
    marked: Option<bool>,
    /// Otherwise: whether it was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
    /// The service's error code, or `no_answer`, or `not_tried`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A map whose entries are serialised in the order of the slice.
pub(super) struct InOrder<'a, T>(pub &'a [(&'a str, T)]);

impl<T: Serialize> Serialize for InOrder<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Deleted {
    fn is_done(&self) -> bool {
        self.marked == Some(true) || self.deleted == Some(true)
    }
}

#[derive(Serialize)]
struct DeletedDocument<'a> {
    namespace: &'a str,
    results: InOrder<'a, Deleted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marked: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<usize>,
    not_found: usize,
    errors: usize,
}

/// The keys of the command line, without duplicates.
pub(super) fn distinct(keys: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    keys.iter().map(String::as_str).filter(|key| seen.insert(*key)).collect()
}

impl Del {
    /// The result for one key.
    fn result(&self, is_done: bool, error: Option<String>) -> Deleted {
        Deleted { marked: self.stale.then_some(is_done), deleted: (!self.stale).then_some(is_done), error }
    }

    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let namespace = &*self.namespace;
        let mut results = Vec::new();
        let mut worst: Option<Failure> = None;
        let mut keys = distinct(&self.keys).into_iter();
        let version = self.source_version.map(|version| version.to_string());
        let version = version.iter().map(|version| ("source_version", version.as_str()));
        let query: Vec<(&str, &str)> = version.chain(self.stale.then_some(("mode", "stale"))).collect();
        for key in keys.by_ref() {
            let path = with_query(&entry_path(namespace, key), &query);
            match service.send(&Method::DELETE, &path, &[], Vec::new()) {
                Ok(_) => results.push((key, self.result(true, None))),
                Err(failure) if failure.is("key_not_found") => results.push((key, self.result(false, None))),
                Err(failure) => {
                    let is_answered = failure.code.is_some();
                    let error = failure.code.clone().unwrap_or_else(|| "no_answer".to_owned());
                    results.push((key, self.result(false, Some(error))));
                    if worst.as_ref().is_none_or(|worst| worst.exit < failure.exit) {
                        worst = Some(failure);
                    }
                    // The service did not answer: stop, and report the keys that were tried.
                    if !is_answered {
                        break;
                    }
                }
            }
        }
        let tried = results.len();
        results.extend(keys.map(|key| (key, self.result(false, Some("not_tried".to_owned())))));
        let done = results.iter().filter(|(_, result)| result.is_done()).count();
        let errors = results.iter().filter(|(_, result)| result.error.is_some()).count();
        let not_found = results.len() - done - errors;
        let (marked, deleted) = (self.stale.then_some(done), (!self.stale).then_some(done));
        let document = DeletedDocument { namespace, results: InOrder(&results), marked, deleted, not_found, errors };
        let entries = number::of(done as u64, "entry", "entries");
        let line = if self.stale { format!("marked {entries} as stale") } else { format!("deleted {entries}") };
        let written = screen.result(&document, &line);
        if let Some(failure) = worst {
            return Err(match results.len() - tried {
                0 => failure,
                1 => failure.and("1 key was not tried"),
                left => failure.and(&format!("{left} keys were not tried")),
            });
        }
        written?;
        let missing: Vec<&str> =
            results.iter().filter(|(_, result)| !result.is_done()).map(|(key, _)| *key).collect();
        match missing[..] {
            [] => Ok(()),
            [key] => Err(absent(namespace, key)),
            [key, ..] => {
                let text = format!("{} keys have no entry in {namespace}; the first is {key:?}", missing.len());
                Err(Failure::new(Exit::NotFound, text).with_code("key_not_found"))
            }
        }
    }
}
