//! What commands share: a session with a service, messages on stderr, and an asynchronous runtime.

use std::io::{self, Write as _};

use super::failure::{Exit, Failure};
use super::screen::Screen;
use super::service::Service;

/// The service that a command calls, and the screen that it writes to.
pub struct Session {
    pub service: Service,
    pub screen: Screen,
}

/// Writes a line to stderr. Errors are ignored: a caller that closed stderr does not want the line.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A runtime for the few commands that need asynchronous code.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::new(Exit::Failed, format!("cannot start the asynchronous runtime: {error}")))
}
