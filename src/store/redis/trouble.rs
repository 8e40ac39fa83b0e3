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
        let (mut errors, told) = (client.error_rx(), trouble.clone());
        // Runs until the process ends, as the client does.
        tokio::spawn(async move {
            loop {
                match errors.recv().await {
                    Ok((error, _)) => *told.0.lock() = Some(words(error.details())),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        trouble
    }

    /// `None` while there was none.
    pub fn last(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
