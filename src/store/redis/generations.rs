//! Which rings a shard has served under, and which of its entries are void as a result: pure.
//!
//! A change of the set of shards moves keys. An entry whose key moved to another shard is stale as soon as the key is
//! written there, and must not be seen if the key moves back. So each ring has a number, its *generation*, and every
//! shard keeps a [`Record`]. It holds the ring under which the shard serves, and the rings under which it served
//! before or which it missed. For each past ring it holds a version: entries up to this version may have been written
//! while that ring was in use, or earlier. If the shard did not own a key under a past ring, the key may have been
//! written elsewhere at that time, so the shard's entry is void up to that version. Later entries were written under
//! rings in which the shard owned the key.
//!
//! An instance settles the record of a shard before it serves anything from the shard (`ring_keeper.rs`). Once all
//! void entries are removed (`moved_keys.rs`), the record is clean and operations need no further check. A record
//! keeps at most [`MAX_RINGS`] past rings, for shards that were unreachable meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most past rings in a record. When an older ring is dropped, its version applies to all keys (`floor`).
pub const MAX_RINGS: usize = 16;

/// Placeholder: `lua/write_ring.lua` replaces it with a version that separates everything written so far from
/// everything written later. No shard name contains it.
pub const NOW: &str = "@";

/// The names of a ring's shards: sorted, and separated by commas. No name contains a comma.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names(Arc<str>);

impl Names {
    pub fn new(names: &[String]) -> Self {
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.sort_unstable();
        Self(names.join(",").into())
    }

    pub fn list(&self) -> Vec<&str> {
        self.0.split(',').collect()
    }
}

/// A ring and its number. Two instances that do not know each other may give the same number to two rings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    pub number: u64,
    pub names: Names,
}

/// The version up to which entries are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VoidUntil {
    /// No entries are void, or the void entries were removed.
    Nothing,
    At(u64),
    /// All entries that were written before this record are void.
    Now,
}

impl VoidUntil {
    pub fn version(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::At(version) => version,
            // Never occurs in a record that was read.
            Self::Now => u64::MAX,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.parse().ok()? {
            0 => Some(Self::Nothing),
            version => Some(Self::At(version)),
        }
    }
}

impl std::fmt::Display for VoidUntil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("0"),
            Self::At(version) => version.fmt(f),
            Self::Now => f.write_str(NOW),
        }
    }
}

/// What a shard knows about rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name of the shard. Data that was written under another shard name is void here.
    pub shard: String,
    pub current: Generation,
    /// The past rings. Keys that a past ring gave to other shards are void up to its version.
    pub past: BTreeMap<Generation, VoidUntil>,
    /// All keys are void up to this version.
    pub floor: VoidUntil,
    /// Whether all void entries, and all entries of keys that the shard does not own, are removed.
    pub is_clean: bool,
}

/// The hash fields in which a record is stored.
pub const FIELDS: [&str; 6] = ["shard", "generation", "names", "past", "floor", "clean"];

impl Record {
    /// The values of [`FIELDS`].
    pub fn values(&self) -> [String; 6] {
        let past: Vec<String> =
            self.past.iter().map(|(ring, until)| format!("{} {until} {}", ring.number, ring.names.0)).collect();
        [
            self.shard.clone(),
            self.current.number.to_string(),
            self.current.names.0.to_string(),
            past.join("\n"),
            self.floor.to_string(),
            u8::from(self.is_clean).to_string(),
        ]
    }

    /// Parses the values of [`FIELDS`]; `None` if they are not a record.
    pub fn parse(values: &[String]) -> Option<Self> {
        let [shard, number, names, past, floor, clean] = values else { return None };
        let ring =
            |number: &str, names: &str| Some(Generation { number: number.parse().ok()?, names: Names(names.into()) });
        let past = past.lines().map(|line| {
            let mut parts = line.splitn(3, ' ');
            let (number, until, names) = (parts.next()?, parts.next()?, parts.next()?);
            Some((ring(number, names)?, VoidUntil::parse(until)?))
        });
        Some(Self {
            shard: shard.clone(),
            current: ring(number, names)?,
            past: past.collect::<Option<_>>()?,
            floor: VoidUntil::parse(floor)?,
            is_clean: clean == "1",
        })
    }

    /// All rings in the record.
    pub fn rings(&self) -> impl Iterator<Item = &Generation> {
        self.past.keys().chain([&self.current])
    }

    /// The same record after all void entries were removed.
    pub fn cleaned(&self) -> Self {
        let past = self.past.keys().map(|ring| (ring.clone(), VoidUntil::Nothing)).collect();
        Self { past, floor: VoidUntil::Nothing, is_clean: true, ..self.clone() }
    }

    /// Drops the oldest past rings above the limit.
    fn bounded(mut self) -> Self {
        while self.past.len() > MAX_RINGS {
            if let Some((_, until)) = self.past.pop_first() {
                self.floor = self.floor.max(until);
            }
        }
        self
    }
}

/// What an instance found on a shard.
#[derive(Clone, Debug)]
pub struct Seen {
    pub record: Option<Record>,
    /// Whether it holds keys other than `sidecache:*`.
    pub has_data: bool,
}

/// The number of the ring `mine`, and whether it is a new number. A new number is needed unless `mine` is the ring of
/// all the records with the highest number.
pub fn number<'r>(mine: &Names, records: impl Iterator<Item = &'r Record> + Clone) -> (u64, bool) {
    let Some(newest) = records.clone().map(|record| record.current.number).max() else { return (1, false) };
    let mut rings = records.filter(|record| record.current.number == newest);
    if rings.all(|record| record.current.names == *mine) { (newest, false) } else { (newest + 1, true) }
}

