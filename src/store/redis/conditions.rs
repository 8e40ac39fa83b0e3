//! Problems that a shard reports in its error replies: what the problem is, whether it still exists, and when it is
//! logged.
//!
//! Pure: the inputs are error replies and clock readings. A condition is current for [`CURRENT`] after the last reply
//! that showed it, or until an examination of the shard (see `preflight.rs`) disproves it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::store::{Finding, Severity};

/// How long after an error reply its problem counts as current.
const CURRENT: Duration = Duration::from_secs(10);

/// The least time between two log lines about one condition.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// A problem that Redis has an error code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// The kinds in their order: the code of the finding, the codes of Redis' error replies, and what is wrong and what to
/// do, as the end of a sentence that begins with the shard. `{reply}` stands for the reply.
const KINDS: [(Kind, &str, &[&str], &str); 10] = [
    (
        Kind::CannotSave,
        "cannot_save",
        &["MISCONF"],
        "refuses writes because it could not save its data (MISCONF): repair its disk or folder, or turn off saving, \
         which a cache does not need: CONFIG SET save \"\" and CONFIG SET appendonly no",
    ),
    (
        Kind::NoReplicas,
        "no_replicas",
        &["NOREPLICAS"],
        "refuses writes because too few replicas are connected (NOREPLICAS); if another primary was elected, its values \
         may be older than max_staleness_ms: start its replicas, or lower min-replicas-to-write",
    ),
    (
        Kind::OutOfMemory,
        "out_of_memory",
        &["OOM"],
        "is out of memory and refuses writes (OOM): raise maxmemory, lower max_size_mb or the TTLs of the largest \
         namespaces, or set maxmemory-policy volatile-lru",
    ),
    (
        Kind::Replica,
        "replica",
        &["READONLY"],
        "is a replica and refuses writes: configure the address of the primary, or make this server a primary with \
         REPLICAOF NO ONE",
    ),
    (
        Kind::NoPermission,
        "no_permission",
        &["NOPERM"],
        "refuses commands that its user may not run ({reply}): grant the rights in docs/OPERATIONS.md",
    ),
    (
        Kind::Loading,
        "loading",
        &["LOADING"],
        "is loading its data from disk and will answer when that is done (LOADING): wait",
    ),
    (
        Kind::MasterDown,
        "master_down",
        &["MASTERDOWN"],
        "is a replica that lost its primary and refuses reads and writes (MASTERDOWN): configure the address of the \
         primary",
    ),
    (
        Kind::Busy,
        "busy",
        &["BUSY", "UNKILLABLE"],
        "is busy with a script of another program (BUSY): stop the script with SCRIPT KILL or FUNCTION KILL",
    ),
    (
        Kind::NoPassword,
        "no_password",
        &["NOAUTH"],
        "requires a password (NOAUTH): put user and password into its URL, redis://user:password@host:6379",
    ),
    (
        Kind::ClusterNode,
        "cluster_node",
        &["CLUSTERDOWN", "MOVED", "CROSSSLOT"],
        "is a node of a Redis Cluster, which sidecache does not support: configure a standalone server or a Sentinel \
         group for each shard, or start this server with cluster-enabled no",
    ),
];

impl Kind {
    /// The problem that an error reply shows, whether a command or a script caused it.
    pub fn of(reply: &str) -> Option<Self> {
        // Redis 6.2 puts the code of an error inside a script after the script's own error: `ERR Error running script
        // (call to f_...): @user_script:1: @user_script: 1: -OOM command not allowed ...`.
        let inner = reply.rsplit_once(": -").filter(|(script, _)| script.contains("@user_script"));
        let told = inner.map_or(reply, |(_, told)| told);
        let code = told.split_whitespace().next()?;
        match KINDS.iter().find(|(_, _, codes, _)| codes.contains(&code)) {
            Some((kind, ..)) => Some(*kind),
            // These errors inside a script have no code. The texts are those of Redis up to 7.x, of Redis from 8.0
            // on, and of a cluster node.
            None if reply.contains("The user executing the script can't") => Some(Self::NoPermission),
            None if reply.contains("ACL failure in script") => Some(Self::NoPermission),
            None if reply.contains("in a cluster node") => Some(Self::ClusterNode),
            None => None,
        }
    }

    pub fn code(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The finding about `shard`: the problem that `reply` shows, and what to do.
    pub fn finding(self, shard: &str, reply: &str) -> Finding {
        let severity = if self == Self::ClusterNode { Severity::Refused } else { Severity::Degraded };
        Finding::new(self.code(), severity, shard, &KINDS[self as usize].3.replace("{reply}", reply))
    }
}

/// The current conditions of one shard.
#[derive(Debug, Default)]
pub struct Conditions(BTreeMap<Kind, Seen>);

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
    pub fn record(&mut self, kind: Kind, reply: &str, now: Moment) -> Line {
        match self.0.get_mut(&kind) {
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
                self.0.insert(kind, Seen { last: now, reply: reply.to_owned(), logged: now, unlogged: 0 });
                Line::First
            }
        }
    }

    /// The current conditions, each with the first reply that showed it.
    pub fn current(&self, now: Moment) -> impl Iterator<Item = (Kind, &str)> {
        let current = self.0.iter().filter(move |(_, seen)| now.since(seen.last) <= CURRENT);
        current.map(|(kind, seen)| (*kind, seen.reply.as_str()))
    }

    /// Ends the conditions that were last seen before `moment`, because a write succeeded after it. A lack of memory
    /// stays, because that write needed no memory.
    pub fn disprove(&mut self, moment: Moment) {
        self.0.retain(|kind, seen| *kind == Kind::OutOfMemory || seen.last > moment);
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
    fn the_table_has_each_kind_at_its_place() {
        for (place, (kind, ..)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, place);
        }
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
        assert_eq!(conditions.record(Kind::CannotSave, "MISCONF", at(0)), Line::First);
        assert_eq!(conditions.record(Kind::CannotSave, "MISCONF", at(9_000)), Line::Again { unlogged: 0 });
        assert_eq!(codes(&conditions, at(19_000)), ["cannot_save"]);
        assert_eq!(codes(&conditions, at(19_001)), [""; 0]);
        assert_eq!(conditions.record(Kind::CannotSave, "MISCONF", at(30_000)), Line::First);
    }

    #[test]
    fn a_condition_is_logged_at_most_once_a_second() {
        let mut conditions = Conditions::default();
        let lines: Vec<Line> =
            (0..=20).map(|tenth| conditions.record(Kind::Replica, "READONLY", at(tenth * 100))).collect();
        assert_eq!(lines.iter().filter(|line| **line == Line::Skipped).count(), 18);
        assert_eq!(lines[10], Line::Again { unlogged: 9 });
    }

    #[test]
    fn a_successful_write_ends_earlier_conditions_except_a_lack_of_memory() {
        let mut conditions = Conditions::default();
        conditions.record(Kind::NoReplicas, "NOREPLICAS", at(0));
        conditions.record(Kind::OutOfMemory, "OOM", at(0));
        conditions.record(Kind::CannotSave, "MISCONF", at(2));
        conditions.disprove(at(1));
        assert_eq!(codes(&conditions, at(2)), ["cannot_save", "out_of_memory"]);
    }
}
