//! Subscribes to one shard's invalidations, and proves how recent this instance's knowledge is.
//!
//! One connection carries two channels: the invalidations that all scripts publish, and a private channel. Into the
//! private channel this instance publishes its own clock reading a few times within the staleness bound. Redis
//! delivers the messages of one connection in order. So when a reading comes back, every invalidation published
//! before it has arrived too. This holds however messages get lost: if invalidations do not arrive, readings do not
//! arrive either.
//!
//! After every (re)connect all copies must be voided, and not before the SUBSCRIBE, because this may happen:
//!
//! 1. the connection breaks;
//! 2. another instance writes, but its message does not arrive here;
//! 3. a read fills L1 with the old value, or an old copy is still there;
//! 4. the shard executes the SUBSCRIBE;
//! 5. a reading comes back.
//!
//! Only voiding between 4 and 5 removes every copy that the message of step 2 was about. The client library does not
//! tell when step 4 happens: for the library a SUBSCRIBE is done when it is queued. So the proof is the first reading
//! that was taken after the SUBSCRIBE was queued and that comes back. All copies are voided before this reading
//! counts.
//!
//! A reading is published by a fenced script that a replica refuses (`lua/prove.lua`). It names the ring record under
//! which it was published. It counts only if this process serves under that record, and if the subscription leads to
//! the server that wrote the record. So messages of another server prove nothing, and neither do messages of a
//! primary if the subscription leads to its replica.
//!
//! A reading also says the number of the last change, so that a message that was lost on an unbroken connection is
//! noticed (see `coherence`).

use std::sync::Arc;
use std::time::Duration;

