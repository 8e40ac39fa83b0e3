//! Settings that ask for memory, held against what this machine can give.

use super::MIB;
use super::settings::{Error, Settings};

/// The bytes asked for by the setting `name` (in MiB, at least `low`).
///
/// # Errors
/// It is no number, or out of range.
pub fn asked(settings: &Settings, name: &str, low: u64) -> Result<u64, Error> {
    settings.number(name, low..=u64::MAX / MIB).map(|mb| mb * MIB)
}

/// The same where there is so much.
///
/// # Errors
/// It is no number, or more than the machine or its control group has.
pub fn within(settings: &Settings, name: &str, low: u64) -> Result<u64, Error> {
    let bytes = asked(settings, name, low)?;
    match available_bytes() {
        Some(available) if bytes > available => Err(settings.error(
            name,
            format!("{} MiB are more than the {} MiB of memory there are", bytes / MIB, available / MIB),
        )),
        _ => Ok(bytes),
    }
}

/// Memory of this machine, or of the control group it runs in if that is less; `None` where the
/// system does not tell (<https://docs.kernel.org/admin-guide/cgroup-v2.html>, `memory.max`).
fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = group.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(total);
    Some(total.min(limit))
}
