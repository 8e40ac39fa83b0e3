//! Problems that a shard reports in its error replies: what the problem is, whether it still exists, and when it is
//! logged.
//!
//! Pure: the inputs are error replies and clock readings. A condition is current for [`CURRENT`] after the last reply
//! that showed it, or until an examination of the shard (see `preflight.rs`) disproves it.

use std::time::Duration;

use crate::clock::Moment;
use crate::store::{Finding, Severity};

/// How long after an error reply its problem counts as current.
const CURRENT: Duration = Duration::from_secs(10);

/// The least time between two log lines about one condition.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// A problem that Redis has an error code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server could not save its data, and is configured to refuse writes in that case.
    CannotSave,
    NoReplicas,
    OutOfMemory,
    Replica,
    NoPermission,
    Loading,
    MasterDown,
    Busy,
    NoPassword,
    ClusterNode,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::CannotSave,
        Self::NoReplicas,
        Self::OutOfMemory,
        Self::Replica,
        Self::NoPermission,
        Self::Loading,
        Self::MasterDown,
        Self::Busy,
        Self::NoPassword,
        Self::ClusterNode,
    ];

    /// The problem that an error reply shows, whether a command or a script caused it.
    pub fn of(reply: &str) -> Option<Self> {
        // Redis 6.2 puts the code of an error inside a script after the script's own error: `ERR Error running script
        // (call to f_...): @user_script:1: @user_script: 1: -OOM command not allowed ...`.
        let inner = reply.rsplit_once(": -").filter(|(script, _)| script.contains("@user_script"));
        let told = inner.map_or(reply, |(_, told)| told);
        match told.split_whitespace().next()? {
            "MISCONF" => Some(Self::CannotSave),
            "NOREPLICAS" => Some(Self::NoReplicas),
            "OOM" => Some(Self::OutOfMemory),
            "READONLY" => Some(Self::Replica),
            "NOPERM" => Some(Self::NoPermission),
            "LOADING" => Some(Self::Loading),
            "MASTERDOWN" => Some(Self::MasterDown),
            "BUSY" | "UNKILLABLE" => Some(Self::Busy),
            "NOAUTH" => Some(Self::NoPassword),
            "CLUSTERDOWN" | "MOVED" | "CROSSSLOT" => Some(Self::ClusterNode),
            // These errors inside a script have no code. The texts are those of Redis up to 7.x, of Redis from 8.0
            // on, and of a cluster node.
            _ if reply.contains("The user executing the script can't") => Some(Self::NoPermission),
            _ if reply.contains("ACL failure in script") => Some(Self::NoPermission),
            _ if reply.contains("in a cluster node") => Some(Self::ClusterNode),
            _ => None,
        }
    }

    pub fn code(self) -> &'static str {
        match self {
            Self::CannotSave => "cannot_save",
            Self::NoReplicas => "no_replicas",
            Self::OutOfMemory => "out_of_memory",
            Self::Replica => "replica",
            Self::NoPermission => "no_permission",
            Self::Loading => "loading",
            Self::MasterDown => "master_down",
            Self::Busy => "busy",
            Self::NoPassword => "no_password",
            Self::ClusterNode => "cluster_node",
        }
    }

    /// The finding about `shard`: the problem that `reply` shows, and what to do.
    pub fn finding(self, shard: &str, reply: &str) -> Finding {
        let severity = if self == Self::ClusterNode { Severity::Refused } else { Severity::Degraded };
        let predicate = match self {
            Self::CannotSave => {
                "refuses writes because it could not save its data (MISCONF): repair its disk or folder, or turn \
                 off saving, which a cache does not need: CONFIG SET save \"\" and CONFIG SET appendonly no"
            }
            Self::NoReplicas => {
                "refuses writes because too few replicas are connected (NOREPLICAS); if another primary was elected, \
                 its values may be older than max_staleness_ms: start its replicas, or lower min-replicas-to-write"
            }
            Self::OutOfMemory => {
                "is out of memory and refuses writes (OOM): raise maxmemory, lower max_size_mb or the TTLs of the \
                 largest namespaces, or set maxmemory-policy volatile-lru"
            }
            Self::Replica => {
                "is a replica and refuses writes: configure the address of the primary, or make this server a \
                 primary with REPLICAOF NO ONE"
            }
            Self::NoPermission => {
                let predicate = format!(
                    "refuses commands that its user may not run ({reply}): grant the rights in docs/OPERATIONS.md"
                );
                return Finding::new(self.code(), severity, shard, &predicate);
            }
            Self::Loading => "is loading its data from disk and will answer when that is done (LOADING): wait",
            Self::MasterDown => {
                "is a replica that lost its primary and refuses reads and writes (MASTERDOWN): configure the address \
                 of the primary"
            }
            Self::Busy => {
                "is busy with a script of another program (BUSY): stop the script with SCRIPT KILL or FUNCTION KILL"
            }
            Self::NoPassword => {
                "requires a password (NOAUTH): put user and password into its URL, redis://user:password@host:6379"
            }
            Self::ClusterNode => {
                "is a node of a Redis Cluster, which sidecache does not support: configure a standalone server or a \
                 Sentinel group for each shard, or start this server with cluster-enabled no"
            }
        };
        Finding::new(self.code(), severity, shard, predicate)
    }
}

