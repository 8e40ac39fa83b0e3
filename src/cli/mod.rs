//! The command line: it starts the service, or runs a command that calls a running service.
//!
//! There is one file for each command or group of commands. It declares the arguments of the command for clap, and its
//! function `run` runs the command and returns an error as a [`Failure`]. A command writes its output to a [`Screen`]
//! and sends its requests through a [`Service`]. Only commands that connect to databases and shards themselves, or that
//! wait for Ctrl-C, use an asynchronous runtime.
//!
//! clap describes a command with the `///` of its type. Types that only group arguments have `//`: clap would describe
//! the command with their text.

mod cluster;
mod completions;
mod configuration;
mod entry;
mod failure;
mod flush;
mod jobs;
mod keys;
mod lease;
mod mget;
mod migrate;
mod namespaces;
mod options;
mod runtime;
mod screen;
mod service;
mod settings;
mod stats;
mod tls;
mod touch;

use std::process::ExitCode;
use std::time::Duration;

use clap::parser::ValueSource::{CommandLine, EnvVariable};
use clap::{Arg, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use failure::{EXIT_CODES, Exit, Failure};
use screen::{Screen, message};
use service::Service;
use settings::SettingFlags;

use crate::config::{Config, URL_VARIABLE};
use crate::number;

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

/// The URL of the service if neither the command line nor the environment names one.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// A cache sidecar: a namespaced cache over HTTP, on Redis shards or an embedded store
#[derive(Parser)]
#[command(name = "sidecache", bin_name = "sidecache", version, subcommand_value_name = "COMMAND")]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Program {
    /// URL of the service
    #[arg(long, global = true, value_name = "URL", help_heading = "Service", default_value = DEFAULT_URL)]
    #[arg(env = URL_VARIABLE, hide_env_values = true)]
    url: String,
    /// Timeout for the connection, and the same for the response: 500ms, 5s
    #[arg(long, global = true, value_name = "TIME", help_heading = "Service", default_value = "10s")]
    #[arg(value_parser = number::parse_wait)]
    timeout: Duration,
    /// Print JSON, for programs
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service (the default without a command)
    #[command(
        after_help = "Exit code: 0 after SIGTERM or SIGINT, 2 if a setting is wrong, 1 if the service cannot run."
    )]
    Serve(SettingFlags),
    #[command(flatten)]
    Call(Call),
    CheckConfig(configuration::CheckConfig),
    PrintConfig(configuration::PrintConfig),
    Migrate(migrate::Migrate),
    Completions(completions::Completions),
}

// The commands that call a service.
#[derive(Subcommand)]
enum Call {
    Get(entry::Get),
    Set(entry::Set),
    Touch(touch::Touch),
    Del(entry::Del),
    Mget(mget::Mget),
    Release(lease::Release),
    Flush(flush::Flush),
    Jobs(jobs::Jobs),
    Keys(keys::Keys),
    Stats(stats::Stats),
    Namespaces(namespaces::Namespaces),
    Cluster(cluster::Cluster),
}

/// The options of [`Program`] that a command does not use.
fn unused_options(command: &str) -> &'static [&'static str] {
    match command {
        "serve" => &["url", "timeout", "json"],
        "check-config" | "print-config" | "migrate" | "completions" => &["url", "timeout"],
        _ => &[],
    }
}

fn command() -> clap::Command {
    let program = Program::command();
    let options: Vec<Arg> = program.get_arguments().cloned().collect();
    program.mut_subcommands(|command| {
        // clap adds the global options to every command, except to those that have an argument of the same name. The
        // hidden copies keep unused options out of the command's help.
        let unused = unused_options(command.get_name());
        let copies = options.iter().filter(|option| unused.contains(&option.get_id().as_str()));
        command.args(copies.map(|option| option.clone().hide(true)).collect::<Vec<_>>())
    })
}

/// Reads the command line and runs its command. Returns the configuration if the caller is to run the service.
///
/// # Errors
/// The command has ended, successfully or not: exit with this code.
pub fn start() -> Result<Box<Config>, ExitCode> {
    let json = std::env::args_os().any(|word| word == "--json");
    let exit = match run(json) {
        Ok(Some(config)) => return Ok(config),
        Ok(None) => Exit::Done,
        Err(failure) => {
            failure.shown(json).iter().for_each(|line| message(line));
            failure.exit
        }
    };
    Err(ExitCode::from(exit as u8))
}

/// Runs the command. Returns the configuration if the command is to run the service. `json` says whether errors are to
/// be JSON.
fn run(json: bool) -> Result<Option<Box<Config>>, Failure> {
    let parsed = command().try_get_matches().and_then(|matches| Ok((Program::from_arg_matches(&matches)?, matches)));
    let (program, matches) = match parsed {
        Ok(parsed) => parsed,
        // clap reports `--help` and `--version` as errors, too: their text goes to standard output.
        Err(help) if !help.use_stderr() => return Ok(help.print().map(|()| None)?),
        Err(error) if json => {
            let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            return Err(Failure::usage(text.trim_start_matches("error: ")));
        }
        Err(error) => {
            // If stderr cannot be written, the exit code has to be enough.
            let _ = error.print();
            return Err(Failure::silent(Exit::Usage));
        }
    };
    let Program { url, timeout, json, settings, command } = program;
    let name = matches.subcommand_name().unwrap_or("serve");
    for option in unused_options(name) {
        if matches.value_source(option) == Some(CommandLine) {
            let text =
                format!("--{option}: `{name}` does not take this option; it is for commands that call a service");
            return Err(Failure::usage(text));
        }
    }
    let mut screen = Screen::new(json);
    let ended = match command.unwrap_or_else(|| Command::Serve(SettingFlags::default())) {
        Command::Serve(more) => return Ok(Some(Box::new(Config::parse(&settings.gather(more)?)?))),
        Command::CheckConfig(check) => check.run(settings, &mut screen),
        Command::PrintConfig(print) => print.run(settings, &mut screen),
        Command::Migrate(migrate) => migrate.run(settings, &mut screen),
        Command::Completions(completions) => completions.run(self::command(), &mut screen),
        Command::Call(call) => {
            if let Some(flag) = settings.first() {
                let text =
                    format!("{flag}: `{name}` takes no settings of the service; it calls the service at --url");
                return Err(Failure::usage(text));
            }
            let origin = if matches.value_source("url") == Some(EnvVariable) { URL_VARIABLE } else { "--url" };
            let url = if url.is_empty() { DEFAULT_URL } else { &url };
            call.run(&Service::new(url, origin, timeout)?, &mut screen)
        }
    };
    // Flush after a failure, too: the user must see the output that was written before it.
    let flushed = screen.flush();
    ended.and(flushed).map(|()| None)
}

impl Call {
    fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Get(get) => get.run(service, screen),
            Self::Set(set) => set.run(service, screen),
            Self::Touch(touch) => touch.run(service, screen),
            Self::Del(del) => del.run(service, screen),
            Self::Mget(mget) => mget.run(service, screen),
            Self::Release(release) => release.run(service, screen),
            Self::Flush(flush) => flush.run(service, screen),
            Self::Jobs(jobs) => jobs.run(service, screen),
            Self::Keys(keys) => keys.run(service, screen),
            Self::Stats(stats) => stats.run(service, screen),
            Self::Namespaces(namespaces) => namespaces.run(service, screen),
            Self::Cluster(cluster) => cluster.run(service, screen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::all_settings;

    #[test]
    fn every_setting_is_a_flag_with_help() {
        command().debug_assert();
        let help = command().render_long_help().to_string();
        let mut serve = settings::flags(clap::Command::new("serve"));
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
