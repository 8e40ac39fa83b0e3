//! The command line: it starts the service, or runs a command that calls a running service.
//!
//! There is one file for each command or group of commands. Its function `command` describes the command to clap, and
//! `run` runs the command and returns an error as a [`Failure`]. A command writes its output to a [`Screen`] and
//! sends its requests through a [`Service`]. Only commands that connect to databases and shards themselves, or that
//! wait for Ctrl-C, use an asynchronous runtime.

mod cluster;
mod completions;
mod configuration;
mod entry;
mod failure;
mod flush;
mod jobs;
mod keys;
mod migrate;
mod namespaces;
mod options;
mod screen;
mod service;
mod session;
mod settings;
mod stats;
mod tls;
mod wrong;

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};

use failure::{EXIT_CODES, Failure};
use options::{DEFAULT_URL, Flags as _, with_service_options};
use screen::Screen;
use service::Service;
use session::{Session, note};

use crate::config::{Config, URL_VARIABLE};

const EXAMPLES: &str = "\
Examples:
  sidecache                                    run the service on 127.0.0.1:8080, with the embedded store
  sidecache set users user_1 '{\"name\": \"Ada\"}' --ttl 1h
  sidecache get users user_1 | jq .name
  sidecache flush users --pattern 'user_*' --dry-run
  sidecache stats users --watch
  sidecache --help                             show this help with all settings of the service

Settings come from the defaults, then the --config file, then the environment, then the flags.
A later source overrides an earlier one.";

/// What the caller of [`start`] has to do.
pub enum Start {
    /// Run the service.
    Serve(Box<Config>),
    /// Exit with this code: the command has ended.
    Ended(ExitCode),
}

/// Reads the command line and runs its command. The caller runs the service.
pub fn start() -> Start {
    let json = std::env::args_os().any(|word| word == "--json");
    let failure = match run() {
        Ok(Some(config)) => return Start::Serve(config),
        Ok(None) => return Start::Ended(ExitCode::SUCCESS),
        Err(failure) => failure,
    };
    if let Some(line) = failure.shown(json) {
        note(&line);
    }
    Start::Ended(ExitCode::from(failure.exit as u8))
}

fn run() -> Result<Option<Box<Config>>, Failure> {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return wrong::argument(&error, &command()).map(|()| None),
    };
    let (name, sub) = match matches.subcommand() {
        None => ("serve", None),
        Some((name, sub)) => (name, Some(sub)),
    };
    // clap accepts these options in front of any command. Refuse them where the command does not use them.
    let strange: &[&str] = match name {
        "serve" => &["url", "timeout", "json"],
        "check-config" | "print-config" | "migrate" | "completions" => &["url", "timeout"],
        _ => &[],
    };
    for option in strange {
        if matches.value_source(option) == Some(clap::parser::ValueSource::CommandLine) {
            let text =
                format!("--{option}: `{name}` does not take this option; it is for commands that call a service");
            return Err(Failure::usage(text));
        }
    }
    if name == "serve" {
        return Ok(Some(Box::new(settings::config(&matches, sub)?)));
    }
    let Some(sub) = sub else { return Ok(None) };
    let levels = levels(&matches);
    let json = levels.iter().any(|matches| matches.flag_or_false("json"));
    match name {
        "check-config" => configuration::check(&settings::gather(&matches, Some(sub))?, sub, Screen::new(json))?,
        "print-config" => configuration::print(&settings::gather(&matches, Some(sub))?, sub, Screen::new(json))?,
        "migrate" => migrate::run(&settings::gather(&matches, Some(sub))?, sub, Screen::new(json))?,
        "completions" => completions::run(command(), sub, Screen::new(json))?,
        _ => ask(name, &levels, sub, json)?,
    }
    Ok(None)
}

