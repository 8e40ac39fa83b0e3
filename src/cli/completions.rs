//! The command `completions`: prints a script with which a shell completes commands, options and settings.

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::failure::Failure;
use super::screen::Screen;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache completions bash > /etc/bash_completion.d/sidecache
  sidecache completions zsh > ~/.zfunc/_sidecache
  sidecache completions fish > ~/.config/fish/completions/sidecache.fish")]
pub struct Completions {
    /// Name of the shell
    shell: Shell,
}

impl Completions {
    /// Completes the commands and options of `program`.
    pub fn run(self, mut program: Command, screen: &mut Screen) -> Result<(), Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut program, "sidecache", &mut script);
        screen.raw(&script)
    }
}
