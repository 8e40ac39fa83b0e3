//! Watches to which addresses the host name of a shard resolves.
//!
//! A connection stays with the server to which the name resolved when the connection was made. After a managed
//! failover, the name resolves to another server, but the old server may still answer as a primary. So names are
//! looked up once a second. When a name resolves to other addresses, or one of its addresses is gone, all connections
//! of the shard are replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::ClientLike as _;
use fred::types::config::ServerConfig;
use tokio::net::lookup_host;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::shard::{Refusal, Shard};
use crate::clock::Moment;
use crate::config::ShardConfig;

/// How often a name is looked up, how long a lookup may take, and how long to wait for a new connection.
const PERIOD: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
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

/// Watches until `shutdown`.
pub async fn watch(shard: Arc<Shard>, name: (String, u16), shutdown: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut addresses = Addresses::default();
    let watching = async {
        loop {
            ticks.tick().await;
            // A failed lookup says nothing about the addresses.
            let Ok(Ok(found)) = timeout(PATIENCE, lookup_host((name.0.as_str(), name.1))).await else { continue };
            if addresses.lead_elsewhere(found.map(|address| address.ip()).collect()) {
                tracing::warn!(shard = %shard.name, host = %name.0, "the host name resolves to other addresses now");
                shard.leave_server();
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watching => {}
    }
}

impl Shard {
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
        for connection in &self.connections {
            if connection.replace() {
                self.metrics.primary_changes.increment(1);
            }
        }
        let subscriber = self.subscriber.clone();
        // If this fails, the subscriber notices that no clock readings come back.
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
