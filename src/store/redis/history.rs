//! Which entries of a shard are void according to its ring record: pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::generations::{Names, Record, VoidUntil};
use super::ring::Ring;
use crate::store::ShardIndex;

/// Greater than every version.
pub const ANY_VERSION: u64 = u64::MAX;

/// Rings by the names of their shards. Each ring is built once.
#[derive(Default)]
pub struct Rings(HashMap<Names, Arc<Ring>>);

impl Rings {
    fn get(&mut self, names: &Names) -> Arc<Ring> {
        self.0.entry(names.clone()).or_insert_with(|| Arc::new(Ring::new(&names.list()))).clone()
    }

    /// Forgets rings that nobody uses any more.
    pub fn prune(&mut self) {
        self.0.retain(|_, ring| Arc::strong_count(ring) > 1);
    }
}

/// Which entries of one shard are void according to its record.
#[derive(Debug)]
pub struct History {
    current: Owned,
    past: Vec<(Owned, u64)>,
    floor: u64,
}

/// The part of a ring that one shard owns.
#[derive(Debug)]
struct Owned {
    ring: Arc<Ring>,
    /// `None` if the shard was not in the ring.
    index: Option<ShardIndex>,
}

impl Owned {
    fn holds(&self, hash: u64) -> bool {
        self.index == Some(self.ring.route(hash))
    }
}

impl History {
    pub fn new(record: &Record, rings: &mut Rings) -> Self {
        let mut owned = |names: &Names| Owned {
            ring: rings.get(names),
            index: (0..).zip(names.list()).find_map(|(index, name)| (name == record.shard).then_some(index)),
        };
        // If the same ring is in the past several times, its latest version counts.
        let mut past: HashMap<&Names, u64> = HashMap::new();
        for (ring, until) in record.past.iter().filter(|(_, until)| **until != VoidUntil::Nothing) {
            let version = past.entry(&ring.names).or_default();
            *version = until.version().max(*version);
        }
        Self {
            current: owned(&record.current.names),
            past: past.into_iter().map(|(names, until)| (owned(names), until)).collect(),
            floor: record.floor.version(),
        }
    }

