//! The command `keys`: lists the live keys of a namespace, one per line. It reads and prints them page by page.

use std::collections::BTreeSet;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, value_parser};
use serde::{Deserialize, Serialize};

use super::failure::{Exit, Failure};
use super::options::Selection;
use super::screen::{Screen, bar};
use super::service::{Service, cache_path, with_query};

/// Keys per page: the maximum that the service allows.
const PAGE: u64 = 1000;

/// List the live keys of a namespace, one per line
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache keys users --pattern 'user_*' --limit 10
  sidecache keys users --json | jq -r .key

A key contains no line breaks. A key that exists during the whole listing is listed exactly once. If a shard does not \
answer, the keys of the other shards are listed and the exit code is 5.")]
pub struct Keys {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// List at most N keys
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Deserialize)]
struct Page {
    size: u64,
    keys: Vec<String>,
    cursor: Option<String>,
    /// Shards whose keys are missing; absent if all shards answered.
    #[serde(default)]
    missing_shards: Vec<String>,
}

/// One line of JSON.
#[derive(Serialize)]
struct KeyDocument<'a> {
    key: &'a str,
}

impl Keys {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let path = cache_path(&self.namespace);
        let selection = self.selection.query();
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut cursor: Option<String> = None;
        // Created with the first page, because that page has the number of keys. With a pattern or tag the total is
        // unknown.
        let mut progress = None;
        let mut missing = BTreeSet::new();
        loop {
            let limit = left.min(PAGE).to_string();
            let mut query = selection.clone();
            query.push(("limit", &limit));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page: Page = service.fetch(&with_query(&path, &query))?;
            missing.extend(page.missing_shards);
            let total = selection.is_empty().then_some(page.size.min(left));
            let is_alone = !screen.is_terminal;
            let progress = progress.get_or_insert_with(|| bar("listing", total, is_alone));
            for key in page.keys.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                screen.result(&KeyDocument { key }, key)?;
            }
            screen.flush()?;
            left = left.saturating_sub(page.keys.len() as u64);
            progress.inc(page.keys.len() as u64);
            if page.cursor.is_none() || left == 0 {
                progress.finish_and_clear();
                return partial(&missing, "their keys are missing");
            }
            cursor = page.cursor;
        }
    }
}

/// Fails if the list is incomplete because the shards in `missing` did not answer. `meaning` says what is incomplete.
pub fn partial(missing: &BTreeSet<String>, meaning: &str) -> Result<(), Failure> {
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let text = format!("partial: these shards do not answer: {names}; {meaning} (see `sidecache cluster`)");
    Err(Failure::new(Exit::Failed, text))
}
