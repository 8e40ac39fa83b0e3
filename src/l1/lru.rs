//! A compact map of copies by key, with their order of use.
//!
//! Nodes are stored without gaps in chunks of equal size, so that they do not move when the map grows and little
//! memory is unused. They are linked in the order of use by their numbers. A hash table maps the hash of a key to its
//! node's number. When a node is removed, the last node takes its number.

use hashbrown::HashTable;

use super::copy::{Copy, CopyRef};
use super::node::Node;
use crate::model::KeyRef;

/// Nodes in a chunk.
const CHUNK: usize = 128;

/// Means "no node".
const NOBODY: u32 = u32::MAX;

/// An index with less capacity than this is not shrunk.
const SMALL_INDEX: usize = 64;

/// Copies by key, in the order of use.
pub struct Lru {
    index: HashTable<Place>,
    nodes: Nodes,
    newest: u32,
    oldest: u32,
}

/// The number of a key's node. Half of the key's hash is stored with it, so that the table can grow without reading
/// the nodes, and a lookup compares few of them.
#[derive(Clone, Copy)]
struct Place {
    hash: u32,
    number: u32,
}

impl Default for Lru {
    fn default() -> Self {
        Self { index: HashTable::new(), nodes: Nodes::default(), newest: NOBODY, oldest: NOBODY }
    }
}

impl Lru {
    pub fn len(&self) -> usize {
        self.nodes.len as usize
    }

