//! The commands `get`, `set`, `del` and `mget`: read, store and delete entries.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Read as _};

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use ureq::http::Method;

use super::failure::{Exit, Failure};
use super::options::{namespace, text, with_service_options};
use super::screen::Side;
use super::service::{cache_path, entry_path, with_query};
use super::session::{Session, note};
use crate::number;

/// The most keys in one `mget` request.
const BATCH: usize = 100;

/// A reserved key: its path is the path of the namespace's statistics.
const STATISTICS: &str = "stats";

/// The longest value, in characters, that a table on a terminal shows; longer ones are cut.
const MAX_SHOWN: usize = 60;

pub fn commands() -> [Command; 4] {
    let text = NonEmptyStringValueParser::new;
    let key = || {
        Arg::new("key")
            .value_name("KEY")
            .required(true)
            .value_parser(text())
            .help("Key: any text; / and % need no escaping")
    };
    let keys = || {
        Arg::new("keys")
            .value_parser(text())
            .value_name("KEY")
            .required(true)
            .num_args(1..)
            .help("Keys: any text; / and % need no escaping")
    };
    let flag =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let get = Command::new("get")
        .about("Print the value of an entry, byte for byte; exit code 1 if it does not exist")
        .arg(namespace())
        .arg(key())
        .arg(flag("raw", "Print a JSON string as plain text, without quotes and escapes"))
        .arg(
            flag("metadata", "Print the metadata instead of the value: TTL, tags, version, size, reads")
                .conflicts_with("raw"),
        )
        .arg(flag("fresh", "Read from the shard, not from the copy in the service's memory"))
        .after_help(
            "Examples:\n  sidecache get users user_1\n  sidecache get pages 'index.html?lang=de' --raw > page.html\n  \
             sidecache get users user_1 --metadata",
        );
    // The aliases `put` and `delete` are for people who know the HTTP methods.
    let set = Command::new("set")
        .alias("put")
        .about("Store an entry")
        .arg(namespace())
        .arg(key())
        .arg(
            Arg::new("value")
                .value_name("VALUE")
                .allow_negative_numbers(true)
                .help("The value as JSON; read from standard input if it is absent or -"),
        )
        .arg(flag("string", "The value is plain text: store it as a JSON string"))
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_name("TIME")
                .value_parser(number::parse_ttl)
                .help("Time to live: 90 (seconds), 5m, 1h30m [default: the namespace's default TTL]"),
        )
        .arg(
            Arg::new("tag")
                .long("tag")
                .value_name("TAG")
                .action(ArgAction::Append)
                .help("A tag, to flush the entry by; can be given several times"),
        )
        .after_help(
            "Examples:\n  sidecache set users user_1 '{\"name\": \"Ada\"}' --ttl 5m --tag staff\n  \
             sidecache set greetings de 'Guten Tag' --string\n  \
             curl -s https://example.org/rates.json | sidecache set rates today",
        );
    let del = Command::new("del")
        .alias("delete")
        .about("Delete entries; exit code 1 if one of them does not exist")
        .arg(namespace())
        .arg(keys())
        .after_help(
            "Examples:\n  sidecache del users user_1 user_2\n\nTo delete many entries, use `sidecache flush`.",
        );
    let mget = Command::new("mget")
        .about("Print several entries; exit code 1 if one of them does not exist")
        .arg(namespace())
        .arg(keys())
        .after_help("Examples:\n  sidecache mget users user_1 user_2\n  sidecache mget users user_1 user_2 --json");
    [get, set, del, mget].map(with_service_options)
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
}

#[derive(Serialize)]
struct EntryDocument<'a> {
    namespace: &'a str,
    key: &'a str,
    found: bool,
    /// Absent if false, as in the results of `mget`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

pub fn get(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let (namespace, key) = (text(matches, "namespace"), text(matches, "key"));
    if key == STATISTICS {
        return Err(Failure::usage(format!(
            "the key {STATISTICS} is reserved; to see the namespace's statistics, use `sidecache stats {namespace}`"
        )));
    }
    let Session { service, screen } = session;
    let wants_metadata = matches.get_flag("metadata");
    let query: &[(&str, &str)] = if wants_metadata { &[("metadata", "full")] } else { &[] };
    let headers: &[(&str, &str)] = if matches.get_flag("fresh") { &[("cache-control", "no-cache")] } else { &[] };
    let path = with_query(&entry_path(namespace, key), query);
    let answer = match service.send(&Method::GET, &path, headers, Vec::new()) {
        Err(failure) if failure.is("key_not_found") => {
            if screen.json {
                let (value, metadata) = (None, None);
                screen.document(&EntryDocument { namespace, key, found: false, stale: false, value, metadata })?;
            }
            return Err(absent(namespace, key));
        }
        answer => answer?,
    };
    let Entry { value, metadata } = answer.parse(service)?;
    if screen.json {
        let (value, metadata, stale) = (Some(value), Some(metadata), answer.is_stale);
        return screen.document(&EntryDocument { namespace, key, found: true, stale, value, metadata });
    }
    if answer.is_stale {
        note(
            "sidecache: stale: the entry's shard does not answer; the value may have changed, expired or been \
             deleted since",
        );
    }
    if wants_metadata {
        let metadata: Metadata = serde_json::from_str(metadata.get())
            .map_err(|error| Failure::new(Exit::Unreachable, format!("the metadata cannot be read: {error}")))?;
        return screen.fields(Side::Left, fields(metadata));
    }
    let string = matches.get_flag("raw").then(|| serde_json::from_str::<String>(value.get()).ok()).flatten();
    screen.raw(string.as_deref().unwrap_or(value.get()).as_bytes())?;
    // A terminal needs the end of the line; a file gets exactly the value's bytes.
    if screen.is_terminal { screen.line("") } else { Ok(()) }
}

