//! Replaces connections that lead to the wrong server.
//!
//! **Behind a host name:** a connection stays with the server to which the name resolved when the connection was made.
//! After a managed failover, the name resolves to another server, but the old server may still answer as a primary. So
//! names are looked up once a second. When a name resolves to other addresses, or one of its addresses is gone, all
//! connections of the shard are replaced.
//!
//! **Behind Sentinels:** a connection leads to the server that was the primary when the connection was made. A primary
//! that was suspended or cut off while another one took over does not know that when it returns. Until a Sentinel
//! tells it, after about ten seconds, it accepts writes that will be lost, and answers reads with old values. So the
//! Sentinels are asked several times within the staleness bound, and connections to any other server than the one
//! they report are replaced. A connection that was silent is not used again before the Sentinels confirm it (see
//! `connection.rs`): a failover may have happened since the last question.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::config::ServerConfig;
use tokio::net::lookup_host;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::sentinel::{Primary, Sentinels};
use super::shard::{Refusal, Shard};
use crate::clock::Moment;
use crate::config::ShardConfig;

/// How often a name is looked up, and how long a lookup may take.
const LOOKUP_PERIOD: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the Sentinels are asked within one staleness bound.
const QUESTIONS_PER_BOUND: u32 = 4;

/// Limits of the time between two questions: not too often for the Sentinels, and not too late for us.
const QUESTION_PERIOD_MIN: Duration = Duration::from_millis(50);
const QUESTION_PERIOD_MAX: Duration = Duration::from_secs(1);

/// How long to wait for a requested reconnection of the subscriber.
const RECONNECT: Duration = Duration::from_secs(2);

/// The least time between two replacements of all connections because they led to different servers.
const SPLIT_PAUSE: Duration = Duration::from_secs(2);

/// An address counts as gone when this many lookups in a row did not find it.
const MISSED: u32 = 10;

/// The known addresses of one host name.
#[derive(Default)]
struct Addresses {
    /// Each address, with the number of lookups since the last one that found it.
    known: BTreeMap<IpAddr, u32>,
    /// The addresses of the last lookup, if it found no known address.
    suspected: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Records the addresses that a lookup found. Returns whether existing connections may lead to the wrong server
    /// now: either the lookups find no known address any more, or one known address is gone. A name may have several
    /// addresses of which each lookup returns only some. So the first case counts when two lookups in a row find the
    /// same new addresses, and the second after [`MISSED`] lookups.
    fn lead_elsewhere(&mut self, found: BTreeSet<IpAddr>) -> bool {
        if found.is_empty() {
            return false;
        }
        let is_new = !self.known.is_empty() && !found.iter().any(|address| self.known.contains_key(address));
        if is_new && self.suspected != found {
            self.suspected = found;
            return false;
        }
        self.suspected.clear();
        if is_new {
            self.known.clear();
        }
        self.known.values_mut().for_each(|missed| *missed += 1);
        self.known.extend(found.into_iter().map(|address| (address, 0)));
        let before = self.known.len();
        self.known.retain(|_, missed| *missed < MISSED);
        is_new || self.known.len() < before
    }
}

/// The host name and port of a shard. `None` for a shard with an IP address, and for a shard with Sentinels, which
/// report addresses.
pub fn name_of(config: &ShardConfig) -> Option<(String, u16)> {
    match &config.endpoint.server {
        ServerConfig::Centralized { server } if server.host.parse::<IpAddr>().is_err() => {
            Some((server.host.to_string(), server.port))
        }
        _ => None,
    }
}

