//! Compares the memory that the settings allow with the memory of the machine or of the control group.

use std::fs::read_to_string;
use std::path::Path;

use super::settings::{Error, Settings};
use super::{Config, MIB, StoreConfig};

/// Memory of the process before the first request: the program, its threads, tables and connections to the database.
/// An estimate: the soak test began with 37 MiB resident, copies in L1 included.
const PROCESS_BYTES: u64 = 40 * MIB;

/// The maximum memory of one connection, without bodies and large answers: its buffers, and an answer just below the
/// size from which answers are counted.
const CONNECTION_BYTES: u64 = 30 << 10;

/// The maximum size of a shard's answer to a batch before it is counted, in addition to one value.
const SHARD_ANSWER_BYTES: u64 = MIB;

/// Generous estimates for a queued row of the access log, a queued row of the audit trail, and the log's queue.
const ACCESS_LOG_ROW_BYTES: u64 = 1 << 10;
const AUDIT_ROW_BYTES: u64 = 2 << 10;
const LOG_LINES_BYTES: u64 = 8 * MIB;

/// One namespace with its policy, counts and recent history.
const NAMESPACE_BYTES: u64 = 1 << 10;

/// The value of the setting `name` in bytes (the setting is in MiB, at least `low`).
///
/// # Errors
/// Not a number, or out of range.
pub fn asked(settings: &Settings, name: &str, low: u64) -> Result<u64, Error> {
    settings.number(name, low..=u64::MAX / MIB).map(|mb| mb * MIB)
}

/// Like [`asked`], but fails if the machine has less memory.
///
/// # Errors
/// Not a number, or more than the machine or its control group has.
pub fn within(settings: &Settings, name: &str, low: u64) -> Result<u64, Error> {
    let bytes = asked(settings, name, low)?;
    match Available::here() {
        Some(Available { bytes: available, .. }) if bytes > available => Err(settings.error(
            name,
            format!("{} MiB is too much: only {} MiB of memory are available", bytes / MIB, available / MIB),
        )),
        _ => Ok(bytes),
    }
}

/// The memory that the settings allow, part by part, and the memory that is available.
#[derive(Clone, Debug)]
pub struct MemoryNeed {
    /// The setting (or other part) and the maximum number of bytes that it may use.
    pub parts: Vec<(&'static str, u64)>,
    /// `None` if the system does not say.
    pub available: Option<Available>,
}

/// The memory limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    pub bytes: u64,
    /// Where the limit comes from: `the machine` or `the control group`.
    pub giver: &'static str,
}

impl MemoryNeed {
    /// The maximum memory of a process with these settings. Everything with a bound is included; memory that the
    /// allocator keeps for reuse is not.
    pub fn of(config: &Config) -> Self {
        let store = match &config.store {
            StoreConfig::Embedded { max_bytes } => vec![("embedded_max_mb", *max_bytes)],
            StoreConfig::Redis(redis) => {
                let a_shard = SHARD_ANSWER_BYTES + config.limits.value_bytes as u64;
                vec![("l1_max_mb", config.l1.max_bytes), ("redis_shards", redis.shards.len() as u64 * a_shard)]
            }
        };
        let http = &config.http;
        let rest = [
            ("max_bodies_mb", http.max_bodies_bytes as u64),
            ("max_answers_mb", http.max_answers_bytes as u64),
            ("max_connections", http.max_connections as u64 * CONNECTION_BYTES),
            ("access_log_queue", config.access_log.journal.queue_rows as u64 * ACCESS_LOG_ROW_BYTES),
            ("audit_queue", config.audit.queue_rows as u64 * AUDIT_ROW_BYTES),
            ("max_namespaces", config.namespaces.max_namespaces as u64 * NAMESPACE_BYTES),
            ("the log's queue", LOG_LINES_BYTES),
            ("the process itself", PROCESS_BYTES),
        ];
        Self { parts: store.into_iter().chain(rest).collect(), available: Available::here() }
    }

    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// A warning if less memory is available than the settings allow.
    pub fn warning(&self) -> Option<String> {
        let Available { bytes, giver } = self.available.filter(|available| available.bytes < self.bytes())?;
        let mut parts: Vec<_> = self.parts.iter().filter(|(_, bytes)| *bytes >= MIB).collect();
        parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let parts: Vec<_> = parts.iter().map(|(name, bytes)| format!("{name} {} MiB", bytes / MIB)).collect();
        Some(format!(
            "the settings may take {} MiB of memory, but {giver} has only {} MiB, so the process may be killed. \
             Lower a setting or raise the limit ({})",
            self.bytes().div_ceil(MIB),
            bytes / MIB,
            parts.join(", ")
        ))
    }
}