/// The current conditions of one shard.
#[derive(Debug, Default)]
pub struct Conditions([Option<Seen>; Kind::ALL.len()]);

#[derive(Debug)]
struct Seen {
    last: Moment,
    reply: String,
    logged: Moment,
    /// Replies since the last log line.
    unlogged: u64,
}

/// What to log about a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The condition is new.
    First,
    /// The condition continues; this many replies were not logged since the last log line.
    Again { unlogged: u64 },
    /// The last log line is too recent, so this reply is not logged.
    Skipped,
}

impl Conditions {
    /// Records that `reply` showed `kind` at `now`.
    pub fn note(&mut self, kind: Kind, reply: &str, now: Moment) -> Line {
        let slot = &mut self.0[kind as usize];
        match slot {
            Some(seen) if now.since(seen.last) <= CURRENT => {
                seen.last = now;
                if now.since(seen.logged) < LOG_PERIOD {
                    seen.unlogged += 1;
                    return Line::Skipped;
                }
                seen.logged = now;
                Line::Again { unlogged: std::mem::take(&mut seen.unlogged) }
            }
            _ => {
                *slot = Some(Seen { last: now, reply: reply.to_owned(), logged: now, unlogged: 0 });
                Line::First
            }
        }
    }

    /// The current conditions, each with the first reply that showed it.
    pub fn current(&self, now: Moment) -> impl Iterator<Item = (Kind, &str)> {
        let seen = Kind::ALL.into_iter().zip(&self.0).filter_map(|(kind, seen)| Some((kind, seen.as_ref()?)));
        seen.filter(move |(_, seen)| now.since(seen.last) <= CURRENT).map(|(kind, seen)| (kind, seen.reply.as_str()))
    }

    /// Ends the conditions that were last seen before `moment`, because a write succeeded after it. A lack of memory
    /// stays, because that write needed no memory.
    pub fn disprove(&mut self, moment: Moment) {
        for (kind, slot) in Kind::ALL.into_iter().zip(&mut self.0) {
            if kind != Kind::OutOfMemory && slot.as_ref().is_some_and(|seen| seen.last <= moment) {
                *slot = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn codes(conditions: &Conditions, now: Moment) -> Vec<&'static str> {
        conditions.current(now).map(|(kind, _)| kind.code()).collect()
    }

    #[test]
    fn replies_of_every_release_are_understood() {
        let replies = [
            ("OOM command not allowed when used memory > 'maxmemory'.", Some(Kind::OutOfMemory)),
            (
                "NOREPLICAS Not enough good replicas to write. script: 0a9f, on @user_script:1.",
                Some(Kind::NoReplicas),
            ),
            (
                "ERR Error running script (call to f_0a9f): @user_script:1: @user_script: 1: -READONLY You can't \
                 write against a read only replica.",
                Some(Kind::Replica),
            ),
            ("@user_script: 1: -NOREPLICAS Not enough good replicas to write.", Some(Kind::NoReplicas)),
            ("MISCONF Redis is configured to save RDB snapshots, but it's unable", Some(Kind::CannotSave)),
            ("ERR ACL failure in script: No permissions to access a channel", Some(Kind::NoPermission)),
            ("ERR The user executing the script can't run this command or subcommand", Some(Kind::NoPermission)),
            ("ERR Script attempted to access a non local key in a cluster node", Some(Kind::ClusterNode)),
            ("MOVED 866 127.0.0.1:7001", Some(Kind::ClusterNode)),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", None),
            ("ERR wrong number of arguments", None),
            ("", None),
        ];
        for (reply, kind) in replies {
            assert_eq!(Kind::of(reply), kind, "{reply}");
        }
    }

    #[test]
    fn a_condition_is_current_for_ten_seconds_after_the_last_reply() {
        let mut conditions = Conditions::default();
        assert_eq!(conditions.note(Kind::CannotSave, "MISCONF", at(0)), Line::First);
        assert_eq!(conditions.note(Kind::CannotSave, "MISCONF", at(9_000)), Line::Again { unlogged: 0 });
        assert_eq!(codes(&conditions, at(19_000)), ["cannot_save"]);
        assert_eq!(codes(&conditions, at(19_001)), [""; 0]);
        assert_eq!(conditions.note(Kind::CannotSave, "MISCONF", at(30_000)), Line::First);
    }

    #[test]
    fn a_condition_is_logged_at_most_once_a_second() {
        let mut conditions = Conditions::default();
        let lines: Vec<Line> =
            (0..=20).map(|tenth| conditions.note(Kind::Replica, "READONLY", at(tenth * 100))).collect();
        assert_eq!(lines.iter().filter(|line| **line == Line::Skipped).count(), 18);
        assert_eq!(lines[10], Line::Again { unlogged: 9 });
    }

    #[test]
    fn a_successful_write_ends_earlier_conditions_except_a_lack_of_memory() {
        let mut conditions = Conditions::default();
        conditions.note(Kind::NoReplicas, "NOREPLICAS", at(0));
        conditions.note(Kind::OutOfMemory, "OOM", at(0));
        conditions.note(Kind::CannotSave, "MISCONF", at(2));
        conditions.disprove(at(1));
        assert_eq!(codes(&conditions, at(2)), ["cannot_save", "out_of_memory"]);
    }
}