    /// The version up to which the shard's entry for a key with this hash is void: 0 if it is not void,
    /// [`ANY_VERSION`] if the shard does not own the key.
    pub fn void_until(&self, hash: u64) -> u64 {
        if !self.current.holds(hash) {
            return ANY_VERSION;
        }
        let given_away = self.past.iter().filter(|(ring, _)| !ring.holds(hash));
        given_away.map(|(_, until)| *until).fold(self.floor, u64::max)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::hash;
    use crate::store::redis::generations::{Generation, MAX_RINGS, NOW, Seen, adopted, number};

    /// How far the clocks of the simulated shards may differ.
    const APART: u64 = 1000;
    const KEYS: u64 = 60;
    const SHARDS: [&str; 5] = ["a", "b", "c", "d", "e"];

    thread_local! {
        /// Kept because they take long to build.
        static RINGS: std::cell::RefCell<Rings> = std::cell::RefCell::default();
    }

    /// A simulated shard.
    #[derive(Default)]
    struct Shard {
        record: Option<Record>,
        /// Version and value, by key.
        data: HashMap<u64, (u64, u64)>,
        version: u64,
        stamp: u64,
    }

    impl Shard {
        /// Simulates `lua/write_ring.lua`.
        fn write(&mut self, record: &Record, clock: u64) {
            let stamp = self.stamp.max(clock) + APART;
            let values = record.values().map(|value| value.replace(NOW, &stamp.to_string()));
            if values != record.values() {
                self.stamp = stamp;
            }
            self.record = Record::parse(&values);
            assert!(self.record.is_some(), "{values:?}");
        }

        /// Simulates `lua/purge.lua`.
        fn purge(&mut self, key: u64, until: u64, write: bool) {
            if self.data.get(&key).is_some_and(|(version, _)| *version <= until) {
                self.data.remove(&key);
            }
            if write {
                self.version = self.version.max(until);
            }
        }
    }

    #[derive(Default)]
    struct World {
        shards: [Shard; SHARDS.len()],
        rings: Rings,
        time: u64,
        /// The indices of the shards in the ring of the running instances, and the indices of the settled ones.
        fleet: Vec<usize>,
        settled: Vec<usize>,
        written: HashMap<u64, u64>,
        /// Written keys that had the same owner ever since, with that owner.
        steady: HashMap<u64, usize>,
    }

    impl World {
        /// The clocks of the shards differ, and they jump.
        fn clock(&self, shard: usize) -> u64 {
            self.time + APART / 2 * ((self.time / 7 + shard as u64) % 3)
        }

        fn ring(&self) -> Names {
            Names::new(&self.fleet.iter().map(|i| SHARDS[*i].to_owned()).collect::<Vec<_>>())
        }

        fn owner(&mut self, key: u64) -> usize {
            let ring = self.ring();
            self.fleet[usize::from(self.rings.get(&ring).route(hash(&key.to_le_bytes())))]
        }

        /// Settles the shards of `reachable` that are in the ring, but stops (as if the process died) after `most` of
        /// them.
        fn settle(&mut self, reachable: &[usize], most: usize) {
            let ring = self.ring();
            let seen: Vec<(usize, Seen)> = reachable
                .iter()
                .map(|i| {
                    let shard = &self.shards[*i];
                    (*i, Seen { record: shard.record.clone(), has_data: !shard.data.is_empty() })
                })
                .collect();
            let records: Vec<&Record> = seen.iter().filter_map(|(_, seen)| seen.record.as_ref()).collect();
            let mine = Generation { number: number(&ring, records.iter().copied()).0, names: ring };
            let known: BTreeSet<Generation> = records.iter().flat_map(|record| record.rings().cloned()).collect();
            for (i, seen) in seen.iter().take(most) {
                let record = adopted(SHARDS[*i], &mine, &known, seen);
                if seen.record.as_ref() != Some(&record) {
                    let clock = self.clock(*i);
                    self.shards[*i].write(&record, clock);
                }
            }
        }

        /// Starts new instances that use the shards of `fleet` and can reach only some of them.
        fn restart(&mut self, fleet: &[usize], reachable: &[usize], most: usize) {
            let newest = |all: &mut dyn Iterator<Item = usize>| {
                all.filter_map(|i| self.shards[i].record.as_ref()).map(|record| record.current.number).max()
            };
            // An instance that reaches no shard with the last ring cannot know about that ring.
            if newest(&mut reachable.iter().copied()) != newest(&mut (0..SHARDS.len())) {
                return;
            }
            fleet.clone_into(&mut self.fleet);
            self.settle(reachable, most);
            self.settled = if most < reachable.len() { Vec::new() } else { reachable.to_vec() };
            let keys: Vec<u64> = self.steady.keys().copied().collect();
            for key in keys {
                let owner = self.owner(key);
                if self.steady.get(&key) != Some(&owner) {
                    self.steady.remove(&key);
                }
            }
        }

        /// The owner of a key, after its void entry is removed; `None` if the owner is not settled.
        fn cleared(&mut self, key: u64, write: bool) -> Option<usize> {
            let owner = self.owner(key);
            if !self.settled.contains(&owner) {
                return None;
            }
            let history = History::new(self.shards[owner].record.as_ref()?, &mut self.rings);
            let until = history.void_until(hash(&key.to_le_bytes()));
            assert_ne!(until, ANY_VERSION, "the owner's record is about another ring");
            self.shards[owner].purge(key, until, write);
            Some(owner)
        }

        fn write(&mut self, key: u64) {
            let Some(owner) = self.cleared(key, true) else { return };
            // A shard does not write more often than its clock ticks.
            self.time += 1;
            let clock = self.clock(owner);
            let shard = &mut self.shards[owner];
            shard.version = clock.max(shard.version + 1);
            shard.data.insert(key, (shard.version, self.time));
            self.written.insert(key, self.time);
            self.steady.insert(key, owner);
        }

        fn read(&mut self, key: u64) {
            let Some(owner) = self.cleared(key, false) else { return };
            let found = self.shards[owner].data.get(&key).map(|(_, value)| *value);
            assert!(found.is_none() || found == self.written.get(&key).copied(), "{key} has an old value");
            assert!(found.is_some() || !self.steady.contains_key(&key), "{key} did not move and is lost");
        }

        /// Removes void entries from a shard: all of them, or some.
        fn clean(&mut self, shard: usize, all: bool) {
            if !self.settled.contains(&shard) {
                return;
            }
            let Some(record) = self.shards[shard].record.clone() else { return };
            let history = History::new(&record, &mut self.rings);
            for key in (0..KEYS).filter(|key| all || key % 3 == 0) {
                self.shards[shard].purge(key, history.void_until(hash(&key.to_le_bytes())), false);
            }
            if all {
                let clock = self.clock(shard);
                self.shards[shard].write(&record.cleaned(), clock);
            }
        }
    }

    fn subset(bits: u8, of: &[usize]) -> Vec<usize> {
        of.iter().copied().filter(|i| bits >> i & 1 == 1).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn no_old_value_is_ever_read_and_keys_that_did_not_move_stay(
            steps in prop::collection::vec((0u8..16, any::<u8>(), any::<u8>(), 0..KEYS), 1..400)
        ) {
            let mut world = World { rings: RINGS.take(), ..World::default() };
            let mut changes = 0;
            for (what, bits, more_bits, key) in steps {
                world.time += 1 + u64::from(more_bits % 4);
                match what {
                    // More changes than a record can hold may lose keys, but never show old values.
                    0 | 1 => {
                        let fleet = subset(bits | 1 << (key % 5), &[0, 1, 2, 3, 4]);
                        let away = if what == 0 { 0xff } else { more_bits | more_bits >> 3 };
                        let most = if bits >= 0xf0 { 1 } else { SHARDS.len() };
                        world.restart(&fleet.clone(), &subset(away, &fleet), most);
                        changes += 1;
                        if changes >= MAX_RINGS {
                            world.steady.clear();
                        }
                    }
                    // Shards that were unreachable come back.
                    2 if !world.settled.is_empty() => {
                        let up: Vec<usize> = world.fleet.clone();
                        world.settle(&up, up.len());
                        world.settled = up;
                    }
                    3 => world.clean(usize::from(bits) % SHARDS.len(), more_bits % 2 == 0),
                    4..8 if !world.fleet.is_empty() => world.write(key),
                    8 if !world.fleet.is_empty() => (0..KEYS).for_each(|key| world.write(key)),
                    _ if !world.fleet.is_empty() => (0..KEYS).for_each(|key| world.read(key)),
                    _ => {}
                }
            }
            RINGS.set(world.rings);
        }
    }
}