/// Runs a command that calls a service.
fn ask(name: &str, levels: &[&ArgMatches], sub: &ArgMatches, json: bool) -> Result<(), Failure> {
    if let Some(setting) = levels.first().and_then(|top| settings::any(top)) {
        let text = format!("{setting}: `{name}` takes no settings of the service; it calls the service at --url");
        return Err(Failure::usage(text));
    }
    // An option after the command's name overrides one before it, and both override the environment.
    let option = given::<String>(levels, "url").map(|url| (url, "--url"));
    let url = option.or_else(|| Some((std::env::var(URL_VARIABLE).ok()?, URL_VARIABLE)));
    let (url, origin) = url.filter(|(url, _)| !url.is_empty()).unwrap_or((DEFAULT_URL.to_owned(), "--url"));
    let timeout = given(levels, "timeout").unwrap_or(DEFAULT_TIMEOUT);
    let service = Service::new(&url, origin, timeout)?;
    let mut session = Session { service, screen: Screen::new(json) };
    let ended = match name {
        "get" => entry::get(&mut session, sub),
        "set" => entry::set(&mut session, sub),
        "del" => entry::del(&mut session, sub),
        "mget" => entry::mget(&mut session, sub),
        "flush" => flush::run(&mut session, sub),
        "jobs" => jobs::run(&mut session, sub),
        "keys" => keys::run(&mut session, sub),
        "stats" => stats::run(&mut session, sub),
        "namespaces" => namespaces::run(&mut session, sub),
        "cluster" => cluster::run(&mut session),
        other => Err(Failure::usage(format!("{other}: unknown command; see `sidecache --help`"))),
    };
    // Flush after a failure, too: the user must see the output that was written before it.
    let flushed = session.screen.flush();
    ended.and(flushed)
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The matches of each level, in this order: before the command's name, after it, and after its subcommand's name.
fn levels(top: &ArgMatches) -> Vec<&ArgMatches> {
    std::iter::successors(Some(top), |matches| matches.subcommand().map(|(_, sub)| sub)).collect()
}

fn given<T: Clone + Send + Sync + 'static>(levels: &[&ArgMatches], name: &str) -> Option<T> {
    levels.iter().rev().find_map(|matches| matches.try_get_one::<T>(name).ok().flatten().cloned())
}

fn command() -> Command {
    // `defer` builds the settings' flags of a command only when that command is used.
    let serve = Command::new("serve")
        .about("Run the service (the default without a command)")
        .defer(settings::flags)
        .after_help("Exit code: 0 after SIGTERM or SIGINT, 2 if a setting is wrong, 1 if the service cannot run.");
    let top = Command::new("sidecache")
        .bin_name("sidecache")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A cache sidecar: a namespaced cache over HTTP, on Redis shards or an embedded store")
        .after_help(format!("{EXAMPLES}\n\n{EXIT_CODES}"))
        .subcommand_value_name("COMMAND")
        .subcommand(serve)
        .subcommands(entry::commands())
        .subcommand(flush::command())
        .subcommand(jobs::command())
        .subcommand(keys::command())
        .subcommand(stats::command())
        .subcommand(namespaces::command())
        .subcommand(cluster::command())
        .subcommands(configuration::commands())
        .subcommand(migrate::command())
        .subcommand(completions::command());
    settings::flags(with_service_options(top))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::all_settings;

    #[test]
    fn every_setting_is_a_flag_with_help() {
        command().debug_assert();
        let help = command().render_long_help().to_string();
        let mut serve = settings::flags(Command::new("serve"));
        let of_serve = serve.render_long_help().to_string();
        for setting in all_settings() {
            for help in [&help, &of_serve] {
                assert!(help.contains(&format!("--{}", setting.flag())) && help.contains(&setting.variable()));
            }
        }
    }

    #[test]
    fn no_option_has_the_name_of_a_setting() {
        for setting in all_settings() {
            assert!(!["url", "timeout", "json"].contains(&&*setting.name), "{}", setting.name);
        }
    }

    #[test]
    fn every_command_has_an_example_or_says_how_it_ends() {
        for command in command().get_subcommands() {
            assert!(command.get_after_help().is_some() && command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
