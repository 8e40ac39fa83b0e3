//! How a command ends without what was asked for: a line for people, and an exit code for programs.

use std::fmt::Display;
use std::io;

use serde::Serialize;

use crate::config;

/// The exit codes; they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Done = 0,
    /// No such entry, namespace or job, or the answer to a question was no.
    NotFound = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// Nothing was asked: there is nobody to ask.
    Unreachable = 3,
    /// The request was refused (4xx).
    Refused = 4,
    /// The service, or what is behind it, failed (5xx); nothing was changed, or as much as the text says.
    Failed = 5,
    /// A change was sent, and nobody knows whether it happened.
    Unknown = 6,
    /// What was asked for was done, but for telling it.
    Unwritten = 7,
}

/// The same for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  no such entry, namespace or job, or not confirmed; `serve`: the service could not run
  2  the command line or a setting is wrong
  3  the service cannot be reached
  4  the service refused (4xx)
  5  the service or a shard failed (5xx)
  6  a change was sent, and it is unknown whether it happened
  7  what was asked for was done, and the output could not be written";

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// One line; empty where everything has been said.
    text: String,
    /// As the service has it, where it answered.
    code: Option<String>,
    request_id: Option<String>,
}

#[derive(Serialize)]
struct Document<'f> {
    error: &'f str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'f str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'f str>,
    exit_code: u8,
}

impl Failure {
    pub fn new(exit: Exit, text: impl Display) -> Self {
        Self { exit, text: text.to_string(), code: None, request_id: None }
    }

    pub fn usage(text: impl Display) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// Ends with `exit`, all being said.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    pub fn with_code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    pub fn with_request(self, id: &str) -> Self {
        Self { request_id: Some(id.to_owned()), ..self }
    }

    /// With something else that is to be told.
    pub fn and(self, text: &str) -> Self {
        Self { text: format!("{}; {text}", self.text), ..self }
    }

    /// Whether the service answered with this code.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// The code of the service, where it answered with one.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The line to be written to stderr; `None` where all is said.
    pub fn shown(&self, json: bool) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        // Part of it may come from somebody else, and is not to move the cursor.
        let text: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if json {
            let document = Document {
                error: &text,
                code: self.code.as_deref(),
                request_id: self.request_id.as_deref(),
                exit_code: self.exit as u8,
            };
            return serde_json::to_string(&document).ok();
        }
        let request = self.request_id.as_deref().map(|id| format!(" (request {id})")).unwrap_or_default();
        Some(format!("sidecache: {text}{request}"))
    }
}

/// Of writing to standard output, where nothing else is said.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Whoever reads has seen enough.
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Done),
            _ => Self::new(Exit::Unwritten, format!("it is done, but the output cannot be written: {error}")),
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::usage(error)
    }
}
