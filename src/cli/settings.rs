//! Settings on the command line: one flag for each setting in the list of all settings.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::failure::Failure;
use crate::config::{CONFIG_VARIABLE, Config, Error, Setting, Settings, all_settings};

const HEADING: &str = "Settings";

/// Adds the flags of all settings to a command.
pub fn flags(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env(CONFIG_VARIABLE)
        .help("TOML file with settings")
        .help_heading(HEADING);
    let flags = all_settings().iter().map(|setting| {
        let default = if setting.default.is_empty() { "none" } else { &setting.default };
        Arg::new(setting.name.clone())
            .long(setting.flag())
            .value_name("VALUE")
            .allow_negative_numbers(true)
            .help(format!("{} [{}; default: {default}]", setting.help, setting.variable()))
            .hide_short_help(true)
            .help_heading(HEADING)
    });
    command.arg(config).args(flags)
}

/// Gathers the settings from the file, the environment, and the flags before and after the command's name.
///
/// # Errors
/// A flag was given twice, the file cannot be read, or a setting is unknown.
pub fn gather(top: &ArgMatches, sub: Option<&ArgMatches>) -> Result<Settings, Failure> {
    let mut flags = Vec::new();
    for Setting { name, .. } in all_settings() {
        flags.extend(once(top, sub, name)?.map(|value| (name.clone(), value)));
    }
    let file = once(top, sub, "config")?.or_else(|| std::env::var(CONFIG_VARIABLE).ok());
    let file = file.filter(|path| !path.is_empty()).map(PathBuf::from);
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    Ok(Settings::gather(file.as_deref(), environment, flags)?)
}

/// The configuration of the service, from the effective settings.
///
/// # Errors
/// A setting is invalid. The message names the flag, the variable or the line that set it.
pub fn config(top: &ArgMatches, sub: Option<&ArgMatches>) -> Result<Config, Failure> {
    Ok(Config::parse(&gather(top, sub)?)?)
}

fn once(top: &ArgMatches, sub: Option<&ArgMatches>, name: &str) -> Result<Option<String>, Failure> {
    match (given(top, name), sub.and_then(|sub| given(sub, name))) {
        (Some(_), Some(_)) => Err(Error::given_twice(&flag(name)).into()),
        (first, second) => Ok(first.or(second)),
    }
}

/// The flag of the first setting that was given, for commands that take no settings.
pub fn any(top: &ArgMatches) -> Option<String> {
    let names = all_settings().iter().map(|setting| &*setting.name).chain(["config"]);
    names.into_iter().find(|name| given(top, name).is_some()).map(flag)
}

/// The value of a flag that is on the command line.
fn given(matches: &ArgMatches, name: &str) -> Option<String> {
    let is_given = matches.value_source(name) == Some(ValueSource::CommandLine);
    matches.get_one::<String>(name).filter(|_| is_given).cloned()
}

fn flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}
