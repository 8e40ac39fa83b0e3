//! Requests that were answered with an error, labelled with its code.

use metrics::{Counter, Unit};

const ERRORS: &str = "sidecache_http_errors_total";

/// A counter for each code, by index.
pub struct ErrorCounts(Vec<Counter>);

impl ErrorCounts {
    /// Codes and their statuses. To be called under the recorder that shows them.
    pub(super) fn new(codes: impl Iterator<Item = (&'static str, u16)>) -> Self {
        let counter = |(code, status): (&'static str, u16)| metrics::counter!(ERRORS, "code" => code, "status" => status.to_string());
        Self(codes.map(counter).collect())
    }

    pub fn count(&self, index: usize) {
        self.0[index].increment(1);
    }
}

/// Tells the help text.
pub(super) fn describe() {
    let help = "Requests answered with an error, by its code; a read that finds no entry is no error.";
    metrics::describe_counter!(ERRORS, Unit::Count, help);
}