impl Available {
    fn here() -> Option<Self> {
        Self::under(Path::new("/"))
    }

    /// The memory of the machine, or the limit of this process's control group if that is lower
    /// (<https://docs.kernel.org/admin-guide/cgroup-v2.html>, `memory.max`;
    /// <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>, `memory.limit_in_bytes`). `root` is `/` except in
    /// tests.
    fn under(root: &Path) -> Option<Self> {
        let meminfo = read_to_string(root.join("proc/meminfo")).ok()?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let total = line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024;
        let machine = Self { bytes: total, giver: "the machine" };
        let group = group_limit(root).map(|bytes| Self { bytes, giver: "the control group" });
        Some(group.filter(|group| group.bytes < total).unwrap_or(machine))
    }
}

/// The lowest limit of this process's control group and its parents.
fn group_limit(root: &Path) -> Option<u64> {
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        // `0::/path` in version 2, `4:memory:/path` in version 1.
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|one| one == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let mount = root.join(mount);
        let own = mount.join(path.trim_start_matches('/'));
        // In a container the path may be the host's, and only the mount itself exists.
        own.ancestors()
            .take_while(|folder| folder.starts_with(&mount))
            .filter_map(|folder| read_to_string(folder.join(file)).ok()?.trim().parse().ok())
            .min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine(files: &[(&str, &str)]) -> Option<Available> {
        let root = tempfile::tempdir().unwrap();
        let all = [("proc/meminfo", "MemTotal:        2097152 kB\nMemFree:  1 kB\n")];
        for (path, text) in all.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Available::under(root.path())
    }

    fn gives(giver: &'static str, mib: u64) -> Option<Available> {
        Some(Available { bytes: mib * MIB, giver })
    }

    #[test]
    fn a_machine_without_groups_gives_what_it_has() {
        assert_eq!(machine(&[]), gives("the machine", 2048));
        let unlimited = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        assert_eq!(machine(&unlimited), gives("the machine", 2048));
        // Version 1's value for "no limit".
        let unlimited = [
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(machine(&unlimited), gives("the machine", 2048));
    }

    #[test]
    fn regression_the_limit_of_a_group_below_the_root_counts() {
        // Only the root group's file was read, but a systemd unit or a pod may be in a group below it.
        let group = [
            ("proc/self/cgroup", "0::/system.slice/sidecache.service\n"),
            ("sys/fs/cgroup/system.slice/sidecache.service/memory.max", "268435456\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "536870912\n"),
        ];
        assert_eq!(machine(&group), gives("the control group", 256));
        let parent = [
            ("proc/self/cgroup", "0::/system.slice/sidecache.service\n"),
            ("sys/fs/cgroup/system.slice/sidecache.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "536870912\n"),
        ];
        assert_eq!(machine(&parent), gives("the control group", 512));
    }

    #[test]
    fn regression_the_limit_of_a_group_of_version_1_counts() {
        let group = [
            ("proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "268435456\n"),
        ];
        assert_eq!(machine(&group), gives("the control group", 256));
        // In a container: the path is the host's, the mount is the container's own group.
        let container = [
            ("proc/self/cgroup", "4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ];
        assert_eq!(machine(&container), gives("the control group", 128));
    }

    #[test]
    fn a_warning_names_the_largest_part_first() {
        let need =
            |available| MemoryNeed { parts: vec![("small", 1), ("l1_max_mb", MIB), ("bodies", 9 * MIB)], available };
        assert_eq!(need(None).warning(), None);
        assert_eq!(need(gives("the machine", 11)).warning(), None);
        let warning = need(gives("the control group", 10)).warning().unwrap();
        assert!(
            warning.contains("may take 11 MiB") && warning.contains("the control group has only 10 MiB"),
            "{warning}"
        );
        assert!(warning.ends_with("(bodies 9 MiB, l1_max_mb 1 MiB)"), "{warning}");
    }
}
