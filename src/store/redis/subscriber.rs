//! Listens to one shard's invalidations, and proves how recent its knowledge is.
//!
//! One connection carries two channels: the invalidations that every script publishes, and a
//! private channel into which this instance publishes its own clock reading a few times within the
//! staleness bound. Redis delivers to one connection in order, so when a reading comes back, every
//! invalidation published before it has come as well. That holds however messages get lost: with
//! the invalidations, the readings stay away.
//!
//! Why every copy is void after a (re)connect, and after the SUBSCRIBE rather than before it:
//!
//! 1. the connection breaks;
//! 2. another instance writes, its message goes nowhere;
//! 3. a read here fills L1, or its copy stays;
//! 4. the shard carries out the SUBSCRIBE;
//! 5. a reading comes back.
//!
//! Only voiding between 4 and 5 leaves no copy that the message of 2 was about. When 4 happens is not
//! told by the client library, which calls a SUBSCRIBE done when it is queued. So the first reading
//! that was taken after it and comes back is the proof, and everything is void before it counts.
//!
//! A reading is published by a script that a replica refuses and that stands behind the fence (`lua/prove.lua`), and
//! names the record it was published under. It counts only if that is the record this process serves under, and if
//! the server that the subscription leads to is the one that wrote it: messages of another server, or of a primary
//! whose replica the subscription leads to, prove nothing.

use std::sync::Arc;
use std::time::Duration;

