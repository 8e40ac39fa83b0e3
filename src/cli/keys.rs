//! `keys`: the live keys of a namespace, a line each, as the pages come.

use clap::{ArgMatches, Command};
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::screen::bar;
use super::service::{cache_path, with_query};
use super::{Session, asking, count, namespace, selected, selection, text};

/// Keys of a page, which is the most that the service gives.
const PAGE: u64 = 1000;

pub fn command() -> Command {
    let command = Command::new("keys")
        .about("List the live keys of a namespace, a line each")
        .arg(namespace())
        .arg(count("limit").help("At most so many"))
        .after_help(
            "Examples:\n  sidecache keys users --pattern 'user_*' --limit 10\n  \
             sidecache keys users --json | jq -r .key\n\nNo key has a line break in it. A key that lives throughout is \
             listed exactly once.",
        );
    asking(selection(command))
}

#[derive(Deserialize)]
struct Page {
    size: u64,
    keys: Vec<String>,
    cursor: Option<String>,
}

/// One line of JSON.
#[derive(Serialize)]
struct KeyDocument<'a> {
    key: &'a str,
}

pub fn run(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let path = cache_path(text(matches, "namespace"));
    let selected = selected(matches);
    let Session { service, screen } = session;
    let mut left = matches.get_one::<u64>("limit").copied().unwrap_or(u64::MAX);
    let mut cursor: Option<String> = None;
    // How many a pattern will select, nobody knows.
    let mut progress = None;
    loop {
        let limit = left.min(PAGE).to_string();
        let mut query = selected.clone();
        query.push(("limit", &limit));
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: Page = service.fetch(&with_query(&path, &query))?;
        let total = selected.is_empty().then_some(page.size.min(left));
        let is_alone = !screen.is_terminal;
        let progress = progress.get_or_insert_with(|| bar("listing", total, is_alone));
        for key in page.keys.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            match screen.json {
                true => screen.document(&KeyDocument { key })?,
                false => screen.line(key)?,
            }
        }
        screen.flush()?;
        left = left.saturating_sub(page.keys.len() as u64);
        progress.inc(page.keys.len() as u64);
        if page.cursor.is_none() || left == 0 {
            progress.finish_and_clear();
            return Ok(());
        }
        cursor = page.cursor;
    }
}