    /// The copy of `key`, which is now the newest.
    pub fn get(&mut self, key: KeyRef<'_>) -> Option<CopyRef<'_>> {
        let number = self.find(key)?;
        self.make_newest(number);
        Some(self.nodes.get(number).copy())
    }

    /// The copy of `key`; does not count as a use.
    pub fn peek(&self, key: KeyRef<'_>) -> Option<CopyRef<'_>> {
        self.find(key).map(|number| self.nodes.get(number).copy())
    }

    /// Inserts `copy`. Returns the copy that it replaced.
    pub fn insert(&mut self, key: KeyRef<'_>, copy: Copy) -> Option<Node> {
        let node = Node::new(key, copy, NOBODY);
        if let Some(number) = self.find(key) {
            self.make_newest(number);
            return Some(self.nodes.get_mut(number).replace(node));
        }
        let place = Place { hash: half(key.map_hash()), number: self.nodes.push(node) };
        self.index.insert_unique(spread(place.hash), place, |place| spread(place.hash));
        self.link_newest(place.number);
        None
    }

    pub fn remove(&mut self, key: KeyRef<'_>) -> Option<Node> {
        let number = self.find(key)?;
        Some(self.take(number, half(key.map_hash())))
    }

    /// Removes the least recently used copy. Returns its key's hash as well.
    pub fn remove_oldest(&mut self) -> Option<(u64, Node)> {
        if self.oldest == NOBODY {
            return None;
        }
        let hash = self.nodes.get(self.oldest).key().map_hash();
        Some((hash, self.take(self.oldest, half(hash))))
    }

    /// Removes all copies for whose key text `meant` returns true. Calls `removed` with each of them.
    pub fn remove_where(&mut self, meant: impl Fn(&str) -> bool, mut removed: impl FnMut(&Node)) {
        let mut number = 0;
        while number < self.nodes.len {
            let node = self.nodes.get(number);
            if meant(node.text()) {
                let hash = half(node.key().map_hash());
                // The number now belongs to another node, so look at it again.
                removed(&self.take(number, hash));
            } else {
                number += 1;
            }
        }
    }

    fn find(&self, key: KeyRef<'_>) -> Option<u32> {
        let hash = half(key.map_hash());
        let is_it =
            |place: &Place| place.hash == hash && self.nodes.get(place.number).text_bytes() == key.text().as_bytes();
        self.index.find(spread(hash), is_it).map(|place| place.number)
    }

    /// Removes the node with this number from table, links and chunk; `hash` is the half hash of its key.
    fn take(&mut self, number: u32, hash: u32) -> Node {
        if let Ok(place) = self.index.find_entry(spread(hash), |place| place.number == number) {
            place.remove();
        }
        self.unlink(number);
        let last = self.nodes.len - 1;
        if number != last {
            let moved = self.nodes.get(last);
            let (newer, older, hash) = (moved.newer, moved.older, half(moved.key().map_hash()));
            self.meet(newer, number);
            self.meet(number, older);
            if let Some(place) = self.index.find_mut(spread(hash), |place| place.number == last) {
                place.number = number;
            }
        }
        let node = self.nodes.swap_remove(number);
        if self.index.capacity() > SMALL_INDEX.max(self.len() * 4) {
            self.index.shrink_to(self.len() * 2, |place| spread(place.hash));
        }
        node
    }

    fn make_newest(&mut self, number: u32) {
        if number != self.newest {
            self.unlink(number);
            self.link_newest(number);
        }
    }

    fn link_newest(&mut self, number: u32) {
        self.meet(number, self.newest);
        self.meet(NOBODY, number);
    }

    fn unlink(&mut self, number: u32) {
        let node = self.nodes.get(number);
        self.meet(node.newer, node.older);
    }

    /// Links two nodes as neighbours; at the ends of the order one of them is [`NOBODY`].
    fn meet(&mut self, newer: u32, older: u32) {
        match newer {
            NOBODY => self.newest = older,
            newer => self.nodes.get_mut(newer).older = older,
        }
        match older {
            NOBODY => self.oldest = newer,
            older => self.nodes.get_mut(older).newer = newer,
        }
    }
}

/// The half of a key's hash that the table uses; the other half chooses stripe and generation.
fn half(hash: u64) -> u32 {
    hash as u32
}

/// The table uses the lowest and the highest bits.
fn spread(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

/// Nodes, numbered from 0 without gaps.
#[derive(Default)]
struct Nodes {
    /// All full except the last two: one that is being filled and at most one empty one.
    chunks: Vec<Vec<Node>>,
    len: u32,
}

impl Nodes {
    fn get(&self, number: u32) -> &Node {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    fn get_mut(&mut self, number: u32) -> &mut Node {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    fn push(&mut self, node: Node) -> u32 {
        let number = self.len;
        assert!(number != NOBODY, "there are fewer than 2^32 - 1 nodes");
        let chunk = number as usize / CHUNK;
        if chunk == self.chunks.len() {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[chunk].push(node);
        self.len += 1;
        number
    }

    /// Removes a node and gives its number to the last one.
    fn swap_remove(&mut self, number: u32) -> Node {
        let chunk = (self.len - 1) as usize / CHUNK;
        let last = self.chunks[chunk].pop().expect("there is a node of this number");
        self.len -= 1;
        // Keep one empty chunk. Otherwise entries that come and go at the border of a chunk would allocate each time.
        self.chunks.truncate(chunk + 1);
        if number == self.len { last } else { std::mem::replace(self.get_mut(number), last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l1::Stamp;
    use crate::model::{EntryKey, Extra, Kind, Mark, UnixMillis, Version};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::time::Duration;

    fn key(i: u16) -> EntryKey {
        EntryKey::parse("n", &format!("key_{i}")).unwrap()
    }

    fn copy(version: u64, bytes: usize) -> Copy {
        Copy {
            value: Bytes::from(vec![b'1'; bytes]),
            version: Version(version),
            created_at: UnixMillis(version),
            expires_at: None,
            stale_seconds: version as u32,
            extra: Extra::default(),
            stamp: Stamp { shard: 3, epoch: version },
        }
    }

    /// All entries, newest first, checked by the links in both directions and by the index.
    fn contents(lru: &Lru) -> Vec<(u16, u64)> {
        let walk = |from: u32, next: fn(&Node) -> u32| {
            let mut at = from;
            let mut seen = Vec::new();
            while at != NOBODY {
                let node = lru.nodes.get(at);
                assert_eq!(lru.find(node.key()), Some(at));
                seen.push((node.key().key()[4..].parse().unwrap(), node.copy().version.0));
                at = next(node);
            }
            seen
        };
        let (forth, mut back) = (walk(lru.newest, |node| node.older), walk(lru.oldest, |node| node.newer));
        back.reverse();
        assert_eq!(forth, back);
        assert_eq!((lru.index.len(), lru.len()), (forth.len(), forth.len()));
        let chunks = lru.nodes.chunks.len();
        assert!(chunks <= forth.len() / CHUNK + 2, "{chunks} chunks for {}", forth.len());
        assert!(lru.index.capacity() <= SMALL_INDEX.max(forth.len() * 4));
        forth
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, usize),
        InsertMany(u16, u16),
        Get(u16),
        Peek(u16),
        Remove(u16),
        RemoveOldest(u16),
        RemoveWhere(u16, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let number = || 0..400u16;
        prop_oneof![
            (number(), 0..5000usize).prop_map(|(key, bytes)| Step::Insert(key, bytes)),
            (number(), 0..300u16).prop_map(|(from, count)| Step::InsertMany(from, count)),
            number().prop_map(Step::Get),
            number().prop_map(Step::Peek),
            number().prop_map(Step::Remove),
            (0..300u16).prop_map(Step::RemoveOldest),
            (2..5u16, 0..4u16).prop_map(|(of, rest)| Step::RemoveWhere(of, rest)),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_list_in_the_order_of_use_does(steps in prop::collection::vec(step(), 1..60)) {
            let mut lru = Lru::default();
            // Newest first.
            let mut model: Vec<(u16, u64)> = Vec::new();
            let mut version = 0;
            let mut insert = |lru: &mut Lru, model: &mut Vec<(u16, u64)>, i, bytes| {
                version += 1;
                let place = model.iter().position(|(key, _)| *key == i);
                let before = place.map(|place| model.remove(place).1);
                model.insert(0, (i, version));
                assert_eq!(lru.insert(key(i).borrowed(), copy(version, bytes)).map(|node| node.copy().version.0), before);
            };
            for step in steps {
                match step {
                    Step::Insert(i, bytes) => insert(&mut lru, &mut model, i, bytes),
                    Step::InsertMany(from, count) => (from..from + count).for_each(|i| insert(&mut lru, &mut model, i, 1)),
                    Step::Get(i) => {
                        let place = model.iter().position(|(key, _)| *key == i);
                        let used = place.map(|place| model.remove(place));
                        used.into_iter().for_each(|used| model.insert(0, used));
                        prop_assert_eq!(lru.get(key(i).borrowed()).map(|copy| copy.version.0), used.map(|used| used.1));
                    }
                    Step::Peek(i) => {
                        let there = model.iter().find(|(key, _)| *key == i);
                        prop_assert_eq!(lru.peek(key(i).borrowed()).map(|copy| copy.version.0), there.map(|there| there.1));
                    }
                    Step::Remove(i) => {
                        let place = model.iter().position(|(key, _)| *key == i);
                        let gone = place.map(|place| model.remove(place).1);
                        prop_assert_eq!(lru.remove(key(i).borrowed()).map(|node| node.copy().version.0), gone);
                    }
                    Step::RemoveOldest(times) => for _ in 0..times {
                        let gone = model.pop();
                        prop_assert_eq!(lru.remove_oldest().map(|(_, node)| node.copy().version.0), gone.map(|gone| gone.1));
                    },
                    Step::RemoveWhere(of, rest) => {
                        let is_meant = |i: u16| i % of == rest;
                        let mut gone = Vec::new();
                        lru.remove_where(|text| is_meant(text[6..].parse().unwrap()), |node| gone.push(node.copy().version.0));
                        let mut meant: Vec<u64> = model.iter().filter(|(i, _)| is_meant(*i)).map(|(_, version)| *version).collect();
                        model.retain(|(i, _)| !is_meant(*i));
                        gone.sort_unstable();
                        meant.sort_unstable();
                        prop_assert_eq!(gone, meant);
                    }
                }
                prop_assert_eq!(&contents(&lru), &model);
            }
        }

        #[test]
        fn a_copy_comes_back_as_it_went_in(
            bytes in 0..10_000usize,
            version: u32,
            expires_at: Option<u32>,
            extra in (
                prop::sample::select(vec![Kind::Json, Kind::Absent, Kind::Bytes]),
                prop::sample::select(vec![Mark::Unmarked, Mark::WhileRevalidating, Mark::IfError]),
                0..u32::MAX,
            ),
            created_at in 0..1u64 << 48,
        ) {
            let mut lru = Lru::default();
            let expires_at = expires_at.map(|nanos| crate::clock::Moment::from_nanos(nanos.into()));
            let (kind, mark, grace_ms) = extra;
            let extra = Extra::new(kind, mark, Duration::from_millis(grace_ms.into()));
            let created_at = UnixMillis(created_at);
            let copy = Copy { expires_at, extra, created_at, ..copy(version.into(), bytes) };
            prop_assert!(lru.insert(key(1).borrowed(), copy.clone()).is_none());
            let found = lru.get(key(1).borrowed()).map(Copy::of);
            prop_assert_eq!(format!("{found:?}"), format!("{:?}", Some(copy)));
        }
    }
}
