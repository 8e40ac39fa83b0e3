//! The ring: which shard owns a key.
//!
//! Consistent hashing with virtual nodes (Karger et al., "Consistent Hashing and Random Trees", 1997). Each shard has
//! [`POINTS_PER_SHARD`] points on the ring, the hashes of `name#i`. A key belongs to the first point whose hash is
//! not smaller than its own. Only the names matter, not the addresses or the order of the configuration, so a shard
//! may move to another machine and keep its keys.

use crate::model::hash;
use crate::store::ShardIndex;

/// Virtual nodes per shard. With three shards, a shard's share deviates from an even share by about `sqrt(2/3 /
/// points)`: one sigma is 6 % with 160 points and 2.6 % with 1,024. So all shares stay within 10 % of even, whatever
/// the names are.
pub const POINTS_PER_SHARD: usize = 1024;

/// The sorted points, and the shard of each point.
#[derive(Debug)]
pub struct Ring {
    /// Sorted by hash, then by name, so that all instances agree even if two hashes are equal.
    hashes: Box<[u64]>,
    owners: Box<[ShardIndex]>,
    version: String,
}

impl Ring {
    /// A ring over shards with these names; a shard's index is its position in `names`.
    pub fn new<N: AsRef<str>>(names: &[N]) -> Self {
        let mut points: Vec<(u64, &str, ShardIndex)> = Vec::with_capacity(names.len() * POINTS_PER_SHARD);
        for (index, name) in (0..).zip(names) {
            let name = name.as_ref();
            points.extend((0..POINTS_PER_SHARD).map(|i| (hash(format!("{name}#{i}").as_bytes()), name, index)));
        }
        points.sort_unstable();
        Self {
            hashes: points.iter().map(|point| point.0).collect(),
            owners: points.iter().map(|point| point.2).collect(),
            version: version(names),
        }
    }

    /// Sixteen hexadecimal digits, equal for all rings that route the same way.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The share of all hashes that each shard owns, by index. The shares add up to 1.
    pub fn shares(&self) -> Vec<f64> {
        let shards = self.owners.iter().max().map_or(0, |last| usize::from(*last) + 1);
        let mut owned = vec![0u128; shards];
        let mut behind = None;
        for (hash, owner) in self.hashes.iter().zip(&self.owners) {
            // A point owns the hashes greater than the previous point, up to and including its own.
            let count = behind.map_or(u128::from(*hash) + 1, |behind| u128::from(*hash - behind));
            owned[usize::from(*owner)] += count;
            behind = Some(*hash);
        }
        if let (Some(last), Some(first)) = (behind, self.owners.first()) {
            owned[usize::from(*first)] += u128::from(u64::MAX - last);
        }
        owned.into_iter().map(|count| count as f64 / 2f64.powi(64)).collect()
    }

    /// The shard that owns a key with this hash.
    pub fn route(&self, key_hash: u64) -> ShardIndex {
        let behind = self.hashes.partition_point(|point| *point < key_hash);
        // After the last point the ring continues at the first.
        self.owners[if behind == self.owners.len() { 0 } else { behind }]
    }
}

/// A short text for everything that decides how a ring routes: the set of names, and the algorithm of this module.
fn version<N: AsRef<str>>(names: &[N]) -> String {
    let mut names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    // Names contain no line feed.
    let text = format!("xxh3 name#i {POINTS_PER_SHARD}\n{}", names.join("\n"));
    format!("{:016x}", hash(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryKey;
    use proptest::prelude::*;

    const KEYS: usize = 100_000;

    fn owner<'n>(names: &[&'n str], ring: &Ring, i: usize) -> &'n str {
        let key = EntryKey::parse("users", &format!("user_{i}")).unwrap();
        names[usize::from(ring.route(key.ring_hash()))]
    }

    #[test]
    fn golden_vectors_freeze_the_ring() {
        // Computed by a second implementation, in another language, from the description in this module. Any change
        // would move stored keys.
        let names = ["a", "b", "c"];
        let ring = Ring::new(&names);
        let owners: String = (0..48).map(|i| owner(&names, &ring, i)).collect();
        assert_eq!(owners, "acbcacbbacacbaaabacbbccacccaccaababbbcbcbcbababa");
    }

    #[test]
    fn three_shards_are_within_10_percent_of_even() {
        for names in [["a", "b", "c"], ["cache-1", "cache-2", "cache-3"], ["eu", "us", "asia"]] {
            let ring = Ring::new(&names);
            let mut counts = [0usize; 3];
            for i in 0..KEYS {
                let key = EntryKey::parse("users", &format!("user_{i}")).unwrap();
                counts[usize::from(ring.route(key.ring_hash()))] += 1;
            }
            let even = KEYS as f64 / 3.0;
            for count in counts {
                assert!((count as f64 / even - 1.0).abs() < 0.10, "{names:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_joining_shard_takes_at_most_its_share_and_nothing_else_moves() {
        for n in 1..=6 {
            let all: Vec<String> = (0..=n).map(|i| format!("shard-{i}")).collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let (before, after) = (Ring::new(&all[..n]), Ring::new(&all));
            let mut moved = 0;
            for i in 0..KEYS {
                let (old, new) = (owner(&all, &before, i), owner(&all, &after, i));
                if old != new {
                    assert_eq!(new, all[n], "a key moved between shards that both stayed");
                    moved += 1;
                }
            }
            let share = moved as f64 / KEYS as f64;
            assert!(share <= 1.0 / (n + 1) as f64 + 0.05, "{share} of the keys moved to shard {n}");
        }
    }

    #[test]
    fn shares_match_the_distribution_of_hashes() {
        for names in [&["a"] as &[_], &["a", "b", "c"], &["eu", "us", "asia", "africa"]] {
            let ring = Ring::new(names);
            let shares = ring.shares();
            assert_eq!(shares.len(), names.len());
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{shares:?}");
            let mut counts = vec![0usize; names.len()];
            for i in 0..KEYS {
                counts[usize::from(ring.route(hash(&i.to_le_bytes())))] += 1;
            }
            for (share, count) in shares.iter().zip(counts) {
                assert!((share - count as f64 / KEYS as f64).abs() < 0.01, "{share} of all hashes, {count} keys");
            }
        }
    }

    #[test]
    fn different_sets_of_names_have_different_versions() {
        let version = |names: &[&str]| Ring::new(names).version().to_owned();
        // Frozen, because instances of different releases compare their versions.
        assert_eq!(version(&["a", "b", "c"]), "8ed8a2bd733d051a");
        assert_eq!(version(&["c", "a", "b"]), version(&["a", "b", "c"]));
        let others = [&["a"] as &[_], &["a", "b"], &["a", "b", "d"], &["a", "b", "c", "d"], &["ab", "c"]];
        for names in others {
            assert_ne!(version(names), version(&["a", "b", "c"]), "{names:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_the_configuration_does_not_matter(hash in any::<u64>()) {
            let (one, other) = (["a", "b", "c"], ["c", "a", "b"]);
            let first = one[usize::from(Ring::new(&one).route(hash))];
            let second = other[usize::from(Ring::new(&other).route(hash))];
            prop_assert_eq!(first, second);
        }
    }
}
