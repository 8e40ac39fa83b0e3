//! Watches where the name of a shard leads.
//!
//! A connection stays with the server to which its name led when it was made. After a managed failover the name leads
//! to another one, and the old server may still answer as a primary. So names are looked up once a second, and when one
//! leads to other addresses or has lost one, the shard's connections are made anew.

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

/// How often a name is looked up, how long that may take, and how long a new connection is waited for.
const PERIOD: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
const RECONNECT: Duration = Duration::from_secs(2);

/// The least time between two replacements of connections that lead to different servers.
const APART_PAUSE: Duration = Duration::from_secs(2);

/// Lookups in a row that have to miss a known address until the name counts as leading there no more.
const MISSED: u32 = 10;

/// The addresses of one name, as far as they are known.
#[derive(Default)]
struct Addresses {
    /// Each with the number of lookups since it was found.
    known: BTreeMap<IpAddr, u32>,
    /// Found by the last lookup, which found no known address.
    suspected: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Takes what a lookup found; tells whether a connection of before may lead elsewhere now: the name has no known
    /// address any more, or one of them is gone. A name may have several addresses of which each lookup finds some,
    /// so the first counts once it was found twice in a row, and the second after [`MISSED`] lookups.
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

/// The host and port of a shard that has a name to look up; Sentinels tell addresses themselves.
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
            // A name that cannot be looked up now tells nothing.
            let Ok(Ok(found)) = timeout(PATIENCE, lookup_host((name.0.as_str(), name.1))).await else { continue };
            if addresses.lead_elsewhere(found.map(|address| address.ip()).collect()) {
                tracing::warn!(shard = %shard.name, host = %name.0, "the name leads to another server now");
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
    /// Replaces every connection where they lead to different servers, as behind a proxy that keeps old sessions; at
    /// most once in [`APART_PAUSE`], as a record that changes again and again looks the same.
    pub fn leave_servers_apart(&self) {
        let now = Moment::now();
        let mut left = self.left_apart.lock();
        if left.is_none_or(|at| now.since(at) >= APART_PAUSE) {
            *left = Some(now);
            tracing::warn!(shard = %self.name, "its connections lead to different servers and are replaced");
            self.leave_server();
        }
    }

    pub fn leave_if_fenced(&self, refusal: &Refusal) {
        if matches!(refusal, Refusal::Fenced) {
            self.leave_servers_apart();
        }
    }

    /// Replaces every connection, as the shard's server is another one now.
    fn leave_server(&self) {
        for lane in &self.lanes {
            if lane.replace() {
                self.metrics.primary_changes.increment(1);
            }
        }
        let subscriber = self.subscriber.clone();
        // An error shows itself in readings that stay away.
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
    fn a_name_leads_elsewhere_when_two_lookups_in_a_row_find_nothing_known() {
        let mut addresses = Addresses::default();
        assert!(!addresses.lead_elsewhere(set(&[1])), "the first");
        assert!(!addresses.lead_elsewhere(set(&[2])), "once");
        assert!(!addresses.lead_elsewhere(set(&[1])), "back again");
        assert!(!addresses.lead_elsewhere(set(&[2])));
        assert!(addresses.lead_elsewhere(set(&[2])), "twice in a row");
        assert!(!addresses.lead_elsewhere(set(&[2])));
        assert!(!addresses.lead_elsewhere(set(&[])), "nothing found tells nothing");
    }

    #[test]
    fn a_name_with_several_addresses_leads_to_all_of_them() {
        let mut addresses = Addresses::default();
        for found in [&[1, 2][..], &[2, 3], &[3], &[1], &[2]] {
            assert!(!addresses.lead_elsewhere(set(found)), "{found:?}");
        }
    }

    #[test]
    fn a_name_leads_elsewhere_when_one_of_its_addresses_is_gone_for_good() {
        let mut addresses = Addresses::default();
        assert!(!addresses.lead_elsewhere(set(&[1, 2])));
        for lookup in 1..MISSED {
            assert!(!addresses.lead_elsewhere(set(&[2])), "missed {lookup} times");
        }
        assert!(addresses.lead_elsewhere(set(&[2])));
        assert!(!addresses.lead_elsewhere(set(&[2])), "told once");
    }
}
