//! The arguments that several commands have.

use clap::Args;

// The options that select keys: one, or none.
#[derive(Args)]
pub struct Selection {
    #[arg(
        long,
        value_name = "GLOB",
        allow_hyphen_values = true,
        help = r"Only keys that match: * is any text, ? one character, [abc] one of these, \ escapes the next"
    )]
    pub pattern: Option<String>,
    /// Only entries with this tag
    #[arg(long, value_name = "TAG", allow_hyphen_values = true, conflicts_with = "pattern")]
    pub tag: Option<String>,
}

impl Selection {
    /// The query parameters.
    pub fn query(&self) -> Vec<(&'static str, &str)> {
        let pattern = self.pattern.iter().map(|pattern| ("pattern", &**pattern));
        pattern.chain(self.tag.iter().map(|tag| ("tag", &**tag))).collect()
    }
}

// `--yes`, for commands that ask before they delete.
#[derive(Args)]
pub struct Confirmation {
    /// Delete without asking; required if there is no terminal
    #[arg(long, short)]
    pub yes: bool,
}
