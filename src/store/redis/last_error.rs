//! The reason why a shard cannot be reached, for the log: otherwise a wrong password looks like a shard that is
//! silent.

use std::sync::Arc;

use fred::clients::Client;
use fred::interfaces::EventInterface as _;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;

use super::probe::words;

/// The last error of a shard's connections, as a text.
#[derive(Clone, Default)]
pub struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    /// Watches one connection. That is enough, because all connections of a shard lead to the same place.
    pub fn of(client: &Client) -> Self {
        let last_error = Self::default();
        let (mut errors, mut reconnects, told) = (client.error_rx(), client.reconnect_rx(), last_error.clone());
        // Runs until the process ends, like the client.
        tokio::spawn(async move {
            loop {
                let last = tokio::select! {
                    // If an error and a reconnect are both waiting, the error came first.
                    biased;
                    error = errors.recv() => error.map(|(error, _)| Some(words(error.details()))),
                    // An error before the reconnect does not explain later trouble.
                    server = reconnects.recv() => server.map(|_| None),
                };
                match last {
                    Ok(last) => *told.0.lock() = last,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        last_error
    }

    /// `None` if there was no error since the last connect.
    pub fn last(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