use fred::bytes_utils::Str;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{ClusterHash, CustomCommand, Message, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::belonging::Settled;
use super::reply;
use super::scripts::{self, INVALIDATION_CHANNEL};
use super::shard::{Effect, Party, Shard};
use crate::clock::Moment;
use crate::store::{InvalidationSink, ShardIndex};

/// Pause between attempts to subscribe.
const RETRY: Duration = Duration::from_millis(100);

/// How long a reconnection that was asked for is waited for.
const RECONNECT: Duration = Duration::from_secs(2);

/// Readings published within one staleness bound, and how many of them one also looks at which server it is, which
/// costs several times as much.
const READINGS_PER_BOUND: u32 = 4;
const READINGS_PER_LOOK: u64 = 4;

/// How long a new connection is waited for to tell which server it leads to.
const INFO_TIMEOUT: Duration = Duration::from_millis(500);

/// The listener of one shard.
pub struct Subscriber {
    pub shard: Arc<Shard>,
    pub index: ShardIndex,
    pub sink: Arc<dyn InvalidationSink>,
    /// Names this instance's private channel.
    pub instance: String,
    pub max_staleness: Duration,
}

/// Why listening stopped.
enum Ended {
    /// The connection is another one, or should be.
    ConnectionLost,
    ClientGone,
}

impl Subscriber {
    /// Listens until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.listen() => {}
        }
    }

    async fn listen(&self) {
        let private_channel = format!("sidecache:watermark:{}", self.instance);
        let client = &self.shard.subscriber;
        // Taken before the first SUBSCRIBE, so that no event or message can slip between.
        let mut messages = client.message_rx();
        let mut reconnects = client.reconnect_rx();
        loop {
            self.sink.lost(self.index);
            // The library can miss the event it waits for; a look now and then cannot.
            while !client.is_connected() {
                sleep(RETRY).await;
            }
            // Reconnects up to here are over; SUBSCRIBE goes over the connection that came of them.
            reconnects = reconnects.resubscribe();
            let run_id = self.run_id().await;
            if run_id.is_empty() {
                // It may be another server, and cannot be told from the last one.
                self.shard.belonging.suspect();
            }
            let channels = vec![INVALIDATION_CHANNEL.to_owned(), private_channel.clone()];
            if client.subscribe(channels).await.is_err() {
                sleep(RETRY).await;
                continue;
            }
            let asked_at = Moment::now();
            let connection = Connection { asked_at, run_id };
            match self.follow(&connection, &mut messages, &mut reconnects, &private_channel).await {
                Ended::ConnectionLost => {
                    tracing::warn!(shard = %self.shard.name, "the subscription was lost and is made anew");
                }
                Ended::ClientGone => return,
            }
        }
    }

    async fn follow(
        &self,
        connection: &Connection,
        messages: &mut tokio::sync::broadcast::Receiver<Message>,
        reconnects: &mut tokio::sync::broadcast::Receiver<fred::types::config::Server>,
        private_channel: &str,
    ) -> Ended {
        let mut ticks = interval(self.max_staleness / READINGS_PER_BOUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = (self.max_staleness * 2).max(Duration::from_secs(2));
        let asked_at = connection.asked_at;
        let mut last_proof = asked_at;
        let mut is_subscribed = false;
        // The last incarnation of which everything from before is void.
        let mut incarnation = Str::default();
        let mut readings = 0_u64;
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Ok(message) if message.channel.as_bytes() == private_channel.as_bytes() => {
                        // Readings over the last connection may still be in the queue.
                        if let Some((moment, settled)) = self.proof(&message.value, connection) {
                            if !is_subscribed || settled.identity.incarnation != incarnation {
                                is_subscribed = true;
                                incarnation = settled.identity.incarnation.clone();
                                self.sink.lost(self.index);
                                tracing::info!(shard = %self.shard.name, "subscribed to invalidations");
                            }
                            if self.shard.belonging.take_voided() {
                                // Before it is proven: a proof of the new record says nothing of copies from before.
                                self.sink.lost(self.index);
                            }
                            last_proof = Moment::now();
                            self.sink.proven(self.index, moment);
                        }
                    }
                    Ok(message) => match message.value.as_bytes() {
                        Some(payload) => self.sink.apply(self.index, payload),
                        // Not a form that a script of ours publishes: it may have meant anything.
                        None => self.sink.lost(self.index),
                    },
                    Err(RecvError::Lagged(lost)) => {
                        tracing::warn!(shard = %self.shard.name, lost, "invalidations lost to a full queue");
                        self.sink.lost(self.index);
                    }
                    Err(RecvError::Closed) => return Ended::ClientGone,
                },
                event = reconnects.recv() => match event {
                    Err(RecvError::Closed) => return Ended::ClientGone,
                    Ok(_) | Err(RecvError::Lagged(_)) => return Ended::ConnectionLost,
                },
                _ = ticks.tick() => {
                    if Moment::now().since(last_proof) > patience {
                        // A half-open connection: nothing fails, nothing comes. The error, if any,
                        // shows itself at the next attempt to subscribe.
                        let _ = timeout(RECONNECT, self.shard.subscriber.force_reconnection()).await;
                        return Ended::ConnectionLost;
                    }
                    self.publish_reading(private_channel.to_owned(), readings.is_multiple_of(READINGS_PER_LOOK));
                    readings += 1;
                }
            }
        }
    }

    /// Sends this instance's clock around. A reading that gets lost proves nothing and harms
    /// nothing, so nobody waits for it; the shard's timeout bounds how many are under way.
    fn publish_reading(&self, channel: String, looks: bool) {
        let shard = self.shard.clone();
        tokio::spawn(async move {
            let reading = Moment::now().as_nanos().to_string();
            let arguments = |settled: &Settled| {
                let run_id = if looks { settled.identity.run_id.clone() } else { Str::default() };
                vec![Value::from(channel.as_str()), Value::from(reading.as_str()), Value::String(run_id)]
            };
            let Some(settled) = shard.belonging.settled() else { return };
            let proved =
                shard.ask_under(&settled, Party::Upkeep, &scripts::PROVE, Effect::Read, arguments, reply::number);
            if matches!(proved.await, Ok(None)) {
                // The shard's record or server is another: the task that keeps it sees to that.
                shard.belonging.doubted.notify_one();
            }
        });
    }

    /// The moment that a reading proves, and the record that it was published under; `None` where it proves nothing.
    fn proof(&self, value: &Value, connection: &Connection) -> Option<(Moment, Arc<Settled>)> {
        let text = std::str::from_utf8(value.as_bytes()?).ok()?;
        let (token, nanos) = text.split_once(' ')?;
        let moment = Moment::from_nanos(nanos.parse().ok()?);
        let settled = self.shard.belonging.settled()?;
        let run_id = &settled.identity.run_id;
        let is_of_this_server = connection.run_id.is_empty() || run_id.is_empty() || connection.run_id == *run_id;
        // Readings over the last connection may still be in the queue.
        (moment > connection.asked_at && settled.token == token && is_of_this_server).then_some((moment, settled))
    }

    /// The run of the server that the connection leads to; empty where it does not tell.
    async fn run_id(&self) -> String {
        let command = CustomCommand::new_static("INFO", ClusterHash::FirstKey, false);
        let asked = self.shard.subscriber.custom_raw(command, vec!["server"]);
        let Ok(Ok(info)) = timeout(INFO_TIMEOUT, asked).await else { return String::new() };
        let info = reply::text(info).unwrap_or_default();
        let line = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        line.map(|id| id.trim().to_owned()).unwrap_or_default()
    }
}

/// A subscription.
struct Connection {
    /// When SUBSCRIBE was sent, or a little later.
    asked_at: Moment,
    /// Of the server; empty where it may not be asked.
    run_id: String,
}
