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

/// An instance. It publishes this on the shards as JSON, except the fields that are skipped. Other instances may have
/// another release: missing fields get their defaults, and unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    #[serde(skip)]
    pub id: String,
    pub address: String,
    pub version: String,
    #[serde(rename = "started_at_ms")]
    pub started_at: UnixMillis,
    pub ring_version: String,
    pub l1: L1Figures,
    pub load: LoadFigures,
    /// Time since its last beat.
    #[serde(skip)]
    pub last_seen: Duration,
    /// Whether it is this instance.
    #[serde(skip)]
    pub is_here: bool,
}

impl Instance {
    /// Another instance; `None` if what it published is not a JSON object.
    pub fn of(neighbour: LivingInstance) -> Option<Self> {
        let published = serde_json::from_slice(&neighbour.line).ok()?;
        Some(Self { id: neighbour.id, last_seen: neighbour.age, ..published })
    }

    /// What the instance publishes.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("text and numbers are written as JSON")
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
        let (address, ring_version) = ("a:1".to_owned(), "r".to_owned());
        let line = Instance { address, ring_version, started_at: UnixMillis(5), l1, ..Instance::default() };
        assert!(line.to_text().contains(r#""started_at_ms":5,"#), "{}", line.to_text());
        assert_eq!(serde_json::from_str::<Instance>(&line.to_text()).unwrap(), line);
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
