//! Finds the most frequent keys in bounded memory: Space-Saving (Metwally, Agrawal and El Abbadi, "Efficient
//! computation of frequent and top-k elements in data streams", 2005).

use std::collections::HashMap;

/// The number of keys that are counted. Every key that makes up more than 1/64 of all occurrences is among them.
const COUNTED: usize = 64;

/// The most frequent keys of a period of time.
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
            // The new key replaces the rarest key and inherits its count, so that a key that becomes frequent can
            // stay.
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
