//! One stripe of L1: copies in the order of use, and the generations that fence their fills.

use super::copy::{Copy, CopyRef};
use super::lru::Lru;
use super::node::Node;
use crate::model::KeyRef;

/// Number of generations in a stripe; a power of two. Each belongs to a part of the keys. There are enough of them
/// that a fill is hardly ever refused because of another key.
const PARTS: usize = 64;

/// The entries of one stripe. Methods that remove entries return the freed bytes.
///
/// **Whenever a copy is removed, the generation of its key moves**, so that a fill that began earlier cannot bring
/// back an older value. Replacing a copy by a newer or equal copy does not move the generation.
pub struct Stripe {
    entries: Lru,
    generations: [u64; PARTS],
}

impl Default for Stripe {
    fn default() -> Self {
        Self { entries: Lru::default(), generations: [0; PARTS] }
    }
}

impl Stripe {
    /// The generation of the key. It moves with every invalidation of the key.
    pub fn generation(&self, key: KeyRef<'_>) -> u64 {
        self.generations[part(key.map_hash())]
    }

    pub fn get(&mut self, key: KeyRef<'_>) -> Option<CopyRef<'_>> {
        self.entries.get(key)
    }

    /// The copy of `key`; does not count as a use.
    pub fn peek(&self, key: KeyRef<'_>) -> Option<CopyRef<'_>> {
        self.entries.peek(key)
    }

    /// Inserts `copy`. Returns the bytes of the copy that it replaced.
    pub fn insert(&mut self, key: KeyRef<'_>, copy: Copy) -> Option<u64> {
        self.entries.insert(key, copy).as_ref().map(Node::cost)
    }

    /// Removes the copy of `key`, and refuses every running fill of it.
    pub fn remove(&mut self, key: KeyRef<'_>) -> Option<u64> {
        self.generations[part(key.map_hash())] += 1;
        self.entries.remove(key).as_ref().map(Node::cost)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn remove_least_recent(&mut self) -> Option<u64> {
        let (hash, node) = self.entries.remove_oldest()?;
        self.generations[part(hash)] += 1;
        Some(node.cost())
    }

    /// Removes all copies for whose key text `meant` returns true, and refuses every running fill.
    pub fn remove_where(&mut self, meant: impl Fn(&str) -> bool) -> Vec<u64> {
        for generation in &mut self.generations {
            *generation += 1;
        }
        let mut freed = Vec::new();
        self.entries.remove_where(meant, |node| freed.push(node.cost()));
        freed
    }
}

fn part(hash: u64) -> usize {
    // Uses other bits of the hash than the choice of the stripe and of the bucket in its index.
    (hash >> 40) as usize % PARTS
}