fn absent(namespace: &str, key: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("no entry {key:?} in {namespace}")).with_code("key_not_found")
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
        ("tags", (!metadata.tags.is_empty()).then(|| metadata.tags.join(", "))),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
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

pub fn set(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let (namespace, key) = (text(matches, "namespace"), text(matches, "key"));
    let value = value(matches)?;
    let Session { service, screen } = session;
    let mut body = [b"{\"value\":", value.as_bytes()].concat();
    if let Some(ttl) = matches.get_one::<u64>("ttl") {
        body.extend_from_slice(format!(",\"ttl\":{ttl}").as_bytes());
    }
    if let Some(tags) = matches.get_many::<String>("tag") {
        let tags = serde_json::to_string(&tags.collect::<Vec<_>>()).map_err(io::Error::from)?;
        body.extend_from_slice(format!(",\"tags\":{tags}").as_bytes());
    }
    body.push(b'}');
    let answer = service.send(&Method::PUT, &entry_path(namespace, key), &[], body)?;
    let Stored { created } = answer.parse(service)?;
    let version = answer.version();
    if screen.json {
        return screen.document(&StoredDocument { success: true, namespace, key, created, version });
    }
    screen.line(if created { "created" } else { "replaced" })
}

/// The value to store, as JSON without white space around it.
fn value(matches: &ArgMatches) -> Result<String, Failure> {
    let given = matches.get_one::<String>("value").filter(|value| *value != "-");
    let text = match given {
        Some(text) => text.clone(),
        None => {
            let mut stdin = io::stdin().lock();
            if stdin.is_terminal() {
                note("sidecache: type the value, then press Ctrl-D on an empty line");
            }
            let mut bytes = Vec::new();
            let read = stdin.read_to_end(&mut bytes);
            read.map_err(|error| Failure::usage(format!("cannot read the value from standard input: {error}")))?;
            String::from_utf8(bytes).map_err(|_| Failure::usage("the value on standard input is not UTF-8"))?
        }
    };
    if matches.get_flag("string") {
        return Ok(serde_json::to_string(&text).map_err(io::Error::from)?);
    }
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(json) => Ok(json.get().to_owned()),
        Err(error) => {
            let place = if given.is_some() { "VALUE" } else { "standard input" };
            Err(Failure::usage(format!(
                "{place} is not valid JSON ({error}); to store text, use --string, or JSON quotes as in '\"text\"'"
            )))
        }
    }
}

