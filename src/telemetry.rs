//! The process's own log: to stderr, as text on a terminal and as JSON elsewhere.
//!
//! A thread of its own writes it, behind a bounded queue: whoever reads stderr may stop reading, and
//! that must not stop the service. Lines that find the queue full are dropped and counted.

use std::io::{IsTerminal as _, stderr};
use std::sync::Arc;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 8192;

/// Tells how many lines were dropped so far.
pub type DroppedLines = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The log while it runs; what is queued is written when this is dropped.
pub struct Log {
    dropped: ErrorCounter,
    /// Before the writer: its end may have something to say.
    #[cfg(feature = "otel")]
    _spans: Option<crate::trace::Export>,
    _writer: WorkerGuard,
}

impl Log {
    pub fn dropped_lines(&self) -> DroppedLines {
        let dropped = self.dropped.clone();
        Arc::new(move || dropped.dropped_lines() as u64)
    }
}

/// Whether the log is text for people, rather than JSON for programs.
pub fn is_text(config: &LogConfig) -> bool {
    match config.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => stderr().is_terminal(),
    }
}

/// Starts logging; called once, before anything logs.
pub fn start(config: &LogConfig) -> Log {
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_LINES).finish(stderr());
    let dropped = writer.error_counter();
    // The filter was checked when the settings were parsed.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = fmt().with_env_filter(filter).with_writer(writer);
    if is_text(config) {
        log.with_ansi(stderr().is_terminal()).init();
    } else {
        log.json().init();
    }
    Log {
        dropped,
        #[cfg(feature = "otel")]
        _spans: spans(),
        _writer: guard,
    }
}

/// The export of spans; what is wrong with it must not keep the service from starting.
#[cfg(feature = "otel")]
fn spans() -> Option<crate::trace::Export> {
    crate::trace::Export::start().unwrap_or_else(|error| {
        tracing::warn!(%error, "no spans are exported");
        None
    })
}
