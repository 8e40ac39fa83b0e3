//! How a command fails: a line for people, and an exit code for programs.

use std::fmt::Display;
use std::io;

use serde::Serialize;

use crate::config;

/// The exit codes; they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Done = 0,
    /// No such entry, namespace or job, or the user did not confirm.
    NotFound = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// The service, a shard or the database cannot be reached, or a response cannot be read.
    Unreachable = 3,
    /// The request was refused (4xx).
    Refused = 4,
    /// The service, a shard or the database failed (5xx). If something was changed nevertheless, the message says so.
    Failed = 5,
    /// A change was sent, and it is unknown whether it happened.
    Unknown = 6,
    /// The command was carried out, but its output could not be written.
    Unwritten = 7,
}

/// The exit codes as `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  no such entry, namespace or job, or not confirmed; `serve`: the service could not run
  2  the command line or a setting is wrong
  3  the service cannot be reached; `check-config`, `migrate`: a shard or the database
  4  the service refused the request (4xx)
  5  the service or a shard failed (5xx)
  6  a change was sent, and it is unknown whether it happened
  7  the command was carried out, but its output could not be written";

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// One line; empty if the exit code says enough.
    text: String,
    /// The service's error code, if it sent one.
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

    /// Ends the command with `exit` and without a message.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    pub fn with_code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    pub fn with_request(self, id: &str) -> Self {
        Self { request_id: Some(id.to_owned()), ..self }
    }

    /// Adds something to the message.
    pub fn and(self, text: &str) -> Self {
        Self { text: format!("{}; {text}", self.text), ..self }
    }

    /// Whether the service answered with this code.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// The service's error code, if it sent one.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The line for stderr; `None` if there is no message.
    pub fn shown(&self, json: bool) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        // Parts of the text come from other programs. Their control characters must not move the cursor.
        let text = in_one_line(&self.text);
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

/// Converts an error of writing to standard output. Other I/O errors are converted where they happen.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The reader closed the pipe, as `head` does.
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Done),
            _ => Self::new(
                Exit::Unwritten,
                format!("the command was carried out, but the output cannot be written: {error}"),
            ),
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::usage(error)
    }
}

/// The text with a space in place of each control character.
pub fn in_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