/// The result of `del` for one key.
#[derive(Serialize)]
struct Deleted {
    deleted: bool,
    /// The service's error code, or `no_answer`, or `not_tried`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A map whose entries are serialised in the order of the slice.
struct InOrder<'a, T>(&'a [(&'a str, T)]);

impl<T: Serialize> Serialize for InOrder<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct DeletedDocument<'a> {
    namespace: &'a str,
    results: InOrder<'a, Deleted>,
    deleted: usize,
    not_found: usize,
    errors: usize,
}

/// The keys of the command line, without duplicates.
fn keys(matches: &ArgMatches) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    let keys = matches.get_many::<String>("keys").into_iter().flatten().map(String::as_str);
    keys.filter(|key| seen.insert(*key)).collect()
}

pub fn del(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let namespace = text(matches, "namespace");
    let Session { service, screen } = session;
    let mut results = Vec::new();
    let mut worst: Option<Failure> = None;
    let mut keys = keys(matches).into_iter();
    for key in keys.by_ref() {
        match service.send(&Method::DELETE, &entry_path(namespace, key), &[], Vec::new()) {
            Ok(_) => results.push((key, Deleted { deleted: true, error: None })),
            Err(failure) if failure.is("key_not_found") => {
                results.push((key, Deleted { deleted: false, error: None }));
            }
            Err(failure) => {
                let is_heard = failure.code().is_some();
                let error = failure.code().unwrap_or("no_answer").to_owned();
                results.push((key, Deleted { deleted: false, error: Some(error) }));
                if worst.as_ref().is_none_or(|worst| worst.exit < failure.exit) {
                    worst = Some(failure);
                }
                // The service did not answer: stop, and report the keys that were tried.
                if !is_heard {
                    break;
                }
            }
        }
    }
    let tried = results.len();
    results.extend(keys.map(|key| (key, Deleted { deleted: false, error: Some("not_tried".to_owned()) })));
    let deleted = results.iter().filter(|(_, result)| result.deleted).count();
    let errors = results.iter().filter(|(_, result)| result.error.is_some()).count();
    let not_found = results.len() - deleted - errors;
    let written = match screen.json {
        true => {
            screen.document(&DeletedDocument { namespace, results: InOrder(&results), deleted, not_found, errors })
        }
        false => screen.line(&format!("deleted {}", entries(deleted as u64))),
    };
    if let Some(failure) = worst {
        return Err(match results.len() - tried {
            0 => failure,
            1 => failure.and("1 key was not tried"),
            left => failure.and(&format!("{left} keys were not tried")),
        });
    }
    written?;
    let missing: Vec<&str> = results.iter().filter(|(_, result)| !result.deleted).map(|(key, _)| *key).collect();
    match missing[..] {
        [] => Ok(()),
        [key] => Err(absent(namespace, key)),
        [key, ..] => {
            let text = format!("{} keys have no entry in {namespace}; the first is {key:?}", missing.len());
            Err(Failure::new(Exit::NotFound, text).with_code("key_not_found"))
        }
    }
}

/// `1 entry`, `2 entries`.
pub fn entries(count: u64) -> String {
    format!("{} {}", number::count(count), if count == 1 { "entry" } else { "entries" })
}

#[derive(Deserialize)]
struct Batch {
    results: HashMap<String, Box<RawValue>>,
    hits: u64,
    misses: u64,
    #[serde(default)]
    errors: u64,
}

#[derive(Deserialize)]
struct Fetched<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    found: bool,
    #[serde(default)]
    stale: bool,
    error: Option<String>,
}

#[derive(Serialize)]
struct BatchDocument<'a> {
    namespace: &'a str,
    results: InOrder<'a, Box<RawValue>>,
    hits: u64,
    misses: u64,
    errors: u64,
}

pub fn mget(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let namespace = text(matches, "namespace");
    let Session { service, screen } = session;
    let mut results = Vec::new();
    let (mut hits, mut misses, mut errors) = (0, 0, 0);
    for keys in keys(matches).chunks(BATCH) {
        let body = serde_json::to_vec(&HashMap::from([("keys", keys)])).map_err(io::Error::from)?;
        let answer = service.send(&Method::POST, &format!("{}/mget", cache_path(namespace)), &[], body)?;
        let mut batch: Batch = answer.parse(service)?;
        (hits, misses, errors) = (hits + batch.hits, misses + batch.misses, errors + batch.errors);
        results.extend(keys.iter().filter_map(|key| Some((*key, batch.results.remove(*key)?))));
    }
    if screen.json {
        screen.document(&BatchDocument { namespace, results: InOrder(&results), hits, misses, errors })?;
    } else {
        let mut stale = Vec::new();
        let row = |(key, result): &(&str, Box<RawValue>)| {
            let fetched = serde_json::from_str::<Fetched<'_>>(result.get());
            if fetched.as_ref().is_ok_and(|fetched| fetched.stale) {
                stale.push(format!("{key:?}"));
            }
            let shown = match fetched {
                Ok(Fetched { found: true, value, .. }) if screen.is_terminal => shortened(value.get()),
                Ok(Fetched { found: true, value, .. }) => value.get().to_owned(),
                Ok(Fetched { error: Some(code), .. }) => format!("({code})"),
                Ok(_) => "(not found)".to_owned(),
                Err(error) => format!("({error})"),
            };
            vec![(*key).to_owned(), shown]
        };
        let rows = results.iter().map(row).collect();
        if !stale.is_empty() {
            note(&format!(
                "sidecache: stale: {}: shards do not answer; these values may have changed, expired or been deleted \
                 since",
                stale.join(", ")
            ));
        }
        screen.table(&[("key", Side::Left), ("value", Side::Left)], rows)?;
    }
    let is_invalid = |result: &RawValue| {
        let fetched = serde_json::from_str::<Fetched<'_>>(result.get());
        fetched.is_ok_and(|fetched| fetched.error.as_deref() == Some("invalid_key"))
    };
    let invalid = results.iter().filter(|(_, result)| is_invalid(result)).count() as u64;
    match (errors, misses) {
        (0, 0) => Ok(()),
        (errors, _) if errors > 0 && errors == invalid => {
            let text = format!("{invalid} keys are invalid: a key has 1 to 512 bytes and no control characters");
            Err(Failure::new(Exit::Refused, text).with_code("invalid_key"))
        }
        (0, misses) => {
            let text = format!("{misses} of {} keys have no entry in {namespace}", hits + misses);
            Err(Failure::new(Exit::NotFound, text).with_code("key_not_found"))
        }
        (errors, _) => {
            let text =
                format!("{errors} keys could not be read; `sidecache cluster` shows which shard does not answer");
            Err(Failure::new(Exit::Failed, text))
        }
    }
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
