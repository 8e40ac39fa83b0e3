//! The options and arguments that several commands have, and how their values are read.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::URL_VARIABLE;
use crate::number;

/// The URL of the service if neither the command line nor the environment names one.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Adds the options of every command that calls a service.
pub fn with_service_options(command: Command) -> Command {
    const HEADING: &str = "Service";
    // `ask` reads the variable. If clap read it, the option would count as given before and after the command's name,
    // and the variable would override a `--url` before the name.
    let url = Arg::new("url")
        .long("url")
        .value_name("URL")
        .help(format!("URL of the service [env: {URL_VARIABLE}; default: {DEFAULT_URL}]"))
        .help_heading(HEADING);
    let timeout = Arg::new("timeout")
        .long("timeout")
        .value_name("TIME")
        .value_parser(number::parse_wait)
        .help("Timeout for the connection, and the same for the response: 500ms, 5s [default: 10s]")
        .help_heading(HEADING);
    with_json_option(command.arg(url).arg(timeout))
}

/// Adds `--json`, for commands that can print JSON.
pub fn with_json_option(command: Command) -> Command {
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print JSON, for programs")
        .help_heading("Output");
    command.arg(json)
}

/// The argument for the namespace, the first one of most commands.
pub fn namespace() -> Arg {
    let text = clap::builder::NonEmptyStringValueParser::new();
    Arg::new("namespace").value_name("NS").required(true).value_parser(text).help("Namespace")
}

/// Adds the options that select keys.
pub fn selection(command: Command) -> Command {
    let pattern = Arg::new("pattern")
        .long("pattern")
        .value_name("GLOB")
        .allow_hyphen_values(true)
        .help("Only keys that match: * is any text, ? one character, [abc] one of these, \\ escapes the next");
    let tag = Arg::new("tag")
        .long("tag")
        .value_name("TAG")
        .allow_hyphen_values(true)
        .conflicts_with("pattern")
        .help("Only entries with this tag");
    command.arg(pattern).arg(tag)
}

/// The query parameters for the option of [`selection`] that was given: one, or none.
pub fn selected(matches: &ArgMatches) -> Vec<(&'static str, &str)> {
    let one = |name: &'static str| matches.get_one::<String>(name).map(|value| (name, value.as_str()));
    one("pattern").into_iter().chain(one("tag")).collect()
}

/// The text of a required argument.
pub fn text<'m>(matches: &'m ArgMatches, name: &str) -> &'m str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

pub trait Flags {
    /// Whether the flag was given; false if the command has no such flag.
    fn flag_or_false(&self, name: &str) -> bool;
}

impl Flags for ArgMatches {
    fn flag_or_false(&self, name: &str) -> bool {
        matches!(self.try_get_one::<bool>(name), Ok(Some(true)))
    }
}

/// `--yes`, for commands that ask before they delete.
pub fn yes() -> Arg {
    Arg::new("yes")
        .long("yes")
        .short('y')
        .action(ArgAction::SetTrue)
        .help("Delete without asking; required if there is no terminal")
}

/// An option that takes a count of at least 1.
pub fn count(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u64).range(1..))
}