use fred::bytes_utils::Str;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{ClusterHash, CustomCommand, Message, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::reply;
use super::ring_state::SettledRecord;
use super::scripts::{self, INVALIDATION_CHANNEL};
use super::server_info::field;
use super::shard::{Effect, Sender, Shard};
use crate::clock::Moment;
use crate::store::{InvalidationSink, ShardIndex};

/// The pause between attempts to subscribe.
const RETRY: Duration = Duration::from_millis(100);

/// How long to wait for a requested reconnection.
const RECONNECT: Duration = Duration::from_secs(2);

/// How many readings are published within one staleness bound. One in [`READINGS_PER_LOOK`] also checks the server's
/// run id, which costs several times as much.
const READINGS_PER_BOUND: u32 = 4;
const READINGS_PER_LOOK: u64 = 4;

/// How long to wait for the run id of the server behind a new connection.
const INFO_TIMEOUT: Duration = Duration::from_millis(500);

/// The subscriber of one shard.
pub struct Subscriber {
    pub shard: Arc<Shard>,
    pub index: ShardIndex,
    pub sink: Arc<dyn InvalidationSink>,
    /// Part of the name of this instance's private channel.
    pub instance: String,
    pub max_staleness: Duration,
}

/// Why a subscription ended.
enum Ended {
    /// The connection was replaced, or must be replaced.
    ConnectionLost,
    ClientGone,
}

impl Subscriber {
    /// Subscribes and listens.
    pub async fn run(self) {
        let private_channel = format!("sidecache:watermark:{}", self.instance);
        let client = &self.shard.subscriber;
        // Created before the first SUBSCRIBE, so that no event or message is missed.
        let mut messages = client.message_rx();
        let mut reconnects = client.reconnect_rx();
        loop {
            self.sink.lost(self.index);
            // The library can miss the event that it waits for; checking regularly cannot.
            while !client.is_connected() {
                sleep(RETRY).await;
            }
            // Skip reconnects up to now: SUBSCRIBE goes over the present connection.
            reconnects = reconnects.resubscribe();
            let run_id = self.run_id().await;
            if run_id.is_empty() {
                // The server may be another one, but it does not report its run id.
                self.shard.ring_state.suspect();
            }
            let channels = vec![INVALIDATION_CHANNEL.to_owned(), private_channel.clone()];
            if client.subscribe(channels).await.is_err() {
                sleep(RETRY).await;
                continue;
            }
            // When the SUBSCRIBE was sent, or a little later.
            let asked_at = Moment::now();
            match self.follow(asked_at, &run_id, &mut messages, &mut reconnects, &private_channel).await {
                Ended::ConnectionLost => {
                    tracing::warn!(shard = %self.shard.name, "the subscription was lost; subscribing again");
                }
                Ended::ClientGone => return,
            }
        }
    }

    /// Applies the messages of a subscription that was requested at `asked_at`, over a connection to the server with
    /// this run id (empty if the user may not ask for it).
    async fn follow(
        &self,
        asked_at: Moment,
        run_id: &str,
        messages: &mut tokio::sync::broadcast::Receiver<Message>,
        reconnects: &mut tokio::sync::broadcast::Receiver<fred::types::config::Server>,
        private_channel: &str,
    ) -> Ended {
        let mut ticks = interval(self.max_staleness / READINGS_PER_BOUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = (self.max_staleness * 2).max(Duration::from_secs(2));
        let mut last_proof = asked_at;
        let mut is_subscribed = false;
        // The last incarnation for which all earlier copies were voided.
        let mut incarnation = Str::default();
        let mut readings = 0_u64;
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Ok(message) if message.channel.as_bytes() == private_channel.as_bytes() => {
                        // Readings sent over the previous connection may still be in the queue.
                        if let Some((moment, last, settled)) = self.proof(&message.value, asked_at, run_id) {
                            if !is_subscribed || settled.identity.incarnation != incarnation {
                                is_subscribed = true;
                                incarnation = settled.identity.incarnation.clone();
                                self.sink.lost(self.index);
                                tracing::info!(shard = %self.shard.name, "subscribed to invalidations");
                            }
                            if self.shard.ring_state.take_voided() {
                                // Must come before `proven`: a proof for the new record says nothing about copies
                                // from before.
                                self.sink.lost(self.index);
                            }
                            last_proof = Moment::now();
                            self.sink.proven(self.index, moment, settled.position(last));
                        }
                    }
                    Ok(message) => match message.value.as_bytes() {
                        Some(payload) => self.sink.apply(self.index, payload),
                        // No script publishes such a message. It may be about any key.
                        None => self.sink.lost(self.index),
                    },
                    Err(RecvError::Lagged(lost)) => {
                        tracing::warn!(shard = %self.shard.name, lost, "invalidations were lost: the queue was full");
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
                        // The connection is half-open: there is no error, but nothing arrives. The next attempt to
                        // subscribe shows an error, if there is one.
                        let _ = timeout(RECONNECT, self.shard.subscriber.force_reconnection()).await;
                        return Ended::ConnectionLost;
                    }
                    self.publish_reading(private_channel.to_owned(), readings.is_multiple_of(READINGS_PER_LOOK));
                    readings += 1;
                }
            }
        }
    }

    /// Publishes this instance's clock reading. A lost reading proves nothing and does no harm, so nothing waits for
    /// it. The shard's timeout limits how many are in flight.
    fn publish_reading(&self, channel: String, looks: bool) {
        let shard = self.shard.clone();
        tokio::spawn(async move {
            let reading = Moment::now().as_nanos().to_string();
            let arguments = |settled: &SettledRecord| {
                let run_id = if looks { settled.identity.run_id.clone() } else { Str::default() };
                vec![Value::from(channel.as_str()), Value::from(reading.as_str()), Value::String(run_id)]
            };
            let Some(settled) = shard.ring_state.settled() else { return };
            let proved =
                shard.ask_under(&settled, Sender::Upkeep, &scripts::PROVE, Effect::Read, arguments, reply::number);
            if matches!(proved.await, Ok(None)) {
                // The shard has another record or server: the task that keeps the records handles that.
                shard.ring_state.doubted.notify_one();
            }
        });
    }

    /// The moment that a reading proves, the number of the last change before it, and the record under which it was
    /// published; `None` if it proves nothing.
    fn proof(&self, value: &Value, asked_at: Moment, run_id: &str) -> Option<(Moment, u64, Arc<SettledRecord>)> {
        let text = std::str::from_utf8(value.as_bytes()?).ok()?;
        let (token, rest) = text.split_once(' ')?;
        let (nanos, last) = rest.split_once(' ')?;
        let last = last.parse().ok()?;
        let moment = Moment::from_nanos(nanos.parse().ok()?);
        let settled = self.shard.ring_state.settled()?;
        let expected = &*settled.identity.run_id;
        let is_of_this_server = run_id.is_empty() || expected.is_empty() || run_id == expected;
        // Readings sent over the previous connection may still be in the queue.
        (moment > asked_at && settled.token == token && is_of_this_server).then_some((moment, last, settled))
    }

    /// The run id of the server that the connection leads to; empty if the server does not report it.
    async fn run_id(&self) -> String {
        let command = CustomCommand::new_static("INFO", ClusterHash::FirstKey, false);
        let asked = self.shard.subscriber.custom_raw(command, vec!["server"]);
        let Ok(Ok(info)) = timeout(INFO_TIMEOUT, asked).await else { return String::new() };
        let info = reply::text(info).unwrap_or_default();
        field(&info, "run_id").unwrap_or_default().to_owned()
    }
}
