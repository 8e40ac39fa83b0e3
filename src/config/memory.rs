//! The memory of the machine or of the control group, and settings that may not exceed it.

use std::fs::read_to_string;
use std::path::Path;

use super::settings::{Error, Settings};

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;

/// The value of the setting `name` in bytes (the setting is in MiB, at least `low`).
///
/// # Errors
/// Not a number, or out of range.
pub fn in_bytes(settings: &Settings, name: &str, low: u64) -> Result<u64, Error> {
    settings.number(name, low..=u64::MAX / MIB).map(|mb| mb * MIB)
}

/// Like [`in_bytes`], but fails if the machine has less memory.
///
/// # Errors
/// Not a number, or more than the machine or its control group has.
pub fn within(settings: &Settings, name: &str, low: u64) -> Result<u64, Error> {
    let bytes = in_bytes(settings, name, low)?;
    match Available::here() {
        Some(Available { bytes: available, .. }) if bytes > available => Err(settings.error(
            name,
            format!("{} MiB is too much: only {} MiB of memory are available", bytes / MIB, available / MIB),
        )),
        _ => Ok(bytes),
    }
}

/// The memory limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    pub bytes: u64,
    /// Where the limit comes from: `the machine` or `the control group`.
    pub giver: &'static str,
}

impl Available {
    pub fn here() -> Option<Self> {
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
}
