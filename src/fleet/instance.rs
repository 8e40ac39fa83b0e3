//! An instance: what it publishes about itself, and how others see it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::UnixMillis;
use crate::store::LivingInstance;

/// Figures about L1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct L1Figures {
    pub entries: u64,
    pub bytes: u64,
    /// 0 if L1 is off.
    pub max_bytes: u64,
    /// Reads answered by L1 since the instance started.
    pub hits: u64,
}

/// The recent load of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadFigures {
    /// Average over the last step of `trends` (about 2 s).
    pub operations_per_second: f64,
    /// Latencies of the last minute, in microseconds; `None` without operations.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
}

/// What an instance publishes about itself on the shards, as JSON. Other instances may have another release: missing
/// fields get their defaults, and unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedInstance {
    pub address: String,
    pub version: String,
    pub started_at_ms: u64,
    pub ring_version: String,
    pub l1: L1Figures,
    pub load: LoadFigures,
}

impl PublishedInstance {
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("text and numbers are written as JSON")
    }
}

/// A living instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub id: String,
    pub address: String,
    pub version: String,
    pub started_at: UnixMillis,
    pub ring_version: String,
    pub l1: L1Figures,
    pub load: LoadFigures,
    /// Time since its last beat.
    pub last_seen: Duration,
    /// Whether it is this instance.
    pub is_here: bool,
}

impl Instance {
    /// This instance.
    pub fn here(id: String, line: PublishedInstance) -> Self {
        Self::new(id, line, Duration::ZERO, true)
    }

    /// Another instance; `None` if what it published is not a JSON object.
    pub fn of(neighbour: LivingInstance) -> Option<Self> {
        let line = serde_json::from_slice(&neighbour.line).ok()?;
        Some(Self::new(neighbour.id, line, neighbour.age, false))
    }

    fn new(id: String, line: PublishedInstance, last_seen: Duration, is_here: bool) -> Self {
        Self {
            id,
            address: line.address,
            version: line.version,
            started_at: UnixMillis(line.started_at_ms),
            ring_version: line.ring_version,
            l1: line.l1,
            load: line.load,
            last_seen,
            is_here,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn seen(line: &'static str) -> Option<Instance> {
        let line = Bytes::from_static(line.as_bytes());
        Instance::of(LivingInstance { id: "x".to_owned(), age: Duration::from_millis(7), line })
    }

    #[test]
    fn what_an_instance_says_of_itself_is_read_as_it_was_said() {
        let l1 = L1Figures { entries: 1, bytes: 2, max_bytes: 3, hits: 4 };
        let line = PublishedInstance {
            address: "a:1".to_owned(),
            ring_version: "r".to_owned(),
            started_at_ms: 5,
            l1,
            ..PublishedInstance::default()
        };
        assert_eq!(serde_json::from_str::<PublishedInstance>(&line.to_text()).unwrap(), line);
    }

    #[test]
    fn another_release_may_say_more_or_less() {
        let instance = seen(r#"{"address": "a:1", "mood": "good", "l1": {"hits": 4, "misses": 1}}"#).unwrap();
        assert_eq!((instance.address.as_str(), instance.l1.hits, instance.l1.entries), ("a:1", 4, 0));
        assert_eq!(instance.last_seen, Duration::from_millis(7));
        assert_eq!(seen(""), None);
        assert_eq!(seen("[1"), None);
    }
}
