//! The command `completions`: prints a script with which a shell completes commands, options and settings.

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::{Shell, generate};

use super::failure::Failure;
use super::screen::Screen;

pub fn command() -> Command {
    let shell = Arg::new("shell")
        .value_name("SHELL")
        .required(true)
        .value_parser(value_parser!(Shell))
        .help("Name of the shell");
    Command::new("completions").about("Print a completion script for a shell").arg(shell).after_help(
        "Examples:\n  sidecache completions bash > /etc/bash_completion.d/sidecache\n  \
         sidecache completions zsh > ~/.zfunc/_sidecache\n  \
         sidecache completions fish > ~/.config/fish/completions/sidecache.fish",
    )
}

pub fn run(mut of: Command, matches: &ArgMatches, mut screen: Screen) -> Result<(), Failure> {
    let mut script = Vec::new();
    if let Some(shell) = matches.get_one::<Shell>("shell").copied() {
        generate(shell, &mut of, "sidecache", &mut script);
    }
    screen.raw(&script)?;
    screen.flush()
}
