//! The shards: `a=redis://127.0.0.1:6379,b=redis://127.0.0.1:6380`.

use std::time::Duration;

use fred::types::config::{Config as Endpoint, Server, ServerConfig, TlsConnector};
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;

use super::DAY_MS;
use super::mask;
use super::settings::{Error, Settings};
use super::tls::TlsFiles;

/// The pool of shards and the rules for all of them.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    pub shards: Vec<ShardConfig>,
    pub timeout: Duration,
    connections: usize,
    pub max_in_flight: usize,
    /// How long a write may wait until entries are evicted to make room for it.
    pub room_patience: Duration,
    /// Whether this instance may start with other shards than the running instances have.
    pub accept_ring_change: bool,
}

/// One shard.
#[derive(Clone)]
pub struct ShardConfig {
    /// Decides which keys the shard owns; `[A-Za-z0-9_.-]{1,100}`.
    pub name: String,
    /// Its URL for display: without credentials.
    pub address: String,
    /// Address, credentials and TLS in the client library's form.
    pub endpoint: Endpoint,
}

/// Leaves the endpoint out, as it contains the password.
impl std::fmt::Debug for ShardConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("ShardConfig");
        shown.field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

const SHARDS: &str = "redis_shards";

const SERVER_NAME: &str = "redis_tls_server_name";

impl RedisConfig {
    /// The number of connections to each shard: at least as many as configured, and equally many on each worker.
    pub fn connections(&self, workers: usize) -> usize {
        self.connections.next_multiple_of(workers)
    }

    /// `None` when no shard is configured.
    pub(super) fn parse(settings: &Settings) -> Result<Option<Self>, Error> {
        let timeout = settings.millis("redis_timeout_ms", 1..=60_000)?;
        let connections = settings.size("redis_connections", 1..=256)?;
        let max_in_flight = settings.size("redis_max_in_flight", 1..=1_000_000)?;
        let files = TlsFiles::parse(settings, "redis")?;
        let server_name = match settings.text(SERVER_NAME).trim() {
            "" => None,
            name => {
                Some(ServerName::try_from(name.to_owned()).map_err(|reason| settings.error(SERVER_NAME, reason))?)
            }
        };
        let accept_ring_change = settings.switch("accept_ring_change")?;
        let text = settings.text(SHARDS).trim();
        if text.is_empty() {
            return Ok(None);
        }
        let mut shards: Vec<ShardConfig> = Vec::new();
        for part in text.split(',') {
            let shard =
                shard(part.trim(), &files, server_name.as_ref()).map_err(|reason| settings.error(SHARDS, reason))?;
            if shards.iter().any(|other| other.name == shard.name) {
                return Err(settings.error(SHARDS, format!("two shards are named {:?}", shard.name)));
            }
            // Each of the two would treat the entries of the other as moved to another shard, and remove them.
            if let Some(other) = shards.iter().find(|other| is_same_place(&other.endpoint, &shard.endpoint)) {
                let reason = format!("the shards {} and {} have the same address", other.name, shard.name);
                return Err(settings.error(SHARDS, reason));
            }
            shards.push(shard);
        }
        let is_unused = shards.iter().all(|shard| shard.endpoint.tls.is_none());
        if is_unused && !(files.is_empty() && server_name.is_none()) {
            return Err(
                settings.error(SHARDS, "redis_tls_* is set, but no URL begins with rediss:// or rediss-sentinel://")
            );
        }
        // Shorter than the request's deadline, so that the write is answered in time.
        let room_patience = settings.millis("request_timeout_ms", 10..=DAY_MS)? * 3 / 4;
        Ok(Some(Self { shards, timeout, connections, max_in_flight, room_patience, accept_ring_change }))
    }
}

fn is_same_place(one: &Endpoint, other: &Endpoint) -> bool {
    one.server == other.server && one.database.unwrap_or(0) == other.database.unwrap_or(0)
}

