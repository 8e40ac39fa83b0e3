//! Whether a shard has enough memory: how much it uses, and whether Redis itself evicts young entries.
//!
//! Pure: the inputs are readings of `INFO` and of the clock. A full shard is healthy as long as only entries are
//! evicted that were not used for a while. Redis does not report the age of evicted entries, but it evicts the least
//! recently used first. So the time from an entry's last use to its eviction is about the number of evictable entries
//! divided by the rate of evictions (Little's law).

use std::time::Duration;

use super::server_info::field;
use crate::clock::Moment;
use crate::store::{Finding, Severity};

/// Entries that are evicted sooner than this after their last use are young: then the cache is replaced too fast to
/// be useful.
const YOUNG: Duration = Duration::from_secs(60);

/// How long evictions are reported after the last reading that showed them.
const CURRENT: Duration = Duration::from_secs(10);

/// How many of the largest namespaces are named.
pub const NAMED: usize = 3;

/// The memory statistics of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub used_bytes: u64,
    /// `maxmemory`, or the machine's memory if that is not set; 0 if the server does not report it.
    pub limit_bytes: u64,
    /// Keys evicted since the server started.
    pub evicted: u64,
    /// Keys that the server may evict.
    pub evictable: u64,
}

impl Reading {
    /// Parses the sections `memory`, `stats` and `keyspace` of `INFO`, one after the other in `info`.
    pub fn parse(info: &str) -> Self {
        let number = |name: &str| field(info, name).and_then(|text| text.parse::<u64>().ok());
        let is_any = field(info, "maxmemory_policy").is_some_and(|policy| policy.starts_with("allkeys-"));
        let counted = if is_any { "keys=" } else { "expires=" };
        // `db0:keys=5,expires=3,avg_ttl=1000`
        let databases = info.lines().filter(|line| line.starts_with("db"));
        let counts = databases.filter_map(|line| {
            let (_, rest) = line.split_once(counted)?;
            rest.split(',').next()?.trim().parse::<u64>().ok()
        });
        Self {
            used_bytes: number("used_memory").unwrap_or(0),
            limit_bytes: number("maxmemory")
                .filter(|bytes| *bytes > 0)
                .or_else(|| number("total_system_memory"))
                .unwrap_or(0),
            evicted: number("evicted_keys").unwrap_or(0),
            evictable: counts.sum(),
        }
    }
}

/// What is known about one shard's memory.
#[derive(Debug, Default)]
pub struct Pressure {
    last: Option<(Moment, Reading)>,
    /// When young entries were last evicted, and how long after their last use.
    evicted_young: Option<(Moment, Duration)>,
    /// The largest namespaces, with their bytes.
    holders: Vec<(String, u64)>,
}

impl Pressure {
    /// The last reading.
    pub fn reading(&self) -> Reading {
        self.last.map(|(_, reading)| reading).unwrap_or_default()
    }

    /// Stores a reading made at `now`.
    pub fn read(&mut self, reading: Reading, now: Moment) {
        if let Some((at, last)) = self.last.replace((now, reading)) {
            // Saturating: the count is smaller than before if the server has restarted.
            let evicted = reading.evicted.saturating_sub(last.evicted);
            if evicted > 0 {
                let age = now.since(at).mul_f64(last.evictable.max(reading.evictable) as f64 / evicted as f64);
                if age < YOUNG {
                    self.evicted_young = Some((now, age));
                }
            }
        }
    }

    /// Whether young entries are being evicted.
    pub fn evicts_young(&self, now: Moment) -> bool {
        self.evicted_young.is_some_and(|(at, _)| now.since(at) <= CURRENT)
    }

    /// Stores the largest of these namespaces, given with their bytes.
    pub fn hold(&mut self, mut holders: Vec<(String, u64)>) {
        holders.retain(|(_, bytes)| *bytes > 0);
        holders.sort_by(|(name, bytes), (other, more)| more.cmp(bytes).then_with(|| name.cmp(other)));
        holders.truncate(NAMED);
        self.holders = holders;
    }

