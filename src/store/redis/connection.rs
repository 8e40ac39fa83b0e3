//! One connection for commands, and the checks that show whether it can be trusted.
//!
//! A connection that does not answer becomes *doubtful*: PINGs check whether it still works, and other connections
//! are preferred meanwhile. If it stays silent, it is replaced: otherwise commands would pile up in the client
//! library, and the silence of a half-open connection would look like silence of the shard.
//!
//! Behind Sentinels, a connection that is new or was silent gets no commands until the Sentinels confirm that it
//! leads to the primary. Its server may have been paused while another server became the primary. When the paused
//! server resumes, it does not know that yet, and would accept writes that are lost as soon as it learns of the new
//! primary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface as _};
use fred::types::{ClusterHash, CustomCommand, Resp3Frame as Frame};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};

use super::scripts::FENCE;
use super::sentinel::Sentinels;
use crate::clock::Moment;

/// How long a connection may leave everything unanswered before it is replaced.
const SILENCE: Duration = Duration::from_secs(1);

/// How long to wait for the answer to a PING, and the pause between two PINGs.
const PING_TIMEOUT: Duration = Duration::from_millis(250);
const PING_PAUSE: Duration = Duration::from_millis(25);

/// How long to wait for a new connection before another one is requested, and how often to check meanwhile.
const REVIVAL: Duration = Duration::from_secs(5);
const REVIVAL_STEP: Duration = Duration::from_millis(50);

/// One connection for commands.
pub struct Connection {
    pub client: Client,
    /// The Sentinels, which know where the connection should lead.
    sentinels: Option<Arc<Sentinels>>,
    /// How many reasons for doubt are not resolved yet. While it is not 0, a task checks the connection.
    doubts: AtomicU64,
    /// Whether the connection is being replaced.
    is_reviving: AtomicBool,
}

/// The pause before a connection to a replica is replaced: its name may resolve to another server by then.
const REPLICA_PAUSE: Duration = Duration::from_millis(200);

impl Connection {
    /// Wraps `client`. Behind Sentinels, each new connection of the client starts as doubtful.
    pub fn new(client: Client, sentinels: Option<Arc<Sentinels>>) -> Arc<Self> {
        let doubts = AtomicU64::new(0);
        let connection = Arc::new(Self { client, sentinels, doubts, is_reviving: AtomicBool::new(false) });
        if connection.sentinels.is_some() {
            // Runs until the process ends, like the client.
            tokio::spawn(connection.clone().doubt_new_connections());
        }
        connection
    }

    async fn doubt_new_connections(self: Arc<Self>) {
        // An error raises doubt too, because it ends the old connection: so the new connection is never used before it
        // is in doubt.
        let (mut errors, mut reconnects) = (self.client.error_rx(), self.client.reconnect_rx());
        loop {
            let is_over = tokio::select! {
                error = errors.recv() => matches!(error, Err(RecvError::Closed)),
                server = reconnects.recv() => matches!(server, Err(RecvError::Closed)),
            };
            if is_over {
                return;
            }
            self.doubt();
        }
    }

    /// Whether commands may be sent.
    pub fn is_usable(&self) -> bool {
        let is_trusted = self.sentinels.is_none() || !self.is_doubtful();
        self.client.is_connected() && !self.is_reviving.load(Relaxed) && is_trusted
    }

    /// Whether commands may be sent, and nothing raises doubt about the connection.
    pub fn is_sure(&self) -> bool {
        self.is_usable() && !self.is_doubtful()
    }

    fn is_doubtful(&self) -> bool {
        self.doubts.load(Relaxed) != 0
    }

    /// Raises doubt: a command was not answered in time, or the connection broke.
    pub fn doubt(self: &Arc<Self>) {
        if self.doubts.fetch_add(1, Relaxed) == 0 {
            let connection = self.clone();
            tokio::spawn(async move {
                let mut doubts = 1;
                // Doubts that were raised during the check require another check.
                while doubts != 0 {
                    connection.examine().await;
                    let left = connection.doubts.compare_exchange(doubts, 0, Relaxed, Relaxed);
                    doubts = left.err().unwrap_or(0);
                }
            });
        }
    }

    /// Replaces the connection even if it answers, because it leads to the wrong server. Returns whether the
    /// replacement began now; false if one was already running.
    pub fn replace(self: &Arc<Self>) -> bool {
        let begins = !self.is_reviving.swap(true, Relaxed);
        if begins {
            let connection = self.clone();
            tokio::spawn(async move { connection.revive().await });
        }
        begins
    }

    /// Sends PINGs until one is answered; replaces the connection if that takes too long.
    async fn examine(&self) {
        let mut asked_first = Moment::now();
        let mut is_answered = false;
        while !is_answered && Moment::now().since(asked_first) < SILENCE {
            if !self.client.is_connected() {
                // The silence of the old connection says nothing about the next one: start again.
                sleep(REVIVAL_STEP).await;
                asked_first = Moment::now();
                continue;
            }
            is_answered = self.is_answering().await;
            if !is_answered {
                sleep(PING_PAUSE).await;
            }
        }
        let is_replaced = !(is_answered && self.leads_to_the_primary().await);
        if is_replaced && !self.is_reviving.swap(true, Relaxed) {
            self.revive().await;
        }
    }

    async fn is_answering(&self) -> bool {
        matches!(timeout(PING_TIMEOUT, self.client.ping::<()>(None)).await, Ok(Ok(())))
    }

    /// Whether the connection leads to the primary. Must be called after the connection has answered: an earlier
    /// statement of the Sentinels proves nothing.
    async fn leads_to_the_primary(&self) -> bool {
        let Some(sentinels) = &self.sentinels else { return true };
        // If no Sentinel answers, the connection stays: a shard must not fail together with its Sentinels.
        sentinels.primary().await.is_none_or(|primary| !primary.is_missed_by(&self.client))
    }

    /// Whether the connection leads to a replica. Tries a write that changes nothing, see `lua/fence_read.lua`.
    async fn is_on_a_replica(&self) -> bool {
        let command = CustomCommand::new_static("SMOVE", ClusterHash::FirstKey, false);
        let asked = self.client.custom_raw(command, vec![FENCE, FENCE, ""]);
        let Ok(Ok(answer)) = timeout(PING_TIMEOUT, asked).await else { return false };
        match answer {
            Frame::SimpleError { data, .. } => data.starts_with("READONLY"),
            _ => false,
        }
    }

    /// Replaces the connection, repeatedly until the new one answers. No commands are sent meanwhile.
    async fn revive(&self) {
        loop {
            let is_back = timeout(REVIVAL, self.reconnect()).await.is_ok();
            if is_back && self.is_on_a_replica().await {
                sleep(REPLICA_PAUSE).await;
            } else if is_back && self.leads_to_the_primary().await {
                break;
            } else {
                sleep(REVIVAL_STEP).await;
            }
        }
        self.is_reviving.store(false, Relaxed);
    }

    async fn reconnect(&self) {
        // Only if the library is not connecting already, because it queues one reconnect for each request. If the
        // library is stuck in a write, this call does not return. Then the library's own check for unresponsive
        // connections ends the connection, because nothing more is written.
        if self.client.is_connected()
            && let Ok(Err(error)) = timeout(SILENCE, self.client.force_reconnection()).await
        {
            tracing::debug!(%error, "could not reconnect yet");
        }
        while !self.client.is_connected() || !self.is_answering().await {
            sleep(REVIVAL_STEP).await;
        }
    }
}
