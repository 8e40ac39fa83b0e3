//! Panics: what is logged and counted when a request or a connection panicked.

use std::any::Any;

use crate::metrics::Metrics;

/// Logs and counts a panic.
pub fn record_panic(panic: &(dyn Any + Send), metrics: &Metrics) {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("of an unknown type"), "a request panicked");
    metrics.panics.increment(1);
}
