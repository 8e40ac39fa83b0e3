//! Why a shard could not be reached lately, for whoever reads the log: a wrong password looks like silence otherwise.

use std::sync::Arc;

use fred::clients::Client;
use fred::interfaces::EventInterface as _;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;

use super::probe::words;

/// The last thing that went wrong with a shard's connections, in words.
#[derive(Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// That of one connection, which stands for all: they lead to the same place.
    pub fn of(client: &Client) -> Self {
        let trouble = Self::default();
        let (mut errors, mut reconnects, told) = (client.error_rx(), client.reconnect_rx(), trouble.clone());
        // Runs until the process ends, as the client does.
        tokio::spawn(async move {
            loop {
                let last = tokio::select! {
                    // An error and what ended it may both wait: the error was first.
                    biased;
                    error = errors.recv() => error.map(|(error, _)| Some(words(error.details()))),
                    // What is over is no reason for what comes later.
                    server = reconnects.recv() => server.map(|_| None),
                };
                match last {
                    Ok(last) => *told.0.lock() = last,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        trouble
    }

    /// `None` while there was none since it was connected.
    pub fn last(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
