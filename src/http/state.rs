//! The parts of the service that the handlers use, in one struct.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::bounds::Bounds;
use super::hosts::Hosts;
use crate::cache::Cache;
use crate::clock::Moment;
use crate::database::Database;
use crate::fleet::Fleet;
use crate::jobs::Jobs;
use crate::l1::L1;
use crate::metrics::Metrics;
use crate::telemetry::DroppedLines;
use crate::trends::Trends;

pub struct App {
    pub cache: Arc<Cache>,
    pub fleet: Arc<Fleet>,
    pub trends: Arc<Trends>,
    pub l1: Arc<L1>,
    pub jobs: Arc<Jobs>,
    pub database: Arc<Database>,
    pub metrics: Arc<Metrics>,
    /// The runtime for background work.
    pub background: Handle,
    pub bounds: Arc<Bounds>,
    pub hosts: Arc<Hosts>,
    pub dropped_log_lines: DroppedLines,
    pub started: Moment,
    /// Cancelled when the process is told to stop: this instance should get no new work.
    pub draining: CancellationToken,
}

/// Shared by all requests. One pointer, because it is cloned for every request.
pub type SharedApp = Arc<App>;