/// The record that the shard named `shard` must have before it serves under `mine`. `known` are the rings of all
/// records.
pub fn adopted(shard: &str, mine: &Generation, known: &BTreeSet<Generation>, seen: &Seen) -> Record {
    let others = || known.iter().filter(|ring| *ring != mine);
    let fresh = |floor, is_clean| Record {
        shard: shard.to_owned(),
        current: mine.clone(),
        past: others().map(|ring| (ring.clone(), VoidUntil::Nothing)).collect(),
        floor,
        is_clean,
    };
    let record = match &seen.record {
        None if !seen.has_data => fresh(VoidUntil::Nothing, true),
        // There was no change of the ring yet, so the data is from before records existed.
        None if mine.number == 1 => fresh(VoidUntil::Nothing, false),
        None => fresh(VoidUntil::Now, false),
        Some(record) if record.shard != shard || misses_an_unknown_ring(record, mine, known) => {
            fresh(VoidUntil::Now, false)
        }
        Some(record) => {
            let mut past = record.past.clone();
            let oldest = past.first_key_value().map_or(record.current.number, |(ring, _)| ring.number);
            // Older rings were dropped when their void entries were removed, or they are covered by `floor`.
            let missed =
                others().filter(|ring| ring.number >= record.current.number || ring.number > oldest).cloned();
            let now_past = (record.current != *mine).then(|| record.current.clone());
            for ring in missed.chain(now_past) {
                // Keys that the present ring gives to other shards are void anyway.
                let until = if ring.names == mine.names { VoidUntil::Nothing } else { VoidUntil::Now };
                past.entry(ring).or_insert(until);
            }
            let is_clean = record.is_clean && !past.values().any(|until| *until == VoidUntil::Now);
            Record { shard: shard.to_owned(), current: mine.clone(), past, floor: record.floor, is_clean }
        }
    };
    record.bounded()
}

/// Whether the shard missed a ring that is in no record. Then it is unknown where the keys were at that time.
fn misses_an_unknown_ring(record: &Record, mine: &Generation, known: &BTreeSet<Generation>) -> bool {
    let numbers: BTreeSet<u64> = known.iter().map(|ring| ring.number).collect();
    let missed = mine.number.saturating_sub(record.current.number + 1);
    let range = record.current.number + 1..mine.number.max(record.current.number + 1);
    (numbers.range(range).count() as u64) < missed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Names {
        Names::new(&of.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    fn generation(number: u64, of: &[&str]) -> Generation {
        Generation { number, names: names(of) }
    }

    #[test]
    fn a_record_is_parsed_as_it_was_written() {
        let past = [(generation(3, &["a"]), VoidUntil::Nothing), (generation(4, &["a", "c"]), VoidUntil::At(7))];
        let record = Record {
            shard: "a".into(),
            current: generation(5, &["b", "a"]),
            past: past.into(),
            floor: VoidUntil::At(3),
            is_clean: false,
        };
        let values = record.values();
        assert_eq!(values, ["a", "5", "a,b", "3 0 a\n4 7 a,c", "3", "0"]);
        assert_eq!(Record::parse(&values), Some(record));
        for (field, wrong) in [(1, "x"), (3, "3 0"), (3, "3 x a"), (4, ""), (4, NOW)] {
            let mut values = values.clone();
            values[field] = wrong.to_owned();
            assert_eq!(Record::parse(&values), None, "{values:?}");
        }
    }

    #[test]
    fn the_data_of_a_shard_that_missed_an_unknown_ring_is_void() {
        let old =
            adopted("a", &generation(1, &["a", "b"]), &BTreeSet::new(), &Seen { record: None, has_data: false });
        assert!(old.is_clean);
        let seen = Seen { record: Some(old), has_data: true };
        let known = |numbers: &[u64]| numbers.iter().map(|number| generation(*number, &["b", "c"])).collect();
        let mine = generation(4, &["a", "b"]);
        assert_eq!(adopted("a", &mine, &known(&[3]), &seen).floor, VoidUntil::Now);
        assert_eq!(adopted("a", &mine, &known(&[2, 3]), &seen).floor, VoidUntil::Nothing);
        assert_eq!(adopted("b", &mine, &known(&[2, 3]), &seen).floor, VoidUntil::Now, "the data of another shard");
    }

    #[test]
    fn entries_made_void_by_dropped_rings_stay_void() {
        let past = (1..=MAX_RINGS as u64 + 2).map(|number| (generation(number, &["b"]), VoidUntil::At(number * 10)));
        let record = Record {
            shard: "a".into(),
            current: generation(40, &["a"]),
            past: past.collect(),
            floor: VoidUntil::Nothing,
            is_clean: false,
        };
        let bounded = record.bounded();
        assert_eq!((bounded.past.len(), bounded.floor), (MAX_RINGS, VoidUntil::At(20)));
    }

    #[test]
    fn two_rings_with_the_same_number_get_a_new_number() {
        let fresh = |shard: &str, of: &[&str]| {
            adopted(shard, &generation(1, of), &BTreeSet::new(), &Seen { record: None, has_data: false })
        };
        let (a, b) = (fresh("a", &["a", "c"]), fresh("b", &["b", "c"]));
        assert_eq!(number(&names(&["a", "c"]), [&a].into_iter()), (1, false));
        assert_eq!(number(&names(&["a", "c"]), [&a, &b].into_iter()), (2, true));
        assert_eq!(number(&names(&["a", "c"]), [].into_iter()), (1, false));
    }
}
