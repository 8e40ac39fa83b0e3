//! The process's own log: to stderr, as text on a terminal and as JSON elsewhere.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogConfig, LogFormat};

/// Starts logging; called once, before anything logs.
pub fn start(config: &LogConfig) {
    // The filter was checked when the settings were parsed.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = fmt().with_env_filter(filter).with_writer(stderr);
    let as_text = match config.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => stderr().is_terminal(),
    };
    if as_text { log.with_ansi(stderr().is_terminal()).init() } else { log.json().init() }
}
