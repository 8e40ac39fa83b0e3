//! The part of a server's `INFO` that decides whether and how sidecache can run on it.
//!
//! The fields are described at <https://redis.io/docs/latest/commands/info/>.

use crate::store::{Finding, Role, Severity};

use super::conditions::Kind;

/// The oldest Redis on which the scripts run: `SET ... PXAT`, `ZADD ... LT` and `ZRANDMEMBER` came with 6.2.
pub const LEAST_VERSION: Version = Version(6, 2);

/// Major and minor version of Redis. Other servers name the version that they are compatible with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32);

impl Version {
    /// Parses texts such as `7.0.15` or `8.0-rc1`; `None` if the text does not begin with two numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
        Some(Self(major, minor.parse().ok()?))
    }
}

/// What is known about a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// For example `Redis 7.0.15` or `Valkey 8.1.0`; `None` if the server did not report it.
    pub name: Option<String>,
    /// The version of Redis that it is compatible with.
    pub version: Option<Version>,
    pub role: Option<Role>,
    /// Identifies one run of the server: another server, or the same server after a restart, has another id.
    pub run_id: Option<String>,
    pub is_cluster_node: bool,
    pub maxmemory_policy: Option<String>,
    /// Whether the server has replicas but would accept writes without them.
    pub is_unguarded: bool,
}

/// The value of `name` in an answer of `INFO`.
pub fn field<'t>(info: &'t str, name: &str) -> Option<&'t str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

impl ServerInfo {
    /// Parses an answer of `INFO` with all sections.
    pub fn parse(info: &str) -> Self {
        let redis_version = field(info, "redis_version");
        let name = match (field(info, "valkey_version"), field(info, "dragonfly_version"), redis_version) {
            (Some(version), _, _) => Some(format!("Valkey {version}")),
            (_, Some(version), _) => Some(format!("Dragonfly {version}")),
            (_, _, Some(version)) => Some(format!("Redis {version}")),
            _ => None,
        };
        Self {
            name,
            version: redis_version.and_then(Version::parse),
            role: field(info, "role").and_then(role),
            run_id: field(info, "run_id").map(str::to_owned),
            is_cluster_node: field(info, "cluster_enabled") == Some("1"),
            maxmemory_policy: field(info, "maxmemory_policy").map(str::to_owned),
            // The second field is only present if min-replicas-to-write is set.
            is_unguarded: field(info, "connected_slaves").is_some_and(|count| count != "0")
                && field(info, "min_slaves_good_slaves").is_none(),
        }
    }

    /// The findings about `shard` that follow from `INFO`.
    pub fn findings(&self, shard: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.version.is_some_and(|version| version < LEAST_VERSION) {
            let (name, Version(major, minor)) = (self.name.as_deref().unwrap_or("an old Redis"), LEAST_VERSION);
            let predicate = format!("runs {name}, and sidecache needs Redis {major}.{minor} or later: upgrade it");
            findings.push(Finding::new("old_version", Severity::Refused, shard, &predicate));
        }
        if self.is_cluster_node {
            findings.push(Kind::ClusterNode.finding(shard, ""));
        }
        if self.role == Some(Role::Replica) {
            findings.push(Kind::Replica.finding(shard, ""));
        }
        if let Some(policy) = self.maxmemory_policy.as_deref().filter(|policy| policy.starts_with("allkeys-")) {
            let predicate = format!(
                "may evict any key under maxmemory-policy {policy}, including the keys that sidecache needs for its \
                 totals and for flushes: run CONFIG SET maxmemory-policy volatile-lru"
            );
            findings.push(Finding::new("evicts_bookkeeping", Severity::Degraded, shard, &predicate));
        }
        if self.role == Some(Role::Primary) && self.is_unguarded {
            let predicate = "accepts writes even while it is cut off from its replicas; if another primary is \
                             elected then, an instance that still uses this server may answer with values older than \
                             max_staleness_ms: run CONFIG SET min-replicas-to-write 1";
            findings.push(Finding::new("unguarded_failover", Severity::Warning, shard, predicate));
        }
        findings
    }
}

/// The role by its name in `INFO replication`.
pub fn role(word: &str) -> Option<Role> {
    match word {
        "master" => Some(Role::Primary),
        "slave" => Some(Role::Replica),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(info: &str) -> Vec<(&'static str, Severity)> {
        let findings = ServerInfo::parse(info).findings("a");
        findings.iter().map(|finding| (finding.code, finding.severity)).collect()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let parsed = ["6.0.16", "6.2.14", "7.0.15", "10.1.0", "8.0-rc1"].map(|text| Version::parse(text).unwrap());
        assert_eq!(parsed.map(|version| version < LEAST_VERSION), [true, false, false, false, false]);
        for text in ["", "7", "seven.two", "7.x"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_older_server_is_refused_by_name() {
        let findings = ServerInfo::parse("# Server\r\nredis_version:6.0.16\r\n").findings("a");
        assert_eq!((findings[0].code, findings[0].severity), ("old_version", Severity::Refused));
        assert!(findings[0].text.starts_with("shard a runs Redis 6.0.16, and sidecache needs Redis 6.2"));
        assert!(codes("redis_version:6.2.0\r\n").is_empty());
        assert!(codes("").is_empty(), "a server that does not report its version is not refused");
    }

    #[test]
    fn servers_have_their_own_name_and_the_redis_version_they_are_compatible_with() {
        let info = ServerInfo::parse("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n");
        assert_eq!((info.name.as_deref(), info.version), (Some("Valkey 8.1.0"), Some(Version(7, 2))));
    }

    #[test]
    fn a_primary_that_accepts_writes_without_its_replicas_gets_a_warning() {
        let guarded = "min_slaves_good_slaves:1\r\n";
        let info = "role:master\r\nconnected_slaves:1\r\n";
        assert_eq!(codes(info), [("unguarded_failover", Severity::Warning)]);
        assert!(codes(&format!("{info}{guarded}")).is_empty());
        assert!(codes("role:master\r\nconnected_slaves:0\r\n").is_empty());
    }

    #[test]
    fn cluster_nodes_replicas_and_policies_that_evict_anything_are_found() {
        assert_eq!(codes("cluster_enabled:1\r\n"), [("cluster_node", Severity::Refused)]);
        assert_eq!(codes("role:slave\r\n"), [("replica", Severity::Degraded)]);
        assert_eq!(codes("maxmemory_policy:allkeys-lfu\r\n"), [("evicts_bookkeeping", Severity::Degraded)]);
        assert!(codes("cluster_enabled:0\r\nrole:master\r\nmaxmemory_policy:volatile-lru\r\n").is_empty());
    }
}
