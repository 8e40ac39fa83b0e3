//! The process's own log on stderr: text on a terminal, JSON elsewhere.
//!
//! A separate thread writes the log from a bounded queue, because the reader of stderr may stop reading and that must
//! not block the service. When the queue is full, lines are dropped and counted.

use std::io::{IsTerminal as _, stderr};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

use crate::config::{LogConfig, LogFormat};

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 8192;

/// How many lines were dropped so far.
pub type DroppedLines = ErrorCounter;

/// The running log. Dropping it writes the queued lines.
pub struct Log {
    dropped: ErrorCounter,
    /// Declared (and so dropped) before the writer, because the export may log something when it ends.
    #[cfg(feature = "otel")]
    _spans: Option<crate::trace::Export>,
    _writer: WorkerGuard,
}

impl Log {
    pub fn dropped_lines(&self) -> DroppedLines {
        self.dropped.clone()
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

/// Starts logging. Call it once, before the first log line.
pub fn start(config: &LogConfig) -> Log {
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_LINES).finish(stderr());
    let dropped = writer.error_counter();
    // The filter was checked when the settings were parsed.
    let filter = config.filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let lines = fmt::layer().with_writer(writer);
    if is_text(config) {
        registry().with(lines.with_ansi(stderr().is_terminal())).with(filter).init();
    } else {
        registry().with(lines.json()).with(filter).init();
    }
    Log {
        dropped,
        #[cfg(feature = "otel")]
        // The service also starts if the export fails.
        _spans: crate::trace::Export::start().unwrap_or_else(|error| {
            tracing::warn!(%error, "no spans are exported");
            None
        }),
        _writer: guard,
    }
}
