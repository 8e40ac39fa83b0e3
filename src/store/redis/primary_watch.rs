//! Watches which server is the primary of a shard according to its Sentinels.
//!
//! A connection leads to the server that was the primary when the connection was made. A primary that was suspended
//! or cut off while another one took over does not know that when it returns. Until a Sentinel tells it, after about
//! ten seconds, it accepts writes that will be lost, and answers reads with old values. So the Sentinels are asked
//! several times within the staleness bound, and connections to any other server than the one they report are
//! replaced. A connection that was silent is not used again before the Sentinels confirm it (see `connection.rs`): a
//! failover may have happened since the last question.

use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::ClientLike as _;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::sentinel::{Primary, Sentinels};
use super::shard::Shard;

/// How often the Sentinels are asked within one staleness bound.
const QUESTIONS_PER_BOUND: u32 = 4;

/// Limits of the time between two questions: not too often for the Sentinels, and not too late for us.
const PERIOD_MIN: Duration = Duration::from_millis(50);
const PERIOD_MAX: Duration = Duration::from_secs(1);

/// How long to wait for a requested reconnection.
const RECONNECT: Duration = Duration::from_secs(2);

/// Watches `shard` until `shutdown`.
pub async fn watch(
    shard: Arc<Shard>,
    sentinels: Arc<Sentinels>,
    max_staleness: Duration,
    shutdown: CancellationToken,
) {
    let mut ticks = interval((max_staleness / QUESTIONS_PER_BOUND).clamp(PERIOD_MIN, PERIOD_MAX));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = async {
        loop {
            ticks.tick().await;
            if let Some(primary) = sentinels.primary().await {
                leave_others(&shard, &primary);
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watching => {}
    }
}

/// Replaces the connections that lead to another server than the primary.
fn leave_others(shard: &Shard, primary: &Primary) {
    for connection in &shard.connections {
        if primary.is_missed_by(&connection.client) && connection.replace() {
            shard.metrics.primary_changes.increment(1);
        }
    }
    // A subscriber that is connecting asks the Sentinels itself.
    let subscriber = &shard.subscriber;
    if primary.is_missed_by(subscriber) && subscriber.is_connected() {
        let Primary { host, port, .. } = primary;
        tracing::warn!(shard = %shard.name, host, port, "the Sentinels report another primary");
        shard.metrics.primary_changes.increment(1);
        let subscriber = subscriber.clone();
        // If this fails, the next question shows it.
        tokio::spawn(async move { timeout(RECONNECT, subscriber.force_reconnection()).await });
    }
}
