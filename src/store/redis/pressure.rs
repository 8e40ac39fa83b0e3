//! Whether a shard has memory enough: what it uses, and whether Redis itself evicts entries that are young.
//!
//! Pure: fed with readings of `INFO` and of the clock. A full shard whose least used entries give way to new ones
//! is healthy. Redis does not tell how old what it evicts was, but it evicts what was used longest ago, so an
//! entry goes after about as long as it takes to evict all that may be evicted: their number, divided by the rate
//! (Little's law).

use std::time::Duration;

use super::server_info::field;
use crate::clock::Moment;
use crate::store::{Finding, Severity};

/// Entries that go sooner than this after their last use are young: the cache is turned over faster than it is
/// worth filling.
const YOUNG: Duration = Duration::from_secs(60);

/// For how long evictions are told after the last reading that showed them.
const CURRENT: Duration = Duration::from_secs(10);

/// Namespaces that are named as those which hold the most.
pub const NAMED: usize = 3;

/// What a server tells of its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub used_bytes: u64,
    /// `maxmemory`, or the machine's memory where there is none; 0 where it did not tell.
    pub limit_bytes: u64,
    /// Keys evicted since the server started.
    pub evicted: u64,
    /// Keys that it may evict.
    pub evictable: u64,
}

impl Reading {
    /// Parses what `INFO` says in the sections `memory`, `stats` and `keyspace`, one behind the other.
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

/// What is known of one shard's memory.
#[derive(Debug, Default)]
pub struct Pressure {
    last: Option<(Moment, Reading)>,
    /// When entries were evicted young for the last time, and how long after their last use.
    evicted_young: Option<(Moment, Duration)>,
    /// The namespaces that hold the most, with their bytes.
    holders: Vec<(String, u64)>,
}

impl Pressure {
    /// The last reading.
    pub fn reading(&self) -> Reading {
        self.last.map(|(_, reading)| reading).unwrap_or_default()
    }

    /// Takes a reading of `now`.
    pub fn read(&mut self, reading: Reading, now: Moment) {
        if let Some((at, last)) = self.last.replace((now, reading)) {
            // Fewer than before: the server has restarted.
            let evicted = reading.evicted.saturating_sub(last.evicted);
            if evicted > 0 {
                let age = now.since(at).mul_f64(last.evictable.max(reading.evictable) as f64 / evicted as f64);
                if age < YOUNG {
                    self.evicted_young = Some((now, age));
                }
            }
        }
    }

    /// Whether entries are evicted young.
    pub fn evicts_young(&self, now: Moment) -> bool {
        self.evicted_young.is_some_and(|(at, _)| now.since(at) <= CURRENT)
    }

    /// Names the namespaces that hold the most, of all with their bytes.
    pub fn hold(&mut self, mut holders: Vec<(String, u64)>) {
        holders.retain(|(_, bytes)| *bytes > 0);
        holders.sort_by(|(name, bytes), (other, more)| more.cmp(bytes).then_with(|| name.cmp(other)));
        holders.truncate(NAMED);
        self.holders = holders;
    }

    /// What is wrong with `shard`, if it evicts entries young.
    pub fn finding(&self, shard: &str, now: Moment) -> Option<Finding> {
        let (_, age) = self.evicted_young.filter(|(at, _)| now.since(*at) <= CURRENT)?;
        let predicate = format!(
            "is full and evicts entries that were used less than {} s ago: raise maxmemory, or lower max_size_mb or \
             the TTLs of the namespaces that hold most{}",
            age.as_secs() + 1,
            self.told()
        );
        Some(Finding::new("evicts_young", Severity::Degraded, shard, &predicate))
    }

    /// What is used and who holds the most of it, as the end of a sentence.
    pub fn told(&self) -> String {
        let Reading { used_bytes, limit_bytes, .. } = self.reading();
        let mut told = String::new();
        if limit_bytes > 0 {
            told += &format!("; {} of {} are used", mebibytes(used_bytes), mebibytes(limit_bytes));
        }
        if !self.holders.is_empty() {
            let holders = self.holders.iter().map(|(name, bytes)| format!("{name} ({})", mebibytes(*bytes)));
            told += &format!("; most is held by {}", holders.collect::<Vec<_>>().join(", "));
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
    fn info_is_read() {
        let info = "used_memory:100\r\nmaxmemory:0\r\ntotal_system_memory:500\r\nmaxmemory_policy:volatile-lru\r\n\
                    evicted_keys:7\r\ndb0:keys=5,expires=3,avg_ttl=0\r\ndb1:keys=1,expires=1,avg_ttl=0\r\n";
        let reading = Reading { used_bytes: 100, limit_bytes: 500, evicted: 7, evictable: 4 };
        assert_eq!(Reading::parse(info), reading);
        let any = info.replace("volatile-lru", "allkeys-lru").replace("maxmemory:0", "maxmemory:200");
        assert_eq!(Reading::parse(&any), Reading { limit_bytes: 200, evictable: 6, ..reading });
    }

    #[test]
    fn a_full_shard_that_turns_over_slowly_is_healthy() {
        let mut pressure = Pressure::default();
        for second in (0..60).step_by(2) {
            // 5 a second of 1,000 go 200 s after their last use.
            pressure.read(evicted(second * 5, 1_000), at(second));
            assert!(pressure.finding("a", at(second)).is_none());
        }
    }

    #[test]
    fn one_that_evicts_what_was_just_used_is_told_until_it_stops() {
        let mut pressure = Pressure::default();
        pressure.read(evicted(10, 1_000), at(0));
        assert!(pressure.finding("a", at(0)).is_none(), "the first count says nothing of when");
        pressure.read(evicted(410, 1_000), at(2));
        pressure.hold(vec![("small".into(), 1 << 20), ("empty".into(), 0), ("large".into(), 20 << 20)]);
        let text = pressure.finding("a", at(2)).unwrap().text;
        assert!(text.starts_with("shard a is full and evicts entries that were used less than 6 s ago"), "{text}");
        assert!(text.ends_with("24.0 MiB of 24.0 MiB are used; most is held by large (20.0 MiB), small (1.0 MiB)"));
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
