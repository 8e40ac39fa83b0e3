//! The project's two hash functions: one that is the same in every process and never changes, and one that no client
//! can predict.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Never change it: the ring's golden vectors depend on it.
const SEED: u64 = 0x7369_6465_6361_6368;

/// The key of [`map_hash`].
static MAP_KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// XXH3, 64 bits, fixed seed: for the ring, and for other values that must be the same in every process.
///
/// Do not use it for a map: anybody can compute texts with the same hash.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, SEED)
}

/// SipHash-1-3 with a random key for each process: for maps whose keys clients choose.
pub(crate) fn map_hash(bytes: &[u8]) -> u64 {
    let mut hasher = MAP_KEY.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
#[path = "../../tests/suite/support/collisions.rs"]
pub(crate) mod collisions;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;
    use crate::model::{EntryKey, EntryKeyHasher};

    #[test]
    fn the_hash_is_frozen() {
        // Changing it would move every stored key to another shard.
        assert_eq!(EntryKey::parse("users", "user_123").unwrap().ring_hash(), hash(b"users:user_123"));
        assert_eq!(hash(b"users:user_123"), 9_927_802_846_002_617_723);
    }

    #[test]
    fn keys_that_collide_on_the_ring_do_not_collide_in_a_map() {
        let keys: Vec<EntryKey> =
            collisions::keys().iter().map(|key| EntryKey::parse(collisions::NAMESPACE, key).unwrap()).collect();
        let distinct = |hash: &dyn Fn(&EntryKey) -> u64| keys.iter().map(hash).collect::<HashSet<_>>().len();
        assert_eq!((keys.len(), distinct(&EntryKey::ring_hash)), (1000, 1), "all keys have the same ring hash");
        assert_eq!(distinct(&EntryKey::map_hash), 1000);
        assert_eq!(distinct(&|key| EntryKeyHasher::default().hash_one(key)), 1000, "as maps by key see them");
        // L1 uses each half of the hash separately.
        assert!(distinct(&|key| key.map_hash() & u64::from(u32::MAX)) > 990);
        assert!(distinct(&|key| key.map_hash() >> 32) > 990);
    }
}