/// Parses `name=URL`. An error message never repeats the URL, which may contain a password.
fn shard(part: &str, files: &TlsFiles, server_name: Option<&ServerName<'static>>) -> Result<ShardConfig, String> {
    let (name, url) = part
        .split_once('=')
        .filter(|(name, url)| url.contains("://") && !name.contains("://"))
        .ok_or("expected name=URL, separated by commas; a URL begins with redis:// or rediss://, for example")?;
    let (name, url) = (name.trim(), url.trim());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || name.len() > 100 || !name.bytes().all(allowed) {
        return Err(format!("a shard's name must match [A-Za-z0-9_.-]{{1,100}}, unlike {name:?}"));
    }
    let scheme = url.split("://").next().unwrap_or_default();
    let known = ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis+unix"];
    if !known.contains(&scheme) {
        return Err(format!("shard {name}: the URL must begin with one of {}, not {scheme:?}", known.join(", ")));
    }
    // The client library splits nodes at their first colon, which breaks IPv6 addresses, and would use its own TLS
    // configuration.
    let (plain, nodes) = without_nodes(url).map_err(|reason| format!("shard {name}: {reason}"))?;
    let is_tls = plain.starts_with("rediss");
    let plain = if is_tls { plain.replacen("rediss", "redis", 1) } else { plain };
    let mut endpoint = Endpoint::from_url(&plain).map_err(|error| {
        // After the colon, the library's message repeats a part of the URL.
        let reason = error.details().split(": ").next().unwrap_or_default();
        format!("shard {name}: the URL does not parse: {reason}")
    })?;
    // Keep trying to connect, in case the shard comes up later.
    endpoint.fail_fast = false;
    // A new connection already uses database 0, and a Redis user may not have the right to SELECT.
    endpoint.database = endpoint.database.filter(|database| *database != 0);
    match &mut endpoint.server {
        ServerConfig::Centralized { server } => unbracket(server),
        ServerConfig::Sentinel { hosts, .. } => {
            hosts.extend(nodes);
            hosts.iter_mut().for_each(unbracket);
        }
        _ => {}
    }
    if is_tls {
        let names = match server_name {
            Some(name) => vec![name.clone()],
            // Sentinels report a server's IP address. The server's certificate may have the host name of a Sentinel.
            None => endpoint.server.hosts().iter().filter_map(dns_name).collect(),
        };
        let config = files.client_config(names).map_err(|reason| format!("shard {name}: TLS: {reason}"))?;
        endpoint.tls = Some(TlsConnector::from(config).into());
    }
    Ok(ShardConfig { name: name.to_owned(), address: mask::location(url), endpoint })
}

/// Separates the `node` parameters from the URL.
fn without_nodes(url: &str) -> Result<(String, Vec<Server>), String> {
    let Some((place, query)) = url.split_once('?') else { return Ok((url.to_owned(), Vec::new())) };
    let (nodes, others): (Vec<_>, Vec<_>) = query.split('&').partition(|pair| pair.starts_with("node="));
    let nodes = nodes.into_iter().map(node).collect::<Result<_, _>>()?;
    Ok((format!("{place}?{}", others.join("&")), nodes))
}

/// Parses `node=host:port`; an IPv6 address needs brackets.
fn node(pair: &str) -> Result<Server, String> {
    let wrong = || "a node is host:port, and an IPv6 address needs brackets".to_owned();
    let text = pair.strip_prefix("node=").unwrap_or(pair);
    let text = percent_decode_str(text).decode_utf8().map_err(|_| wrong())?;
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let is_one_host =
        !host.is_empty() && (host.starts_with('[') && host.ends_with(']') || !host.contains([':', '@']));
    let port = port.parse().ok().filter(|_| is_one_host).ok_or_else(wrong)?;
    Ok(Server::new(host, port))
}

/// Removes the brackets of an IPv6 address: Sentinels and certificates have no brackets.
fn unbracket(server: &mut Server) {
    if let Some(address) = server.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        server.host = address.to_owned().into();
    }
}

fn dns_name(server: &Server) -> Option<ServerName<'static>> {
    let name = ServerName::try_from(server.host.to_string()).ok()?;
    matches!(name, ServerName::DnsName(_)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(part: &str) -> Result<Vec<(String, u16)>, String> {
        let shard = shard(part, &TlsFiles::default(), None)?;
        Ok(shard.endpoint.server.hosts().iter().map(|server| (server.host.to_string(), server.port)).collect())
    }

    #[test]
    fn a_host_may_be_an_ipv6_address_wherever_one_stands() {
        let one = |host: &str, port| (host.to_owned(), port);
        assert_eq!(hosts("a=redis://[::1]:7000"), Ok(vec![one("::1", 7000)]));
        assert_eq!(hosts("a=redis://user:pw@[fd00::1]"), Ok(vec![one("fd00::1", 6379)]));
        let sentinels = "a=redis-sentinel://[::1]/0?sentinelServiceName=m&node=[::1]:2&node=%5B::3%5D:4&node=h:5";
        let expected = vec![one("::1", 26379), one("::1", 2), one("::3", 4), one("h", 5)];
        assert_eq!(hosts(sentinels), Ok(expected));
    }

    #[test]
    fn a_node_that_is_no_host_and_port_is_refused() {
        for node in ["", "h", "h:", ":1", "::1:1", "[::1]", "h:99999", "u:pw@h:1", "u@h:1"] {
            assert!(hosts(&format!("a=redis-sentinel://h?sentinelServiceName=m&node={node}")).is_err(), "{node:?}");
        }
    }

    #[test]
    fn database_0_is_not_selected() {
        let database = |part| shard(part, &TlsFiles::default(), None).unwrap().endpoint.database;
        assert_eq!((database("a=redis://h/0"), database("a=redis://h/3")), (None, Some(3)));
    }
}