impl Shard {
    /// Looks up the host name of the shard regularly.
    pub async fn watch_address(self: Arc<Self>, (host, port): (String, u16)) {
        let mut ticks = interval(LOOKUP_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut addresses = Addresses::default();
        loop {
            ticks.tick().await;
            // A failed lookup says nothing about the addresses.
            let Ok(Ok(found)) = timeout(LOOKUP_TIMEOUT, lookup_host((host.as_str(), port))).await else { continue };
            if addresses.lead_elsewhere(found.map(|address| address.ip()).collect()) {
                tracing::warn!(shard = %self.name, host, "the host name resolves to other addresses now");
                self.leave_server();
            }
        }
    }

    /// Asks the Sentinels for the primary several times within `max_staleness`.
    pub async fn watch_primary(self: Arc<Self>, sentinels: Arc<Sentinels>, max_staleness: Duration) {
        let period = (max_staleness / QUESTIONS_PER_BOUND).clamp(QUESTION_PERIOD_MIN, QUESTION_PERIOD_MAX);
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(primary) = sentinels.primary().await else { continue };
            self.replace_connections(|client| primary.is_missed_by(client));
            // A subscriber that is connecting asks the Sentinels itself.
            if primary.is_missed_by(&self.subscriber) && self.subscriber.is_connected() {
                let Primary { host, port, .. } = primary;
                tracing::warn!(shard = %self.name, host, port, "the Sentinels report another primary");
                self.metrics.primary_changes.increment(1);
                self.reconnect_subscriber();
            }
        }
    }

    /// Replaces all connections of the shard because they lead to different servers, for example behind a proxy that
    /// keeps old sessions. Does so at most once per [`SPLIT_PAUSE`], because frequent changes of the ring record cause
    /// the same refusals.
    pub fn replace_split_connections(&self) {
        let now = Moment::now();
        let mut left = self.last_split.lock();
        if left.is_none_or(|at| now.since(at) >= SPLIT_PAUSE) {
            *left = Some(now);
            tracing::warn!(shard = %self.name, "the connections of the shard lead to different servers; replacing all of them");
            self.leave_server();
        }
    }

    pub fn replace_if_fenced(&self, refusal: &Refusal) {
        if matches!(refusal, Refusal::Fenced) {
            self.replace_split_connections();
        }
    }

    /// Replaces all connections because the shard has another server now.
    fn leave_server(&self) {
        self.replace_connections(|_| true);
        self.reconnect_subscriber();
    }

    fn replace_connections(&self, is_wrong: impl Fn(&Client) -> bool) {
        for connection in &self.connections {
            if is_wrong(&connection.client) && connection.replace() {
                self.metrics.primary_changes.increment(1);
            }
        }
    }

    /// If this fails, the subscriber notices that no clock readings come back, or the Sentinels are asked again.
    fn reconnect_subscriber(&self) {
        let subscriber = self.subscriber.clone();
        tokio::spawn(async move { timeout(RECONNECT, subscriber.force_reconnection()).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(of: &[u8]) -> BTreeSet<IpAddr> {
        of.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    #[test]
    fn two_lookups_in_a_row_with_only_new_addresses_mean_another_server() {
        let mut addresses = Addresses::default();
        assert!(!addresses.lead_elsewhere(set(&[1])), "the first");
        assert!(!addresses.lead_elsewhere(set(&[2])), "once");
        assert!(!addresses.lead_elsewhere(set(&[1])), "back again");
        assert!(!addresses.lead_elsewhere(set(&[2])));
        assert!(addresses.lead_elsewhere(set(&[2])), "twice in a row");
        assert!(!addresses.lead_elsewhere(set(&[2])));
        assert!(!addresses.lead_elsewhere(set(&[])), "an empty answer says nothing");
    }

    #[test]
    fn lookups_that_return_some_of_several_addresses_mean_no_change() {
        let mut addresses = Addresses::default();
        for found in [&[1, 2][..], &[2, 3], &[3], &[1], &[2]] {
            assert!(!addresses.lead_elsewhere(set(found)), "{found:?}");
        }
    }

    #[test]
    fn an_address_that_is_gone_for_good_means_another_server() {
        let mut addresses = Addresses::default();
        assert!(!addresses.lead_elsewhere(set(&[1, 2])));
        for lookup in 1..MISSED {
            assert!(!addresses.lead_elsewhere(set(&[2])), "missed {lookup} times");
        }
        assert!(addresses.lead_elsewhere(set(&[2])));
        assert!(!addresses.lead_elsewhere(set(&[2])), "told once");
    }
}
