//! Errors of the command line: turns an error of clap into a message of one line, in the style of the messages about
//! settings.

use std::error::Error as _;
use std::io::{self, Write as _};

use clap::Command;
use clap::error::{ContextKind, ErrorKind};

use super::failure::Failure;

/// Handles an error of clap for `program`. clap reports `--help` and `--version` as errors, too: their text is
/// printed here.
///
/// # Errors
/// A one-line message that names the wrong argument.
pub fn argument(error: &clap::Error, program: &Command) -> Result<(), Failure> {
    if !error.use_stderr() {
        let text = error.render();
        let shown = match clap_wants_colour() {
            true => write!(io::stdout(), "{}", text.ansi()),
            false => write!(io::stdout(), "{text}"),
        };
        return Ok(shown?);
    }
    let context = |kind| error.get(kind).map(ToString::to_string).filter(|text| !text.is_empty());
    let command = command_of(context(ContextKind::Usage).as_deref().unwrap_or_default());
    let help = format!("see `{command} --help`");
    let given = context(ContextKind::InvalidArg).unwrap_or_else(|| "command line".to_owned());
    // clap names an option together with its value: `--listen <VALUE>`.
    let name = given.split_whitespace().next().unwrap_or_default();
    let is_of_service = matches!(&*command, "sidecache" | "sidecache serve");
    Err(Failure::usage(match error.kind() {
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand if !name.starts_with('-') => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_else(|| name.to_owned());
            let alike = context(ContextKind::SuggestedSubcommand).unwrap_or_default();
            let is_of_namespaces = command == "sidecache namespaces";
            let meant = match slip(&word, program, &command) {
                // Not for `namespaces`: there, `settings` is more likely a namespace than a mistyped `set`.
                None if !is_of_namespaces => alike.rsplit(", ").next().filter(|meant| !meant.is_empty()),
                meant => meant,
            };
            match meant {
                Some(meant) => format!("{word}: unknown command, did you mean {meant}? {help}"),
                None if is_of_namespaces => {
                    format!("{word}: unknown command, did you mean `{command} get {word}`? {help}")
                }
                None if command == "sidecache" => format!("{word}: unknown command; {help}"),
                None => format!("{word}: unexpected argument; {}", usage(error)),
            }
        }
        ErrorKind::UnknownArgument => {
            let kind = if is_of_service { "setting" } else { "option" };
            match context(ContextKind::SuggestedArg) {
                Some(meant) => {
                    let meant = meant.split_whitespace().next().unwrap_or_default();
                    format!("{name}: unknown {kind}, did you mean {meant}?")
                }
                None if takes_words(error) => {
                    format!("{name}: unknown {kind}; {help}; if it is not an option, put it after --, as in `-- -x`")
                }
                None => format!("{name}: unknown {kind}; {help}"),
            }
        }
        ErrorKind::InvalidValue => match context(ContextKind::InvalidValue) {
            None => format!("{name}: a value is missing"),
            Some(value) => {
                let valid = context(ContextKind::ValidValue).unwrap_or_default();
                format!("{name}: {value:?} is invalid; expected one of {valid}")
            }
        },
        ErrorKind::ValueValidation => {
            let reason = error.source().map(ToString::to_string).unwrap_or_else(|| error.kind().to_string());
            format!("{name}: {reason}")
        }
        ErrorKind::ArgumentConflict => match context(ContextKind::PriorArg) {
            Some(other) if other != given => {
                let other = other.split_whitespace().next().unwrap_or_default();
                format!("{name}: cannot be combined with {other}")
            }
            _ => format!("{name}: given more than once"),
        },
        ErrorKind::MissingRequiredArgument => format!("missing argument: {given}; {}", usage(error)),
        ErrorKind::MissingSubcommand => format!("a command is missing; {help}"),
        other => format!("{name}: {other}"),
    }))
}

/// The subcommand of `command` that the user probably meant by `word`. At most a third of the letters may be missing,
/// wrong, extra or swapped with a neighbour. Of equally close names, the shorter one wins. clap's own suggestions are
/// not used first, because they count the letters in common: for `gte` they suggest `mget`.
fn slip<'p>(word: &str, program: &'p Command, command: &str) -> Option<&'p str> {
    let mut names = command.split_whitespace().skip(1);
    let above = names.try_fold(program, |above, name| above.find_subcommand(name))?;
    let with_slips = above.get_subcommands().map(|one| (strsim::osa_distance(word, one.get_name()), one.get_name()));
    let (slips, name) = with_slips.min_by_key(|(slips, name)| (*slips, name.len()))?;
    (3 * slips <= word.chars().count()).then_some(name)
}

/// The command in a usage line, such as `sidecache flush`.
fn command_of(usage: &str) -> String {
    let words = usage.trim_start_matches("Usage:").split_whitespace();
    let words: Vec<&str> = words.take_while(|word| !word.starts_with(['[', '<', '-'])).collect();
    if words.is_empty() { "sidecache".to_owned() } else { words.join(" ") }
}

/// Whether the command takes a namespace or keys, which may begin with a dash.
fn takes_words(error: &clap::Error) -> bool {
    usage(error).split_whitespace().any(|word| matches!(word, "<NS>" | "<KEY>" | "<KEY>..."))
}

fn usage(error: &clap::Error) -> String {
    let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let words: Vec<&str> = usage.trim_start_matches("Usage:").split_whitespace().collect();
    format!("usage: {}", words.join(" "))
}

fn clap_wants_colour() -> bool {
    use std::io::IsTerminal as _;
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
