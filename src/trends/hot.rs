//! The keys that occur most often, found in bounded memory: Space-Saving (Metwally, Agrawal and El Abbadi,
//! "Efficient computation of frequent and top-k elements in data streams", 2005).

use std::collections::HashMap;

/// Keys that are counted at once. One that occurs more often than one time in so many is among them.
const COUNTED: usize = 64;

/// The keys of a span of time that occurred most often.
#[derive(Debug, Default)]
pub(super) struct HotKeys(HashMap<String, u64>);

impl HotKeys {
    pub fn add(&mut self, key: &str, times: u64) {
        if let Some(count) = self.0.get_mut(key) {
            *count += times;
            return;
        }
        let mut count = times;
        if self.0.len() == COUNTED {
            // Who takes the place of the rarest takes its count, so that a key that becomes frequent is
            // not overtaken for ever.
            let rarest = self.0.iter().min_by_key(|(_, count)| **count).map(|(key, _)| key.clone());
            count += rarest.and_then(|key| self.0.remove(&key)).unwrap_or_default();
        }
        self.0.insert(key.to_owned(), count);
    }

    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(key, count)| (key.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frequent_is_found_among_very_many() {
        let mut keys = HotKeys::default();
        for i in 0..100_000 {
            keys.add(&format!("rare-{i}"), 1);
            if i % 10 == 0 {
                keys.add("frequent", 1);
            }
        }
        let most = keys.counts().max_by_key(|(_, count)| *count).unwrap();
        assert_eq!(most.0, "frequent");
        assert!(most.1 >= 10_000 && most.1 < 13_000, "{}", most.1);
        assert_eq!(keys.counts().count(), COUNTED);
    }
}
