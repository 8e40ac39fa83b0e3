//! Settings on the command line: one flag for each setting in the list of all settings.

use std::path::PathBuf;

use clap::parser::ValueSource::CommandLine;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::failure::Failure;
use crate::config::{CONFIG_VARIABLE, Error, Settings, all_settings};

const HEADING: &str = "Settings";

/// The flag that names a file of settings.
const FILE: &str = "config";

/// Adds the flags of all settings to a command.
pub fn flags(command: Command) -> Command {
    let config = Arg::new(FILE)
        .long(FILE)
        .value_name("FILE")
        .env(CONFIG_VARIABLE)
        .help("TOML file with settings")
        .help_heading(HEADING);
    let known = all_settings();
    let flags = known.iter().map(|setting| {
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

/// The flags that stand before the command's name, or those after it: names and values.
#[derive(Default)]
pub struct SettingFlags(Vec<(String, String)>);

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        // `defer` builds the flags of a command only when that command is used.
        command.defer(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = all_settings().iter().map(|setting| setting.name.clone()).chain([FILE.to_owned()]);
        // clap also has a value from the variable of `--config`: `gather` reads the variable itself.
        let given = names.filter(|name| matches.value_source(name) == Some(CommandLine));
        let with_value =
            given.filter_map(|name| matches.get_one::<String>(&name).cloned().map(|value| (name, value)));
        Ok(Self(with_value.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SettingFlags {
    /// Gathers the settings from the file, the environment, and the flags before and after the command's name.
    ///
    /// # Errors
    /// A flag was given twice, the file cannot be read, or a setting is unknown.
    pub fn gather(self, after: Self) -> Result<Settings, Failure> {
        if let Some((name, _)) = after.0.iter().find(|(name, _)| self.0.iter().any(|(before, _)| before == name)) {
            return Err(Error::given_twice(&flag(name)).into());
        }
        let given = self.0.into_iter().chain(after.0);
        let (files, given): (Vec<_>, Vec<_>) = given.partition(|(name, _)| name == FILE);
        let file = files.into_iter().next().map(|(_, path)| path).or_else(|| std::env::var(CONFIG_VARIABLE).ok());
        let file = file.filter(|path| !path.is_empty()).map(PathBuf::from);
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Ok(Settings::gather(file.as_deref(), environment, given)?)
    }

    /// The first flag that was given, for commands that take no settings.
    pub fn first(&self) -> Option<String> {
        self.0.first().map(|(name, _)| flag(name))
    }
}

fn flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}
