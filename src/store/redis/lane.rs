//! One connection for commands, and the doubt about it.
//!
//! A connection whose answers stay away is *doubtful*: it is asked with PING whether it still lives,
//! and other connections are preferred meanwhile. If it stays silent it is replaced, as commands would
//! pile up in the client library, and as a half-open connection's silence must not pass for the
//! shard's.
//!
//! Behind Sentinels a connection that was silent, or is new, gets nothing before they were asked and
//! named its server. That server may have stood still while another became the primary; when it goes
//! on it does not know that, and would take writes that are lost as soon as it hears of it.

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

/// How long an answer to the question whether it lives is waited for, and the pause between two.
const PING_TIMEOUT: Duration = Duration::from_millis(250);
const PING_PAUSE: Duration = Duration::from_millis(25);

/// How long a new connection is waited for before the next is asked for, and how often it is looked
/// for meanwhile.
const REVIVAL: Duration = Duration::from_secs(5);
const REVIVAL_STEP: Duration = Duration::from_millis(50);

/// One connection for commands.
pub struct Lane {
    pub client: Client,
    /// Who know where it should lead.
    sentinels: Option<Arc<Sentinels>>,
    /// Reasons for doubt since all was well; a task looks into them while there are any.
    doubts: AtomicU64,
    /// Whether that task is replacing the connection.
    is_reviving: AtomicBool,
}

/// Pause before a connection that leads to a replica is made anew: its name may lead elsewhere by then.
const REPLICA_PAUSE: Duration = Duration::from_millis(200);

impl Lane {
    /// A lane over `client`; behind Sentinels it is doubted whenever it connects.
    pub fn new(client: Client, sentinels: Option<Arc<Sentinels>>) -> Arc<Self> {
        let doubts = AtomicU64::new(0);
        let lane = Arc::new(Self { client, sentinels, doubts, is_reviving: AtomicBool::new(false) });
        if lane.sentinels.is_some() {
            // Runs until the process ends, as the client does.
            tokio::spawn(lane.clone().doubt_new_connections());
        }
        lane
    }

    async fn doubt_new_connections(self: Arc<Self>) {
        // The end of the old connection, too: the new one must not be used before it was doubted.
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

    /// Whether commands may be sent, and the last ones were answered.
    pub fn is_sure(&self) -> bool {
        self.is_usable() && !self.is_doubtful()
    }

    fn is_doubtful(&self) -> bool {
        self.doubts.load(Relaxed) != 0
    }

    /// A command was not answered in time, or the connection broke.
    pub fn doubt(self: &Arc<Self>) {
        if self.doubts.fetch_add(1, Relaxed) == 0 {
            let lane = self.clone();
            tokio::spawn(async move {
                let mut doubts = 1;
                // What gave reason to doubt meanwhile is looked into as well.
                while doubts != 0 {
                    lane.examine().await;
                    let left = lane.doubts.compare_exchange(doubts, 0, Relaxed, Relaxed);
                    doubts = left.err().unwrap_or(0);
                }
            });
        }
    }

    /// Replaces the connection, whatever it answers: it leads to the wrong server. Tells whether that
    /// was not under way already.
    pub fn replace(self: &Arc<Self>) -> bool {
        let begins = !self.is_reviving.swap(true, Relaxed);
        if begins {
            let lane = self.clone();
            tokio::spawn(async move { lane.revive().await });
        }
        begins
    }

    /// Asks until there is an answer, over a new connection if it takes too long.
    async fn examine(&self) {
        let mut asked_first = Moment::now();
        let mut is_answered = false;
        while !is_answered && Moment::now().since(asked_first) < SILENCE {
            if !self.client.is_connected() {
                // Of the next connection nothing is known yet.
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

    /// Asked when it has answered, as an answer from before proves nothing.
    async fn leads_to_the_primary(&self) -> bool {
        let Some(sentinels) = &self.sentinels else { return true };
        // The shard must not go down with its Sentinels.
        sentinels.primary().await.is_none_or(|primary| !primary.is_missed_by(&self.client))
    }

    /// A write that changes nothing tells, see `lua/fence_read.lua`.
    async fn is_on_a_replica(&self) -> bool {
        let command = CustomCommand::new_static("SMOVE", ClusterHash::FirstKey, false);
        let asked = self.client.custom_raw(command, vec![FENCE, FENCE, ""]);
        let Ok(Ok(answer)) = timeout(PING_TIMEOUT, asked).await else { return false };
        match answer {
            Frame::SimpleError { data, .. } => data.starts_with("READONLY"),
            _ => false,
        }
    }

    /// Replaces the connection, again and again until it answers; nothing else is sent meanwhile.
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
        // Not where the library is connecting already: it would do so once more for every time it was
        // asked. Where it is stuck in writing this does not end; its own check for silence then breaks the
        // connection, as nothing more is written.
        if self.client.is_connected()
            && let Ok(Err(error)) = timeout(SILENCE, self.client.force_reconnection()).await
        {
            tracing::debug!(%error, "not reconnected yet");
        }
        while !self.client.is_connected() || !self.is_answering().await {
            sleep(REVIVAL_STEP).await;
        }
    }
}
