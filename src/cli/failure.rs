//! How a command fails: a line for people, and an exit code for programs.

use std::fmt::Display;
use std::io;

use serde::{Serialize, Serializer};

use crate::config;

/// The exit codes, which [`EXIT_CODES`] explains. They never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Done = 0,
    NotFound = 1,
    Usage = 2,
    Unreachable = 3,
    Refused = 4,
    Failed = 5,
    Unknown = 6,
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

/// Why a command failed. With `--json`, it is printed as JSON.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// One line; empty if the exit code says enough.
    #[serde(rename = "error")]
    text: String,
    /// The service's error code, if it sent one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The header `Cache-Lease` of the response.
    #[serde(skip)]
    pub lease: Option<String>,
    #[serde(rename = "exit_code")]
    pub exit: Exit,
}

impl Serialize for Exit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl Failure {
    pub fn new(exit: Exit, text: impl Display) -> Self {
        // Parts of the text come from other programs. Their control characters must not move the cursor.
        Self { exit, text: in_one_line(&text.to_string()), code: None, request_id: None, lease: None }
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

    pub fn with_lease(self, lease: Option<String>) -> Self {
        Self { lease, ..self }
    }

    /// Adds something to the message.
    pub fn and(self, text: &str) -> Self {
        Self { text: format!("{}; {}", self.text, in_one_line(text)), ..self }
    }

    /// Whether the service answered with this code.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// The line for stderr; `None` if there is no message.
    pub fn shown(&self, json: bool) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        if json {
            return serde_json::to_string(self).ok();
        }
        let request = self.request_id.as_deref().map(|id| format!(" (request {id})")).unwrap_or_default();
        Some(format!("sidecache: {}{request}", self.text))
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
