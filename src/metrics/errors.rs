//! Counters of requests that were answered with an error, labelled with the code.

use metrics::{Counter, Unit};

const ERRORS: &str = "sidecache_http_errors_total";

/// A counter for each code, by index.
pub struct ErrorCounts(Vec<Counter>);

impl ErrorCounts {
    /// `codes` are the codes and their statuses. Call it under the recorder that shows the counters.
    pub(super) fn new(codes: impl Iterator<Item = (&'static str, u16)>) -> Self {
        let counter = |(code, status): (&'static str, u16)| metrics::counter!(ERRORS, "code" => code, "status" => status.to_string());
        Self(codes.map(counter).collect())
    }

    pub fn count(&self, index: usize) {
        self.0[index].increment(1);
    }
}

/// Registers the help text.
pub(super) fn describe() {
    let help = "Requests answered with an error, by error code. A read that finds no entry is not an error.";
    metrics::describe_counter!(ERRORS, Unit::Count, help);
}
