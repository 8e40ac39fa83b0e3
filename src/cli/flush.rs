//! The command `flush`: counts the selected entries, asks for confirmation, and deletes them or marks them as stale.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::failure::{Exit, Failure};
use super::jobs;
use super::options::{Confirmation, Selection};
use super::screen::{Screen, with_spinner};
use super::service::{Service, cache_path, with_query};
use crate::number;

/// Delete all entries of a namespace, or those that match a pattern or have a tag
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache flush users --pattern 'user_*' --dry-run
  sidecache flush users --tag staff
  sidecache flush users --tag staff --stale
  sidecache flush users --yes

On a terminal, the command counts the entries and asks before it deletes them. The pattern is a glob as in Redis.
A flush that takes longer than the request timeout of the service continues as a job. Ctrl-C does not stop the job: \
see `sidecache jobs`.")]
pub struct Flush {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Count the entries, delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Mark the entries as stale instead of deleting them: they are answered while one client refreshes them
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    selection: Selection,
}

/// The answer to a dry run.
#[derive(Deserialize)]
struct Counted {
    matched_count: Option<u64>,
}

#[derive(Serialize)]
struct FlushDocument<'a> {
    namespace: &'a str,
    pattern: Option<&'a str>,
    tag: Option<&'a str>,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marked_count: Option<u64>,
}

impl Flush {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let what = self.selected();
        let mut document = FlushDocument {
            namespace: &self.namespace,
            pattern: self.selection.pattern.as_deref(),
            tag: self.selection.tag.as_deref(),
            dry_run: self.dry_run,
            matched_count: None,
            deleted_count: (!self.stale).then_some(0),
            marked_count: self.stale.then_some(0),
        };
        let done = if self.stale { "marked as stale" } else { "deleted" };
        if self.dry_run {
            let matched = self.count(service)?;
            document.matched_count = Some(matched);
            let line = format!("{} of {what} would be {done}", number::of(matched, "entry", "entries"));
            return screen.result(&document, &line);
        }
        if !self.confirmation.yes {
            require_terminal("count the entries first with --dry-run")?;
            let matched = self.count(service)?;
            if matched == 0 {
                // There is nothing to do, so do not ask.
                return screen.result(&document, &format!("there are no entries of {what}; nothing was {done}"));
            }
            let matched = number::of(matched, "entry", "entries");
            confirm(&match self.stale {
                true => format!("Mark {matched} of {what} as stale?"),
                false => format!("Delete {matched} of {what}?"),
            })?;
        }
        let mut query = self.selection.query();
        if self.stale {
            query.push(("mode", "stale"));
            let marked = jobs::delete(service, &with_query(&cache_path(&self.namespace), &query))?;
            document.marked_count = Some(marked);
            let line = format!("marked {} of {what} as stale", number::of(marked, "entry", "entries"));
            return screen.result(&document, &line);
        }
        let path = with_query(&cache_path(&self.namespace), &query);
        let deleted = jobs::delete(service, &path)?;
        document.deleted_count = Some(deleted);
        let line = format!("deleted {} of {what}", number::of(deleted, "entry", "entries"));
        screen.result(&document, &line)
    }

    /// The selected entries, in words.
    fn selected(&self) -> String {
        let Self { namespace, selection: Selection { pattern, tag }, .. } = self;
        match (pattern, tag) {
            (Some(pattern), _) => format!("{namespace} that match {pattern:?}"),
            (None, Some(tag)) => format!("{namespace} with the tag {tag:?}"),
            (None, None) => namespace.clone(),
        }
    }

    /// How many entries are selected.
    fn count(&self, service: &Service) -> Result<u64, Failure> {
        let mut query = self.selection.query();
        query.push(("dry_run", "true"));
        let path = with_query(&cache_path(&self.namespace), &query);
        let answer = with_spinner("counting", || service.send(&Method::DELETE, &path, &[], Vec::new()))?;
        let unclear = || Failure::new(Exit::Refused, "the service sent no count; it may be older than this program");
        answer.parse::<Counted>(service)?.matched_count.ok_or_else(unclear)
    }
}

/// Checks that there is a terminal on which the user can be asked. Call this before entries are counted for the
/// question. `otherwise` says what the user can do without a terminal.
///
/// # Errors
/// There is no terminal.
pub fn require_terminal(otherwise: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage(format!("cannot ask for confirmation without a terminal: add --yes, or {otherwise}")))
}

/// Asks the user on the terminal. Only `y` and `yes` confirm.
///
/// # Errors
/// The user did not confirm.
pub fn confirm(question: &str) -> Result<(), Failure> {
    let mut answer = String::new();
    let mut stderr = io::stderr();
    let written = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let answered = written.and_then(|()| io::stdin().lock().read_line(&mut answer));
    answered.map_err(|error| Failure::usage(format!("cannot ask on the terminal ({error}): add --yes")))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::NotFound, "not confirmed; nothing was deleted")),
    }
}