    /// The finding about `shard`, if it evicts young entries.
    pub fn finding(&self, shard: &str, now: Moment) -> Option<Finding> {
        let (_, age) = self.evicted_young.filter(|(at, _)| now.since(*at) <= CURRENT)?;
        let predicate = format!(
            "is full and evicts entries that were used less than {} s ago: raise maxmemory, or lower max_size_mb or \
             the TTLs of the largest namespaces{}",
            age.as_secs() + 1,
            self.told()
        );
        Some(Finding::new("evicts_young", Severity::Degraded, shard, &predicate))
    }

    /// How much memory is used, and by which namespaces, as the end of a sentence.
    pub fn told(&self) -> String {
        let Reading { used_bytes, limit_bytes, .. } = self.reading();
        let mut told = String::new();
        if limit_bytes > 0 {
            told += &format!("; {} of {} are used", mebibytes(used_bytes), mebibytes(limit_bytes));
        }
        if !self.holders.is_empty() {
            let holders = self.holders.iter().map(|(name, bytes)| format!("{name} ({})", mebibytes(*bytes)));
            told += &format!("; the largest namespaces are {}", holders.collect::<Vec<_>>().join(", "));
        }
        told
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn evicted(evicted: u64, evictable: u64) -> Reading {
        Reading { used_bytes: 24 << 20, limit_bytes: 24 << 20, evicted, evictable }
    }

    #[test]
    fn info_is_parsed() {
        let info = "used_memory:100\r\nmaxmemory:0\r\ntotal_system_memory:500\r\nmaxmemory_policy:volatile-lru\r\n\
                    evicted_keys:7\r\ndb0:keys=5,expires=3,avg_ttl=0\r\ndb1:keys=1,expires=1,avg_ttl=0\r\n";
        let reading = Reading { used_bytes: 100, limit_bytes: 500, evicted: 7, evictable: 4 };
        assert_eq!(Reading::parse(info), reading);
        let any = info.replace("volatile-lru", "allkeys-lru").replace("maxmemory:0", "maxmemory:200");
        assert_eq!(Reading::parse(&any), Reading { limit_bytes: 200, evictable: 6, ..reading });
    }

    #[test]
    fn a_full_shard_that_evicts_slowly_is_healthy() {
        let mut pressure = Pressure::default();
        for second in (0..60).step_by(2) {
            // At 5 evictions per second of 1,000 entries, entries go 200 s after their last use.
            pressure.read(evicted(second * 5, 1_000), at(second));
            assert!(pressure.finding("a", at(second)).is_none());
        }
    }

    #[test]
    fn evictions_of_recently_used_entries_are_reported_until_they_stop() {
        let mut pressure = Pressure::default();
        pressure.read(evicted(10, 1_000), at(0));
        assert!(pressure.finding("a", at(0)).is_none(), "the first count does not show when keys were evicted");
        pressure.read(evicted(410, 1_000), at(2));
        pressure.hold(vec![("small".into(), 1 << 20), ("empty".into(), 0), ("large".into(), 20 << 20)]);
        let text = pressure.finding("a", at(2)).unwrap().text;
        assert!(text.starts_with("shard a is full and evicts entries that were used less than 6 s ago"), "{text}");
        assert!(text.ends_with(
            "24.0 MiB of 24.0 MiB are used; the largest namespaces are large (20.0 MiB), small (1.0 MiB)"
        ));
        pressure.read(evicted(410, 1_000), at(4));
        assert!(pressure.evicts_young(at(12)) && !pressure.evicts_young(at(13)));
    }

    #[test]
    fn a_server_that_restarted_has_evicted_nothing_yet() {
        let mut pressure = Pressure::default();
        pressure.read(evicted(5_000, 10), at(0));
        pressure.read(evicted(0, 0), at(2));
        assert!(!pressure.evicts_young(at(2)));
    }
}
