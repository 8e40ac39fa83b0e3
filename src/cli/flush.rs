//! The command `flush`: counts the selected entries, asks for confirmation, and deletes them.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::entry::entries;
use super::failure::{Exit, Failure};
use super::jobs::{self, Job};
use super::options::{namespace, selected, selection, text, with_service_options, yes};
use super::screen::spinner;
use super::service::{Service, cache_path, with_query};
use super::session::Session;

pub fn command() -> Command {
    let command = Command::new("flush")
        .about("Delete all entries of a namespace, or those that match a pattern or have a tag")
        .arg(namespace())
        .arg(Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue).help("Count the entries, delete nothing"))
        .arg(yes())
        .after_help(
            "Examples:\n  sidecache flush users --pattern 'user_*' --dry-run\n  sidecache flush users --tag staff\n  \
             sidecache flush users --yes\n\nOn a terminal, the command counts the entries and asks before it deletes \
             them. The pattern is a glob as in Redis.\nA flush that takes longer than the request timeout of the \
             service continues as a job. Ctrl-C does not stop the job: see `sidecache jobs`.",
        );
    with_service_options(selection(command))
}

#[derive(Deserialize)]
struct Flushed {
    deleted_count: u64,
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
    deleted_count: u64,
}

pub fn run(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    let namespace = text(matches, "namespace");
    let query = selected(matches);
    let Session { service, screen } = session;
    let what = described(namespace, &query);
    let value = |name| query.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
    let document = |dry_run, Flushed { deleted_count, matched_count }: Flushed| FlushDocument {
        namespace,
        pattern: value("pattern"),
        tag: value("tag"),
        dry_run,
        matched_count,
        deleted_count,
    };
    if matches.get_flag("dry-run") {
        let matched = count(service, namespace, &query)?;
        if screen.json {
            return screen.document(&document(true, Flushed { deleted_count: 0, matched_count: Some(matched) }));
        }
        return screen.line(&format!("{} of {what} would be deleted", entries(matched)));
    }
    if !matches.get_flag("yes") {
        require_terminal("count the entries first with --dry-run")?;
        let matched = count(service, namespace, &query)?;
        if matched == 0 {
            // There is nothing to delete, so do not ask.
            if screen.json {
                return screen.document(&document(false, Flushed { deleted_count: 0, matched_count: None }));
            }
            return screen.line(&format!("there are no entries of {what}; nothing was deleted"));
        }
        confirm(&format!("Delete {} of {what}?", entries(matched)))?;
    }
    let bar = spinner("deleting");
    let flushed = service.send(&Method::DELETE, &with_query(&cache_path(namespace), &query), &[], Vec::new());
    bar.finish_and_clear();
    let answer = flushed?;
    let flushed = if answer.is_accepted {
        // The flush takes longer than the request timeout: it continues as a job.
        let job: Job = answer.parse(service)?;
        Flushed { deleted_count: jobs::wait(service, &job.id)?.deleted()?, matched_count: None }
    } else {
        answer.parse(service)?
    };
    if screen.json {
        return screen.document(&document(false, flushed));
    }
    screen.line(&format!("deleted {} of {what}", entries(flushed.deleted_count)))
}

fn described(namespace: &str, query: &[(&str, &str)]) -> String {
    match query {
        [("pattern", pattern)] => format!("{namespace} that match {pattern:?}"),
        [(_, tag)] => format!("{namespace} with the tag {tag:?}"),
        _ => namespace.to_owned(),
    }
}

/// How many entries are selected.
fn count(service: &Service, namespace: &str, query: &[(&str, &str)]) -> Result<u64, Failure> {
    let query: Vec<_> = query.iter().copied().chain([("dry_run", "true")]).collect();
    let bar = spinner("counting");
    let counted = service.send(&Method::DELETE, &with_query(&cache_path(namespace), &query), &[], Vec::new());
    bar.finish_and_clear();
    let counted: Flushed = counted?.parse(service)?;
    let unclear = || Failure::new(Exit::Refused, "the service sent no count; it may be older than this program");
    counted.matched_count.ok_or_else(unclear)
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
    let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let answered = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    answered.map_err(|error| Failure::usage(format!("cannot ask on the terminal ({error}): add --yes")))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::NotFound, "not confirmed; nothing was deleted")),
    }
}
