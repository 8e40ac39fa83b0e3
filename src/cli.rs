//! The command line: a flag for every setting, made from the same list as everything else.

use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgMatches, Command};

use crate::config::{CONFIG_VARIABLE, Config, Error, Setting, Settings, all_settings};

/// The settings that this process was started with. `--help` and `--version` end it here.
///
/// # Errors
/// A wrong setting, named as it was given.
pub fn config() -> Result<Config, Error> {
    let known = all_settings();
    let matches = command(&known).try_get_matches().map_err(|error| wrong_argument(&error))?;
    let file = matches.get_one::<String>("config").filter(|path| !path.is_empty()).map(PathBuf::from);
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let settings = Settings::gather(file.as_deref(), environment, flags(&known, &matches))?;
    Config::parse(&settings)
}

/// A wrong argument on one line, as every wrong setting. Ends the process where `--help` or
/// `--version` was all that was asked.
fn wrong_argument(error: &clap::Error) -> Error {
    if !error.use_stderr() {
        error.exit();
    }
    let context = |kind| error.get(kind).map(ToString::to_string);
    let argument = context(ContextKind::InvalidArg).unwrap_or_else(|| "command line".to_owned());
    let reason = match error.kind() {
        ErrorKind::UnknownArgument => match context(ContextKind::SuggestedArg) {
            Some(meant) => format!("unknown setting, did you mean {meant}?"),
            None => "unknown argument; --help lists them".to_owned(),
        },
        ErrorKind::InvalidValue => "a value is missing".to_owned(),
        ErrorKind::ArgumentConflict => "given more than once".to_owned(),
        _ => error.kind().to_string(),
    };
    // An argument that takes a value is named with it: `--listen <VALUE>`.
    let origin = argument.split_whitespace().next().unwrap_or_default().to_owned();
    Error { origin, reason }
}

fn command(known: &[Setting]) -> Command {
    let config =
        Arg::new("config").long("config").value_name("FILE").env(CONFIG_VARIABLE).help("TOML file of settings");
    let flags = known.iter().map(|setting| {
        let default = if setting.default.is_empty() { "none" } else { &setting.default };
        Arg::new(setting.name.clone())
            .long(setting.flag())
            .value_name("VALUE")
            .allow_negative_numbers(true)
            .help(format!("{} [{}; default: {default}]", setting.help, setting.variable()))
    });
    Command::new("sidecache")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A cache sidecar: a namespaced cache over HTTP, on Redis shards or embedded")
        .after_help(
            "Settings come from the defaults, the --config file, the environment and the flags; the later wins.",
        )
        .arg(config)
        .args(flags)
}

fn flags(known: &[Setting], matches: &ArgMatches) -> Vec<(String, String)> {
    let given =
        known.iter().filter_map(|setting| Some((setting.name.clone(), matches.get_one::<String>(&setting.name)?)));
    given.map(|(name, value)| (name, value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_a_flag_with_help() {
        let known = all_settings();
        let mut command = command(&known);
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for setting in known {
            assert!(help.contains(&format!("--{}", setting.flag())) && help.contains(&setting.variable()));
        }
    }
}
