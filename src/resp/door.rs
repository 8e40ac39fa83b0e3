//! What all connections of Redis clients share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::client::Clients;
use crate::cache::{self, Cache};
use crate::clock::Moment;
use crate::config::Databases;
use crate::jobs;
use crate::metrics::Metrics;
use crate::net::{Budget, RequestIds};
use crate::trace::Caller;

/// The parts of the service that commands use.
pub struct Door {
    pub cache: Arc<Cache>,
    pub metrics: Arc<Metrics>,
    pub ids: RequestIds,
    pub databases: Databases,
    /// The memory for all requests together.
    pub bodies: Arc<Budget>,
    /// The memory for all large replies together.
    pub answers: Arc<Budget>,
    pub request_timeout: Duration,
    pub max_request_bytes: usize,
    pub max_value_bytes: usize,
    pub max_clients: usize,
    /// How a flush that became a job shows its failure.
    pub failure: fn(&cache::Error) -> jobs::Failure,
    /// The name of this process.
    pub instance: String,
    pub port: u16,
    pub started: Moment,
    pub clients: Clients,
}

impl Door {
    /// A new request of a client, for logs and traces.
    pub fn caller(&self, client: IpAddr) -> Caller {
        self.ids.with_next(|id| Caller::within(id, None).at(Some(client)))
    }
}
