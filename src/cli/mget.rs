//! The command `mget`: prints several entries.

use std::collections::HashMap;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use ureq::http::Method;

use super::entry::{InOrder, distinct};
use super::failure::{Exit, Failure};
use super::screen::Side::Left;
use super::screen::{Screen, message};
use super::service::{Service, cache_path};

/// The most keys in one request.
const BATCH: usize = 100;

/// The longest value, in characters, that a table on a terminal shows; longer ones are cut.
const MAX_SHOWN: usize = 60;

/// Print several entries; exit code 1 if one of them does not exist
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache mget users user_1 user_2
  sidecache mget users user_1 user_2 --json")]
pub struct Mget {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Keys: any text; / and % need no escaping
    #[arg(value_name = "KEY", required = true, value_parser = NonEmptyStringValueParser::new())]
    keys: Vec<String>,
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
    known_absent: bool,
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

impl Mget {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let namespace = &*self.namespace;
        let mut results = Vec::new();
        let (mut hits, mut misses, mut errors) = (0, 0, 0);
        for keys in distinct(&self.keys).chunks(BATCH) {
            let body = json!({"keys": keys}).to_string().into_bytes();
            let answer = service.send(&Method::POST, &format!("{}/mget", cache_path(namespace)), &[], body)?;
            let mut batch: Batch = answer.parse(service)?;
            (hits, misses, errors) = (hits + batch.hits, misses + batch.misses, errors + batch.errors);
            results.extend(keys.iter().filter_map(|key| Some((*key, batch.results.remove(*key)?))));
        }
        let parsed: Vec<_> =
            results.iter().map(|(key, result)| (*key, serde_json::from_str::<Fetched<'_>>(result.get()))).collect();
        if screen.json {
            screen.document(&BatchDocument { namespace, results: InOrder(&results), hits, misses, errors })?;
        } else {
            let stale = parsed.iter().filter(|(_, result)| matches!(result, Ok(Fetched { stale: true, .. })));
            let stale: Vec<String> = stale.map(|(key, _)| format!("{key:?}")).collect();
            if !stale.is_empty() {
                message(&format!(
                    "sidecache: stale: {}: shards do not answer; these values may have changed, expired or been \
                     deleted since",
                    stale.join(", ")
                ));
            }
            let rows = parsed.iter().map(|(key, result)| {
                let shown = match result {
                    Ok(Fetched { found: true, value, .. }) if screen.is_terminal => shortened(value.get()),
                    Ok(Fetched { found: true, value, .. }) => value.get().to_owned(),
                    Ok(Fetched { error: Some(code), .. }) => format!("({code})"),
                    Ok(Fetched { known_absent: true, .. }) => "(known absent)".to_owned(),
                    Ok(_) => "(not found)".to_owned(),
                    Err(error) => format!("({error})"),
                };
                vec![(*key).to_owned(), shown]
            });
            let rows = rows.collect();
            screen.table(&[("key", Left), ("value", Left)], rows)?;
        }
        let is_invalid = |result: &serde_json::Result<Fetched<'_>>| match result {
            Ok(Fetched { error: Some(code), .. }) => code == "invalid_key",
            _ => false,
        };
        let invalid = parsed.iter().filter(|(_, result)| is_invalid(result)).count() as u64;
        let known_absent =
            parsed.iter().filter(|(_, result)| matches!(result, Ok(Fetched { known_absent: true, .. })));
        let absent = misses + known_absent.count() as u64;
        match (errors, absent) {
            (0, 0) => Ok(()),
            (errors, _) if errors > 0 && errors == invalid => {
                let text = format!("{invalid} keys are invalid: a key has 1 to 512 bytes and no control characters");
                Err(Failure::new(Exit::Refused, text).with_code("invalid_key"))
            }
            (0, absent) => {
                let text = format!("{absent} of {} keys have no entry in {namespace}", hits + misses);
                Err(Failure::new(Exit::NotFound, text).with_code("key_not_found"))
            }
            (errors, _) => {
                let text =
                    format!("{errors} keys could not be read; `sidecache cluster` shows which shard does not answer");
                Err(Failure::new(Exit::Failed, text))
            }
        }
    }
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
