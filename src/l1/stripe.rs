//! One stripe of L1: copies by recency and the generations that fence their fills.

use super::copy::{Copy, CopyRef};
use super::lru::Lru;
use super::node::Node;
use crate::model::KeyRef;

/// Generations of a stripe, each that of a part of its keys; a power of two. Enough that a fill is hardly
/// ever refused for the sake of another key.
const PARTS: usize = 64;

/// Entries of one stripe; what removes some answers the bytes it freed.
///
/// **Whenever a copy goes, the generation of its key moves**, so that no fill that began before can bring
/// back what is older. Only another copy takes its place without that, and only if it is no older.
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
    /// Moves with every invalidation of the key.
    pub fn generation(&self, key: KeyRef<'_>) -> u64 {
        self.generations[part(key.map_hash())]
    }

    pub fn get(&mut self, key: KeyRef<'_>) -> Option<CopyRef<'_>> {
        self.entries.get(key)
    }

    /// The copy of `key`, without that being a use of it.
    pub fn peek(&self, key: KeyRef<'_>) -> Option<CopyRef<'_>> {
        self.entries.peek(key)
    }

    /// Puts `copy` where another may be; answers what that one took.
    pub fn insert(&mut self, key: KeyRef<'_>, copy: Copy) -> Option<u64> {
        self.entries.insert(key, copy).as_ref().map(Node::cost)
    }

    /// Takes the copy of `key` out, and refuses every fill of it that is under way.
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

    /// Takes all copies out whose keys' texts are `meant`, and refuses every fill that is under way.
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
    // Other bits than those that choose the stripe and the bucket in its index.
    (hash >> 40) as usize % PARTS
}
